"""Cells and tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def time_cell(ns: float | None) -> str:
    """Three digits and a unit; a dash where nothing was measured."""
    if ns is None:
        return "-"
    if ns < 10:
        return f"{ns:.2f} ns"
    for limit, divisor, unit in ((1e4, 1.0, "ns"), (1e7, 1e3, "µs"), (float("inf"), 1e6, "ms")):
        if ns < limit:
            value = ns / divisor
            return f"{value:,.0f} {unit}" if value >= 100 or unit == "ns" else f"{value:.1f} {unit}"
    return "-"


def rate_cell(ns: float) -> str:
    """How many units there are in a second."""
    rate = 1e9 / ns
    for limit, divisor, unit in ((1e4, 1.0, ""), (1e7, 1e3, " k"), (float("inf"), 1e6, " M")):
        if rate < limit:
            return f"{rate / divisor:,.0f}{unit}"
    return "-"


def ratio_cell(time: float | None, unit: float | None) -> str:
    """How many times `unit` goes into `time`."""
    if time is None or not unit:
        return "-"
    ratio = time / unit
    if ratio < 1:
        return f"{ratio:.2f}x"
    return f"{ratio:,.0f}x" if ratio >= 100 else f"{ratio:.1f}x"


def verdict_cell(value: float | None, limit: float | None, unit: str) -> str:
    """Whether a target was met; nothing where none was set."""
    if limit is None:
        return ""
    if value is None:
        return f"< {limit:.3g} {unit}: not measured"
    return f"< {limit:.3g} {unit}: {'met' if value < limit else '**not met**'}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines; all columns but the first to the right."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return ["| " + " | ".join(cells) + " |" for cells in (head, rule, *rows)]
