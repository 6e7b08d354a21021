"""AddressSpace: reading and writing memory by GPU addresses, as an engine does, at the speed of memcpy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from gpuvm._core import PhysicalMemory, Surface
from gpuvm.errors import InvalidArgument, PageFault
from gpuvm.mem import Aperture
from gpuvm.mem.memory import Memory
from gpuvm.mmu.backend import Backend
from gpuvm.mmu.formats.format import NO_FLAGS, PteFlags
from gpuvm.mmu.translation import RUN, Access, Fault, FaultType, RunState, permitted

Buffer = bytes | bytearray | memoryview | npt.NDArray[Any]

_BLOCK: Final = 1 << 17
"""Bytes of a repeated pattern: they stay in a cache while they are written again and again."""

_PART: Final = 1 << 26
"""Bytes of a rectangle that are moved before whoever asked for it is asked whether to go on."""


class Components(NamedTuple):
    """How elements are remade, by the numbers of NVIDIA's copy engine."""

    size: int
    """Bytes of a component, 1 to 4."""
    source: int
    """Components of the source's elements, 1 to 4."""
    target: tuple[int, ...]
    """What those of the target's come from, 1 to 4 of them: 0 to 3 one of the source, 4 and 5 a constant, 6
    nothing, so that they stay."""
    constants: tuple[int, int] = (0, 0)

    @property
    def source_size(self) -> int:
        """Bytes of an element."""
        return self.size * self.source

    @property
    def target_size(self) -> int:
        """Bytes of an element."""
        return self.size * len(self.target)


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
        self._forbidden: Final = _FORBIDDEN[privileged]
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

    def copy(self, dst: int, src: int, range: int, *, step: int | None = None) -> None:
        """Copy ``range`` bytes from ``src`` to ``dst``, which may overlap, as by ``memmove``.

        That holds for addresses. If different ones lead to the same memory, and what is read is written too,
        the order of writing shows: pieces that are contiguous on both sides one after the other, upwards, or
        downwards if ``dst`` lies in the source.

        Args:
            step: copy as if so many bytes were copied by a call each. ``dst`` must not lie in the source.

        Raises:
            PageFault: part of it cannot be read or written. Nothing was written.
            InvalidArgument: as from ``read``; or steps are not possible.
        """
        downwards = src < dst < src + range
        if step is not None and (downwards or step <= 0):
            raise InvalidArgument(f"copy: steps of {step} from {src:#x} to {dst:#x}: it is inside", step)
        sources = self._runs(src, range, Access.READ)
        targets = self._runs(dst, range, Access.WRITE)
        self._memory.copy(targets, sources, downwards, step)

    def reduce(self, addr: int, size: int, operation: int, operand: int, *, signed: bool = False) -> None:
        """Change the number of ``size`` bytes at ``addr``, 4 or 8, in one step that nobody gets between.

        Args:
            operation: 0 min, 1 max, 2 xor, 3 and, 4 or, 5 add, 6 inc (to 0 behind the operand), 7 dec (to the
                operand behind 0), 10 add, 11 min, 12 max of 32-bit floats: NVIDIA's semaphore reductions.
            signed: as minimum and maximum see the number.

        Raises:
            PageFault: the page allows no atomics, or is not there.
            InvalidArgument: no such operation; the number is not at a multiple of its size, or leaves the
                backend's range.
        """
        if size not in (4, 8) or addr % size:
            raise InvalidArgument(f"reduce: {size} bytes at {addr:#x}; pass 4 or 8 at a multiple of it", addr)
        if not self._memory.reduce(self._runs(addr, size, Access.ATOMIC), operation, operand, signed):
            raise InvalidArgument(f"reduce: no operation {operation:#x}", operation)

    def move_lines(
        self,
        target: Surface,
        source: Surface | bytes | None,
        elements: int,
        lines: int,
        components: Components | None = None,
        *,
        go_on: Callable[[], None] = lambda: None,
    ) -> None:
        """Write ``lines`` lines of ``elements`` to a surface.

        If the surfaces' spans overlap, lines are moved one after the other, each in parts of 256 KiB that are
        read before they are written.

        Cost: a translation of both spans, and of each line if part of a span leads nowhere; then as for
        copies of contiguous memory, and more for what is remade.

        Args:
            source: a surface, or bytes line after line; None: elements are made of constants.
            components: how elements are remade. Default: elements are bytes.
            go_on: called before each part of 64 MiB; by raising it ends the call there.

        Raises:
            PageFault: part of a line cannot be read or written: the first address, by lines, of the source,
                else of the target. Nothing was written.
            InvalidArgument: nothing would be written, or components that there are not.
        """
        sizes = (1, 1) if components is None else (components.source_size, components.target_size)
        taken: tuple[Surface | None, bytes] | None = None
        apart = True
        if isinstance(source, Surface):
            taken = source, self._line_runs(source, elements * sizes[0], lines, Access.READ)
            apart = _apart(source.span(elements * sizes[0], lines), target.span(elements * sizes[1], lines))
        elif source is not None:
            taken = None, source
        given = target, self._line_runs(target, elements * sizes[1], lines, Access.WRITE)
        some = max(_PART // (elements * max(sizes)), 1)
        for first in range(0, lines, some):
            go_on()
            self._memory.transfer(given, taken, components, elements, first, min(some, lines - first), apart)

    def require(self, addr: int, range: int, access: Access) -> None:
        """Raise what such an access would, without one."""
        self._runs(addr, range, access)

    def _line_runs(self, surface: Surface, length: int, lines: int, access: Access) -> bytes:
        """What the surface's span leads to, of which all bytes of the lines permit the access."""
        first, end = surface.span(length, lines)
        first, end = max(first, self.backend.start), min(end, self.backend.start + self.backend.range)
        runs = b""
        if first < end:
            runs = b"".join([array.tobytes() for array in self.backend.run_arrays(first, end - first)])
        refused = self._memory.refused_lines(surface, runs, self._forbidden[access], length, lines)
        if refused is None:
            return runs
        fault = permitted(self.backend.translate(refused), access, privileged=self.privileged)
        raise _page_fault(fault or Fault(refused, FaultType.UNSUPPORTED_APERTURE, None, 0, access), 1)

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
    if access == Access.ATOMIC:
        flags |= PteFlags.NO_ATOMICS
    return flags if access == Access.READ else flags | PteFlags.READ_ONLY


_FORBIDDEN: Final = {
    privileged: {access: int(_forbidden(access, privileged)) for access in Access}
    for privileged in (False, True)
}


def _apart(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return one[1] <= other[0] or other[1] <= one[0]


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
