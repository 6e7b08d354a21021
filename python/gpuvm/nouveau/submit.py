"""What all submissions share: what they wait for, what they signal, and the fence that they leave."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from gpuvm.errors import InvalidArgument, NotFound, NotSupported
from gpuvm.exec import ExecFlags
from gpuvm.nouveau.sync import SYNC_SYNCOBJ, SYNC_TIMELINE, SYNC_TYPE_MASK, Sync
from gpuvm.sched import Job
from gpuvm.sync.fence import Fence, check_u64
from gpuvm.sync.syncobj import SyncObj
from gpuvm.sync.syncobj_table import SyncObjTable

LOCKING: Final = ExecFlags.INTERRUPTIBLE_WAIT | ExecFlags.IGNORE_DUPLICATES
"""How submissions lock: until they are armed the caller may be interrupted."""

ROOM: Final = 100
"""Levels of the stack for a submission. What is armed has to be pushed."""

OutSyncs = list[tuple[SyncObj, int | None]]
"""Sync objects, and the points to add to their timelines; None: replace what is in it."""


def wait_for_in_syncs(job: Job, syncobjs: SyncObjTable, waits: Iterable[Sync]) -> None:
    """Have ``job`` wait for all of ``waits``.

    Raises:
        NotSupported: neither of the two types.
        NotFound: no such sync object.
        InvalidArgument: nothing was submitted for it yet: a submission waits for no promises.

    Source: ``nouveau_job_add_deps``.
    """
    for sync in waits:
        kind = sync.flags & SYNC_TYPE_MASK
        if kind > SYNC_TIMELINE:
            raise NotSupported(f"wait: sync type {kind}; this driver knows 0 and 1", kind, SYNC_TIMELINE)
        point = sync.value if kind == SYNC_TIMELINE else 0
        job.add_dependency(syncobjs.find_fence(sync.handle, point, 0))


def find_out_syncs(syncobjs: SyncObjTable, signals: Sequence[Sync]) -> OutSyncs:
    """What ``signal_out_syncs`` needs; nothing can fail after it.

    Raises:
        InvalidArgument: neither of the two types, or a point that is no u64.
        NotFound: no such sync object.

    Source: ``nouveau_job_fence_attach_prepare``.
    """
    found: OutSyncs = []
    for sync in signals:
        kind = sync.flags & SYNC_TYPE_MASK
        if kind > SYNC_TIMELINE:
            raise InvalidArgument(f"signal: sync type {kind}; this driver knows 0 and 1", kind, SYNC_TIMELINE)
        syncobj = syncobjs.find(sync.handle)
        if syncobj is None:
            raise NotFound(f"signal: there is no syncobj {sync.handle}", sync.handle)
        if kind == SYNC_SYNCOBJ:
            found.append((syncobj, None))
        else:
            check_u64("signal: point", sync.value)
            found.append((syncobj, sync.value))
    return found


def signal_out_syncs(out_syncs: OutSyncs, fence: Fence) -> None:
    """Put the fence of a job that is armed into what it signals (``nouveau_job_fence_attach``)."""
    for syncobj, point in out_syncs:
        if point is None:
            syncobj.replace_fence(fence)
        else:
            syncobj.add_point(fence, point)
