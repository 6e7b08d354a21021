"""Resv: the reservation of an object: a lock, and the fences of those who use it (``struct dma_resv``)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from itertools import count

from gpuvm.errors import CheckFailed, InvalidArgument, LockdepError, OutOfMemory
from gpuvm.sync import lockdep, task
from gpuvm.sync.container import FenceArray, FenceChain
from gpuvm.sync.fence import Fence, fence_context_alloc
from gpuvm.sync.mutex import LockStatistics
from gpuvm.sync.ww_acquire import reservation_ww_class
from gpuvm.sync.ww_mutex import WwMutex

FIRST_ROOM = 4


class Usage(IntEnum):
    """How a fence's work uses the object (``enum dma_resv_usage``); a query includes lower ones."""

    KERNEL = 0
    """Moves and clears by memory management. Everybody waits for it, always."""
    WRITE = 1
    """Implicitly synchronised writers."""
    READ = 2
    """Implicitly synchronised readers."""
    BOOKKEEP = 3
    """Everything else: explicitly synchronised work. Only memory management waits for it."""

    @classmethod
    def rw(cls, write: bool) -> Usage:
        """What an implicit writer, or reader, has to wait for (``dma_resv_usage_rw``)."""
        return cls.READ if write else cls.WRITE


@dataclass(frozen=True, slots=True)
class ResvStatistics(LockStatistics):
    """A snapshot of one reservation."""

    fences: int
    pending: int
    """Fences that are not signalled."""
    reserved: int
    """Slots that may still be filled."""


class Resv(WwMutex):
    """The lock of an object and its fences by usage.

    ``with resv:`` locks a single one; ``Exec`` locks many. A fence is added in three steps: lock,
    ``reserve_fences`` while failure is still possible, ``add_fence``, which cannot fail. ``_slots``: so many
    fences there may be before the next unlock, because room was reserved.

    Source: ``drivers/dma-buf/dma-resv.c``.
    """

    __slots__ = ("_entries", "_room")

    def __init__(self, name: str = "resv") -> None:
        super().__init__(reservation_ww_class, name)
        self._entries: list[tuple[Fence, Usage]] = []
        self._room = 0
        """Fences to grow to before signalled ones are looked for."""

    # -- changing, under the lock

    def reserve_fences(self, count: int) -> None:
        """Make room for ``count`` fences, before the point of no return. Slots not used are gone at unlock.

        Fences that are signalled are dropped now and then. Locking: held. Cost: O(1) amortised.

        Raises:
            InvalidArgument: ``count`` is less than 1.
            OutOfMemory: nothing was changed.

        Source: ``dma_resv_reserve_fences``.
        """
        if count < 1:
            raise InvalidArgument(f"reserve_fences: {count} slots; reserve at least 1", value=count, bound=1)
        if lockdep.enabled:
            lockdep.assert_held(self)
        if refusals is not None:
            refusals()
        entries = self._entries
        needed = len(entries) + count
        if needed > self._room:
            entries[:] = [entry for entry in entries if not entry[0].signalled]
            needed = len(entries) + count
            self._room = max(2 * needed, FIRST_ROOM)
        if needed > self._slots:
            self._slots = needed

    def add_fence(self, fence: Fence, usage: Usage) -> None:
        """Publish that ``fence``'s work uses the object. Cannot fail for a caller who reserved a slot.

        It takes the place of a signalled fence, or of an earlier one of its context whose usage is not
        stronger.

        Locking: held. Cost: O(fences).

        Raises:
            InvalidArgument: no slot was reserved, or the fence is a container; nothing was changed.

        Source: ``dma_resv_add_fence``.
        """
        if lockdep.enabled:
            lockdep.assert_held(self)
        entries = self._entries
        place = self._place_for(fence, usage)
        if place < len(entries):
            entries[place] = (fence, usage)
        else:
            entries.append((fence, usage))

    def require_slot(self, fence: Fence, usage: Usage) -> None:
        """Raise what ``add_fence`` would raise, for who has to add to several or none. Locking: held."""
        self._place_for(fence, usage)

    def _place_for(self, fence: Fence, usage: Usage) -> int:
        """Which entry a new fence replaces; behind the last if it takes a slot."""
        if fence.relays:
            _refuse_container("add_fence", fence)
        if usage.__class__ is not Usage:
            _require_usage(usage)
        entries = self._entries
        context = fence.context
        place = 0  # counted by hand: enumerate would cost as much as all the rest
        for old, old_usage in entries:
            if (old.context == context and old_usage >= usage and old.seqno <= fence.seqno) or old.signalled:
                return place
            place += 1
        if place < self._slots:
            return place
        raise InvalidArgument(
            f'add_fence: no free slot in "{self.name}", which has {place} fences; call reserve_fences after '
            "locking and before anything that cannot be undone",
            value=place,
            bound=self._slots,
        )

    def replace_fences(self, context: int, replacement: Fence, usage: Usage) -> None:
        """Put ``replacement`` in the place of every fence of ``context``, as for preemption fences.

        The replacement has to signal only when all that it replaces may be taken as finished. Locking: held.

        Raises:
            InvalidArgument: the replacement is a container.

        Source: ``dma_resv_replace_fences``.
        """
        if lockdep.enabled:
            lockdep.assert_held(self)
        _refuse_container("replace_fences", replacement)
        for place, (old, _) in enumerate(self._entries):
            if old.context == context:
                self._entries[place] = (replacement, usage)

    def copy_fences(self, source: Resv) -> None:
        """Have the fences of ``source``, which need not be locked, in place of one's own. Locking: held.

        Source: ``dma_resv_copy_fences``.
        """
        if lockdep.enabled:
            lockdep.assert_held(self)
        self._entries[:] = [entry for entry in list(source._entries) if not entry[0].signalled]

    # -- looking, with or without the lock

    def entries(self, usage: Usage = Usage.BOOKKEEP) -> Iterator[tuple[Fence, Usage]]:
        """Every fence with a usage up to ``usage`` and its usage, signalled ones too, as it is now.

        Locking: held, so that nothing changes meanwhile; ``fences`` needs no lock.

        Source: ``dma_resv_for_each_fence``.
        """
        if lockdep.enabled:
            lockdep.assert_held(self)
        return iter([entry for entry in self._entries if entry[1] <= usage])

    def fences(self, usage: Usage) -> list[Fence]:
        """Every unsignalled fence with a usage up to ``usage`` at one moment. Locking: none.

        Source: ``dma_resv_for_each_fence_unlocked``, ``dma_resv_get_fences``.
        """
        return [fence for fence, its in list(self._entries) if its <= usage and not fence.signalled]

    def singleton(self, usage: Usage) -> Fence | None:
        """One fence that is signalled when all of ``fences(usage)`` are; None if there are none.

        Source: ``dma_resv_get_singleton``.
        """
        fences = self.fences(usage)
        if len(fences) < 2:
            return fences[0] if fences else None
        return FenceArray(fences, fence_context_alloc(), 1)

    def set_deadline(self, usage: Usage, deadline: int) -> None:
        """Hint to all of ``fences(usage)`` that they are wanted by ``deadline``, in ns of ``task.now``.

        Source: ``dma_resv_set_deadline``.
        """
        for fence in self.fences(usage):
            fence.set_deadline(deadline)

    def test_signalled(self, usage: Usage) -> bool:
        """Whether all fences with a usage up to ``usage`` are signalled (``dma_resv_test_signaled``)."""
        return not self.fences(usage)

    def wait(self, usage: Usage, timeout: float | None = None, *, interruptible: bool = False) -> bool:
        """Wait for all fences with a usage up to ``usage``; False if ``timeout`` seconds passed before.

        Locking: may be held or not. Fences added meanwhile are not waited for.

        Raises:
            Interrupted: ``interruptible``, and the task was interrupted.

        Source: ``dma_resv_wait_timeout``.
        """
        deadline = task.deadline_after(timeout)
        return all(fence.wait_until(deadline, interruptible=interruptible) for fence in self.fences(usage))

    # -- itself

    def _unlock(self) -> None:
        """Slots that were not used are forgotten."""
        slots = self._slots
        self._slots = 0  # before the next holder can reserve its own
        try:
            super()._unlock()
        except (InvalidArgument, LockdepError):
            self._slots = slots
            raise

    def check(self) -> None:
        """As ``WwMutex.check``, and: slots are reserved only while it is held, and hold no containers."""
        super().check()
        container = any(isinstance(fence, FenceArray | FenceChain) for fence, _ in self._entries)
        if container or (self._slots and not self.locked):
            raise CheckFailed(f"{self!r}: {self._slots} slots, {self._entries!r}")

    def statistics(self) -> ResvStatistics:
        """Counts, of now. O(fences)."""
        entries = list(self._entries)
        pending = sum(not fence.signalled for fence, _ in entries)
        free = max(self._slots - len(entries), 0)
        return ResvStatistics(
            self.name, self.locked, len(self._queue), self._contended, len(entries), pending, free
        )


def _require_usage(usage: int) -> None:
    if usage not in tuple(Usage):
        raise InvalidArgument(f"add_fence: usage {usage!r}; pass a Usage", value=usage, bound=tuple(Usage))


def _refuse_container(call: str, fence: Fence) -> None:
    if isinstance(fence, FenceArray | FenceChain):
        raise InvalidArgument(
            f"{call}: {fence!r} is a container; add each fence of unwrap(fence) by itself", value=fence
        )


refusals: Callable[[], None] | None = None
"""Asked by ``reserve_fences``, which fails as this fails; for fault injection."""


@contextmanager
def refuse_reservation(number: int) -> Iterator[None]:
    """Within the block ``reserve_fences`` fails with ``OutOfMemory`` at its ``number``-th call from 0 on."""
    global refusals
    calls = count()

    def refuse() -> None:
        if next(calls) == number:
            raise OutOfMemory("reserve_fences: no memory for the slots; nothing was changed", value=number)

    before, refusals = refusals, refuse
    try:
        yield
    finally:
        refusals = before
