"""Eviction policies: in which order objects are asked to make room.

A policy only orders. Who is pinned, of a higher priority, in use, or of no help, is passed over by whoever
asks.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from math import inf
from typing import Protocol

from gpuvm.errors import CheckFailed
from gpuvm.mem.resource import PRIORITIES, Resource, ResourceManager


class EvictionPolicy(Protocol):
    """What a policy is told, and what it is asked. Every call comes with the device's LRU lock held.

    It may neither block nor call the device.
    """

    name: str
    """For reports."""

    def added(self, resource: Resource) -> None:
        """An object has moved in here, or is pinned no longer."""

    def removed(self, resource: Resource) -> None:
        """It has moved out, is gone, or is pinned."""

    def used(self, resource: Resource) -> None:
        """It was used where it is: validated, or ``Device.used``. It may be pinned."""

    def candidates(self, manager: ResourceManager, priority: int) -> Iterable[Resource]:
        """Those of ``manager`` and of this priority that were added, in the order in which they should go.

        Whoever asks takes the first that suits him, and asks anew for the next.
        """

    def check(self, manager: ResourceManager) -> None:
        """Verify that it knows who is in the lists of ``manager``; raises CheckFailed. Changes nothing."""


class Lru:
    """Who was used longest ago goes first. Costs O(1) a call: the managers keep this order anyway."""

    name = "lru"

    def added(self, resource: Resource) -> None:
        """Nothing to note."""

    def removed(self, resource: Resource) -> None:
        """Nothing to note."""

    def used(self, resource: Resource) -> None:
        """Nothing to note."""

    def candidates(self, manager: ResourceManager, priority: int) -> Iterator[Resource]:
        """In the order of the manager's list."""
        return manager.lru_of(priority)

    def check(self, manager: ResourceManager) -> None:
        """It has no state."""


class Clock:
    """Second chance: a hand goes round; who was used since it last came by is passed over, once.

    Costs O(1) a use; an eviction as far as the hand goes, O(objects) at worst. Each priority has a hand of
    its own, so that nobody loses his chance while others are asked.
    """

    name = "clock"

    def __init__(self) -> None:
        self._rings: dict[tuple[ResourceManager, int], OrderedDict[Resource, bool]] = {}
        """Of each manager and priority, the hand at the front; True: used since the hand came by."""

    def added(self, resource: Resource) -> None:
        """It is the last that the hand will come to."""
        self._ring_of(resource.manager, resource.priority)[resource] = False

    def removed(self, resource: Resource) -> None:
        """The hand will not come to it."""
        del self._ring_of(resource.manager, resource.priority)[resource]

    def used(self, resource: Resource) -> None:
        """The hand will pass over it once."""
        ring = self._ring_of(resource.manager, resource.priority)
        if resource in ring:
            ring[resource] = True

    def candidates(self, manager: ResourceManager, priority: int) -> Iterator[Resource]:
        """Twice round at most: then everybody had his chance, and was offered once."""
        ring = self._ring_of(manager, priority)
        offered: set[Resource] = set()
        for _ in range(2 * len(ring)):
            resource = next(iter(ring))
            if ring[resource]:
                ring[resource] = False
            elif resource not in offered:
                offered.add(resource)
                yield resource
            ring.move_to_end(resource)

    def check(self, manager: ResourceManager) -> None:
        """The rings and the lists have the same members."""
        for priority in range(PRIORITIES):
            ring, listed = self._ring_of(manager, priority), list(manager.lru_of(priority))
            if ring.keys() != set(listed):
                raise CheckFailed(f"clock: {list(ring)!r} on the ring of {listed!r}")

    def _ring_of(self, manager: ResourceManager, priority: int) -> OrderedDict[Resource, bool]:
        return self._rings.setdefault((manager, priority), OrderedDict())


class FarthestNextUse:
    """Who will be used again last, or never, goes first: Belady's optimum, for who knows the future.

    No policy has fewer evictions among objects of one size. Costs O(objects log objects) an eviction.

    Args:
        future: names of objects in the order of their uses, once for each use. A use (a validation, or
            ``Device.used``) consumes the next occurrence of that object's name, however many others stand in
            front of it; a use beyond the last changes nothing. So names should be unique, and what is not
            going to happen should not be listed.
    """

    name = "farthest next use"

    def __init__(self, future: Iterable[str]) -> None:
        self._uses: dict[str, deque[int]] = {}
        for position, name in enumerate(future):
            self._uses.setdefault(name, deque()).append(position)

    def added(self, resource: Resource) -> None:
        """Nothing to note."""

    def removed(self, resource: Resource) -> None:
        """Nothing to note."""

    def used(self, resource: Resource) -> None:
        """Its next use has come."""
        uses = self._uses.get(resource.name)
        if uses:
            uses.popleft()

    def candidates(self, manager: ResourceManager, priority: int) -> list[Resource]:
        """The farthest first; of those that are never used again the least recently used first."""
        return sorted(manager.lru_of(priority), key=self._next_use, reverse=True)

    def check(self, manager: ResourceManager) -> None:
        """What it knows does not depend on who is there."""

    def _next_use(self, resource: Resource) -> float:
        uses = self._uses.get(resource.name)
        return uses[0] if uses else inf
