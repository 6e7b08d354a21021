"""A driver's hooks: one that raises, one that looks; deadlines that race."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable

import pytest

from fences import Calls, make
from gpuvm.errors import InvalidArgument
from gpuvm.sync import fence as fence_module
from gpuvm.sync.container import FenceArray, FenceChain
from gpuvm.sync.fence import Fence, fence_context_alloc, stub_fence
from gpuvm.sync.syncobj import SyncObj
from gpuvm.testing import Interleaving, explore, sample
from suite import scaled


class Broken(Fence):
    """A driver whose hook fails so many times."""

    __slots__ = ("asked", "failures")

    def __init__(self, failures: int) -> None:
        super().__init__(fence_context_alloc(), 1)
        self.asked = 0
        self.failures = failures

    def enable_signaling(self) -> bool:
        self.asked += 1
        if self.asked <= self.failures:
            raise OSError(errno.EIO, "no interrupts")
        return True


def test_a_hook_that_fails_is_asked_again() -> None:
    fence, calls = Broken(1), Calls()
    with pytest.raises(OSError, match="no interrupts"):
        fence.add_callback(calls)
    assert fence.statistics().callbacks == 0
    assert fence.add_callback(calls)
    assert fence.add_callback(calls)
    assert fence.asked == 2
    fence.signal()
    assert calls.fences == [fence, fence]


@pytest.mark.parametrize("signal_on_any", [False, True])
def test_an_array_of_which_one_hook_fails(signal_on_any: bool) -> None:
    broken, calls = Broken(1), Calls()
    fences = [make(), broken, make()]
    array = FenceArray(fences, signal_on_any=signal_on_any)
    with pytest.raises(OSError, match="no interrupts"):
        array.add_callback(calls)
    assert [fence.statistics().callbacks for fence in fences] == [0, 0, 0]
    assert array.add_callback(calls)
    assert [fence.statistics().callbacks for fence in fences] == [1, 1, 1]
    for fence in fences:
        fence.signal()
        assert bool(calls.fences) == array.signalled == (signal_on_any or fence is fences[-1])
    array.check()


def test_a_failed_attempt_counts_for_nothing() -> None:
    done, broken, last, calls = make(), Broken(1), make(), Calls()
    array = FenceArray([done, broken, last])
    done.signal()
    with pytest.raises(OSError, match="no interrupts"):
        array.add_callback(calls)
    assert array.add_callback(calls)
    broken.signal()
    assert calls.fences == []
    last.signal()
    assert calls.fences == [array]


def test_a_hook_that_fails_while_a_chain_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The callback that moves on has nobody to tell but the hook; the fence may be signalled all the same."""
    told: list[sys.UnraisableHookArgs] = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    old, new, calls = Broken(9), make(), Calls()
    chain = FenceChain(FenceChain(None, old, 1), new, 2)
    assert chain.add_callback(calls)
    new.signal()
    (args,) = told
    assert "no interrupts" in str(args.exc_value)
    assert calls.fences == []
    old.signal()
    assert calls.fences == [chain]


def test_a_hook_that_fails_in_the_submitters_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[sys.UnraisableHookArgs] = []

    def scenario(run: Interleaving) -> Callable[[], None]:
        told.clear()
        monkeypatch.setattr(sys, "unraisablehook", told.append)
        syncobj, fence = SyncObj(), Broken(9)
        waits = [run.spawn(syncobj.wait, 1) for _ in range(2)]

        def submit() -> None:
            # Those who came before are told of; one that comes later gets the failure itself.
            if syncobj.statistics().waiting == 2:
                syncobj.add_point(fence, 1)
                fence.signal()
            else:
                syncobj.signal(1)

        run.spawn(submit)

        def check() -> None:
            assert [wait.result for wait in waits] == [True, True]
            assert fence.asked == len(told)

        return check

    assert explore(scenario, limit=scaled(300, 3_000)).schedules > 10


def test_a_driver_that_is_polled() -> None:
    class Polled(Fence):
        __slots__ = ("registers",)
        registers: list[int]

        def poll(self) -> bool:
            return self.registers[0] >= self.seqno

    registers = [0]
    fences = [Polled(7, seqno) for seqno in (1, 2)]
    for fence in fences:
        fence.registers = registers
    calls = Calls()
    fences[0].add_callback(calls)
    array = FenceArray(fences)
    assert (fences[0].signalled, fences[0].status, array.signalled, fences[1].wait(0)) == (
        False,
        0,
        False,
        False,
    )
    registers[0] = 1
    assert (fences[0].signalled, fences[1].signalled, array.signalled) == (True, False, False)
    assert calls.fences == [fences[0]]
    registers[0] = 2
    assert fences[1].wait(0)
    assert array.wait(0)
    with pytest.raises(InvalidArgument, match="signalled already"):
        fences[0].signal()
    for fence in fences:
        fence.check()


def test_the_earliest_of_racing_deadlines_counts() -> None:
    """Between any two lines."""

    def scenario(run: Interleaving) -> Callable[[], None]:
        run.step_lines(fence_module)
        fence = make()
        for deadline in (30, 10, 20):
            run.spawn(fence.set_deadline, deadline)

        def check() -> None:
            assert fence.deadline == 10
            fence.signal()

        return check

    sample(scenario, range(scaled(100, 1_000)))


# -- looking, and what stays behind


def test_to_look_adds_no_callbacks() -> None:
    fences = [make(), make()]
    for _ in range(100):
        array = FenceArray(fences)
        chain = FenceChain(FenceChain(None, fences[0], 1), fences[1], 2)
        assert not any([array.wait(0), chain.wait(0), fences[0].wait(-1.0), array.wait_until(1)])
    assert [fence.statistics().callbacks for fence in fences] == [0, 0]


def test_an_array_for_any_that_is_done_leaves_no_callbacks() -> None:
    before, after = make(), make()
    for _ in range(100):
        assert not FenceArray([before, stub_fence(), after], signal_on_any=True).add_callback(print)
    assert [fence.statistics().callbacks for fence in (before, after)] == [0, 0]


def test_an_array_for_any_that_is_done_while_it_begins_to_watch() -> None:
    def scenario(run: Interleaving) -> Callable[[], None]:
        fences = [make() for _ in range(3)]
        array = FenceArray(fences, signal_on_any=True)
        run.spawn(array.enable_sw_signaling)
        run.spawn(fences[0].signal)

        def check() -> None:
            assert array.signalled
            assert [fence.statistics().callbacks for fence in fences[1:]] == [0, 0]

        return check

    assert explore(scenario).complete


def test_a_sleeper_is_not_looked_for_among_the_callbacks() -> None:
    """Who wakes, or gives up, has a ticket: no comparison with each callback of all others."""

    class Compared(Calls):
        def __eq__(self, other: object) -> bool:
            raise AssertionError("compared")

        def __hash__(self) -> int:
            return 1

    with Interleaving(0) as run:
        fence, syncobj, calls = make(), SyncObj(), Compared()
        syncobj.replace_fence(fence)
        fence.add_callback(calls)
        gave_up = [run.spawn(fence.wait, 1.0), run.spawn(syncobj.wait, 0, 1.0)]
        run.run()
        woken = [run.spawn(fence.wait), run.spawn(syncobj.wait)]
        run.spawn(fence.signal)
        run.run()
        assert [thread.result for thread in (*gave_up, *woken)] == [False, False, True, True]
        assert len(calls.fences) == 1
