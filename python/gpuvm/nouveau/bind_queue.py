"""BindQueue: the binds of one client, from the call to the page table and the cleanup."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from gpuvm._core import BindOps, require_stack
from gpuvm.errors import CheckFailed, GpuvmError, NoSpace, OutOfMemory
from gpuvm.exec import Exec
from gpuvm.nouveau.bind_job import BindBackend, BindJob
from gpuvm.nouveau.cleanup import Cleanup
from gpuvm.nouveau.history import BindHistory
from gpuvm.nouveau.moving import bring_in
from gpuvm.nouveau.submit import LOCKING, ROOM, find_out_syncs, signal_out_syncs, wait_for_in_syncs
from gpuvm.nouveau.sync import Sync
from gpuvm.nouveau.uapi.requests import VmBindOps
from gpuvm.nouveau.vm import Uvmm
from gpuvm.nouveau.watcher import BindWatch
from gpuvm.sched import Entity, Scheduler
from gpuvm.sync import task
from gpuvm.sync.resv import Usage
from gpuvm.sync.syncobj_table import SyncObjTable


@dataclass(frozen=True, slots=True)
class BindQueueStatistics:
    """A snapshot of one client's binds."""

    calls: int
    """Those that were accepted."""
    pending: int
    """Of these, those not cleaned up."""
    waits: int
    """How often a call waited for another one, in whose way it was."""


class BindQueue:
    """Binds of one address space. They are prepared, run and cleaned up in the order of their calls.

    Each is a job, but one that is waited for and has nothing before it: its three stages follow each other in
    the call, while it holds the reservations that otherwise its fence would be in, so nobody can tell. A job
    with its fences, armed, pushed and run in this thread, would be more than half of such a call: 55 us
    instead of 25.

    Locking: any thread, nothing held. The VM's lock is held from the look at what is in the way until the job
    has its place in the queue, so the order in which binds change the space is that of their jobs.

    Args:
        vm: the address space.
        syncobjs: what is waited for and signalled.
        history: where calls are noted.
        watch: is told of them.

    Source: ``nouveau_uvmm_bind_job_init``, ``nouveau_job_submit``.
    """

    def __init__(
        self, vm: Uvmm, syncobjs: SyncObjTable, history: BindHistory, watch: BindWatch | None = None
    ) -> None:
        self.vm: Final = vm
        self._syncobjs: Final = syncobjs
        self._history: Final = history
        self._watch: Final = watch
        self._jobs: Final[dict[BindJob, None]] = {}
        """Armed and not cleaned up, in order. Locking: the VM's lock."""
        self._calls = 0
        self._waits = 0
        self._closed = False
        self._cleanup: Final = Cleanup(vm.name, vm.lock, self._clean)
        try:
            backend = BindBackend(self._cleanup.add, watch)
            self.scheduler: Final = Scheduler(backend, name=f"{vm.name} binds", credit_limit=1)
        except BaseException:
            self._cleanup.end()
            raise
        self._entity: Final = Entity(self.scheduler, name=f"{vm.name} binds")

    # -- a call

    def submit(
        self,
        ops: BindOps,
        asked: VmBindOps,
        waits: Sequence[Sync],
        signals: Sequence[Sync],
        *,
        run_async: bool,
    ) -> None:
        """Bind: at once, or ``run_async`` when ``waits`` are signalled.

        Args:
            ops: what to do.
            asked: the same as the program said it, for the history.

        Raises:
            InvalidArgument, PermissionDenied, AlreadyMapped, NoSpace, NotFound: as ``Uvmm.prepare``; then as
                ``wait_for_in_syncs`` and ``find_out_syncs``. ``request`` is the index of the operation.
            OutOfMemory: for objects, page tables or mappings.
            Interrupted: the task was, while it waited.
            RecursionError: the stack has no room.

            Nothing was bound then, and nothing will be signalled.
        """
        require_stack(ROOM)
        now = task.now()
        vm = self.vm
        job = None
        self._lock_without_conflicts(ops)
        try:
            if run_async or self._jobs:
                job = BindJob(self._entity, run_async)
                self._arm(job, ops, partial(self._history.note, now, asked, run_async), waits, signals)
                if run_async:
                    job.push()
            elif self._watch is None:
                # Noted before it runs, since an engine may fault meanwhile.
                self._history.ran(vm.bind_now(Exec(LOCKING), ops, self._history.note, now, asked, run_async))
            else:
                self._bind_watched(self._watch, ops, now, asked, run_async)
            self._calls += 1
        finally:
            vm.lock.unlock()
        if job is not None and not run_async:
            self._finish(job)

    def _bind_watched(
        self, watch: BindWatch, ops: BindOps, now: int, asked: VmBindOps, run_async: bool
    ) -> None:
        before = watch.table_work()
        number = self.vm.bind_now(Exec(LOCKING), ops, watch.note, now, asked, run_async)
        self._history.ran(number)
        watch.worked(number, before)

    def _arm(
        self,
        job: BindJob,
        ops: BindOps,
        note: Callable[[], int],
        waits: Sequence[Sync],
        signals: Sequence[Sync],
    ) -> None:
        """All that can fail, then the point of no return, then what others see of it."""
        vm = self.vm
        before = None if self._watch is None else self._watch.table_work()
        with Exec(LOCKING) as exec:
            self._lock_objects(exec, ops)
            bind = job.bind = vm.prepare(ops)
            if self._watch is not None and before is not None:
                job.table_work = self._watch.table_work().since(before).of_tables
            try:
                wait_for_in_syncs(job, self._syncobjs, waits)
                out_syncs = find_out_syncs(self._syncobjs, signals)
                job.arm()
            except BaseException:
                bind.abort()
                raise
            bind.commit()
            self._jobs[job] = None
            number = note()
            job.ran = partial(self._history.ran, number)
            if self._watch is not None:
                self._watch.queued(job, number)  # before anybody can wait for it
            fence = job.finished
            vm.resv_add_fence(exec, fence, Usage.BOOKKEEP, Usage.BOOKKEEP)
            signal_out_syncs(out_syncs, fence)

    def _lock_objects(self, exec: Exec, ops: BindOps) -> None:
        """Lock what ``ops`` touch, and have the objects that they map where the GPU can reach them.

        ``Uvmm.bind_now`` does it likewise, without room for a fence.
        """
        vm = self.vm
        for attempt in exec.until_all_locked():
            with attempt:
                vm.lock_for(exec, ops, num_fences=1)
                try:
                    bring_in(vm, exec, ops.objects)
                except (OutOfMemory, NoSpace):
                    vm.rehearse(ops)  # what else is wrong with them comes first
                    raise

    def _finish(self, job: BindJob) -> None:
        """Wait for it and clean it up. It was accepted, so no interrupt ends that."""
        job.push_and_wait()
        with self.vm.lock:
            self._clean(job)
        error = job.finished.error
        if error:
            raise GpuvmError(f"VM_BIND: {job!r} failed with errno {error}; see sys.unraisablehook", error)

    # -- conflicts

    def _lock_without_conflicts(self, ops: BindOps) -> None:
        """Take the VM's lock when no bind on its way keeps the operations from being prepared.

        Raises:
            Interrupted: nothing is locked.
        """
        lock = self.vm.lock
        lock.lock(interruptible=True)
        while self._jobs and (other := self._in_the_way(ops)) is not None:
            self._waits += 1
            lock.unlock()
            self.vm.check_ops(ops)
            other.finished.wait(interruptible=True)
            lock.lock(interruptible=True)
            self._clean(other)

    def _in_the_way(self, ops: BindOps) -> BindJob | None:
        """A bind that drops a region where something is to be mapped, or unmaps where one is to be made.

        Source: ``bind_validate_map_common``, ``bind_validate_map_sparse``.
        """
        jobs = list(self._jobs)
        index = ops.in_the_way(
            [(job.bind.ops, [(region.addr, region.range) for region in job.bind.dropping]) for job in jobs]
        )
        return None if index is None else jobs[index]

    def _clean(self, job: BindJob) -> None:
        """What is left of a job that is done, if nobody was faster. Locking: the VM's lock."""
        if self._watch is None or job not in self._jobs:
            job.cleanup_bind()
        else:
            before = self._watch.table_work()
            job.cleanup_bind()
            self._watch.cleaned_up(job, before)
        self._jobs.pop(job, None)

    # -- its end

    def drain(self) -> None:
        """Wait until all binds so far have run, and clean them up. Locking: none held.

        Source: ``nouveau_sched_fini``.
        """
        while True:
            with self.vm.lock:
                for job in [job for job in self._jobs if job.finished.signalled]:
                    self._clean(job)
                last = next(reversed(self._jobs), None)
            if last is None:
                return
            last.finished.wait()

    def close(self) -> None:
        """``drain``, and end the threads; again: nothing. Nobody may be in ``submit``. Locking: none held."""
        if self._closed:
            return
        self.drain()
        self._closed = True
        self._entity.destroy()
        self.scheduler.fini()
        self._cleanup.end()

    # -- itself

    def check(self) -> None:
        """Verify that jobs and pending binds are the same. Locking: the VM's lock, or no call under way.

        Raises:
            CheckFailed: with the state.
        """
        self.scheduler.check()
        if [job.bind for job in self._jobs] != list(self.vm.pending):
            raise CheckFailed(f"{self!r}: jobs {list(self._jobs)}, pending {list(self.vm.pending)}")

    def statistics(self) -> BindQueueStatistics:
        """Counts, of now."""
        return BindQueueStatistics(self._calls, len(self._jobs), self._waits)

    def __repr__(self) -> str:
        return f'<BindQueue of "{self.vm.name}": {len(self._jobs)} pending>'
