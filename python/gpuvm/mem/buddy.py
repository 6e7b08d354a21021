"""Buddy: who has which part of video memory (the kernel's ``struct drm_buddy``)."""

from dataclasses import dataclass
from typing import NamedTuple

from gpuvm._core import Buddy as CoreBuddy
from gpuvm.errors import CheckFailed


class FreeList(NamedTuple):
    """Free blocks of one size."""

    size: int
    """Bytes."""
    dirty: int
    cleared: int
    """Blocks whose bytes are known to be zero."""


@dataclass(frozen=True, slots=True)
class BuddyStatistics:
    """A snapshot of one allocator. Sizes are bytes."""

    size: int
    block: int
    free_bytes: int
    """Cleared or not."""
    cleared_bytes: int
    """Free and known to be zero."""
    largest_free: int
    """Size of the largest free block."""
    allocated_blocks: int
    splits: int
    merges: int
    forced_merges: int
    """Regions of unlike blocks that became one dirty block."""
    bytes: int
    """Memory reserved for the allocator itself; the system hands it out as it is touched."""
    free_lists: tuple[FreeList, ...]
    """For each size of blocks, smallest first."""

    @property
    def fragmentation(self) -> float:
        """1 - largest free block / free bytes, 0 when all that is free is one block."""
        return 1 - self.largest_free / self.free_bytes if self.free_bytes else 0.0


class Buddy(CoreBuddy):
    """Blocks of ``[0, size)``: powers of two at multiples of their size, cleared and dirty ones kept apart.

    - memory: ``alloc``, ``free``, ``trim``
    - clear state: ``dirty``, ``reset_clear``; all memory is dirty at first
    - looking: ``size``, ``block``, ``free_bytes``, ``cleared_bytes``, ``statistics``, ``check``

    A free block is merged with its buddy as soon as that is free and of the same state. Addresses and sizes
    are bytes. What it needs for itself, about 2.2 bytes for each ``block`` of ``size``, is reserved once and
    touched as it is used.

    Locking: calls are atomic, each under the interpreter's lock.

    Args:
        size: bytes, a multiple of ``block``; need not be a power of two.
        block: the smallest block; a power of two from 4096 on.

    EINVAL: anything else. ENOMEM: no memory for the allocator itself.

    Source: ``drm_buddy_init``.
    """

    def check(self) -> None:
        """Test every invariant; CheckFailed says which one is broken. O(size / block).

        Blocks tile the memory; no two free buddies of one state are left unmerged; free lists and counts
        agree.
        """
        broken = self._check()
        if broken is not None:
            raise CheckFailed(f"{broken}\n{self.statistics()}")

    def statistics(self) -> BuddyStatistics:
        """Counts and sizes, of now. O(log size)."""
        numbers, orders = self._statistics()
        lists = (FreeList(self.block << order, *counts) for order, counts in enumerate(orders))
        return BuddyStatistics(free_lists=tuple(lists), **numbers)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.size:#x} bytes, {self.free_bytes:#x} free>"
