"""AcquireContext: one attempt to take many locks of a class, and its age (``struct ww_acquire_ctx``)."""

from __future__ import annotations

import random
from _thread import allocate_lock
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from types import TracebackType
from typing import Final, Self, final

from gpuvm._core import RawTicket, watch_locks
from gpuvm.errors import CheckFailed
from gpuvm.sync import lockdep
from gpuvm.sync.lockdep import LockClass

INJECTION: Final = 2
"""Which watcher of locks this is, for ``watch_locks``."""
_injecting: Final[set[WwClass]] = set()
"""Whose locks are answered with ``Contended`` at random."""


class WwClass:
    """Locks among which the order is free (``struct ww_class``).

    Args:
        name: what reports call it.
        wait_die: whether a younger context that meets an older holder gives way (wait-die); otherwise an
            older one that meets a younger holder makes that one give way where it waits next (wound-wait).
        reservation: whether these locks are reservations, which no fence-signalling section may take.
    """

    def __init__(self, name: str, *, wait_die: bool, reservation: bool = False) -> None:
        self.name = name
        self.wait_die = wait_die
        self.mutex_class = LockClass(f"{name}_mutex", reservation=reservation)
        self.acquire_class = LockClass(f"{name}_acquire")
        self.guard = allocate_lock()
        """Guards the queues of all locks of the class and the contexts that wait in them."""
        self._injection: Callable[[], bool] | None = None
        self.next_stamp: Callable[[], int] = count(1).__next__
        """A stamp younger than all before."""

    @contextmanager
    def inject_deadlocks(self, seed: int, rate: float) -> Iterator[None]:
        """While the block runs, answer a lock that was got with ``Contended``, with probability ``rate``.

        Only where it could have happened: where the context holds another lock. At a rate of 1 nobody ever
        gets two.

        Source: ``CONFIG_DEBUG_WW_MUTEX_SLOWPATH``.
        """
        dice = random.Random(seed)
        before = self.injection
        self.injection = lambda: dice.random() < rate
        try:
            yield
        finally:
            self.injection = before

    @property
    def injection(self) -> Callable[[], bool] | None:
        """Asked whether to answer the next lock that was got with ``Contended``."""
        return self._injection

    @injection.setter
    def injection(self, injection: Callable[[], bool] | None) -> None:
        self._injection = injection
        if injection is None:
            _injecting.discard(self)
        else:
            _injecting.add(self)
        watch_locks(INJECTION, bool(_injecting))


reservation_ww_class: Final = WwClass("reservation_ww_class", wait_die=True, reservation=True)


@dataclass(frozen=True, slots=True)
class AcquireStatistics:
    """A snapshot of one acquire context."""

    stamp: int
    acquired: int
    gave_way: int
    """How often it got ``Contended``."""


@final
class AcquireContext(RawTicket):
    """One thread's attempt to take several locks of a class: its ticket (``struct ww_acquire_ctx``).

    ``with AcquireContext(...) as ticket:`` ends it; everything must be unlocked by then. The stamp stays the
    same for all attempts, so whoever gave way is older than all who came since.

    - ``done()``: say that all locks are taken (``ww_acquire_done``)
    - ``fini()``: end it (``ww_acquire_fini``); InvalidArgument: locks are still held

    Attributes:
        ww_class: the class of its locks.
        stamp: its age; a younger one has a larger one.
        acquired: locks held under it.
        contending: the lock to take first after ``Contended``.
        waits_for: in whose queue it is.
        wounded: an older context waits for one of its locks (wound-wait).
        killed: it was taken out of a queue and has to give way.
        gave_way: how often it got ``Contended``.
        finished: ``done`` was called: no further locks.

    Locking: belongs to one thread.

    Args:
        ww_class: of which locks.

    Source: ``ww_acquire_init``.
    """

    __slots__ = ("__weakref__",)

    @property
    def lock_class(self) -> LockClass:
        """What the validator knows it by."""
        ww_class: WwClass = self.ww_class
        return ww_class.acquire_class

    @property
    def name(self) -> str:
        """What reports call it."""
        return self.lock_class.name

    def _begin(self) -> None:
        """Somebody watches."""
        if lockdep.enabled:
            lockdep.acquire(self)

    def _end(self) -> None:
        if lockdep.enabled:
            lockdep.release(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or not self.acquired:
            self.fini()
            return
        error.add_note(f"{self!r} was ended with that")
        if lockdep.enabled:
            lockdep.release(self)

    def check(self) -> None:
        """Verify that its state is one that can be.

        Raises:
            CheckFailed: with the state.
        """
        killed_for_nothing = self.killed and self.waits_for is None
        if self.acquired < 0 or killed_for_nothing or (self.acquired and self.contending and self.waits_for):
            raise CheckFailed(f"{self!r}: waits for {self.waits_for!r}, contending {self.contending!r}")

    def statistics(self) -> AcquireStatistics:
        """What it holds, and how often it gave way."""
        return AcquireStatistics(self.stamp, self.acquired, self.gave_way)

    def __repr__(self) -> str:
        return f"<AcquireContext {self.ww_class.name} stamp {self.stamp} holding {self.acquired}>"
