"""Page tables as Python programs keep them: a walk for every table, each word stored by itself.

Five levels of nine bits, 8-byte entries in one array of words; the shape is that of user-mode drivers written
in Python, whose page tables are the rival.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator

ROOT_SHIFT = 48
BITS = 9
ENTRIES = 1 << BITS
VALID = 1
PAGE = 2
FLAGS = 3
LEAF_SHIFTS = (12, 21)


class PythonWalker:
    """Maps, unmaps and translates a page at a time. Tables come from one array that is never given back."""

    def __init__(self, tables: int) -> None:
        self._words = array("Q", bytes(8 * ENTRIES * tables))
        self._limit = tables
        self._next = 1

    def _table(self, addr: int, shift: int, make: bool) -> int:
        """Where the words of the table begin that has the entry of `addr` at `shift`; 0: there is none."""
        words, base, level = self._words, 0, ROOT_SHIFT
        while level > shift:
            place = base + (addr >> level & ENTRIES - 1)
            word = words[place]
            if not word & VALID:
                if not make:
                    return 0
                if self._next == self._limit:
                    raise MemoryError(f"PythonWalker: {self._limit} tables are all there is")
                word = words[place] = self._next << 12 | VALID
                self._next += 1
            base = (word >> 12) * ENTRIES
            level -= BITS
        return base

    def map(self, addr: int, size: int, target: int, shift: int) -> None:
        """One entry a page."""
        words, step = self._words, 1 << shift
        word = target | VALID | PAGE
        for first, last in self._places(addr, size, shift, make=True):
            for place in range(first, last):
                words[place] = word
                word += step

    def unmap(self, addr: int, size: int, shift: int) -> None:
        """The same with nothing in them."""
        words = self._words
        for first, last in self._places(addr, size, shift, make=False):
            for place in range(first, last):
                words[place] = 0

    def _places(self, addr: int, size: int, shift: int, *, make: bool) -> Iterator[tuple[int, int]]:
        """Where the words of the range are, for each table that has some."""
        page, end = addr >> shift, addr + size >> shift
        while page < end:
            index = page & ENTRIES - 1
            count = min(ENTRIES - index, end - page)
            first = self._table(page << shift, shift, make) + index
            yield first, first + count
            page += count

    def translate(self, addr: int) -> int | None:
        """The physical address, None if nothing is mapped."""
        words, base, level = self._words, 0, ROOT_SHIFT
        while True:
            word = words[base + (addr >> level & ENTRIES - 1)]
            if not word & VALID:
                return None
            if word & PAGE:
                return (word & ~FLAGS) + (addr & (1 << level) - 1)
            base = (word >> 12) * ENTRIES
            level -= BITS
