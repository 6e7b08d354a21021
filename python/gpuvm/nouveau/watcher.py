"""Watcher: who is told, while it happens, what a device does: binds, jobs, accesses, moves, faults."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from gpuvm.mmu.table_work import NONE, TableWork

if TYPE_CHECKING:
    from gpuvm.nouveau.bind_job import BindJob
    from gpuvm.nouveau.client import Client
    from gpuvm.nouveau.fault import FaultReport
    from gpuvm.nouveau.uapi.requests import VmBindOps
    from gpuvm.sync.fence import Fence

READ: Final = 0
WRITE: Final = 1
FETCH: Final = 2
"""Of a push buffer."""
ATOMIC: Final = 3


class Watcher:
    """Is told what happens, by ``Device(watcher=...)``. Its methods do nothing; override what you want.

    Locking: methods are called in the thread in which it happens, with locks held as each says, and must not
    wait for a lock that is held in a call of the driver, nor for a fence. They must not raise.

    Cost: that of the overridden methods; a device without a watcher asks once whether there is one.
    """

    def opened(self, client: Client) -> None:
        """A new client. Locking: the device's mutex over opens."""

    def closed(self, client: Client) -> None:
        """All that it had is gone. Locking: none."""

    def bound(self, client: Client, number: int) -> None:
        """A VM_BIND has passed the point of no return, in the thread of the call.

        Locking: the VM's lock, and reservations.

        Args:
            number: the client's number for it, from 1 on, as in ``BindHistory``.
        """

    def tables_changed(self, client: Client, number: int, work: TableWork) -> None:
        """What a VM_BIND did to page tables, once it is cleaned up, if anything. Locking: the VM's lock.

        Evictions that happen meanwhile in the same space count, too.
        """

    def queued(self, client: Client, channel: int, fence: Fence) -> None:
        """An EXEC or an asynchronous VM_BIND has its fence, which is in no sync object yet.

        In the thread of the call. Locking: the VM's lock, and reservations.

        Args:
            channel: 0: the client's queue of binds.
        """

    def started(self, fence: Fence) -> None:
        """The job of this fence begins to be executed. In a fence-signalling section."""

    def done(self, fence: Fence) -> None:
        """The job of this fence is done; the fence has the error, if any. In a fence-signalling section."""

    def accessed(
        self,
        client: Client,
        channel: int,
        engine: str,
        access: int,
        addr: int,
        range: int,
        began: int,
        ended: int,
    ) -> None:
        """An engine has read or written memory; what faults has not. In a fence-signalling section.

        Args:
            engine: as faults call it.
            access: READ, WRITE, FETCH or ATOMIC.
            addr, range: bytes; of a surface all from its first to its last, so of a block-linear one more
                than was touched.
            began, ended: in ns of ``task.now``.
        """

    def moved(
        self,
        offset: int,
        size: int,
        source: str | None,
        target: str | None,
        evicted: bool,
        times: tuple[int, int],
    ) -> None:
        """An object has moved. Locking: its reservation.

        Args:
            offset: of the object in the file of objects, which is its map handle.
            source, target: "vram", "gart" or "cpu"; None: it had no memory before, or is gone.
            evicted: it had to make room.
            times: when that began and ended, in ns of ``task.now``.
        """

    def faulted(self, client: Client, report: FaultReport) -> None:
        """A channel dies of this. In a fence-signalling section."""


class BindWatch:
    """What the binds of one client tell a watcher."""

    def __init__(self, watcher: Watcher, client: Client) -> None:
        self._watcher: Final = watcher
        self._client: Final = client
        self._note: Final = client.history.note
        self.table_work: Final = client.page_table.work
        """All that was done to it until now. O(1)."""

    def note(self, now: int, asked: VmBindOps, run_async: bool) -> int:
        """Note a bind in the client's history, and tell of it."""
        number = self._note(now, asked, run_async)
        self._watcher.bound(self._client, number)
        return number

    def queued(self, job: BindJob, number: int) -> None:
        """It became a job."""
        job.number = number
        self._watcher.bound(self._client, number)
        if job.run_async:
            tell_queued(self._watcher, self._client, 0, job.finished)

    def run(self, job: BindJob) -> None:
        """Do the job."""
        if job.run_async:
            self._watcher.started(job.finished)
        before = self.table_work()
        job.bind.run()
        job.table_work = job.table_work.plus(self.table_work().since(before).of_entries)

    def cleaned_up(self, job: BindJob, before: TableWork) -> None:
        """It was, and ``before`` was so before."""
        self._tell(job.number, job.table_work.plus(self.table_work().since(before).of_tables))

    def worked(self, number: int, before: TableWork) -> None:
        """Tell what was done since ``before``."""
        self._tell(number, self.table_work().since(before))

    def _tell(self, number: int, work: TableWork) -> None:
        if work != NONE:
            self._watcher.tables_changed(self._client, number, work)


class ChannelWatch:
    """What a channel tells a watcher."""

    def __init__(self, watcher: Watcher, client: Client, channel: int) -> None:
        self.accessed: Final = partial(watcher.accessed, client, channel)
        self.started: Final = watcher.started
        self._watcher: Final = watcher
        self._client: Final = client
        self._channel: Final = channel

    def queued(self, fence: Fence) -> None:
        """A job was armed."""
        tell_queued(self._watcher, self._client, self._channel, fence)


def tell_queued(watcher: Watcher, client: Client, channel: int, fence: Fence) -> None:
    """Tell of a job, and of its end once it is done."""
    watcher.queued(client, channel, fence)
    if not fence.add_callback(watcher.done):
        watcher.done(fence)
