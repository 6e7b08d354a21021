"""The worker: one thread for each scheduler, which takes jobs out of the queues, runs them and frees them.

Who wants something of it leaves a note (an entity in the run queue, a job in ``done`` or ``woken``) and
rings. Notes come from callbacks of fences too, which run anywhere, in finalizers even; so leaving one takes
no lock.

Other threads do a part of its work, see ``lending``. Ctrl-C may come there, which Python handles after calls.
So what must not be torn apart is done without a call.
"""

from __future__ import annotations

import errno
from _thread import get_ident
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from gpuvm.errors import GpuvmError, InvalidArgument
from gpuvm.sched.backend import SchedulerBackend, call, overrides
from gpuvm.sched.dependency import pipelined, require_dependency
from gpuvm.sched.freeing import free_done
from gpuvm.sched.job import KILLED, QUEUED, RUNNING, Job
from gpuvm.sched.lending import lend
from gpuvm.sched.post import Post
from gpuvm.sched.run_queue import Policy, RunQueue, guard
from gpuvm.sync import lockdep, task
from gpuvm.sync.fence import MAX_ERRNO, Fence, fence_context_alloc
from gpuvm.sync.mutex import Mutex
from gpuvm.sync.unraisable import report

if TYPE_CHECKING:
    from gpuvm.sched.entity import Entity
    from gpuvm.sched.watchdog import Watchdog

RUN_CLASS: Final = lockdep.lock_class("sched_run")
FREE_CLASS: Final = lockdep.lock_class("sched_free")


class Worker:
    """A scheduler's thread, its queues and its books.

    Who stands at the ``post`` works, the thread or another that lends itself. ``guard`` protects the run
    queues, the states of jobs, and everything marked *books* here. ``run_lock`` is held over ``prepare_job``
    and ``run_job``, ``free_lock`` over ``free_job``: to get one is to know that the callback has returned.
    Order: neither inside the other.

    Source: ``drm_sched_run_job_work``, ``drm_sched_free_job_work``.
    """

    lend = lend

    def __init__(
        self, backend: SchedulerBackend[Any], name: str, credit_limit: int, policy: Policy, in_order: bool
    ) -> None:
        self.run_job = backend.run_job
        self.free_job = backend.free_job
        self.prepare = backend.prepare_job if overrides(backend, "prepare_job") else None
        self.credit_limit = credit_limit
        self.in_order = in_order
        self.queue = RunQueue(policy)
        self.run_lock = Mutex(f"{name} run", RUN_CLASS)
        self.free_lock = Mutex(f"{name} free", FREE_CLASS)
        self.watchdog: Watchdog | None = None

        self.in_flight: deque[Job] = deque()
        """Books: jobs taken out and not freed, the oldest first."""
        self.killed: dict[Job, None] = {}
        """Books: jobs killed and not freed."""
        self.credits_used = 0
        """Books: by the jobs in flight."""
        self.outstanding = 0
        """Books: jobs armed and not freed."""
        self.freed = 0
        """Books: jobs freed so far."""
        self.handling: Job | None = None
        """Books: the job that is with ``prepare_job`` or ``run_job``."""
        self.freeing: Job | None = None
        """Books: the job that is just about to be given to ``free_job``."""
        self.timing_out: Job | None = None
        """Books: the job that is with ``timedout_job``; it is not freed meanwhile."""
        self.done_late: Job | None = None
        """Books: the same, once it is done."""
        self.oldest_since = 0
        """Books: when the job before the oldest was done, or the watchdog wound up again."""
        self.paused = False
        """Books: no callbacks, until it is started again."""
        self.closing = False
        """Books: to end once nothing is outstanding."""

        self.done: deque[Job] = deque()
        """Notes: jobs whose finished fence is signalled."""
        self.woken: deque[Job] = deque()
        """Notes: jobs whose dependencies are to be looked at again."""
        self.post = Post()
        """Rung by whoever left a note."""
        self.ended = Fence(fence_context_alloc(), 1, driver="sched", timeline=f"{name} worker")
        """Signalled when the thread has nothing left to do."""
        self._ident = 0
        self._thread = task.start(f"{name} worker", self._run)

    # -- for everybody

    def look_again(self, job: Job) -> None:
        """The dependencies of ``job`` are to be looked at again. Any thread."""
        self.woken.append(job)
        self.post.ring()

    def end(self, job: Job, error: int) -> None:
        """It is known how ``job`` ends. Any thread. To be called once; a second time does no harm.

        An entity's fences are signalled in order, whatever the hardware does: who waits for the last job of
        an entity waits for those before it too. So perhaps it has to wait for them.
        """
        job._error = error
        job._ended = True
        previous, on_ring = job._previous, job._on_ring
        if (previous is None or previous._done) and (on_ring is None or on_ring.all_signalled()):
            self._complete(job)
        else:
            self.look_again(job)

    def follow(self, job: Job, fence: Fence, error: int = 0) -> None:
        """Wait for the hardware's fence, or end the job if that is signalled; ``error``: if it has none."""
        try:
            job._finished.follow(fence)
            waits = fence.add_callback(job._hardware_done)
        except BaseException as failure:  # of the fence's hooks
            self.end(job, errno.EIO)
            self.keep_running(failure, f"{fence!r} of {job!r}")
            return
        if not waits:
            self.end(job, fence.error or error)

    def _complete(self, job: Job) -> None:
        """Signal what others wait for, and have the job freed."""
        finished = job._finished
        job._previous = None
        finished.worker = finished.parent = None
        try:
            finished.announce(None, job._error)
        except BaseException as error:  # a callback ends the program, or the stack has no room for any
            self.keep_running(error, f"callback of {finished!r}")
        finally:
            (self.done if finished._done else self.woken).append(job)
            self.post.ring()

    def keep_running(self, error: BaseException, where: str) -> None:
        """Tell what was raised, and go on; but only the worker outlives what ends the program."""
        # What unwinds the threads of a test ends the worker when it goes to sleep.
        if not (isinstance(error, Exception) or get_ident() == self._ident):
            raise error
        report(error, where)

    def is_current(self) -> bool:
        """True in the thread that works now, that is, in most callbacks."""
        return self.post.is_mine()

    def refuse(self, what: str) -> None:
        """Refuse a call that would wait for the callback in which it is made."""
        if self.post.is_mine():
            raise InvalidArgument(
                f"{what}: called in a callback of the worker, for which it would wait; use another thread"
            )

    def wait_for_callback_of(self, entity: Entity) -> None:
        """Sleep while ``prepare_job`` or ``run_job`` has a job of this entity in hand."""
        job = self.handling
        if job is not None and job.entity is entity and not self.is_current():
            self.wait_for_run_job()

    def wait_for_run_job(self) -> None:
        """Sleep until it has returned, and what it answered is noted."""
        with self.run_lock:
            pass

    def quiesce(self) -> None:
        """Sleep until the callbacks that the worker was in have returned. It is paused."""
        self.wait_for_run_job()
        with self.free_lock:
            pass

    def dismiss(self) -> None:
        """End the thread, which has nothing to do yet."""
        self.closing = True
        self.post.ring()
        self.join()

    def join(self) -> None:
        """Sleep until the thread has ended."""
        self._thread.join()

    # -- the thread

    def _run(self) -> None:
        self._ident = get_ident()
        over = False
        try:
            while not over:
                self.post.take_when_rung()
                self._work()
                over = self.closing and not self.outstanding
                self.post.leave()
        finally:
            self.ended.signal()

    def _work(self) -> None:
        """Do all there is to do."""
        while True:
            self.post.clear()
            if self.done:
                free_done(self)
            if not self._step():
                return

    def _step(self) -> bool:
        """Run one job, or find out that it must wait; False if there is nothing to do."""
        self.run_lock.lock()
        try:
            if self.paused:
                return False
            while self.woken:
                self._look_at(self.woken.popleft())
            job = self._take()
            if job is None:
                return False
            if job._state is RUNNING:
                self.give_to_hardware(job)
            else:
                self._settle(job, self._resolve(job))
            return True
        finally:
            self.run_lock.unlock()

    # -- choosing a job

    def _take(self) -> Job | None:
        """Whose turn it is. It is RUNNING then; if still QUEUED, its dependencies are to be looked at first.

        A job for which there are not enough credits keeps all others waiting, those of lower priority too.
        """
        now = 0 if self.watchdog is None else task.now()
        with guard:
            entity = self.queue.first()
            if entity is None:
                return None
            queue = entity._queue
            job = queue[0]
            if not job._ready:
                self.handling = job
                return job
            if job.credits > self.credit_limit - self.credits_used:
                return None
            entity._leave_run_queue()
            self.take_out(job, now)
            if queue and queue[0]._state is QUEUED:
                entity._join_run_queue(queue[0])
        if self.watchdog is not None:
            self.watchdog.wind_up()
        return job

    def take_out(self, job: Job, now: int) -> None:
        """Take the first job out of its entity's queue, to be run; under ``guard``."""
        entity = job.entity
        del entity._queue[0]
        job._previous = entity.last_scheduled
        entity.last_scheduled = job._finished
        job._state = RUNNING
        job._begun = now
        job._error = errno.EIO  # as long as run_job has not answered
        self.in_flight += (job,)
        self.credits_used += job.credits
        self.handling = job

    def call_free_job(self, job: Job) -> None:
        """What ``freeing`` stands for; it is over once the driver is called."""
        self.freeing = None
        self.free_job(job)

    def note_end_of_oldest(self, job: Job) -> None:
        """The oldest job is done, or almost: from here on the next is timed. Under ``guard``."""
        self.oldest_since = max(self.oldest_since, job._finished.timestamp or task.now())

    # -- dependencies

    def _resolve(self, job: Job) -> bool:
        """Find something that the job must wait for; True if there is nothing left."""
        waits_for = job._waits_for
        if waits_for is not None and not waits_for.signalled:
            return False  # its callback will come
        while True:
            fence = job._waits_for = self._next_dependency(job)
            if fence is None:
                return True
            try:
                if fence.add_callback(job._dependency_signalled):
                    return False
            except BaseException as error:  # a hook of whoever made it
                report(error, f"{fence!r}, for which {job!r} waits")

    def _next_dependency(self, job: Job) -> Fence | None:
        """Before it runs, its dependencies. Before it ends, what was pipelined too, and the job before."""
        queued = job._state is QUEUED
        fence = job._dependencies.take() if job._dependencies is not None else None
        if fence is not None:
            return pipelined(self, job, fence) if queued else fence
        if queued:
            return self._ask_driver(job)
        fence = job._on_ring.take() if job._on_ring is not None else None
        if fence is None:
            fence, job._previous = job._previous, None
        return fence

    def _ask_driver(self, job: Job) -> Fence | None:
        if self.prepare is None:
            return None
        try:
            fence = call(self.prepare, job)
            return None if fence is None else pipelined(self, job, require_dependency(fence, job))
        except BaseException as error:
            report(error, f"prepare_job of {job!r}")
            return None

    def _settle(self, job: Job, ready: bool) -> None:
        """The first job of an entity whose turn it was either may be run now, or lets the others go first."""
        with guard:
            self.handling = None
            if ready:
                job._ready = True
            elif job.entity._turns and job._state is QUEUED:
                job.entity._leave_run_queue()

    def _look_at(self, job: Job) -> None:
        """A fence that the job waited for is signalled, or it was killed, or it has to wait for its end."""
        with guard:
            queued = job._state is QUEUED and not job._ready
            if queued:
                self.handling = job
        if not queued and (not job._ended or job._finished.signalled):
            return
        nothing_left = self._resolve(job)
        with guard:
            self.handling = None
            if job._state is QUEUED and nothing_left:
                job._ready = True
                if not (job.entity._turns or job.entity.stopped):
                    job.entity._join_run_queue(job)
        if nothing_left and not queued:
            if job._state is KILLED:
                try:
                    job._scheduled.announce()
                except BaseException as failure:
                    report(failure, f"callback of {job._scheduled!r}")
            self._complete(job)

    # -- running

    def give_to_hardware(self, job: Job) -> None:
        """Run a job that was taken out. Under ``run_lock``."""
        finished = job._finished
        if job.entity.guilty:
            finished.set_error(errno.ECANCELED)
        fence: Fence | None = None
        error = 0
        try:
            fence = call(self.run_job, job)
            if fence is not None and not isinstance(fence, Fence):
                fence = None
                raise TypeError("run_job must return the hardware's fence, or None if the job is done")
        except GpuvmError as refusal:
            number = refusal.errno
            error = number if number is not None and 0 < number <= MAX_ERRNO else errno.EIO
        except BaseException as failure:
            error = errno.EIO
            self.keep_running(failure, f"run_job of {job!r}")
        job.parent, job._error = fence, error
        if task.preempt is not None:
            task.preempt()
        try:
            job._scheduled.announce()
        except BaseException as failure:
            self.keep_running(failure, f"callback of {job._scheduled!r}")
        if fence is None:
            self.end(job, error)
        else:
            self.follow(job, fence)
        self.handling = None  # only now, as who waits for it relies on what was noted
