"""What calls need of sync objects: whoever put the fences into them for which they wait."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Final, TypeAlias

from gpuvm.sync.syncobj_table import FD_TO_HANDLE_IMPORT_SYNC_FILE, HANDLE_TO_FD_EXPORT_SYNC_FILE
from gpuvm.trace import recorded
from gpuvm.trace.births import Births
from gpuvm.trace.recorded import Record, Sync
from gpuvm.trace.references import Number, What

_Numbers: TypeAlias = Sequence[int]


class FenceNeeds:
    """Follows what is in sync objects, over the files with which clients pass them on.

    Who waits for a point needs the first call that put in one as late; who waits for a binary sync object,
    the last call that put something in, or reset it.

    Args:
        births: of all handles, before the call that is fed.
        add: told that one call needs another.

    Attributes:
        waits: by submission, for each of its waits the call that put in what it waits for; None: nobody told.
    """

    def __init__(self, births: Births, add: Callable[[int, int], None]) -> None:
        self._births: Final = births
        self._add: Final = add
        self.waits: Final[dict[int, tuple[int | None, ...]]] = {}
        self._same: Final[dict[int, int]] = {}
        """By the call that gave a client a sync object, or exported it: the first such call."""
        self._put: Final[dict[int, list[tuple[int, int]]]] = {}
        """By the first call that gave it: the calls that put points in, and the latest point after each."""

    def feed(self, record: Record) -> None:
        """The next call is made; its births are not yet known."""
        match record:
            case recorded.VmBind() | recorded.Submission():
                self._submit(record, record.waits, record.signals)
            case recorded.SyncobjWait():
                self._look_at(record, record.handles)
            case recorded.SyncobjTimelineWait():
                self._look_at(record, record.handles, record.points)
            case recorded.SyncobjQuery():
                self._look_at(record, record.handles, record.points or ())
            case recorded.SyncobjReset() | recorded.SyncobjSignal():
                self._fill(record, record.handles)
            case recorded.SyncobjTimelineSignal():
                self._fill(record, record.handles, record.points)
            case recorded.SyncobjTransfer():
                self._look_at(record, [record.src_handle], [record.src_point])
                self._fill(record, [record.dst_handle], [record.dst_point])
            case recorded.SyncobjExport():
                self._export(record)
            case recorded.SyncobjImport():
                self._import(record)
            case _:
                pass

    def _submit(self, record: Record, waits: tuple[Sync, ...], signals: tuple[Sync, ...]) -> None:
        if waits:
            self.waits[record.line] = tuple([self._who_put(record, one.handle, one.value) for one in waits])
        self._fill(record, [one.handle for one in signals], [one.value for one in signals])

    def _look_at(self, record: Record, handles: _Numbers, points: _Numbers = ()) -> None:
        for handle, point in zip_longest(handles, points[: len(handles)], fillvalue=0):
            who = self._who_put(record, handle, point)
            if who is not None:
                self._add(record.line, who)

    def _who_put(self, record: Record, handle: int, point: int) -> int | None:
        put = self._put.get(self._syncobj(record, handle), [])
        at = bisect_left(put, (point, 0)) if point else len(put) - 1
        return put[at][1] if 0 <= at < len(put) else None

    def _fill(self, record: Record, handles: _Numbers, points: _Numbers = ()) -> None:
        if record.ret:
            return
        for handle, point in zip_longest(handles, points[: len(handles)], fillvalue=0):
            syncobj = self._syncobj(record, handle)
            if point:
                put = self._put.setdefault(syncobj, [])
                put.append((max(point, put[-1][0] if put else 0), record.line))
            else:
                self._put[syncobj] = [(0, record.line)]

    def _export(self, record: recorded.SyncobjExport) -> None:
        if record.flags & HANDLE_TO_FD_EXPORT_SYNC_FILE:
            self._look_at(record, [record.handle], [record.point])
        else:
            self._same[record.line] = self._syncobj(record, record.handle)

    def _import(self, record: recorded.SyncobjImport) -> None:
        if record.flags & FD_TO_HANDLE_IMPORT_SYNC_FILE:
            self._fill(record, [record.handle or 0], [record.point])
            return
        exported = self._births.of(record.client, Number(What.FILE, record.fd))
        if exported is not None:
            self._same[record.line] = self._same.get(exported, exported)

    def _syncobj(self, record: Record, handle: int) -> int:
        born = self._births.of(record.client, Number(What.SYNCOBJ, handle))
        return 0 if born is None else self._same.get(born, born)
