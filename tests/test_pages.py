"""PageAllocator against a set of free pages."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise
from random import Random

import pytest

import gpuvm
from buddies import PAGE, Run, pages_of
from gpuvm.mem.pages import PageAllocator
from suite import scaled


def holes_of(free: Iterable[int]) -> list[range]:
    """Runs of free pages, ascending."""
    holes: list[range] = []
    for page in sorted(free):
        start = holes.pop().start if holes and holes[-1].stop == page else page
        holes.append(range(start, page + 1))
    return holes


def lengths(free: set[int], first: int, last: int, align: int) -> list[int]:
    """How much can be used of each hole of a window, the most first."""
    holes = holes_of(page for page in free if first <= page < last)
    usable = (hole.stop + -hole.start // align * align for hole in holes)
    return sorted((length for length in usable if length > 0), reverse=True)


def with_holes(pages: int, free: Iterable[int]) -> PageAllocator:
    allocator = PageAllocator(pages * PAGE)
    allocator.alloc(pages * PAGE)
    for page in free:
        allocator.free(page * PAGE, PAGE)
    return allocator


def test_one_run_in_the_smallest_hole_that_is_large_enough() -> None:
    allocator = with_holes(32, {1, 2, 3, 10, 11, 20, 21, 22, 23})
    assert allocator.alloc(2 * PAGE) == [(10 * PAGE, 2 * PAGE)]
    assert allocator.alloc(2 * PAGE) == [(PAGE, 2 * PAGE)]
    assert allocator.alloc(PAGE) == [(3 * PAGE, PAGE)]
    assert allocator.alloc(3 * PAGE, top_down=True) == [(21 * PAGE, 3 * PAGE)]


def test_few_runs_where_there_is_no_such_hole() -> None:
    allocator = with_holes(32, {1, 2, 3, 10, 20, 21, 22, 23, 30})
    assert allocator.alloc(8 * PAGE) == [(20 * PAGE, 4 * PAGE), (PAGE, 3 * PAGE), (10 * PAGE, PAGE)]
    with pytest.raises(gpuvm.NoSpace):
        allocator.alloc(2 * PAGE)
    allocator.check()


def test_a_contiguous_run_or_none() -> None:
    allocator = with_holes(32, {1, 2, 3, 10, 20, 21, 22, 23})
    assert allocator.alloc(3 * PAGE, contiguous=True) == [(PAGE, 3 * PAGE)]
    with pytest.raises(gpuvm.NoSpace, match=r"in a row.*the largest hole there has 0x4000"):
        allocator.alloc(5 * PAGE, contiguous=True)


def test_aligned_runs() -> None:
    allocator = with_holes(64, range(3, 30))
    assert allocator.alloc(5 * PAGE, min_block=8 * PAGE) == [(8 * PAGE, 5 * PAGE)]
    assert allocator.alloc(9 * PAGE, min_block=4 * PAGE, top_down=True) == [(20 * PAGE, 9 * PAGE)]


def test_what_is_freed_merges() -> None:
    allocator = with_holes(16, ())
    for page in (3, 5, 4, 0, 15, 1, 2):
        allocator.free(page * PAGE, PAGE)
        allocator.check()
    assert allocator.statistics().holes == 2
    assert allocator.statistics().largest_hole == 6 * PAGE
    assert allocator.statistics().fragmentation == 1 - 6 / 7
    assert repr(allocator) == "<PageAllocator 0x10000 bytes, 0x7000 free>"


@pytest.mark.parametrize(
    "wrong",
    [
        lambda pages: pages.alloc(0),
        lambda pages: pages.alloc(-PAGE),
        lambda pages: pages.alloc(PAGE + 1),
        lambda pages: pages.alloc(PAGE, min_block=PAGE // 2),
        lambda pages: pages.alloc(PAGE, min_block=3 * PAGE),
        lambda pages: pages.alloc(PAGE, first=4 * PAGE, last=4 * PAGE),
        lambda pages: pages.alloc(PAGE, first=1),
        lambda pages: pages.alloc(PAGE, first=-PAGE),
        lambda pages: pages.alloc(PAGE, last=33 * PAGE),
        lambda pages: pages.free(4 * PAGE, 0),
        lambda pages: pages.free(4 * PAGE, -PAGE),
        lambda pages: pages.free(4 * PAGE, 1),
        lambda pages: pages.free(4 * PAGE + 1, PAGE),
        lambda pages: pages.free(-PAGE, PAGE),
        lambda pages: pages.free(31 * PAGE, 2 * PAGE),
        lambda pages: pages.free(0, PAGE),
        lambda pages: pages.free(0, 9 * PAGE),
        lambda pages: pages.free(7 * PAGE, 3 * PAGE),
        lambda pages: pages.free(7 * PAGE, 2 * PAGE),
    ],
)
def test_wrong_arguments(wrong: Callable[[PageAllocator], object]) -> None:
    allocator = with_holes(32, {0, 1, 2, 8})
    before = allocator.statistics()
    with pytest.raises(gpuvm.InvalidArgument):
        wrong(allocator)
    assert allocator.statistics() == before
    allocator.check()


@pytest.mark.parametrize(("size", "page"), [(0, PAGE), (PAGE + 1, PAGE), (-PAGE, PAGE), (PAGE, 0), (12, 3)])
def test_wrong_sizes(size: int, page: int) -> None:
    with pytest.raises(gpuvm.InvalidArgument):
        PageAllocator(size, page)


@pytest.mark.parametrize("seed", range(scaled(40, 800)))
def test_against_a_set_of_pages(seed: int) -> None:
    random = Random(seed)
    pages = random.choice((1, 5, 64, 200))
    allocator, free, live = PageAllocator(pages * PAGE), set(range(pages)), list[Run]()
    for step in range(150):
        if random.random() < 0.45 and live:
            run = live.pop(random.randrange(len(live)))
            allocator.free(*run)
            free.update(pages_of(run))
            with pytest.raises(gpuvm.InvalidArgument):
                allocator.free(*run)
        else:
            size, align = random.choice((1, 1, 2, 3, 8, 20)), random.choice((1, 1, 1, 2, 4, 16))
            first, last = sorted(random.sample(range(pages + 1), 2))
            if random.random() < 0.6:
                first, last = 0, pages
            contiguous = random.random() < 0.3
            print(f"seed {seed}, step {step}: {size} pages at {align} in [{first}, {last}), {contiguous}")
            usable = lengths(free, first, last, align)
            try:
                runs = allocator.alloc(
                    size * PAGE,
                    min_block=align * PAGE,
                    first=first * PAGE,
                    last=last * PAGE,
                    contiguous=contiguous,
                    top_down=random.random() < 0.3,
                )
            except gpuvm.NoSpace:
                whole = sum(length // align for length in usable)
                assert not usable or usable[0] < size
                assert contiguous or whole * align < size
            else:
                expect_few(runs, size, usable, align)
                taken = [page for run in runs for page in pages_of(run)]
                assert len(taken) == size
                assert all(first <= page < last for page in taken)
                assert free.issuperset(taken)
                assert not contiguous or len(runs) == 1
                free.difference_update(taken)
                live += runs
        allocator.check()
        assert allocator.free_bytes == len(free) * PAGE
        assert allocator.statistics().holes == len(holes_of(free))


def expect_few(runs: list[Run], size: int, usable: list[int], align: int) -> None:
    """Runs begin at multiples, and pages could not have been had in fewer."""
    assert all(addr % (align * PAGE) == 0 for addr, _ in runs)
    assert all(length % (align * PAGE) == 0 for (_, length), _ in pairwise(runs))
    fewest = next(count for count in range(1, len(usable) + 1) if sum(usable[:count]) >= size)
    assert len(runs) >= fewest
    assert len(runs) == fewest or align > 1


def test_many_holes() -> None:
    random, allocator = Random(1), PageAllocator(4 << 30)
    live = [run for _ in range(scaled(4000, 40_000)) for run in allocator.alloc(random.randint(1, 20) * PAGE)]
    random.shuffle(live)
    half = len(live) // 2
    for run in live[:half]:
        allocator.free(*run)
    live[:half] = [run for _ in range(half) for run in allocator.alloc(random.randint(1, 20) * PAGE)]
    assert (
        len({page for run in live for page in pages_of(run)}) * PAGE == allocator.size - allocator.free_bytes
    )
    for run in live:
        allocator.free(*run)
    allocator.check()
    assert allocator.alloc(4 << 30) == [(0, 4 << 30)]
