"""ObjectFile: the file that clients map to see their objects."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from gpuvm.errors import CheckFailed, InvalidArgument, NoSpace
from gpuvm.mem import faults
from gpuvm.mem.placement import PAGE
from gpuvm.mem.remapping import Mapping
from gpuvm.mem.sparse_file import SparseFile
from gpuvm.sync import lockdep
from gpuvm.sync.mutex import Mutex
from gpuvm.va import Gpuva, GpuvaManager

SIZE: Final = 1 << 40
"""Bytes. Far more than the objects of a machine have together, so that an offset is long unused before it is
used again; and few enough for several such files in the 2^47 bytes of a process."""


@dataclass(frozen=True, slots=True)
class ObjectFileStatistics:
    """A snapshot of one object file."""

    size: int
    objects: int
    used: int
    """Bytes of the file that belong to objects."""
    allocated: int
    """Bytes of memory that it takes: of what objects have, what was written."""


class ObjectFile:
    """Where every object's bytes are for all of its life, at its map handle: a sparse file, mapped once.

    A client maps ``fd`` at an object's map handle, with the size of the object, by its own ``mmap``. That
    stays right wherever the object is placed, see ``Memory``.

    Space is handed out upwards, and from the start again at the end. So a mapping that a client forgot meets
    another object as late as possible. Until then it shows zeros, and what is written there is lost.

    Locking: any thread may call anything.

    Args:
        name: seen in ``/proc``.
        size: bytes, whole pages.

    Raises:
        InvalidArgument: the size is not whole pages.
        OutOfMemory: no so many addresses are free in this process, or no descriptor; the message says what
            may forbid it.

    Source: ``drm_vma_manager.c``, whose offsets cannot be mapped but through the driver.
    """

    __slots__ = ("__weakref__", "_file", "_lock", "_mapping", "_next", "_space")

    def __init__(self, name: str = "objects", size: int = SIZE) -> None:
        self._mapping: Final = Mapping(size)
        self._file: Final = SparseFile(name, size)
        self._mapping.replace_pages(0, size, self._file.fd, 0)
        self._lock: Final = Mutex(name, lockdep.lock_class("object_file"))
        self._space: Final = GpuvaManager(name, range=size)
        self._next = 0

    @property
    def fd(self) -> int:
        """The file. Ours: who keeps it longer duplicates it."""
        return self._file.fd

    @property
    def size(self) -> int:
        """Bytes that offsets may be handed out of."""
        return self._file.size

    @property
    def address(self) -> int:
        """Where in this process offset 0 is mapped."""
        return self._mapping.address

    @property
    def view(self) -> npt.NDArray[np.uint8]:
        """All of it, one byte an item."""
        return self._mapping.view

    def allocate(self, size: int) -> int:
        """A part of the file for an object; it is all zeros. Cost: O(log objects).

        Raises:
            InvalidArgument: no positive multiple of 4096.
            NoSpace: no hole of the file is large enough.
            OutOfMemory: nothing was changed.
        """
        if size <= 0 or size % PAGE:
            raise InvalidArgument(
                f"allocate: size {size:#x}; pass a positive multiple of {PAGE:#x}", size, PAGE
            )
        faults.may_fail("part of the object file")
        with self._lock:
            offset = self._find(size)
            self._space.insert(Gpuva(offset, size))
            self._next = offset + size
        self._file.punch(offset, size)  # a forgotten mapping may have written since it was freed
        return offset

    def _find(self, size: int) -> int:
        if size <= self.size:
            for start in (self._next, 0):
                with suppress(NoSpace):
                    return self._space.find_gap(size, align=PAGE, start=start)
        raise NoSpace(
            f"no hole of {size:#x} bytes in the object file of {self.size:#x}; make a smaller object, or "
            "drop others",
            size,
            self.size,
        )

    def free(self, offset: int, size: int) -> None:
        """Take back what ``allocate`` handed out, and its memory. Cost: O(pages that were written).

        Raises:
            InvalidArgument: it was not handed out so.
        """
        with self._lock:
            part = self._space.find(offset, size)
            if part is None:
                raise InvalidArgument(
                    f"free: [{offset:#x}, {offset + size:#x}) of {self!r} was not handed out; pass what "
                    "allocate returned, and the size it was asked for",
                    (offset, size),
                )
            self._file.punch(offset, size)
            self._space.remove(part)

    # -- itself

    @property
    def parts(self) -> list[tuple[int, int]]:
        """What is handed out, as (offset, size), in this order. O(objects)."""
        with self._lock:
            return [(part.addr, part.range) for part in self._space]

    def check(self) -> None:
        """Verify what is handed out, and that the mapping shows the file. No call may be under way.

        Raises:
            CheckFailed: with the state.
        """
        self._space.check()
        self._mapping.check()
        if [run[:4] for run in self._mapping.runs] != [(0, self.size, self.fd, 0)]:
            raise CheckFailed(f"{self!r}: mapped {self._mapping.runs}")
        for part in self._space:
            if (part.addr | part.range) % PAGE:
                raise CheckFailed(f"{self!r}: {part!r} is not whole pages")

    def statistics(self) -> ObjectFileStatistics:
        """How much is handed out, and how much memory it takes. O(objects)."""
        ranges = [range for _, range in self.parts]
        return ObjectFileStatistics(self.size, len(ranges), sum(ranges), self._file.allocated)

    def __repr__(self) -> str:
        return f"<ObjectFile {self.fd} of {self.size:#x}>"
