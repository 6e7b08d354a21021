"""What EXECs touched, as far as a trace tells, and when."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from gpuvm.trace.trace import Trace

_ACCESSES: Final = ("read", "write", "fetch", "atomic")
_FETCH: Final = 2


class Times(NamedTuple):
    """When something was done; nanoseconds of the trace."""

    asked: int
    """The call that wants it began, or its job was queued."""
    effect: int | None
    """It had surely taken effect; None: it never had."""
    done: int | None
    """It was over; None: it never was."""


class Touch(NamedTuple):
    """``[addr, end)``, by the EXEC ``call``."""

    call: int
    client: int
    channel: int
    access: str
    addr: int
    end: int
    seen: bool
    """The engine was seen doing it; else it is a push buffer, which has to be fetched."""
    times: Times | None


def touches(trace: Trace) -> Iterator[Touch]:
    """Of all accepted EXECs, by call: the accesses that were recorded, or else the push buffers."""
    jobs = trace.db.execute(
        "SELECT call, client, channel, queued, started, done FROM jobs WHERE channel != 0 ORDER BY call"
    )
    pushes = _ByCall(trace, "SELECT call, va, va + va_len, NULL, NULL, NULL FROM pushes ORDER BY call, i")
    accesses = _ByCall(
        trace,
        "SELECT call, addr, addr + range, code, t, t + ifnull(took, 0) FROM accesses "
        "WHERE call != 0 ORDER BY call, id",
    )
    for call, client, channel, queued, _, done in jobs:
        seen, fetched = accesses.of(call), pushes.of(call)
        whole = None if queued is None else Times(queued, done, done)
        for addr, end, code, began, ended in seen or fetched:
            access = _ACCESSES[_FETCH if code is None else code]
            times = whole if began is None or queued is None else Times(queued, began, ended)
            if addr < end:
                yield Touch(call, client, channel, access, addr, end, began is not None, times)


def bind_times(trace: Trace) -> Callable[[int], Times | None]:
    """A function that tells when a VM_BIND, by its call, was asked for and done; None: not recorded."""
    row = (
        "SELECT c.t, c.t + c.took, j.queued, j.started, j.done, j.call FROM calls c "
        "LEFT JOIN jobs j ON j.call = c.id WHERE c.id = ?"
    )

    def times(call: int) -> Times | None:
        began, ended, queued, started, done, job = trace.db.execute(row, (call,)).fetchone()
        if job is None:
            return None if ended is None else Times(began, ended, ended)
        return None if queued is None else Times(queued, done or started, done)

    return times


class _ByCall:
    """Rows of a query, the first of whose columns is the call, ascending."""

    def __init__(self, trace: Trace, query: str) -> None:
        self._groups = groupby(trace.db.execute(query), itemgetter(0))
        self._next = next(self._groups, None)

    def of(self, call: int) -> list[tuple[int, int, int | None, int | None, int | None]]:
        """Those of a call, which comes after the ones that were asked for before, without the call."""
        while self._next is not None and self._next[0] < call:
            self._next = next(self._groups, None)
        if self._next is None or self._next[0] != call:
            return []
        return [row[1:] for row in self._next[1]]
