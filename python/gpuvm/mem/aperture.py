"""Where memory is: what the GPU calls it, what an object asks for, and a piece of it."""

from enum import IntEnum, IntFlag
from typing import NamedTuple


class Aperture(IntEnum):
    """Whose a physical address is, by the number that page-table entries give it (``NVKM_MEM_TARGET_*``)."""

    VRAM = 0
    """The GPU's own memory."""
    PEER = 1
    """Another GPU's."""
    SYSTEM_COHERENT = 2
    """System memory; the GPU sees what the CPU's caches hold."""
    SYSTEM_NON_COHERENT = 3
    """System memory; it does not."""


class Domain(IntFlag):
    """Where an object may be or is, by nouveau's numbers (``NOUVEAU_GEM_DOMAIN_*``)."""

    CPU = 1 << 0
    """System memory out of the GPU's reach: no physical address."""
    VRAM = 1 << 1
    """The GPU's own memory."""
    GART = 1 << 2
    """System memory within the GPU's reach."""


class Extent(NamedTuple):
    """Bytes that are contiguous in physical memory: ``[addr, addr + range)`` of ``aperture``."""

    aperture: Aperture
    addr: int
    range: int

    def __repr__(self) -> str:
        return f"Extent({self.aperture.name}, {self.addr:#x}, {self.range:#x})"
