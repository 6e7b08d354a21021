"""CpuMmu: what the CPU's MMU was told about a range of this process's addresses, and telling it more."""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate, groupby
from typing import Final

from gpuvm.errors import CheckFailed
from gpuvm.mem import Aperture
from gpuvm.mem.map_count import MapRoom
from gpuvm.mem.memory import Memory
from gpuvm.mem.remapping import NO_ACCESS, NO_FILE
from gpuvm.mem.remapping import Mapping as AddressRange
from gpuvm.mem.remapping import Run as Map
from gpuvm.mmu.formats.format import PteFlags
from gpuvm.mmu.intervals import IntervalMap, Piece
from gpuvm.mmu.layers import Mapped, Shown, Unmapped, memory_of

_READ_WRITE: Final = mmap.PROT_READ | mmap.PROT_WRITE


class CpuMmu:
    """Shows pages of memories, zeros or nothing at addresses ``[start, end)``.

    Locking: one thread changes it at a time; ``shown`` can be read at any time.

    Raises:
        OutOfMemory: this process has no so many addresses, or no map, left.
    """

    def __init__(self, start: int, end: int, memories: Mapping[Aperture, Memory]) -> None:
        self.start: Final = start
        self.end: Final = end
        self.memories: Final = dict(memories)
        self.addresses: Final = AddressRange(end - start)
        self.shown: Final[IntervalMap[Shown]] = IntervalMap(start, end, Unmapped.HOLE)
        self.room: Final = MapRoom()
        """Maps that showing may take; it adds no others."""

    def show(self, pieces: Iterable[Piece[Shown]], written: Mapped | None = None) -> None:
        """Have ``pieces`` show. Addresses at which the same memory shows already are not touched.

        Cost: a system call for each piece that changes, and each further file behind it.

        Args:
            pieces: in order.
            written: as what was just mapped, which may have other pages behind it than it had.
        """
        for start, end, value in pieces:
            for first, last in [(start, end)] if value == written else self._changed(start, end, value):
                if isinstance(value, Mapped):
                    self._show_pages(first, last, value)
                elif value is Unmapped.SPARSE:
                    self._show_zeros(first, last)
                else:
                    self.addresses.forbid_access(first - self.start, last - first, room=self.room)
            self.shown.assign(start, end, value)

    def _changed(self, start: int, end: int, value: Shown) -> Iterator[tuple[int, int]]:
        """Where other memory shows than that of ``value``, from and to."""
        pieces = self.shown.pieces(start, end)
        for same, group in groupby(pieces, key=lambda piece: memory_of(piece.value) == memory_of(value)):
            if not same:
                changed = list(group)
                yield changed[0].start, changed[-1].end

    def _show_zeros(self, start: int, end: int) -> None:
        """Together with the zeros around: the kernel would keep those apart that were written to."""
        if start > self.start and self.shown[start - 1] is Unmapped.SPARSE:
            start = self.shown.piece(start - 1).start
        if end < self.end and self.shown[end] is Unmapped.SPARSE:
            end = self.shown.piece(end).end
        self.addresses.zero_pages(start - self.start, end - start, writable=True, room=self.room)

    def _show_pages(self, start: int, end: int, mapped: Mapped) -> None:
        for map in self._maps(start, end, mapped):
            if map.protection == NO_ACCESS:
                self.addresses.forbid_access(map.addr, map.range, room=self.room)
                continue
            writable = map.protection == _READ_WRITE
            self.addresses.replace_pages(
                map.addr, map.range, map.fd, map.offset, writable=writable, room=self.room
            )

    def _maps(self, start: int, end: int, mapped: Mapped) -> list[Map]:
        """The kernel's maps that show ``mapped`` at ``[start, end)``."""
        addr = start - self.start
        if mapped.flags & PteFlags.PRIVILEGED:
            return [Map(addr, end - start, NO_FILE, 0, NO_ACCESS)]
        protection = mmap.PROT_READ if mapped.flags & PteFlags.READ_ONLY else _READ_WRITE
        maps: list[Map] = []
        for fd, offset, length in self.memories[mapped.aperture].backing(start + mapped.delta, end - start):
            _append(maps, Map(addr, length, fd, offset, protection))
            addr += length
        return maps

    def maps_inside_pages(self, start: int, end: int, mapped: Mapped) -> int:
        """How many maps would end inside a page of ``mapped`` at ``[start, end)``."""
        ends = accumulate(map.range for map in self._maps(start, end, mapped))
        return sum(done % (1 << mapped.shift) != 0 for done in ends)

    def check(self) -> None:
        """Verify that the kernel's maps are those that follow from what is shown.

        Raises:
            CheckFailed: with the state.
        """
        self.shown.check()
        self.addresses.check()
        expected: list[Map] = []
        for start, end, value in self.shown.pieces(self.start, self.end):
            if isinstance(value, Mapped):
                for map in self._maps(start, end, value):
                    _append(expected, map)
            else:
                protection = _READ_WRITE if value is Unmapped.SPARSE else NO_ACCESS
                _append(expected, Map(start - self.start, end - start, NO_FILE, 0, protection))
        if tuple(expected) != self.addresses.runs:
            raise CheckFailed(f"{self.addresses!r}: {expected} should be {self.addresses.runs}")


def _append(maps: list[Map], map: Map) -> None:
    """Behind the others, joined with the last if it continues that."""
    if maps and map.continues(maps[-1]):
        maps[-1] = maps[-1]._replace(range=maps[-1].range + map.range)
    else:
        maps.append(map)
