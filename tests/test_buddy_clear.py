"""Buddy: what is known to be zero, and what that costs."""

from __future__ import annotations

from random import Random

import pytest

import gpuvm
from buddies import PAGE, Request, Run, free_sizes, pages_of, roots, with_free
from gpuvm.mem.buddy import Buddy
from suite import scaled

MIB = 1 << 20


def cleared(buddy: Buddy, run: Run) -> bool:
    return buddy.dirty(*run) == []


def test_memory_is_dirty_at_first() -> None:
    buddy = Buddy(16 * PAGE)
    assert buddy.cleared_bytes == 0
    (run,) = buddy.alloc(5 * PAGE, clear=True)
    assert buddy.dirty(*run) == [run]


@pytest.mark.parametrize("clear", [False, True])
def test_each_asks_for_its_own_first(clear: bool) -> None:
    buddy = with_free(16, {2, 5, 9}, {4, 11, 13})
    for page in (4, 11, 13) if clear else (2, 5, 9):
        (run,) = buddy.alloc(PAGE, clear=clear)
        assert run == (page * PAGE, PAGE)
        assert cleared(buddy, run) is clear
    (run,) = buddy.alloc(PAGE, clear=clear)
    assert cleared(buddy, run) is not clear, "the others are better than nothing"


def test_only_like_buddies_merge() -> None:
    buddy = Buddy(4 * PAGE)
    runs = [Request(1, 1, page, page + 1).of(buddy)[0] for page in range(4)]
    for run, zero in zip(runs, (True, False, True, True), strict=True):
        buddy.free(*run, cleared=zero)
    assert free_sizes(buddy) == [1, 1, 2]
    assert buddy.cleared_bytes == 3 * PAGE
    assert buddy.alloc(PAGE) == [(PAGE, PAGE)]
    buddy.free(PAGE, PAGE, cleared=True)
    assert free_sizes(buddy) == [4]
    assert buddy.cleared_bytes == 4 * PAGE


def test_the_dirty_parts_of_a_run() -> None:
    buddy = with_free(16, {1, 4, 5, 8}, {2, 3, 6, 7})
    assert buddy.alloc(8 * PAGE, contiguous=True) == [(PAGE, 8 * PAGE)]
    assert buddy.dirty(PAGE, 8 * PAGE) == [(PAGE, PAGE), (4 * PAGE, 2 * PAGE), (8 * PAGE, PAGE)]
    assert buddy.dirty(2 * PAGE, 2 * PAGE) == []
    buddy.free(PAGE, 8 * PAGE, cleared=True)
    assert buddy.cleared_bytes == 8 * PAGE


def test_what_is_trimmed_keeps_its_state() -> None:
    buddy = with_free(16, {8, 9, 10, 11}, {12, 13, 14, 15})
    buddy.alloc(8 * PAGE, contiguous=True)
    buddy.trim(8 * PAGE, 8 * PAGE, 2 * PAGE, start=11 * PAGE)
    buddy.check()
    assert (buddy.free_bytes, buddy.cleared_bytes) == (6 * PAGE, 3 * PAGE)
    assert buddy.dirty(11 * PAGE, 2 * PAGE) == [(11 * PAGE, PAGE)]


# -- force


def test_unlike_buddies_are_merged_when_nothing_else_helps() -> None:
    buddy = with_free(16, {0, 4, 7}, {1, 5, 6})
    assert buddy.alloc(2 * PAGE, clear=True) == [(PAGE, PAGE), (5 * PAGE, PAGE)]
    buddy.free(PAGE, PAGE, cleared=True)
    buddy.free(5 * PAGE, PAGE, cleared=True)
    assert buddy.statistics().forced_merges == 0
    (run,) = buddy.alloc(4 * PAGE, min_block=4 * PAGE, clear=True)
    assert buddy.dirty(*run) == [run]
    assert run == (4 * PAGE, 4 * PAGE)
    assert buddy.statistics().forced_merges == 1
    assert buddy.cleared_bytes == PAGE, "page 1 was left alone"
    buddy.free(*run, cleared=True)
    assert buddy.cleared_bytes == 5 * PAGE


def test_force_is_used_as_little_as_possible() -> None:
    buddy = with_free(32, {0, 8, 9, 10, 11, 16}, {1, 17})
    assert buddy.alloc(6 * PAGE, min_block=2 * PAGE) == [(8 * PAGE, 4 * PAGE), (0, 2 * PAGE)]
    assert buddy.cleared_bytes == PAGE, "17 is still clear"
    buddy.check()


def test_force_that_would_not_suffice_is_not_used() -> None:
    buddy = with_free(32, {0, 8, 16}, {1, 17})
    with pytest.raises(gpuvm.NoSpace):
        buddy.alloc(6 * PAGE, min_block=2 * PAGE)
    with pytest.raises(gpuvm.NoSpace):
        Request(4, 2, 0, 17).of(buddy)
    assert (buddy.cleared_bytes, buddy.statistics().forced_merges) == (2 * PAGE, 0)
    assert Request(4, 2, 0, 18).of(buddy) == [(0, 2 * PAGE), (16 * PAGE, 2 * PAGE)]


def test_contiguous_memory_needs_no_force() -> None:
    buddy = with_free(16, {4, 6, 7}, {5})
    (run,) = buddy.alloc(4 * PAGE, min_block=4 * PAGE, contiguous=True)
    assert buddy.dirty(*run) == [(4 * PAGE, PAGE), (6 * PAGE, 2 * PAGE)]
    assert buddy.statistics().forced_merges == 0


def test_reset_clear() -> None:
    """All that is free becomes alike, and so merges; what is allocated is left alone."""
    buddy = with_free(21, range(1, 20, 2), range(0, 20, 2))
    (kept,) = buddy.alloc(PAGE, clear=True)
    for state in (False, True, True, False):
        buddy.reset_clear(state)
        buddy.check()
        assert buddy.cleared_bytes == (19 * PAGE if state else 0)
        assert free_sizes(buddy) == [1, 2, 4, 4, 8]
        assert cleared(buddy, kept)


# -- the kernel's scenarios (drivers/gpu/tests/gpu_buddy_test.c), told anew


def test_kernel_dirty_and_clear_by_turns() -> None:
    buddy = Buddy(PAGE << 12)
    for run in buddy.alloc(5 * PAGE, top_down=True):
        buddy.free(*run, cleared=True)
    clean: list[Run] = []
    for turn in range(10):
        (run,) = buddy.alloc(PAGE, clear=turn % 2 == 1)
        assert cleared(buddy, run) is (turn % 2 == 1)
        if turn % 2 == 1:
            clean.append(run)
    for run in clean:
        buddy.free(*run, cleared=True)
    runs = buddy.alloc(10 * PAGE, clear=True)
    dirty = {page for run in runs for part in buddy.dirty(*run) for page in pages_of(part)}
    assert len(dirty) == 8, "a large block is preferred to clear ones"


def test_kernel_fragments_by_turns_clear_and_dirty() -> None:
    """Every order can be had by force, and is dirty then."""
    pages = 1 << 12
    buddy = with_free(pages, range(0, pages, 2), range(1, pages, 2))
    assert free_sizes(buddy) == [1] * pages
    for order in range(1, 13):
        (run,) = buddy.alloc(PAGE << order, min_block=PAGE << order, clear=True)
        assert buddy.dirty(*run) == [run]
        buddy.free(*run)
        buddy.check()
    assert free_sizes(buddy) == [pages]


@pytest.mark.parametrize("state", [False, True])
def test_kernel_reset_over_roots(state: bool) -> None:
    pages = (1 << 12) + (1 << 10)
    buddy = Buddy(pages * PAGE)
    runs = [buddy.alloc(PAGE)[0] for _ in range(pages)]
    for run in runs[::2]:
        buddy.free(*run, cleared=True)
    for run in runs[1::2]:
        buddy.free(*run)
    buddy.reset_clear(state)
    buddy.check()
    assert buddy.cleared_bytes == (buddy.size if state else 0)
    assert free_sizes(buddy) == roots(pages)


def test_kernel_nothing_is_clear_in_a_window_at_first() -> None:
    random, buddy = Random(9), Buddy(8 * MIB - PAGE)
    first, last = sorted(random.sample(range(2048), 2))
    for run in Request(random.randint(1, last - first), 1, first, last, clear=True).of(buddy):
        assert buddy.dirty(*run) == [run]


def test_kernel_severe_fragmentation() -> None:
    """Small blocks at large multiples, freed so that nothing merges; then the large blocks are asked for."""
    size = scaled(64 * MIB, 4096 * MIB)
    buddy = Buddy(size)
    unit = 16 * PAGE
    runs = [buddy.alloc(2 * PAGE, min_block=unit)[0] for _ in range(size // unit)]
    for index, run in enumerate(runs):
        buddy.free(*run, cleared=index % 4 in (0, 3))
    buddy.check()
    large = [buddy.alloc(unit, min_block=unit)[0] for _ in range(size // unit)]
    assert sorted(large) == [(addr, unit) for addr in range(0, size, unit)]
    for run in large:
        buddy.free(*run)
    runs = [buddy.alloc(2 * PAGE, min_block=unit)[0] for _ in range(size // unit)]
    for run in [*runs[::2], *reversed(runs[1::2])]:
        buddy.free(*run, cleared=True)
    buddy.reset_clear(False)
    assert buddy.statistics().fragmentation == 0.0
