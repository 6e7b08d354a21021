"""AddressSpace: reading and writing memory by GPU addresses, as an engine does, at the speed of memcpy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gpuvm.errors import InvalidArgument, PageFault
from gpuvm.mem import Aperture
from gpuvm.mem.memory import Memory
from gpuvm.mmu.backend import Backend
from gpuvm.mmu.formats.format import PteFlags
from gpuvm.mmu.translation import Access, Fault, FaultType, RunState, permitted

Bytes = npt.NDArray[np.uint8]
Buffer = bytes | bytearray | memoryview | npt.NDArray[Any]

_FILLED_AT_ONCE: Final = 1 << 17
"""Bytes of a repeated pattern that are copied in one step: they stay in a cache."""


_Span = tuple[int, Bytes | None, int]
"""What neighbouring addresses lead to: how many, the memory (None: sparse), and where in it."""


class AddressSpace:
    """The bytes behind GPU addresses, whatever ``Backend`` translates them.

    Sparse addresses read as zeros, and what is written there vanishes. An access that meets a hole, or that
    a page forbids, is refused as a whole: it faults before a byte is written.

    Locking: none. As on hardware, whoever unmaps first waits for those who may still access. Cost: a
    translation of the range, then a copy of contiguous memory for each run.

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
        self._views = {int(aperture): memory.view for aperture, memory in memories.items()}
        self._sizes = np.array([len(self._views.get(aperture, ())) for aperture in Aperture], np.uint64)

    def read(self, addr: int, range: int) -> bytes:
        """A copy of ``range`` bytes.

        Raises:
            PageFault: part of it cannot be read.
            InvalidArgument: the range is empty or leaves the backend's.
        """
        return b"".join(
            bytes(length) if memory is None else memory[first : first + length].data
            for length, memory, first in self._spans(addr, range, Access.READ)
        )

    def read_into(self, addr: int, out: Buffer) -> None:
        """Fill ``out`` with the bytes from ``addr`` on.

        Args:
            out: a writable contiguous buffer with items of any type, like an array.

        Raises:
            GpuvmError: as from ``read``. ``out`` is as it was.
        """
        target = _bytes_of(out)
        if not target.flags.writeable:
            raise InvalidArgument(f"read_into: a {type(out).__name__} cannot be written; pass an array", out)
        done = 0
        for length, memory, first in self._spans(addr, len(target), Access.READ):
            target[done : done + length] = 0 if memory is None else memory[first : first + length]
            done += length

    def write(self, addr: int, data: Buffer) -> None:
        """Write ``data``, a contiguous buffer with items of any type.

        Raises:
            PageFault: part of the range cannot be written. Nothing was.
            InvalidArgument: ``data`` is empty, or the range leaves the backend's.
        """
        source = _bytes_of(data)
        done = 0
        for length, memory, first in self._spans(addr, len(source), Access.WRITE):
            if memory is not None:
                memory[first : first + length] = source[done : done + length]
            done += length

    def fill(self, addr: int, range: int, pattern: Buffer) -> None:
        """Write ``pattern`` again and again; the last one is cut if need be.

        Raises:
            GpuvmError: as from ``write``; or the pattern is empty.
        """
        source = _bytes_of(pattern)
        if not len(source):
            raise InvalidArgument("fill: the pattern is empty; pass at least one byte", value=pattern)
        done = 0
        for length, memory, first in self._spans(addr, range, Access.WRITE):
            if memory is not None:
                _repeat(memory[first : first + length], np.roll(source, -done))
            done += length

    def copy(self, dst: int, src: int, range: int) -> None:
        """Copy ``range`` bytes from ``src`` to ``dst``, which may overlap, as by ``memmove``.

        That holds for addresses. If different ones lead to the same memory, and what is read is written too,
        the order of writing shows: pieces that are contiguous on both sides one after the other, upwards, or
        downwards if ``dst`` lies in the source.

        Raises:
            PageFault: part of it cannot be read or written. Nothing was written.
            InvalidArgument: as from ``read``.
        """
        sources = self._spans(src, range, Access.READ)
        targets = self._spans(dst, range, Access.WRITE)
        pieces = list(_side_by_side(targets, sources))
        if src < dst < src + range:
            pieces.reverse()
        for length, target, to, source, first in pieces:
            if target is not None:
                target[to : to + length] = 0 if source is None else source[first : first + length]

    def _spans(self, addr: int, range: int, access: Access) -> list[_Span]:
        """What the range leads to, all of which permits the access."""
        spans: list[_Span] = []
        views = self._views
        for runs in self.backend.run_arrays(addr, range):
            self._require_permitted(runs, access)
            for _, length, address, aperture, state, *_ in runs.tolist():
                spans.append((length, views[aperture] if state == RunState.VALID else None, address))
        return spans

    def _require_permitted(self, runs: npt.NDArray[np.void], access: Access) -> None:
        forbidding = PteFlags(0) if self.privileged else PteFlags.PRIVILEGED
        if access != Access.READ:
            forbidding |= PteFlags.READ_ONLY
        refused = (runs["state"] == RunState.INVALID) | (runs["flags"] & int(forbidding) != 0)
        beyond = runs["address"] + runs["range"] > self._sizes[runs["aperture"]]
        refusals = np.flatnonzero(refused | (beyond & (runs["state"] == RunState.VALID)))
        if not len(refusals):
            return
        run = runs[refusals[0]]
        va, fault = int(run["va"]), None
        if refused[refusals[0]]:
            fault = permitted(self.backend.translate(va), access, privileged=self.privileged)
        if fault is None:  # it lies beyond, or was mapped just now: then the access came before
            reason = FaultType.PTE if refused[refusals[0]] else FaultType.UNSUPPORTED_APERTURE
            fault = Fault(va, reason, None, 0, access)
        raise _page_fault(fault, int(run["range"]))


def _page_fault(fault: Fault, range: int) -> PageFault:
    wanted = "access" if fault.access is None else fault.access.name.lower()
    where = "" if fault.level is None else f" ({fault.level} {fault.word:#x})"
    return PageFault(
        f"{wanted} of {fault.va:#x}: {fault.reason.name}{where}, and so as far as {fault.va + range:#x}; "
        "map memory there that permits it",
        value=fault,
        bound=range,
    )


def _bytes_of(buffer: Buffer) -> Bytes:
    return np.frombuffer(buffer, np.uint8)


def _repeat(memory: Bytes, pattern: Bytes) -> None:
    """Fill ``memory`` from what is filled already."""
    done = min(len(pattern), len(memory))
    memory[:done] = pattern[:done]
    at_once = max(_FILLED_AT_ONCE // len(pattern), 1) * len(pattern)
    while done < len(memory):
        length = min(done, at_once, len(memory) - done)
        memory[done : done + length] = memory[:length]
        done += length


def _side_by_side(
    targets: list[_Span], sources: list[_Span]
) -> Iterator[tuple[int, Bytes | None, int, Bytes | None, int]]:
    """The pieces of two ranges of equal length that lie in one span on both sides."""
    others = iter(sources)
    left, source, first = next(others)
    for length, target, to in targets:
        while length:
            if not left:
                left, source, first = next(others)
            step = min(length, left)
            yield step, target, to, source, first
            length, to, left, first = length - step, to + step, left - step, first + step
