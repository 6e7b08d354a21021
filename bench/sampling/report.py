"""The tables of a part that is made of cases, in Markdown, and the same as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.machine import Machine
from bench.sampling.case import Case, Table, Target
from bench.sampling.measure import Result
from bench.table import rate_cell, ratio_cell, table, time_cell, verdict_cell


@dataclass(frozen=True)
class Report:
    """Everything of one run."""

    machine: Machine
    tables: Sequence[Table]
    repeats: int
    results: Sequence[Result]
    checked: int
    things: str
    """What was checked, `checked` of them."""

    def times(self, of: Table, case: Case) -> dict[str, float]:
        """By contender, ns."""
        return {
            result.contender: result.ns
            for result in self.results
            if (result.table, result.case) == (of.name, case.title)
        }


_UNITS = ((1e9, "s"), (1e3, "µs"), (1, "ns"))


def _own(case: Case) -> str:
    """Whose targets they are: the first contender's."""
    return next(iter(case.contenders))


def _measured(case: Case, target: Target, times: dict[str, float]) -> float:
    """The value that the target limits."""
    own = times[_own(case)]
    return own if target.rival is None else own / times[target.rival]


def _verdict(of: Table, case: Case, target: Target, times: dict[str, float]) -> str:
    measured = _measured(case, target, times)
    if target.rival is not None:
        return verdict_cell(measured, target.limit, f"x {of.columns[target.rival]}")
    unit, name = next(one for one in _UNITS if target.limit >= one[0])
    return verdict_cell(measured / unit, target.limit / unit, name)


def _rows(report: Report, of: Table) -> list[str]:
    with_targets = any(case.targets for case in of.cases)
    head = [
        of.title,
        *of.columns.values(),
        *([] if of.rate is None else [of.rate]),
        *[f"{of.columns[one]} / {of.columns[other]}" for one, other in of.ratios],
        *(["target"] if with_targets else []),
    ]
    rows = []
    for case in of.cases:
        times = report.times(of, case)
        rows.append(
            [
                case.title,
                *[time_cell(times.get(name)) for name in of.columns],
                *([] if of.rate is None else [rate_cell(times[_own(case)])]),
                *[ratio_cell(times.get(one), times.get(other)) for one, other in of.ratios],
                *(
                    [", ".join(_verdict(of, case, one, times) for one in case.targets)]
                    if with_targets
                    else []
                ),
            ]
        )
    return table(head, rows)


def markdown(report: Report) -> str:
    """The measured block of docs/performance.md."""
    lines = [
        f"Machine: {report.machine.line()}.",
        "",
        f"Median of {report.repeats} repeats, contenders taking turns. Before the clock started, every "
        f"contender did a part of every case; {report.checked:,} {report.things} were checked.",
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
                **asdict(target),
                "measured": _measured(case, target, report.times(of, case)),
            }
            for of in report.tables
            for case in of.cases
            for target in case.targets
        ],
    }
