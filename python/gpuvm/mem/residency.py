"""Residency: which object lies where, and who would go first, under one lock (``ttm_device``'s LRU lock)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final

from gpuvm.errors import CheckFailed, NoSpace
from gpuvm.mem import faults
from gpuvm.mem.aperture import Domain
from gpuvm.mem.move_statistics import DeviceStatistics, MoveCounts, Moves
from gpuvm.mem.placement import PAGE, Place
from gpuvm.mem.policy import EvictionPolicy
from gpuvm.mem.resource import Resource, ResourceManager
from gpuvm.sync import lockdep
from gpuvm.sync.mutex import Mutex

if TYPE_CHECKING:
    from gpuvm.mem.gem import Backing, GemObject

SYSTEM_DOMAINS: Final = Domain.GART | Domain.CPU
"""Whose objects take system pages."""


class Residency:
    """The managers, their LRU lists, the policy, the quota of system pages, and the books about moves.

    An object that lies nowhere is new or swapped out: it takes no system pages.

    Locking: each call takes ``lock`` for a few steps, in which nothing blocks or is called back. It comes
    after reservations; within it they are only tried. Where an object lies changes with its reservation held.

    Args:
        name: the device's.
        managers: one for each domain.
        policy: who goes first.
        system: bytes that objects in GART and on the CPU's side may take together; None: any number.
    """

    def __init__(
        self, name: str, managers: tuple[ResourceManager, ...], policy: EvictionPolicy, system: int | None
    ) -> None:
        self.lock: Final = Mutex(f"{name} lru_lock", lockdep.lock_class("lru_lock"))
        self.managers: Final = {manager.domain: manager for manager in managers}
        self.policy: Final = policy
        self.system: Final = system
        self.counts: Final = MoveCounts()
        self.given_back = 0
        """How often memory or system pages became free."""
        self._system_used = 0
        self._on_cpu: dict[Backing, Resource] = {}
        """An object on the CPU's side has no ``resource``."""
        self._arriving: dict[Resource, None] = {}
        """What was obtained for an object that has not moved there yet."""

    # -- memory

    def where(self, obj: GemObject) -> Resource | None:
        """Where ``obj`` lies, be it on the CPU's side; None if nowhere. Locking: the object's reservation."""
        return obj.resource or self._on_cpu.get(obj.backing)

    def alloc(
        self, size: int, place: Place, *, align: int = PAGE, clear: bool = False, top_down: bool = False
    ) -> Resource | None:
        """Memory for no object; None if there is none free.

        Raises:
            OutOfMemory: a test wants so.
        """
        with self.lock:
            return self._alloc(size, place, align=align, clear=clear, top_down=top_down)

    def obtain(self, obj: GemObject, place: Place) -> Resource | None:
        """Memory for ``obj`` and the system pages that it takes there and does not take now; None if short.

        Locking: the object's reservation.

        Raises:
            OutOfMemory: a test wants so.
        """
        pages = self._further_system_pages(obj, place.domain)
        if pages:
            faults.may_fail("system pages")
        with self.lock:
            if self._is_short(pages):
                return None
            resource = self._alloc(obj.size, place, align=obj.align)
            if resource is not None:
                self._system_used += pages
                resource.belongs_to(obj)
                self._arriving[resource] = None
            return resource

    def abandon(self, obj: GemObject, resource: Resource) -> None:
        """Give back what ``obtain`` returned, since ``obj`` did not move."""
        with self.lock:
            self._system_used -= self._further_system_pages(obj, resource.domain)
            self._arriving.pop(resource, None)
            self._free(resource, cleared=False)

    def short_of_system_pages(self, obj: GemObject, place: Place) -> bool:
        """Whether it is the quota that has no room for ``obj``."""
        with self.lock:
            return self._is_short(self._further_system_pages(obj, place.domain))

    def takes_system_pages(self, backing: Backing) -> bool:
        """Whether the quota gets some back when its object ends."""
        resource = backing.resource or self._on_cpu.get(backing)
        return resource is not None and resource.domain in SYSTEM_DOMAINS

    def could_fit(self, size: int, place: Place, align: int) -> bool:
        """Whether so much would fit if nothing else were there."""
        if place.domain in SYSTEM_DOMAINS and self.system is not None and size > self.system:
            return False
        return self.managers[place.domain].could_fit(size, place, align)

    def free(self, resource: Resource, *, cleared: bool) -> None:
        """Give back what no object lies in; ``cleared``: it holds nothing but zeros."""
        with self.lock:
            self._free(resource, cleared=cleared)

    def _free(self, resource: Resource, *, cleared: bool) -> None:
        resource.manager.free(resource, cleared=cleared)
        self.given_back += 1

    def _alloc(
        self, size: int, place: Place, *, align: int, clear: bool = False, top_down: bool = False
    ) -> Resource | None:
        try:
            return self.managers[place.domain].alloc(size, place, align=align, clear=clear, top_down=top_down)
        except NoSpace:
            return None

    def _further_system_pages(self, obj: GemObject, domain: Domain) -> int:
        now = self.where(obj)
        takes = now is not None and now.domain in SYSTEM_DOMAINS
        return obj.size if domain in SYSTEM_DOMAINS and not takes else 0

    def _is_short(self, pages: int) -> bool:
        return self.system is not None and pages > 0 and self._system_used + pages > self.system

    # -- who lies where

    def settle(self, obj: GemObject, new: Resource | None, *, evict: bool, stalled: bool) -> None:
        """``obj`` has moved to ``new``, or nowhere: it is swapped out then.

        Where it was keeps a copy of its bytes. Locking: the object's reservation.
        """
        with self.lock:
            old = self.where(obj)
            self._count(obj, old, new, evict=evict, stalled=stalled)
            if old is not None:
                self._leave(old)
                self._on_cpu.pop(obj.backing, None)
                self._free(old, cleared=False)
                if old.domain in SYSTEM_DOMAINS and (new is None or new.domain not in SYSTEM_DOMAINS):
                    self._system_used -= obj.size
            obj.resource, obj.swapped = new, new is None
            if new is not None:
                del self._arriving[new]
                new.manager.add(new)
                self.policy.added(new)
                if new.domain == Domain.CPU:
                    obj.resource, self._on_cpu[obj.backing] = None, new

    def _count(
        self, obj: GemObject, old: Resource | None, new: Resource | None, *, evict: bool, stalled: bool
    ) -> None:
        counts = self.counts
        counts.evictions += evict
        counts.stalls += stalled
        if new is None:
            counts.swapped_out += 1
            counts.bytes_swapped_out += obj.size
        if old is None and not obj.swapped:
            counts.placed += 1
            return
        source = Domain.CPU if old is None else old.domain
        target = Domain.CPU if new is None else new.domain
        if source != target or target != Domain.CPU:
            counts.moves[source, target] += 1
            counts.bytes[source, target] += obj.size

    def release(self, backing: Backing) -> None:
        """Its object is gone, and its bytes with it."""
        with self.lock:
            resource = backing.resource or self._on_cpu.pop(backing, None)
            backing.resource = None
            if resource is None:
                return
            if not resource.manager.forget_pin(resource):
                self._leave(resource)
            if resource.domain in SYSTEM_DOMAINS:
                self._system_used -= resource.size
            self._free(resource, cleared=True)

    def _leave(self, resource: Resource) -> None:
        resource.manager.remove(resource)
        self.policy.removed(resource)

    def pin(self, resource: Resource) -> None:
        """Offer it to nobody."""
        with self.lock:
            resource.manager.pin(resource)
            self.policy.removed(resource)

    def unpin(self, resource: Resource) -> None:
        """Offer it again, as the most recently used."""
        with self.lock:
            resource.manager.unpin(resource)
            self.policy.added(resource)

    def use(self, resource: Resource, *, hit: bool) -> None:
        """Note a use; ``hit``: it lay where it is wanted most."""
        self.use_all([(resource, hit)])

    def use_all(self, uses: Iterable[tuple[Resource, bool]]) -> None:
        """``use`` several, in this order."""
        counts, used = self.counts, self.policy.used
        with self.lock:
            for resource, hit in uses:
                counts.uses += 1
                counts.hits += hit
                resource.manager.bump(resource)
                used(resource)

    def first(
        self, domain: Domain, suits: Callable[[Resource, GemObject], bool]
    ) -> tuple[Resource, GemObject] | None:
        """The first that ``suits``, in the policy's order, lower priorities first.

        ``suits`` is called with the lock held: it may try a reservation, and no more.
        """
        with self.lock:
            for resource in self._in_order(self.managers[domain]):
                obj = resource.owner
                if obj is not None and suits(resource, obj):
                    return resource, obj
        return None

    def arriving(self, place: Place) -> list[GemObject]:
        """Objects for which memory at ``place`` was obtained, and which have not moved there yet."""
        with self.lock:
            owners = [resource.owner for resource in self._arriving if resource.intersects(place)]
            return [obj for obj in owners if obj is not None]

    def _in_order(self, manager: ResourceManager) -> Iterator[Resource]:
        for priority in manager.priorities():
            yield from self.policy.candidates(manager, priority)

    # -- itself

    def resources(self) -> list[Resource]:
        """All that is handed out."""
        with self.lock:
            return [resource for manager in self.managers.values() for resource in manager.resources]

    def evictable(self, domain: Domain) -> list[Resource]:
        """Those of ``domain`` that are not pinned."""
        with self.lock:
            return list(self.managers[domain].lru())

    def owners(self) -> list[GemObject]:
        """The objects that lie somewhere."""
        return [obj for resource in self.resources() if (obj := resource.owner) is not None]

    def check(self) -> None:
        """Verify the managers, and that the policy and the quota agree with them.

        Raises:
            CheckFailed: with the state.
        """
        with self.lock:
            for manager in self.managers.values():
                manager.check()
                self.policy.check(manager)
            self._check_arriving()
            charged = sum(self.managers[domain].statistics().used for domain in SYSTEM_DOMAINS)
            if self._system_used != charged or (self.system is not None and charged > self.system):
                raise CheckFailed(
                    f"system pages: {self._system_used} bytes counted, {charged} in use, quota {self.system}"
                )
            on_cpu = self.managers[Domain.CPU].resources
            known = {resource: backing.owner for backing, resource in self._on_cpu.items()}
            foreign = [
                obj for resource, owner in known.items() if owner and (obj := owner()) != resource.owner
            ]
            if known.keys() != set(on_cpu) or len(self._on_cpu) != len(on_cpu) or foreign:
                raise CheckFailed(f"on the CPU's side {self._on_cpu!r}, listed {on_cpu!r}")

    def _check_arriving(self) -> None:
        for resource in self._arriving:
            manager = resource.manager
            if resource not in manager.resources or manager.is_listed(resource):
                raise CheckFailed(f"{resource!r} is arriving, but listed or not handed out")

    def statistics(self, *, name: str, objects: int, dying: int, instance_memory: int) -> DeviceStatistics:
        """The books, with what others count."""
        with self.lock:
            counts = self.counts
            return DeviceStatistics(
                name=name,
                policy=self.policy.name,
                uses=counts.uses,
                hits=counts.hits,
                stalls=counts.stalls,
                evictions=counts.evictions,
                swapped_out=counts.swapped_out,
                bytes_swapped_out=counts.bytes_swapped_out,
                placed=counts.placed,
                moves=tuple(
                    Moves(source, target, moves, counts.bytes[source, target])
                    for (source, target), moves in counts.moves.items()
                ),
                managers=tuple(manager.statistics() for manager in self.managers.values()),
                objects=objects,
                dying=dying,
                system=self.system,
                system_used=self._system_used,
                instance_memory=instance_memory,
            )
