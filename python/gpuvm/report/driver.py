"""What a replay through the driver came to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from gpuvm.report.columns import side_by_side
from gpuvm.report.divergence import divergence_lines
from gpuvm.report.table import replay_table
from gpuvm.trace.driver_replay import CallCounts, DriverReplay
from gpuvm.trace.recorded import Record
from gpuvm.trace.replay import with_space

_NS = 1e9

_CPU = "What the CPU wrote was not recorded, so push buffers are zeros, and a zero is no method."


def driver_table(
    title: str, name: str, replay: DriverReplay, records: Sequence[Record], *, colour: bool = False
) -> str:
    """The table of a replay, its calls by name, and what the driver did; below, what was different.

    Args:
        title: what was replayed.
        name: of the trace, in front of the lines of differences.
        replay: it, settled and not closed.
        records: what was fed to it.
        colour: bold headings, by ANSI escapes.
    """
    clients = with_space(replay.clients, name)
    tables = {number: counts for number, client in clients.items() if (counts := client.tables())}
    without_space = len(replay.clients) - len(clients)
    shown = list(clients.values())
    parts = [replay_table(title, shown, without_space, tables, failed="had failed", colour=colour)]
    if replay.reopened:
        again = _count(replay.reopened, "more was", "more were")
        parts.append(f"{again} opened under a number that was opened again\n")
    parts += [*_calls(replay.calls, colour), "", *_submitted(replay), ""]
    if replay.differences:
        parts += [*divergence_lines(name, replay.differences, records, colour=colour), ""]
    parts += [_CPU, *map(str, replay.device.faults)]
    return "\n".join(parts) + "\n"


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


def _calls(calls: Mapping[str, CallCounts], colour: bool) -> list[str]:
    total = CallCounts()
    for one in calls.values():
        total.made += one.made
        total.differing += one.differing
        total.sooner += one.sooner
        total.not_made += one.not_made
    rows = {**{name: calls[name] for name in sorted(calls)}, "all calls": total}
    heads = ["made", "differing", "sooner", "not made"]
    columns = [
        {name: f"{counts.made:,}" for name, counts in rows.items()},
        {name: f"{counts.differing:,}" for name, counts in rows.items()},
        {name: f"{counts.sooner:,}" for name, counts in rows.items()},
        {name: f"{counts.not_made:,}" for name, counts in rows.items()},
    ]
    return side_by_side(heads, columns, colour=colour)


def _submitted(replay: DriverReplay) -> list[str]:
    submitted, seconds = replay.submitted, replay.wall_ns / _NS
    ops_a_second = submitted.bind_ops / seconds if seconds else 0.0
    fences = submitted.sync_binds + submitted.async_binds + submitted.execs
    rows = {
        "binds, sync": f"{submitted.sync_binds:,}",
        "binds, async": f"{submitted.async_binds:,}",
        "execs": f"{submitted.execs:,}",
        "  push buffers": f"{submitted.pushes:,}",
        "  words in them": f"{submitted.words:,}",
        "  methods not executed": f"{replay.not_executed.total():,}",
        "  faults": f"{replay.device.statistics().faults:,}",
        "fences signalled": f"{fences:,}",
        "  through syncobjs": f"{submitted.signals:,}",
        "handles with other numbers": f"{submitted.renumbered:,}",
        "wall time in the driver": f"{seconds:.2f} s",
        "bind ops per second": f"{ops_a_second:,.0f}",
    }
    return side_by_side([""], [rows], colour=False)[1:]


def driver_json(replay: DriverReplay) -> dict[str, Any]:
    """The same as JSON values, and every difference; times in nanoseconds."""
    submitted = replay.submitted
    return {
        "calls": {name: asdict(replay.calls[name]) for name in sorted(replay.calls)},
        "differences": [asdict(one) for one in replay.differences],
        "reopened": replay.reopened,
        "sync_binds": submitted.sync_binds,
        "async_binds": submitted.async_binds,
        "bind_ops": submitted.bind_ops,
        "execs": submitted.execs,
        "pushes": submitted.pushes,
        "words": submitted.words,
        "signals": submitted.signals,
        "renumbered": submitted.renumbered,
        "not_executed": [[*method, times] for method, times in sorted(replay.not_executed.items())],
        "faults": [str(fault) for fault in replay.device.faults],
        "wall_ns": replay.wall_ns,
    }
