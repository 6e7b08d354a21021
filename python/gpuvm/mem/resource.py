"""Resources: what physical memory an object has, and the managers that it comes from (``ttm_resource.c``)."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from gpuvm.errors import CheckFailed
from gpuvm.mem import faults
from gpuvm.mem.aperture import Aperture, Domain, Extent
from gpuvm.mem.placement import PAGE, Place, Placement

if TYPE_CHECKING:
    from gpuvm.mem.gem import GemObject

PRIORITIES: Final = 4
"""Lower ones are evicted first (``TTM_MAX_BO_PRIORITY``)."""


class Allocator(Protocol):
    """What hands out addresses: ``Buddy`` for VRAM, ``PageAllocator`` for GART."""

    @property
    def free_bytes(self) -> int:
        """Bytes that are free."""

    def alloc(
        self,
        size: int,
        *,
        min_block: int = PAGE,
        first: int = 0,
        last: int | None = None,
        contiguous: bool = False,
        clear: bool = False,
        top_down: bool = False,
    ) -> list[tuple[int, int]]:
        """Blocks as (address, size). Raises NoSpace."""

    def free(self, addr: int, size: int, cleared: bool = False) -> None:
        """Take a block back; ``cleared``: it holds nothing but zeros."""

    def check(self) -> None:
        """Verify it."""


class Resource:
    """The physical memory of one object, or its place among the objects that have none, on the CPU's side.

    Attributes:
        manager: where it comes from.
        place: what was asked for.
        size: bytes.
        extents: its addresses, in the order of the object's bytes; none on the CPU's side.
        priority: the object's; objects of a lower one are evicted first.
        name: the object's, for policies and reports.

    Source: ``struct ttm_resource``.
    """

    __slots__ = (
        "__weakref__",
        "_owner",
        "best_of",
        "extents",
        "manager",
        "name",
        "place",
        "priority",
        "size",
    )

    def __init__(
        self, manager: ResourceManager, place: Place, size: int, extents: tuple[Extent, ...]
    ) -> None:
        self.manager: Final = manager
        self.place: Final = place
        self.size: Final = size
        self.extents: Final = extents
        self.priority = 0
        self.name = ""
        self.best_of: Placement | None = None
        """A placement of which it was seen that this is its first place."""
        self._owner: weakref.ref[GemObject] | None = None

    @property
    def domain(self) -> Domain:
        """Whose memory it is."""
        return self.manager.domain

    @property
    def owner(self) -> GemObject | None:
        """The object that lies here, or is about to; None if it is gone, or there is none."""
        return None if self._owner is None else self._owner()

    def belongs_to(self, obj: GemObject) -> None:
        """It is for ``obj``."""
        self._owner = weakref.ref(obj)
        self.priority, self.name = obj.priority, obj.name

    def compatible(self, place: Place) -> bool:
        """Whether it is as ``place`` asks (``ttm_resource_compatible``)."""
        if place.domain != self.domain:
            return False
        if place.contiguous and len(self.extents) > 1:
            return False
        if place.first == 0 and place.last is None:
            return True
        first, last = place.window(self.manager.size)
        return all(first <= extent.addr and extent.addr + extent.range <= last for extent in self.extents)

    def intersects(self, place: Place) -> bool:
        """Whether giving it up helps who wants ``place`` (``ttm_resource_intersects``)."""
        if place.domain != self.domain:
            return False
        first, last = place.window(self.manager.size)
        return any(extent.addr < last and first < extent.addr + extent.range for extent in self.extents)

    def __repr__(self) -> str:
        extents = "".join(f" [{addr:#x}, {addr + range:#x})" for _, addr, range in self.extents)
        return f'<Resource "{self.name}" {self.size:#x} in {self.domain.name}{extents}>'


@dataclass(frozen=True, slots=True)
class ManagerStatistics:
    """A snapshot of one manager."""

    domain: Domain
    size: int | None
    """Bytes that there are; None: no bound of its own."""
    used: int
    """Bytes handed out."""
    resources: int
    evictable: int
    """Resources in the LRU lists."""
    pinned: int


class ResourceManager:
    """The memory of one domain, and the objects in it from the least to the most recently used.

    A resource in use is in one list: that of its priority, or the pinned ones, which nobody evicts.

    Locking: the device's LRU lock.

    Args:
        domain: which.
        aperture: whose its addresses are, None if it has none: then ``alloc`` always succeeds.
        allocator: what hands them out.
        size: bytes.

    Source: ``struct ttm_resource_manager``.
    """

    def __init__(
        self,
        domain: Domain,
        aperture: Aperture | None = None,
        allocator: Allocator | None = None,
        size: int = 0,
    ) -> None:
        self.domain: Final = domain
        self.aperture: Final = aperture
        self.allocator: Final = allocator
        self.size: Final = size
        self._resources: dict[Resource, None] = {}
        self._lru: Final = tuple(OrderedDict[Resource, None]() for _ in range(PRIORITIES))
        self._pinned: dict[Resource, None] = {}
        self._used = 0

    # -- memory

    def alloc(
        self, size: int, place: Place, *, align: int = PAGE, clear: bool = False, top_down: bool = False
    ) -> Resource:
        """Memory for ``size`` bytes, in no list yet (``ttm_resource_alloc``). Cost: that of the allocator.

        Raises:
            NoSpace: it does not fit now; see ``could_fit``.
            OutOfMemory: a test wants so.
        """
        faults.may_fail("resource")
        extents: tuple[Extent, ...] = ()
        if self.allocator is not None and self.aperture is not None:
            first, last = place.window(self.size)
            blocks = self.allocator.alloc(
                size,
                min_block=align,
                first=first,
                last=last,
                contiguous=place.contiguous,
                clear=clear,
                top_down=top_down,
            )
            extents = tuple(Extent(self.aperture, addr, range) for addr, range in blocks)
        resource = Resource(self, place, size, extents)
        self._resources[resource] = None
        self._used += size
        return resource

    def free(self, resource: Resource, *, cleared: bool) -> None:
        """Take back what is in no list. ``cleared``: there are only zeros in it (``ttm_resource_free``)."""
        del self._resources[resource]
        self._used -= resource.size
        if self.allocator is not None:
            for extent in resource.extents:
                self.allocator.free(extent.addr, extent.range, cleared)

    def could_fit(self, size: int, place: Place, align: int) -> bool:
        """Whether it would fit if nothing else were there; ``size`` is a multiple of ``align``."""
        if self.allocator is None:
            return True
        first, last = place.window(self.size)
        return size <= last - -(-first // align) * align

    # -- lists

    def add(self, resource: Resource) -> None:
        """Put it in its list, as the most recently used (``ttm_resource_add_bulk_move``)."""
        self._lru[resource.priority][resource] = None

    def remove(self, resource: Resource) -> None:
        """Take it out of its list."""
        del self._lru[resource.priority][resource]

    def bump(self, resource: Resource) -> None:
        """It is the most recently used now, unless it is pinned (``ttm_resource_move_to_lru_tail``)."""
        if resource not in self._pinned:
            self._lru[resource.priority].move_to_end(resource)

    def pin(self, resource: Resource) -> None:
        """Keep it from being evicted."""
        self.remove(resource)
        self._pinned[resource] = None

    def unpin(self, resource: Resource) -> None:
        """Let it be evicted again."""
        del self._pinned[resource]
        self.add(resource)

    def forget_pin(self, resource: Resource) -> bool:
        """Take it out of the pinned ones; False if it is none of them."""
        if resource not in self._pinned:
            return False
        del self._pinned[resource]
        return True

    def lru(self) -> Iterator[Resource]:
        """Those that may be evicted: lower priorities first, of one the least recently used first."""
        for resources in self._lru:
            yield from resources

    def lru_of(self, priority: int) -> Iterator[Resource]:
        """Those of one priority that may be evicted, the least recently used first."""
        return iter(self._lru[priority])

    def priorities(self) -> tuple[int, ...]:
        """Those that somebody has, lowest first."""
        return tuple(priority for priority, resources in enumerate(self._lru) if resources)

    @property
    def resources(self) -> tuple[Resource, ...]:
        """All that is handed out."""
        return tuple(self._resources)

    def is_pinned(self, resource: Resource) -> bool:
        """Whether nobody evicts it."""
        return resource in self._pinned

    def is_listed(self, resource: Resource) -> bool:
        """Whether it is in a list: of those that may be evicted, or of the pinned ones."""
        return resource in self._pinned or resource in self._lru[resource.priority]

    # -- itself

    def check(self) -> None:
        """Verify that resources are disjoint and inside, and none is in two lists.

        Raises:
            CheckFailed: with the state.
        """
        listed = [*self.lru(), *self._pinned]
        if len(set(listed)) != len(listed) or not self._resources.keys() >= set(listed):
            raise CheckFailed(f"{self!r}: listed {listed!r}, handed out {list(self._resources)!r}")
        for priority, resources in enumerate(self._lru):
            if any(resource.priority != priority for resource in resources):
                raise CheckFailed(f"{self!r}: {list(resources)!r} in the list of priority {priority}")
        if self._used != sum(resource.size for resource in self._resources):
            raise CheckFailed(f"{self!r}: {self._used} bytes used by {list(self._resources)!r}")
        self._check_extents()

    def _check_extents(self) -> None:
        if self.allocator is None:
            return
        self.allocator.check()
        if self.allocator.free_bytes != self.size - self._used:
            raise CheckFailed(f"{self!r}: {self.allocator!r} has other bytes free")
        end = 0
        for extent in sorted(extent for resource in self._resources for extent in resource.extents):
            if extent.addr < end or extent.addr + extent.range > self.size:
                raise CheckFailed(f"{self!r}: {extent} overlaps one that ends at {end:#x}, or leaves it")
            end = extent.addr + extent.range
        for resource in self._resources:
            if sum(extent.range for extent in resource.extents) != resource.size:
                raise CheckFailed(f"{resource!r} has extents of another size")

    def statistics(self) -> ManagerStatistics:
        """How much is in use."""
        evictable = sum(map(len, self._lru))
        size = self.size if self.allocator is not None else None
        return ManagerStatistics(
            self.domain, size, self._used, len(self._resources), evictable, len(self._pinned)
        )

    def __repr__(self) -> str:
        return f"<ResourceManager {self.domain.name} {self._used:#x} of {self.size:#x} used>"
