"""Fences that are signalled against odds: the end of the program, a full stack, finalizers, nobody left."""

from __future__ import annotations

import asyncio
import errno
import gc
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from fences import Calls, make
from gpuvm.errors import InvalidArgument
from gpuvm.sync.container import merge
from gpuvm.sync.fence import Fence
from gpuvm.sync.syncobj import SyncObj


class StoppedAfterAppend(list[Any]):
    """Ctrl-C is handled after a call: here after the one that claims the signal."""

    def append(self, item: object) -> None:
        super().append(item)
        raise KeyboardInterrupt


def test_an_end_of_the_program_just_after_the_claim() -> None:
    fence, calls = make(), [Calls(), Calls()]
    for call in calls:
        fence.add_callback(call)
    fence._done = StoppedAfterAppend()
    with pytest.raises(KeyboardInterrupt):
        fence.signal()
    assert [call.fences for call in calls] == [[fence], [fence]]
    with pytest.raises(InvalidArgument, match="signalled already"):
        fence.signal()
    fence.check()


def test_an_end_of_the_program_before_each_line() -> None:
    """Either the fence is pending and can be signalled, or each callback has run once."""
    names = {"_finish", "_run"}
    for target in range(1, 60):
        fence, calls = make(), [Calls(), Calls()]
        for call in calls:
            fence.add_callback(call)
        lines = 0

        def trace(frame: Any, event: str, _: object, target: int = target) -> Any:
            nonlocal lines
            code = frame.f_code
            if code.co_name not in names or "gpuvm" not in code.co_filename:
                return None
            if event == "line":
                lines += 1
                # Python stops for nothing between the two statements that take a callback out and call it.
                if lines == target and "callback" not in frame.f_locals:
                    raise KeyboardInterrupt
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            fence.signal()
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(before)
        if not fence._done:
            fence.signal()
        assert [call.fences for call in calls] == [[fence], [fence]], target
        after = make()
        after.add_callback(calls[0])
        after.signal()
        assert calls[0].fences[-1] is after


def test_a_sleeper_whose_callback_was_stopped_is_woken() -> None:
    fence = make()
    stopped: list[int] = []
    woken: list[bool] = []
    thread = threading.Thread(target=lambda: woken.append(fence.wait(60.0)))
    thread.start()
    while not fence.statistics().callbacks:
        pass
    (wait,) = fence._callbacks.values()
    wake = wait._waiter.wake  # type: ignore[attr-defined]

    class Waiter:
        def wake(self) -> None:
            if not stopped:
                stopped.append(1)
                raise KeyboardInterrupt
            wake()

    waiter, wait._waiter = wait._waiter, Waiter()  # type: ignore[attr-defined]
    with pytest.raises(KeyboardInterrupt):
        fence.signal()
    thread.join()
    assert (woken, stopped, waiter.woken) == ([True], [1], True)


@pytest.mark.parametrize("count", [400, 5_000])
def test_fences_each_of_which_signals_the_next(count: int) -> None:
    fences = [make() for _ in range(count)]
    order: list[int] = []
    depths: set[int] = set()

    def signal_next(number: int) -> Callable[[Fence], None]:
        def callback(_: Fence) -> None:
            order.append(number)
            depth, frame = 0, sys._getframe()
            while frame.f_back is not None:
                depth, frame = depth + 1, frame.f_back
            depths.add(depth)
            if number + 1 < count:
                fences[number + 1].signal()

        return callback

    for number, fence in enumerate(fences):
        fence.add_callback(signal_next(number))
    fences[0].signal()
    assert order == list(range(count))
    assert len(depths) == 1
    assert all(fence.signalled for fence in fences)


def test_what_a_callback_signals_is_called_back_after_what_is_due() -> None:
    first, second = make(), make()
    order: list[str] = []

    def signal_second(_: Fence) -> None:
        second.signal()
        order.append("first's first, which signalled second")
        assert second.signalled

    first.add_callback(signal_second)
    first.add_callback(lambda _: order.append("first's second"))
    second.add_callback(lambda _: order.append("second's"))
    first.signal()
    assert order == ["first's first, which signalled second", "first's second", "second's"]


def test_a_callback_that_sleeps_for_what_it_left_behind() -> None:
    first, second, third = make(), make(), make()

    def callback(_: Fence) -> None:
        second.signal()
        assert third.wait(60.0)

    first.add_callback(callback)
    second.add_callback(lambda _: third.signal())
    calls = Calls()
    first.add_callback(calls)
    first.signal()
    assert third.signalled
    assert calls.fences == [first]


def test_a_full_stack_leaves_the_fence_pending_or_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """At each depth near the limit: a sleeper is woken, or the fence can still be signalled."""
    told: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)

    class Wakes(Calls):
        def __call__(self, fence: Fence) -> None:
            self.deeper(4, fence)

        def deeper(self, levels: int, fence: Fence) -> None:
            if levels:
                self.deeper(levels - 1, fence)
            else:
                super().__call__(fence)

    def signal_at(depth: int, fence: Fence) -> None:
        if depth:
            signal_at(depth - 1, fence)
        else:
            fence.signal()

    refused = 0
    for depth in range(sys.getrecursionlimit() - 150, sys.getrecursionlimit()):
        fence, calls = make(), Wakes()
        fence.add_callback(calls)
        try:
            signal_at(depth, fence)
        except RecursionError:
            refused += 1
        assert len(calls.fences) == fence.signalled
        if not fence.signalled:
            fence.signal()
    assert 0 < refused < 150
    assert told == []


# -- finalizers


class AddsWhenCollected:
    def __init__(self, add: Callable[[], object]) -> None:
        self.itself = self
        self.add = add

    def __del__(self) -> None:
        self.add()


def test_finalizers_while_all_callbacks_are_looked_at() -> None:
    fence = make()
    for _ in range(3_000):
        fence.add_callback(Calls())
    for _ in range(300):
        for _ in range(10):
            AddsWhenCollected(lambda: fence.add_callback(print))
        assert not fence.remove_callback(len)
    while fence.remove_callback(print):
        pass
    fence.signal()
    gc.collect()


def test_finalizers_while_all_watchers_are_served() -> None:
    class Watcher:
        point = 9

        def offer(self, fence: Fence) -> None:
            raise AssertionError("point 9 was never submitted")

    syncobj = SyncObj()
    for _ in range(3_000):
        syncobj.watch(Watcher())
    for _ in range(300):
        for _ in range(10):
            AddsWhenCollected(lambda: syncobj.watch(Watcher()))
        syncobj.signal()
    gc.collect()


# -- nobody is left who could signal it


def test_a_sleeper_does_not_keep_the_fence() -> None:
    with pytest.warns(RuntimeWarning, match="dropped unsignalled"):
        woken = make().wait()  # an assert would keep it
    assert woken


def test_an_await_does_not_keep_the_fence() -> None:
    async def main() -> None:
        await make()

    with pytest.warns(RuntimeWarning, match="dropped unsignalled"):
        asyncio.run(main())


def test_a_container_goes_with_the_fences_in_it() -> None:
    errors: list[int] = []
    both = merge(make(), make())
    both.add_callback(lambda fence: errors.append(fence.error))
    del both
    with pytest.warns(RuntimeWarning, match="dropped unsignalled"):
        gc.collect()
    assert errors == [errno.EDEADLK]
