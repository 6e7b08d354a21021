"""WwMutex: locks of which a thread takes many in any order and never deadlocks (``struct ww_mutex``).

Each thread takes them under an acquire context, whose stamp says who came first. Of two that would wait for
each other the younger gives way: it gets ``Contended``, unlocks everything, and begins again with the same
stamp, which by then is older than those of others.
"""

from __future__ import annotations

from _thread import get_ident
from collections.abc import Callable
from typing import NoReturn

from gpuvm._core import RawMutex
from gpuvm.errors import AlreadyLocked, CheckFailed, Contended, InvalidArgument, LockdepError
from gpuvm.sync import lockdep, task
from gpuvm.sync.mutex import Mutex, Queued
from gpuvm.sync.ww_acquire import AcquireContext, WwClass


class WwMutex(Mutex):
    """A mutex of a ww class; ``lock(ticket)`` takes it as one of many.

    Contexts wait in the order of their stamps. Those who come without a ticket wait behind whoever is there.

    - ``lock(ticket=None, interruptible=False)``: take it (``ww_mutex_lock``, ``ww_mutex_lock_interruptible``)
    - ``unlock()``: let go, and hand over to the oldest that waits (``ww_mutex_unlock``)

    ``lock`` raises:

    - Contended: ``ticket`` holds others and somebody older has this one or waits for it (wait-die), or waits
      for one that it holds (wound-wait): unlock all, then ``lock_slow`` this one.
    - AlreadyLocked: ``ticket`` holds it already.
    - Interrupted: ``interruptible``, and the task was interrupted while it waited.
    - LockdepError: this thread holds it already, without a ticket; under the validator also if a rule of
      locking is broken.

    ``unlock`` raises:

    - InvalidArgument: nobody holds it, or another thread without a ticket.
    - LockdepError: under the validator, another thread with a ticket.

    Source: ``kernel/locking/ww_mutex.h``, ``Documentation/locking/ww-mutex-design.rst``.
    """

    lock = RawMutex.ww_lock

    __slots__ = ("ww_class",)

    def __init__(self, ww_class: WwClass, name: str = "") -> None:
        super().__init__(name or ww_class.name, ww_class.mutex_class)
        self.ww_class = ww_class
        self._guard = ww_class.guard

    @property
    def ticket(self) -> AcquireContext | None:
        """The context that holds it; None if nobody does, or somebody without one."""
        holder = self._holder
        return holder if isinstance(holder, AcquireContext) else None

    def _lock(self, ticket: AcquireContext | None, interruptible: bool) -> None:  # type: ignore[override]
        if task.preempt is not None:
            task.preempt()
        if lockdep.enabled:
            self._validate(ticket)
        if self._take(get_ident() if ticket is None else ticket):
            if ticket is not None:
                ticket.acquired += 1
            if self._queue:
                self._meet_queue()
        else:
            self._queue_up(ticket, interruptible)
        if self.ww_class.injection is not None and ticket is not None and ticket.acquired > 1:
            self._inject(ticket, self.ww_class.injection)

    def lock_slow(self, ticket: AcquireContext, *, interruptible: bool = False) -> None:
        """Take the lock that was contended, as the first of the next attempt. Waits however long it takes.

        Raises:
            InvalidArgument: ``ticket`` still holds locks.
            Interrupted: ``interruptible``, and the task was interrupted while it waited.

        Source: ``ww_mutex_lock_slow``.
        """
        if ticket.acquired:
            raise InvalidArgument(
                f"lock_slow: {ticket!r} must hold nothing; unlock everything after Contended",
                value=ticket.acquired,
                bound=0,
            )
        ticket.wounded = False  # it holds nothing, so nobody waits for it any more
        if ticket.contending is self:
            ticket.contending = None
        self.lock(ticket, interruptible=interruptible)

    def trylock(self, ticket: AcquireContext | None = None) -> bool:
        """Take it unless it is held (``ww_mutex_trylock``)."""
        if task.preempt is not None:
            task.preempt()
        if lockdep.enabled and ticket is not None:
            self._validate_ticket("trylock", ticket)
        if not self._take(get_ident() if ticket is None else ticket):
            return False
        if ticket is not None:
            ticket.acquired += 1
        if self._queue:
            self._meet_queue()
        if lockdep.enabled:
            lockdep.acquire(self, nest=ticket, trylock=True)
        return True

    def _unlock(self) -> None:
        holder = self._holder
        if type(holder) is not AcquireContext and holder != get_ident():
            raise InvalidArgument(f'unlock: this thread does not hold "{self.name}"')
        if lockdep.enabled:
            lockdep.release(self)
        self._free()

    def _validate(self, ticket: AcquireContext | None) -> None:
        """What the validator has to say of taking it now."""
        if ticket is not None:
            if self._holder is ticket:
                self._already_locked(ticket)
            self._validate_ticket("lock", ticket)
        lockdep.acquire(self, nest=ticket)

    def _validate_ticket(self, call: str, ticket: AcquireContext) -> None:
        self._require_class(call, ticket)
        if ticket.finished:
            raise LockdepError(f"{call}: {ticket!r} is done with locking; take every lock before done()")
        contending = ticket.contending
        if contending is self and not ticket.acquired:
            ticket.contending = None  # as lock_slow would
        elif contending is not None:
            raise LockdepError(
                f"{call}: {ticket!r} got Contended from {contending!r}; unlock everything and take that one "
                "first with lock_slow"
            )

    def _require_class(self, call: str, ticket: AcquireContext) -> None:
        if ticket.ww_class is not self.ww_class:
            raise InvalidArgument(
                f'{call}: {ticket!r} is of another class than "{self.name}"; their stamps do not compare',
                value=ticket.ww_class.name,
                bound=self.ww_class.name,
            )

    def _already_locked(self, ticket: AcquireContext) -> NoReturn:
        raise AlreadyLocked(f'lock: {ticket!r} holds "{self.name}" already', value=self)

    def _own(self, holder: object) -> None:
        # Passed on, no look at the queue: who is behind is younger and, with wait-die, holds nothing.
        self._holder = holder
        if isinstance(holder, AcquireContext):
            holder.acquired += 1

    def _disown(self) -> None:
        holder = self._holder
        self._holder = None
        if isinstance(holder, AcquireContext):
            holder.acquired -= 1

    def _inject(self, ticket: AcquireContext, injection: Callable[[], bool]) -> None:
        if injection():
            self.unlock()
            raise self._contended_for(ticket)

    def _contended_for(self, ticket: AcquireContext) -> Contended:
        ticket.contending = self
        ticket.gave_way += 1
        return Contended(
            f'lock: {ticket!r} must give way for "{self.name}"; unlock everything, lock_slow this one, and '
            "begin again",
            value=self,
        )

    # -- the queue. While the guard is held nothing is made that the garbage collector tracks, not even an
    # iterator: that could run finalizers, and these may want the guard.

    def _queue_up(self, ticket: AcquireContext | None, interruptible: bool) -> None:
        try:
            self._wait_in_turn(ticket, interruptible)
        except BaseException:
            if lockdep.enabled:
                lockdep.release(self)
            raise

    def _wait_in_turn(self, ticket: AcquireContext | None, interruptible: bool) -> None:
        """Wait for our turn, unless somebody older is in the way."""
        if ticket is None:
            self._wait(Queued(get_ident()), interruptible)
            return
        if self._holder is ticket:
            self._already_locked(ticket)
        self._require_class("lock", ticket)
        if self._holder == get_ident():
            raise LockdepError(f'this thread holds "{self.name}" without a ticket: it would wait for itself')
        queued = Queued(ticket)
        killed: list[Queued] = []
        with self._guard:
            # First of all join the queue: who frees the token or takes it looks there afterwards, so either
            # we see what they did or they see us.
            self._queue.insert(self._place_of(ticket), queued)
            got = self._take(ticket)
            welcome = got or not self._must_give_way(ticket)
            if got or not welcome:
                self._queue.remove(queued)
            if got:
                self._own(ticket)
                self._meet_holder(killed)
            elif welcome:
                self._contended += 1
                ticket.waits_for = self
                self._meet_newcomer(ticket, killed)
        _wake(killed)
        if not welcome:
            raise self._contended_for(ticket)
        if not got:
            self._sleep_as(ticket, queued, interruptible)

    def _sleep_as(self, ticket: AcquireContext, queued: Queued, interruptible: bool) -> None:
        try:
            self._sleep(queued, interruptible)
        finally:
            ticket.waits_for = None
            killed, ticket.killed = ticket.killed, False
        if killed:
            raise self._contended_for(ticket)

    def _must_give_way(self, ticket: AcquireContext) -> bool:
        if not ticket.acquired:
            ticket.wounded = False
            return False
        if not self.ww_class.wait_die:
            return ticket.wounded
        holder = self._holder
        if isinstance(holder, AcquireContext) and holder.stamp < ticket.stamp:
            return True
        index = 0
        while index < len(self._queue):
            other = self._queue[index].holder
            if isinstance(other, AcquireContext):  # the first context is the oldest
                return other.stamp < ticket.stamp
            index += 1
        return False

    def _place_of(self, ticket: AcquireContext) -> int:
        """In front of the first younger one."""
        index = 0
        while index < len(self._queue):
            other = self._queue[index].holder
            if isinstance(other, AcquireContext) and other.stamp > ticket.stamp:
                break
            index += 1
        return index

    def _meet_newcomer(self, ticket: AcquireContext, killed: list[Queued]) -> None:
        """``ticket`` joined the queue: who cannot stay because of it?"""
        if self.ww_class.wait_die:
            self._kill_younger(ticket, killed)
            return
        holder = self._holder
        if ticket.acquired and isinstance(holder, AcquireContext) and holder.stamp > ticket.stamp:
            _wound(holder, killed)

    def _meet_queue(self) -> None:
        """We have it, and some joined the queue before they could know."""
        killed: list[Queued] = []
        with self._guard:
            self._meet_holder(killed)
        _wake(killed)

    def _meet_holder(self, killed: list[Queued]) -> None:
        """The mutex has a new holder: who in the queue cannot wait for it, or whom does it keep waiting?"""
        holder = self._holder
        if not isinstance(holder, AcquireContext):
            return
        if self.ww_class.wait_die:
            self._kill_younger(holder, killed)
            return
        index = 0
        while index < len(self._queue):
            other = self._queue[index].holder
            if isinstance(other, AcquireContext) and other.acquired and other.stamp < holder.stamp:
                _wound(holder, killed)
                return
            index += 1

    def _kill_younger(self, ticket: AcquireContext, killed: list[Queued]) -> None:
        """Take those out of the queue who hold locks and are younger than ``ticket``."""
        index = 0
        while index < len(self._queue):
            other = self._queue[index].holder
            if isinstance(other, AcquireContext) and other.acquired and other.stamp > ticket.stamp:
                other.killed = True
                killed.append(self._queue.pop(index))
            else:
                index += 1

    def check(self) -> None:
        """As ``Mutex.check``, and: contexts wait in order, and none that would have to give way."""
        super().check()
        contexts = [q.holder for q in list(self._queue) if isinstance(q.holder, AcquireContext)]
        in_order = sorted(contexts, key=lambda context: context.stamp) == contexts
        holder = self._holder
        stuck = self.ww_class.wait_die and any(
            context.acquired and isinstance(older, AcquireContext) and older.stamp < context.stamp
            for context in contexts
            for older in (holder, *contexts)
        )
        if not in_order or stuck or any(context.waits_for is not self for context in contexts):
            raise CheckFailed(f"{self!r}: holder {holder!r}, queue {contexts!r}")


def _wound(ticket: AcquireContext, killed: list[Queued]) -> None:
    """Make ``ticket`` give way: where it waits now, or else where it would wait next."""
    ticket.wounded = True
    mutex = ticket.waits_for
    if mutex is None:
        return
    index = 0
    while index < len(mutex._queue):
        if mutex._queue[index].holder is ticket:
            ticket.killed = True
            killed.append(mutex._queue.pop(index))
            return
        index += 1


def _wake(killed: list[Queued]) -> None:
    for queued in killed:
        queued.waiter.wake()
