"""Channel: a queue of one client into the GPU, and what executes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gpuvm.errors import CheckFailed
from gpuvm.nouveau.engine.fault import EngineFault
from gpuvm.nouveau.engine.processor import Processor
from gpuvm.nouveau.exec_job import ExecBackend
from gpuvm.nouveau.ring import Ring
from gpuvm.nouveau.watcher import ChannelWatch
from gpuvm.sched import Entity, Scheduler, SchedulerStatistics
from gpuvm.sync import task

RING_ENTRIES: Final = 1023
"""Pushes that the hardware's ring has room for (``NV50_DMA_IB_MAX``)."""
EXEC_PUSH_MAX: Final = RING_ENTRIES // 2 - 1
"""Pushes of one EXEC (``nouveau_exec_push_max_from_ib_max``)."""
PATIENCE: Final = 1.0
"""Seconds for which a channel that is freed may go on with what it has
(``MAX_WAIT_SCHED_ENTITY_Q_EMPTY``)."""


@dataclass(frozen=True, slots=True)
class ChannelStatistics:
    """A snapshot of one channel."""

    id: int
    killed: bool
    killed_by: str
    """Why; "" while it lives."""
    jobs: int
    """Given to the ring and not done."""
    busy_ns: int
    """Time that it spent executing, waits for semaphores included."""
    launches: int
    """Copies and fills."""
    bytes_copied: int
    bytes_filled: int
    releases: int
    """Of semaphores."""
    acquires: int
    not_executed: int
    """Methods that no engine here executes; see ``Processor.counts``."""
    scheduler: SchedulerStatistics


class Channel:
    """One channel. ``Client.channel_alloc`` makes it, ``Client.channel_free`` ends it.

    It has a scheduler of its own, and a ring. Its fences are signalled in order. A job that takes too long,
    and an access that faults, kill it: what is on its ring, queued, or comes is done with ``ENODEV``.

    Locking: any thread.

    Args:
        id: the client's number for it.
        name: for fences and reports.
        processor: what executes its pushes.
        timeout: seconds that a job may take; None: for ever.
        faulted: called in the ring's thread with what an engine could not do; takes no lock. It says
            in a line why the channel dies.
        watch: is told of jobs.

    Source: ``struct nouveau_channel``, ``nouveau_sched_create``.
    """

    def __init__(
        self,
        id: int,
        name: str,
        processor: Processor,
        *,
        timeout: float | None,
        faulted: Callable[[EngineFault], str],
        watch: ChannelWatch | None = None,
    ) -> None:
        self.id: Final = id
        self.name: Final = name
        self.processor: Final = processor
        self.watch: Final = watch
        self.ring: Final = Ring(processor, name, faulted)
        try:
            self.scheduler: Final = Scheduler(
                ExecBackend(self), name=name, credit_limit=RING_ENTRIES, timeout=timeout, in_order=True
            )
        except BaseException:
            self.ring.end()
            raise
        self.entity: Final = Entity(self.scheduler, name=name)

    @property
    def killed(self) -> bool:
        """Whether it executes nothing any more."""
        return self.ring.dead

    @property
    def killed_by(self) -> str:
        """Why it was killed, the first time; "" while it lives."""
        return self.ring.killed_by

    @property
    def busy_ns(self) -> int:
        """Time that it spent executing, in ns of ``task.now``."""
        return self.ring.busy_ns

    def kill(self, why: str) -> None:
        """Execute nothing more (``nouveau_channel_kill``). Locking: none; any thread.

        Args:
            why: a line for ``killed_by`` and for the errors of calls that come.
        """
        self.ring.kill(why)

    # -- its end, in this order, of all channels that end together, since they may wait for each other

    def flush(self, deadline: int) -> bool:
        """Wait until the ring has all that is queued; False if ``deadline`` came before.

        Locking: none held. ``deadline``, here and below, in ns of ``task.now``.
        """
        return self.entity.flush(max(deadline - task.now(), 0) / task.NSEC_PER_SEC)

    def stop(self) -> None:
        """Run nothing that is queued: it is done with ``ESRCH`` once what it waits for is signalled.

        So is what is armed and not pushed. Locking: none held.
        """
        self.entity.kill()

    def end_ring(self, deadline: int) -> None:
        """Wait until the ring has done what it has, or kill it. Locking: none held.

        Source: ``nouveau_channel_idle``, ``nouveau_channel_del``.
        """
        if not self.ring.idle(deadline):
            self.kill(f"it was freed, and {PATIENCE:g} s later its ring was not done")
        self.ring.end()

    def end(self) -> None:
        """Wait for what queued jobs wait for, and end the scheduler.

        Locking: none held; nobody is between arming and pushing a job, which is done with the VM's lock.

        Source: ``nouveau_sched_destroy``.
        """
        self.entity.destroy()
        self.scheduler.fini()

    # -- itself

    def check(self) -> None:
        """Verify it. Call it while no call is under way and nothing is executed.

        Raises:
            CheckFailed: with the state.
        """
        self.scheduler.check()
        self.ring.check()
        if not self.ring and any(not job.finished.signalled for job in self.scheduler.in_flight):
            raise CheckFailed(f"{self!r}: the ring is idle, but not {self.scheduler.in_flight}")

    def statistics(self) -> ChannelStatistics:
        """Counts, of now."""
        counts = self.processor.counts
        return ChannelStatistics(
            self.id,
            self.killed,
            self.killed_by,
            len(self.ring),
            self.busy_ns,
            counts.launches,
            counts.bytes_copied,
            counts.bytes_filled,
            counts.releases,
            counts.acquires,
            sum(counts.not_executed.values()),
            self.scheduler.statistics(),
        )

    def __repr__(self) -> str:
        return f'<Channel {self.id} "{self.name}"{", killed" if self.killed else ""}>'
