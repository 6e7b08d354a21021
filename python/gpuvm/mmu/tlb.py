"""Tlb: translations that the hardware keeps, stale ones included, until it is told to drop them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from gpuvm.errors import CheckFailed, InvalidArgument
from gpuvm.mmu.translation import Fault, Result, Sparse, Translation

Key = tuple[int, int]
"""log2 of a page's size in bytes, and its number: address >> shift."""


class Translates(Protocol):
    """What a Tlb is in front of: page tables, or another Tlb."""

    def translate(self, addr: int) -> Result:
        """Where an address leads now."""


@dataclass(frozen=True, slots=True)
class TlbStatistics:
    """A snapshot of one Tlb."""

    capacity: int
    entries: int
    hits: int
    misses: int
    """Lookups that asked the page tables. Those that faulted are among them."""
    evictions: int
    """Entries that made room for others."""
    flushes: int
    """Invalidations, of a range or of all."""
    useless_flushes: int
    """Of these, those that dropped nothing."""
    dropped: int
    """Entries that flushes dropped."""


class Tlb:
    """A cache of translations in front of page tables, one entry for each page whatever its size.

    Pages and sparse entries are kept, faults are not: what was unmapped goes on being reachable until it is
    flushed, and what is mapped where nothing was is reachable at once. Of pages of several sizes that are
    kept for an address the smallest answers. The entry that was used longest ago makes room for a new one.
    Permissions are kept with the page; ``permitted`` judges by them.

    Locking: none; one task at a time looks or flushes. The page tables may change meanwhile, as on hardware.

    Source: NVIDIA's ``NV_PFB_PRI_MMU_INVALIDATE`` and ``gp100_vmm_flush`` of nouveau for flushing; how real
    TLBs are organised is not published.
    """

    def __init__(self, page_table: Translates, entries: int = 1024) -> None:
        if entries < 1:
            raise InvalidArgument(f"tlb: {entries} entries; it needs one at least", value=entries, bound=1)
        self._page_table = page_table
        self._capacity = entries
        self._entries: OrderedDict[Key, Translation | Sparse] = OrderedDict()
        self._shifts: dict[int, int] = {}
        self._hits = self._misses = self._evictions = 0
        self._flushes = self._useless = self._dropped = 0

    def translate(self, addr: int) -> Result:
        """Where an address leads as far as the hardware knows: from here if it is kept, else from the tables.

        Cost: O(page sizes in use).
        """
        for shift in sorted(self._shifts):
            key = shift, addr >> shift
            entry = self._entries.get(key)
            if entry is not None:
                self._hits += 1
                self._entries.move_to_end(key)
                return _at(entry, addr)
        self._misses += 1
        found = self._page_table.translate(addr)
        if not isinstance(found, Fault):
            self._keep(found)
        return found

    def invalidate(self, addr: int, range: int) -> int:
        """Flush what is kept of ``[addr, addr + range)``; pages that reach into it are dropped as a whole.

        Cost: O(entries), or O(pages in the range) if that is less.

        Returns:
            How many entries were dropped.

        Raises:
            InvalidArgument: the range is empty or begins below 0.
        """
        if addr < 0 or range <= 0:
            raise InvalidArgument(
                f"tlb: invalidate [{addr:#x}, {addr + range:#x}): nothing is there", value=(addr, range)
            )
        return self._flushed(self._overlapping(addr, addr + range))

    def invalidate_all(self) -> int:
        """Flush everything; how many entries were dropped."""
        return self._flushed(list(self._entries))

    def stale(self) -> tuple[Translation | Sparse, ...]:
        """What is kept although the page tables say something else by now. O(entries), counts nothing."""
        now = ((entry, self._page_table.translate(entry.va)) for entry in self._entries.values())
        return tuple(entry for entry, found in now if found != entry)

    def check(self) -> None:
        """Verify every invariant. O(entries).

        Raises:
            CheckFailed: with the state.
        """
        shifts: dict[int, int] = {}
        for (shift, number), entry in self._entries.items():
            shifts[shift] = shifts.get(shift, 0) + 1
            if (entry.shift, entry.va >> shift) != (shift, number):
                raise CheckFailed(f"tlb: page {number:#x} of shift {shift} is kept for {entry}")
        statistics = self.statistics()
        if shifts != self._shifts or statistics.entries > statistics.capacity:
            raise CheckFailed(f"tlb: entries by shift {shifts}, counted as {self._shifts}; {statistics}")
        kept = statistics.entries + statistics.evictions + statistics.dropped
        if kept > statistics.misses or statistics.useless_flushes > statistics.flushes:
            raise CheckFailed(f"tlb: the counts contradict each other: {statistics}")

    def statistics(self) -> TlbStatistics:
        """Counts since the beginning."""
        return TlbStatistics(
            capacity=self._capacity,
            entries=len(self._entries),
            hits=self._hits,
            misses=self._misses,
            evictions=self._evictions,
            flushes=self._flushes,
            useless_flushes=self._useless,
            dropped=self._dropped,
        )

    def _keep(self, found: Translation | Sparse) -> None:
        if len(self._entries) == self._capacity:
            self._remove(next(iter(self._entries)))
            self._evictions += 1
        self._entries[found.shift, found.va >> found.shift] = found
        self._shifts[found.shift] = self._shifts.get(found.shift, 0) + 1

    def _overlapping(self, addr: int, end: int) -> list[Key]:
        """The entries with an address in ``[addr, end)``."""
        return [
            key for shift in self._shifts for key in self._of_shift(shift, addr >> shift, end - 1 >> shift)
        ]

    def _of_shift(self, shift: int, first: int, last: int) -> Iterator[Key]:
        """The entries of one page size with numbers from first to last."""
        if last - first < len(self._entries):
            return (key for key in ((shift, n) for n in range(first, last + 1)) if key in self._entries)
        return (key for key in self._entries if key[0] == shift and first <= key[1] <= last)

    def _flushed(self, keys: list[Key]) -> int:
        for key in keys:
            self._remove(key)
        self._flushes += 1
        self._useless += not keys
        self._dropped += len(keys)
        return len(keys)

    def _remove(self, key: Key) -> None:
        del self._entries[key]
        self._shifts[key[0]] -= 1
        if not self._shifts[key[0]]:
            del self._shifts[key[0]]


def _at(entry: Translation | Sparse, addr: int) -> Translation | Sparse:
    """What the page says about another of its addresses."""
    if isinstance(entry, Sparse):
        return replace(entry, va=addr)
    return replace(entry, va=addr, address=entry.page_address | addr & (1 << entry.shift) - 1)
