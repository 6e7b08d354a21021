"""Sums over a whole trace, kept while it is written, so that nobody has to read all of it for them."""

from __future__ import annotations

import sqlite3
from collections import Counter
from typing import Final


class Totals:
    """The rows of `call_totals` and `totals`. ``write`` brings them up to date."""

    def __init__(self) -> None:
        self._calls: Final[dict[tuple[int, int, int], list[int]]] = {}
        """By client, call and result: how many, nanoseconds, the first."""
        self._changed: Final[set[tuple[int, int, int]]] = set()
        self._sums: Final[Counter[str]] = Counter()
        self._most: Final[dict[str, tuple[int, int]]] = {}

    def call(self, number: int, client: int, nr: int, ret: int, took: int) -> None:
        """One more call."""
        key = client, nr, ret
        counts = self._calls.get(key)
        if counts is None:
            counts = self._calls[key] = [0, 0, number]
        counts[0] += 1
        counts[1] += took
        self._changed.add(key)

    def add(self, what: str, count: int) -> None:
        """So many more."""
        self._sums[what] += count

    def put(self, what: str, count: int) -> None:
        """So many in all."""
        self._sums[what] = count

    def most(self, what: str, value: int, call: int) -> None:
        """It is ``value`` after the call; the largest, and the first of equals, counts."""
        if value > self._most.get(what, (0, 0))[0]:
            self._most[what] = value, call

    def write(self, db: sqlite3.Connection) -> None:
        """All that changed."""
        calls = [(*key, *self._calls[key]) for key in self._changed]
        db.executemany("INSERT OR REPLACE INTO call_totals VALUES (?, ?, ?, ?, ?, ?)", calls)
        self._changed.clear()
        rows: list[tuple[str, int, int | None]] = [
            (what, count, None) for what, count in self._sums.items() if count
        ]
        rows += [(what, *both) for what, both in self._most.items()]
        db.executemany("INSERT OR REPLACE INTO totals VALUES (?, ?, ?)", rows)
