"""Instance memory: VRAM for the GPU's own structures, such as page tables (nouveau's ``instmem``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from gpuvm.errors import CheckFailed, InvalidArgument, NoSpace, NotFound, OutOfMemory
from gpuvm.mem import faults
from gpuvm.mem.aperture import Domain
from gpuvm.mem.eviction import Claims, Evictor
from gpuvm.mem.memory import Memory
from gpuvm.mem.placement import PAGE, Place
from gpuvm.mem.residency import Residency
from gpuvm.mem.resource import Resource

_ANYWHERE: Final = Place(Domain.VRAM, contiguous=True)


@dataclass(frozen=True, slots=True)
class InstanceMemoryStatistics:
    """A snapshot."""

    allocations: int
    used: int
    """Bytes."""


class InstanceMemory:
    """VRAM that belongs to no object, lies still, and is read and written by its physical address.

    Locking: any thread; calls may come with reservations held, but not in a fence-signalling section, since
    they may have to wait for objects that are moved away.

    Args:
        vram: the memory.
        residency: who lies where.
        evictor: who makes room.

    Source: ``nvkm_instmem``.
    """

    def __init__(self, vram: Memory, residency: Residency, evictor: Evictor) -> None:
        self._vram: Final = vram
        self._residency: Final = residency
        self._evictor: Final = evictor
        self._allocated: dict[int, Resource] = {}

    @property
    def view(self) -> npt.NDArray[np.uint8]:
        """All of VRAM, one byte an item, by physical address."""
        return self._vram.view

    def allocate(self, size: int) -> int:
        """The physical address of ``size`` bytes, all zero, at a multiple of ``size``.

        They are taken from VRAM's end, to keep them apart from objects. If VRAM is full objects are evicted
        whose reservations are free.

        Raises:
            InvalidArgument: no power of two, or less than 4096.
            NoSpace: more than VRAM has.
            OutOfMemory: nobody can make room now; nothing was changed but that others were moved.
        """
        if size < PAGE or size & (size - 1):
            raise InvalidArgument(
                f"instance memory: {size} bytes; pass a power of two, at least {PAGE}", size, PAGE
            )
        if not self._residency.could_fit(size, _ANYWHERE, size):
            raise NoSpace(
                f"instance memory: {size:#x} bytes never fit in {self._vram.size:#x} of VRAM; make the "
                "device with a larger vram",
                size,
                self._vram.size,
            )
        faults.may_fail("instance memory")
        claims = Claims(None, None)
        before = self._residency.given_back
        while (resource := self._alloc(size)) is None:
            if not self._evictor.make_room(_ANYWHERE, claims) and self._residency.given_back == before:
                raise OutOfMemory(
                    f"instance memory: no {size:#x} contiguous bytes in {self._vram.size:#x} of VRAM, and "
                    "nobody can make room now; free or unpin objects, unmap ranges to give back their page "
                    "tables, or make the device with a larger vram",
                    size,
                    self._vram.size,
                )
            before = self._residency.given_back
        addr = resource.extents[0].addr
        self._vram.view[addr : addr + size] = 0
        self._allocated[addr] = resource
        return addr

    def _alloc(self, size: int) -> Resource | None:
        return self._residency.alloc(size, _ANYWHERE, align=size, clear=True, top_down=True)

    def free(self, addr: int, size: int) -> None:
        """Give back what ``allocate`` returned.

        Raises:
            NotFound: nothing was allocated there; InvalidArgument: of another size.
        """
        resource = self._allocated.get(addr)
        if resource is None:
            raise NotFound(f"instance memory: nothing was allocated at {addr:#x}", addr)
        if resource.size != size:
            raise InvalidArgument(
                f"instance memory: {size:#x} bytes at {addr:#x}, where {resource.size:#x} were allocated; "
                "free all of them",
                size,
                resource.size,
            )
        del self._allocated[addr]
        self._residency.free(resource, cleared=False)

    @property
    def resources(self) -> frozenset[Resource]:
        """What is allocated."""
        return frozenset(self._allocated.values())

    def check(self) -> None:
        """Verify that what is allocated is taken from VRAM.

        Raises:
            CheckFailed: with the state.
        """
        taken = set(self._residency.managers[Domain.VRAM].resources)
        if not taken >= self.resources:
            raise CheckFailed(f"instance memory: {self.resources - taken!r} are not taken from VRAM")

    def statistics(self) -> InstanceMemoryStatistics:
        """How much is allocated."""
        sizes = [resource.size for resource in list(self._allocated.values())]
        return InstanceMemoryStatistics(len(sizes), sum(sizes))
