"""The tables of the part on mappings, in Markdown, and the same as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench import targets
from bench.cases import CASES
from bench.contenders import REGISTRY, contender_class
from bench.machine import Machine
from bench.measure import Result
from bench.memory import ORDERS, Memory
from bench.table import ratio_cell, table, time_cell, verdict_cell

GPUVM = "gpuvm"
# The two that gpuvm is held against.
RATIOS = (("btreemap", "BTreeMap / gpuvm"), ("redblack", "red-black / gpuvm"))


@dataclass(frozen=True)
class Report:
    """Everything of one run."""

    machine: Machine
    contenders: Sequence[str]
    sizes: Sequence[int]
    repeats: int
    results: Sequence[Result]
    memory: Sequence[Memory]
    ops_compared: int

    def ns(self, size: int, case: str, contender: str) -> float | None:
        for result in self.results:
            if (result.size, result.case, result.contender) == (size, case, contender):
                return result.ns
        return None


def _title(name: str) -> str:
    return contender_class(name).name


def _size_table(report: Report, size: int) -> list[str]:
    head = [
        f"{size:,} mappings, time a request",
        *[_title(name) for name in report.contenders],
        *[title for _, title in RATIOS],
        "target",
    ]
    rows = []
    for case in CASES:
        times = {name: report.ns(size, case.name, name) for name in report.contenders}
        own = times.get(GPUVM)
        rows.append(
            [
                case.title,
                *[time_cell(times[name]) for name in report.contenders],
                *[ratio_cell(times.get(rival), own) for rival, _ in RATIOS],
                verdict_cell(own, targets.target(size, case.name), "ns"),
            ]
        )
    return table(head, rows)


def _memory_table(report: Report) -> list[str]:
    rows = []
    for name in report.contenders:
        figures = {one.order: one for one in report.memory if one.contender == name}
        if not figures:
            continue
        count = next(iter(figures.values())).mappings
        each = [figures[order].bytes_each for order in ORDERS]
        limit = targets.MEMORY_BYTES if name == GPUVM and count == targets.MEMORY_SIZE else None
        # The target is for bulk use; what a best-fit search adds is shown beside it.
        verdict = verdict_cell(max(each[:-1]), limit, "bytes")
        rows.append([_title(name), f"{count:,}", *[f"{one:.1f}" for one in each], verdict])
    return table(["bytes a mapping", "mappings", *ORDERS, "target"], rows)


def _gap_table(report: Report) -> list[str]:
    small, large = targets.GAP_SIZES
    rows = []
    for case in CASES:
        if case.name in targets.GAP_CASES:
            at = [report.ns(size, case.name, GPUVM) for size in (small, large)]
            growth = at[1] / at[0] if at[0] and at[1] else None
            grown = "-" if growth is None else f"{growth:.1f}x"
            limit = verdict_cell(growth, targets.GAP_GROWTH, "x")
            rows.append([case.title, time_cell(at[0]), time_cell(at[1]), grown, limit])
    return table(["gpuvm's gap search", f"{small:,}", f"{large:,}", "growth", "target"], rows)


def _kernel_table(report: Report) -> list[str]:
    rows = []
    for size, (low, high) in targets.KERNEL_REPLACE.items():
        own = report.ns(size, "replace", GPUVM)
        ratio = "-" if own is None else f"{low / own:.0f}x to {high / own:.0f}x"
        rows.append([f"{size:,}", time_cell(own), f"{low:,.0f} to {high:,.0f} ns", ratio])
    return table(["replace, mappings", "gpuvm", "kernel's C (quoted)", "ratio"], rows)


def markdown(report: Report) -> str:
    """The measured block of docs/performance.md."""
    lines = [
        f"Machine: {report.machine.line()}.",
        "",
        f"Thread CPU time, median of {report.repeats} repeats, contenders taking turns. Before the clock "
        f"started, {report.ops_compared:,} operations of every contender were compared and were the same.",
    ]
    for size in report.sizes:
        lines += ["", *_size_table(report, size)]
    if GPUVM in report.contenders and set(targets.GAP_SIZES) <= set(report.sizes):
        lines += ["", *_gap_table(report)]
    if report.memory:
        lines += ["", *_memory_table(report)]
    if GPUVM in report.contenders:
        lines += ["", *_kernel_table(report)]
    missing = [name for name in REGISTRY if name not in report.contenders]
    if missing:
        lines += ["", f"Not taking part in this run: {', '.join(missing)}."]
    return "\n".join(lines) + "\n"


def as_json(report: Report) -> dict[str, Any]:
    """All samples, for programs."""
    return {
        "repeats": report.repeats,
        "ops_compared": report.ops_compared,
        "results": [{**asdict(result), "ns": result.ns} for result in report.results],
        "memory": [asdict(one) for one in report.memory],
        "targets": [
            {**asdict(one), "measured": report.ns(one.size, one.case, GPUVM)} for one in targets.TARGETS
        ],
    }
