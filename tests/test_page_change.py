"""What a bind does in the page table, page by page, next to what it should come to."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuvm.mem import Aperture, Extent
from page_books import BIG, END, HUGE, PAGE, Bo, Books, Slots, maps, system, unmaps, uvma, vram
from suite import scaled


class TestSlots:
    """Which slots two sets of pages have in common: those of what goes, and those of what comes."""

    def test_neighbours_are_joined_wherever_their_memory_is(self) -> None:
        books = Books()
        for page, at in ((0, 7), (1, 3), (2, 5), (4, 6)):
            books.map(page * PAGE, PAGE, system(PAGE, at * PAGE))
        assert books.unmap(0, BIG).put == [(0, 3 * PAGE, 12), (4 * PAGE, PAGE, 12)]

    @pytest.mark.parametrize(
        ("others", "left"),
        [
            ([], [(0, 10)]),
            ([(0, 10)], []),
            ([(2, 4)], [(0, 2), (4, 10)]),
            ([(2, 4), (6, 12)], [(0, 2), (4, 6)]),
            ([(10, 12)], [(0, 10)]),
        ],
    )
    def test_what_is_left(self, others: list[tuple[int, int]], left: list[tuple[int, int]]) -> None:
        books = Books()
        for start, end in others:
            books.map(start * PAGE, (end - start) * PAGE, system(10 * PAGE, BIG))
        change = books.map(0, 10 * PAGE, system(10 * PAGE))
        assert change.get == [(start * PAGE, (end - start) * PAGE, 12) for start, end in left]
        assert change.put == []

    def test_sizes_are_apart(self) -> None:
        books = Books()
        books.map(0, BIG, system(BIG))
        assert books.map(0, BIG, vram(BIG)).get == [(0, BIG, 16)]

    @given(st.sets(st.integers(0, 31)), st.sets(st.integers(0, 31)))
    def test_as_sets(self, small: set[int], large: set[int]) -> None:
        """Slots of two sizes, scattered, against those of one mapping over all of them."""
        books = Books()
        for slot in small | large:
            in_large = slot in large
            bo = vram(BIG, slot * BIG) if in_large else system(BIG, slot * BIG)
            books.map(slot * BIG, BIG, bo)
        change = books.map(0, HUGE, Bo((Extent(Aperture.VRAM, BIG, HUGE),)))

        def slots_of(found: list[Slots]) -> set[tuple[int, int]]:
            return {
                (slot, shift)
                for addr, range_, shift in found
                for slot in range(addr, addr + range_, 1 << shift)
            }

        every = {(slot * BIG, 16) for slot in range(32)}
        kept = {(slot * BIG, 16) for slot in large}
        assert slots_of(change.get) == every - kept
        assert slots_of(change.put) == {
            (slot * BIG + page, 12) for slot in small - large for page in range(0, BIG, PAGE)
        }


class TestReferences:
    def test_what_is_referenced_already_is_not_got_again(self) -> None:
        books = Books()
        books.map(0, 8 * PAGE, system(8 * PAGE))
        change = books.map(4 * PAGE, 8 * PAGE, system(8 * PAGE, BIG))
        assert change.get == [(8 * PAGE, 4 * PAGE, 12)]
        assert change.put == []

    def test_pages_of_another_size_are_other_slots(self) -> None:
        books = Books()
        books.map(0, BIG, system(BIG))
        change = books.map(0, BIG, vram(BIG))
        assert (change.get, change.put) == ([(0, BIG, 16)], [(0, BIG, 12)])

    def test_unmapping_gets_nothing_unless_it_cuts_a_large_page(self) -> None:
        books = Books()
        books.map(0, 2 * BIG, vram(2 * BIG))
        change = books.unmap(BIG, PAGE)
        assert change.get == [(BIG + PAGE, BIG - PAGE, 12)]
        assert change.put == [(BIG, BIG, 16)]
        assert books.unmap(0, BIG).get == []


class TestClearing:
    def test_only_what_is_cut_off_is_cleared(self) -> None:
        """CVE-2024-36018: the kernel cleared as many bytes as the old mapping had, from the cut on."""
        books = Books()
        base = 0x3FFFED0000 % HUGE
        books.map(base, 0x100000, vram(0x100000, base))
        change = books.map(base + 0xF0000, 0x30000, vram(0x30000, HUGE))
        assert unmaps(change) == [(base + 0xF0000, 0x10000, 16)]
        assert maps(change) == [(base + 0xF0000, 0x30000, 16)]

    def test_a_cut_large_page_is_covered_from_below_before_it_goes(self) -> None:
        books = Books()
        books.map(0, HUGE, vram(HUGE))
        change = books.unmap(5 * BIG, BIG)
        assert maps(change) == [(0, 5 * BIG, 16), (6 * BIG, 26 * BIG, 16)]
        assert unmaps(change) == [(0, HUGE, 21)]
        assert [target is None for _, target in change.writes] == [False, False, True]

    @pytest.mark.parametrize("honour_keep", [True, False])
    def test_keep(self, honour_keep: bool) -> None:
        books = Books(honour_keep)
        bo = system(16 * PAGE)
        books.map(0, 16 * PAGE, bo)
        change = books.map(4 * PAGE, 4 * PAGE, bo, 4 * PAGE)
        assert unmaps(change) == ([] if honour_keep else [(4 * PAGE, 4 * PAGE, 12)])
        assert maps(change) == [(4 * PAGE, 4 * PAGE, 12)]

    def test_another_kind_is_not_kept(self) -> None:
        books = Books()
        bo = vram(BIG)
        books.map(0, BIG, bo, kind=1)
        assert unmaps(books.map(0, BIG, bo, kind=1)) == []
        assert unmaps(books.map(0, BIG, bo, kind=2)) == [(0, BIG, 16)]

    def test_small_pages_kept_under_a_large_one_go_last(self) -> None:
        """Joining what was mapped in pieces: nothing blinks, since the large page is mapped over them."""
        books = Books()
        bo = vram(HUGE)
        for part in range(0, HUGE, HUGE // 2):
            books.map(part, HUGE // 2, bo, part)
        change = books.map(0, HUGE, bo)
        assert maps(change) == [(0, HUGE, 21)]
        assert unmaps(change) == [(0, HUGE, 16)]
        assert change.writes[-1][1] is None

    def test_invalidated_mappings_are_not_cleared(self) -> None:
        books = Books()
        bo = vram(2 * BIG)
        books.map(0, 2 * BIG, bo)
        books.invalidate(bo)
        change = books.unmap(PAGE, PAGE)
        assert change.writes == []
        assert change.get == []
        assert change.put == [(0, BIG, 16)]
        prev, behind = (uvma(va) for va in books.vm)
        assert (prev.invalidated, prev.pages) == (True, [])
        assert [run[:3] for run in behind.pages] == [(BIG, BIG, 16)]


def random_extents(dice: Random) -> tuple[Extent, ...]:
    """Pieces of VRAM and system memory, many of them at multiples of large pages."""
    extents = []
    for _ in range(dice.randint(1, 4)):
        size = dice.choice((PAGE, BIG, BIG, 3 * BIG + PAGE, HUGE, HUGE + BIG))
        unit = dice.choice((PAGE, BIG, HUGE))
        aperture = dice.choice((Aperture.VRAM, Aperture.VRAM, Aperture.SYSTEM_COHERENT))
        extents.append(Extent(aperture, dice.randrange(64) * unit, size))
    return tuple(extents)


def elsewhere(dice: Random, bo: Bo) -> tuple[Extent, ...]:
    """Other memory for as many bytes."""
    aperture = dice.choice((Aperture.VRAM, Aperture.SYSTEM_COHERENT))
    half = bo.size // 2 // PAGE * PAGE
    cut = dice.choice((half, bo.size)) or bo.size
    parts = [cut, bo.size - cut]
    return tuple(Extent(aperture, dice.randrange(64) * BIG, part) for part in parts if part)


@pytest.mark.parametrize("seed", range(scaled(12, 600)))
def test_random_binds(seed: int) -> None:
    dice = Random(seed)
    books = Books(honour_keep=dice.random() < 0.8)
    bos = [Bo(random_extents(dice)) for _ in range(3)]
    for _ in range(25):
        unit = dice.choice((PAGE, BIG, HUGE))
        addr = dice.randrange(0, END, unit)
        bo = dice.choice(bos)
        if dice.random() < 0.25:
            books.unmap(addr, min(dice.randint(1, 40) * unit, END - addr))
        elif dice.random() < 0.15:
            books.invalidate(bo)
        elif dice.random() < 0.15:
            books.invalidate(bo)
            books.bring_back(bo, dice.choice((bo.extents, elsewhere(dice, bo))))
        else:
            unit = min(unit, bo.size & -bo.size)
            offset = (
                addr % bo.size // unit * unit if dice.random() < 0.7 else dice.randrange(0, bo.size, unit)
            )
            range_ = min(dice.randint(1, 40) * unit, END - addr, bo.size - offset)
            books.map(addr, range_, bo, offset, kind=dice.choice((0, 0, 0, 3)))
