"""Buddy short of memory of its own: every allocation of the core fails once; in places none is allowed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

import gpuvm
from buddies import PAGE, Request, state, with_free
from gpuvm import _core
from gpuvm.mem.buddy import Buddy
from gpuvm.sync import lockdep

MOST = 1000
"""No request asks for memory this often."""


@pytest.fixture(autouse=True)
def _disarm() -> Iterator[None]:
    yield
    _core.fail_allocation(None)


def until_it_succeeds(operation: Callable[[], object], unchanged: Callable[[], None]) -> int:
    """Run with allocation 0, 1, 2... failing; how many were refused before it went through."""
    for number in range(MOST):
        _core.fail_allocation(number)
        try:
            operation()
        except gpuvm.OutOfMemory:
            _core.fail_allocation(None)
            unchanged()
        else:
            _core.fail_allocation(None)
            return number
    raise AssertionError(f"still refused after {MOST} allocations")


REQUESTS = {
    "a page": Request(1),
    "scattered": Request(9),
    "with a rest": Request(7, 4),
    "a window from the top": Request(8, 1, 20, 60, top_down=True),
    "contiguous": Request(5, contiguous=True),
    "out of several blocks": Request(7, contiguous=True),
    "by force": Request(16, 8, clear=True),
    "by force with a rest": Request(19, 8, clear=True),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_every_allocation_may_fail(name: str) -> None:
    def scene() -> Buddy:
        return with_free(
            64, {1, *range(8, 12), *range(32, 36), *range(49, 56)}, {*range(17, 24), *range(36, 40), 48}
        )

    tried, untroubled = scene(), scene()
    before = state(tried)

    def unchanged() -> None:
        tried.check()
        assert state(tried) == before

    answer: list[object] = []
    refused = until_it_succeeds(lambda: answer.extend(REQUESTS[name].of(tried)), unchanged)
    assert refused > 0, "nothing was really refused"
    assert answer == REQUESTS[name].of(untroubled)
    assert state(tried) == state(untroubled)
    tried.check()


def test_construction_may_fail() -> None:
    made: list[Buddy] = []
    refused = until_it_succeeds(lambda: made.append(Buddy(100 * PAGE)), lambda: None)
    assert refused > 2 * 7, "a set for each order and state"
    made[0].check()


def test_giving_back_needs_no_memory() -> None:
    buddy = with_free(64, range(8), range(8, 16))
    (run,) = buddy.alloc(16 * PAGE, contiguous=True)
    _core.fail_allocation(0)
    buddy.trim(*run, 9 * PAGE, start=3 * PAGE)
    buddy.free(3 * PAGE, 9 * PAGE)
    buddy.reset_clear(True)
    buddy.check()


def test_no_allocation_in_a_fence_signalling_section() -> None:
    """Whoever makes room may wait for the fence that is to be signalled; giving memory back is allowed."""
    buddy = Buddy(64 * PAGE)
    (run,) = buddy.alloc(7 * PAGE, contiguous=True)
    before = state(buddy)
    with lockdep.fence_signalling():
        with pytest.raises(gpuvm.LockdepError, match="allocate before publishing the fence"):
            buddy.alloc(PAGE)
        with pytest.raises(gpuvm.LockdepError):
            Buddy(64 * PAGE)
        assert state(buddy) == before
        assert buddy.dirty(*run) == [run]
        buddy.trim(*run, 3 * PAGE)
        buddy.free(0, 3 * PAGE)
        buddy.reset_clear(True)
    buddy.check()
    assert buddy.alloc(64 * PAGE) == [(0, 64 * PAGE)]
