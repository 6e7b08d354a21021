"""Run queues: which entity's turn it is, among those of one priority whose first job may be run.

They are guarded by ``guard``, together with the entities' queues and the worker's books: an entity can change
its scheduler and its priority, and with one guard for all there is no order to keep. It is held for a few
steps. Python runs a signal's handler between any two of these, and sometimes finalizers, in the thread that
holds it: so neither may call a scheduler, an entity or a job. They may use fences, whose callbacks here do
without the guard.
"""

from __future__ import annotations

from _thread import allocate_lock
from enum import Enum, IntEnum
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gpuvm.sched.entity import Entity

guard: Final = allocate_lock()

STAMP_BITS: Final = 60


class Priority(IntEnum):
    """Which entities come first, strictly (``enum drm_sched_priority``)."""

    KERNEL = 0
    HIGH = 1
    NORMAL = 2
    LOW = 3


class Policy(Enum):
    """Who is next among entities of one priority."""

    FIFO = "fifo"
    """Whose first job was pushed first (``DRM_SCHED_POLICY_FIFO``)."""
    ROUND_ROBIN = "round robin"
    """One job of each in turn (``DRM_SCHED_POLICY_RR``)."""


class RunQueue:
    """The entities of one scheduler whose first job is pushed and, as far as anybody knows, may be run.

    A heap of keys, priority before stamp. The stamp is when the first job was pushed, or with ROUND_ROBIN
    when the entity joined. A key without an entity is stale. Every call O(log n).
    """

    __slots__ = ("_fifo", "_keys", "_turns", "entities")

    def __init__(self, policy: Policy) -> None:
        self._fifo = policy is Policy.FIFO
        self._turns = 0
        self._keys: list[int] = []
        self.entities: dict[int, Entity] = {}
        """Those that take part, by their keys."""

    def make_key(self, priority: Priority, stamp: int) -> int:
        """A key for ``entities``, stale as yet; ``stamp`` is when the entity's first job was pushed."""
        if not self._fifo:
            stamp = self._turns = self._turns + 1
        key = priority << STAMP_BITS | stamp
        heappush(self._keys, key)
        return key

    def first(self) -> Entity | None:
        """Whose turn it is."""
        keys, entities = self._keys, self.entities
        while keys:
            entity = entities.get(keys[0])
            if entity is not None:
                return entity
            heappop(keys)
        return None

    def remove(self, key: int) -> None:
        """Let an entity take part no longer."""
        del self.entities[key]
