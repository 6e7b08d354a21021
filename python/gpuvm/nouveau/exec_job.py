"""Exec jobs: pushes that a channel executes in their turn."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from gpuvm._core import require_stack
from gpuvm.errors import InvalidArgument, NoDevice
from gpuvm.exec import Exec
from gpuvm.nouveau.engine.push_buffer import PUSH_MAX_LENGTH
from gpuvm.nouveau.submit import LOCKING, ROOM, find_out_syncs, signal_out_syncs, wait_for_in_syncs
from gpuvm.nouveau.sync import Sync
from gpuvm.nouveau.uapi.requests import Push
from gpuvm.sched import Job, SchedulerBackend, TimeoutStatus
from gpuvm.sync.fence import Fence
from gpuvm.sync.resv import Usage
from gpuvm.sync.syncobj_table import SyncObjTable

if TYPE_CHECKING:
    from gpuvm.nouveau.channel import Channel
    from gpuvm.nouveau.vm import Uvmm

_ADDRESSES: Final = 1 << 64


class ExecJob(Job):
    """The pushes of one EXEC (``struct nouveau_exec_job``)."""

    __slots__ = ("pushes",)

    def __init__(self, channel: Channel, pushes: Sequence[Push]) -> None:
        super().__init__(channel.entity, len(pushes) + 1)
        self.pushes: Final = pushes


class ExecBackend(SchedulerBackend[ExecJob]):
    """What a channel's scheduler calls."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def run_job(self, job: ExecJob) -> Fence | None:
        """Give the pushes to the ring; without any, and with nothing on the ring, it is done.

        Raises:
            NoDevice: the channel was killed.

        Source: ``nouveau_exec_job_run``.
        """
        channel = self._channel
        if channel.killed:
            raise NoDevice(f"{channel!r}: {channel.killed_by}; nothing more is executed")
        watch = channel.watch
        started = None if watch is None else partial(watch.started, job.finished)
        if job.pushes or channel.ring:
            return channel.ring.emit(job.pushes, started)
        if started is not None:
            started()
        return None

    def timedout_job(self, job: ExecJob) -> TimeoutStatus:
        """Kill the channel: its ring signals what it has, with ``ENODEV`` (``nouveau_exec_job_timeout``)."""
        channel = self._channel
        waiting = channel.processor.waiting
        channel.kill(f"a job took longer than {channel.scheduler.timeout:g} s" + (waiting and f": {waiting}"))
        return TimeoutStatus.RESET


def submit_exec(
    vm: Uvmm,
    syncobjs: SyncObjTable,
    channel: Channel,
    pushes: Sequence[Push],
    waits: Sequence[Sync],
    signals: Sequence[Sync],
) -> None:
    """Have ``channel`` execute ``pushes`` when ``waits`` are signalled; then signal ``signals``.

    All that is mapped is brought where the GPU can reach it, and stays there until the job is done.

    Locking: nothing held; takes the VM's lock and the reservations of all that is mapped.

    Raises:
        InvalidArgument: a push is too long, or no ``Push`` of ints.
        NotFound: the channel was freed meanwhile; or as the syncs'.
        GpuvmError: as ``wait_for_in_syncs``, then as ``find_out_syncs``.
        OutOfMemory, NoSpace: what is mapped does not fit all at once.
        Interrupted: the task was, while it waited.
        RecursionError: the stack has no room.

        Nothing is executed then, and nothing will be signalled.

    Source: ``nouveau_exec_job_init``, ``nouveau_exec_job_submit``.
    """
    for push in pushes:
        if not _is_push(push):
            raise InvalidArgument(
                f"EXEC: {push!r}; pass a Push of ints, va below 2^64 and va_len at most {PUSH_MAX_LENGTH:#x} "
                "bytes, so split what is longer",
                push,
                PUSH_MAX_LENGTH,
            )
    job = ExecJob(channel, pushes)
    require_stack(ROOM)
    wait_for_in_syncs(job, syncobjs, waits)
    out_syncs = find_out_syncs(syncobjs, signals)
    vm.lock.lock(interruptible=True)
    try:
        with Exec(LOCKING) as exec:
            for attempt in exec.until_all_locked():
                with attempt:
                    vm.prepare_vm(exec, 1)
                    vm.prepare_objects(exec, 1)
                    vm.validate(exec)
            job.arm()
            fence = job.finished
            if channel.watch is not None:
                channel.watch.queued(fence)
            vm.resv_add_fence(exec, fence, Usage.WRITE, Usage.WRITE)
            signal_out_syncs(out_syncs, fence)
        job.push()
    finally:
        vm.lock.unlock()


def _is_push(push: object) -> bool:
    """It is one that a ring can take."""
    if not isinstance(push, Push):
        return False
    fields: tuple[object, ...] = push
    va, va_len, flags = fields
    return (
        isinstance(va, int)
        and isinstance(va_len, int)
        and isinstance(flags, int)
        and 0 <= va < _ADDRESSES
        and 0 <= va_len <= PUSH_MAX_LENGTH
    )
