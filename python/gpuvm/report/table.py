"""The table at the end of a replay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from gpuvm.report.columns import bold, side_by_side
from gpuvm.report.sizes import size_text
from gpuvm.va import GpuvaManager

if TYPE_CHECKING:
    from gpuvm.trace.table_counts import TableCounts

_COLUMNS_A_BLOCK = 5


class ReplayedClient(Protocol):
    """What the table tells of a client, however it was replayed; see `gpuvm.trace.replay.Client`."""

    number: int
    requests: int
    sparse_maps: int
    failed_calls: int
    bind_ns: int

    @property
    def vm(self) -> GpuvaManager | None:
        """The space."""

    @property
    def ops(self) -> Mapping[str, int]:
        """What was emitted for the requests, by kind."""


def replay_table(
    title: str,
    clients: Sequence[ReplayedClient],
    without_space: int,
    page_tables: Mapping[int, TableCounts],
    *,
    failed: str = "skipped, had failed",
    colour: bool = False,
) -> str:
    """One column a client, a few clients side by side, one row a number.

    Args:
        title: what was replayed.
        clients: those with a space.
        without_space: how many opens of the device never made one.
        page_tables: what became of the clients' page tables, by number; or of none.
        failed: label of the vm_init and vm_bind calls that had failed when recorded.
        colour: bold headings, by ANSI escapes.
    """
    parts = [bold(title, colour)]
    if not clients:
        parts.append("no client made an address space")
    for first in range(0, len(clients), _COLUMNS_A_BLOCK):
        block = clients[first : first + _COLUMNS_A_BLOCK]
        columns = [_column(client, failed) | _table_rows(page_tables.get(client.number)) for client in block]
        heads = [f"client {client.number}" for client in block]
        parts += ["", *side_by_side(heads, columns, colour=colour)]
    if without_space:
        parts.append(f"\n{without_space} more without an address space")
    return "\n".join(parts) + "\n"


def _table_rows(counts: TableCounts | None) -> dict[str, str]:
    if counts is None:
        return {}
    saved = counts.cleared_without_keep - counts.cleared
    share = saved / counts.cleared_without_keep if counts.cleared_without_keep else 0.0
    return {
        "page tables, at most": f"{counts.most_tables:,}",
        "page tables, at the end": f"{counts.tables:,}",
        "their bytes, at most": size_text(counts.most_bytes),
        "their bytes, at the end": size_text(counts.bytes),
        "entries written": f"{counts.written:,}",
        "entries cleared": f"{counts.cleared:,}",
        "  if keep is ignored": f"{counts.cleared_without_keep:,}",
        "saved by keep": f"{share:.2%}",
    }


def _column(client: ReplayedClient, failed: str) -> dict[str, str]:
    assert client.vm is not None
    stats = client.vm.statistics()
    nanoseconds = client.bind_ns / client.requests if client.requests else None
    return {
        "requests": f"{client.requests:,}",
        "sparse maps": f"{client.sparse_maps:,}",
        failed: f"{client.failed_calls:,}",
        "ops: map": f"{client.ops['map']:,}",
        "ops: remap": f"{client.ops['remap']:,}",
        "ops: unmap": f"{client.ops['unmap']:,}",
        "splits": f"{stats.splits:,}",
        "mappings": f"{stats.mappings:,}",
        "sparse regions": f"{stats.regions:,}",
        "mapped bytes": size_text(stats.mapped_bytes),
        "largest hole": size_text(stats.largest_hole),
        "fragmentation": f"{stats.fragmentation:.1%}",
        "time per request": "-" if nanoseconds is None else _time_text(nanoseconds),
    }


def _time_text(nanoseconds: float) -> str:
    if nanoseconds < 1000:
        return f"{nanoseconds:.0f} ns"
    return f"{nanoseconds / 1000:.1f} us"
