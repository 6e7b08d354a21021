"""The sync objects of one client while a trace is replayed through the driver."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from gpuvm.errors import TimedOut
from gpuvm.sync import task
from gpuvm.sync.syncobj_table import (
    FD_TO_HANDLE_IMPORT_SYNC_FILE,
    QUERY_LAST_SUBMITTED,
    WAIT_ALL,
    WAIT_FOR_SUBMIT,
    SyncObjTable,
)
from gpuvm.trace import recorded
from gpuvm.trace.difference import NotMade, OtherResult
from gpuvm.trace.numbering import Numbering
from gpuvm.trace.shared_files import Kind

if TYPE_CHECKING:
    from gpuvm.trace.shared_files import SharedFiles
    from gpuvm.trace.submission_counts import SubmissionCounts


class DriverSyncobjs:
    """The recorded calls about sync objects, made with those of ``table``.

    Args:
        table: the client's.
        files: what clients hand to each other.
        counts: where handles are counted that have another number here.
        patience: seconds that a wait may take which came to an end when recorded.

    Attributes:
        handles: recorded and ours.
    """

    def __init__(
        self, table: SyncObjTable, files: SharedFiles, counts: SubmissionCounts, patience: float
    ) -> None:
        self._table = table
        self._files = files
        self._counts = counts
        self._patience_ns = int(patience * task.NSEC_PER_SEC)
        self.handles: Final = Numbering()

    def make(self, record: recorded.Record) -> None:
        """Make the call. Raises as `DriverClient.make`; KeyError: it is about something else."""
        CALLS[type(record)](self, record)

    def lost(self, record: recorded.Record) -> None:
        """What the call made when recorded is not here: who uses it must not meet another."""
        match record:
            case recorded.SyncobjCreate():
                self.handles.pair(record.handle, None)
            case recorded.SyncobjImport() if not record.flags & FD_TO_HANDLE_IMPORT_SYNC_FILE:
                self.handles.pair(record.handle, None)
            case _:
                pass

    def _create(self, record: recorded.SyncobjCreate) -> None:
        self._syncobj(record, self._table.create(record.flags))

    def _syncobj(self, record: recorded.SyncobjCreate | recorded.SyncobjImport, handle: int) -> None:
        if record.ret:
            self._table.destroy(handle)
            return
        self._counts.renumbered += self.handles.pair(record.handle, handle)

    def _destroy(self, record: recorded.SyncobjDestroy) -> None:
        self._table.destroy(self.handles.ours(record.handle))
        self.handles.forget(record.handle)

    def _reset(self, record: recorded.SyncobjReset) -> None:
        self._table.reset(self._all(record.handles))

    def _signal(self, record: recorded.SyncobjSignal) -> None:
        self._table.signal(self._all(record.handles))

    def _timeline_signal(self, record: recorded.SyncobjTimelineSignal) -> None:
        self._table.timeline_signal(self._all(record.handles), record.points or None)

    def _transfer(self, record: recorded.SyncobjTransfer) -> None:
        src, dst = self.handles.ours(record.src_handle), self.handles.ours(record.dst_handle)
        self._table.transfer(src, dst, record.src_point, record.dst_point, record.flags)

    def _wait(self, record: recorded.SyncobjWait) -> None:
        self._table.wait(self._all(record.handles), self._deadline(record), record.flags)

    def _timeline_wait(self, record: recorded.SyncobjTimelineWait) -> None:
        handles, deadline = self._all(record.handles), self._deadline(record)
        self._table.timeline_wait(handles, record.points or None, deadline, record.flags)

    def _deadline(self, record: recorded.Record) -> int:
        """What came when recorded must come here; what did not is only looked at."""
        return task.now() + self._patience_ns if record.ret == 0 else 0

    def _query(self, record: recorded.SyncobjQuery) -> None:
        handles, syncobjs = self._all(record.handles), self._table
        reached = syncobjs.query(handles, record.flags)
        if record.points is None or len(record.points) != len(reached):
            return
        if not record.flags & QUERY_LAST_SUBMITTED and _short(reached, record.points):
            # Submitted, or it would not have come when recorded.
            with suppress(TimedOut):
                deadline = task.now() + self._patience_ns
                syncobjs.timeline_wait(handles, record.points, deadline, WAIT_ALL | WAIT_FOR_SUBMIT)
            reached = syncobjs.query(handles, record.flags)
        if _short(reached, record.points):
            meaning = "a point that was reached when recorded does not come"
            raise OtherResult("points", list(record.points), reached, meaning)

    def _export(self, record: recorded.SyncobjExport) -> None:
        handle = self.handles.ours(record.handle)
        fd = self._table.handle_to_fd(handle, record.flags, point=record.point)
        self._files.exported(record.fd, Kind.of_sync(record.flags), fd)

    def _import(self, record: recorded.SyncobjImport) -> None:
        kind = Kind.of_sync(record.flags)
        fd, borrowed = self._files.find(record.fd, kind), True
        if fd is None and record.ret:
            raise NotMade("what file was refused is not known")
        if fd is None:
            fd, borrowed = self._files.sync(kind), False
        sync_file = kind is Kind.SYNC_FILE
        into = self.handles.ours(record.handle or 0) if sync_file else 0
        try:
            handle = self._table.fd_to_handle(into, record.flags, fd, point=record.point)
        finally:
            if not borrowed:
                os.close(fd)
        if not sync_file:
            self._syncobj(record, handle)

    def _eventfd(self, record: recorded.SyncobjEventfd) -> None:
        fd = os.eventfd(0)
        try:
            handle = self.handles.ours(record.handle)
            self._table.eventfd(handle, record.flags, record.point, fd)
        finally:
            os.close(fd)
        if -record.ret in (errno.EBADF, errno.EINVAL):
            raise NotMade("what file was refused is not known")

    def _all(self, handles: tuple[int, ...]) -> list[int]:
        return [self.handles.ours(handle) for handle in handles]


def _short(reached: Sequence[int], points: Sequence[int]) -> bool:
    return any(now < then for now, then in zip(reached, points, strict=True))


CALLS: Final[dict[type[recorded.Record], Callable[[DriverSyncobjs, Any], None]]] = {
    recorded.SyncobjCreate: DriverSyncobjs._create,
    recorded.SyncobjDestroy: DriverSyncobjs._destroy,
    recorded.SyncobjReset: DriverSyncobjs._reset,
    recorded.SyncobjSignal: DriverSyncobjs._signal,
    recorded.SyncobjTimelineSignal: DriverSyncobjs._timeline_signal,
    recorded.SyncobjTransfer: DriverSyncobjs._transfer,
    recorded.SyncobjWait: DriverSyncobjs._wait,
    recorded.SyncobjTimelineWait: DriverSyncobjs._timeline_wait,
    recorded.SyncobjQuery: DriverSyncobjs._query,
    recorded.SyncobjExport: DriverSyncobjs._export,
    recorded.SyncobjImport: DriverSyncobjs._import,
    recorded.SyncobjEventfd: DriverSyncobjs._eventfd,
}
"""By record, who makes the call."""
