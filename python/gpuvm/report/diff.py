"""What the difference of two traces comes to, for ``gpuvm diff``."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from gpuvm.report.call_text import dump_line, shown_name
from gpuvm.report.columns import bold, side_by_side
from gpuvm.report.names import TraceNames
from gpuvm.trace.diff import Change, Kind, TraceDiff
from gpuvm.trace.trace import Trace

_SHOWN: Final = 10
"""Differences that are listed after the first; the JSON has all of them."""
_MS: Final = 1e6
_TIME: Final = "time in calls, ms"


def diff_text(a: Trace, b: Trace, diff: TraceDiff, *, colour: bool = False) -> str:
    """The first difference as ``gpuvm dump`` would print the calls, a few more, and a table by call.

    Args:
        colour: bold headings, by ANSI escapes.
    """
    parts = [f"A  {a.name}", f"B  {b.name}", ""]
    if diff.changes:
        parts += [*_first(a, b, diff.changes[0], colour), *_more(diff.changes[1:])]
    else:
        parts.append(bold(f"no difference in {diff.alike:,} calls", colour))
    return "\n".join([*parts, "", *_table(a, b, diff, colour)]) + "\n"


def _first(a: Trace, b: Trace, change: Change, colour: bool) -> list[str]:
    heads = {
        Kind.ONLY_A: "a call that B does not have",
        Kind.ONLY_B: "a call that A does not have",
        Kind.ARGUMENTS: "other arguments",
        Kind.RESULT: "another result",
        Kind.OPS: "other ops emitted",
    }
    parts = [bold(f"first difference: {heads[change.kind]}", colour)]
    parts += [f"A  {_line(a, change.a)}"] if change.a is not None else []
    parts += [f"B  {_line(b, change.b)}"] if change.b is not None else []
    if change.after is not None:
        parts.append(f"after, in A, {_line(a, change.after[0])}")
    return parts


def _line(trace: Trace, call: int) -> str:
    return dump_line(trace.call(call), TraceNames(trace))


def _more(changes: list[Change]) -> list[str]:
    if not changes:
        return []
    lines = ["", "next differences"]
    for one in changes[:_SHOWN]:
        numbers = [f"{side} {n}" for side, n in (("A", one.a), ("B", one.b)) if n is not None]
        lines.append(f"  call {', '.join(numbers)}: {shown_name(one.call)}: {one.kind.value}")
    if len(changes) > _SHOWN:
        lines.append(f"  and {len(changes) - _SHOWN:,} more; --json has them all")
    return lines


def _table(a: Trace, b: Trace, diff: TraceDiff, colour: bool) -> list[str]:
    counts_a, counts_b = _calls(a), _calls(b)
    kinds = {kind: Counter(one.call for one in diff.changes if one.kind is kind) for kind in Kind}
    found = {kind.value: counts for kind, counts in kinds.items() if counts}
    names = sorted({*counts_a, *counts_b})
    columns = []
    for counts in (counts_a, counts_b, *found.values()):
        column = {name: f"{counts[name]:,}" for name in names}
        columns.append({**column, "all calls": f"{counts.total():,}", _TIME: ""})
    for column, took in zip(columns, (_took(a), _took(b)), strict=False):
        column[_TIME] = "-" if took is None else f"{took / _MS:,.3f}"
    return [line.rstrip() for line in side_by_side(["A", "B", *found], columns, colour=colour)]


def _calls(trace: Trace) -> Counter[str]:
    return Counter(dict(trace.db.execute("SELECT call, count(*) FROM calls GROUP BY nr")))


def _took(trace: Trace) -> int | None:
    took: int | None = trace.db.execute("SELECT sum(took) FROM calls").fetchone()[0]
    return took


def diff_json(a: Trace, b: Trace, diff: TraceDiff) -> dict[str, Any]:
    """The same as JSON values, and every difference; times in nanoseconds."""
    return {
        "a": {"trace": a.name, "calls": _calls(a), "took": _took(a)},
        "b": {"trace": b.name, "calls": _calls(b), "took": _took(b)},
        "alike": diff.alike,
        "differences": [
            {"kind": one.kind.value, "call": one.call, "a": one.a, "b": one.b} for one in diff.changes
        ],
    }
