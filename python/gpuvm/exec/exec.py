"""Exec: lock many objects, whatever their order, without deadlock (the kernel's ``struct drm_exec``)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntFlag
from types import TracebackType
from typing import Final, Protocol, Self

from gpuvm.errors import AlreadyLocked, CheckFailed, Contended, GpuvmError, InvalidArgument
from gpuvm.sync.resv import Resv
from gpuvm.sync.ww_acquire import AcquireContext, reservation_ww_class


class Lockable(Protocol):
    """Anything that has a reservation, like a GEM object. Objects may share one."""

    @property
    def resv(self) -> Resv:
        """Its reservation, the same one for as long as it lives."""


class ExecFlags(IntFlag):
    """Flags of an ``Exec`` (``DRM_EXEC_*``)."""

    INTERRUPTIBLE_WAIT = 1 << 0
    """Waits for locks end with ``Interrupted`` when the task is interrupted."""
    IGNORE_DUPLICATES = 1 << 1
    """Locking an object whose reservation is held already does nothing, instead of ``AlreadyLocked``."""


_INTERRUPTIBLE_WAIT: Final = int(ExecFlags.INTERRUPTIBLE_WAIT)
_IGNORE_DUPLICATES: Final = int(ExecFlags.IGNORE_DUPLICATES)


@dataclass(frozen=True, slots=True)
class ExecStatistics:
    """A snapshot of one ``Exec``."""

    locked: int
    """Reservations held now."""
    attempts: int
    """Passes through the loop, the present one included."""
    contended: int
    """Passes that ended because somebody older was in the way."""


class Exec:
    """Locks many objects; all are unlocked, last first, when its block ends.

    The loop runs again, with everything unlocked, whenever an older ``Exec`` is in the way. What is in it
    must therefore bear repetition::

        with Exec() as exec:
            for attempt in exec.until_all_locked():
                with attempt:
                    exec.lock_obj(first)
                    exec.prepare_obj(second, num_fences=1)
            second.resv.add_fence(fence, Usage.WRITE)

    ``Contended`` never gets out of ``with attempt``; every other exception, ``break`` and ``return`` leave as
    they do elsewhere. Who catches ``Contended`` himself and leaves gets ``InvalidArgument`` at the block's
    end. The lock that was contended is taken first in the next pass, however that one proceeds.

    ``iter`` and ``reversed`` give the locked objects, one for each reservation, in the order of locking.

    Locking: belongs to one thread. Cost: that of the locks.

    Source: ``drivers/gpu/drm/drm_exec.c``.
    """

    __slots__ = (
        "_attempts",
        "_complete",
        "_contended",
        "_contentions",
        "_ignore_duplicates",
        "_interruptible",
        "_locking",
        "_objects",
        "_prelocked",
        "_ticket",
        "flags",
    )

    def __init__(self, flags: ExecFlags = ExecFlags(0)) -> None:  # noqa: B008 (immutable)
        self.flags = flags if flags.__class__ is ExecFlags else ExecFlags(flags)
        bits = int(self.flags)  # flags themselves take longer to look at than all the rest
        self._interruptible = bits & _INTERRUPTIBLE_WAIT != 0
        self._ignore_duplicates = bits & _IGNORE_DUPLICATES != 0
        self._ticket: AcquireContext | None = None
        self._objects: list[Lockable] = []
        self._contended: Lockable | None = None
        self._prelocked: Lockable | None = None
        self._locking = False
        """Inside ``with attempt``."""
        self._complete = False
        """A pass met no contention and no exception."""
        self._attempts = 0
        self._contentions = 0

    # -- the loop

    def until_all_locked(self) -> Iterator[Attempt]:
        """The passes of the loop, until one meets no contention (``drm_exec_until_all_locked``).

        Raises:
            InvalidArgument: outside of ``with``, a second time within it, or a pass was not put in
                ``with attempt``.
        """
        if self._ticket is None or self._attempts:
            what = (
                "use it within its `with` block" if self._ticket is None else "it has been used in this block"
            )
            raise InvalidArgument(f"until_all_locked: {what}")
        ticket = self._ticket
        try:
            while not self._complete:
                if self._objects:  # an exception ended the pass before, and the loop goes on all the same
                    self._unlock_all()
                self._attempts += 1
                attempt = Attempt(self)
                yield attempt
                if not attempt.entered:
                    raise InvalidArgument("until_all_locked: put what the loop does in `with attempt:`")
        finally:
            ticket.done()

    @property
    def is_contended(self) -> bool:
        """True from ``Contended`` until the contended lock is taken (``drm_exec_is_contended``)."""
        return self._contended is not None

    def _begin_attempt(self) -> None:
        """Allow locking; first take the lock that ended the pass before, waiting as long as it takes."""
        ticket, obj = self._ticket, self._contended
        if ticket is None or ticket.finished:
            raise InvalidArgument("with attempt: its loop is over; begin a new block")
        if obj is not None:
            obj.resv.lock_slow(ticket, interruptible=self._interruptible)
            self._objects.append(obj)
            self._contended, self._prelocked = None, obj
        self._locking = True

    def _end_attempt(self, error: BaseException | None) -> bool:
        """Whether ``error`` is the contention that the next pass resolves."""
        self._locking = False
        self._complete = error is None and self._contended is None
        if self._contended is None:
            return False
        if not (error is None or isinstance(error, Contended)):
            self._contended = None  # that error is what ended the pass
            if self._ticket is not None:
                self._ticket.contending = None
            return False
        self._contentions += 1
        self._unlock_all()
        return True

    # -- within the loop

    def lock_obj(self, obj: Lockable) -> None:
        """Lock one object (``drm_exec_lock_obj``).

        Raises:
            Contended: for ``with attempt`` to catch.
            AlreadyLocked: this object, or another with the same reservation, is locked; not with
                IGNORE_DUPLICATES.
            Interrupted: with INTERRUPTIBLE_WAIT; what is locked stays so until the block ends.
            InvalidArgument: outside of ``with attempt``.
        """
        self._lock_each((obj,), None)

    def unlock_obj(self, obj: Lockable) -> None:
        """Unlock one object ahead of the others (``drm_exec_unlock_obj``).

        Raises:
            InvalidArgument: it is not locked here, or only by way of another that shares its reservation.
        """
        for index in range(len(self._objects) - 1, -1, -1):
            if self._objects[index] is obj:
                del self._objects[index]
                if self._prelocked is obj:
                    self._prelocked = None
                obj.resv.unlock()
                return
        raise InvalidArgument(
            f"unlock_obj: {obj!r} is none of the {len(self._objects)} locked objects", value=obj
        )

    def prepare_obj(self, obj: Lockable, num_fences: int) -> None:
        """Lock one object and reserve ``num_fences`` slots in it (``drm_exec_prepare_obj``).

        Raises:
            OutOfMemory, InvalidArgument: from ``Resv.reserve_fences``; if this call locked it, it is
            unlocked.
            GpuvmError: as from ``lock_obj``.
        """
        self._lock_each((obj,), num_fences)

    def prepare_array(self, objs: Iterable[Lockable], num_fences: int) -> None:
        """``prepare_obj`` for each; stops at the first error (``drm_exec_prepare_array``)."""
        self._lock_each(objs, num_fences)

    def _lock_each(self, objs: Iterable[Lockable], num_fences: int | None) -> None:
        """Lock each of ``objs`` and reserve slots, unless ``num_fences`` is None. One loop, for speed."""
        ticket = self._ticket
        if ticket is None or not self._locking:
            raise InvalidArgument(
                "Exec: lock inside `with attempt:` in `for attempt in exec.until_all_locked():`"
            )
        interruptible = self._interruptible
        for obj in objs:
            if self._contended is not None:
                raise Contended(
                    "Exec: this pass met contention; let Contended reach `with attempt:`",
                    value=self._contended,
                )
            resv = obj.resv
            locked_here = True
            if self._prelocked is not None and self._prelocked.resv is resv:
                self._objects[0] = obj  # another may have asked for the reservation in the pass before
                self._prelocked = None
            else:
                try:
                    resv.lock(ticket, interruptible)
                except Contended:
                    self._contended = obj
                    raise
                except AlreadyLocked:
                    if not self._ignore_duplicates:
                        raise
                    locked_here = False
                else:
                    self._objects.append(obj)
            if num_fences is not None:
                try:
                    resv.reserve_fences(num_fences)
                except GpuvmError:
                    if locked_here:
                        self.unlock_obj(obj)
                    raise

    # -- what is locked

    def __iter__(self) -> Iterator[Lockable]:
        return iter(tuple(self._objects))

    def __reversed__(self) -> Iterator[Lockable]:
        return reversed(tuple(self._objects))

    def claimed(self) -> Iterator[Lockable]:
        """As ``iter``, without a contended object that was taken first and then not asked for again."""
        self._require_uncontended("claimed")
        return (obj for obj in self._objects if obj is not self._prelocked)

    def __len__(self) -> int:
        return len(self._objects)

    def __bool__(self) -> bool:
        return True

    def holds(self, obj: Lockable) -> bool:
        """Whether the reservation of ``obj`` is locked here, be it by way of another object."""
        return self._ticket is not None and obj.resv.ticket is self._ticket

    # -- begin and end

    def __enter__(self) -> Self:
        if self._ticket is not None:
            raise InvalidArgument("with Exec: it is in use; make another one")
        self._ticket = AcquireContext(reservation_ww_class)
        self._attempts = self._contentions = 0
        self._complete = False
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._locking = False
        ticket = self._ticket
        try:
            if self._objects:
                self._unlock_all()
            if error is None and self._contended is not None:
                self._require_uncontended("with Exec")
        finally:
            self._ticket = self._contended = None
            if ticket is not None:
                ticket.fini()

    def _unlock_all(self) -> None:
        """Unlock the last first.

        Raises:
            InvalidArgument: somebody else unlocked one; the others are unlocked all the same.
        """
        self._prelocked = None
        objects, ticket = self._objects, self._ticket
        gone = None
        while objects:
            obj = objects.pop()
            resv = obj.resv
            if resv._holder is ticket:
                resv.unlock()
            else:
                gone = obj
        if gone is not None:
            raise InvalidArgument(f"Exec: {gone!r} was unlocked by other means; use unlock_obj", value=gone)

    def _require_uncontended(self, call: str) -> None:
        if self._contended is not None and not self._locking:
            raise InvalidArgument(
                f"{call}: the loop was left although {self._contended!r} was contended, and nothing is "
                "locked; let Contended reach `with attempt:`",
                value=self._contended,
            )

    def check(self) -> None:
        """Verify that what is tracked is what is held.

        Raises:
            CheckFailed: with the state.
        """
        resvs = [obj.resv for obj in self._objects]
        held = self._ticket.acquired if self._ticket is not None else 0
        foreign = any(resv.ticket is not self._ticket for resv in resvs)
        if foreign or held != len(resvs) or len({id(resv) for resv in resvs}) != len(resvs):
            raise CheckFailed(f"{self!r}: {self._ticket!r}, tracked {self._objects!r}")

    def statistics(self) -> ExecStatistics:
        """Counts, of now and of its last block."""
        return ExecStatistics(len(self._objects), self._attempts, self._contentions)

    def __repr__(self) -> str:
        return f"<Exec {len(self._objects)} locked, attempt {self._attempts}>"


class Attempt:
    """One pass through the loop of an ``Exec``; ``with`` it once.

    Entering takes the lock that ended the pass before.

    Raises, at ``with``:
        Interrupted: as from ``Exec.lock_obj``.
        InvalidArgument: it was entered before, or its loop is over.
    """

    __slots__ = ("_exec", "entered")

    def __init__(self, exec: Exec) -> None:
        self._exec = exec
        self.entered = False

    def __enter__(self) -> Exec:
        if self.entered:
            raise InvalidArgument("with attempt: this pass was entered before; put all it locks in one block")
        self.entered = True
        self._exec._begin_attempt()
        return self._exec

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        return self._exec._end_attempt(error)
