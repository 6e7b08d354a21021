"""What a bind does in the page table, page by page, next to what it should come to. No memory, no device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

import gpuvm
from gpuvm import GpuVm
from gpuvm.mem import Aperture, Extent
from gpuvm.mmu.formats import PteFlags
from gpuvm.mmu.layers import Layers, Mapped
from gpuvm.mmu.pages import Pages, split_into_pages
from gpuvm.nouveau.page_change import PageChange, Write, page_change
from gpuvm.nouveau.slots import Slots, SlotSet
from gpuvm.nouveau.uvma import Uvma, flags_of
from suite import scaled

PAGE = 0x1000
BIG = 0x10000
HUGE = 0x200000
ALLOWED = {
    21: frozenset({Aperture.VRAM}),
    16: frozenset({Aperture.VRAM}),
    12: frozenset({Aperture.VRAM, Aperture.SYSTEM_COHERENT}),
}
END = 4 * HUGE


@dataclass(eq=False)
class Bo:
    """An object that lies still."""

    extents: tuple[Extent, ...]

    @property
    def size(self) -> int:
        return sum(extent.range for extent in self.extents)

    def at(self, offset: int) -> tuple[Aperture, int]:
        for aperture, addr, range_ in self.extents:
            if offset < range_:
                return aperture, addr + offset
            offset -= range_
        raise AssertionError("behind the end")


class Books:
    """An address space whose entries are written into books, and what each page should show."""

    def __init__(self, honour_keep: bool = True) -> None:
        self.vm = GpuVm("books", range=END)
        self.layers = Layers(0, END, ALLOWED)
        self.honour_keep = honour_keep
        self.wanted: dict[int, tuple[Aperture, int, int]] = {}
        self.came: Iterator[Uvma] = iter(())

    def map(self, addr: int, range_: int, bo: Bo, offset: int = 0, kind: int = 0) -> PageChange:
        pages = split_into_pages(ALLOWED, addr, range_, bo.extents, offset)
        plan = self.vm.sm_map(addr, range_, bo, offset, flags_of(kind))
        change = page_change(plan, ALLOWED, pages, kind=kind, honour_keep=self.honour_keep)
        self.carry_out(plan, change, range(addr, addr + range_, PAGE))
        for page in range(addr, addr + range_, PAGE):
            self.wanted[page] = (*bo.at(offset + page - addr), kind)
        self.check()
        return change

    def unmap(self, addr: int, range_: int) -> PageChange:
        plan = self.vm.sm_unmap(addr, range_)
        change = page_change(plan, ALLOWED, honour_keep=self.honour_keep)
        self.carry_out(plan, change, range(addr, addr + range_, PAGE))
        for page in range(addr, addr + range_, PAGE):
            self.wanted.pop(page, None)
        self.check()
        return change

    def carry_out(self, plan: gpuvm.Plan, change: PageChange, touched: range) -> None:
        for addr, range_, shift in change.get:
            self.require_each(addr, range_, shift, referenced=False)
            self.layers.get(addr, addr + range_, shift)
        self.came = iter(change.came)
        plan.step(self)
        before = self.shown()
        for write in change.writes:
            self.write(write)
            now = self.shown()
            blinked = [page for page in before.keys() | now.keys() if before.get(page) != now.get(page)]
            assert all(page in touched for page in blinked), (write, blinked)
        for addr, range_, shift in change.put:
            self.layers.put(addr, addr + range_, shift)
            self.require_each(addr, range_, shift, referenced=False)

    def require_each(self, addr: int, range_: int, shift: int, *, referenced: bool) -> None:
        assert all(
            bool(piece.value) is referenced
            for piece in self.layers.references[shift].pieces(addr, addr + range_)
        )

    def write(self, write: Write) -> None:
        addr, range_, shift, target, kind = write
        if target is None:
            self.layers.unmap(addr, addr + range_, shift)
        else:
            mapped = Mapped(shift, target.aperture, target.addr - addr, kind, PteFlags(0))
            self.layers.map(addr, addr + range_, mapped)

    def invalidate(self, va: Uvma) -> None:
        va.invalidated = True
        for addr, range_, shift in SlotSet(va.pages):
            self.layers.unmap(addr, addr + range_, shift)
        for page in range(va.addr, va.end, PAGE):
            self.wanted.pop(page)

    def sm_step_map(self, op: gpuvm.Map) -> None:
        self.vm.map(op, next(self.came))

    def sm_step_remap(self, op: gpuvm.Remap) -> None:
        prev = op.prev and next(self.came)
        self.vm.remap(op, prev, op.next and next(self.came))

    def sm_step_unmap(self, op: gpuvm.Unmap) -> None:
        self.vm.unmap(op)

    def shown(self) -> dict[int, tuple[Aperture, int, int]]:
        return {
            page: (mapped.aperture, page + mapped.delta, mapped.kind)
            for start, end, mapped in self.layers.shown(0, END)
            if isinstance(mapped, Mapped)
            for page in range(start, end, PAGE)
        }

    def check(self) -> None:
        self.layers.check()
        assert self.shown() == self.wanted
        held = [run for va in self.vm for run in uvma(va).pages]
        for shift, references in self.layers.references.items():
            assert all(piece.value in (0, 1) for piece in references.pieces(0, END))
            counted = {slots for slots in SlotSet(held) if slots.shift == shift}
            assert counted == {
                Slots(start, end - start, shift) for start, end, count in references.pieces(0, END) if count
            }


def uvma(va: gpuvm.Gpuva) -> Uvma:
    assert isinstance(va, Uvma)
    return va


def vram(size: int, addr: int = 0) -> Bo:
    return Bo((Extent(Aperture.VRAM, addr, size),))


def system(size: int, addr: int = 0) -> Bo:
    return Bo((Extent(Aperture.SYSTEM_COHERENT, addr, size),))


def maps(change: PageChange) -> list[Slots]:
    return [Slots(*write[:3]) for write in change.writes if write.target is not None]


def unmaps(change: PageChange) -> list[Slots]:
    return [Slots(*write[:3]) for write in change.writes if write.target is None]


class TestSlots:
    def pages(self, *spans: tuple[int, int, int]) -> list[Pages]:
        return [
            Pages(start, end - start, shift, Extent(Aperture.VRAM, start, end - start))
            for start, end, shift in spans
        ]

    def test_neighbours_are_joined_wherever_their_memory_is(self) -> None:
        assert list(SlotSet(self.pages((0, 4, 0), (4, 6, 0), (8, 9, 0), (9, 12, 2)))) == [
            (0, 6, 0),
            (8, 1, 0),
            (9, 3, 2),
        ]

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
        taken = SlotSet(self.pages(*((start, end, 0) for start, end in others)))
        expected = [(start, end - start, 0) for start, end in left]
        assert SlotSet(self.pages((0, 10, 0))) - taken == expected

    def test_sizes_are_apart(self) -> None:
        assert SlotSet(self.pages((0, 16, 4))) - SlotSet(self.pages((0, 16, 0))) == [(0, 16, 4)]

    @given(st.sets(st.integers(0, 40)), st.sets(st.integers(0, 40)))
    def test_as_sets(self, some: set[int], others: set[int]) -> None:
        one, other = (self.pages(*((slot, slot + 1, 0) for slot in sorted(s))) for s in (some, others))
        left = SlotSet(one) - SlotSet(other)
        assert {addr for start, range_, _ in left for addr in range(start, start + range_)} == some - others
        expected = self.pages(*((slot, slot + 1, 0) for slot in sorted(some - others)))
        assert left == list(SlotSet(expected))


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
        assert [write.target is None for write in change.writes] == [False, False, True]

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
        assert change.writes[-1].target is None

    def test_invalidated_mappings_are_not_cleared(self) -> None:
        books = Books()
        bo = vram(2 * BIG)
        books.map(0, 2 * BIG, bo)
        (va,) = books.vm
        books.invalidate(uvma(va))
        change = books.unmap(PAGE, PAGE)
        assert change.writes == []
        assert change.get == []
        assert change.put == [(0, BIG, 16)]
        prev, behind = (uvma(va) for va in books.vm)
        assert (prev.invalidated, prev.pages) == (True, [])
        assert list(SlotSet(behind.pages)) == [(BIG, BIG, 16)]


def random_bo(dice: Random) -> Bo:
    """Pieces of VRAM and system memory, many of them at multiples of large pages."""
    extents = []
    for _ in range(dice.randint(1, 4)):
        size = dice.choice((PAGE, BIG, BIG, 3 * BIG + PAGE, HUGE, HUGE + BIG))
        unit = dice.choice((PAGE, BIG, HUGE))
        aperture = dice.choice((Aperture.VRAM, Aperture.VRAM, Aperture.SYSTEM_COHERENT))
        extents.append(Extent(aperture, dice.randrange(64) * unit, size))
    return Bo(tuple(extents))


@pytest.mark.parametrize("seed", range(scaled(12, 600)))
def test_random_binds(seed: int) -> None:
    dice = Random(seed)
    books = Books(honour_keep=dice.random() < 0.8)
    bos = [random_bo(dice) for _ in range(3)]
    for _ in range(25):
        unit = dice.choice((PAGE, BIG, HUGE))
        addr = dice.randrange(0, END, unit)
        if dice.random() < 0.25:
            books.unmap(addr, min(dice.randint(1, 40) * unit, END - addr))
        elif dice.random() < 0.15 and len(books.vm):
            va = uvma(dice.choice(list(books.vm)))
            if not va.invalidated:
                books.invalidate(va)
        else:
            bo = dice.choice(bos)
            unit = min(unit, bo.size & -bo.size)
            offset = (
                addr % bo.size // unit * unit if dice.random() < 0.7 else dice.randrange(0, bo.size, unit)
            )
            range_ = min(dice.randint(1, 40) * unit, END - addr, bo.size - offset)
            books.map(addr, range_, bo, offset, kind=dice.choice((0, 0, 0, 3)))
