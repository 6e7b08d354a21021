"""What an address space says of itself."""

from __future__ import annotations

from dataclasses import dataclass

from gpuvm.mmu.backend import BackendStatistics
from gpuvm.va import Statistics


@dataclass(frozen=True, slots=True)
class UvmmStatistics(Statistics):
    """A snapshot of one ``Uvmm``: its address space, and what became of it in the page table."""

    binds: int
    """Bind calls that were committed."""
    bind_ops: int
    """Operations in them."""
    kept: int
    """Page slots whose entries binds wrote over without clearing them first, as ``keep`` allows."""
    pending: int
    """Binds that were prepared and not cleaned up."""
    backend: BackendStatistics
