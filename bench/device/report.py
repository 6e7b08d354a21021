"""The table, in Markdown, and the same as JSON."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from bench.device.cases import CALLS, Call
from bench.device.measure import Measured
from bench.device.ways import FLOORS, GPUVM, NATIVE
from bench.machine import Machine
from bench.table import ratio_cell, table, verdict_cell


@dataclass(frozen=True)
class Report:
    """Everything of one run."""

    machine: Machine
    repeats: int
    rounds: int
    measured: Measured

    def floor(self, call: Call) -> float | None:
        """The fastest run of a bare one: where both processes land on one processor, or none is asleep."""
        cells = [one for one in self.measured.results if one.call == call.name and one.way in FLOORS]
        return min((ns for cell in cells for ns in cell.medians), default=None)


def _cell(ns: float | None) -> str:
    if ns is None:
        return "-"
    us = ns / 1000
    return f"{us:.2f}" if us < 10 else f"{us:.1f}" if us < 100 else f"{us:,.0f}"


def _verdicts(report: Report, call: Call) -> Iterator[str]:
    own = report.measured.ns(call.name, GPUVM)

    def over(other: float | None) -> float | None:
        return None if own is None or other is None else own / other

    if call.native_ratio is not None:
        native = report.measured.ns(call.name, NATIVE)
        yield verdict_cell(over(native), call.native_ratio, "x natively")
    if call.floor_ratio is not None:
        yield verdict_cell(over(report.floor(call)), call.floor_ratio, "x floor")
    if call.ns is not None:
        yield verdict_cell(None if own is None else own / 1000, call.ns / 1000, "µs")


def _rows(report: Report) -> Iterator[list[str]]:
    for call in CALLS:
        yield [
            call.title,
            *[_cell(report.measured.ns(call.name, way.name)) for way in report.measured.ways],
            ratio_cell(report.measured.ns(call.name, GPUVM), report.floor(call)),
            ", ".join(_verdicts(report, call)),
        ]


def markdown(report: Report) -> str:
    """The measured block of docs/device.md."""
    on, kernel = report.machine, ".".join(platform.release().split(".")[:2])
    mode = "as root" if os.geteuid() == 0 else "in a user namespace"
    head = ["µs a call", *(way.title for way in report.measured.ways), "gpuvm / floor", "target"]
    lines = [
        f"Machine: {on.cpu}, {on.cores} cores, Linux {kernel}, Python {on.python}; gpuvm {mode}.",
        "",
        f"A program in C measures its own calls: the median of {report.repeats} runs, which took turns, of "
        f"the median of {report.rounds} rounds each. The bare supervisors are in C, receive a call and "
        "answer it, no more; the floor is the fastest run of either. Without the flag, and when they hand "
        "over a descriptor, some runs wake an idle processor every time: 60 µs. drm-shim is Mesa's, "
        "preloaded: its ioctls do nothing and stay in the process. Every seccomp filter costs calls that it "
        "lets pass as much as the bare one.",
        "",
        *table(head, _rows(report)),
    ]
    lacking = [f"{way.title}: {way.lacks}" for way in report.measured.ways if way.lacks is not None]
    if lacking:
        lines += ["", f"Not taking part in this run: {'; '.join(lacking)}."]
    return "\n".join(lines) + "\n"


def as_json(report: Report) -> dict[str, Any]:
    """All samples, for programs."""
    return {
        "repeats": report.repeats,
        "rounds": report.rounds,
        "lacking": {way.name: way.lacks for way in report.measured.ways if way.lacks is not None},
        "results": [{**asdict(result), "ns": result.ns} for result in report.measured.results],
        "targets": [
            {"call": call.name, "verdict": verdict} for call in CALLS for verdict in _verdicts(report, call)
        ],
    }
