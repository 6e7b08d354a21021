"""What an address space says of itself."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Statistics:
    """A snapshot of one address space. Sizes are bytes; counts of operations are of those applied."""

    name: str
    mappings: int
    """Without the kernel's node."""
    mapped_bytes: int
    vm_bos: int
    extobjs: int
    evicted: int
    """On the list of those to be brought back."""
    deferred: int
    """VmBos that wait for ``bo_deferred_cleanup``."""
    regions: int
    holes: int
    free_bytes: int
    largest_hole: int
    maps: int
    remaps: int
    unmaps: int
    splits: int
    """Remaps that left two pieces."""
    merges: int
    """Mappings that a merging map took in."""
    generation: int
    preallocated: int
    """Changes that room is promised for."""
    tree_height: int
    tree_leaves: int
    tree_fill: float
    """Used part of the leaves, 0 to 1."""
    bytes: int
    """Memory of the core."""

    @property
    def fragmentation(self) -> float:
        """1 - largest hole / free bytes, 0 when all free room is one hole."""
        return 1 - self.largest_hole / self.free_bytes if self.free_bytes else 0.0
