"""Eviction: making room for one object by moving others, and by swapping out (``ttm_bo_evict_first``)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property, partial
from typing import TYPE_CHECKING, Final, Protocol

from gpuvm.errors import InvalidArgument, OutOfMemory
from gpuvm.mem.aperture import Domain
from gpuvm.mem.delayed_delete import DelayedDelete
from gpuvm.mem.move import Mover
from gpuvm.mem.placement import Place, eviction_placement
from gpuvm.mem.residency import Residency
from gpuvm.mem.resource import Resource
from gpuvm.mem.swap import page_out
from gpuvm.sync.resv import Resv

if TYPE_CHECKING:
    from gpuvm.mem.gem import Backing, GemObject

SWAPPED_FIRST: Final = (Domain.CPU, Domain.GART)
"""Whose objects are swapped out, those that nobody has to be told of before others."""


class Reserved(Protocol):
    """Anything with a reservation."""

    @property
    def resv(self) -> Resv:
        """The same one for as long as it lives."""


class WorkingSet(Protocol):
    """What memory management needs of an ``Exec``: the objects that it locks are used by one submission."""

    def claimed(self) -> Iterator[Reserved]:
        """One object for each reservation that was asked for."""

    def holds(self, obj: GemObject) -> bool:
        """Whether the object's reservation is held, asked for or not."""

    def lock_obj(self, obj: GemObject) -> None:
        """Lock it; may raise Contended. InvalidArgument outside of the loop."""

    def unlock_obj(self, obj: GemObject) -> None:
        """Unlock it ahead of the others."""


class Claims:
    """Which reservations are held for the sake of whom, and so which objects must stay.

    Args:
        obj: what room is made for, its reservation held; None: for the GPU's own structures.
        exec: what locked it, if it was an Exec.
    """

    def __init__(self, obj: GemObject | None, exec: WorkingSet | None) -> None:
        self.exec: Final = exec
        self._obj: Final = obj

    @cached_property
    def _claimed(self) -> tuple[set[int], set[int]]:
        """What the Exec locked: objects, and reservations. Asked for only if memory is short."""
        claimed = [] if self.exec is None else list(self.exec.claimed())
        return {id(one) for one in claimed}, {id(one.resv) for one in claimed}

    def keeps(self, victim: GemObject) -> bool:
        """Whether ``victim`` is in the working set.

        A reservation may be that of an address space, held for objects that nobody named: of those that share
        it, whatever has been given to an address space counts.
        """
        objects, resvs = self._claimed
        if victim is self._obj or id(victim) in objects:
            return True
        return id(victim.resv) in resvs and len(victim.vms) > 0

    def holds(self, victim: GemObject) -> bool:
        """Whether its reservation is held, by way of another object or from an attempt before."""
        if self._obj is not None and victim.resv is self._obj.resv:
            return True
        return self.exec is not None and self.exec.holds(victim)

    def take(self, victim: GemObject) -> bool:
        """Have its reservation without waiting, unless it must stay; ``give_back`` it afterwards."""
        return not self.keeps(victim) and (self.holds(victim) or victim.resv.trylock())

    def give_back(self, victim: GemObject) -> None:
        """Unlock what ``take`` locked."""
        if not self.holds(victim):
            victim.resv.unlock()


class Evictor:
    """Finds memory for objects, by moving others if need be.

    Args:
        residency: who lies where.
        mover: what moves them.
        dying: objects that are gone, but not their memory.
    """

    def __init__(self, residency: Residency, mover: Mover, dying: DelayedDelete) -> None:
        self._residency: Final = residency
        self._mover: Final = mover
        self._dying: Final = dying

    def obtain(
        self,
        obj: GemObject,
        place: Place,
        claims: Claims,
        *,
        evicting: bool = False,
        interruptible: bool = False,
    ) -> Resource | None:
        """Memory at ``place`` for ``obj``; None if there is none, even after ``evicting`` who may go.

        Where it is system pages that are short, objects are swapped out in any case, and those that are gone
        waited for.

        Raises:
            GpuvmError: as from ``make_room``.
        """
        while True:
            before = self._residency.given_back
            resource = self._residency.obtain(obj, place)
            if resource is not None:
                return resource
            if self._residency.short_of_system_pages(obj, place):
                made_room = self._free_system_pages(claims, interruptible)
            else:
                made_room = evicting and self.make_room(place, claims, interruptible)
            if not (made_room or (evicting and self._residency.given_back != before)):
                return None

    def make_room(self, place: Place, claims: Claims, interruptible: bool = False) -> bool:
        """Have one object less at ``place``; False if none may go.

        First those that are gone, once their fences have signalled; then the first in the policy's order
        whose reservation is free; then, with an Exec, the first whose reservation is held by somebody else,
        be it because it is just moving in or out.

        Raises:
            Contended: the Exec must begin again.
            Interrupted: ``interruptible``, and the task was interrupted.
            OutOfMemory: the move failed; nothing was changed.

        Source: ``ttm_bo_evict_alloc``.
        """
        return (
            self._dying.wait_for_one(partial(_intersects, place), interruptible)
            or self._evict_unlocked(place, claims, interruptible)
            or self._evict_locked(place, claims, interruptible)
        )

    def evict(self, obj: GemObject, claims: Claims, interruptible: bool = False) -> None:
        """Move ``obj``, whose reservation is held, where evicted objects go (``ttm_bo_evict``).

        For their system pages others may have to be swapped out, if their reservations are free.

        Raises:
            OutOfMemory: there are no system pages for it, or no room for the move; it stays where it is.
            Interrupted: as ``Mover.move``; it stays where it is.
        """
        if not self._move_out(obj, claims, interruptible):
            raise OutOfMemory(
                f"evict: no system pages for the {obj.size:#x} bytes of {obj!r}; raise the quota `system`",
                obj.size,
                self._residency.system,
            )

    def _move_out(self, obj: GemObject, claims: Claims, interruptible: bool) -> bool:
        """``evict``; False if there are no system pages for it."""
        old = self._residency.where(obj)
        places = () if old is None else eviction_placement(old.domain)
        for place in places:
            new = self.obtain(obj, place, claims, interruptible=interruptible)
            if new is not None:
                self.move(obj, new, evict=True, interruptible=interruptible)
                return True
        return not places

    def move(
        self, obj: GemObject, new: Resource, *, evict: bool = False, interruptible: bool = False
    ) -> None:
        """``Mover.move``; after a failure what was obtained is given back."""
        try:
            self._mover.move(obj, new, evict=evict, interruptible=interruptible)
        except BaseException:
            self._residency.abandon(obj, new)
            raise

    # -- victims

    def _evict_unlocked(self, place: Place, claims: Claims, interruptible: bool) -> bool:
        """Evict the first whose reservation is free, or held for the same purpose.

        One that there are no system pages for is passed over, and so are those that are not smaller.
        """
        too_large = math.inf

        def suits(resource: Resource, victim: GemObject) -> bool:
            return resource.size < too_large and resource.intersects(place) and claims.take(victim)

        while (found := self._residency.first(place.domain, suits)) is not None:
            victim = found[1]
            try:
                if self._move_out(victim, claims, interruptible):
                    return True
            finally:
                claims.give_back(victim)
            too_large = victim.size
        return False

    def _evict_locked(self, place: Place, claims: Claims, interruptible: bool) -> bool:
        """Wait for the reservation of the first, and evict it if that still helps."""
        exec = claims.exec
        if exec is None:
            return False

        def suits(resource: Resource, victim: GemObject) -> bool:
            return resource.intersects(place) and not claims.keeps(victim) and not claims.holds(victim)

        found = self._residency.first(place.domain, suits)
        victim = self._first_arriving(place, claims) if found is None else found[1]
        if victim is None:
            return False
        try:
            exec.lock_obj(victim)
        except InvalidArgument:
            return False  # its loop is over
        try:
            resource = victim.resource
            if resource is not None and resource.intersects(place) and not victim.pin_count:
                return self._move_out(victim, claims, interruptible)
        finally:
            exec.unlock_obj(victim)
        return True

    def _first_arriving(self, place: Place, claims: Claims) -> GemObject | None:
        arriving = self._residency.arriving(place)
        return next((obj for obj in arriving if not claims.keeps(obj) and not claims.holds(obj)), None)

    def _free_system_pages(self, claims: Claims, interruptible: bool) -> bool:
        """Swap out an object, or wait for one that is gone; False if there is none."""
        return self._swap_out_first(claims, interruptible) or self._dying.wait_for_one(
            self._residency.takes_system_pages, interruptible
        )

    def _swap_out_first(self, claims: Claims, interruptible: bool) -> bool:
        """Swap out the first whose reservation is free; False if there is none."""

        def suits(_resource: Resource, victim: GemObject) -> bool:
            return claims.take(victim)

        for domain in SWAPPED_FIRST:
            found = self._residency.first(domain, suits)
            if found is not None:
                victim = found[1]
                try:
                    self._mover.move(victim, None, evict=domain != Domain.CPU, interruptible=interruptible)
                    page_out(victim.backing.pages.address, victim.size)
                finally:
                    claims.give_back(victim)
                return True
        return False


def _intersects(place: Place, backing: Backing) -> bool:
    """Whether its end helps who wants ``place``."""
    return backing.resource is not None and backing.resource.intersects(place)
