"""What a recorded program has in the GPU's memories, what was evicted, and its page tables, from a trace."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from gpuvm.trace.call_numbers import NUMBERS

_MOVES: Final = """
SELECT source, target, evicted, count(*), sum(size), max(id) FROM moves WHERE id > ? GROUP BY 1, 2, 3"""
_WORK: Final = "c.id, c.client, p.written, p.cleared, p.made - p.freed, p.call IS NULL"
_NEW: Final = f"""
SELECT {_WORK} FROM calls c LEFT JOIN page_work p ON p.call = c.id
WHERE c.id > ? AND c.nr = {NUMBERS["vm_bind"]} AND c.ret = 0"""
_SO_FAR: Final = """
SELECT c.client, sum(p.written), sum(p.cleared), sum(p.made - p.freed)
FROM page_work p JOIN calls c ON c.id = p.call GROUP BY c.client"""
_RECENT: Final = 1000
"""Calls whose work may not have been told yet at a first look."""
_LATE: Final = f"""
SELECT {_WORK} FROM json_each(?) late CROSS JOIN calls c ON c.id = late.value
LEFT JOIN page_work p ON p.call = c.id"""


@dataclass(frozen=True, slots=True)
class MemoryNumbers:
    """Objects in the GPU's memories, in bytes."""

    vram: int = 0
    gart: int = 0
    swapped: int = 0
    evictions: int = 0
    """How often one had to make room."""
    evicted_bytes: int = 0


class Memory:
    """Where objects are, from their moves. Not thread-safe."""

    def __init__(self) -> None:
        self._bytes: Counter[str | None] = Counter()
        self._last = 0
        self._evictions = self._evicted_bytes = 0

    def advance(self, db: sqlite3.Connection) -> int:
        """Take in new moves; how many."""
        rows = 0
        for source, target, evicted, moves, size, last in db.execute(_MOVES, (self._last,)).fetchall():
            rows += moves
            self._bytes[source] -= size
            self._bytes[target] += size
            self._last = max(self._last, last)
            if evicted:
                self._evictions += moves
                self._evicted_bytes += size
        return rows

    def numbers(self) -> MemoryNumbers:
        """As of the last look."""
        held = self._bytes
        return MemoryNumbers(held["vram"], held["gart"], held["cpu"], self._evictions, self._evicted_bytes)


@dataclass(frozen=True, slots=True)
class TableNumbers:
    """A client's page tables."""

    written: int = 0
    """Entries."""
    cleared: int = 0
    tables: int = 0
    """More made than freed."""


class PageTables:
    """What binds did to page tables, by client. Not thread-safe."""

    def __init__(self) -> None:
        self._numbers: defaultdict[int, TableNumbers] = defaultdict(TableNumbers)
        self._late: list[int] = []

    def advance(self, db: sqlite3.Connection, last_call: int, open_calls: Collection[int]) -> int:
        """Take in the work of binds after ``last_call``, and of earlier ones that had none yet; how many.

        A bind does its work when its job runs, and that is told a moment later. So one without work is looked
        at once again, and as long as its job is one of ``open_calls``.
        """
        if not last_call:
            return self._begin(db, open_calls)
        looked, late = 0, []
        again = db.execute(_LATE, (json.dumps(self._late),)).fetchall()
        for call, client, *work, missing in again:
            if not missing:
                self._add(client, *work)
            elif call in open_calls:
                late.append(call)
            looked += 1
        for call, client, *work, missing in db.execute(_NEW, (last_call,)):
            if missing:
                late.append(call)
            else:
                self._add(client, *work)
            looked += 1
        self._late = late
        return looked

    def _begin(self, db: sqlite3.Connection, open_calls: Collection[int]) -> int:
        """All that there is. Cost: one look at all work."""
        for client, *work in db.execute(_SO_FAR):
            self._add(client, *work)
        (last,) = db.execute("SELECT coalesce(max(id), 0) FROM calls").fetchone()
        recent = db.execute(_NEW, (last - _RECENT,)).fetchall()
        self._late = sorted({call for call, *_, missing in recent if missing}.union(open_calls))
        return len(recent)

    def numbers(self, client: int) -> TableNumbers:
        """Those of a client."""
        return self._numbers.get(client, TableNumbers())

    def _add(self, client: int, written: int, cleared: int, tables: int) -> None:
        had = self._numbers[client]
        self._numbers[client] = TableNumbers(
            had.written + written, had.cleared + cleared, had.tables + tables
        )
