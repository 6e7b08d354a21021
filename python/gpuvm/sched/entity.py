"""Entity: a queue of jobs that run in order, one client of a scheduler (``struct drm_sched_entity``)."""

from __future__ import annotations

import errno
import warnings
from collections import deque
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from gpuvm.errors import Busy, CheckFailed, InvalidArgument, NotFound
from gpuvm.sched.arguments import require_priority
from gpuvm.sched.fence import FinishedFence, JobFence
from gpuvm.sched.job import ARMED, INITIALISED, KILLED, QUEUED, Job, JobState
from gpuvm.sched.run_queue import Priority, guard
from gpuvm.sched.scheduler import PATIENCE, Scheduler
from gpuvm.sync import task
from gpuvm.sync.fence import Fence, fence_context_alloc


@dataclass(frozen=True, slots=True)
class EntityStatistics:
    """A snapshot of one entity."""

    name: str
    priority: Priority
    scheduler: str
    """The one that its jobs go to now."""
    queued: int
    """Jobs armed or pushed that were not taken out yet."""
    armed: int
    """Of these, those not pushed."""
    jobs: int
    """Jobs ever armed."""
    killed: bool


class Entity:
    """Jobs of one client, which are given to the hardware one after the other, in the order of ``Job.arm``.

    They begin in order, and their fences are signalled in order, even if the hardware is done with a later
    one before. With several schedulers, all of hardware that can do the same, an idle entity moves to the
    one with the fewest jobs.

    ``with Entity(scheduler) as entity:`` destroys it at the end; if by an exception, kills what is left at
    once, jobs that are armed and not pushed too.

    Locking: none, any thread. Not in signal handlers and finalizers.

    Args:
        schedulers: whom its jobs may go to, at least one.
        priority: against other entities.
        name: what reports call it, and the timeline of its fences.

    Attributes:
        guilty: whether its jobs are marked with ``ECANCELED`` before they are run, because the driver found
            that it hangs the hardware. They go through ``run_job`` all the same.

    Raises:
        InvalidArgument: no scheduler, something else, one that has ended, or no priority.

    Source: ``drm_sched_entity_init``.
    """

    __slots__ = (
        "__weakref__",
        "_key",
        "_latest",
        "_priority",
        "_queue",
        "_scheduler",
        "_schedulers",
        "_seqno",
        "_turns",
        "context",
        "guilty",
        "last_scheduled",
        "name",
        "stopped",
    )

    def __init__(self, *schedulers: Scheduler, priority: Priority = Priority.NORMAL, name: str = "") -> None:
        self.context = fence_context_alloc(2)
        """Of the jobs' ``scheduled`` fences; the ``finished`` ones have the next."""
        self.name = name or f"entity-{self.context}"
        self.guilty = False
        self.stopped = False
        """It was killed, or destroyed: no more jobs."""
        self._queue: deque[Job] = deque()
        """Jobs in the order in which they were armed, until they are taken out to be run, or killed."""
        self.last_scheduled: Fence | None = None
        """``finished`` of the job that was taken out last, for the next to wait for if it is killed."""
        self._priority: Priority = require_priority("Entity", priority)
        self._seqno = 0
        self._key = 0
        """Under which it stands in the run queue."""
        self._turns = False
        """It stands in the run queue: its first job is pushed and, as far as anybody knows, may be run."""
        self._latest: Fence | None = None
        """``scheduled`` of the job that was armed last."""
        _require_schedulers("Entity", schedulers)
        self._schedulers = schedulers
        self._scheduler = schedulers[0]
        self._join("Entity", schedulers)

    # -- where its jobs go

    @property
    def priority(self) -> Priority:
        """Against other entities. A change holds for all jobs that do not run yet."""
        return self._priority

    @priority.setter
    def priority(self, priority: Priority) -> None:
        priority = require_priority("priority", priority)
        with guard:
            if self._turns:
                self._leave_run_queue()
                self._priority = priority
                self._join_run_queue(self._queue[0])
            else:
                self._priority = priority

    @property
    def scheduler(self) -> Scheduler:
        """The one that its jobs go to now."""
        return self._scheduler

    @property
    def schedulers(self) -> tuple[Scheduler, ...]:
        """Those that it may choose among."""
        return self._schedulers

    def modify_schedulers(self, *schedulers: Scheduler) -> None:
        """Choose among these from now on.

        Jobs armed before stay where they are, and the next ones follow them until all of them are done.

        Raises:
            InvalidArgument: none, something else, or one that has ended. Nothing changes.
            NotFound: the entity was killed. Nothing changes.

        Source: ``drm_sched_entity_modify_sched``.
        """
        _require_schedulers("modify_schedulers", schedulers)
        before = self._join("modify_schedulers", schedulers)
        self._choose_scheduler()
        self._take_leave_of(before)

    def _join(self, call: str, schedulers: tuple[Scheduler, ...]) -> tuple[Scheduler, ...]:
        """Have it known to these, to choose among them, and return those before; or change nothing."""
        with guard:
            before, stopped = self._schedulers, self.stopped
            ended = [scheduler for scheduler in schedulers if scheduler._ending or scheduler._worker.closing]
            if not (stopped or ended):
                self._schedulers = schedulers
                for scheduler in schedulers:
                    scheduler._entities[self] = None
        if stopped:
            raise NotFound(f"{call}: {self!r} was killed; make a new entity", self)
        if ended:
            raise InvalidArgument(f"{call}: {ended[0]!r} has ended; name others", ended[0])
        return before

    def _choose_scheduler(self) -> None:
        """If idle, go to the scheduler with the fewest jobs (``drm_sched_entity_select_rq``)."""
        while True:
            schedulers = self._schedulers
            best = min(schedulers, key=_load)
            if task.preempt is not None:
                task.preempt()
            with guard:
                before, last = self._scheduler, self.last_scheduled
                current = self._schedulers is schedulers  # or they were modified, and it is forgotten at best
                if current:
                    if best is before or self._queue or not (last is None or last.signalled):
                        return
                    self._scheduler = best
            if current:
                return self._take_leave_of((before,))

    def _take_leave_of(self, schedulers: tuple[Scheduler, ...]) -> None:
        """Of those that its jobs do not go to any more."""
        with guard:
            for scheduler in schedulers:
                if scheduler not in self._schedulers and scheduler is not self._scheduler:
                    scheduler._entities.pop(self, None)

    # -- its jobs

    @property
    def idle(self) -> bool:
        """True if no job waits to be run."""
        return not self._queue

    def _enqueue(self, job: Job, scheduled: JobFence, finished: FinishedFence) -> bool:
        """Arm the job: give it and its fences their place. False if it was killed, or the job is armed."""
        if len(self._schedulers) > 1 or self._schedulers[0] is not self._scheduler:
            self._choose_scheduler()
        if job.credits > (limit := self._scheduler.credit_limit):
            warnings.warn(
                f"arm: {job.credits} credits are more than the scheduler's limit and cut down to it, {limit}",
                RuntimeWarning,
                stacklevel=3,
            )
        with guard:
            if self.stopped or job._state is not INITIALISED:
                return False
            self._seqno = scheduled.seqno = finished.seqno = self._seqno + 1
            self._latest = job._scheduled = scheduled
            job._finished = finished
            worker = finished.worker = job._worker = self._scheduler._worker
            worker.outstanding += 1
            if job.credits > worker.credit_limit:  # perhaps of yet another scheduler, just now
                job.credits = worker.credit_limit
            job._ready = job._dependencies is None and worker.prepare is None
            job._state = ARMED
            self._queue.append(job)
        return True

    def _join_run_queue(self, job: Job) -> None:
        """Its first job may be run, and is QUEUED by that if it was ARMED; under ``guard``."""
        queue = self._scheduler._worker.queue
        self._key = key = queue.make_key(self._priority, job._stamp)
        job._state, self._turns = QUEUED, True  # all of it or nothing: from here on no call
        queue.entities[key] = self

    def _leave_run_queue(self) -> None:
        """Its first job waits for something, or there is none; under ``guard``."""
        self._scheduler._worker.queue.remove(self._key)
        self._turns = False

    # -- ending

    def flush(self, timeout: float | None = None, *, interruptible: bool = False) -> bool:
        """Wait until all jobs armed so far were given to the hardware; at once if the entity was killed.

        On behalf of a client that is dying, ``kill`` instead, as the kernel does.

        Args:
            timeout: in seconds; None for ever.
            interruptible: ``Task.interrupt`` ends the wait.

        Returns:
            False if the time was up before.

        Raises:
            Interrupted: ``interruptible``, and the task was interrupted.
            InvalidArgument: called by the worker, which would have to give the jobs to the hardware.

        Source: ``drm_sched_entity_flush``.
        """
        self._scheduler._worker.refuse("flush")
        latest = self._latest
        return self.stopped or latest is None or latest.wait(timeout, interruptible=interruptible)

    def kill(self) -> None:
        """Take no more jobs, and do not run those that are queued.

        Each of these still waits for its dependencies and for the job before it, since others may rely on
        that. Then its ``finished`` fence is signalled with ``ESRCH`` and it is freed. Jobs that run are not
        touched. Afterwards the driver's ``run_job`` is not called for it, nor is inside such a call.

        Locking: sleeps while ``run_job`` has a job of this entity in hand.

        Source: ``drm_sched_entity_kill``.
        """
        self._kill(QUEUED)

    def _kill(self, *states: JobState) -> None:
        with guard:
            self.stopped = True
            if self._turns:
                self._leave_run_queue()
            worker = self._scheduler._worker
        self._kill_queued(*states)
        worker.wait_for_callback_of(self)

    def _kill_queued(self, *states: JobState) -> None:
        """Take the jobs out, up to the first that is in none of these states. The entity is stopped."""
        while True:
            if task.preempt is not None:
                task.preempt()
            with guard:
                if not self._queue or self._queue[0]._state not in states:
                    return
                job = self._queue[0]
                worker = job._worker
                del self._queue[0]  # from here on no call, after which Ctrl-C could come
                job._state = KILLED
                job._error, job._ended = errno.ESRCH, True
                job._previous = self.last_scheduled
                self.last_scheduled = job._finished
                worker.killed[job] = None
                worker.woken += (job,)
            worker.post.ring()

    def destroy(self, timeout: float | None = PATIENCE) -> None:
        """Flush, then kill what is left, and take leave of the schedulers.

        Args:
            timeout: how long the flush may take, in seconds.

        Raises:
            Busy: a job is armed and not pushed. It is killed already; push the job and destroy it again.
            InvalidArgument: called by the worker, which may ``kill``.

        Source: ``drm_sched_entity_destroy``, ``drm_sched_entity_fini``.
        """
        self.flush(timeout)
        self.kill()
        if self._queue:
            raise Busy(
                f"destroy: {self._queue[0]!r} is armed; push what is armed, which kills it, and destroy then",
                len(self._queue),
                0,
            )
        self._leave()

    def _leave(self) -> None:
        """Take leave of the schedulers."""
        with guard:
            for scheduler in (*self._schedulers, self._scheduler):
                scheduler._entities.pop(self, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.destroy()
            return
        self._kill(QUEUED, ARMED)  # nobody will push what is armed
        self._leave()

    # -- looking

    def check(self) -> None:
        """Verify that the queue is in order and where it should be. Any time.

        Raises:
            CheckFailed: with the state.
        """
        with guard:
            problem = self._find_problem()
            state = f"queue {list(self._queue)}, in run queue {self._turns}, stopped {self.stopped}"
        if problem:
            raise CheckFailed(f"{self!r}: {problem}; {state}")

    def _find_problem(self) -> str:
        """What does not hold, or nothing; under ``guard``."""
        seqnos = [job._finished.seqno for job in self._queue]
        if seqnos != list(range(self._seqno - len(seqnos) + 1, self._seqno + 1)):
            return f"jobs {seqnos} are queued after {self._seqno} were armed"
        for job in self._queue:
            if job._state not in (ARMED, QUEUED) or job._scheduled.signalled or job._finished.signalled:
                return f"{job!r} is in the queue, {job._scheduled!r}, {job._finished!r}"
            if job._worker is not self._scheduler._worker:
                return f"{job!r} belongs to another scheduler"
        if self._turns and (self.stopped or not self._queue or self._queue[0]._state is not QUEUED):
            return "it stands in the run queue with nothing to run"
        return ""

    def statistics(self) -> EntityStatistics:
        """How much waits, and where."""
        jobs = self._queue.copy()
        return EntityStatistics(
            self.name,
            self._priority,
            self._scheduler.name,
            len(jobs),
            sum(job._state is ARMED for job in jobs),
            self._seqno,
            self.stopped,
        )

    def __repr__(self) -> str:
        return f'<Entity "{self.name}" of "{self._scheduler.name}", {len(self._queue)} queued>'


def _require_schedulers(call: str, schedulers: tuple[Scheduler, ...]) -> None:
    if not schedulers:
        raise InvalidArgument(f"{call}: no scheduler; name at least one", 0, 1)
    for scheduler in schedulers:
        if not isinstance(scheduler, Scheduler):
            raise InvalidArgument(
                f"{call}: {scheduler!r} is no scheduler; pass Schedulers, an argument for each", scheduler
            )


def _load(scheduler: Scheduler) -> int:
    """How much a scheduler has to do: its jobs, armed and not freed."""
    return scheduler._worker.outstanding
