"""Remapping: exchanging pages in a range of this process's addresses, so that the CPU's MMU translates."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from gpuvm.errors import BadFile, CheckFailed, InvalidArgument, OutOfMemory
from gpuvm.mem.map_count import MapRoom, map_count
from gpuvm.mem.placement import PAGE

NO_FILE: Final = -1
"""In the place of a descriptor, where no file lies behind."""

NO_ACCESS: Final = 0
"""A protection under which nothing can be accessed (``PROT_NONE``)."""


class Run(NamedTuple):
    """Neighbouring pages of a mapping that the kernel keeps as one map."""

    addr: int
    """Where it begins, relative to the mapping."""
    range: int
    fd: int
    """Of the file behind; NO_FILE: zeros, or nothing that can be accessed."""
    offset: int
    """In the file; 0 if there is none."""
    protection: int
    """``mmap.PROT_READ | mmap.PROT_WRITE``, or less."""

    @property
    def end(self) -> int:
        """Exclusive."""
        return self.addr + self.range

    def part(self, addr: int, end: int) -> Run:
        """``[addr, end)`` of it."""
        offset = 0 if self.fd == NO_FILE else self.offset + addr - self.addr
        return Run(addr, end - addr, self.fd, offset, self.protection)

    def longer(self, range: int) -> Run:
        """With ``range`` more bytes behind."""
        return Run(self.addr, self.range + range, self.fd, self.offset, self.protection)

    def continues(self, other: Run) -> bool:
        """Whether both are one map, ``other`` being the neighbour before (the kernel's ``vma_merge``)."""
        if (self.fd, self.protection) != (other.fd, other.protection):
            return False
        return self.fd == NO_FILE or self.offset == other.offset + other.range


@dataclass(frozen=True, slots=True)
class MappingStatistics:
    """A snapshot of one mapping."""

    size: int
    maps: int
    accessible: int
    """Bytes that may be read."""


class Mapping:
    """A range of this process's addresses. At first nothing in it can be accessed.

    The addresses are taken until nobody has the mapping, a view of it, or a view of that view. Whoever
    accesses through a view what is not accessible, or writes what is read-only, gets ``SIGSEGV``.

    Locking: one exchange at a time, the caller's business. Views may be used meanwhile.

    Args:
        size: bytes, whole pages.

    Raises:
        InvalidArgument: not whole pages.
        OutOfMemory: no such range of addresses is free.
    """

    __slots__ = ("__weakref__", "_runs", "_starts", "address", "size")

    def __init__(self, size: int) -> None:
        if size <= 0 or size % PAGE:
            raise InvalidArgument(
                f"Mapping: size {size:#x}; pass a positive multiple of {PAGE:#x}", size, PAGE
            )
        map_count.charge(1)
        try:
            address = _mmap(None, min(size, _END), NO_ACCESS, _NOTHING, NO_FILE, 0)
        except OutOfMemory:
            map_count.charge(-1)
            raise
        self.address: Final = address
        self.size: Final = size
        self._runs = [Run(0, size, NO_FILE, 0, NO_ACCESS)]
        self._starts = [0]

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """Who makes an array of this keeps the mapping."""
        return {"version": 3, "shape": (self.size,), "typestr": "|u1", "data": (self.address, False)}

    @property
    def view(self) -> npt.NDArray[np.uint8]:
        """All of it, one byte an item."""
        return np.asarray(self)

    # -- exchanging pages

    def replace_pages(
        self,
        addr: int,
        range: int,
        fd: int,
        offset: int,
        *,
        writable: bool = True,
        room: MapRoom | None = None,
    ) -> None:
        """Have the pages of a file at ``[offset, offset + range)`` in the place of what is at ``addr``.

        Who accesses them meanwhile gets the old or the new. Cost: a system call.

        Args:
            addr: relative to the mapping. Like ``range`` and ``offset``, a multiple of 4096.
            range: bytes.
            fd: an open file; may be closed afterwards, if its number does not come to name another file
                of which pages are used here.
            offset: in the file. An access beyond the file's end gets ``SIGBUS``.
            writable: if not, a write gets ``SIGSEGV``.
            room: where maps come from and go to. Default: the process's free ones.

        Raises:
            InvalidArgument: outside the mapping, empty, or no whole pages.
            BadFile: ``fd`` is not open for reading, and writing.
            OutOfMemory: too many maps. Nothing was changed.

        Source: ``mmap(MAP_FIXED | MAP_SHARED)``.
        """
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        self._exchange(Run(addr, range, fd, offset, protection), mmap.MAP_SHARED, room)

    def zero_pages(
        self, addr: int, range: int, *, writable: bool = False, room: MapRoom | None = None
    ) -> None:
        """Have zeros there, that cost no memory. As ``replace_pages``.

        What is written there, if that is allowed, stays until they are replaced. The kernel joins such pages
        with their neighbours only if they are replaced together.
        """
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        self._exchange(Run(addr, range, NO_FILE, 0, protection), _NOTHING, room)

    def forbid_access(self, addr: int, range: int, *, room: MapRoom | None = None) -> None:
        """Have nothing there, as at first: an access gets ``SIGSEGV``. As ``replace_pages``."""
        self._exchange(Run(addr, range, NO_FILE, 0, NO_ACCESS), _NOTHING, room)

    def _exchange(self, new: Run, flags: int, room: MapRoom | None) -> None:
        if (
            new.range <= 0
            or new.addr < 0
            or new.end > self.size
            or not 0 <= new.offset <= _END - new.range
            or (new.addr | new.range | new.offset) % PAGE
        ):
            raise InvalidArgument(
                f"mapping of {self.size:#x} bytes: pages at [{new.addr:#x}, {new.end:#x}) by offset "
                f"{new.offset:#x}; pass multiples of {PAGE:#x} inside it",
                (new.addr, new.range, new.offset),
                self.size,
            )
        first = max(bisect_right(self._starts, new.addr) - 2, 0)
        last = bisect_left(self._starts, new.end) + 1
        old = self._runs[first:last]
        runs = _with(old, new)
        added = len(runs) - len(old)
        if added > 0:
            _take(added, room)
        try:
            _mmap(self.address + new.addr, new.range, new.protection, flags | _FIXED, new.fd, new.offset)
        except BaseException:
            if added > 0:
                _take(-added, room)
            raise
        if added < 0:
            _take(added, room)
        self._runs[first:last] = runs
        self._starts[first:last] = [run.addr for run in runs]

    # -- itself

    @property
    def runs(self) -> tuple[Run, ...]:
        """What lies where, in the order of addresses, without holes. O(maps)."""
        return tuple(self._runs)

    def check(self) -> None:
        """Verify that the runs cover the mapping, that none continues another, and that they are counted.

        Raises:
            CheckFailed: with the state.
        """
        end = 0
        before: Run | None = None
        for run in self._runs:
            if run.addr != end or run.range <= 0 or (before is not None and run.continues(before)):
                raise CheckFailed(f"{self!r}: {run} behind {before}")
            end, before = run.end, run
        if end != self.size or self._starts != [run.addr for run in self._runs]:
            raise CheckFailed(f"{self!r}: {self._runs}, found by {self._starts}")
        if len(self._runs) > map_count.used:
            raise CheckFailed(f"{self!r}: {len(self._runs)} maps, but {map_count.used} counted in all")

    def statistics(self) -> MappingStatistics:
        """How many maps it takes. O(maps)."""
        accessible = sum(run.range for run in self._runs if run.protection)
        return MappingStatistics(self.size, len(self._runs), accessible)

    def __repr__(self) -> str:
        return f"<Mapping {self.size:#x} bytes at {self.address:#x}>"

    def __del__(self) -> None:
        runs = getattr(self, "_runs", None)
        if runs is not None:
            _munmap(self.address, self.size)
            map_count.give_back(len(runs))


def _with(runs: list[Run], new: Run) -> list[Run]:
    """Those of neighbouring ``runs``, with ``new`` in the place of what it covers."""
    pieces = [run.part(run.addr, min(run.end, new.addr)) for run in runs if run.addr < new.addr]
    pieces.append(new)
    pieces += [run.part(max(run.addr, new.end), run.end) for run in runs if run.end > new.end]
    merged = pieces[:1]
    for piece in pieces[1:]:
        if piece.continues(merged[-1]):
            merged[-1] = merged[-1].longer(piece.range)
        else:
            merged.append(piece)
    return merged


def _take(maps: int, room: MapRoom | None) -> None:
    """``maps`` from ``room`` while it has them; negative: into it."""
    drawn = 0 if room is None else min(maps, room.left)
    if drawn != maps:
        map_count.charge(maps - drawn)
    if room is not None:
        room.left -= drawn


# -- system calls that Python has no words for

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int64,
)
_libc.mmap.restype = ctypes.c_void_p
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_munmap = _libc.munmap  # still there when modules are torn down
_END: Final = 1 << 63
"""Beyond all addresses and files; ctypes would cut off larger numbers without a word."""
_FAILED: Final = ctypes.c_void_p(-1).value
_FIXED: Final = 0x10  # MAP_FIXED
_NOTHING: Final = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000  # MAP_NORESERVE
_PUNCH_HOLE: Final = 0x02 | 0x01  # FALLOC_FL_PUNCH_HOLE, which needs FALLOC_FL_KEEP_SIZE


def _mmap(address: int | None, size: int, protection: int, flags: int, fd: int, offset: int) -> int:
    got = _libc.mmap(address, size, protection, flags, fd, offset)
    if got is not None and got != _FAILED:
        return int(got)
    number = ctypes.get_errno()
    if number in (errno.EBADF, errno.EACCES, errno.EPERM, errno.ENODEV):
        raise BadFile(
            f"file {fd} cannot be mapped: {os.strerror(number)}; open one for reading and writing", fd
        )
    raise OutOfMemory(
        f"no {size:#x} bytes of addresses for this process: {os.strerror(number)}; look at `ulimit -v`, "
        "vm.overcommit_memory and vm.max_map_count",
        size,
    )


def punch_hole(fd: int, offset: int, range: int) -> None:
    """Give back the memory of a part of a file; it reads as zeros then. Cost: O(pages that there were).

    Raises:
        OSError: the file cannot.

    Source: ``fallocate(FALLOC_FL_PUNCH_HOLE)``.
    """
    if _libc.fallocate(fd, _PUNCH_HOLE, offset, range) != 0:
        number = ctypes.get_errno()
        raise OSError(
            number, f"{os.strerror(number)}: hole at [{offset:#x}, {offset + range:#x}) of file {fd}"
        )
