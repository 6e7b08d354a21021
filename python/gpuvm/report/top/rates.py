"""How often things happened lately: counts in tenths of a second, for numbers a second and for sparklines."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable
from typing import Final

SLOT: Final = 100_000_000
"""Nanoseconds of one count."""
_SECOND: Final = 1_000_000_000 // SLOT
COLUMNS: Final = 60
"""Of a sparkline."""
_KEPT: Final = COLUMNS * _SECOND


class Rates:
    """Counts of each key for the last minute of the trace's time. No locks: one thread's."""

    def __init__(self) -> None:
        self._counts: defaultdict[Hashable, Counter[int]] = defaultdict(Counter)

    def add(self, key: Hashable, slot: int, count: int) -> None:
        """``count`` more in tenth ``slot`` of the recording."""
        self._counts[key][slot] += count

    def forget_before(self, now: int) -> None:
        """Drop what no sparkline of ``now`` or later shows. Cost: O(counts kept)."""
        oldest = now // SLOT - _KEPT - _SECOND
        for key, counts in list(self._counts.items()):
            for slot in [one for one in counts if one < oldest]:
                del counts[slot]
            if not counts:
                del self._counts[key]

    def per_second(self, key: Hashable, now: int) -> int:
        """How many there were in the last ten whole tenths before ``now``."""
        counts = self._counts.get(key)
        end = now // SLOT
        return sum(counts[slot] for slot in range(end - _SECOND, end)) if counts else 0

    def columns(self, key: Hashable, now: int) -> tuple[int, ...]:
        """For a sparkline: counts of equal times, the last one is of the time that is running; () for none.

        A column is a second, or a tenth as long as the recording is not older than ``COLUMNS`` tenths.
        """
        counts = self._counts.get(key)
        if not counts:
            return ()
        width = column_slots(now)
        last = now // SLOT // width
        columns = [0] * COLUMNS
        for slot, count in counts.items():
            at = slot // width - last + COLUMNS - 1
            if 0 <= at < COLUMNS:
                columns[at] += count
        return tuple(columns) if any(columns) else ()


def column_slots(now: int) -> int:
    """Tenths of a second that a sparkline's column has at ``now``."""
    return 1 if now // SLOT < COLUMNS else _SECOND
