"""Backend: what puts an address space into effect, page tables or something in their place: five calls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from gpuvm.mem import Aperture, Extent

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from gpuvm.mmu.formats.format import PteFlags
    from gpuvm.mmu.translation import Result, Run


@dataclass(frozen=True, slots=True)
class BackendStatistics:
    """A snapshot of one backend; each adds what is its own."""

    name: str
    mapped: Mapping[int, int]
    """Pages mapped, by shift, those included that a larger one covers."""
    references: int
    """Of all page slots together."""
    sparse_bytes: int
    """Length of all sparse ranges, whatever is mapped in them."""


class Backend(Protocol):
    """Pages at addresses, with the work divided as a driver needs it: what may fail comes first.

    - while a bind is prepared: ``get``, ``sparse`` with ``ref``. They may allocate and fail
    - in its job, while others wait for the fence: ``map``, ``unmap``. They allocate nothing and cannot fail
    - in cleanup: ``put``, ``sparse`` without ``ref``. They free and cannot fail
    - at any time: ``translate``, ``runs``

    A page has one of the sizes ``1 << shift``. Each size has its own slots, with references and pages of
    their own, and **a larger page covers the smaller ones below it**: these may be mapped and unmapped
    meanwhile, and show when the larger one is unmapped. Where nothing is mapped, a sparse range shows (reads
    give zeros, writes vanish), or else a hole (a fault). So a large page is split by mapping the small ones
    below, then unmapping it; and small ones are joined by mapping the large one over them. At no moment does
    an address that stays mapped fault, nor does one outside the range of a call, whoever looks.

    Who reads raw words by himself, as another process can, reads several: perhaps the first before a call and
    the last after it, in a table that is of no use by then. Flushes keep hardware from that; he compares what
    he read on the way with what is there now.

    Errors: a wrong argument is ``InvalidArgument`` in every call, before anything is changed: a shift that is
    not among ``page_shifts``, a range that is empty, no multiple of the page size or not within
    ``[start, start + range)``. "Cannot fail" is said of everything else.

    Locking: none is the caller's duty. The backend has two ``Mutex``: *counting*, taken by ``get``, ``put``
    and ``sparse``, and *mapping*, taken by ``map``, ``unmap`` and ``sparse``; both in this order. So binds
    may be prepared while jobs run. Looking takes neither.

    Source: ``NVIF_VMM_V0_RAW`` with its GET, PUT, MAP, UNMAP and SPARSE (``nvkm/subdev/mmu/uvmm.c``).
    """

    @property
    def name(self) -> str:
        """What messages and tables call it."""

    @property
    def start(self) -> int:
        """First address that can be mapped."""

    @property
    def range(self) -> int:
        """How many bytes from ``start`` on can be mapped."""

    @property
    def page_shifts(self) -> tuple[int, ...]:
        """log2 of the page sizes in bytes, the largest first, like (21, 16, 12)."""

    @property
    def pages(self) -> Mapping[int, frozenset[Aperture]]:
        """By shift, the largest first: the apertures that a page of this size may lie in."""

    def get(self, addr: int, range: int, shift: int) -> None:
        """Take a reference on every slot of size ``1 << shift`` in ``[addr, addr + range)``.

        Cost: O(slots) at most, and the tables that are missing.

        Raises:
            OutOfMemory: nothing was changed.
        """

    def put(self, addr: int, range: int, shift: int) -> None:
        """Drop a reference of every slot in the range. What nobody references is freed.

        Raises:
            InvalidArgument: a slot has no reference, or its last one is to go while a page is mapped there.
                Nothing was changed.
        """

    def map(
        self,
        addr: int,
        range: int,
        shift: int,
        target: Extent,
        kind: int = 0,
        flags: PteFlags = ...,
    ) -> None:
        """Map pages of size ``1 << shift`` to the bytes of ``target``, in the place of those mapped there.

        Each slot must be referenced. Only what this size has mapped is replaced, in one step for each page.

        Args:
            target: as long as the range, a multiple of the page size, in an aperture that ``pages`` allows.
            kind: storage kind, a number of the GPU's format; 0 is plain.
            flags: ``PteFlags``.

        Raises:
            InvalidArgument: a slot is not referenced, or the format cannot say this. Nothing was changed.
        """

    def unmap(self, addr: int, range: int, shift: int) -> None:
        """Take away the pages of this size in the range, if any: what is below shows again.

        Raises:
            InvalidArgument: a slot is not referenced. Nothing was changed.
        """

    def sparse(self, addr: int, range: int, ref: bool) -> None:
        """Make ``[addr, addr + range)`` sparse, or no longer, in multiples of the smallest page size.

        It needs no reference, and mapped pages stay in both cases: only what shows where nothing is mapped
        changes.

        Raises:
            OutOfMemory: with ``ref`` only; nothing was changed.
            AlreadyMapped: with ``ref``: part of the range is sparse already.
            NotFound: without: this very range was not made sparse.
        """

    def translate(self, addr: int) -> Result:
        """Where one address leads at this moment; outside the backend it faults. Locking: none."""

    def runs(self, addr: int, range: int) -> Iterable[Run]:
        """What ``[addr, addr + range)`` leads to, in address order, without gaps; holes are runs too.

        Neighbours that continue each other in physical memory, with equal kind and flags, are one run,
        whatever their page sizes.

        Locking: none. Each page is seen as it is at some moment of the call.

        Raises:
            InvalidArgument: the range is empty or leaves the backend's.
        """

    def run_arrays(self, addr: int, range: int) -> Iterable[npt.NDArray[np.void]]:
        """The same as arrays of ``translation.RUN``, each valid until the next one is asked for.

        Across the border of two arrays, neighbours may continue each other.
        """

    def check(self) -> None:
        """Verify every invariant. Call it while no other thread is inside a call. O(everything).

        Raises:
            CheckFailed: with the state.
        """

    def statistics(self) -> BackendStatistics:
        """Counts, of now."""

    def close(self) -> None:
        """Give everything back.

        Raises:
            Busy: a slot is referenced, or a range is sparse. Nothing was changed.
        """
