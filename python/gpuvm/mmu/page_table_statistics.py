"""What page tables say of themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gpuvm.mmu.backend import BackendStatistics


@dataclass(frozen=True, slots=True)
class Table:
    """One table of the tree."""

    parent: int | None
    """Position of the table above in the list; None for the root."""
    level: int
    """Number of its level in the format."""
    va: int
    """First address that it translates."""
    addr: int
    """Where it is in VRAM."""
    pages: int
    sparse: int
    """Entries that are a piece of a sparse range."""
    references: int
    used: int
    """Entries that map a page, are sparse by themselves or point to a table."""


@dataclass(frozen=True, slots=True)
class PageTableStatistics(BackendStatistics):
    """A snapshot of page tables. Sizes are bytes."""

    tables: Mapping[str, int]
    """By the name of their level."""
    table_bytes: int
    memory_bytes: int
    """Table memory taken, pages that small tables share included."""
    sparse: Mapping[int, int]
    """Sparse entries, by shift."""
    used: int
    """Entries that map a page, are sparse by themselves or point to a table."""
    waste: int
    """Bytes of tables that hold no such entry."""
    written_pages: int
    """Entries written by ``map`` since the beginning."""
    written_clears: int
    """Pages taken away by ``unmap``."""
    written_pointers: int
    """Other entries written: pointers to tables that came or went, sparse entries."""
    written_initialised: int
    """Entries written into new tables."""
    core_bytes: int
    """Memory of the core."""
