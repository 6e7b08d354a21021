"""What a backend should do, as arrays with an item for each 4 KiB page, and memory as arrays of bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from gpuvm.errors import AlreadyMapped, InvalidArgument, NotFound
from gpuvm.mem import Aperture, Extent
from gpuvm.mmu.formats.format import PteFlags
from gpuvm.mmu.translation import Access, FaultType, Run, RunState

PAGE = 1 << 12
SHIFTS = (21, 16, 12)
NOWHERE = -1
SPARSE = -2


class ModelFault(Exception):
    """Address, what was wanted, and why not (None: nothing is there)."""


class Model:
    def __init__(self, start: int, length: int, memory: Mapping[Aperture, NDArray[np.uint8]]) -> None:
        self.start, self.pages = start, length // PAGE
        self.memory = {aperture: content.copy() for aperture, content in memory.items()}
        self.references = {shift: np.zeros(self.pages, np.int64) for shift in SHIFTS}
        self.leads = {shift: np.full(self.pages, NOWHERE, np.int64) for shift in SHIFTS}
        """Aperture and physical address of each page: ``aperture << 56 | address``."""
        self.flags = {shift: np.zeros(self.pages, np.int64) for shift in SHIFTS}
        self.sparse = np.zeros(self.pages, bool)
        self.ranges: dict[int, int] = {}

    def at(self, addr: int, range_: int) -> slice:
        first = (addr - self.start) // PAGE
        return slice(first, first + range_ // PAGE)

    # -- the five calls

    def get(self, addr: int, range_: int, shift: int) -> None:
        self.references[shift][self.at(addr, range_)] += 1

    def put(self, addr: int, range_: int, shift: int) -> None:
        at = self.at(addr, range_)
        least = np.where(self.leads[shift][at] == NOWHERE, 1, 2)
        if (self.references[shift][at] < least).any():
            raise InvalidArgument("model")
        self.references[shift][at] -= 1

    def map(self, addr: int, range_: int, shift: int, target: Extent, _kind: int, flags: PteFlags) -> None:
        at = self.require_referenced(addr, range_, shift)
        first = target.aperture << 56 | target.addr
        self.leads[shift][at] = np.arange(first, first + range_, PAGE)
        self.flags[shift][at] = flags

    def unmap(self, addr: int, range_: int, shift: int) -> None:
        at = self.require_referenced(addr, range_, shift)
        self.leads[shift][at] = NOWHERE

    def require_referenced(self, addr: int, range_: int, shift: int) -> slice:
        at = self.at(addr, range_)
        if not self.references[shift][at].all():
            raise InvalidArgument("model")
        return at

    def make_sparse(self, addr: int, range_: int, ref: bool) -> None:
        at = self.at(addr, range_)
        if not ref and self.ranges.get(addr) != range_:
            raise NotFound("model")
        if ref and self.sparse[at].any():
            raise AlreadyMapped("model")
        if ref:
            self.ranges[addr] = range_
        else:
            del self.ranges[addr]
        self.sparse[at] = ref

    # -- what shows

    def shown(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """For each page where it leads, its flags, and its shift."""
        leads = np.where(self.sparse, SPARSE, NOWHERE)
        flags, shifts = np.zeros_like(leads), np.full_like(leads, -1)
        for shift in reversed(SHIFTS):
            here = self.leads[shift] != NOWHERE
            leads = np.where(here, self.leads[shift], leads)
            flags = np.where(here, self.flags[shift], flags)
            shifts = np.where(here, shift, shifts)
        return leads, flags, shifts

    def runs(self) -> list[Run]:
        leads, flags, _ = self.shown()
        continues = np.where(leads[:-1] >= 0, leads[:-1] + PAGE, leads[:-1]) == leads[1:]
        continues &= flags[:-1] == flags[1:]
        firsts = [0, *(np.flatnonzero(~continues) + 1).tolist()]
        runs = []
        for first, last in zip(firsts, [*firsts[1:], self.pages], strict=True):
            addr, range_, lead = self.start + first * PAGE, (last - first) * PAGE, int(leads[first])
            if lead < 0:
                state = RunState.SPARSE if lead == SPARSE else RunState.INVALID
                runs.append(Run(addr, range_, state, Aperture.VRAM, 0, 0, PteFlags(0)))
            else:
                aperture, physical = Aperture(lead >> 56), lead & (1 << 56) - 1
                its_flags = PteFlags(int(flags[first]))
                runs.append(Run(addr, range_, RunState.VALID, aperture, physical, 0, its_flags))
        return runs

    # -- bytes

    def read(self, addr: int, range_: int, privileged: bool = False) -> bytes:
        return b"".join(piece.data for piece in self.pieces(addr, range_, Access.READ, privileged))

    def write(self, addr: int, data: bytes, privileged: bool = False) -> None:
        done = 0
        for piece in self.pieces(addr, len(data), Access.WRITE, privileged):
            piece[:] = np.frombuffer(data, np.uint8)[done : done + len(piece)]
            done += len(piece)

    def pieces(self, addr: int, range_: int, access: Access, privileged: bool) -> Iterator[NDArray[np.uint8]]:
        """The bytes of each page of the range, all of which permits the access."""
        leads, flags, _ = self.shown()
        pieces = []
        while range_:
            page, inside = (addr - self.start) // PAGE, addr % PAGE
            length = min(PAGE - inside, range_)
            lead = int(leads[page])
            if lead == NOWHERE:
                raise ModelFault(addr, access, None)
            if flags[page] & PteFlags.PRIVILEGED and not privileged:
                raise ModelFault(addr, access, FaultType.PRIV_VIOLATION)
            if flags[page] & PteFlags.READ_ONLY and access == Access.WRITE:
                raise ModelFault(addr, access, FaultType.RO_VIOLATION)
            if lead == SPARSE:
                pieces.append(np.zeros(length, np.uint8))
            else:
                first = (lead & (1 << 56) - 1) + inside
                pieces.append(self.memory[Aperture(lead >> 56)][first : first + length])
            addr, range_ = addr + length, range_ - length
        return iter(pieces)
