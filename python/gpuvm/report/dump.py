"""The calls of a trace in lines, for ``gpuvm dump``."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

from gpuvm.report.call_text import dump_line
from gpuvm.report.names import TraceNames
from gpuvm.trace.call_numbers import NUMBERS
from gpuvm.trace.database import signed, unsigned
from gpuvm.trace.recorded import Record
from gpuvm.trace.trace import Trace

_NS: Final = 1e9
_AT_ONCE: Final = 200
"""Calls that are looked up together."""
_DENSE: Final = 8
"""If one of so many calls is wanted, all are read and the others passed over."""

_OPS: Final = """
SELECT o.op, o.keep, m.addr, m.range, m.object, m.bo_offset, p.addr, p.range, n.addr, n.range
FROM ops o JOIN mappings m ON m.id = o.mapping
LEFT JOIN mappings p ON p.id = o.prev LEFT JOIN mappings n ON n.id = o.next
WHERE o.call = ? ORDER BY o.i
"""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which calls: numbers, both ends included; None and empty: all."""

    first: int = 1
    last: int | None = None
    client: int | None = None
    calls: Collection[str] = ()
    failed: bool = False


def dump_lines(
    trace: Trace, selection: Selection, *, times: bool = False, ops: bool = False, full: bool = False
) -> Iterator[str]:
    """A line for each call, as soon as it is read.

    Args:
        times: when it began in front, in seconds, and behind how long it lasted, if that is known.
        ops: below each call, what the manager emitted for it.
        full: all of long lists.

    Raises:
        TraceError: the trace is damaged.
    """
    names = TraceNames(trace)
    for record in _selected(trace, selection):
        line = dump_line(record, names, full=full)
        yield _timed(trace, record, line) if times else line
        if ops:
            yield from _emitted(trace, record)


def _selected(trace: Trace, which: Selection) -> Iterator[Record]:
    if not which.calls and not which.failed:
        yield from trace.records(first=which.first, last=which.last, client=which.client)
        return
    conditions = ["c.id >= ?"]
    if which.last is not None:
        conditions.append(f"c.id <= {which.last}")
    if which.client is not None:
        conditions.append(f"clients.number = {signed(which.client)}")
    if which.calls:
        conditions.append(f"nr IN ({', '.join(str(NUMBERS[one]) for one in which.calls)})")
    if which.failed:
        conditions.append("ret != 0")
    query = (
        "SELECT c.id FROM calls c JOIN clients ON clients.id = c.client"
        f" WHERE {' AND '.join(conditions)} ORDER BY c.id"
    )
    found = trace.db.execute(query, (which.first,))
    while rows := found.fetchmany(_AT_ONCE):
        wanted = {number for (number,) in rows}
        first, last = rows[0][0], rows[-1][0]
        if last - first < _DENSE * len(wanted):
            yield from (one for one in trace.records(first=first, last=last) if one.line in wanted)
        else:
            yield from (trace.call(number) for (number,) in rows)


def _timed(trace: Trace, record: Record, line: str) -> str:
    (took,) = trace.db.execute("SELECT took FROM calls WHERE id = ?", (record.line,)).fetchone()
    lasted = "" if took is None else f" <{took / _NS:.6f}>"
    return f"{record.t / _NS:.6f} {line}{lasted}"


def _emitted(trace: Trace, record: Record) -> Iterator[str]:
    for op, keep, addr, size, obj, offset, *rest in trace.db.execute(_OPS, (record.line,)):
        backing = "no object" if obj is None else f"object {obj} at {unsigned(offset):#x}"
        kept = ", entries may stay" if keep else ""
        pieces = [_range(*piece) for piece in (rest[:2], rest[2:]) if piece[0] is not None]
        left = f", leaves {' and '.join(pieces)}" if pieces else ""
        yield f"    {op:<5}  {_range(addr, size)} {backing}{left}{kept}"


def _range(addr: int, size: int) -> str:
    begin = unsigned(addr)
    return f"[{begin:#x}, {begin + unsigned(size):#x})"
