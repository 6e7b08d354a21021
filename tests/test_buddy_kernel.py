"""The scenarios of the kernel's own suite for its buddy allocator, told anew.

Source: drivers/gpu/tests/gpu_buddy_test.c; what it does with cleared memory is in test_buddy_clear.py.
"""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest

import gpuvm
from buddies import PAGE, Run, free_sizes, pages_of, roots
from gpuvm.mem.buddy import Buddy
from suite import scaled

MIB = 1 << 20


def take(buddy: Buddy, order: int) -> Run:
    """One block of an order."""
    (run,) = buddy.alloc(PAGE << order, min_block=PAGE << order)
    assert run[1] == PAGE << order
    assert run[0] % run[1] == 0
    return run


def give(buddy: Buddy, runs: list[Run], cleared: bool = False) -> None:
    for run in runs:
        buddy.free(*run, cleared)
    runs.clear()


def is_full(buddy: Buddy, order: int) -> None:
    with pytest.raises(gpuvm.NoSpace):
        take(buddy, order)


def in_window(buddy: Buddy, size: int, window: Run, min_block: int) -> list[Run]:
    runs = buddy.alloc(size, min_block=min_block, first=window[0], last=window[1])
    assert sum(length for _, length in runs) == size
    assert all(window[0] <= addr and addr + length <= window[1] for addr, length in runs), "out of the window"
    return runs


def test_limit() -> None:
    """As much as 64 bits have; the blocks are large so that the allocator is not."""
    block = 1 << 40
    buddy = Buddy((1 << 64) - block, block)
    top = 1 << 63
    assert buddy.statistics().free_lists[-1] == (top, 1, 0)
    assert buddy.alloc(top, min_block=top) == [(0, top)]
    assert buddy.alloc(top - block, first=top) == [(top, top - block)]
    buddy.check()


def test_limit_of_memory() -> None:
    with pytest.raises(gpuvm.OutOfMemory):
        Buddy((1 << 64) - PAGE)


def test_optimistic() -> None:
    """There is one block of each order, and each can be had."""
    most = 16
    buddy = Buddy(PAGE * ((2 << most) - 1))
    runs = [take(buddy, order) for order in range(most + 1)]
    is_full(buddy, 0)
    give(buddy, runs)
    assert free_sizes(buddy) == roots((2 << most) - 1)


def test_pessimistic() -> None:
    """One block of each order out of one large one leaves a single page; freed in turn they grow together."""
    most = 16
    buddy = Buddy(PAGE << most)
    runs = [take(buddy, order) for order in range(most)]
    last = take(buddy, 0)
    for order in range(most):
        is_full(buddy, order)
    buddy.free(*last)
    for order, run in enumerate(runs, 1):
        buddy.free(*run)
        buddy.free(*take(buddy, order))
    buddy.check()
    assert free_sizes(buddy) == [1 << most]


def test_pathological() -> None:
    """Whittled down until half of the memory is free, a page at a time."""
    most = 3
    buddy = Buddy(PAGE << most)
    holes: list[Run] = []
    runs: list[Run] = []
    for top in range(most, 0, -1):
        if runs:
            buddy.free(*runs.pop(0))
        runs = [take(buddy, order) for order in reversed(range(top))] + runs[top:]
        holes.append(take(buddy, 0))
        is_full(buddy, top)
    give(buddy, holes)
    for order in range(1, most + 1):
        is_full(buddy, order)
    buddy.check()


@pytest.mark.parametrize("seed", range(scaled(6, 60)))
def test_smoke(seed: int) -> None:
    """Memory is filled with blocks of an order, then of smaller ones; it is whole again afterwards."""
    random = Random(seed)
    pages = 1 + random.randrange(scaled(1 << 12, 1 << 21))
    block = PAGE << random.randrange(pages.bit_length())
    size = pages * PAGE // block * block
    buddy = Buddy(size, block)
    print(f"seed {seed}: {size:#x} bytes in blocks of {block:#x}")
    orders = list(range((size // block).bit_length()))
    random.shuffle(orders)
    for order in orders:
        runs = []
        while buddy.free_bytes:
            try:
                runs += buddy.alloc(block << order, min_block=block << order)
            except gpuvm.NoSpace:
                order -= 1
        assert sum(length for _, length in runs) == size
        assert len({addr for addr, _ in runs}) == len(runs)
        buddy.check()
        give(buddy, runs)
        buddy.check()
        assert free_sizes(buddy) == [block // PAGE * root for root in roots(size // block)]


def test_contiguous() -> None:
    """Two pages side by side are found though they are no buddies; three are not before they are there."""
    buddy = Buddy(3 * 16 * PAGE)
    thirds: list[list[Run]] = [[], [], []]
    for page in range(3 * 16):
        thirds[page % 3] += in_window(buddy, PAGE, (page * PAGE, (page + 1) * PAGE), PAGE)
    left, middle, right = thirds

    def fits(pages: int) -> bool:
        try:
            buddy.alloc(pages * PAGE, contiguous=True)
        except gpuvm.NoSpace:
            return False
        return True

    assert not fits(3)
    give(buddy, middle)
    assert not fits(3)
    assert not fits(2)
    give(buddy, right)
    assert not fits(3)
    assert fits(2)
    give(buddy, left)
    assert fits(3)
    assert buddy.free_bytes == (3 * 16 - 5) * PAGE
    buddy.check()


def test_larger_than_any_block() -> None:
    """10 GiB are blocks of 8 and 2: 9 GiB in a row are there, in blocks of 8 they are not."""
    gib = 1 << 30
    buddy = Buddy(10 * gib)
    (run,) = buddy.alloc(9 * gib, contiguous=True)
    assert run[1] == 9 * gib
    buddy.free(*run)
    for size in (16 * gib, 10 * gib + PAGE):
        with pytest.raises(gpuvm.NoSpace):
            buddy.alloc(size, min_block=8 * gib)
    # The kernel rounds 9 GiB up to 16 and refuses; here the ninth is a piece of its own, at a multiple of 8.
    assert buddy.alloc(9 * gib, min_block=8 * gib) == [(0, 9 * gib)]


def test_offset_aligned() -> None:
    """Small blocks at large multiples: as many as there are multiples, whatever their size."""
    buddy = Buddy(4 * MIB)
    align = 256 << 10
    count = buddy.size // align
    for size in (2 * PAGE, 4 * PAGE):
        runs = [run for _ in range(count) for run in buddy.alloc(size, min_block=align)]
        assert sorted(runs) == [(align * index, size) for index in range(count)]
        give(buddy, runs)
    runs = [run for _ in range(count) for run in buddy.alloc(4 * PAGE, min_block=align)]
    freed, runs = runs[::2], runs[1::2]
    give(buddy, freed)
    for _ in range(count // 2):
        runs += buddy.alloc(4 * PAGE, min_block=align)
    with pytest.raises(gpuvm.NoSpace):
        buddy.alloc(4 * PAGE, min_block=align)
    give(buddy, runs)
    assert free_sizes(buddy) == [1024]


def test_offset_alignment_stress() -> None:
    """All multiples of 1 MiB, then what is left of those of 512 KiB, and so on; freed the other way round."""
    buddy = Buddy(2 * MIB)
    taken: dict[int, list[Run]] = {}
    for align in (MIB >> shift for shift in range(8)):
        taken[align] = []
        while True:
            try:
                taken[align] += buddy.alloc(PAGE, min_block=align)
            except gpuvm.NoSpace:
                break
        assert all(addr % align == 0 for addr, _ in taken[align])
        assert sum(map(len, taken.values())) == buddy.size // align
        buddy.check()
    for align in sorted(taken):
        give(buddy, taken[align])
        buddy.check()
        assert buddy.statistics().largest_free >= align
    assert free_sizes(buddy) == [512]


def test_exact_ranges() -> None:
    size = 16 * MIB
    buddy = Buddy(size)
    runs = in_window(buddy, size, (0, size), PAGE)
    with pytest.raises(gpuvm.NoSpace):
        in_window(buddy, PAGE, (0, PAGE), PAGE)
    give(buddy, runs)
    for start in range(0, size, size // 4):
        runs += in_window(buddy, size // 4, (start, start + size // 4), PAGE)
    assert buddy.free_bytes == 0
    give(buddy, runs)
    for window in ((0, PAGE), (size // 2, size // 2 + PAGE), (size - PAGE, size)):
        runs += in_window(buddy, PAGE, window, PAGE)
    with pytest.raises(gpuvm.NoSpace):
        in_window(buddy, size, (0, size), PAGE)
    give(buddy, runs)
    for _ in range(5):
        runs = in_window(buddy, 2 * MIB, (4 * MIB, 6 * MIB), PAGE)
        give(buddy, runs)
    assert free_sizes(buddy) == [4096]


def test_exact_ranges_over_roots() -> None:
    buddy = Buddy(7 * MIB)
    runs = [run for edges in ((0, 4), (4, 6), (6, 7)) for run in _mib(buddy, *edges)]
    assert buddy.free_bytes == 0
    give(buddy, runs)
    assert _mib(buddy, 0, 7) == [(0, 7 * MIB)]


def _mib(buddy: Buddy, first: int, last: int) -> list[Run]:
    return in_window(buddy, (last - first) * MIB, (first * MIB, last * MIB), PAGE)


def test_exact_ranges_of_any_size_in_any_order() -> None:
    random, pages = Random(3), 4096
    edges = [0, *sorted(random.sample(range(1, pages), 15)), pages]
    windows = list(pairwise(edges))
    random.shuffle(windows)
    buddy = Buddy(pages * PAGE)
    for first, last in windows:
        in_window(buddy, (last - first) * PAGE, (first * PAGE, last * PAGE), PAGE)
    assert buddy.free_bytes == 0
    buddy.check()


def test_a_checkerboard() -> None:
    buddy = Buddy(16 * PAGE)
    for page in range(0, 16, 2):
        in_window(buddy, PAGE, (page * PAGE, (page + 1) * PAGE), PAGE)
    with pytest.raises(gpuvm.NoSpace):
        in_window(buddy, 2 * PAGE, (0, 2 * PAGE), PAGE)
    in_window(buddy, PAGE, (PAGE, 2 * PAGE), PAGE)


@pytest.mark.parametrize("seed", range(scaled(6, 60)))
def test_uniform_windows(seed: int) -> None:
    """Windows of 1 MiB in any order; nothing leaks out of one, and each holds as much as it should."""
    random = Random(seed)
    page = PAGE << random.randrange(7)
    buddy = Buddy((8 * MIB - 1) // page * page, page)
    print(f"seed {seed}: blocks of {page:#x}")
    kept: list[Run] = []
    for start in random.sample(range(0, buddy.size // MIB * MIB, MIB), buddy.size // MIB):
        end = start + MIB
        for size, unit, window in (
            (MIB + page, MIB, (start, end)),
            (MIB + page, page, (start, end)),
            (MIB, page, (start + page, end)),
            (MIB // 2, MIB // 2, (start + page, end - page)),
        ):
            with pytest.raises(gpuvm.NoSpace):
                in_window(buddy, size, window, unit)
        give(buddy, in_window(buddy, MIB, (start, end), MIB))
        give(buddy, in_window(buddy, page, (start, end), MIB))
        some = in_window(buddy, page * random.randint(1, MIB // page), (start, end), page)
        left = MIB - sum(length for _, length in some)
        with pytest.raises(gpuvm.NoSpace):
            in_window(buddy, left + page, (start, end), page)
        if left:
            kept += in_window(buddy, page * random.randint(1, left // page), (start, end), page)
            give(buddy, some)
        kept += some
    buddy.check()
    give(buddy, kept)
    assert free_sizes(buddy) == [page // PAGE * root for root in roots(buddy.size // page)]


@pytest.mark.parametrize("seed", range(scaled(6, 60)))
def test_growing_windows(seed: int) -> None:
    """A window is filled while it grows at both ends, over what others have, until all memory is in use."""
    random = Random(seed)
    page = PAGE << random.randrange(7)
    pages = (8 * MIB - 1) // page
    buddy = Buddy(pages * page, page)
    print(f"seed {seed}: blocks of {page:#x}")
    first, last = sorted(random.sample(range(pages + 1), 2))
    left, seen = last - first, set[int]()
    while left:
        count = random.randint(1, left)
        runs = in_window(buddy, count * page, (first * page, last * page), page)
        seen.update(number for run in runs for number in pages_of(run))
        left -= count
        while True:
            grown = random.randint(0, first), random.randint(last, pages)
            left += first - grown[0] + grown[1] - last
            first, last = grown
            if left or (first, last) == (0, pages):
                break
    assert len(seen) * PAGE == buddy.size
    with pytest.raises(gpuvm.NoSpace):
        in_window(buddy, page, (0, buddy.size), page)
