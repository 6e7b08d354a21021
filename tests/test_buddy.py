"""Buddy: where memory comes from, what is refused, and what a refusal leaves behind."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

import gpuvm
from buddies import PAGE, Request, free_sizes, pages_of, roots, state, with_free
from gpuvm.mem.buddy import Buddy
from suite import scaled

MANY = 1 << 16
"""Pages: three levels of the sets of free blocks."""


@pytest.mark.parametrize("pages", [1, 2, 3, 7, 16, 48, 1000, MANY - 1, MANY, MANY + 1])
def test_memory_of_any_size_is_a_block_for_each_bit(pages: int) -> None:
    buddy = Buddy(pages * PAGE)
    buddy.check()
    assert free_sizes(buddy) == roots(pages)
    assert buddy.size == buddy.free_bytes == pages * PAGE
    assert buddy.alloc(pages * PAGE) == [(0, pages * PAGE)]
    assert buddy.free_bytes == 0
    buddy.free(0, pages * PAGE)
    buddy.check()
    assert free_sizes(buddy) == roots(pages)


def test_the_smallest_block_that_will_do() -> None:
    buddy = Buddy(11 * PAGE)  # blocks of 8, 2 and 1
    assert buddy.alloc(PAGE) == [(10 * PAGE, PAGE)]
    assert buddy.alloc(PAGE) == [(8 * PAGE, PAGE)], "the lower half of the block of 2"
    assert buddy.alloc(4 * PAGE) == [(0, 4 * PAGE)], "the lower half of the block of 8"


def test_from_the_top_down() -> None:
    buddy = Buddy(12 * PAGE)  # blocks of 8 and 4
    assert buddy.alloc(PAGE, top_down=True) == [(11 * PAGE, PAGE)]
    assert buddy.alloc(4 * PAGE, top_down=True) == [(4 * PAGE, 4 * PAGE)]
    assert buddy.alloc(PAGE, top_down=True) == [(10 * PAGE, PAGE)]
    assert buddy.alloc(2 * PAGE, top_down=True, last=8 * PAGE) == [(2 * PAGE, 2 * PAGE)]


def test_blocks_side_by_side_are_one_run() -> None:
    buddy = with_free(16, {1, 2, 3, 8, 9, 10})
    assert buddy.alloc(6 * PAGE) == [
        (2 * PAGE, 2 * PAGE),
        (8 * PAGE, 2 * PAGE),
        (PAGE, PAGE),
        (10 * PAGE, PAGE),
    ]
    buddy = with_free(16, {4, 5, 6, 7, 8, 9, 10})
    assert buddy.alloc(7 * PAGE) == [(4 * PAGE, 7 * PAGE)]


def test_larger_blocks_come_first() -> None:
    """So that large pages fit wherever physical memory allows them."""
    buddy = with_free(64, {0, *range(4, 8), *range(16, 32)})
    runs = buddy.alloc(21 * PAGE)
    assert runs == [(16 * PAGE, 16 * PAGE), (4 * PAGE, 4 * PAGE), (0, PAGE)]


def test_blocks_have_at_least_the_size_asked_for() -> None:
    buddy = with_free(64, set(range(8, 12)) | set(range(16, 20)) | {40, 41, 50})
    with pytest.raises(gpuvm.NoSpace):
        buddy.alloc(12 * PAGE, min_block=4 * PAGE)
    assert buddy.alloc(8 * PAGE, min_block=4 * PAGE) == [(8 * PAGE, 4 * PAGE), (16 * PAGE, 4 * PAGE)]


def test_what_is_no_whole_block_is_one_piece_at_a_multiple() -> None:
    buddy = Buddy(64 * PAGE)
    assert buddy.alloc(11 * PAGE, min_block=4 * PAGE) == [(8 * PAGE, 8 * PAGE), (0, 3 * PAGE)]
    buddy.check()
    assert buddy.alloc(PAGE) == [(3 * PAGE, PAGE)], "the rest is free"


def test_less_than_a_block_needs_no_whole_one() -> None:
    buddy = with_free(64, {3, 16, 17, 18, 33})
    assert buddy.alloc(3 * PAGE, min_block=16 * PAGE) == [(16 * PAGE, 3 * PAGE)]
    with pytest.raises(gpuvm.NoSpace):
        buddy.alloc(PAGE, min_block=2 * PAGE)
    assert buddy.alloc(2 * PAGE) == [(3 * PAGE, PAGE), (33 * PAGE, PAGE)]


@pytest.mark.parametrize("top_down", [False, True])
@pytest.mark.parametrize("align", [2, 8, 32, 64, 128, 4096])
def test_alignment_among_many_free_pages(align: int, top_down: bool) -> None:
    """Against looking at every page; words and upper levels of the sets have holes."""
    random = Random(align)
    starts = random.sample(range(0, MANY, 64), 60)
    free = {page for start in starts for page in range(start + random.randrange(3), start + 64, 3)}
    buddy = with_free(MANY, free)
    for _ in range(200):
        low, high = sorted(random.sample(range(MANY + 1), 2))
        fitting = [page for page in free if low <= page < high and page % align == 0]
        print(f"[{low}, {high}): {len(fitting)} of {len(free)} pages")
        ask = Request(1, align, low, high, top_down=top_down)
        if not fitting:
            with pytest.raises(gpuvm.NoSpace):
                ask.of(buddy)
            continue
        page = (max if top_down else min)(fitting)
        assert ask.of(buddy) == [(page * PAGE, PAGE)]
        free.remove(page)
    buddy.check()


@pytest.mark.parametrize("top_down", [False, True])
def test_windows(top_down: bool) -> None:
    """Each page can be had alone, the window's edges included, and nothing else is touched."""
    buddy = Buddy(100 * PAGE)
    order = list(range(100))
    Random(1).shuffle(order)
    for page in order:
        assert Request(1, 1, page, page + 1, top_down=top_down).of(buddy) == [(page * PAGE, PAGE)]
        with pytest.raises(gpuvm.NoSpace):
            Request(1, 1, page, page + 1).of(buddy)
    buddy.check()
    assert buddy.free_bytes == 0


def test_a_window_in_the_middle_of_a_block() -> None:
    buddy = Buddy(64 * PAGE)
    assert Request(5, 1, 9, 14).of(buddy) == [(10 * PAGE, 4 * PAGE), (9 * PAGE, PAGE)]
    assert Request(4, 4, 2, 30, top_down=True).of(buddy) == [(24 * PAGE, 4 * PAGE)]
    with pytest.raises(gpuvm.NoSpace):
        Request(4, 4, 33, 39).of(buddy)
    assert Request(3, 4, 33, 39).of(buddy) == [(36 * PAGE, 3 * PAGE)]
    buddy.check()


# -- contiguous memory


def test_contiguous_memory_is_trimmed_to_its_size() -> None:
    buddy = Buddy(64 * PAGE)
    assert buddy.alloc(21 * PAGE, contiguous=True) == [(0, 21 * PAGE)]
    assert buddy.free_bytes == 43 * PAGE
    assert buddy.alloc(11 * PAGE, contiguous=True) == [(32 * PAGE, 11 * PAGE)]
    assert buddy.alloc(11 * PAGE, contiguous=True) == [(48 * PAGE, 11 * PAGE)]
    assert buddy.alloc(11 * PAGE, contiguous=True) == [(21 * PAGE, 11 * PAGE)], "what the first one left"


def test_contiguous_memory_out_of_several_blocks() -> None:
    buddy = with_free(64, range(5, 19))
    for size, unit, start in ((9, 1, 5), (5, 1, 14)):
        assert Request(size, unit, contiguous=True).of(buddy) == [(start * PAGE, size * PAGE)]
    buddy = with_free(64, range(5, 19))
    assert Request(9, 2, contiguous=True).of(buddy) == [(6 * PAGE, 9 * PAGE)]
    buddy = with_free(64, range(5, 19))
    assert Request(9, 4, contiguous=True, top_down=True).of(buddy) == [(8 * PAGE, 9 * PAGE)]
    with pytest.raises(gpuvm.NoSpace):
        Request(4, contiguous=True).of(buddy)
    assert Request(4).of(buddy) == [(6 * PAGE, 2 * PAGE), (5 * PAGE, PAGE), (17 * PAGE, PAGE)]


def test_contiguous_memory_over_roots() -> None:
    buddy = Buddy(15 * PAGE)
    assert Request(14, contiguous=True, top_down=True).of(buddy) == [(PAGE, 14 * PAGE)]
    buddy.check()
    buddy.free(PAGE, 14 * PAGE)
    assert free_sizes(buddy) == roots(15)


def test_trim() -> None:
    buddy = Buddy(64 * PAGE)
    (run,) = buddy.alloc(32 * PAGE, contiguous=True)
    buddy.trim(*run, 21 * PAGE)
    buddy.trim(0, 21 * PAGE, 7 * PAGE, start=5 * PAGE)
    buddy.check()
    assert buddy.free_bytes == 57 * PAGE
    buddy.trim(5 * PAGE, 7 * PAGE, 7 * PAGE)
    buddy.trim(5 * PAGE, 7 * PAGE, PAGE, start=11 * PAGE)
    buddy.check()
    buddy.free(11 * PAGE, PAGE)
    assert free_sizes(buddy) == [64]


# -- errors


@pytest.mark.parametrize(
    "wrong",
    [
        lambda buddy: buddy.alloc(0),
        lambda buddy: buddy.alloc(PAGE - 1),
        lambda buddy: buddy.alloc(-PAGE),
        lambda buddy: buddy.alloc(1 << 64),
        lambda buddy: buddy.alloc(PAGE, min_block=PAGE // 2),
        lambda buddy: buddy.alloc(PAGE, min_block=3 * PAGE),
        lambda buddy: buddy.alloc(PAGE, min_block=0),
        lambda buddy: buddy.alloc(PAGE, first=8 * PAGE, last=8 * PAGE),
        lambda buddy: buddy.alloc(PAGE, first=8 * PAGE, last=7 * PAGE),
        lambda buddy: buddy.alloc(PAGE, first=1),
        lambda buddy: buddy.alloc(PAGE, last=PAGE + 1),
        lambda buddy: buddy.alloc(PAGE, last=65 * PAGE),
        lambda buddy: buddy.alloc(PAGE, first=64 * PAGE),
        lambda buddy: buddy.free(0, 2 * PAGE),
        lambda buddy: buddy.free(4 * PAGE, 8 * PAGE),
        lambda buddy: buddy.free(0, 16 * PAGE),
        lambda buddy: buddy.free(0, 0),
        lambda buddy: buddy.free(1, 4 * PAGE),
        lambda buddy: buddy.free(0, 4 * PAGE - 1),
        lambda buddy: buddy.free(32 * PAGE, PAGE),
        lambda buddy: buddy.free(64 * PAGE, PAGE),
        lambda buddy: buddy.free(60 * PAGE, 8 * PAGE),
        lambda buddy: buddy.free(0, (1 << 64) - PAGE),
        lambda buddy: buddy.free((1 << 64) - PAGE, PAGE),
        lambda buddy: buddy.dirty(0, 2 * PAGE),
        lambda buddy: buddy.trim(0, 2 * PAGE, PAGE),
        lambda buddy: buddy.trim(0, 12 * PAGE, 0),
        lambda buddy: buddy.trim(0, 12 * PAGE, 13 * PAGE),
        lambda buddy: buddy.trim(0, 12 * PAGE, PAGE + 1),
        lambda buddy: buddy.trim(0, 12 * PAGE, PAGE, start=1),
        lambda buddy: buddy.trim(0, 12 * PAGE, PAGE, start=12 * PAGE),
        lambda buddy: buddy.trim(4 * PAGE, 4 * PAGE, PAGE, start=0),
        lambda buddy: buddy.trim(0, 12 * PAGE, PAGE, start=(1 << 64) - PAGE),
    ],
)
def test_wrong_arguments(wrong: Callable[[Buddy], object]) -> None:
    buddy = Buddy(64 * PAGE)
    assert buddy.alloc(12 * PAGE) == [(0, 12 * PAGE)], "blocks of 8 and 4"
    before = state(buddy)
    with pytest.raises(gpuvm.InvalidArgument):
        wrong(buddy)
    assert state(buddy) == before
    buddy.check()


@pytest.mark.parametrize(
    ("size", "block"),
    [
        (0, PAGE),
        (PAGE + 1, PAGE),
        (PAGE, 2 * PAGE),
        (PAGE, 2048),
        (PAGE, 0),
        (3 * PAGE, 3 * PAGE),
        (-PAGE, PAGE),
    ],
)
def test_wrong_sizes(size: int, block: int) -> None:
    with pytest.raises(gpuvm.InvalidArgument):
        Buddy(size, block)


def test_memory_is_freed_once() -> None:
    buddy = Buddy(64 * PAGE)
    buddy.alloc(4 * PAGE)
    buddy.alloc(8 * PAGE)
    buddy.free(0, 4 * PAGE)
    with pytest.raises(gpuvm.InvalidArgument, match=r"the block \[0x0, \+0x8000\) is free"):
        buddy.free(0, 4 * PAGE)
    with pytest.raises(gpuvm.InvalidArgument, match=r"the block \[0x8000, \+0x8000\) is allocated"):
        buddy.free(9 * PAGE, PAGE)
    with pytest.raises(gpuvm.InvalidArgument, match="the memory ends at 0x40000"):
        buddy.free(64 * PAGE, PAGE)
    buddy.free(8 * PAGE, 8 * PAGE)
    assert free_sizes(buddy) == [64]


def test_whole_blocks_of_a_run_can_be_freed() -> None:
    buddy = Buddy(16 * PAGE)
    buddy.alloc(13 * PAGE)
    for run in ((12 * PAGE, PAGE), (0, 8 * PAGE), (8 * PAGE, 4 * PAGE)):
        buddy.free(*run)
    assert free_sizes(buddy) == [16]


def test_no_room_says_what_there_is() -> None:
    buddy = with_free(16, {1, 2, 3, 9})
    with pytest.raises(gpuvm.NoSpace, match="0x4000 bytes are free, the largest block has 0x2000") as caught:
        buddy.alloc(4 * PAGE, min_block=2 * PAGE)
    assert (caught.value.value, caught.value.bound) == (4 * PAGE, 4 * PAGE)
    with pytest.raises(gpuvm.NoSpace):
        buddy.alloc(1 << 60)


def test_statistics() -> None:
    buddy = with_free(16, {1, 2, 3, 9}, {9})
    numbers = buddy.statistics()
    assert (numbers.size, numbers.block, numbers.allocated_blocks) == (16 * PAGE, PAGE, 12)
    assert (numbers.free_bytes, numbers.cleared_bytes, numbers.largest_free) == (4 * PAGE, PAGE, 2 * PAGE)
    assert numbers.fragmentation == 0.5
    assert numbers.free_lists[:3] == ((PAGE, 1, 1), (2 * PAGE, 1, 0), (4 * PAGE, 0, 0))
    assert repr(buddy) == "<Buddy 0x10000 bytes, 0x4000 free>"
    buddy.alloc(4 * PAGE)
    assert buddy.statistics().fragmentation == 0.0


def test_pages_all_over_a_large_memory() -> None:
    """64 GiB: every level of the sets is used; a million blocks come and go."""
    random, buddy = Random(5), Buddy(64 << 30)
    live = [buddy.alloc(PAGE << random.randrange(3))[0] for _ in range(scaled(60_000, 1_000_000))]
    random.shuffle(live)
    half = len(live) // 2
    for run in live[:half]:
        buddy.free(*run)
    live[:half] = [buddy.alloc(PAGE << random.randrange(5), top_down=True)[0] for _ in range(half)]
    assert len({page for run in live for page in pages_of(run)}) * PAGE == buddy.size - buddy.free_bytes
    for run in live:
        buddy.free(*run)
    buddy.check()
    assert buddy.statistics().fragmentation == 0.0
