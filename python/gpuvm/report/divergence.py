"""Where a replay through the driver first had another result than recorded, and how often it had."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gpuvm.report.call_text import dump_line
from gpuvm.report.columns import bold
from gpuvm.trace.difference import Difference
from gpuvm.trace.recorded import Record

_BEFORE: Final = 3
_AFTER: Final = 1
"""Calls of the same client that are shown with the first."""
_SHOWN: Final = 20
"""Differences in the list; the JSON has all of them."""


def divergence_lines(
    name: str, differences: Sequence[Difference], records: Sequence[Record], *, colour: bool = False
) -> list[str]:
    """The first difference in a line, the calls around it as ``gpuvm dump`` prints them, then all of them.

    Args:
        name: of the trace, in front of the lines of differences.
        differences: at least one.
        records: what was replayed.
        colour: bold headings, by ANSI escapes.
    """
    first = differences[0]
    lines = [bold(f"first divergence: call {first.line}: {first}", colour), *_around(first, records)]
    if len(differences) > 1:
        lines += ["", bold(f"{len(differences):,} results were not as recorded", colour)]
        lines += [f"{name}:{one.line}: {one}" for one in differences[:_SHOWN]]
    if len(differences) > _SHOWN:
        lines.append(f"and {len(differences) - _SHOWN:,} more; --json has them all")
    return lines


def _around(first: Difference, records: Sequence[Record]) -> list[str]:
    calls = [record for record in records if record.client == first.client]
    at = next(index for index, record in enumerate(calls) if record.line == first.line)
    shown = calls[max(at - _BEFORE, 0) : at + _AFTER + 1]
    return [f"{'>' if record.line == first.line else ' '} {dump_line(record)}" for record in shown]
