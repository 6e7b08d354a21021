"""HostBackend: the CPU's own MMU is the GPU's, so that a GPU's address range is an ordinary array."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt

from gpuvm.errors import Busy, CheckFailed, InvalidArgument
from gpuvm.mem import Aperture, Extent
from gpuvm.mem.map_count import MapRoom
from gpuvm.mem.memory import Memory
from gpuvm.mmu.backend import BackendStatistics
from gpuvm.mmu.cpu_mmu import CpuMmu
from gpuvm.mmu.formats.format import PteFlags
from gpuvm.mmu.formats.gp100 import GP100
from gpuvm.mmu.formats.words import require_known
from gpuvm.mmu.layers import Layers, Mapped, Shown, Unmapped, memory_of
from gpuvm.mmu.translation import (
    RUN,
    Fault,
    FaultType,
    Result,
    Run,
    RunState,
    Sparse,
    Translation,
    runs_of,
)
from gpuvm.sync import lockdep
from gpuvm.sync.mutex import Mutex

PAGES: Final = {level.shift: level.pages for level in GP100.levels if level.pages}
"""As gp100: large pages in VRAM only."""

BORDERS: Final = 2
"""Maps that a sparse range adds: one for either border."""

_NO_FLAGS: Final = PteFlags(0)


@dataclass(frozen=True, slots=True)
class HostStatistics(BackendStatistics):
    """A snapshot of a host backend."""

    maps: int
    """Of this process, that it takes."""
    promised: int
    """That it may come to take besides."""


class HostBackend:
    """``[start, start + range)`` of a GPU is a range of this process: ``array[addr - start]`` is its byte.

    Implements ``Backend``. Which file's pages lie behind physical memory is asked when they are mapped, or
    show again: an object that was moved has to be mapped again, as on hardware.

    What an access to ``array`` meets:

    - mapped: the bytes of the memory. READ_ONLY: a write gets ``SIGSEGV``; PRIVILEGED: any access does, for
      the array is nobody's privileged request
    - sparse: zeros. Writes are accepted and stay until something near by is mapped or unmapped, since the CPU
      has no pages that forget; ``AddressSpace`` lets them vanish
    - a hole: ``SIGSEGV``, which ends the process

    The machine limits the maps of a process (``vm.max_map_count``), and one goes wherever neighbouring pages
    do not continue each other. So ``get`` reserves one for each slot, and ``sparse`` those for the borders of
    a range: they fail instead of ``map``, with what to do about it. A page over several pieces of files, as
    pages of an object never are, is the one thing for which ``map`` may have to raise this too.

    Args:
        start: first address; like ``range`` a multiple of the largest page size.
        range: bytes. They cost nothing; a process has 2**47 addresses for everything.
        memories: what physical addresses lead to.
        pages: by shift, the largest first: where pages of this size may lie.
        name: for messages and tables.

    Raises:
        InvalidArgument: range or page sizes that cannot be, or pages smaller than the machine's.
        OutOfMemory: this process has no so many addresses, or no map, left.
    """

    def __init__(
        self,
        start: int,
        range: int,
        memories: Mapping[Aperture, Memory],
        *,
        pages: Mapping[int, frozenset[Aperture]] = PAGES,
        name: str = "host",
    ) -> None:
        _require_shape(start, range, tuple(pages))
        self.name: Final = name
        self.start: Final = start
        self.range: Final = range
        self.page_shifts: Final = tuple(pages)
        self.pages: Final[Mapping[int, frozenset[Aperture]]] = MappingProxyType(
            {shift: frozenset(apertures & memories.keys()) for shift, apertures in pages.items()}
        )
        self._layers = Layers(start, start + range, self.page_shifts)
        self._mmu = CpuMmu(start, start + range, memories)
        self._spare = 0
        """Maps in the room or in use that were taken for pages over several pieces."""
        self._closed = False
        self.counting: Final = Mutex(f"{name}: counting", lockdep.lock_class("host_ref"))
        self.mapping: Final = Mutex(f"{name}: mapping", lockdep.lock_class("host_map"))

    @property
    def array(self) -> npt.NDArray[np.uint8]:
        """All addresses, one byte an item, no copy. It keeps the addresses, not what is mapped there."""
        return self._mmu.addresses.view

    # -- the five calls

    def get(self, addr: int, range: int, shift: int) -> None:
        """Reference page slots, and reserve maps for them; see ``Backend.get``."""
        end = self._end_of("get", addr, range, shift)
        with self.counting:
            maps = MapRoom(self._layers.edges_of_get(addr, end, shift))
            self._layers.get(addr, end, shift)
            self._move_in(maps)

    def put(self, addr: int, range: int, shift: int) -> None:
        """Drop references of page slots, and give up their maps; see ``Backend.put``."""
        end = self._end_of("put", addr, range, shift)
        with self.counting:
            maps = self._layers.put(addr, end, shift)
            with self.mapping:
                self._mmu.room.shrink(maps)

    def map(
        self,
        addr: int,
        range: int,
        shift: int,
        target: Extent,
        kind: int = 0,
        flags: PteFlags = _NO_FLAGS,
    ) -> None:
        """Show pages of memory; see ``Backend.map``. ``kind`` is remembered, and arranges nothing.

        Cost: a system call for each file that lies behind, if no larger page covers it.
        """
        end = self._end_of("map", addr, range, shift)
        self._require_target(range, shift, target)
        require_known(flags)
        mapped = Mapped(shift, Aperture(target.aperture), target.addr - addr, kind, PteFlags(flags))
        with self.mapping:
            self._layers.require_referenced("map", addr, end, shift)
            maps = self._mmu.maps_inside_pages(addr, end, mapped)
            self._mmu.room.grow(maps)
            self._spare += maps
            self._layers.map(addr, end, mapped)
            self._mmu.show(self._layers.shown(addr, end), mapped)

    def unmap(self, addr: int, range: int, shift: int) -> None:
        """Show what is below; see ``Backend.unmap``. Cost: a system call for each piece that changes."""
        end = self._end_of("unmap", addr, range, shift)
        with self.mapping:
            self._layers.unmap(addr, end, shift)
            self._mmu.show(self._layers.shown(addr, end))

    def sparse(self, addr: int, range: int, ref: bool) -> None:
        """Show zeros where nothing is mapped, or end that; see ``Backend.sparse``."""
        end = self._end_of("sparse", addr, range, self.page_shifts[-1])
        with self.counting:
            if ref:
                self._layers.require_not_sparse(addr, end)
                self._move_in(MapRoom(BORDERS))
                with self.mapping:
                    self._layers.sparse_ref(addr, end)
                    self._mmu.show(self._layers.shown(addr, end))
            else:
                with self.mapping:
                    self._layers.sparse_unref(addr, end)
                    self._mmu.show(self._layers.shown(addr, end))
                    self._mmu.room.shrink(BORDERS)

    def _move_in(self, maps: MapRoom) -> None:
        """They are taken before, while nothing that jobs wait for is held."""
        with self.mapping:
            self._mmu.room.left += maps.left
            maps.left = 0

    # -- looking

    def translate(self, addr: int) -> Result:
        """Where an address leads; see ``Backend.translate``. There are no levels, and words are 0."""
        if not self.start <= addr < self.start + self.range:
            return Fault(addr, FaultType.VA_LIMIT_VIOLATION, None, 0)
        shown = self._mmu.shown[addr]
        if isinstance(shown, Mapped):
            shift, aperture, delta, kind, flags = shown
            return Translation(addr, aperture, addr + delta, shift, kind, flags, self.name, 0)
        if shown is Unmapped.SPARSE:
            return Sparse(addr, self.page_shifts[-1], self.name, 0)
        return Fault(addr, FaultType.PTE, None, 0)

    def runs(self, addr: int, range: int) -> Iterator[Run]:
        """What a range leads to at one moment; see ``Backend.runs``. O(pieces)."""
        return runs_of(self._runs(addr, range))

    def run_arrays(self, addr: int, range: int) -> list[npt.NDArray[np.void]]:
        """The same as one array of ``translation.RUN``."""
        return [self._runs(addr, range)]

    def _runs(self, addr: int, range: int) -> npt.NDArray[np.void]:
        if range <= 0 or not self.start <= addr <= self.start + self.range - range:
            raise InvalidArgument(
                f'runs: [{addr:#x}, {addr + range:#x}) is empty or leaves backend "{self.name}" of '
                f"[{self.start:#x}, {self.start + self.range:#x})",
                value=(addr, range),
                bound=(self.start, self.start + self.range),
            )
        pieces = self._mmu.shown.pieces(addr, addr + range)
        grouped = [list(group) for _, group in groupby(pieces, key=lambda piece: memory_of(piece.value))]
        return np.array([_run(group[0].start, group[-1].end, group[0].value) for group in grouped], RUN)

    # -- what is refused

    def _end_of(self, call: str, addr: int, range: int, shift: int) -> int:
        """The end of a range of pages of one size."""
        if self._closed:
            raise InvalidArgument(f'{call}: backend "{self.name}" is closed', value=call)
        if shift not in self.pages:
            raise InvalidArgument(
                f"{call}: shift {shift}: pages have the shifts {self.page_shifts}", shift, self.page_shifts
            )
        size, end = 1 << shift, self.start + self.range
        if range <= 0 or (addr | range) & (size - 1):
            raise InvalidArgument(
                f"{call}: [{addr:#x}, {addr + range:#x}) are no pages; pass positive multiples of {size:#x}",
                value=(addr, range),
                bound=size,
            )
        if addr < self.start or addr + range > end:
            raise InvalidArgument(
                f'{call}: [{addr:#x}, {addr + range:#x}) leaves backend "{self.name}" of '
                f"[{self.start:#x}, {end:#x})",
                value=(addr, range),
                bound=(self.start, end),
            )
        return addr + range

    def _require_target(self, range: int, shift: int, target: Extent) -> None:
        aperture, physical, length = target
        if aperture not in self.pages[shift]:
            allowed = [each.name for each in sorted(self.pages[shift])]
            raise InvalidArgument(
                f"map: no pages of {1 << shift:#x} bytes in {Aperture(aperture).name}, only in {allowed}",
                value=aperture,
                bound=allowed,
            )
        memory = self._mmu.memories[aperture]
        if length != range or physical % (1 << shift) or not 0 <= physical <= memory.size - length:
            raise InvalidArgument(
                f"map: {range:#x} bytes to {length:#x} at {physical:#x} of {memory!r}; pass equal lengths, "
                f"and memory from a multiple of {1 << shift:#x} on",
                value=target,
                bound=memory.size,
            )

    # -- itself

    def check(self) -> None:
        """See ``Backend.check``: what the CPU's MMU was told is what is mapped, and maps are counted."""
        self._layers.check()
        self._mmu.check()
        for start, end, value in self._layers.shown(self.start, self.start + self.range):
            found = self._mmu.shown.pieces(start, end)
            if any(piece.value != value for piece in found):
                raise CheckFailed(f"{self!r}: {value} at [{start:#x}, {end:#x}) shows as {found}")
        promised = self._layers.edges() + BORDERS * len(self._layers.sparse_ranges) + self._spare
        in_use = len(self._mmu.addresses.runs) - 1
        if self._mmu.room.left + in_use != promised:
            raise CheckFailed(
                f"{self!r}: {promised} maps promised, {in_use} in use, {self._mmu.room.left} left"
            )

    def statistics(self) -> HostStatistics:
        """Counts, of now. O(pieces)."""
        return HostStatistics(
            name=self.name,
            mapped=self._layers.mapped_pages(),
            references=self._layers.reference_count(),
            sparse_bytes=sum(self._layers.sparse_ranges.values()),
            maps=len(self._mmu.addresses.runs),
            promised=self._mmu.room.left,
        )

    def close(self) -> None:
        """Give up everything; see ``Backend.close``. The addresses are free once no array has them."""
        references, ranges = self._layers.reference_count(), len(self._layers.sparse_ranges)
        if references or ranges:
            raise Busy(
                f'close: backend "{self.name}" has {references} references and {ranges} sparse ranges; '
                "put and drop them first",
                value=(references, ranges),
            )
        self._closed = True
        self._mmu.room.shrink(self._mmu.room.left)
        self._spare = 0

    def __repr__(self) -> str:
        return f"<HostBackend {self.name!r} [{self.start:#x}, {self.start + self.range:#x})>"


def _run(start: int, end: int, shown: Shown) -> tuple[int, ...]:
    """A row of ``RUN``."""
    if isinstance(shown, Mapped):
        _, aperture, delta, kind, flags = shown
        return start, end - start, start + delta, aperture, RunState.VALID, kind, flags, 0
    state = RunState.SPARSE if shown is Unmapped.SPARSE else RunState.INVALID
    return start, end - start, 0, 0, state, 0, 0, 0


def _require_shape(start: int, range: int, shifts: tuple[int, ...]) -> None:
    if not shifts or list(shifts) != sorted(set(shifts), reverse=True) or 1 << shifts[-1] < mmap.PAGESIZE:
        raise InvalidArgument(
            f"HostBackend: page shifts {shifts}; pass descending ones, for at least {mmap.PAGESIZE:#x} bytes",
            value=shifts,
            bound=mmap.PAGESIZE,
        )
    if start < 0 or range <= 0 or (start | range) % (1 << shifts[0]):
        raise InvalidArgument(
            f"HostBackend: [{start:#x}, {start + range:#x}); pass multiples of the largest page, "
            f"{1 << shifts[0]:#x}",
            value=(start, range),
            bound=1 << shifts[0],
        )
