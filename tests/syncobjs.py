"""What the tests of syncobjs share: a table, and work that a device will signal (IGT's sw_sync)."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from gpuvm.errors import GpuvmError
from gpuvm.sync import task
from gpuvm.sync.descriptor import carriers
from gpuvm.sync.fence import Fence, fence_context_alloc
from gpuvm.sync.sync_file import export_sync_file
from gpuvm.sync.syncobj_table import FD_TO_HANDLE_IMPORT_SYNC_FILE, SyncObjTable


def attach(table: SyncObjTable, handle: int, point: int, fence: Fence | None = None) -> Fence:
    """Submit work for a point, as a client does: by a sync file, and by a transfer for a timeline."""
    if fence is None:
        fence = Fence(fence_context_alloc(), 1)
    fd = export_sync_file(fence)
    try:
        if point == 0:
            table.fd_to_handle(handle, FD_TO_HANDLE_IMPORT_SYNC_FILE, fd)
            return fence
        binary = table.create(0)
        table.fd_to_handle(binary, FD_TO_HANDLE_IMPORT_SYNC_FILE, fd)
        table.transfer(binary, handle, 0, point, 0)
        table.destroy(binary)
        return fence
    finally:
        os.close(fd)
        carriers.collect()  # so that the sync file's callback is off the fence


def trigger(table: SyncObjTable, handle: int, point: int) -> None:
    """Submit work that is done at once."""
    attach(table, handle, point).signal()


class Device:
    """A timeline whose fences are signalled in order, as a device does."""

    def __init__(self, count: int) -> None:
        context = fence_context_alloc()
        self.fences = [Fence(context, seqno) for seqno in range(1, count + 1)]
        self._done = 0

    def advance(self, count: int) -> None:
        for fence in self.fences[self._done : self._done + count]:
            fence.signal()
        self._done += count


def result(call: Callable[[], int]) -> str:
    """The word by which IGT's names tell the outcome."""
    try:
        call()
    except GpuvmError as error:
        return {errno.EINVAL: "invalid-", errno.ETIME: "etime-"}[error.errno or 0]
    return ""


def wait_point(table: SyncObjTable, timeline: bool, handles: list[int], timeout: int, flags: int) -> int:
    if timeline:
        return table.timeline_wait(handles, [1] * len(handles), timeout, flags)
    return table.wait(handles, timeout, flags)


def pause(duration: int) -> None:
    never = Fence(fence_context_alloc(), 1)  # who sleeps does not keep it
    assert not never.wait_until(task.now() + duration)
