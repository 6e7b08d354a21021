"""Page tables to measure: gp100's, in an array of their own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpuvm.mem import Aperture, Extent
from gpuvm.mmu import PageTable
from gpuvm.mmu.formats import GP100

PAGE = 4096
BASE = 1 << 38
"""Where what is measured lies in the address space."""


class Tables:
    """VRAM for tables and nothing else: pages from an array, the one that came back last first."""

    def __init__(self, size: int) -> None:
        self.view: NDArray[np.uint8] = np.zeros(size, np.uint8)
        self._free = list(range(size - PAGE, -1, -PAGE))

    def allocate(self, size: int) -> int:
        if size != PAGE or not self._free:
            raise MemoryError(f"Tables: {size} bytes of {len(self._free)} pages")
        addr = self._free.pop()
        self.view[addr : addr + size] = 0
        return addr

    def free(self, addr: int, size: int) -> None:
        self._free.append(addr)


def page_table(size: int) -> PageTable:
    """Empty ones, with room for `size` bytes of tables."""
    return PageTable(GP100, Tables(size))


def vram(addr: int, size: int) -> Extent:
    return Extent(Aperture.VRAM, addr, size)
