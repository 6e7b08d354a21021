"""The lock validator: fence-signalling sections, and waiting for fences with locks held."""

from __future__ import annotations

import pytest

from gpuvm.errors import LockdepError
from gpuvm.sync import lockdep
from gpuvm.sync.mutex import Mutex
from gpuvm.va import GpuvaManager
from locks import Point, bare, in_thread, nested, report_of


def wait_holding(lock: Mutex, fence: Point) -> None:
    with lock:
        lockdep.might_wait(fence)


def lock_signalling(lock: Mutex, context: int) -> None:
    with lockdep.fence_signalling(context), lock:
        pass


def test_no_reservation_inside() -> None:
    resv = bare("bo 3", "resv", reservation=True)
    with lockdep.fence_signalling(5, 6):
        with pytest.raises(LockdepError, match="reservation in a fence-signalling section") as raised:
            lockdep.acquire(resv)
        assert 'has to signal fences of context 5, 6, takes "bo 3" (class resv)' in str(raised.value)
        lockdep.acquire(resv, trylock=True)
        lockdep.release(resv)
    lockdep.acquire(resv)
    lockdep.release(resv)


def test_no_foreign_wait_inside() -> None:
    with lockdep.fence_signalling(5):
        lockdep.might_wait(Point(5))
        with pytest.raises(LockdepError, match=r"foreign wait .* has to signal .* 5, waits for fence 9:1"):
            lockdep.might_wait(Point(9))
    lockdep.might_wait(Point(9))


def test_nested_sections_obey_the_rules_of_all() -> None:
    with lockdep.fence_signalling(5, 6):
        with lockdep.fence_signalling(6, 7):
            lockdep.might_wait(Point(6))
            for context in (5, 7):
                with pytest.raises(LockdepError, match="foreign wait"):
                    lockdep.might_wait(Point(context))
        lockdep.might_wait(Point(5))
        lockdep.check()
    lockdep.check()


def test_core_may_not_allocate_inside() -> None:
    vm = GpuvaManager("vm", range=1 << 48)
    with lockdep.fence_signalling(5):
        with lockdep.fence_signalling(6):
            pass
        with pytest.raises(LockdepError, match="allocation in a fence-signalling section"):
            vm.sm_map(0x1000, 0x1000).apply()
    assert len(vm) == 0
    vm.sm_map(0x1000, 0x1000).apply()
    vm.check()


def test_section_that_ends_by_an_error_allows_again() -> None:
    vm = GpuvaManager("vm", range=1 << 48)
    with pytest.raises(LockdepError, match="foreign wait"), lockdep.fence_signalling(5):
        lockdep.might_wait(Point(9))
    vm.sm_map(0x1000, 0x1000).apply()
    lockdep.check()


def test_locks_that_waiters_hold_and_signallers_take() -> None:
    queue = Mutex("queue")
    assert in_thread("waiter", wait_holding, queue, Point(5, 3)) is None
    report = report_of("signaller", lock_signalling, queue, 5)
    assert "queue -> fence -> queue" in report
    assert '1. waiter, which held "queue" (class queue), waited for fence 5:3:' in report
    assert "2. signaller, which has to signal fences of context 5, now takes" in report
    assert "What to do: do not hold queue while waiting for a fence; or do not take queue between" in report


def test_locks_that_signallers_take_and_waiters_hold() -> None:
    queue = Mutex("queue")
    assert in_thread("signaller", lock_signalling, queue, 5) is None
    report = report_of("waiter", wait_holding, queue, Point(5, 3))
    assert "fence -> queue -> fence" in report
    assert '2. waiter, which holds "queue" (class queue), now waits for fence 5:3:' in report


def test_wait_and_section_with_a_lock_between() -> None:
    outer, inner = Mutex("outer"), Mutex("inner")
    assert in_thread("signaller", lock_signalling, inner, 5) is None
    assert in_thread("nester", nested, inner, outer) is None
    report = report_of("waiter", wait_holding, outer, Point(5))
    assert "fence -> inner -> outer -> fence" in report
    assert "do not hold outer while waiting for a fence; or do not take inner between" in report


def test_own_fence_waited_for_with_a_lock_tried_inside() -> None:
    queue = bare("queue")
    with lockdep.fence_signalling(5):
        lockdep.acquire(queue, trylock=True)
        lockdep.might_wait(Point(5))
        lockdep.release(queue)
    assert "queue -> fence -> queue" in report_of("other", lock_signalling, Mutex("queue"), 5)


def test_beginning_a_section_is_ordered_after_nothing() -> None:
    queue = Mutex("queue")

    def begin_holding() -> None:
        with queue, lockdep.fence_signalling(5):
            pass

    assert in_thread("one", begin_holding) is None
    assert lockdep.statistics().orders == 0
    assert in_thread("two", lock_signalling, queue, 5) is None
