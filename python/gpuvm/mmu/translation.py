"""Translation: where an address leads, or why it does not: results as data, never exceptions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gpuvm.mem import Aperture
from gpuvm.mmu.formats.format import PteFlags

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Access(IntEnum):
    """What a request wants (``NV_PFAULT_ACCESS_TYPE_*``)."""

    READ = 0
    WRITE = 1
    ATOMIC = 2


class FaultType(IntEnum):
    """Why a request is refused, by the hardware's names and numbers (``NV_PFAULT_FAULT_TYPE_*``)."""

    PDE = 0x0
    """An entry of a directory has neither a page nor a table, or its table lies beyond the end of VRAM."""
    PTE = 0x2
    """An entry of a page table has no page."""
    VA_LIMIT_VIOLATION = 0x3
    """The address is longer than the format's."""
    PRIV_VIOLATION = 0x5
    """The page is for the driver only."""
    RO_VIOLATION = 0x6
    """The page is read-only."""
    UNSUPPORTED_APERTURE = 0xA
    """A table is not in VRAM, out of reach here."""
    ATOMIC_VIOLATION = 0xF
    """The page allows no atomics."""


@dataclass(frozen=True, slots=True)
class Translation:
    """An address that leads to memory."""

    va: int
    """What was asked for."""
    aperture: Aperture
    address: int
    """Where it leads to in the aperture: the very byte, not the page."""
    shift: int
    """log2 of the page's size in bytes."""
    kind: int
    flags: PteFlags
    """Of the page and all pointers on the way."""
    level: str
    """Where the page is entered."""
    word: int
    """The raw entry."""

    @property
    def page_va(self) -> int:
        """First address of the page."""
        return self.va >> self.shift << self.shift

    @property
    def page_address(self) -> int:
        """Where it begins in the aperture."""
        return self.address >> self.shift << self.shift

    @property
    def read_only(self) -> bool:
        """Whether writes and atomics fault."""
        return PteFlags.READ_ONLY in self.flags

    @property
    def privileged(self) -> bool:
        """Whether only requests of the driver pass."""
        return PteFlags.PRIVILEGED in self.flags

    @property
    def volatile(self) -> bool:
        """Whether the GPU's cache is bypassed."""
        return PteFlags.VOLATILE in self.flags

    @property
    def no_atomics(self) -> bool:
        """Whether atomics fault."""
        return PteFlags.NO_ATOMICS in self.flags

    def __repr__(self) -> str:
        where = f"{self.va:#x} -> {self.aperture.name}:{self.address:#x}"
        page = f"page of {1 << self.shift:#x}, kind {self.kind:#x}, {self.flags!r}"
        return f"<Translation {where}, {page}, {self.level} {self.word:#x}>"


@dataclass(frozen=True, slots=True)
class Sparse:
    """An address that leads nowhere on purpose: reads give zeros, writes vanish, nothing faults."""

    va: int
    shift: int
    """log2 of the bytes that the entry spans."""
    level: str
    word: int

    def __repr__(self) -> str:
        return f"<Sparse {self.va:#x}, entry of {1 << self.shift:#x}, {self.level} {self.word:#x}>"


@dataclass(frozen=True, slots=True)
class Fault:
    """A request that the MMU refuses."""

    va: int
    reason: FaultType
    level: str | None
    """Whose entry refuses; None: none was looked at."""
    word: int
    """That raw entry; of a pair the word that decides."""
    access: Access | None = None
    """What was wanted; None: whatever it was."""

    def __repr__(self) -> str:
        entry = "" if self.level is None else f", {self.level} {self.word:#x}"
        wanted = "" if self.access is None else f", {self.access.name}"
        return f"<Fault {self.reason.name} at {self.va:#x}{wanted}{entry}>"


Result = Translation | Sparse | Fault
"""What one address comes to."""


def permitted(where: Result, access: Access, *, privileged: bool = False) -> Fault | None:
    """Whether a request passes: None, or how it faults. Sparse addresses permit everything.

    Args:
        where: what the address of the request was translated to.
        privileged: the request is the driver's.

    Of several reasons the one that the page has for more requests is told: privileged, read-only, atomics.

    Source: Privileged, Read-Only and Atomic-Disable in NVIDIA's "Pascal MMU Format Changes". Their order and
    that atomics on read-only pages count as writes is not written there.
    """
    if isinstance(where, Sparse):
        return None
    if isinstance(where, Fault):
        return Fault(where.va, where.reason, where.level, where.word, access)
    if where.privileged and not privileged:
        reason = FaultType.PRIV_VIOLATION
    elif where.read_only and access != Access.READ:
        reason = FaultType.RO_VIOLATION
    elif where.no_atomics and access == Access.ATOMIC:
        reason = FaultType.ATOMIC_VIOLATION
    else:
        return None
    return Fault(where.va, reason, where.level, where.word, access)


class RunState(IntEnum):
    """What a run of addresses leads to."""

    VALID = 0
    """Memory."""
    SPARSE = 1
    """Zeros."""
    INVALID = 2
    """A fault."""


class Run(NamedTuple):
    """Neighbouring addresses that lead to neighbouring bytes, or all to zeros, or all to faults.

    Without memory, ``aperture``, ``address``, ``kind`` and ``flags`` are 0.
    """

    va: int
    range: int
    state: RunState
    aperture: Aperture
    address: int
    kind: int
    flags: PteFlags

    def __repr__(self) -> str:
        where = f"[{self.va:#x}, +{self.range:#x})"
        if self.state != RunState.VALID:
            return f"<Run {where}: {self.state.name}>"
        return f"<Run {where} -> {self.aperture.name}:{self.address:#x}, kind {self.kind:#x}, {self.flags!r}>"


RUN = np.dtype(
    [
        ("va", "<u8"),
        ("range", "<u8"),
        ("address", "<u8"),
        ("aperture", "u1"),
        ("state", "u1"),
        ("kind", "u1"),
        ("flags", "u1"),
        ("pad", "<u4"),
    ]
)
"""A ``Run`` in an array, as the core fills it."""


def runs_of(array: NDArray[np.void]) -> Iterator[Run]:
    """The runs of an array of ``RUN``."""
    for va, range, address, aperture, state, kind, flags, _ in array.tolist():
        yield Run(va, range, RunState(state), Aperture(aperture), address, kind, PteFlags(flags))
