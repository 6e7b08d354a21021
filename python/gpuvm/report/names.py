"""Names: what is behind the handles in a trace's calls."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from typing import Final, NamedTuple

from gpuvm.trace.recorded import Record
from gpuvm.trace.trace import Trace

_HANDLES: Final = """
SELECT c.number, h.handle, h.born, h.died, h.object FROM handles h JOIN clients c ON c.id = h.client
WHERE h.born > ? AND h.born <= ? ORDER BY h.born
"""
_SYNCOBJS: Final = "SELECT handle, syncobj FROM syncs WHERE call = ?"
_AHEAD: Final = 5000
"""Calls; so far handles are read before they are asked for."""


class _Life(NamedTuple):
    born: int
    died: int | None
    object: int


class TraceNames:
    """Looks them up in a trace, and keeps what was read. Cost: of the first, O(calls before); then O(log n).

    Args:
        trace: whose records will be asked about.
    """

    def __init__(self, trace: Trace) -> None:
        self._db: Final = trace.db
        self._lives: Final[defaultdict[tuple[int, int], list[_Life]]] = defaultdict(list)
        self._read = 0
        self._call = 0
        self._syncobjs: dict[int, int | None] = {}

    def object(self, record: Record, handle: int) -> int | None:
        """The id of the object that the handle named in this call; None: there was none."""
        if record.line > self._read:
            self._read_on(record.line + _AHEAD)
        lives = self._lives.get((record.client, handle), [])
        at = bisect_right(lives, record.line, key=lambda life: life.born)
        if not at or (lives[at - 1].died or record.line) < record.line:
            return None
        return lives[at - 1].object

    def _read_on(self, last: int) -> None:
        for client, handle, *life in self._db.execute(_HANDLES, (self._read, last)):
            self._lives[client, handle].append(_Life(*life))
        self._read = last

    def syncobj(self, record: Record, handle: int) -> int | None:
        """The id of the sync object."""
        if self._call != record.line:
            self._call, self._syncobjs = record.line, dict(self._db.execute(_SYNCOBJS, (record.line,)))
        return self._syncobjs.get(handle)
