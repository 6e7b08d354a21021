"""Memory: the bytes that physical addresses lead to, wherever their pages are kept."""

from __future__ import annotations

import os
from bisect import bisect_left
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from gpuvm.errors import CheckFailed, InvalidArgument, OutOfMemory
from gpuvm.mem.aperture import Aperture
from gpuvm.mem.map_count import MapRoom
from gpuvm.mem.placement import PAGE
from gpuvm.mem.remapping import Mapping
from gpuvm.mem.sparse_file import SparseFile, data_parts
from gpuvm.sync import lockdep
from gpuvm.sync.mutex import Mutex


class Wired(NamedTuple):
    """Physical memory that shows pages of an object: ``range`` bytes at ``addr``, by ``offset`` in ``fd``."""

    addr: int
    range: int
    fd: int
    offset: int

    @property
    def end(self) -> int:
        """Exclusive."""
        return self.addr + self.range


class Piece(NamedTuple):
    """Pages of a file behind physical memory."""

    fd: int
    offset: int
    range: int


@dataclass(frozen=True, slots=True)
class MemoryStatistics:
    """A snapshot of one memory."""

    aperture: Aperture
    size: int
    wired: int
    """Bytes that show pages of objects."""
    extents: int
    """In so many pieces."""
    own: int
    """Bytes in use of its own pages: page tables, residue, what was written or read where no object is."""
    maps: int
    """Of this process that it may come to take."""


class Memory:
    """One aperture's memory: ``view[addr]`` is the byte at physical address ``addr``.

    It has pages of its own, a sparse file. But a page of an object is one page of the client-visible file
    (``ObjectFile``) for all of its life: only so does a client's own mapping of that file stay right while
    the object moves. So placing an object *wires* its pages: they show up in ``view`` instead of the memory's
    own, as the machine's page tables can arrange it (``remapping``). From then on the object's bytes and the
    bytes at its physical address are the same bytes, and nothing translates in between. *Unwiring* shows the
    memory's own pages again.

    A move is to copy, as on hardware. The object's bytes stay where they are, so what is copied is what
    stays behind: ``unwire`` can leave a copy in the memory's own pages. Who still reads at the old address
    reads old bytes, and late writes there are lost. Such residue is punched out when something else is wired
    there.

    Locking: any thread may call anything; an extent is one caller's business at a time. ``view`` needs none.

    Args:
        aperture: whose memory it is.
        size: bytes, whole pages. Memory is taken as they are written, or read through ``view``.
        name: seen in ``/proc``.

    Raises:
        InvalidArgument: the size is not whole pages.
        OutOfMemory: no so many addresses are free in this process, or no descriptor.
    """

    __slots__ = (
        "__weakref__",
        "_file",
        "_lock",
        "_mapping",
        "_room",
        "_starts",
        "_wired",
        "aperture",
        "size",
    )

    def __init__(self, aperture: Aperture, size: int, name: str = "memory") -> None:
        self.aperture: Final = aperture
        self.size: Final = size
        self._mapping: Final = Mapping(size)
        self._file: Final = SparseFile(name, size)
        self._mapping.replace_pages(0, size, self._file.fd, 0)
        self._lock: Final = Mutex(name, lockdep.lock_class("memory"))
        self._wired: list[Wired] = []
        """In the order of addresses."""
        self._starts: list[int] = []
        self._room: Final = MapRoom()
        """Maps that neighbouring extents save as long as they continue each other."""

    @property
    def fd(self) -> int:
        """The file of its own pages; an extent that is not wired lies there at its address."""
        return self._file.fd

    @property
    def view(self) -> npt.NDArray[np.uint8]:
        """All of it, one byte an item. A view keeps the addresses, though not what was wired there later."""
        return self._mapping.view

    def wire(self, addr: int, range: int, fd: int, offset: int) -> None:
        """Show the pages of ``fd`` at ``[offset, offset + range)`` at physical ``addr``.

        Residue there is given back. Cost: two system calls, and O(pages of residue). ``unwire`` of it will
        not fail: what maps it can need are counted now.

        Raises:
            InvalidArgument: not whole pages, outside, or wired already.
            OutOfMemory: the process would have too many maps. Nothing was changed.
            BadFile: ``fd`` is not open for reading and writing.
        """
        new = Wired(addr, range, fd, offset)
        with self._lock:
            place = self._place_for(new)
            maps = self._maps_between(place, place, new)
            self._room.grow(maps)
            try:
                self._mapping.replace_pages(addr, range, fd, offset, room=self._room)
            except BaseException:
                self._room.shrink(maps)
                raise
            self._wired.insert(place, new)
            self._starts.insert(place, addr)
        self._file.punch(addr, range)

    def unwire(self, addr: int, range: int, *, leave: npt.NDArray[np.uint8] | None = None) -> None:
        """Show the memory's own pages at ``[addr, addr + range)`` again, which was wired as a whole.

        Cost: a system call; with ``leave`` O(bytes in use of the object's file there).

        Args:
            leave: the bytes that lie there, to leave a copy of; parts of the object's file that were never
                written are not copied. Default: zeros are left.

        Raises:
            InvalidArgument: it was not wired so.
            OutOfMemory: no memory for the copy. Nothing was changed.
        """
        with self._lock:
            wired = self._wired[self._place_of(addr, range)]
        if leave is not None:
            self._copy(wired, leave)
        with self._lock:
            place = self._place_of(addr, range)
            self._mapping.replace_pages(addr, range, self.fd, addr, room=self._room)
            del self._wired[place]
            del self._starts[place]
            self._room.shrink(self._maps_between(place, place, wired))

    def _copy(self, wired: Wired, content: npt.NDArray[np.uint8]) -> None:
        if content.shape != (wired.range,):
            raise InvalidArgument(
                f"unwire: to leave {content.shape} bytes in {wired.range:#x}; pass those that lie there",
                content.shape,
                wired.range,
            )
        # Written to the file: that is quicker than a page fault for each new page, and can be refused.
        try:
            for offset, range in data_parts(wired.fd, wired.offset, wired.range):
                done = offset - wired.offset
                end = done + range
                while done < end:
                    done += os.pwrite(self.fd, content[done:end].data, wired.addr + done)
        except OSError as error:
            self._file.punch(wired.addr, wired.range)
            raise OutOfMemory(
                f"unwire: no memory for {wired.range:#x} bytes of copy at {wired.addr:#x}: {error.strerror}",
                wired.range,
            ) from error

    # -- what lies where

    @property
    def wired(self) -> tuple[Wired, ...]:
        """What is wired, in the order of addresses. O(extents)."""
        with self._lock:
            return tuple(self._wired)

    def backing(self, addr: int, range: int) -> list[Piece]:
        """Which pages of which files lie behind ``[addr, addr + range)``, for who maps them elsewhere.

        Cost: O(log extents + pieces).

        Raises:
            InvalidArgument: not whole pages, empty, or outside.
        """
        self._require_inside("backing", addr, range)
        end = addr + range
        pieces = []
        with self._lock:
            place = bisect_left(self._starts, addr)
            if place and self._wired[place - 1].end > addr:
                place -= 1
            for wired in self._wired[place : bisect_left(self._starts, end)]:
                if addr < wired.addr:
                    pieces.append(Piece(self.fd, addr, wired.addr - addr))
                    addr = wired.addr
                stop = min(wired.end, end)
                pieces.append(Piece(wired.fd, wired.offset + addr - wired.addr, stop - addr))
                addr = stop
        if addr < end:
            pieces.append(Piece(self.fd, addr, end - addr))
        return pieces

    def _require_inside(self, call: str, addr: int, range: int) -> None:
        if (addr | range) % PAGE or not 0 <= addr < addr + range <= self.size:
            raise InvalidArgument(
                f"{call}: [{addr:#x}, {addr + range:#x}) of {self!r}; pass pages of {PAGE:#x} inside it",
                (addr, range),
                self.size,
            )

    def _place_for(self, new: Wired) -> int:
        """Where in the list it belongs."""
        self._require_inside("wire", new.addr, new.range)
        place = bisect_left(self._starts, new.addr)
        for other in self._wired[max(place - 1, 0) : place + 1]:
            if other.addr < new.end and new.addr < other.end:
                raise InvalidArgument(
                    f"wire: [{new.addr:#x}, {new.end:#x}) of {self!r} overlaps [{other.addr:#x}, "
                    f"{other.end:#x}), which is wired; unwire that first",
                    (new.addr, new.range),
                    other,
                )
        return place

    def _place_of(self, addr: int, range: int) -> int:
        place = bisect_left(self._starts, addr)
        if place < len(self._wired) and self._wired[place][:2] == (addr, range):
            return place
        raise InvalidArgument(
            f"unwire: [{addr:#x}, {addr + range:#x}) of {self!r} was not wired so; pass what was wired",
            (addr, range),
            self._wired[max(place - 1, 0) : place + 1],
        )

    def _maps_between(self, before: int, behind: int, new: Wired) -> int:
        """How many maps more there are at most with ``new`` in front of the extent at ``behind``.

        Nothing is taken to continue anything. So unwiring, in whatever order, never needs more.
        """
        left = self._wired[before - 1].end if before else 0
        right = self._wired[behind].addr if behind < len(self._wired) else self.size
        return (left < new.addr) + 1 + (new.end < right) - 1

    # -- itself

    def check(self) -> None:
        """Verify that what is wired is disjoint and is what the mapping shows, over no residue, and counted.

        Call it while no thread is inside a call.

        Raises:
            CheckFailed: with the state.
        """
        self._mapping.check()
        pieces = self.backing(0, self.size)
        end = 0
        for wired, start in zip(self._wired, self._starts, strict=True):
            if wired.addr != start or not end <= wired.addr < wired.end <= self.size:
                raise CheckFailed(f"{self!r}: {wired} behind one that ends at {end:#x}")
            end = wired.end
            residue = list(self._file.data(wired.addr, wired.range))
            if residue:
                raise CheckFailed(f"{self!r}: own pages in use below {wired}: {residue}")
        if _merged(pieces) != [Piece(run.fd, run.offset, run.range) for run in self._mapping.runs]:
            raise CheckFailed(f"{self!r}: {pieces} should be behind {self._mapping.runs}")
        if len(pieces) != len(self._mapping.runs) + self._room.left:
            raise CheckFailed(
                f"{self!r}: {len(pieces)} pieces, room for {self._room.left} more than there are"
            )

    def statistics(self) -> MemoryStatistics:
        """How much shows pages of objects, and what the rest takes. O(extents)."""
        with self._lock:
            maps = len(self._mapping.runs) + self._room.left
            wired = sum(wired.range for wired in self._wired)
            extents = len(self._wired)
        return MemoryStatistics(self.aperture, self.size, wired, extents, self._file.allocated, maps)

    def __repr__(self) -> str:
        return f"<Memory {self.aperture.name} {self.size:#x}>"


def _merged(pieces: list[Piece]) -> list[Piece]:
    merged = pieces[:1]
    for piece in pieces[1:]:
        last = merged[-1]
        if (piece.fd, piece.offset) == (last.fd, last.offset + last.range):
            merged[-1] = last._replace(range=last.range + piece.range)
        else:
            merged.append(piece)
    return merged
