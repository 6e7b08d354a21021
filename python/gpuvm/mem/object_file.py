"""ObjectFile: the file that clients map to see their objects."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from gpuvm._core import TruncationGuard
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
_FREED_PARTS: Final = 1024
_FREED_BYTES: Final = 64 << 20
"""After so many it is asked who has parts mapped that were freed: that takes a millisecond or two."""

Ranges = Sequence[tuple[int, int]]
"""Of a file: (offset, end), in order, apart from each other."""


@dataclass(frozen=True, slots=True)
class ObjectFileStatistics:
    """A snapshot of one object file."""

    size: int
    objects: int
    used: int
    """Bytes of the file that belong to objects."""
    allocated: int
    """Bytes of memory that it takes: of what objects have, what was written."""
    cut_off: int
    """How often it was found cut off, so that bytes were lost."""
    freed: int
    """Bytes that belong to no object any more, but may be mapped by somebody."""


class ObjectFile:
    """Where every object's bytes are for all of its life, at its map handle: a sparse file, mapped once.

    A client maps ``fd`` at an object's map handle, with the size of the object, by its own ``mmap``. That
    stays right wherever the object is placed, see ``Memory``.

    A file in ``directory`` is for clients that nobody trusts. They may cut it off, which hurts them alone: an
    access of ours makes it whole again, with zeros.

    Who knows what clients have mapped sets ``mapped``. What was freed then stays, and keeps its bytes, until
    nobody has it mapped. Without it, and to who maps what was freed before, it shows zeros, and what is
    written there is lost. As space is handed out upwards, and from the start again at the end, such a mapping
    meets another object as late as possible.

    Locking: any thread may call anything.

    Attributes:
        mapped: the ranges of the file that any client has mapped; no range goes from one process to another
            unseen. Called with nothing held.

    Args:
        name: seen in ``/proc``.
        size: bytes, whole pages.
        directory: where the file has its name, see ``SparseFile``.
        shown: views, besides its own, that show pages of it now and then.

    Raises:
        InvalidArgument: the size is not whole pages.
        OutOfMemory: no so many addresses are free in this process, or no descriptor; the message says what
            may forbid it.

    Source: ``drm_vma_manager.c``, whose offsets cannot be mapped but through the driver.
    """

    __slots__ = (
        "__weakref__",
        "_file",
        "_freed",
        "_guard",
        "_lock",
        "_mapping",
        "_next",
        "_space",
        "_unasked",
        "mapped",
        "name",
        "used",
    )

    def __init__(
        self,
        name: str = "objects",
        size: int = SIZE,
        directory: int | None = None,
        shown: Sequence[npt.NDArray[np.uint8]] = (),
    ) -> None:
        self.name: Final = name
        self._mapping: Final = Mapping(size)
        self._file: Final = SparseFile(name, size, directory)
        self._mapping.replace_pages(0, size, self._file.fd, 0)
        self._guard: TruncationGuard | None = None
        if directory is not None:
            ranges = [(view.ctypes.data, view.nbytes) for view in (self._mapping.view, *shown)]
            self._guard = TruncationGuard(self._file.fd, size, ranges)
        self._lock: Final = Mutex(name, lockdep.lock_class("object_file"))
        self._space: Final = GpuvaManager(name, range=size)
        self._next = 0
        self._freed: Final[dict[int, Gpuva]] = {}
        """By offset."""
        self._unasked = (0, 0)
        """Parts and bytes that were freed since it was asked who has what mapped."""
        self.mapped: Callable[[], Ranges] | None = None
        self.used = 0
        """Bytes that are handed out."""

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
            self.used += size
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
        """Take back what ``allocate`` handed out, and its memory as soon as nobody has it mapped.

        Cost: O(pages that were written); now and then that of ``collect``.

        Raises:
            InvalidArgument: it was not handed out so.
        """
        with self._lock:
            part = None if offset in self._freed else self._space.find(offset, size)
            if part is None:
                raise InvalidArgument(
                    f"free: [{offset:#x}, {offset + size:#x}) of {self!r} was not handed out; pass what "
                    "allocate returned, and the size it was asked for",
                    (offset, size),
                )
            self.used -= size
            if self.mapped is None:
                self._give_back(part)
                return
            self._freed[offset] = part
            parts, bytes = self._unasked
            self._unasked = parts, bytes = parts + 1, bytes + size
        if parts >= _FREED_PARTS or bytes >= _FREED_BYTES:
            self.collect()

    def collect(self) -> None:
        """Take back the memory of what was freed and nobody has mapped.

        Cost: that of ``mapped``, if there is anything freed.

        Source: ``drm_gem_vm_close``: a mapping holds its object.
        """
        with self._lock:
            freed, self._unasked = [*self._freed.values()], (0, 0)
        if not freed:
            return
        mapped = () if self.mapped is None else self.mapped()
        ends = [end for _, end in mapped]
        for part in freed:
            index = bisect_right(ends, part.addr)
            if index < len(mapped) and mapped[index][0] < part.addr + part.range:
                continue
            with self._lock:
                if self._freed.pop(part.addr, None) is not None:
                    self._give_back(part)

    def _give_back(self, part: Gpuva) -> None:
        """Locking: ``_lock``."""
        self._file.punch(part.addr, part.range)
        self._space.remove(part)

    # -- itself

    @property
    def parts(self) -> list[tuple[int, int]]:
        """What is handed out, as (offset, size), in this order. O(objects)."""
        with self._lock:
            return [(part.addr, part.range) for part in self._space if part.addr not in self._freed]

    def check(self) -> None:
        """Verify what is handed out, and that the mapping shows the file. No call may be under way.

        Raises:
            CheckFailed: with the state.
        """
        self._space.check()
        self._mapping.check()
        handed_out = sum(size for _, size in self.parts)
        if self.used != handed_out:
            raise CheckFailed(f"{self!r}: {self.used:#x} bytes said to be handed out of {handed_out:#x}")
        actual = os.fstat(self.fd).st_size
        if actual != self.size:
            raise CheckFailed(f"{self!r}: somebody cut it off at {actual:#x}; what was behind is lost")
        if [run[:4] for run in self._mapping.runs] != [(0, self.size, self.fd, 0)]:
            raise CheckFailed(f"{self!r}: mapped {self._mapping.runs}")
        for part in self._space:
            if (part.addr | part.range) % PAGE:
                raise CheckFailed(f"{self!r}: {part!r} is not whole pages")

    def statistics(self) -> ObjectFileStatistics:
        """How much is handed out, and how much memory it takes. O(objects)."""
        objects = len(self.parts)
        with self._lock:
            freed = sum(part.range for part in self._freed.values())
        cut_off = 0 if self._guard is None else self._guard.mended + self._guard.lost
        return ObjectFileStatistics(self.size, objects, self.used, self._file.allocated, cut_off, freed)

    def __repr__(self) -> str:
        return f'<ObjectFile "{self.name}" of {self.size:#x}>'
