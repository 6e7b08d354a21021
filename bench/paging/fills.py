"""Entries written and cleared over a range; a unit is one of the two for one entry."""

from __future__ import annotations

import numpy as np

from bench.paging.python_walker import PythonWalker
from bench.paging.tables import BASE, page_table, vram
from bench.sampling.contender import Contender, Job
from bench.selfcheck import Disagreement

TARGET = 1 << 32
"""The physical address that the range leads to."""
BIG = 256 << 20
"""Bytes that no cache holds."""


class TableFills(Contender):
    """`PageTable.map` and `unmap`: tables are there already."""

    def __init__(self, size: int, shift: int) -> None:
        self._shift = shift
        self._entries = size >> shift
        self._tables = page_table(16 << 20)
        self._tables.get(BASE, size, shift)
        self._size = size
        self._rounds = 0

    def jobs(self, units: int) -> list[Job]:
        rounds = self._rounds = units // (2 * self._entries)
        tables, size, shift, target = self._tables, self._size, self._shift, vram(TARGET, self._size)

        def fill_and_clear() -> None:
            for _ in range(rounds):
                tables.map(BASE, size, shift, target)
                tables.unmap(BASE, size, shift)

        return [fill_and_clear]

    def check(self) -> int:
        """The count of what was written, and the words of one round more."""
        tables = self._tables
        tables.map(BASE, self._size, self._shift, vram(TARGET, self._size))
        runs = [(run.range, run.address) for run in tables.runs(BASE, self._size)]
        tables.unmap(BASE, self._size, self._shift)
        if runs != [(self._size, TARGET)]:
            raise Disagreement(f"TableFills: the range leads to {runs}")
        tables.check()
        return 2 * self._entries * self._rounds

    def close(self) -> None:
        self._tables.put(BASE, self._size, self._shift)
        self._tables.close()


class PythonFills(Contender):
    """The walker in Python."""

    def __init__(self, size: int, shift: int) -> None:
        self._walker = PythonWalker(600)
        self._size, self._shift, self._rounds = size, shift, 0

    def jobs(self, units: int) -> list[Job]:
        rounds = self._rounds = units // (2 * (self._size >> self._shift))
        walker, size, shift = self._walker, self._size, self._shift

        def fill_and_clear() -> None:
            for _ in range(rounds):
                walker.map(BASE, size, TARGET, shift)
                walker.unmap(BASE, size, shift)

        return [fill_and_clear]

    def check(self) -> int:
        last = BASE + self._size - 1
        if self._walker.translate(last) is not None:
            raise Disagreement("PythonFills: an entry was not cleared")
        self._walker.map(BASE, self._size, TARGET, self._shift)
        if self._walker.translate(last) != TARGET + self._size - 1:
            raise Disagreement("PythonFills: an entry was not written")
        return 2 * (self._size >> self._shift) * self._rounds


class MemoryFills(Contender):
    """The machine: as many bytes stored by NumPy, in an array no cache holds, each time the next part."""

    def __init__(self, size: int, shift: int, entry_bytes: int) -> None:
        self._entries = size >> shift
        parts = max(1, BIG // (self._entries * entry_bytes))
        self._parts = np.ones((parts, self._entries * entry_bytes // 8), np.uint64)
        self._next = 0
        self._rounds = 0

    def jobs(self, units: int) -> list[Job]:
        rounds = self._rounds = units // (2 * self._entries)
        turn = [(self._next + number) % len(self._parts) for number in range(2 * rounds)]
        self._next = (turn[-1] + 1) % len(self._parts)
        parts = [self._parts[number] for number in turn]

        def fill_and_clear() -> None:
            for part in parts:
                part.fill(0)

        return [fill_and_clear]

    def check(self) -> int:
        if self._parts[self._next - 1].any():
            raise Disagreement("MemoryFills: a word was not stored")
        return 2 * self._entries * self._rounds
