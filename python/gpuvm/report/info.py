"""What is in a trace, in a few lines, for ``gpuvm info``."""

from __future__ import annotations

import json
import shlex
import signal
from collections.abc import Iterator
from textwrap import wrap
from typing import Any, Final, TypeAlias

from gpuvm.errors import ERRNO_NAMES
from gpuvm.report.call_text import dump_line
from gpuvm.report.names import TraceNames
from gpuvm.report.sizes import size_text
from gpuvm.trace.call_numbers import NUMBERS
from gpuvm.trace.database import unsigned
from gpuvm.trace.source import printable
from gpuvm.trace.trace import Form, Trace, TraceClient

_LABEL: Final = 16
_WIDTH: Final = 110
_SHOWN: Final = 10
"""Clients and errors; of others it is told how many there are."""
_SLOWEST: Final = 5

_Totals: TypeAlias = dict[str, tuple[int, int | None]]
"""By what the table of that name counts: how much, and the call that had the most."""


def info_text(trace: Trace) -> str:
    """The summary. Cost: O(mappings + objects); what there is of calls is in tables of totals."""
    return "\n".join(_lines(trace)) + "\n"


def _lines(trace: Trace) -> Iterator[str]:
    calls = _one(trace, "SELECT coalesce(sum(calls), 0) FROM call_totals")
    form = "JSON Lines" if trace.form is Form.JSON_LINES else "SQLite"
    yield f"{trace.name}: {form}, {_count(calls, 'call')}"
    for label, text in _rows(trace, calls):
        yield from wrap(
            printable(text),
            _WIDTH,
            initial_indent=f"  {label}".ljust(_LABEL),
            subsequent_indent=" " * _LABEL,
            break_on_hyphens=False,
        )


def _rows(trace: Trace, calls: int) -> Iterator[tuple[str, str]]:
    if trace.form is Form.SQLITE:
        yield from _recording(trace, calls)
    if device := trace.db.execute("SELECT chip, chipset, vram, gart FROM device").fetchone():
        chip, chipset, vram, gart = device
        yield "device", f"{chip} ({chipset:#x}), {size_text(vram)} of VRAM, {size_text(gart)} of GART"
    totals = {what: (value, call) for what, value, call in trace.db.execute("SELECT * FROM totals")}
    yield from _clients(trace)
    yield from _calls(trace, calls)
    yield from _space(trace, totals)
    yield from _memory(trace)
    yield from _jobs(trace, totals)
    yield from _runtime(trace, totals)


def _recording(trace: Trace, calls: int) -> Iterator[tuple[str, str]]:
    about = trace.about
    if "program" in about:
        ended = f" {_ending(about['status'])}" if about.get("status") is not None else ""
        yield "program", f"{shlex.join(json.loads(about['program']))}{ended}"
    if "begun" in about:
        by = f" by gpuvm {about['gpuvm']}" if "gpuvm" in about else ""
        yield "recorded", f"{about['begun']}{by}"
    if not trace.whole:
        yield "cut short", "the recording goes on, or was killed; what is here is whole calls"
    size = _one(trace, "PRAGMA page_count") * _one(trace, "PRAGMA page_size")
    a_call = f", {size / calls:,.0f} bytes a call" if calls else ""
    yield "size", f"{size_text(size)}{a_call}"


def _ending(status: int) -> str:
    if status >= 0:
        return f"ended with {status}"
    known = -status in set(signal.Signals)
    return f"was killed by {signal.Signals(-status).name if known else f'signal {-status}'}"


def _clients(trace: Trace) -> Iterator[tuple[str, str]]:
    counts = dict(trace.db.execute("SELECT client, sum(calls) FROM call_totals GROUP BY client"))
    clients = trace.clients()
    for client in clients[:_SHOWN]:
        yield f"client {client.number}", f"{_who(client)}{_count(counts.get(client.id, 0), 'call')}"
    if len(clients) > _SHOWN:
        yield "", f"and {len(clients) - _SHOWN:,} more clients"


def _who(client: TraceClient) -> str:
    who = "" if client.pid is None else f"{client.program or '?'}, pid {client.pid}: "
    if client.opened is None:
        return who
    to = "the end" if client.closed is None else f"{client.closed / 1e9:.3f} s"
    return f"{who}open from {client.opened / 1e9:.3f} s to {to}, "


def _calls(trace: Trace, calls: int) -> Iterator[tuple[str, str]]:
    rows = trace.db.execute(
        "SELECT call, sum(calls), sum(took) FROM call_totals GROUP BY nr ORDER BY 2 DESC, 1"
    ).fetchall()
    if rows:
        yield "calls", ", ".join(f"{name} {count:,}" for name, count, _ in rows)
    took = {name: ns for name, _, ns in rows if ns}
    if took:
        slowest = sorted(took, key=took.__getitem__, reverse=True)[:_SLOWEST]
        total = sum(took.values())
        parts = ", ".join(f"{name} {_time(took[name])}" for name in slowest)
        yield "time in calls", f"{_time(total)}, {_time(total / calls)} a call: {parts}"
    refused = trace.db.execute(
        "SELECT ret, sum(calls), min(first) FROM call_totals WHERE ret != 0 GROUP BY ret ORDER BY 2 DESC, 3"
    ).fetchall()
    for ret, count, first in refused[:_SHOWN]:
        line = dump_line(trace.call(first), TraceNames(trace))
        yield "refused", f"{count:,} with {ERRNO_NAMES.get(-ret, str(-ret))}, the first: {line}"
    if len(refused) > _SHOWN:
        yield "", f"and with {len(refused) - _SHOWN} more errors"


def _space(trace: Trace, totals: _Totals) -> Iterator[tuple[str, str]]:
    if "bind_ops" not in totals:
        return
    emitted = ", ".join(f"{name} {_total(totals, name):,}" for name in ("map", "remap", "unmap"))
    yield "binds", f"{_count(_total(totals, 'bind_ops'), 'op')} accepted; emitted: {emitted}"
    if "mappings" in totals:
        (most, call), (size, size_call) = totals["mappings"], totals["mapped_bytes"]
        left, left_bytes = trace.db.execute(
            f"SELECT count(*), coalesce(sum(range), 0) FROM mappings WHERE {_AT_END}"
        ).fetchone()
        peaks = f"at most {most:,} (after call {call}), and {size_text(size)} (after call {size_call})"
        in_the_end = f"{left:,} of {size_text(left_bytes)}" if left else "none"
        yield "mappings", f"{peaks}; in the end {in_the_end}"
    regions = _one(trace, "SELECT count(*) FROM regions")
    if regions:
        yield "regions", f"{_count(regions, 'sparse region')}, in the end {_left(trace, 'regions')}"
    if doubts := _one(trace, "SELECT count(*) FROM doubts"):
        call, why = trace.db.execute("SELECT call, why FROM doubts ORDER BY call LIMIT 1").fetchone()
        yield "doubts", f"of {_count(doubts, 'call')} it is not known what they did; first call {call}: {why}"


_AT_END: Final = "(died IS NULL OR died IN (SELECT id FROM calls WHERE nr = -1))"
"""What a program did not take away itself."""


def _left(trace: Trace, table: str) -> str:
    left = _one(trace, f"SELECT count(*) FROM {table} WHERE {_AT_END}")
    return f"{left:,}" if left else "none"


def _memory(trace: Trace) -> Iterator[tuple[str, str]]:
    count, size = trace.db.execute("SELECT count(*), coalesce(sum(size), 0) FROM objects").fetchone()
    if count:
        left = _left(trace, "objects")
        yield "objects", f"{count:,} of {size_text(unsigned(size))} in all, in the end {left}"
    if syncobjs := _one(trace, "SELECT count(*) FROM syncobjs"):
        yield "sync objects", f"{syncobjs:,}, in the end {_left(trace, 'syncobjs')}"


def _jobs(trace: Trace, totals: _Totals) -> Iterator[tuple[str, str]]:
    jobs = _one(trace, "SELECT count(*) FROM jobs")
    if not jobs:
        return
    (execs,) = trace.db.execute(
        "SELECT coalesce(sum(calls), 0) FROM call_totals WHERE nr = ? AND ret = 0", (NUMBERS["exec"],)
    ).fetchone()
    parts = [_count(execs, "exec"), _count(jobs - execs, "asynchronous bind")]
    if failed := _total(totals, "failed_jobs"):
        parts.append(f"{failed:,} failed")
    if trace.form is Form.SQLITE and (unended := jobs - _total(totals, "ended_jobs")):
        parts.append(f"{unended:,} not done in the end")
    for what in ("waited", "ran"):
        if what in totals:
            parts.append(f"{what} {_time(totals[what][0])} at most (call {totals[what][1]})")
    yield "jobs", ", ".join(parts)


def _runtime(trace: Trace, totals: _Totals) -> Iterator[tuple[str, str]]:
    if trace.form is Form.JSON_LINES:
        yield "not recorded", "times of jobs, accesses, moves, page tables, faults: `gpuvm record` has them"
        return
    faults = trace.db.execute("SELECT count(*), min(id) FROM faults").fetchone()
    if faults[0]:
        call, at, cause = trace.db.execute(
            "SELECT call, addr(addr), cause FROM faults WHERE id = ?", faults[1:]
        ).fetchone()
        where = f" at {at}" if at is not None else ""
        whose = f" of call {call}" if call is not None else ""
        yield "faults", f"{faults[0]:,}; the first{where}{whose}: {cause}"
    else:
        yield "faults", "none"
    moves, moved, evicted = trace.db.execute(
        "SELECT count(*), coalesce(sum(size), 0), coalesce(sum(evicted), 0) FROM moves"
        " WHERE source IS NOT NULL AND target IS NOT NULL"
    ).fetchone()
    if moves:
        yield "moves", f"{moves:,} of {size_text(moved)}, of them {_count(evicted, 'eviction')}"
    if "entries_written" in totals or "entries_cleared" in totals:
        counted = ("entries_written", "entries_cleared", "tables_made", "tables_freed")
        written, cleared, made, freed = (f"{_total(totals, what):,}" for what in counted)
        yield (
            "page tables",
            f"{written} entries written, {cleared} cleared; {made} tables made, {freed} freed",
        )


def _total(totals: _Totals, what: str) -> int:
    return totals.get(what, (0, None))[0]


def _one(trace: Trace, query: str) -> Any:
    return trace.db.execute(query).fetchone()[0]


def _count(number: int, one: str) -> str:
    return f"{number:,} {one}{'' if number == 1 else 's'}"


def _time(ns: float) -> str:
    for unit, size in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if ns >= size:
            return f"{ns / size:.3g} {unit}"
    return f"{ns:.0f} ns"
