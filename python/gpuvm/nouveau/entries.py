"""Doing in a page table what a change of the address space comes to, at once or call by call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gpuvm._core import Work
from gpuvm.errors import GpuvmError
from gpuvm.mem import Aperture, Extent
from gpuvm.mmu.backend import Backend
from gpuvm.mmu.formats.format import NEVER, PteFlags
from gpuvm.mmu.page_table import PageTable


class Entries:
    """The references and entries of one address space.

    Locking: takes the backend's locks.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._table = backend if isinstance(backend, PageTable) else None
        volatile = self._table is None or self._table.format.page.volatile != NEVER
        self._system_flags = PteFlags.VOLATILE if volatile else PteFlags(0)
        self.write: Final[Callable[[Work], None]] = (
            self._write_each if self._table is None else self._table.write_all
        )
        """In the job: write what is to be written, in order. Cannot fail, and allocates nothing."""
        self.core_table: Final = None if self._table is None else self._table.core
        """For the core: its part of a page table."""

    # -- before there is no way back

    def take(self, work: Work) -> None:
        """Make regions sparse and take references, all or none.

        Raises:
            GpuvmError: as ``Backend.get`` and ``sparse``; ``request`` is the index of the operation that
                needed it.
        """
        try:
            while (region := work.next_sparse) is not None:
                self._backend.sparse(*region, True)
                work.made_sparse()
            self._take_references(work)
        except BaseException as error:
            if isinstance(error, GpuvmError):
                error.request = work.next_op
            self.give_back(work)
            raise

    def _take_references(self, work: Work) -> None:
        if self._table is not None:
            self._table.get_all(work)
            return
        while (slots := work.next_get) is not None:
            self._backend.get(*slots)
            work.got()

    def give_back(self, work: Work) -> None:
        """Undo ``take``, as far as it came. Cannot fail."""
        if self._table is not None:
            self._table.unget_all(work)
        for slots in work.take_got():
            self._backend.put(*slots)
        for region in work.take_sparse():
            self._backend.sparse(*region, False)

    # -- in the job

    def _write_each(self, work: Work) -> None:
        for addr, range, shift, target in work.writes:
            if target is None:
                self._backend.unmap(addr, range, shift)
            else:
                aperture, physical, kind = Aperture(target[0]), *target[1:]
                extent = Extent(aperture, physical, range)
                self._backend.map(addr, range, shift, extent, kind, self.flags(aperture))

    # -- after it

    def put(self, work: Work) -> None:
        """Drop the references that nobody needs any more, and end sparse ranges. Cannot fail."""
        if self.core_table is not None:
            self.put_rest(self.core_table.put_all(work), work)
            return
        for slots in work.puts:
            self._backend.put(*slots)
        self.put_rest([], work)

    def put_rest(self, freed: list[tuple[int, int]], work: Work) -> None:
        """References are dropped: give back the tables that nobody needs any more, and end sparse ranges."""
        if self._table is not None:
            self._table.free_tables(freed)
        for addr, range, sparse in work.dropped:
            if sparse:
                self._backend.sparse(addr, range, False)

    # -- what entries say

    def flags(self, aperture: Aperture) -> PteFlags:
        """Of pages there: the GPU does not cache system memory, which the CPU writes.

        Source: ``nouveau_uvmm_vmm_map``.
        """
        return PteFlags(0) if aperture == Aperture.VRAM else self._system_flags

    @property
    def address_shift(self) -> int | None:
        """Of a physical address in a word; None if the backend makes its entries itself."""
        return None if self._table is None else self._table.format.page.address_shift

    def encode(self, shift: int, aperture: Aperture, kind: int) -> tuple[int, int]:
        """The word of such a page without its address, and the bits that an address may have.

        Raises:
            InvalidArgument: the format has no such kind, or not on pages of this size or there.
        """
        assert self._table is not None, "only words are asked for"
        self._table.format.kinds.validate(kind, aperture, shift)
        return self._table.encoding(shift, aperture, kind, self.flags(aperture))
