"""The table that compares eviction policies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpuvm.report.columns import bold, side_by_side
from gpuvm.report.sizes import size_text
from gpuvm.trace.eviction_replay import PolicyResult

_USES = """\
A use is a vm_bind that maps an object, or an exec with a push buffer in it; what else the GPU touched
was not recorded."""


def policy_table(
    title: str, results: Sequence[PolicyResult], *, vram: int, gart: int, colour: bool = False
) -> str:
    """One column a policy, one row a number; below, the policies that did not come to the end, and why."""
    memory = f"{size_text(vram)} of VRAM, {size_text(gart)} of GART"
    columns = side_by_side([one.policy for one in results], [_column(one) for one in results], colour=colour)
    refused = [f"{one.policy} ended there: {one.refused}" for one in results if one.refused is not None]
    return "\n".join([bold(title, colour), memory, "", *columns, "", _USES, *refused]) + "\n"


def _column(result: PolicyResult) -> dict[str, str]:
    return {
        "uses": f"{result.uses:,}",
        "first uses": f"{result.first_uses:,}",
        "hits": f"{result.hits:,}",
        "hit rate": f"{result.hit_rate:.1%}",
        "no room in VRAM": f"{result.without_room:,}",
        "evictions": f"{result.evictions:,}",
        "moved in": size_text(result.moved_in),
        "moved out": size_text(result.moved_out),
        "stalls": f"{result.stalls:,}",
        "ended at line": "-" if result.refused is None else f"{result.refused.line:,}",
    }


def policy_json(result: PolicyResult) -> dict[str, Any]:
    """The same as JSON values; bytes as numbers."""
    return {
        "uses": result.uses,
        "first_uses": result.first_uses,
        "hits": result.hits,
        "without_room": result.without_room,
        "evictions": result.evictions,
        "moved_in": result.moved_in,
        "moved_out": result.moved_out,
        "stalls": result.stalls,
        "refused": None if result.refused is None else str(result.refused),
    }
