"""The tables of the part on locks, fences and jobs, in Markdown, and the same as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.locking.cases import Case, Table
from bench.locking.measure import Result
from bench.machine import Machine
from bench.table import ratio_cell, table, time_cell, verdict_cell


@dataclass(frozen=True)
class Report:
    """Everything of one run."""

    machine: Machine
    tables: Sequence[Table]
    repeats: int
    results: Sequence[Result]
    checked: int

    def times(self, of: Table, case: Case) -> dict[str, float]:
        """By contender, ns."""
        return {
            result.contender: result.ns
            for result in self.results
            if (result.table, result.case) == (of.name, case.title)
        }


def _own(case: Case) -> str:
    """Whose target it is: the first contender's."""
    return next(iter(case.contenders))


def _measured(case: Case, times: dict[str, float]) -> float | None:
    """The value that the target limits."""
    if case.target is None:
        return None
    own = times[_own(case)]
    return own if case.target.rival is None else own / times[case.target.rival]


def _verdict(case: Case, times: dict[str, float]) -> str:
    measured = _measured(case, times)
    if case.target is None or measured is None:
        return ""
    if case.target.rival is not None:
        return verdict_cell(measured, case.target.limit, "x")
    return verdict_cell(measured / 1000, case.target.limit / 1000, "µs")


def _rows(report: Report, of: Table) -> list[str]:
    with_targets = any(case.target is not None for case in of.cases)
    head = [
        of.title,
        *of.columns.values(),
        *[f"{of.columns[one]} / {of.columns[other]}" for one, other in of.ratios],
        *(["target"] if with_targets else []),
    ]
    rows = []
    for case in of.cases:
        times = report.times(of, case)
        rows.append(
            [
                case.title,
                *[time_cell(times[name]) for name in of.columns],
                *[ratio_cell(times[one], times[other]) for one, other in of.ratios],
                *([_verdict(case, times)] if with_targets else []),
            ]
        )
    return table(head, rows)


def markdown(report: Report) -> str:
    """The measured block of docs/performance.md."""
    lines = [
        f"Machine: {report.machine.line()}.",
        "",
        f"Median of {report.repeats} repeats, contenders taking turns. Before the clock started, every "
        f"contender did a part of every case; {report.checked:,} fences, turns and jobs were checked.",
    ]
    for of in report.tables:
        lines += ["", *_rows(report, of)]
    return "\n".join(lines) + "\n"


def as_json(report: Report) -> dict[str, Any]:
    """All samples, for programs."""
    return {
        "repeats": report.repeats,
        "checked": report.checked,
        "results": [{**asdict(result), "ns": result.ns} for result in report.results],
        "targets": [
            {
                "table": of.name,
                "case": case.title,
                **asdict(case.target),
                "measured": _measured(case, report.times(of, case)),
            }
            for of in report.tables
            for case in of.cases
            if case.target is not None
        ],
    }
