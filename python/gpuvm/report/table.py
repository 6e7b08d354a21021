"""The table at the end of a replay."""

from __future__ import annotations

from collections.abc import Sequence

from gpuvm.report.sizes import size_text
from gpuvm.trace.replay import Client

_COLUMNS_A_BLOCK = 5
_WIDTH = 14


def replay_table(title: str, clients: Sequence[Client], without_space: int, *, colour: bool = False) -> str:
    """One column a client, a few clients side by side, one row a number.

    Args:
        title: what was replayed.
        clients: those with a space.
        without_space: how many opens of the device never made one.
        colour: bold headings, by ANSI escapes.
    """
    parts = [_bold(title, colour)]
    if not clients:
        parts.append("no client made an address space")
    for first in range(0, len(clients), _COLUMNS_A_BLOCK):
        parts.append("")
        parts.extend(_block(clients[first : first + _COLUMNS_A_BLOCK], colour))
    if without_space:
        parts.append(f"\n{without_space} more without an address space")
    return "\n".join(parts) + "\n"


def _bold(text: str, colour: bool) -> str:
    return f"\x1b[1m{text}\x1b[0m" if colour else text


def _block(clients: Sequence[Client], colour: bool) -> list[str]:
    columns = [_column(client) for client in clients]
    labels = list(columns[0])
    width = max(len(label) for label in labels) + 2
    head = " " * width + "".join(f"client {client.number}".rjust(_WIDTH) for client in clients)
    rows = (label.ljust(width) + "".join(one[label].rjust(_WIDTH) for one in columns) for label in labels)
    return [_bold(head, colour), *rows]


def _column(client: Client) -> dict[str, str]:
    assert client.vm is not None
    stats = client.vm.statistics()
    nanoseconds = client.bind_ns / client.requests if client.requests else None
    return {
        "requests": f"{client.requests:,}",
        "sparse maps": f"{client.sparse_maps:,}",
        "skipped, had failed": f"{client.failed_calls:,}",
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
