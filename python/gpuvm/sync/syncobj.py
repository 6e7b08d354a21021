"""SyncObj: a slot for a fence, or a timeline of them, that can be waited for before it is filled.

This is the object itself; ``syncobj_table`` serves it by handle, as the kernel's ioctls do.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Self

from gpuvm.errors import CheckFailed, InvalidArgument, TimedOut
from gpuvm.sync import task
from gpuvm.sync.container import FenceChain, merge, walk
from gpuvm.sync.descriptor import carriers
from gpuvm.sync.eventfd import EventFd
from gpuvm.sync.fence import Fence, check_fence, check_u64, stub_fence
from gpuvm.sync.sync_file import export_sync_file, import_sync_file
from gpuvm.sync.syncobj_wait import ArrayWait, Watcher, fence_at

_tickets = itertools.count()


@dataclass(frozen=True, slots=True)
class SyncObjStatistics:
    """A snapshot of one syncobj."""

    submitted: bool
    """There is a fence in it."""
    payload: int
    last_submitted: int
    pending: int
    """Points that are not signalled, or the one fence of a binary one."""
    waiting: int
    """Waits and eventfds whose point was not submitted yet."""


class _State:
    """What the slot holds. Whoever is first in ``successors`` has replaced it: an exchange without a lock."""

    __slots__ = ("fence", "successors")

    def __init__(self, fence: Fence | None) -> None:
        self.fence = fence
        self.successors: list[_State] = []


class SyncObj:
    """A slot for one fence (binary), or for the newest point of a timeline.

    Any thread may call anything; there is no lock. Waits may begin before there is something to wait for. A
    wait sticks to the fence that it first found, whatever is put into the slot later.

    Args:
        fence: what the slot holds at first.
        signalled: begin with a signalled fence instead of none (``DRM_SYNCOBJ_CREATE_SIGNALED``).

    Raises (every call):
        InvalidArgument: a point is no u64.
        TypeError: a fence is none.

    Source: ``struct drm_syncobj``.
    """

    __slots__ = ("__weakref__", "_adds_to_walk", "_state", "_watchers")

    def __init__(self, fence: Fence | None = None, *, signalled: bool = False) -> None:
        if fence is not None:
            check_fence("SyncObj", fence)
        self._state = _State(stub_fence() if signalled else fence)
        self._watchers: dict[int, Watcher] = {}
        self._adds_to_walk = 0

    # -- what is in it

    @property
    def head(self) -> Fence | None:
        """The fence in it: the newest link of a timeline, a binary one's fence, or None."""
        return self._latest().fence

    def _latest(self) -> _State:
        state = self._state
        while state.successors:
            state = state.successors[0]
        self._state = state  # may go back if another thread is faster: then the next one walks again
        return state

    @property
    def submitted(self) -> bool:
        """True if there is a fence in it, signalled or not."""
        return self.head is not None

    @property
    def signalled(self) -> bool:
        """True if there is a fence in it that is signalled; for a timeline: up to its last point."""
        fence = self.head
        return fence is not None and fence.signalled

    @property
    def last_submitted(self) -> int:
        """The last point that was added, 0 for a binary one."""
        head = self.head
        return head.seqno if isinstance(head, FenceChain) else 0

    @property
    def payload(self) -> int:
        """The highest point that is signalled with all points before it; 0 for a binary one.

        Where a point was added out of order, the points before that do not count.
        Cost: O(pending points). Source: ``drm_syncobj_query_ioctl``.
        """
        head = self.head
        if not isinstance(head, FenceChain):
            return 0
        oldest = head
        for link in walk(head):
            if link.context != head.context or not isinstance(link, FenceChain):
                break
            oldest = link
        return oldest.seqno if oldest.signalled else oldest.prev_seqno

    def fence(self, point: int = 0) -> Fence:
        """What to wait for so that ``point`` is reached; point 0 is whatever is in the slot.

        Raises:
            InvalidArgument: nothing was submitted for the point yet.

        Source: ``drm_syncobj_find_fence`` without flags.
        """
        check_u64("fence: point", point)
        fence = fence_at(self.head, point)
        if fence is None:
            raise InvalidArgument(
                f"fence: nothing was submitted for point {point} yet; the last one is {self.last_submitted}",
                point,
                self.last_submitted,
            )
        return fence

    # -- putting something into it

    def replace_fence(self, fence: Fence | None) -> None:
        """Put ``fence`` into the slot in place of what is there (``drm_syncobj_replace_fence``)."""
        if fence is not None:
            check_fence("replace_fence", fence)
        while not self._exchange(self._latest(), fence):
            pass

    def reset(self) -> None:
        """Empty the slot (``DRM_IOCTL_SYNCOBJ_RESET``)."""
        self.replace_fence(None)

    def signal(self, point: int = 0) -> None:
        """Put a signalled fence into the slot, or add a signalled ``point``."""
        if point:
            self.add_point(stub_fence(), point)
        else:
            self.replace_fence(stub_fence())

    def add_point(self, fence: Fence, point: int) -> None:
        """Add ``point`` to the timeline, reached when ``fence`` and all points before are signalled.

        A point that is not higher than the last one is tolerated and counts as that, see ``FenceChain``.

        Cost: amortised O(1). Source: ``drm_syncobj_add_point``.
        """
        check_fence("add_point", fence)
        check_u64("add_point: point", point)
        payload = merge(fence) if isinstance(fence, FenceChain) else fence
        while True:
            state = self._latest()
            link = FenceChain(state.fence, payload, point)
            if self._exchange(state, link):
                break
        self._collect(link)

    def _exchange(self, state: _State, fence: Fence | None) -> bool:
        """Replace ``state``, and serve those who waited for ``fence``; False if another thread was faster."""
        if task.preempt is not None:
            task.preempt()
        successor = _State(fence)
        state.successors.append(successor)
        if state.successors[0] is not successor:
            return False
        self._state = successor
        if task.preempt is not None:
            task.preempt()
        if fence is not None and self._watchers:
            for ticket in list(self._watchers):  # not its items, see Fence.remove_callback
                watcher = self._watchers.get(ticket)
                if watcher is not None:
                    self._serve(ticket, watcher, fence)
        return True

    def _collect(self, link: FenceChain) -> None:
        """Walk the chain, which lets go of links that are done, as often as pays for the links walked."""
        self._adds_to_walk -= 1
        if self._adds_to_walk <= 0:
            self._adds_to_walk = sum(1 for _ in walk(link))

    # -- waiting

    def watch(self, watcher: Watcher) -> int:
        """Have the watcher offered the fence for its point, now or later; its ticket."""
        ticket = next(_tickets)
        self._watchers[ticket] = watcher
        if task.preempt is not None:
            task.preempt()
        self._serve(ticket, watcher, self.head)
        return ticket

    def _serve(self, ticket: int, watcher: Watcher, head: Fence | None) -> None:
        fence = fence_at(head, watcher.point)
        if fence is not None and self._watchers.pop(ticket, None) is not None:
            watcher.offer(fence)

    def unwatch(self, ticket: int) -> None:
        """Forget a watcher, unless it has its offer already."""
        self._watchers.pop(ticket, None)

    def wait(
        self,
        point: int = 0,
        timeout: float | None = None,
        *,
        available: bool = False,
        interruptible: bool = False,
    ) -> bool:
        """Sleep until ``point`` was submitted and is signalled.

        Args:
            point: 0 for whatever is in the slot.
            timeout: in seconds; None for ever, 0 to look only.
            available: wait only until it was submitted.
            interruptible: ``Task.interrupt`` ends the wait.

        Returns:
            False if the time was up before.

        Raises:
            Interrupted: ``interruptible``, and the task was interrupted.
            LockdepError: under the validator, if this thread holds any lock or has fences to signal.
        """
        check_u64("wait: point", point)
        wait = ArrayWait([self], [point], for_submit=True, available=available)
        try:
            wait.wait(task.deadline_after(timeout), interruptible=interruptible)
        except TimedOut:
            return False
        return True

    def signal_eventfd(self, fd: int, point: int = 0, *, available: bool = False) -> None:
        """Add 1 to the eventfd once ``point`` is signalled, or with ``available`` once it was submitted.

        Raises:
            BadFile: ``fd`` is no open file descriptor.
            InvalidArgument: it is no eventfd.

        Source: ``drm_syncobj_eventfd_ioctl``.
        """
        check_u64("signal_eventfd: point", point)
        self.watch(_EventFdWatcher(EventFd(fd), point, available))

    # -- sharing

    def export_fd(self) -> int:
        """A new file descriptor that names this object; the caller closes it.

        It keeps the object alive until its last copy is closed, see ``descriptor``.

        Raises:
            TooManyFiles: out of descriptors.

        Source: ``drm_syncobj_get_fd``.
        """
        return carriers.export(self)[0]

    @classmethod
    def import_fd(cls, fd: int) -> Self:
        """The object that ``fd`` names.

        Raises:
            InvalidArgument: no such descriptor, or not one of a syncobj.

        Source: ``drm_syncobj_fd_to_handle``.
        """
        syncobj = carriers.find(fd)
        if not isinstance(syncobj, cls):
            raise InvalidArgument(f"import_fd: file descriptor {fd} is no syncobj's", fd)
        return syncobj

    def export_sync_file(self, point: int = 0) -> int:
        """A new sync file with ``fence(point)``; the caller closes it.

        Raises:
            InvalidArgument: nothing was submitted for the point yet.
            TooManyFiles: out of descriptors.

        Source: ``drm_syncobj_export_sync_file``.
        """
        return export_sync_file(self.fence(point))

    def import_sync_file(self, fd: int, point: int = 0) -> None:
        """Put the fence of a sync file into the slot, or add it as ``point``.

        Raises:
            InvalidArgument: no such descriptor, or no sync file.

        Source: ``drm_syncobj_import_sync_file_fence``.
        """
        check_u64("import_sync_file: point", point)
        self.put(sync_file_fence(fd), point)

    def put(self, fence: Fence, point: int) -> None:
        """Put ``fence`` into the slot if ``point`` is 0, else add it as that point."""
        if point:
            self.add_point(fence, point)
        else:
            self.replace_fence(fence)

    # -- itself

    def check(self) -> None:
        """Verify the chain, and that nobody waits for what is there. Not while a thread is inside a call.

        Raises:
            CheckFailed: with the state.
        """
        head = self.head
        if head is not None:
            head.check()
        for watcher in self._watchers.values():
            if fence_at(head, watcher.point) is not None:
                raise CheckFailed(f"{self!r}: {watcher!r} waits for point {watcher.point}, which is there")

    def statistics(self) -> SyncObjStatistics:
        """Where it stands. O(pending points)."""
        head = self.head
        return SyncObjStatistics(
            submitted=head is not None,
            payload=self.payload,
            last_submitted=self.last_submitted,
            pending=sum(not link.signalled for link in walk(head)),
            waiting=len(self._watchers),
        )

    def __repr__(self) -> str:
        return f"<SyncObj {self.head!r}>"


def sync_file_fence(fd: int) -> Fence:
    """The fence in a sync file.

    Raises:
        InvalidArgument: no such descriptor, or no sync file.
    """
    fence = import_sync_file(fd)
    if fence is None:
        raise InvalidArgument(f"import_sync_file: file descriptor {fd} is no sync file", fd)
    return fence


class _EventFdWatcher:
    """An eventfd in the place of a sleeper."""

    __slots__ = ("available", "eventfd", "point")

    def __init__(self, eventfd: EventFd, point: int, available: bool) -> None:
        self.eventfd = eventfd
        self.point = point
        self.available = available

    def offer(self, fence: Fence) -> None:
        if self.available or fence._add_for(self, self.eventfd.signal) is None:
            self.eventfd.signal()
