"""AddressSpace: reading and writing memory by GPU addresses, as an engine does, at the speed of memcpy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gpuvm._core import PhysicalMemory
from gpuvm.errors import InvalidArgument, PageFault
from gpuvm.mem import Aperture
from gpuvm.mem.memory import Memory
from gpuvm.mmu.backend import Backend
from gpuvm.mmu.formats.format import NO_FLAGS, PteFlags
from gpuvm.mmu.translation import RUN, Access, Fault, FaultType, RunState, permitted

Buffer = bytes | bytearray | memoryview | npt.NDArray[Any]

_BLOCK: Final = 1 << 17
"""Bytes of a repeated pattern: they stay in a cache while they are written again and again."""


class AddressSpace:
    """The bytes behind GPU addresses, whatever ``Backend`` translates them.

    Sparse addresses read as zeros, and what is written there vanishes. An access that meets a hole, or that
    a page forbids, is refused as a whole: it faults before a byte is written.

    Locking: none. As on hardware, whoever unmaps first waits for those who may still access. Cost: a
    translation of the range, then a copy of contiguous memory for each run, in the core. From 8 MiB on what
    is written goes past the CPU's caches; from 1 MiB on other threads run meanwhile.

    Args:
        backend: where addresses lead.
        memories: the bytes there. Apertures without one fault.
        privileged: these are the driver's own requests, for which alone PRIVILEGED pages are.
    """

    def __init__(
        self, backend: Backend, memories: Mapping[Aperture, Memory], *, privileged: bool = False
    ) -> None:
        self.backend: Final = backend
        self.privileged: Final = privileged
        self._forbidden: Final = {access: int(_forbidden(access, privileged)) for access in Access}
        views = [memories[aperture].view if aperture in memories else None for aperture in Aperture]
        self._memory: Final = PhysicalMemory(views)

    def read(self, addr: int, range: int) -> bytes:
        """A copy of ``range`` bytes.

        Raises:
            PageFault: part of it cannot be read.
            InvalidArgument: the range is empty or leaves the backend's.
            MemoryError: this process has no room for so many bytes.
        """
        return self._memory.read(self._runs(addr, range, Access.READ))

    def read_into(self, addr: int, out: Buffer) -> None:
        """Fill ``out`` with the bytes from ``addr`` on.

        Args:
            out: a writable contiguous buffer with items of any type, like an array.

        Raises:
            GpuvmError: as from ``read``; or ``out`` cannot be written, has gaps or holds objects. It is as
                it was.
        """
        target = _bytes_of(out)
        if not target.flags.writeable:
            raise InvalidArgument(f"read_into: a {type(out).__name__} cannot be written; pass an array", out)
        self._memory.read_into(self._runs(addr, len(target), Access.READ), target)

    def write(self, addr: int, data: Buffer) -> None:
        """Write ``data``, a contiguous buffer with items of any type.

        Raises:
            PageFault: part of the range cannot be written. Nothing was.
            InvalidArgument: ``data`` is empty, has gaps or holds objects, or the range leaves the backend's.
        """
        source = _bytes_of(data)
        self._memory.write(self._runs(addr, len(source), Access.WRITE), source)

    def fill(self, addr: int, range: int, pattern: Buffer) -> None:
        """Write ``pattern`` again and again; the last one is cut if need be.

        Raises:
            GpuvmError: as from ``write``; or the pattern is empty.
        """
        once = _bytes_of(pattern).tobytes()
        if not once:
            raise InvalidArgument("fill: the pattern is empty; pass at least one byte", value=pattern)
        runs = self._runs(addr, range, Access.WRITE)
        self._memory.fill(runs, once * max(min(range, _BLOCK) // len(once), 1))

    def copy(self, dst: int, src: int, range: int) -> None:
        """Copy ``range`` bytes from ``src`` to ``dst``, which may overlap, as by ``memmove``.

        That holds for addresses. If different ones lead to the same memory, and what is read is written too,
        the order of writing shows: pieces that are contiguous on both sides one after the other, upwards, or
        downwards if ``dst`` lies in the source.

        Raises:
            PageFault: part of it cannot be read or written. Nothing was written.
            InvalidArgument: as from ``read``.
        """
        sources = self._runs(src, range, Access.READ)
        targets = self._runs(dst, range, Access.WRITE)
        self._memory.copy(targets, sources, src < dst < src + range)

    def _runs(self, addr: int, range: int, access: Access) -> bytes:
        """What the range leads to, all of which permits the access: records of ``RUN``."""
        runs = b"".join([array.tobytes() for array in self.backend.run_arrays(addr, range)])
        refused = self._memory.refused(runs, self._forbidden[access])
        if refused is not None:
            raise self._page_fault(np.frombuffer(runs, RUN)[refused], access)
        return runs

    def _page_fault(self, run: np.void, access: Access) -> PageFault:
        va, fault = int(run["va"]), None
        forbidden = run["state"] == RunState.INVALID or int(run["flags"]) & self._forbidden[access]
        if forbidden:
            fault = permitted(self.backend.translate(va), access, privileged=self.privileged)
        if fault is None:  # it lies beyond, or was mapped just now: then the access came before
            reason = FaultType.PTE if forbidden else FaultType.UNSUPPORTED_APERTURE
            fault = Fault(va, reason, None, 0, access)
        return _page_fault(fault, int(run["range"]))


def _forbidden(access: Access, privileged: bool) -> PteFlags:
    """Flags of pages that refuse such a request."""
    flags = NO_FLAGS if privileged else PteFlags.PRIVILEGED
    return flags if access == Access.READ else flags | PteFlags.READ_ONLY


def _page_fault(fault: Fault, range: int) -> PageFault:
    wanted = "access" if fault.access is None else fault.access.name.lower()
    where = "" if fault.level is None else f" ({fault.level} {fault.word:#x})"
    return PageFault(
        f"{wanted} of {fault.va:#x}: {fault.reason.name}{where}, and so as far as {fault.va + range:#x}; "
        "map memory there that permits it",
        value=fault,
        bound=range,
    )


def _bytes_of(buffer: Buffer) -> npt.NDArray[np.uint8]:
    """Its bytes, no copy.

    Raises:
        InvalidArgument: it has gaps, or holds objects, which bytes in the place of pointers would break.
    """
    array = buffer if isinstance(buffer, np.ndarray) else np.asarray(memoryview(buffer))
    if array.dtype.hasobject or not array.flags.c_contiguous:
        raise InvalidArgument(
            f"a buffer of {array.dtype} with strides {array.strides}; pass a contiguous one of plain items",
            value=array.strides,
        )
    return np.frombuffer(array, np.uint8)
