"""Placements: where an object may lie, in the order of preference (``struct ttm_placement``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gpuvm.errors import InvalidArgument
from gpuvm.mem.aperture import Domain

PAGE: Final = 4096
"""Bytes: sizes, addresses and windows of memory are multiples of it."""


@dataclass(frozen=True, slots=True)
class Place:
    """One domain where an object may lie, and where in it.

    Args:
        domain: a single one.
        first: lowest physical address.
        last: end of the window, exclusive; None: end of the memory.
        contiguous: in one extent.
        fallback: only for an object that gets none of the other places, evicting others included.

    Raises:
        InvalidArgument: several domains or none; a window that is empty or cuts pages.

    Source: ``struct ttm_place``.
    """

    domain: Domain
    first: int = 0
    last: int | None = None
    contiguous: bool = False
    fallback: bool = False

    def __post_init__(self) -> None:
        if self.domain not in tuple(Domain):
            raise InvalidArgument(f"Place: {self.domain!r}; pass one Domain", self.domain, tuple(Domain))
        end = self.first + PAGE if self.last is None else self.last
        if (self.first | end) % PAGE:
            raise InvalidArgument(
                f"Place: window from {self.first:#x} to {self.last!r}; pass whole pages of {PAGE:#x}",
                (self.first, self.last),
                PAGE,
            )
        if not 0 <= self.first < end:
            raise InvalidArgument(
                f"Place: window [{self.first:#x}, {end:#x}); pass whole pages from 0 on, last beyond first",
                (self.first, self.last),
                PAGE,
            )

    def window(self, size: int) -> tuple[int, int]:
        """First address and end within a memory of ``size`` bytes."""
        return self.first, size if self.last is None else min(self.last, size)


Placement = tuple[Place, ...]
"""Places in the order of preference."""

CPU_PLACE: Final = Place(Domain.CPU)
"""Where everything fits that the quota of system memory has room for."""

_PREFERRED: Final = (Domain.VRAM, Domain.GART, Domain.CPU)
_ALL: Final = Domain.VRAM | Domain.GART | Domain.CPU
_EVICTED: Final[dict[Domain, Placement]] = {
    Domain.VRAM: (Place(Domain.GART), CPU_PLACE),
    Domain.GART: (CPU_PLACE,),
}


def placement_of(domains: Domain) -> Placement:
    """Anywhere in ``domains``: VRAM before GART before CPU, whatever is free first.

    Raises:
        InvalidArgument: no domain, or what is none.

    Source: ``nouveau_bo_placement_set``.
    """
    bits = _bits(domains)
    if not bits or bits & ~int(_ALL):
        raise InvalidArgument(f"placement_of: {domains!r}; pass a Domain, or several of them", domains, _ALL)
    return tuple(Place(domain) for domain in _PREFERRED if domain & bits)


def _bits(domains: object) -> int:
    return int(domains) if isinstance(domains, int) else 0


def check_placement(placement: object) -> Placement:
    """``placement``, if it is one.

    Raises:
        InvalidArgument: it is no tuple of places, such as a Domain.
    """
    if not isinstance(placement, tuple | list) or not all(isinstance(place, Place) for place in placement):
        raise InvalidArgument(
            f"placement {placement!r}; pass places, such as placement_of(Domain.VRAM) or (Place(...),)",
            placement,
        )
    return tuple(placement)


def eviction_placement(domain: Domain) -> Placement:
    """Where an object goes that is evicted from ``domain``; nowhere from CPU (``nouveau_bo_evict_flags``)."""
    return _EVICTED.get(domain, ())
