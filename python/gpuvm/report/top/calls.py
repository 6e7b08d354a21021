"""Calls of a recorded program by kind, and how many there were lately, kept up to date from a trace."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from dataclasses import dataclass
from typing import Final

from gpuvm.report.top.rates import SLOT, Rates
from gpuvm.trace.call_numbers import NUMBERS

_NO_REFUSAL: Final = (-62, -4)
"""ETIME and EINTR: what waits that end early are answered."""
_MINUTE: Final = 62_000_000_000
_SECOND: Final = 2_000_000_000
"""What a first look goes back in time, for sparklines and for numbers a second, and a second more."""

_TOTALS: Final = f"""
SELECT client, call, sum(calls), sum(CASE WHEN ret < 0 AND ret NOT IN {_NO_REFUSAL} THEN calls ELSE 0 END)
FROM call_totals GROUP BY client, nr"""
_CALLS: Final = f"""
SELECT client, call, t / {SLOT}, count(*), max(t + coalesce(took, 0)) FROM calls
WHERE id > ? GROUP BY client, nr, 3"""
_BINDS: Final = f"""
SELECT client, t / {SLOT}, count(*) FROM calls
WHERE id > ? AND nr = {NUMBERS["vm_bind"]} AND ret = 0 GROUP BY 1, 2"""
_OPS: Final = f"""
SELECT c.client, c.t / {SLOT}, count(*) FROM ops o JOIN calls c ON c.id = o.call
WHERE o.call > ? GROUP BY 1, 2"""
_FROM: Final = "SELECT id, t + coalesce(took, 0) FROM calls WHERE id >= ? ORDER BY id LIMIT 1"


@dataclass(frozen=True, slots=True)
class CallNumbers:
    """Calls of one kind."""

    name: str
    count: int
    refused: int
    """Without waits that ended early."""
    per_second: int


class Calls:
    """Counts of calls, accepted binds and ops by client. Not thread-safe.

    Attributes:
        last_at: when the last call ended, in ns of the recording.
    """

    def __init__(self) -> None:
        self._totals: dict[int, list[tuple[str, int, int]]] = {}
        self._rates = Rates()
        self.last_at = 0

    def advance(self, db: sqlite3.Connection, last_call: int) -> None:
        """Take in calls after ``last_call``.

        Cost: O(their ops + clients), but 0, for the beginning, is one look at the calls of the last minute.
        """
        totals = defaultdict(list)
        for client, call, count, refused in db.execute(_TOTALS):
            totals[client].append((call, count, refused))
        self._totals = totals
        minute, second = (last_call, last_call) if last_call else _last_minute_and_second(db)
        for client, call, slot, count, ended in db.execute(_CALLS, (second,)):
            self._rates.add((client, call), slot, count)
            self.last_at = max(self.last_at, ended)
        for client, slot, count in db.execute(_BINDS, (minute,)):
            self._rates.add((client, "binds"), slot, count)
        for client, slot, count in db.execute(_OPS, (second,)):
            self._rates.add((client, "ops"), slot, count)
        self._rates.forget_before(self.last_at)

    def numbers(self, client: int, now: int) -> tuple[CallNumbers, ...]:
        """Each kind that the client made, the most frequent first."""
        rates = self._rates
        kinds = [
            CallNumbers(call, count, refused, rates.per_second((client, call), now))
            for call, count, refused in self._totals.get(client, ())
        ]
        return tuple(sorted(kinds, key=lambda one: (-one.count, one.name)))

    def binds_per_second(self, client: int, now: int) -> int:
        """VM_BINDs that were accepted."""
        return self._rates.per_second((client, "binds"), now)

    def ops_per_second(self, client: int, now: int) -> int:
        """What the manager emitted for them."""
        return self._rates.per_second((client, "ops"), now)

    def binds(self, client: int, now: int) -> tuple[int, ...]:
        """Accepted VM_BINDs over time, see `Rates.columns`."""
        return self._rates.columns((client, "binds"), now)


def _last_minute_and_second(db: sqlite3.Connection) -> tuple[int, int]:
    """The last calls that need not be looked at. Calls end nearly in the order of their numbers."""
    newest = db.execute("SELECT id, t + coalesce(took, 0) FROM calls ORDER BY id DESC LIMIT 1").fetchone()
    if newest is None:
        return 0, 0
    last, end = newest
    return _before(db, last, end - _MINUTE), _before(db, last, end - _SECOND)


def _before(db: sqlite3.Connection, last: int, time: int) -> int:
    """The last call that had ended by ``time``, by bisection; 0 for none."""
    low, high = 0, last
    while low < high:
        middle = (low + high) // 2 + 1
        id, ended = db.execute(_FROM, (middle,)).fetchone()
        if ended < time:
            low = id
        else:
            high = middle - 1
    return low
