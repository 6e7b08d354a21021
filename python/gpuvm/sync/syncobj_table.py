"""SyncObjTable: the syncobjs of one open file by handle, served as the kernel's ioctls serve them.

Each method takes what the ioctl's structure has, in its order, unchecked, and raises the error with the errno
that the ioctl returns. Where several things are wrong, the first in the kernel's order counts.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gpuvm.errors import CheckFailed, InvalidArgument, NotFound, NotSupported
from gpuvm.sync import task
from gpuvm.sync.fence import Fence, check_u64, stub_fence
from gpuvm.sync.syncobj import SyncObj, sync_file_fence
from gpuvm.sync.syncobj_wait import ArrayWait

CREATE_SIGNALED: Final = 1 << 0
"""Begin with a signalled fence."""

HANDLE_TO_FD_EXPORT_SYNC_FILE: Final = 1 << 0
"""A sync file of the fence instead of the syncobj itself."""
HANDLE_TO_FD_TIMELINE: Final = 1 << 1
"""Of the fence at ``point``."""

FD_TO_HANDLE_IMPORT_SYNC_FILE: Final = 1 << 0
"""Put the fence of a sync file into the syncobj."""
FD_TO_HANDLE_TIMELINE: Final = 1 << 1
"""At ``point``."""

WAIT_ALL: Final = 1 << 0
"""For all, not for any."""
WAIT_FOR_SUBMIT: Final = 1 << 1
"""Wait for a fence to be submitted, too."""
WAIT_AVAILABLE: Final = 1 << 2
"""Until it is submitted, signalled or not."""
WAIT_DEADLINE: Final = 1 << 3
"""``deadline_nsec`` is a hint to the fences."""

QUERY_LAST_SUBMITTED: Final = 1 << 0
"""The last point submitted, not the last signalled."""

FIND_FENCE_TIMEOUT_NS: Final = 5 * task.NSEC_PER_SEC
"""How long a submission waits for user space to submit what it depends on."""


@dataclass(frozen=True, slots=True)
class SyncObjTableStatistics:
    """A snapshot of one table."""

    handles: int
    objects: int
    """Distinct objects; one may have several handles."""
    waiting: int
    """Waits and eventfds on them whose point was not submitted yet."""


class SyncObjTable:
    """Syncobjs by handle. Any thread may call anything.

    Args:
        syncobj: the driver has the feature ``DRIVER_SYNCOBJ``; without it calls raise ``NotSupported``.
        syncobj_timeline: ``DRIVER_SYNCOBJ_TIMELINE``, likewise for timeline calls.

    Raises (every call):
        InvalidArgument: unknown flags, a pad that is not 0, a point that is no u64, and what the call names.
        NotSupported: the feature is missing.

    Source: ``drivers/gpu/drm/drm_syncobj.c``, ``include/uapi/drm/drm.h``.
    """

    def __init__(self, *, syncobj: bool = True, syncobj_timeline: bool = True) -> None:
        self._features = {"SYNCOBJ": syncobj, "SYNCOBJ_TIMELINE": syncobj_timeline}
        self._syncobjs: dict[int, SyncObj] = {}
        self._fresh = itertools.count(1)
        self._freed: list[int] = []

    # -- handles

    def find(self, handle: int) -> SyncObj | None:
        """The object of a handle, None if there is none (``drm_syncobj_find``)."""
        return self._syncobjs.get(handle)

    def insert(self, syncobj: SyncObj) -> int:
        """A new handle for an object, the lowest that is free (``drm_syncobj_get_handle``)."""
        try:
            handle = heapq.heappop(self._freed)
        except IndexError:
            handle = next(self._fresh)
        self._syncobjs[handle] = syncobj
        return handle

    def create(self, flags: int) -> int:
        """``DRM_IOCTL_SYNCOBJ_CREATE``: the handle of a new object."""
        self._need("create", "SYNCOBJ")
        _check_flags("create", flags, CREATE_SIGNALED)
        return self.insert(SyncObj(signalled=bool(flags & CREATE_SIGNALED)))

    def destroy(self, handle: int, pad: int = 0) -> None:
        """``DRM_IOCTL_SYNCOBJ_DESTROY``: forget a handle; whoever waits goes on waiting.

        Raises:
            InvalidArgument: unknown handle.
        """
        self._need("destroy", "SYNCOBJ")
        _check_pad("destroy", pad)
        if self._syncobjs.pop(handle, None) is None:
            raise InvalidArgument(f"destroy: there is no syncobj {handle}", handle)
        heapq.heappush(self._freed, handle)

    def release(self) -> None:
        """Forget all handles, as closing the file does (``drm_syncobj_release``)."""
        for handle in list(self._syncobjs):
            if self._syncobjs.pop(handle, None) is not None:
                heapq.heappush(self._freed, handle)

    # -- sharing

    def handle_to_fd(self, handle: int, flags: int, pad: int = 0, point: int = 0) -> int:
        """``DRM_IOCTL_SYNCOBJ_HANDLE_TO_FD``: a descriptor for the object, or a sync file with its fence.

        Raises:
            InvalidArgument: unknown handle; nothing was submitted for the point; a point without a sync file.
            NotFound: unknown handle, for a sync file.
        """
        self._need("handle_to_fd", "SYNCOBJ")
        _check_pad("handle_to_fd", pad)
        _check_flags("handle_to_fd", flags, HANDLE_TO_FD_EXPORT_SYNC_FILE | HANDLE_TO_FD_TIMELINE)
        check_u64("handle_to_fd: point", point)
        if flags & HANDLE_TO_FD_EXPORT_SYNC_FILE:
            syncobj = self._find("handle_to_fd", handle)
            return syncobj.export_sync_file(point if flags & HANDLE_TO_FD_TIMELINE else 0)
        _check_no_point("handle_to_fd", point)
        shared = self.find(handle)
        if shared is None:
            raise InvalidArgument(f"handle_to_fd: there is no syncobj {handle}", handle)
        return shared.export_fd()

    def fd_to_handle(self, handle: int, flags: int, fd: int, pad: int = 0, point: int = 0) -> int:
        """``DRM_IOCTL_SYNCOBJ_FD_TO_HANDLE``: a new handle; or ``handle``, given the fence of a sync file.

        Raises:
            InvalidArgument: ``fd`` is not open, or of the wrong kind; a point without a sync file.
            NotFound: unknown handle, for a sync file.
        """
        self._need("fd_to_handle", "SYNCOBJ")
        _check_pad("fd_to_handle", pad)
        _check_flags("fd_to_handle", flags, FD_TO_HANDLE_IMPORT_SYNC_FILE | FD_TO_HANDLE_TIMELINE)
        check_u64("fd_to_handle: point", point)
        if flags & FD_TO_HANDLE_IMPORT_SYNC_FILE:
            fence = sync_file_fence(fd)
            syncobj = self._find("fd_to_handle", handle)
            syncobj.put(fence, point if flags & FD_TO_HANDLE_TIMELINE else 0)
            return handle
        _check_no_point("fd_to_handle", point)
        return self.insert(SyncObj.import_fd(fd))

    # -- waiting

    def wait(self, handles: Sequence[int], timeout_nsec: int, flags: int, deadline_nsec: int = 0) -> int:
        """``DRM_IOCTL_SYNCOBJ_WAIT``: ``first_signaled``.

        Args:
            timeout_nsec: a moment of ``task.now``; 0 or what is past: look only.
            flags: ``WAIT_ALL``, ``WAIT_FOR_SUBMIT``, ``WAIT_DEADLINE``.
            deadline_nsec: with ``WAIT_DEADLINE``: when the fences are wanted.

        Returns:
            See ``ArrayWait.wait``; 0 for no handles.

        Raises:
            InvalidArgument: nothing was submitted for one, without ``WAIT_FOR_SUBMIT``.
            NotFound: unknown handle.
            TimedOut: it was time before.
            Interrupted: the task was interrupted.
        """
        self._need("wait", "SYNCOBJ")
        _check_flags("wait", flags, WAIT_ALL | WAIT_FOR_SUBMIT | WAIT_DEADLINE)
        return self._array_wait("wait", handles, None, timeout_nsec, flags, deadline_nsec)

    def timeline_wait(
        self,
        handles: Sequence[int],
        points: Sequence[int] | None,
        timeout_nsec: int,
        flags: int,
        deadline_nsec: int = 0,
    ) -> int:
        """``DRM_IOCTL_SYNCOBJ_TIMELINE_WAIT``: as ``wait``, for points; ``WAIT_AVAILABLE``, too.

        ``WAIT_AVAILABLE`` waits for points to be submitted, not signalled. No ``points``: all are 0.
        """
        self._need("timeline_wait", "SYNCOBJ_TIMELINE")
        known = WAIT_ALL | WAIT_FOR_SUBMIT | WAIT_AVAILABLE | WAIT_DEADLINE
        _check_flags("timeline_wait", flags, known)
        return self._array_wait("timeline_wait", handles, points, timeout_nsec, flags, deadline_nsec)

    def _array_wait(
        self,
        call: str,
        handles: Sequence[int],
        points: Sequence[int] | None,
        timeout_nsec: int,
        flags: int,
        deadline_nsec: int,
    ) -> int:
        if not handles:
            return 0
        syncobjs = [self._find(call, handle) for handle in handles]
        wait = ArrayWait(
            syncobjs,
            _check_points(call, points, len(handles)),
            wait_all=bool(flags & WAIT_ALL),
            for_submit=bool(flags & WAIT_FOR_SUBMIT),
            available=bool(flags & WAIT_AVAILABLE),
        )
        if flags & WAIT_DEADLINE:
            wait.set_deadline(deadline_nsec)
        return wait.wait(timeout_nsec, interruptible=True)

    def find_fence(self, handle: int, point: int, flags: int) -> Fence:
        """For submissions: what to wait for so that ``point`` is reached (``drm_syncobj_find_fence``).

        Args:
            flags: ``WAIT_FOR_SUBMIT``: wait up to 5 s for the submission. Else it must be there.

        Raises:
            InvalidArgument: nothing was submitted for the point.
            NotFound: unknown handle.
            TimedOut: nothing was submitted in 5 s.
            Interrupted: the task was interrupted.
        """
        _check_flags("find_fence", flags, WAIT_FOR_SUBMIT)
        check_u64("find_fence: point", point)
        syncobj = self._find("find_fence", handle)
        if not flags & WAIT_FOR_SUBMIT:
            return syncobj.fence(point)
        wait = ArrayWait([syncobj], [point], available=True)
        wait.wait(task.now() + FIND_FENCE_TIMEOUT_NS, interruptible=True)
        (fence,) = wait.fences
        return fence or stub_fence()

    def eventfd(self, handle: int, flags: int, point: int, fd: int, pad: int = 0) -> None:
        """``DRM_IOCTL_SYNCOBJ_EVENTFD``: add 1 to an eventfd when the point is signalled.

        Args:
            flags: 0, or ``WAIT_AVAILABLE``: when it was submitted.

        Raises:
            NotFound: unknown handle.
            BadFile: ``fd`` is not open.
            InvalidArgument: ``fd`` is no eventfd.
        """
        self._need("eventfd", "SYNCOBJ_TIMELINE")
        _check_flags("eventfd", flags, WAIT_AVAILABLE)
        _check_pad("eventfd", pad)
        check_u64("eventfd: point", point)
        self._find("eventfd", handle).signal_eventfd(fd, point, available=bool(flags & WAIT_AVAILABLE))

    # -- changing and reading

    def reset(self, handles: Sequence[int], pad: int = 0) -> None:
        """``DRM_IOCTL_SYNCOBJ_RESET``: empty each.

        Raises:
            InvalidArgument: no handles.
            NotFound: unknown handle; none is reset.
        """
        for syncobj in self._find_some("reset", "SYNCOBJ", handles, pad):
            syncobj.reset()

    def signal(self, handles: Sequence[int], pad: int = 0) -> None:
        """``DRM_IOCTL_SYNCOBJ_SIGNAL``: put a signalled fence into each. Raises as ``reset``."""
        for syncobj in self._find_some("signal", "SYNCOBJ", handles, pad):
            syncobj.signal()

    def timeline_signal(self, handles: Sequence[int], points: Sequence[int] | None, flags: int = 0) -> None:
        """``DRM_IOCTL_SYNCOBJ_TIMELINE_SIGNAL``: add a signalled point to each, point 0 too. No flags.

        Raises:
            InvalidArgument: no handles.
            NotFound: unknown handle; no point is added.
        """
        syncobjs = self._find_some("timeline_signal", "SYNCOBJ_TIMELINE", handles, flags)
        for syncobj, point in zip(
            syncobjs, _check_points("timeline_signal", points, len(handles)), strict=True
        ):
            syncobj.add_point(stub_fence(), point)

    def query(self, handles: Sequence[int], flags: int = 0) -> list[int]:
        """``DRM_IOCTL_SYNCOBJ_QUERY``: the payload of each, or with ``QUERY_LAST_SUBMITTED`` its last point.

        Raises:
            InvalidArgument: no handles.
            NotFound: unknown handle.
        """
        self._need("query", "SYNCOBJ_TIMELINE")
        _check_flags("query", flags, QUERY_LAST_SUBMITTED)
        syncobjs = self._find_some("query", "SYNCOBJ_TIMELINE", handles, 0)
        if flags & QUERY_LAST_SUBMITTED:
            return [syncobj.last_submitted for syncobj in syncobjs]
        return [syncobj.payload for syncobj in syncobjs]

    def transfer(
        self, src_handle: int, dst_handle: int, src_point: int, dst_point: int, flags: int, pad: int = 0
    ) -> None:
        """``DRM_IOCTL_SYNCOBJ_TRANSFER``: put the fence of a point into another slot, or add it as a point.

        Args:
            dst_point: 0 replaces what is in the slot.
            flags: ``WAIT_FOR_SUBMIT`` as for ``find_fence``.

        Raises:
            InvalidArgument: nothing was submitted for ``src_point``.
            NotFound: unknown handle.
            TimedOut: nothing was submitted in 5 s.
            Interrupted: the task was interrupted.
        """
        self._need("transfer", "SYNCOBJ_TIMELINE")
        _check_pad("transfer", pad)
        check_u64("transfer: src_point", src_point)
        check_u64("transfer: dst_point", dst_point)
        destination = self._find("transfer", dst_handle)
        destination.put(self.find_fence(src_handle, src_point, flags), dst_point)

    # -- itself

    def _need(self, call: str, feature: str) -> None:
        if not self._features[feature]:
            raise NotSupported(f"{call}: the driver lacks DRIVER_{feature}", feature)

    def _find(self, call: str, handle: int) -> SyncObj:
        syncobj = self._syncobjs.get(handle)
        if syncobj is None:
            raise NotFound(f"{call}: there is no syncobj {handle}", handle)
        return syncobj

    def _find_some(self, call: str, feature: str, handles: Sequence[int], pad: int) -> list[SyncObj]:
        self._need(call, feature)
        _check_pad(call, pad)
        if not handles:
            raise InvalidArgument(f"{call}: no handles; pass at least 1", 0, 1)
        return [self._find(call, handle) for handle in handles]

    def check(self) -> None:
        """Verify the handles and every object. Call it while no thread is inside one of its calls.

        Raises:
            CheckFailed: with the state.
        """
        freed = set(self._freed)
        if len(freed) != len(self._freed) or freed & self._syncobjs.keys() or 0 in self._syncobjs:
            raise CheckFailed(f"{self!r}: in use {sorted(self._syncobjs)}, freed {sorted(self._freed)}")
        for syncobj in self._syncobjs.values():
            syncobj.check()

    def statistics(self) -> SyncObjTableStatistics:
        """How many there are, and how many wait for a submission."""
        objects = set(self._syncobjs.values())
        waiting = sum(syncobj.statistics().waiting for syncobj in objects)
        return SyncObjTableStatistics(len(self._syncobjs), len(objects), waiting)


def _check_flags(call: str, flags: int, known: int) -> None:
    if flags & ~known:
        raise InvalidArgument(f"{call}: flags {flags:#x}; this call knows {known:#x}", flags, known)


def _check_pad(call: str, pad: int) -> None:
    if pad:
        raise InvalidArgument(f"{call}: pad {pad:#x}; it must be 0", pad, 0)


def _check_no_point(call: str, point: int) -> None:
    if point:
        raise InvalidArgument(f"{call}: point {point}; only a sync file has one", point, 0)


def _check_points(call: str, points: Sequence[int] | None, count: int) -> Sequence[int]:
    if points is None:
        return [0] * count
    if len(points) != count:
        raise InvalidArgument(f"{call}: {len(points)} points; pass {count}, one a handle", points, count)
    for point in points:
        check_u64(f"{call}: point", point)
    return points
