"""Names: what is behind the handles in a trace's calls."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from typing import Final, NamedTuple

from gpuvm.trace.database import signed
from gpuvm.trace.recorded import Record
from gpuvm.trace.trace import Trace

_HANDLES: Final = """
SELECT c.number, h.handle, h.born, h.died, h.object FROM handles h JOIN clients c ON c.id = h.client
WHERE h.born > ? AND h.born <= ? ORDER BY h.born
"""
_OLDER: Final = """
SELECT born, died, object FROM handles
WHERE client IN (SELECT id FROM clients WHERE number = ?) AND handle = ? AND born <= ?
ORDER BY born DESC LIMIT 1
"""
_SYNCOBJS: Final = "SELECT handle, syncobj FROM syncs WHERE call = ?"
_AHEAD: Final = 5000
"""Calls; so far handles are read before they are asked for."""


class _Life(NamedTuple):
    born: int
    died: int | None
    object: int


class TraceNames:
    """Looks them up in a trace, and keeps what was read: of calls one after the other each is read once.

    Cost: O(log n); the first time that a call names a handle which is older than all that was read, a look at
    each handle that was given since.

    Args:
        trace: whose records will be asked about.
    """

    def __init__(self, trace: Trace) -> None:
        self._db: Final = trace.db
        self._lives: Final[defaultdict[tuple[int, int], list[_Life]]] = defaultdict(list)
        self._older: Final[dict[tuple[int, int], _Life | None]] = {}
        """The last life of a handle that began before what was read."""
        self._before = self._read = 0
        """Handles were read that calls gave between these, the second included."""
        self._call = 0
        self._syncobjs: dict[int, int | None] = {}

    def object(self, record: Record, handle: int) -> int | None:
        """The id of the object that the handle named in this call; None: there was none."""
        call, key = record.line, (signed(record.client), handle)
        if not self._before < call <= self._read + _AHEAD:
            self._lives.clear()
            self._older.clear()
            self._before = self._read = call - 1
        if call > self._read:
            self._read_on(call + _AHEAD)
        lives = self._lives.get(key, [])
        at = bisect_right(lives, call, key=lambda life: life.born)
        life = lives[at - 1] if at else self._older_life(key)
        return None if life is None or (life.died or call) < call else life.object

    def _read_on(self, last: int) -> None:
        for client, handle, *life in self._db.execute(_HANDLES, (self._read, last)):
            self._lives[client, handle].append(_Life(*life))
        self._read = last

    def _older_life(self, key: tuple[int, int]) -> _Life | None:
        if key not in self._older:
            row = self._db.execute(_OLDER, (*key, self._before)).fetchone()
            self._older[key] = None if row is None else _Life(*row)
        return self._older[key]

    def syncobj(self, record: Record, handle: int) -> int | None:
        """The id of the sync object."""
        if self._call != record.line:
            self._call, self._syncobjs = record.line, dict(self._db.execute(_SYNCOBJS, (record.line,)))
        return self._syncobjs.get(handle)
