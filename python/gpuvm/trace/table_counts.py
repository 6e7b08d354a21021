"""What the binds of a trace do to page tables: how many there are, what is written, what ``keep`` saves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpuvm.mmu.formats import Format
from gpuvm.trace.memory_replay import MemoryClient, MemoryReplay
from gpuvm.trace.recorded import Record

if TYPE_CHECKING:
    from gpuvm.mmu.page_table import PageTable
    from gpuvm.nouveau.vm import Uvmm


@dataclass(frozen=True, slots=True)
class TableCounts:
    """The page tables of one client. Sizes are bytes.

    Attributes:
        most_tables, most_bytes: after any of its calls.
        tables, bytes: after the last one; the root is always there.
        written: entries of pages that were written.
        cleared: entries of pages that were cleared.
        cleared_without_keep: the same for a driver that ignores ``keep``; these more were written over.
    """

    most_tables: int
    tables: int
    most_bytes: int
    bytes: int
    written: int
    cleared: int
    cleared_without_keep: int


def count_tables(
    name: str,
    records: Sequence[Record],
    format: Format,
    *,
    client: int | None = None,
    watch: Callable[[Sequence[Record]], Iterable[Record]] = iter,
) -> dict[int, TableCounts]:
    """Make all binds in page tables, honouring ``keep``.

    Args:
        name: of the trace, for messages.
        format: of the page tables.
        client: of this one alone.
        watch: gives the records back one by one; how a progress bar looks in.

    Returns:
        By client, those that made a space.

    Raises:
        ReplayError: as `MemoryReplay.feed`.
        CheckFailed: the page tables do not show what is mapped; a bug in gpuvm.
    """
    with MemoryReplay(name, records, format, client=client) as replay:
        replay.run(watch(records)).check()
        return {number: _counts(one) for number, one in replay.clients.items() if one.vm is not None}


def _counts(client: MemoryClient) -> TableCounts:
    assert client.vm is not None
    assert client.page_table is not None
    return table_counts(client.vm, client.page_table, client.most_tables, client.most_bytes)


def table_counts(vm: Uvmm, page_table: PageTable, most_tables: int, most_bytes: int) -> TableCounts:
    """What a space's page tables count now, and the most there were, which the replay has noted."""
    now = page_table.statistics()
    return TableCounts(
        most_tables,
        sum(now.tables.values()),
        most_bytes,
        now.table_bytes,
        now.written_pages,
        now.written_clears,
        now.written_clears + vm.statistics().kept,
    )
