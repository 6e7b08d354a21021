"""VRAM for tables alone: an array, and a list of what is free."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpuvm.errors import OutOfMemory
from gpuvm.mem import faults
from gpuvm.mmu.tables import PAGE


class ArrayMemory:
    """A ``TableMemory`` that finds what is freed wrongly, and gives out garbage: words of pages.

    What was freed last is given out last, so that a stale walk meets garbage rather than a new table.
    """

    def __init__(self, size: int = 16 << 20, view: NDArray[np.uint8] | None = None) -> None:
        self.view: NDArray[np.uint8] = np.zeros(size, np.uint8) if view is None else view
        self.used: dict[int, int] = {}
        self._free = list(range(0, len(self.view), PAGE))

    def allocate(self, size: int) -> int:
        faults.may_fail("table memory")
        assert size == PAGE, "no format has larger tables"
        if not self._free:
            raise OutOfMemory(f"table memory: all {len(self.view)} bytes are in use")
        addr = self._free.pop(0)
        self.used[addr] = size
        self.view[addr : addr + size] = 0xA5
        return addr

    def free(self, addr: int, size: int) -> None:
        assert self.used.pop(addr) == size
        self.view[addr : addr + size] = 0xA5
        self._free.append(addr)
