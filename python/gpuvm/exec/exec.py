"""Exec: lock many objects, whatever their order, without deadlock (the kernel's ``struct drm_exec``)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntFlag
from typing import Protocol

from gpuvm._core import Attempt as Attempt
from gpuvm._core import RawExec
from gpuvm.errors import CheckFailed, InvalidArgument
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


@dataclass(frozen=True, slots=True)
class ExecStatistics:
    """A snapshot of one ``Exec``."""

    locked: int
    """Reservations held now."""
    attempts: int
    """Passes through the loop, the present one included."""
    contended: int
    """Passes that ended because somebody older was in the way."""


class Exec(RawExec):
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

    - the loop: ``until_all_locked``
    - within it: ``lock_obj``, ``lock_array``, ``prepare_obj``, ``prepare_array``, ``unlock_obj``
    - afterwards: ``claimed``, ``holds``

    ``iter`` and ``reversed`` give the locked objects, one for each reservation, in the order of locking.

    Args:
        flags: ``ExecFlags``. Default: none.

    Locking: belongs to one thread. Cost: that of the locks.

    Source: ``drivers/gpu/drm/drm_exec.c``.
    """

    __slots__ = ()

    _flags_class = ExecFlags
    _ticket_class = AcquireContext
    _ww_class = reservation_ww_class

    @property
    def flags(self) -> ExecFlags:
        """Those that it was made with."""
        return ExecFlags(self._flags or 0)

    @property
    def is_contended(self) -> bool:
        """True from ``Contended`` until the contended lock is taken (``drm_exec_is_contended``)."""
        return self._contended is not None

    # -- what is locked

    def __iter__(self) -> Iterator[Lockable]:
        objects: list[Lockable] = self._objects
        return iter(tuple(objects))

    def __reversed__(self) -> Iterator[Lockable]:
        objects: list[Lockable] = self._objects
        return reversed(tuple(objects))

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
