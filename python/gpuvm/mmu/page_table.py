"""PageTable: page tables in VRAM as a ``Backend``, in any format (nouveau's ``nvkm_vmm``)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gpuvm._core import PageTable as CorePageTable
from gpuvm._core import Work
from gpuvm.errors import CheckFailed, InvalidArgument
from gpuvm.mem import Aperture, Extent
from gpuvm.mmu.formats.format import Format, PteFlags
from gpuvm.mmu.page_table_statistics import PageTableStatistics, Table
from gpuvm.mmu.table_work import TableWork, table_work
from gpuvm.mmu.tables import Missing, Supply, TableMemory, TablePool, Tables
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
from gpuvm.mmu.walk import Step, walk
from gpuvm.sync import lockdep
from gpuvm.sync.mutex import Mutex

_NO_FLAGS: Final = PteFlags(0)
_RUNS_AT_A_TIME: Final = 1024


class PageTable:
    """The page tables of one address space.

    What a word in VRAM is at any moment: the page, if one is mapped by this entry; else the pointer to the
    table below, if there is one; else sparse, if a sparse range is over it; else invalid. A new table shows
    what its entry showed before anything points to it.

    The calls are those of ``Backend``. ``get`` and ``sparse`` allocate table memory while they hold no lock:
    they ask what is missing, allocate, and look again. The GPU's TLB is not modelled here: who puts pages or
    tables away flushes before their memory is used again.

    Args:
        format: how words look.
        memory: where tables lie; the object is used until ``close``.
        name: what messages and tables call it.

    Raises:
        InvalidArgument: no format, or no table memory.
        NoSpace, OutOfMemory: there is no memory for the root.

    Source: ``nvkm/subdev/mmu/vmm.c``.
    """

    def __init__(self, format: Format, memory: TableMemory, name: str = "page table") -> None:
        if not isinstance(format, Format):
            raise InvalidArgument(
                f"PageTable: format {format!r}; pass one of gpuvm.mmu.formats, such as GP100", format
            )
        if not callable(getattr(memory, "allocate", None)):
            raise InvalidArgument(
                f"PageTable: memory {memory!r} cannot allocate tables; pass device.instance_memory", memory
            )
        self.format: Final = format
        self.name: Final = name
        self.start: Final = 0
        self.range: Final = 1 << format.va_bits
        self.page_shifts: Final = format.page_shifts
        self.pages: Final[Mapping[int, frozenset[Aperture]]] = {
            level.shift: level.pages for level in format.levels if level.pages
        }
        self._address_shift: Final = format.page.address_shift
        self._words: Final[dict[tuple[int, Aperture, int, PteFlags], tuple[int, int]]] = {}
        """Of pages that were mapped: words without an address, and where in an address there may be bits."""
        self.counting: Final = Mutex(f"{name}: counting", lockdep.lock_class("vmm_ref"))
        self.mapping: Final = Mutex(f"{name}: mapping", lockdep.lock_class("vmm_map"))
        self.memory: Final = memory
        self._pool: Final = TablePool(memory, name)
        self._root_bytes: Final = format.levels[0].table_bytes
        self.root: Final = self._pool.allocate(self._root_bytes)
        """Where the root is in VRAM."""
        self._closed = False
        try:
            self.core: Final = CorePageTable(
                memory.view, format.layout(), self.root, self.counting, self.mapping
            )
        except BaseException:
            self._pool.free(self.root, self._root_bytes)
            raise
        self.write_all: Final = self.core.write_all
        """``map`` and ``unmap`` what a ``Work`` has. Flags are those that were encoded when it was made."""

    # -- while a bind is prepared

    def get(self, addr: int, range: int, shift: int) -> None:
        """Reference page slots, and bring the tables that are missing; see ``Backend.get``.

        Raises:
            LockdepError: in a fence-signalling section.
        """

        def get(tables: Tables) -> Missing | None:
            with self.counting:
                return self.core.get(addr, range, shift, tables)

        if (missing := get([])) is not None:
            self._with_tables(missing, get)

    def sparse(self, addr: int, range: int, ref: bool) -> None:
        """Make a range sparse by the largest entries that fit, or end that; see ``Backend.sparse``.

        Tables are made only for its ragged edges.

        Raises:
            NotSupported: the format has no sparse entries.
            LockdepError: with ``ref``, in a fence-signalling section.
        """

        def sparse(tables: Tables) -> Missing | None:
            with self.counting, self.mapping:
                return self.core.sparse_ref(addr, range, tables)

        if ref:
            if (missing := sparse([])) is not None:
                self._with_tables(missing, sparse)
            return
        with self.counting, self.mapping:
            freed = self.core.sparse_unref(addr, range)
        self.free_tables(freed)

    def _with_tables(self, missing: Missing, call: Callable[[Tables], Missing | None]) -> None:
        """Call with the tables that are missing, until nobody has changed what is in between."""
        supply = Supply(self._pool)
        try:
            more: Missing | None = missing
            while more is not None:
                supply.adjust(more)
                more = call(supply.tables)
            supply.taken()
        finally:
            supply.release()

    # -- in its job

    def map(
        self,
        addr: int,
        range: int,
        shift: int,
        target: Extent,
        kind: int = 0,
        flags: PteFlags = _NO_FLAGS,
    ) -> None:
        """Write the entries of pages; see ``Backend.map``. Cost: over 10^9 small pages a second."""
        word = self._word(addr, range, shift, target, kind, flags)
        with self.mapping:
            self.core.map(addr, range, shift, word)

    def _word(self, addr: int, range: int, shift: int, target: Extent, kind: int, flags: PteFlags) -> int:
        """The first page's word. What it has besides the address is encoded once."""
        aperture, physical, length = target
        if length != range:
            raise InvalidArgument(
                f"map: the target has {length:#x} bytes, [{addr:#x}, +{range:#x}) another number",
                value=length,
                bound=range,
            )
        constant, mask = self.encoding(shift, aperture, kind, flags)
        if physical & ~mask:
            raise InvalidArgument(
                f"map: physical address {physical:#x} has bits outside {mask:#x}; it must be a "
                "multiple of the page size, and fit the entry",
                value=physical,
                bound=mask,
            )
        return constant | physical >> self._address_shift

    def encoding(self, shift: int, aperture: Aperture, kind: int, flags: PteFlags) -> tuple[int, int]:
        """The word of such a page without its address, and the bits that a physical address may have.

        Raises:
            InvalidArgument: the format cannot say this.
        """
        asked = (shift, aperture, kind, flags)
        known = self._words.get(asked)
        if known is None:
            level = self.format.level_of(shift)
            constant = self.format.pte(level, aperture, 0, kind, flags)
            mask = self.format.address_mask(level, aperture) << self._address_shift
            known = self._words[asked] = (constant, mask)
        return known

    def unmap(self, addr: int, range: int, shift: int) -> None:
        """Write what is below into the entries of pages; see ``Backend.unmap``."""
        with self.mapping:
            self.core.unmap(addr, range, shift)

    # -- in cleanup

    def put(self, addr: int, range: int, shift: int) -> None:
        """Drop references of page slots, and free tables that have none left; see ``Backend.put``."""
        with self.counting:
            freed = self.core.put(addr, range, shift)
        self.free_tables(freed)

    def free_tables(self, freed: list[tuple[int, int]]) -> None:
        """Give back what the core says that nothing points to any more: addresses and bytes."""
        for addr, size in freed:
            self._pool.free(addr, size)

    # -- a bind's calls of one kind at once; the core takes the locks, once

    def get_all(self, work: Work) -> None:
        """``get`` what ``work`` needs. After an error ``work`` knows how far it came.

        Raises:
            GpuvmError: as from ``get``.
        """
        self.core.get_all(work)
        while (slots := work.next_get) is not None:
            self.get(*slots)
            work.got()
            self.core.get_all(work)

    def unget_all(self, work: Work) -> None:
        """``put`` what was got so far."""
        self.free_tables(self.core.unget_all(work))

    # -- at any time

    def translate(self, addr: int) -> Result:
        """Where one address leads, read from the words as the hardware does; see ``Backend.translate``."""
        if not 0 <= addr < self.range:
            return Fault(addr, FaultType.VA_LIMIT_VIOLATION, None, 0)
        state, number, va, _, word, page, reason = self.core.translate(addr)
        level = self.format.levels[number]
        if state == RunState.VALID:
            address, aperture, kind, flags = page
            return Translation(
                addr,
                Aperture(aperture),
                address + addr - va,
                level.shift,
                kind,
                PteFlags(flags),
                level.name,
                word,
            )
        if state == RunState.SPARSE:
            return Sparse(addr, level.shift, level.name, word)
        return Fault(addr, FaultType(reason), level.name, word)

    def walk(self, addr: int) -> tuple[Step, ...]:
        """Every entry that is read to translate ``addr``, decoded; ``gpuvm.mmu.walk.walk``. Locking: none.

        It reads one word after the other: calls meanwhile, that free tables, lead it astray.

        Raises:
            InvalidArgument: the page tables are closed.
        """
        if self._closed:
            raise InvalidArgument("walk: the page tables are closed", value=addr)
        return walk(self.format, self.memory.view, self.root, addr)

    def runs(self, addr: int, range: int) -> Iterator[Run]:
        """What a range leads to; see ``Backend.runs``. Cost: O(runs) in Python."""
        return (run for array in self.run_arrays(addr, range) for run in runs_of(array))

    def run_arrays(self, addr: int, range: int) -> Iterator[NDArray[np.void]]:
        """The same as arrays of ``translation.RUN``, each valid until the next one is asked for.

        Cost: 10^9 small pages a second if they continue each other; holes cost nothing, however long.

        Raises:
            InvalidArgument: the range is empty or leaves the page tables'.
        """
        if not 0 <= addr < addr + range <= self.range:
            raise InvalidArgument(
                f"runs: [{addr:#x}, +{range:#x}) is empty or leaves [0, {self.range:#x})",
                value=(addr, range),
                bound=(0, self.range),
            )
        return self._run_arrays(addr, addr + range)

    def _run_arrays(self, addr: int, end: int) -> Iterator[NDArray[np.void]]:
        array = np.empty(_RUNS_AT_A_TIME, RUN)
        while addr < end:
            count, addr = self.core.runs(addr, end - addr, array)
            yield array[:count]

    # -- the whole

    def tables(self) -> tuple[Table, ...]:
        """All tables, each before those below it. O(tables). Locking: none."""
        return tuple(
            Table(parent, level, va, addr, *counts) for parent, level, va, addr, counts in self.core.tables()
        )

    def sparse_ranges(self) -> list[tuple[int, int]]:
        """Sparse ranges as (address, length), in address order. Locking: none."""
        return self.core.sparse_ranges()

    def check(self) -> None:
        """Compare every word of every table with what it should be, and every count. O(tables).

        Of a page's word, address, kind and flags are known only to who mapped it, and may be anything.

        Raises:
            CheckFailed: with the state.
        """
        with self.counting, self.mapping:
            if message := self.core.check():
                tables = "\n".join(map(str, self.tables()))
                raise CheckFailed(f"{self.name}: {message}\nsparse: {self.sparse_ranges()}\n{tables}")
            self._check_pages()
        self._pool.check()

    def _check_pages(self) -> None:
        for table in filter(lambda table: table.pages, self.tables()):
            level = self.format.levels[table.level]
            place = self.memory.view[table.addr : table.addr + (level.entry_bytes << level.bits)]
            words = place.view("<u8")[:: level.entry_bytes // 8]
            strange = words & np.uint64(level.leaf.mask) == np.uint64(level.leaf.value)
            for pattern in self.format.page_patterns(table.level):
                strange &= words & np.uint64(pattern.mask) != np.uint64(pattern.value)
            for index in np.flatnonzero(strange):
                raise CheckFailed(
                    f"{self.name}: {table}, entry {index}: {int(words[index]):#x} in VRAM, which no page has"
                )

    @property
    def table_count(self) -> int:
        """How many tables there are, the root among them. O(1). Locking: none, but no call under way."""
        return self._pool.tables

    @property
    def table_bytes(self) -> int:
        """Bytes of these tables. As ``table_count``."""
        return self._pool.table_bytes

    def work(self) -> TableWork:
        """What was done to it until now. O(1). Locking: none, but no call under way."""
        made = self._pool.made
        return table_work((*self.core.written(), made, made - self._pool.tables))

    def statistics(self) -> PageTableStatistics:
        """Counts, of now. O(tables). Locking: none."""
        levels, whole = self.core.statistics()
        named = list(zip(self.format.levels, levels, strict=True))
        table_bytes = sum(level.table_bytes * counts[0] for level, counts in named)
        used_bytes = sum(level.entry_bytes * counts[4] for level, counts in named)
        return PageTableStatistics(
            name=self.name,
            mapped={level.shift: counts[1] for level, counts in named if level.pages},
            references=sum(counts[3] for _, counts in named),
            sparse_bytes=whole["sparse_bytes"],
            tables={level.name: counts[0] for level, counts in named},
            table_bytes=table_bytes,
            memory_bytes=self._pool.used,
            sparse={level.shift: counts[2] for level, counts in named if level.sparse_word is not None},
            used=sum(counts[4] for _, counts in named),
            waste=table_bytes - used_bytes,
            written_pages=whole["written_pages"],
            written_clears=whole["written_clears"],
            written_pointers=whole["written_pointers"],
            written_initialised=whole["written_initialised"],
            core_bytes=whole["bytes"],
        )

    def close(self) -> None:
        """Give the root back, and let go of VRAM; see ``Backend.close``."""
        with self.counting, self.mapping:
            self.core.close()
            self._closed = True
        self._pool.free(self.root, self._root_bytes)
