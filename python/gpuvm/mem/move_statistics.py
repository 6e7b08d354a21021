"""What a device has moved, and what for."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from gpuvm.mem.aperture import Domain
from gpuvm.mem.resource import ManagerStatistics


@dataclass(slots=True)
class MoveCounts:
    """The books. Locking: the device's LRU lock."""

    uses: int = 0
    hits: int = 0
    stalls: int = 0
    evictions: int = 0
    swapped_out: int = 0
    bytes_swapped_out: int = 0
    placed: int = 0
    moves: Counter[tuple[Domain, Domain]] = field(default_factory=Counter)
    bytes: Counter[tuple[Domain, Domain]] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Moves:
    """Moves in one direction."""

    source: Domain
    target: Domain
    moves: int
    bytes: int


@dataclass(frozen=True, slots=True)
class DeviceStatistics:
    """A snapshot of one device."""

    name: str
    policy: str
    uses: int
    """Validations, and calls of ``used``."""
    hits: int
    """Of these those that found the object in its first choice."""
    stalls: int
    """Moves that had to wait for a fence."""
    evictions: int
    """Moves that made room for others, or were asked for with ``evict``."""
    swapped_out: int
    bytes_swapped_out: int
    placed: int
    """First placements of objects, which move nothing."""
    moves: tuple[Moves, ...]
    """By direction, those that there were; from CPU also those of objects that were swapped out."""
    managers: tuple[ManagerStatistics, ...]
    objects: int
    """Objects that are alive."""
    dying: int
    """Objects that are gone, whose memory waits for fences."""
    system: int | None
    """Bytes that objects in GART and on the CPU's side may take together."""
    system_used: int
    instance_memory: int
    """Bytes of VRAM that the GPU's own structures take."""

    @property
    def hit_rate(self) -> float:
        """Hits for each use; 1 if there was none."""
        return self.hits / self.uses if self.uses else 1.0

    @property
    def bytes_moved(self) -> int:
        """In all directions."""
        return sum(moves.bytes for moves in self.moves)

    def between(self, source: Domain, target: Domain) -> Moves:
        """Moves from ``source`` to ``target``, perhaps none."""
        found = (moves for moves in self.moves if (moves.source, moves.target) == (source, target))
        return next(found, Moves(source, target, 0, 0))
