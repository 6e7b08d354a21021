"""Waiting for points of several syncobjs at once, submitted or not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from gpuvm.errors import InvalidArgument, TimedOut
from gpuvm.sync import lockdep, task
from gpuvm.sync.callbacks import Repeatable
from gpuvm.sync.container import FenceChain, find_seqno
from gpuvm.sync.fence import Fence, stub_fence

NO_INDEX: Final = 0xFFFF_FFFF
"""The index that a wait for all reports if none was signalled when it began."""


class Watcher(Protocol):
    """Somebody who is offered the fence for a point once there is one."""

    @property
    def point(self) -> int:
        """Which point."""

    def offer(self, fence: Fence) -> None:
        """Here it is. Called once at most."""


class Watched(Protocol):
    """What can be waited for: a ``SyncObj``."""

    @property
    def head(self) -> Fence | None:
        """The fence in it."""

    def watch(self, watcher: Watcher) -> int:
        """Have the watcher offered the fence for its point, now or later; its ticket."""

    def unwatch(self, ticket: int) -> None:
        """Forget a watcher."""


def fence_at(head: Fence | None, point: int) -> Fence | None:
    """What to wait for so that ``point`` is reached; None if it was not submitted."""
    if head is None or (point and not (isinstance(head, FenceChain) and head.seqno >= point)):
        return None
    return find_seqno(head, point) or stub_fence()


class ArrayWait:
    """One wait for several points: for all or for one of them, to be submitted or to be signalled.

    Args:
        syncobjs: what to wait for.
        points: one for each.
        wait_all: wait for all, not for one.
        for_submit: wait for points that were not submitted yet, too.
        available: wait only until they were submitted; implies ``for_submit``.

    Attributes:
        fences: what the wait found for each point, None where nothing; known afterwards.

    Raises:
        InvalidArgument: a point was not submitted yet, and the wait is not for that.
        LockdepError: under the validator, if it may wait for user space, and this thread holds any lock or
            has fences to signal.

    Source: ``drm_syncobj_array_wait_timeout``.
    """

    __slots__ = (
        "_available",
        "_done",
        "_for_submit",
        "_needed",
        "_points",
        "_syncobjs",
        "_wait_all",
        "_waiter",
        "fences",
    )

    def __init__(
        self,
        syncobjs: Sequence[Watched],
        points: Sequence[int],
        *,
        wait_all: bool = False,
        for_submit: bool = False,
        available: bool = False,
    ) -> None:
        self._for_submit = for_submit or available
        self._available = available
        self._wait_all = wait_all
        self._needed = len(syncobjs) if wait_all else 1
        self._syncobjs = syncobjs
        self._points = points
        self.fences: list[Fence | None] = []
        self._done: dict[int, None] = {}
        """The indices of those that were reached, in that order."""
        if lockdep.enabled and self._for_submit:
            lockdep.might_wait_for_user("wait for a submission")
        for syncobj, point in zip(syncobjs, points, strict=True):
            fence = fence_at(syncobj.head, point)
            if fence is None and not self._for_submit:
                raise InvalidArgument(
                    f"wait: nothing was submitted for point {point} of {syncobj!r} yet; "
                    "submit it before, or wait with WAIT_FOR_SUBMIT",
                    point,
                )
            self.fences.append(fence)

    def set_deadline(self, deadline: int) -> None:
        """Hint to the fences that are there already that they are wanted by ``deadline``."""
        for fence in self.fences:
            if fence is not None:
                fence.set_deadline(deadline)

    def wait(self, deadline: int | None, *, interruptible: bool) -> int:
        """Sleep until it is fulfilled; to be called once.

        Args:
            deadline: in ns of ``task.now``; None for never. What is past: look only.
            interruptible: ``Task.interrupt`` ends the wait.

        Returns:
            Index of the one that was signalled first. Of a wait for all: of the first in the list that was
            when the wait began, or ``NO_INDEX``.

        Raises:
            TimedOut: the time was up before.
            Interrupted: ``interruptible``, and the task was interrupted.
        """
        ready = [index for index, fence in enumerate(self.fences) if self._fulfils(fence)]
        if len(ready) >= self._needed:
            return ready[0]
        points = zip(self._points, self.fences, strict=True)
        entries = [_Entry(self, index, *point) for index, point in enumerate(points)]
        tickets = []
        try:
            self._waiter = task.Waiter()
            for syncobj, entry in zip(self._syncobjs, entries, strict=True):
                if entry.fence is not None:
                    entry.begin(entry.fence)
                else:
                    tickets.append((syncobj, syncobj.watch(entry)))
            if len(self._done) < self._needed and (deadline is None or deadline > task.now()):
                self._waiter.wait(deadline, interruptible=interruptible)
        finally:
            for syncobj, ticket in tickets:
                syncobj.unwatch(ticket)
            for entry in entries:
                entry.close()
            self.fences = [entry.fence for entry in entries]
        if len(self._done) < self._needed:
            raise TimedOut(
                f"wait: {len(self._done)} of {self._needed} points were reached when the time was up",
                len(self._done),
                self._needed,
            )
        if self._wait_all:
            return ready[0] if ready else NO_INDEX
        return next(iter(self._done))

    def _fulfils(self, fence: Fence | None) -> bool:
        if fence is None or self._available:
            return fence is not None
        if lockdep.enabled:
            lockdep.might_wait(fence)
        return fence.signalled

    def _reached(self, index: int) -> None:
        self._done[index] = None
        if len(self._done) >= self._needed:
            self._waiter.wake()


class _Entry(Repeatable):
    """One of the points of a wait."""

    __slots__ = ("_closed", "_ticket", "_wait", "fence", "index", "point")

    def __init__(self, wait: ArrayWait, index: int, point: int, fence: Fence | None) -> None:
        self._wait = wait
        self._closed = False
        self._ticket: int | None = None
        self.index = index
        self.point = point
        self.fence = fence

    def begin(self, fence: Fence) -> None:
        """The fence was there before the wait."""
        if self._wait._available:
            self(fence)
        else:
            self._sleep(fence, fence._add(self))

    def offer(self, fence: Fence) -> None:
        """Here it is, and it is not for whoever brings it if the driver fails to watch it."""
        self.fence = fence
        if self._wait._available:
            self(fence)
        else:
            self._sleep(fence, fence._add_for(self, self))

    def _sleep(self, fence: Fence, ticket: int | None) -> None:
        if ticket is None:
            self(fence)
            return
        self._ticket = ticket
        if self._closed:
            fence._remove(ticket)  # the wait ended while we were at it

    def __call__(self, _fence: Fence) -> None:
        """Callback of the fence."""
        self._wait._reached(self.index)

    def close(self) -> None:
        """The wait is over: leave no callback behind."""
        self._closed = True
        if self.fence is not None and self._ticket is not None:
            self.fence._remove(self._ticket)
