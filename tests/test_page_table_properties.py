"""`PageTable`: any calls in any order, against arrays of pages.

The model knows slots, not tables: for each page size what is referenced and what is mapped, and a list of
sparse ranges. What an address leads to follows from these alone.
"""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from numpy.typing import NDArray

from gpuvm.errors import AlreadyMapped, InvalidArgument, NotFound
from gpuvm.mmu.formats.format import Format
from gpuvm.mmu.formats.gh100 import GH100
from gpuvm.mmu.formats.gp100 import GP100
from gpuvm.mmu.formats.x86_64 import X86_64
from gpuvm.mmu.translation import RunState
from gpuvm.mmu.walk import translate
from page_table_reader import walk
from page_table_scene import MIB, Scene, vram
from suite import scaled

BLOCKS = 4
"""Blocks of 2 MiB: the last two of one table above, and the first two of the next."""
SIZE = BLOCKS * 2 * MIB
BASE = (1 << 39) - SIZE // 2
PAGE = 4096
PAGES = SIZE // PAGE
PLACES = (0, 1, 15, 16, 17, 31, 32, 255, 496, 511, 512, 513, 1008, 1023, 1024, 1040, 1535, 1536, 2032, 2047)
"""Small pages where ranges like to begin and end: borders of larger pages and of tables, and near them."""
NOWHERE = -1

places = st.sampled_from(PLACES) | st.integers(0, PAGES - 1)
lengths = st.integers(1, 40) | st.integers(1, 1100)
choices = st.integers(0, 2)


class Slots:
    """The model of one page size. All is by small page; those of one slot are alike."""

    def __init__(self, shift: int) -> None:
        self.shift = shift
        self.references = np.zeros(PAGES, np.int64)
        self.address = np.full(PAGES, NOWHERE)

    def pick(self, start: int, pages: int) -> slice:
        """The slots that these pages touch."""
        size = (1 << self.shift) // PAGE
        return slice(start // size * size, min(-(-(start + pages) // size) * size, PAGES))

    def count(self, values: NDArray[np.int64]) -> int:
        """Of values by small page, by slot."""
        return int(values.sum()) // ((1 << self.shift) // PAGE)


class Tables(RuleBasedStateMachine):
    """Page tables and what they must be."""

    @initialize(format=st.sampled_from([GP100, GP100, GH100, X86_64]))
    def make(self, format: Format) -> None:
        self.scene = Scene(format)
        self.tables = self.scene.tables
        self.sizes = [Slots(shift) for shift in format.page_shifts if shift <= 21]
        self.sparse: list[tuple[int, int]] = []
        self.targets = 0

    def range_of(self, start: int, pages: int, choice: int) -> tuple[Slots, slice, tuple[int, int, int]]:
        slots = self.sizes[choice % len(self.sizes)]
        picked = slots.pick(start, pages)
        addr, end = BASE + picked.start * PAGE, BASE + picked.stop * PAGE
        return slots, picked, (addr, end - addr, slots.shift)

    @rule(start=places, pages=lengths, choice=choices)
    def get(self, start: int, pages: int, choice: int) -> None:
        slots, picked, request = self.range_of(start, pages, choice)
        self.tables.get(*request)
        slots.references[picked] += 1

    @rule(start=places, pages=lengths, choice=choices)
    def put(self, start: int, pages: int, choice: int) -> None:
        slots, picked, request = self.range_of(start, pages, choice)
        if (slots.references[picked] > (slots.address[picked] != NOWHERE)).all():
            self.tables.put(*request)
            slots.references[picked] -= 1
        else:
            with pytest.raises(InvalidArgument):
                self.tables.put(*request)

    def map_range(self, slots: Slots, picked: slice, request: tuple[int, int, int]) -> None:
        self.targets += 1
        target = vram(self.targets << 26, request[1])
        if slots.references[picked].all():
            self.tables.map(*request, target)
            slots.address[picked] = target.addr + np.arange(0, request[1], PAGE)
        else:
            with pytest.raises(InvalidArgument):
                self.tables.map(*request, target)

    @rule(start=places, pages=lengths, choice=choices)
    def map(self, start: int, pages: int, choice: int) -> None:
        self.map_range(*self.range_of(start, pages, choice))

    @rule(start=places, pages=lengths, choice=choices)
    def unmap(self, start: int, pages: int, choice: int) -> None:
        slots, picked, request = self.range_of(start, pages, choice)
        if slots.references[picked].all():
            self.tables.unmap(*request)
            slots.address[picked] = NOWHERE
        else:
            with pytest.raises(InvalidArgument):
                self.tables.unmap(*request)

    @rule(start=places, pages=lengths, choice=choices)
    def bind(self, start: int, pages: int, choice: int) -> None:
        """As a driver does; more often than by chance what is mapped is referenced."""
        slots, picked, request = self.range_of(start, pages, choice)
        self.tables.get(*request)
        slots.references[picked] += 1
        self.map_range(slots, picked, request)

    @rule(start=places, pages=lengths, choice=choices)
    def unbind(self, start: int, pages: int, choice: int) -> None:
        """Whatever is in the range, slot by slot."""
        slots, picked, _ = self.range_of(start, pages, choice)
        self.clear(slots, picked)

    def clear(self, slots: Slots, picked: slice) -> None:
        for page in range(picked.start, picked.stop, (1 << slots.shift) // PAGE):
            if slots.references[page]:
                addr = BASE + page * PAGE
                self.tables.unmap(addr, 1 << slots.shift, slots.shift)
                for _ in range(slots.references[page]):
                    self.tables.put(addr, 1 << slots.shift, slots.shift)
        slots.references[picked] = 0
        slots.address[picked] = NOWHERE

    @precondition(lambda self: self.tables.format is not X86_64)
    @rule(start=places, pages=lengths)
    def sparse_ref(self, start: int, pages: int) -> None:
        end = min(start + pages, PAGES)
        request = (BASE + start * PAGE, (end - start) * PAGE, True)
        if any(start < last and first < end for first, last in self.sparse):
            with pytest.raises(AlreadyMapped):
                self.tables.sparse(*request)
        else:
            self.tables.sparse(*request)
            self.sparse.append((start, end))

    @precondition(lambda self: self.sparse)
    @rule(data=st.data())
    def sparse_unref(self, data: st.DataObject) -> None:
        start, end = self.sparse.pop(data.draw(st.integers(0, len(self.sparse) - 1)))
        addr, size = BASE + start * PAGE, (end - start) * PAGE
        with pytest.raises(NotFound):
            self.tables.sparse(addr, size + PAGE, False)
        self.tables.sparse(addr, size, False)

    # -- what must hold

    def expected(self) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """By small page, what it leads to: larger pages cover smaller ones, these cover sparse ranges."""
        state = np.full(PAGES, RunState.INVALID, np.uint8)
        for start, end in self.sparse:
            state[start:end] = RunState.SPARSE
        address = np.zeros(PAGES, np.int64)
        for slots in reversed(self.sizes):
            mapped = slots.address != NOWHERE
            state[mapped] = RunState.VALID
            address[mapped] = slots.address[mapped]
        return state, address

    @invariant()
    def every_word_and_count_is_right(self) -> None:
        self.tables.check()
        statistics = self.tables.statistics()
        assert statistics.references == sum(slots.count(slots.references) for slots in self.sizes)
        for slots in self.sizes:
            mapped = slots.count((slots.address != NOWHERE).astype(np.int64))
            assert statistics.mapped[slots.shift] == mapped
        ranges = [(BASE + start * PAGE, (end - start) * PAGE) for start, end in sorted(self.sparse)]
        assert self.tables.sparse_ranges() == ranges
        assert statistics.sparse_bytes == sum(size for _, size in ranges)

    @invariant()
    def every_page_leads_where_it_should(self) -> None:
        runs = np.concatenate([array.copy() for array in self.tables.run_arrays(BASE, SIZE)])
        ends = runs["va"] + runs["range"]
        assert runs["va"][0] == BASE
        assert (runs["va"][1:] == ends[:-1]).all()
        assert ends[-1] == BASE + SIZE
        state, address = self.expected()
        pages = (runs["range"] // PAGE).astype(np.int64)
        assert (np.repeat(runs["state"], pages) == state).all()
        offsets = np.arange(BASE, BASE + SIZE, PAGE) - np.repeat(runs["va"].astype(np.int64), pages)
        shown = np.repeat(runs["address"].astype(np.int64), pages) + offsets
        assert (shown == address)[state == RunState.VALID].all()

    @invariant()
    def three_readers_agree(self) -> None:
        words, root = self.scene.memory.view.view(np.uint64), self.tables.root
        state, address = self.expected()
        for page in PLACES[self.targets % 7 :: 7]:
            va = BASE + page * PAGE + 0x123
            found = self.tables.translate(va)
            assert found == translate(self.tables.format, self.scene.memory.view, root, va)
            if self.tables.format is GP100:
                known = RunState(int(state[page]))
                there = address[page] + 0x123 if known is RunState.VALID else known.name.lower()
                assert walk(words, root, va)[1] == there

    def teardown(self) -> None:
        if not hasattr(self, "scene"):
            return
        for slots in self.sizes:
            self.clear(slots, slice(0, PAGES))
        for start, end in self.sparse:
            self.tables.sparse(BASE + start * PAGE, (end - start) * PAGE, False)
        self.scene.end()


TestTables = Tables.TestCase
TestTables.settings = settings(max_examples=scaled(60, 1500))
