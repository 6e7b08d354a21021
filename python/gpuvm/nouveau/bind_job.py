"""Bind jobs: the page table's part of a VM_BIND, in its turn."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gpuvm.mmu.table_work import NONE
from gpuvm.nouveau.bind import Bind, Stage
from gpuvm.sched import Job, SchedulerBackend

if TYPE_CHECKING:
    from gpuvm.nouveau.watcher import BindWatch
    from gpuvm.sched import Entity


class BindJob(Job):
    """One bind call. ``Bind`` has its stages; this is when they come.

    Locking: as ``Job``; ``bind`` is set before it is armed.

    Args:
        entity: the client's queue of binds.
        run_async: nobody waits for it, to clean it up.

    Attributes:
        ran: called in the job once the entries are written.
        number, table_work: which bind of the client's it is, and what it has done to page tables, if anybody
            watches.

    Source: ``struct nouveau_uvmm_bind_job``.
    """

    __slots__ = ("bind", "number", "ran", "run_async", "table_work")

    bind: Bind
    ran: Callable[[], None]
    number: int

    def __init__(self, entity: Entity, run_async: bool) -> None:
        super().__init__(entity)
        self.run_async = run_async
        self.table_work = NONE

    def cleanup_bind(self) -> None:
        """Clean up after the bind, if it has run and nobody was faster. Locking: the VM's lock."""
        if self.bind.stage is Stage.RUN:
            self.bind.cleanup()


class BindBackend(SchedulerBackend[BindJob]):
    """What the scheduler of a client's binds calls.

    Args:
        done: told of an asynchronous job that has run, in a fence-signalling section.
        watch: is told, too.
    """

    def __init__(self, done: Callable[[BindJob], None], watch: BindWatch | None = None) -> None:
        self._done = done
        self._watch = watch

    def run_job(self, job: BindJob) -> None:
        """Write the entries (``nouveau_uvmm_bind_job_run``)."""
        if self._watch is None:
            job.bind.run()
        else:
            self._watch.run(job)
        job.ran()

    def free_job(self, job: BindJob) -> None:
        """Have it cleaned up, with the VM's lock, which may not be taken here."""
        if job.run_async:
            self._done(job)
