"""Fences: signalled once, callbacks, errors and times, and what becomes of those that are dropped."""

from __future__ import annotations

import errno
import gc
import sys
import threading
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fences import Calls, make
from gpuvm.errors import CheckFailed, InvalidArgument
from gpuvm.sync.fence import U64_MAX, Fence, FenceStatistics, fence_context_alloc, stub_fence
from gpuvm.testing import Interleaving, explore
from suite import scaled

# -- once


def test_only_one_of_many_signals() -> None:
    def scenario(run: Interleaving) -> Callable[[], None]:
        fence, calls = make(), Calls()
        fence.add_callback(calls)
        refused: list[InvalidArgument] = []

        def signal() -> None:
            try:
                fence.signal()
            except InvalidArgument as error:
                refused.append(error)

        for _ in range(3):
            run.spawn(signal)

        def check() -> None:
            assert len(refused) == 2
            assert calls.fences == [fence]

        return check

    assert explore(scenario, limit=scaled(1_000, 10_000)).schedules > 10


def test_enable_signaling_is_called_once_and_before_the_first_callback() -> None:
    class Watched(Fence):
        __slots__ = ("enabled",)
        enabled: int

        def enable_signaling(self) -> bool:
            self.enabled += 1
            assert self.statistics().callbacks == 0
            return True

    def scenario(run: Interleaving) -> Callable[[], None]:
        fence = Watched(fence_context_alloc(), 1)
        fence.enabled = 0
        calls = Calls()
        run.spawn(fence.add_callback, calls)
        run.spawn(fence.enable_sw_signaling)
        run.run()

        def check() -> None:
            assert fence.enabled == 1
            fence.signal()
            assert calls.fences == [fence]

        return check

    explore(scenario)


def test_enable_signaling_may_find_that_it_is_done() -> None:
    class Done(Fence):
        __slots__ = ()

        def enable_signaling(self) -> bool:
            return False

    fence, calls = Done(fence_context_alloc(), 1), Calls()
    assert not fence.signalled
    assert not fence.add_callback(calls)
    assert fence.signalled
    assert calls.fences == []
    assert Done(1, 1).wait()
    fence.check()


# -- callbacks


def test_callbacks_run_in_order_in_the_signallers_thread() -> None:
    fence = make()
    order: list[tuple[int, int]] = []

    def callback(number: int) -> Callable[[Fence], None]:
        return lambda _: order.append((number, threading.get_ident()))

    for number in range(10):
        assert fence.add_callback(callback(number))
    thread = threading.Thread(target=fence.signal)
    thread.start()
    ident = thread.ident
    thread.join()
    assert order == [(number, ident) for number in range(10)]


def test_a_callback_sees_the_fence_signalled_and_may_use_it() -> None:
    fence, late, never = make(), Calls(), Calls()

    def callback(seen: Fence) -> None:
        assert seen is fence
        assert seen.signalled
        assert seen.wait(0)
        assert not seen.add_callback(late)
        assert seen.remove_callback(never)
        with pytest.raises(InvalidArgument):
            seen.signal()

    fence.add_callback(callback)
    fence.add_callback(never)
    fence.signal()
    assert late.fences == never.fences == []


def test_an_exception_does_not_stop_the_other_callbacks(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[sys.UnraisableHookArgs] = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    fence, calls = make(), Calls()

    def broken(_: Fence) -> None:
        raise ZeroDivisionError("broken on purpose")

    fence.add_callback(broken)
    fence.add_callback(calls)
    fence.signal()
    assert calls.fences == [fence]
    (args,) = told
    assert isinstance(args.exc_value, ZeroDivisionError)
    assert "broken" in repr(args.object)


def test_the_end_of_the_program_does_not_stop_the_other_callbacks() -> None:
    fence, calls = make(), Calls()

    def leave(_: Fence) -> None:
        raise SystemExit(3)

    fence.add_callback(leave)
    fence.add_callback(calls)
    with pytest.raises(SystemExit):
        fence.signal()
    assert calls.fences == [fence]


def test_a_callback_with_its_own_equality_is_not_confused() -> None:
    class Same(Calls):
        def __eq__(self, other: object) -> bool:
            return isinstance(other, Same)

        def __hash__(self) -> int:
            return 1

    fence, first, second = make(), Same(), Same()
    fence.add_callback(first)
    fence.add_callback(second)
    assert fence.remove_callback(second)
    fence.signal()
    assert (len(first.fences), len(second.fences)) == (0, 1)


@given(st.lists(st.tuples(st.sampled_from(["add", "remove"]), st.integers(0, 3))), st.data())
def test_callbacks_against_a_list(steps: list[tuple[str, int]], data: st.DataObject) -> None:
    fence = make()
    called: list[int] = []
    callbacks = [lambda _, number=number: called.append(number) for number in range(4)]
    model: list[int] = []
    signal_at = data.draw(st.integers(0, len(steps)))
    expected: list[int] | None = None
    for position, (step, number) in enumerate(steps):
        if position == signal_at:
            expected, model = model, []
            fence.signal()
            assert called == expected
        if step == "add":
            assert fence.add_callback(callbacks[number]) == (expected is None)
            if expected is None:
                model.append(number)
        else:
            assert fence.remove_callback(callbacks[number]) == (number in model)
            if number in model:
                model.remove(number)
        fence.check()
        assert fence.statistics().callbacks == len(model)
    if expected is None:
        fence.signal()
        assert called == model


# -- errors, times, order


@pytest.mark.parametrize("error", [0, -errno.EIO, 4096])
def test_what_is_no_errno_is_refused(error: int) -> None:
    fence = make()
    with pytest.raises(InvalidArgument, match=r"^set_error: ") as caught:
        fence.set_error(error)
    assert caught.value.value == error
    assert fence.error == 0


def test_no_error_after_the_signal() -> None:
    fence = make()
    fence.signal()
    with pytest.raises(InvalidArgument, match="signalled already"):
        fence.set_error(errno.EIO)
    assert fence.status == 1


def test_timestamp() -> None:
    fence = make()
    assert fence.timestamp is None
    fence.signal(123)
    assert fence.timestamp == 123


def test_the_earliest_deadline_counts_until_the_signal() -> None:
    fence = make()
    seen = []
    for deadline in (50, 70, 20, 30):
        fence.set_deadline(deadline)
        seen.append(fence.deadline)
    fence.signal()
    fence.set_deadline(1)
    assert seen == [50, 50, 20, 20]
    assert fence.deadline == 20


def test_order_is_of_one_context_and_64_bit() -> None:
    context = fence_context_alloc()
    low, high = Fence(context, 1), Fence(context, 1 << 63)
    assert high.is_later(low)
    assert not low.is_later(high)
    assert not low.is_later(low)
    with pytest.raises(InvalidArgument, match="different contexts"):
        low.is_later(make())


@pytest.mark.parametrize(("context", "seqno"), [(-1, 0), (0, -1), (U64_MAX + 1, 0), (0, U64_MAX + 1)])
def test_numbers_are_u64(context: int, seqno: int) -> None:
    with pytest.raises(InvalidArgument, match="u64"):
        Fence(context, seqno)


def test_contexts_are_fresh_and_successive() -> None:
    with pytest.raises(InvalidArgument, match="at least 1"):
        fence_context_alloc(0)
    taken: list[range] = []

    def take() -> None:
        for count in range(1, 50):
            first = fence_context_alloc(count)
            taken.append(range(first, first + count))

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    numbers = [number for numbers in taken for number in numbers]
    assert len(set(numbers)) == len(numbers) == 4 * sum(range(1, 50))


# -- the end


def test_a_fence_dropped_with_callbacks_is_signalled_with_an_error() -> None:
    fence = make()
    seen: list[tuple[int, bool]] = []
    fence.add_callback(lambda it: seen.append((it.status, it.signalled)))
    last = [fence]
    del fence
    with pytest.warns(RuntimeWarning, match="dropped unsignalled"):
        last.clear()
    assert seen == [(-errno.EDEADLK, True)]


def test_a_fence_dropped_in_a_cycle_is_signalled_too() -> None:
    fence = make()
    seen: list[int] = []

    def callback(it: Fence, keep: Fence = fence) -> None:
        seen.append(it.status)

    fence.add_callback(callback)
    del fence, callback
    with pytest.warns(RuntimeWarning, match="dropped unsignalled"):
        gc.collect()
    assert seen == [-errno.EDEADLK]


def test_a_fence_dropped_without_callbacks_is_nobodys_business() -> None:
    make()
    fence = make()
    calls = Calls()
    fence.add_callback(calls)
    fence.remove_callback(calls)
    del fence
    gc.collect()
    assert calls.fences == []


def test_a_finalizer_may_use_the_fence_that_the_thread_is_working_on() -> None:
    """The collector runs in the middle of a call, and what it frees uses that very fence."""
    fence, calls = make(), Calls()
    finalized = Calls()

    class Finalizer:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            finalized.fences.append(fence)
            fence.set_deadline(5)
            if fence.add_callback(calls):
                fence.remove_callback(calls)
            fence.wait(0)
            orphan = make()
            orphan.add_callback(calls)
            orphan.signal()

    before = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for _ in range(50):
            Finalizer()
            fence.add_callback(calls)
            fence.wait(0)
            fence.remove_callback(calls)
        fence.signal()
    finally:
        gc.set_threshold(*before)
    gc.collect()
    assert len(finalized.fences) == 50
    assert len(calls.fences) == 50
    fence.check()


# -- itself


def test_check_finds_a_broken_fence() -> None:
    fence = make()
    fence.check()
    fence.add_callback(print)
    fence._done.append((0, 0))
    with pytest.raises(CheckFailed, match="built-in function print"):
        fence.check()


def test_statistics_and_repr() -> None:
    fence = Fence(7, 9, driver="nouveau", timeline="channel 1")
    assert fence.statistics() == FenceStatistics(7, 9, 0, 0, None, None)
    assert repr(fence) == "<Fence nouveau/channel 1 7:9 pending>"
    fence.set_deadline(3)
    fence.set_error(errno.ECANCELED)
    fence.signal(11)
    assert fence.statistics() == FenceStatistics(7, 9, -errno.ECANCELED, 0, 11, 3)
    assert repr(fence) == "<Fence nouveau/channel 1 7:9 ECANCELED>"
    assert repr(stub_fence()) == "<Fence stub 0:0 signalled>"
