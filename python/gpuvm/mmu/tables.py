"""Memory for tables: where it comes from, small tables that share a page, and the supply of one call."""

from __future__ import annotations

from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from gpuvm.errors import CheckFailed, InvalidArgument, OutOfMemory
from gpuvm.sync import lockdep
from gpuvm.sync.mutex import Mutex

PAGE = 4096
"""The least that a ``TableMemory`` gives."""


Tables = list[tuple[int, list[int]]]
"""Table memory: sizes in bytes, and addresses."""

Missing = list[tuple[int, int]]
"""Sizes in bytes, and how many of each are missing."""


class TableMemory(Protocol):
    """VRAM for the GPU's own structures (``gpuvm.mem.InstanceMemory``)."""

    @property
    def view(self) -> NDArray[np.uint8]:
        """All of VRAM by physical address: contiguous, writable, and where it is for ever."""

    def allocate(self, size: int) -> int:
        """Address of ``size`` bytes, a multiple of ``size``: a power of two, 4096 at least.

        They may hold anything.

        Raises:
            OutOfMemory: nothing was changed.
        """

    def free(self, addr: int, size: int) -> None:
        """Give back what ``allocate`` gave. Cannot fail."""


class TablePool:
    """Tables of any power of two bytes; those smaller than a page share pages.

    A page is given back when the last table in it is.

    Locking: none is the caller's duty; memory is allocated while no lock is held. Cost: O(1).

    Source: ``nvkm_mmu_ptc_get`` and its sub-allocation, ``nvkm_mmu_ptp_get``.
    """

    def __init__(self, memory: TableMemory, name: str) -> None:
        self.memory: Final = memory
        self._name: Final = name
        self._lock: Final = Mutex(f"{name}: shared pages", lockdep.lock_class("table_pool"))
        self._pages: Final[dict[int, tuple[int, set[int]]]] = {}
        """Shared pages: size of the tables in it, and which are free."""
        self._spare: Final[dict[int, dict[int, None]]] = {}
        """By size, the pages that have a free table, in order of appearance."""
        self._used = 0
        self._tables = 0
        self._table_bytes = 0
        self.made = 0
        """Tables that were ever allocated."""

    @property
    def tables(self) -> int:
        """How many are allocated."""
        return self._tables

    @property
    def table_bytes(self) -> int:
        """How long they are together."""
        return self._table_bytes

    @property
    def used(self) -> int:
        """Bytes of memory taken, the free part of shared pages included."""
        return self._used

    def allocate(self, size: int) -> int:
        """Address of a table of ``size`` bytes, a multiple of ``size``. Its content is anything.

        Raises:
            OutOfMemory: nothing was changed.
        """
        if size >= PAGE:
            addr = self.memory.allocate(size)
            with self._lock:
                self._used += size
                self._count(1, size)
            return addr
        with self._lock:
            addr = self._take(size)
        if addr >= 0:
            return addr
        page = self.memory.allocate(PAGE)
        with self._lock:
            addr = self._take(size)
            is_needed = addr < 0  # unless somebody gave a table back meanwhile
            if is_needed:
                self._used += PAGE
                self._pages[page] = (size, set(range(page, page + PAGE, size)))
                self._spare.setdefault(size, {})[page] = None
                addr = self._take(size)
        if not is_needed:
            self.memory.free(page, PAGE)
        return addr

    def _take(self, size: int) -> int:
        """A free table of a shared page, -1 without one."""
        pages = self._spare.get(size)
        if not pages:
            return -1
        page = next(iter(pages))
        free = self._pages[page][1]
        addr = min(free)
        free.remove(addr)
        if not free:
            del pages[page]
        self._count(1, size)
        return addr

    def _count(self, tables: int, size: int) -> None:
        self._tables += tables
        self.made += max(tables, 0)
        self._table_bytes += tables * size

    def free(self, addr: int, size: int) -> None:
        """Give a table back.

        Raises:
            InvalidArgument: no such table was allocated.
        """
        page = addr - addr % PAGE
        with self._lock:
            is_free = size >= PAGE or self._share_back(page, addr, size)
            self._count(-1, size)
            if not is_free:
                return
            if size < PAGE:
                addr, size = page, PAGE
            self._used -= size
        self.memory.free(addr, size)

    def _share_back(self, page: int, addr: int, size: int) -> bool:
        """Take a table back into its page; whether the whole page is free then, and forgotten."""
        tables, free = self._pages.get(page, (0, set()))
        if tables != size or addr % size or addr in free:
            raise InvalidArgument(
                f"{self._name}: no table of {size} bytes is in use at {addr:#x}", value=addr
            )
        free.add(addr)
        pages = self._spare.setdefault(size, {})
        if len(free) * size < PAGE:
            pages[page] = None
            return False
        pages.pop(page, None)
        del self._pages[page]
        return True

    def check(self) -> None:
        """Verify that pages and their free tables fit together. O(shared pages).

        Raises:
            CheckFailed: with the page.
        """
        with self._lock:
            for page, (size, free) in self._pages.items():
                whole = set(range(page, page + PAGE, size))
                listed = page in self._spare.get(size, {})
                if not free < whole or listed != bool(free):
                    raise CheckFailed(
                        f"{self._name}: page {page:#x} of {size}-byte tables, listed {listed}, free: "
                        f"{sorted(map(hex, free))}"
                    )
            listed_pages = {page for pages in self._spare.values() for page in pages}
            if not listed_pages <= self._pages.keys():
                raise CheckFailed(
                    f"{self._name}: unknown pages are listed: {listed_pages - self._pages.keys()}"
                )


class Supply:
    """Table memory for one call, which is allocated before its locks are taken.

    Somebody else may bring the same tables meanwhile, or take some away; then there is another round.
    """

    def __init__(self, pool: TablePool) -> None:
        self._pool = pool
        self._tables: dict[int, list[int]] = {}

    def adjust(self, missing: Missing) -> None:
        """Have just what is ``missing``: sizes in bytes, and how many of each.

        Raises:
            OutOfMemory: ``release`` gives back what there is. Nothing is allocated, and nobody evicted, for
                more than all of VRAM.
        """
        wanted = dict(missing)
        size, bound = sum(size * count for size, count in missing), len(self._pool.memory.view)
        if size > bound:
            raise OutOfMemory(
                f"page tables: {size:#x} bytes of tables are missing, VRAM has {bound:#x}; pass a shorter "
                "range, or larger pages",
                value=size,
                bound=bound,
            )
        for size in self._tables.keys() | wanted.keys():
            tables = self._tables.setdefault(size, [])
            for _ in range(wanted.get(size, 0) - len(tables)):
                tables.append(self._pool.allocate(size))
            while len(tables) > wanted.get(size, 0):
                self._pool.free(tables.pop(), size)

    @property
    def tables(self) -> Tables:
        """Sizes in bytes, and addresses."""
        return list(self._tables.items())

    def taken(self) -> None:
        """All of it is somebody else's now."""
        self._tables.clear()

    def release(self) -> None:
        """Give back what nobody took."""
        self.adjust([])
