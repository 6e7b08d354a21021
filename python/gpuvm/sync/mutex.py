"""Mutex: one holder at a time, first come first served (the kernel's ``struct mutex``)."""

from __future__ import annotations

from _thread import LockType, allocate_lock, get_ident
from dataclasses import dataclass

from gpuvm._core import RawMutex
from gpuvm.errors import CheckFailed, InvalidArgument, LockdepError
from gpuvm.sync import lockdep, task
from gpuvm.sync.lockdep import LockClass


@dataclass(frozen=True, slots=True)
class LockStatistics:
    """A snapshot of one lock."""

    name: str
    locked: bool
    waiting: int
    contended: int
    """How often somebody had to wait for it."""


class Queued:
    """Somebody in the queue of a mutex, and who it will be held by once its turn comes."""

    __slots__ = ("holder", "waiter")

    def __init__(self, holder: object) -> None:
        self.holder = holder
        self.waiter = task.Waiter()


_queues = allocate_lock()


class Mutex(RawMutex):
    """A sleeping lock that is handed over to whoever waits longest.

    ``with mutex:`` holds it. It is not recursive. Cost: one atomic exchange if nobody else wants it.

    The token is held while the mutex is. Unlocking with somebody in the queue keeps the token and passes it
    on, so nobody overtakes. Whoever joins the queue tries the token once more under ``_guard``, and whoever
    frees the token looks at the queue once more afterwards; so no wake-up is lost.

    - ``lock(*, interruptible=False)``: take it, after those who came before (``mutex_lock``,
      ``mutex_lock_interruptible``)
    - ``unlock()``: let go, and hand over to the first in the queue (``mutex_unlock``)
    - ``locked``: True while anybody holds it

    The core does both where nobody else wants it and nobody watches, which comes to the same: ``_lock`` and
    ``_unlock`` in one step. (``watch_locks`` has all steps made here: for the validator, and where a test
    decides who goes on.)

    Args:
        name: what reports call it.
        lock_class: what the validator knows it by; locks of one class obey one order. Default: one of its own
            for each name.

    Raises (``lock``):
        Interrupted: ``interruptible``, and the task was interrupted while it waited.
        LockdepError: this thread holds it already; under the validator also if the order is wrong.

    Raises (``unlock``):
        InvalidArgument: this thread does not hold it.

    Source: ``kernel/locking/mutex.c``.
    """

    __slots__ = ("__weakref__", "_contended", "_guard", "lock_class", "name")

    def __init__(self, name: str, lock_class: LockClass | None = None) -> None:
        self.name = name
        self.lock_class = lock_class if lock_class is not None else lockdep.lock_class(name)
        self._guard: LockType = _queues
        self._contended = 0

    @property
    def held_here(self) -> bool:
        """True if the calling thread holds it, without a ticket."""
        return bool(self._holder == get_ident())

    @property
    def waiters(self) -> tuple[task.Task, ...]:
        """Who waits for it now, the next one first."""
        return tuple(queued.waiter.task for queued in self._queue)

    def _lock(self, interruptible: bool) -> None:
        if task.preempt is not None:
            task.preempt()
        if lockdep.enabled:
            lockdep.acquire(self)
        try:
            del self._token  # takes it; after a call Python may handle Ctrl-C, and nobody would hold it
        except AttributeError:
            pass
        else:
            return
        try:
            self._wait(Queued(get_ident()), interruptible)
        except BaseException:
            if lockdep.enabled:
                lockdep.release(self)
            raise

    def trylock(self) -> bool:
        """Take it unless it is held (``mutex_trylock``)."""
        if task.preempt is not None:
            task.preempt()
        if not self._take(get_ident()):
            return False
        if lockdep.enabled:
            lockdep.acquire(self, trylock=True)
        return True

    def _unlock(self) -> None:
        if self._holder != get_ident():
            raise InvalidArgument(f'unlock: this thread does not hold the mutex "{self.name}"')
        if lockdep.enabled:
            lockdep.release(self)
        if not self._queue:  # as _free would, by no call
            self._token = None
            if self._queue:
                self._pick_up()
            if task.preempt is not None:
                task.preempt()
            return
        self._free()

    def let_go(self) -> None:
        """Unlock, if this thread holds it: after an exception that came in ``unlock``, or wherever."""
        if lockdep.is_held(self):
            lockdep.release(self)
        if self.held_here:
            self._free()

    def _free(self) -> None:
        """Pass the token, which is ours, on, or free it."""
        if self._queue:
            self._pass_on()
        else:
            self._disown()
            self._token = None
            if self._queue:
                self._pick_up()
        if task.preempt is not None:
            task.preempt()

    def _wait(self, queued: Queued, interruptible: bool) -> None:
        """Join the queue and sleep until the mutex is passed on to us."""
        if self._holder == queued.holder:
            raise LockdepError(f'this thread holds the mutex "{self.name}" already: it would wait for itself')
        with self._guard:
            self._queue.append(queued)
            if self._take(queued.holder):  # only now: whoever frees it later sees us in the queue
                self._queue.remove(queued)
                self._own(queued.holder)
                return
            self._contended += 1
        self._sleep(queued, interruptible)

    def _sleep(self, queued: Queued, interruptible: bool) -> None:
        """Sleep in the queue; if that ends by an exception, leave it."""
        try:
            queued.waiter.wait(interruptible=interruptible)
        except BaseException:
            with self._guard:
                waiting = queued in self._queue
                if waiting:
                    self._queue.remove(queued)
            if not waiting and self._holder == queued.holder:  # passed on to us in the very moment
                self._pass_on()
            raise

    def _own(self, holder: object) -> None:
        """It is held by ``holder``, whose the token is."""
        self._holder = holder

    def _disown(self) -> None:
        """Nobody holds it, although the token is still ours."""
        self._holder = None

    def _pass_on(self) -> None:
        """Give the token, which is ours, to the first in the queue, or free it."""
        first: Queued | None = None
        given = False
        try:
            with self._guard:
                self._disown()
                if self._queue:
                    first = self._queue[0]
                    self._own(first.holder)
                    del self._queue[0]
                else:
                    self._token = None
                given = True
            if first is not None:
                first.waiter.wake()
        except BaseException:  # Ctrl-C, and nobody else would do it
            if not given:
                self._pass_on()
            elif first is not None:
                first.waiter.wake()
            raise

    def _pick_up(self) -> None:
        """Somebody joined the queue while the token was being freed."""
        if self._take(None):
            self._pass_on()

    def check(self) -> None:
        """Verify that nobody waits for a free mutex. Call it while no thread is inside one of its calls.

        Raises:
            CheckFailed: with the state.
        """
        held = self._holder is not None
        if held != self.locked or (self._queue and not held):
            raise CheckFailed(f"{self!r}: holder {self._holder!r}, queue {self._queue!r}")

    def statistics(self) -> LockStatistics:
        """How often it was fought over, and who waits now."""
        return LockStatistics(self.name, self.locked, len(self._queue), self._contended)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} {'locked' if self.locked else 'free'}>"
