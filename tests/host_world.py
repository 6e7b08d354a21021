"""A host backend over small memories in which every page says where it is."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gpuvm.mem import Aperture, Extent
from gpuvm.mem.memory import Memory
from gpuvm.mem.sparse_file import SparseFile
from gpuvm.mmu.host import HostBackend
from gpuvm.mmu.translation import Translation
from kernel_maps import expected, kernel_maps

K4, K64, M2 = 1 << 12, 1 << 16, 1 << 21
VRAM, GART = Aperture.VRAM, Aperture.SYSTEM_COHERENT
START, RANGE = 4 * M2, 8 * M2
VRAM_SIZE, GART_SIZE = 4 * M2, 16 * K64


def stamp(aperture: Aperture, addr: int) -> int:
    """What the first eight bytes of each page of memory hold to begin with."""
    return aperture << 56 | addr | 1


def stamped_memories(vram: int = VRAM_SIZE) -> dict[Aperture, Memory]:
    memories = {VRAM: Memory(VRAM, vram, "vram"), GART: Memory(GART, GART_SIZE, "gart")}
    for aperture, memory in memories.items():
        pages = np.arange(0, memory.size, K4, dtype=np.uint64)
        memory.view.view(np.uint64)[:: K4 // 8] = pages | np.uint64(aperture << 56 | 1)
    return memories


class World:
    def __init__(self, memories: Mapping[Aperture, Memory] | None = None) -> None:
        self.memories = stamped_memories() if memories is None else memories
        self.backend = HostBackend(START, RANGE, self.memories)
        self.array = self.backend.array
        self._files: list[SparseFile] = []

    def map(self, addr: int, range_: int, shift: int, physical: int = 0, aperture: Aperture = VRAM) -> None:
        """Get and map."""
        self.backend.get(addr, range_, shift)
        self.backend.map(addr, range_, shift, Extent(aperture, physical, range_))

    def unmap(self, addr: int, range_: int, shift: int) -> None:
        """Unmap and put."""
        self.backend.unmap(addr, range_, shift)
        self.backend.put(addr, range_, shift)

    def file(self, size: int) -> SparseFile:
        """Pages of an object, open as long as this world is."""
        self._files.append(SparseFile("object", size))
        return self._files[-1]

    def seen(self, addr: int) -> int:
        """The first eight bytes of a page, by the CPU's MMU: a hole would end the process."""
        where = addr - START
        return int(self.array[where : where + 8].view(np.uint64)[0])

    def shift(self, addr: int) -> int | None:
        """Of the page that an address is translated by."""
        found = self.backend.translate(addr)
        return found.shift if isinstance(found, Translation) else None

    def check(self) -> None:
        """Books against themselves, and against the kernel's."""
        self.backend.check()
        addresses = self.backend._mmu.addresses
        found = kernel_maps(addresses.address, addresses.size)
        assert found == expected(addresses.address, addresses.runs)
