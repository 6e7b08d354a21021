"""Scheduler: whose job the hardware gets next (``struct drm_gpu_scheduler``)."""

from __future__ import annotations

import errno
from collections import deque
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from gpuvm.errors import Busy, CheckFailed, GpuvmError, InvalidArgument
from gpuvm.sched.arguments import require_backend, require_credit_limit, require_policy, require_timeout
from gpuvm.sched.backend import SchedulerBackend, call, overrides
from gpuvm.sched.job import KILLED, RUNNING, Job
from gpuvm.sched.run_queue import Policy, guard
from gpuvm.sched.watchdog import Watchdog
from gpuvm.sched.worker import Worker
from gpuvm.sync import task
from gpuvm.sync.fence import MAX_ERRNO, Fence
from gpuvm.sync.unraisable import report

if TYPE_CHECKING:
    from gpuvm.sched.entity import Entity

PATIENCE = 1.0
"""Seconds for which ``Entity.destroy`` waits before it kills (``MAX_WAIT_SCHED_ENTITY_Q_EMPTY``), and after
which a ``with`` block that an exception ends gives up."""

SHOWN = 8
"""How many entities or jobs an error lists before it says how many more there are."""


@dataclass(frozen=True, slots=True)
class SchedulerStatistics:
    """A snapshot of one scheduler."""

    name: str
    entities: int
    queued: int
    """Jobs of these, armed or pushed, that were not taken out yet."""
    in_flight: int
    """Jobs that the hardware has, or that are done and not freed."""
    killed: int
    """Jobs that were killed and are not freed."""
    credits_used: int
    credit_limit: int
    freed: int
    """Jobs freed so far."""
    timeouts: int
    """How many jobs timed out so far, false alarms included."""
    false_alarms: int


class Scheduler:
    """Gives jobs of entities to one piece of hardware, by priority, as far as credits allow.

    It has a thread that runs and frees jobs, and with a ``timeout`` another one for those that hang.
    ``with`` ends it, see ``fini``, for as long as that takes. If an exception ends the block, that gives up
    after a second, and notes on the exception what is left.

    Entities with a higher priority come first, strictly. Within one, ``policy`` decides. The first job that
    could be run but for lack of credits keeps all others waiting.

    A job is run when its dependencies are signalled. ``in_order`` promises more of the hardware: that it is
    one ring, which executes jobs in the order in which ``run_job`` got them. Then a job does not wait until
    another one of this scheduler is done, but until that was given to the hardware, unless its fence says
    ``dont_pipeline``. With more than one queue behind ``run_job`` that would be wrong. The kernel takes it
    for granted.

    Locking: none, any thread, if no callback is named. Not in signal handlers and finalizers. Calls of
    ``stop``, ``start`` and ``fini`` exclude each other, but for those in ``timedout_job``.

    Args:
        backend: the driver's callbacks.
        name: what reports call it.
        credit_limit: how many credits all jobs that the hardware has may take together.
        timeout: seconds that a job may take, from when it is given to the hardware or the one before it is
            done; None for ever. Needs ``timedout_job``.
        policy: whose turn it is among entities of one priority.
        in_order: the hardware is one ring.

    Raises:
        InvalidArgument: ``backend`` or ``policy`` is none; ``credit_limit`` is less than 1, or no int;
            ``timeout`` is not positive and finite, or nobody handles it.

    Source: ``drm_sched_init``.
    """

    def __init__(
        self,
        backend: SchedulerBackend[Any],
        *,
        name: str,
        credit_limit: int,
        timeout: float | None = None,
        policy: Policy = Policy.FIFO,
        in_order: bool = False,
    ) -> None:
        require_backend(backend)
        require_credit_limit(credit_limit)
        require_policy(policy)
        if timeout is not None:
            require_timeout(timeout, backend)
        self.name = name
        self.credit_limit = credit_limit
        self.timeout = timeout
        self.policy = policy
        self.in_order = in_order
        self._backend = backend
        self._entities: dict[Entity, None] = {}
        self._ending = False
        """``fini`` has been called, and has not failed; under ``guard``."""
        self._detached: deque[Job] = deque()
        """Jobs whose hardware's fences ``stop`` took away."""
        self._worker = Worker(backend, name, credit_limit, policy, in_order)
        if timeout is not None:
            duration = int(timeout * task.NSEC_PER_SEC)
            try:
                self._worker.watchdog = Watchdog(self._worker, backend, name, duration)
            except BaseException:  # there is no thread for it
                self._worker.dismiss()
                raise

    # -- looking

    @property
    def entities(self) -> tuple[Entity, ...]:
        """Those that may push jobs here."""
        return tuple(self._entities.copy())

    @property
    def in_flight(self) -> tuple[Job, ...]:
        """Jobs that the hardware has, or that are done and not freed; the oldest first."""
        return tuple(self._worker.in_flight.copy())

    @property
    def stopped(self) -> bool:
        """True between ``stop`` and ``start``."""
        return self._worker.paused

    # -- resetting the hardware

    def stop(self) -> None:
        """Call no more callbacks, and take the hardware's fences off the jobs.

        For resetting the hardware, in ``timedout_job`` or anywhere else. Jobs that are not done stay in
        flight. (The kernel's second argument, the job that hangs, is put back by it; here it never left.)
        Killed entities' jobs too have to wait for ``start``.

        Locking: sleeps until the callbacks that the worker is in have returned.

        Raises:
            Busy: it is stopped already.
            InvalidArgument: it has ended; or called by the worker, which would wait for itself.

        Source: ``drm_sched_stop``.
        """
        self._worker.refuse("stop")
        worker = self._worker
        with guard:
            stopped, closing = worker.paused, worker.closing
            worker.paused = stopped or not closing
        if closing:
            raise InvalidArgument(f"stop: {self!r} has ended")
        if stopped:
            raise Busy(f"stop: {self!r} is stopped already; start() it before")
        try:
            worker.quiesce()
        except BaseException:  # the validator knows of a deadlock
            worker.paused = False
            worker.post.ring()
            raise
        for job in self.in_flight:
            self._detach(job)

    def _detach(self, job: Job) -> None:
        """Take the hardware's fence off a job, unless it is done."""
        parent = job.parent
        if parent is not None and parent.remove_callback(job._hardware_done):
            job.parent = job._finished.parent = None
            self._detached.append(job)

    def start(self, error: int = 0) -> None:
        """Go on after ``stop``, and give jobs their time anew.

        Jobs in flight to which the driver gave a new ``parent`` meanwhile wait for that. The others were
        lost: they are done, with ``error``, by default with the error that the driver set on ``finished``
        or else ``ECANCELED``.

        Raises:
            InvalidArgument: it is not stopped; ``error`` is no errno; or a job's ``parent`` no fence. Nothing
                changes.

        Source: ``drm_sched_start``.
        """
        if not 0 <= error <= MAX_ERRNO:
            raise InvalidArgument(f"start: {error} is no errno; pass a positive one", error, MAX_ERRNO)
        worker = self._worker
        if not worker.paused:
            raise InvalidArgument(f"start: {self!r} is not stopped")
        for job in self._detached:
            if not (job.parent is None or isinstance(job.parent, Fence)):
                raise InvalidArgument(
                    f"start: the parent of {job!r} is {job.parent!r}; set the hardware's new Fence, or None",
                    job.parent,
                )
        self._reattach_all(error)
        now = task.now()
        with guard:
            worker.oldest_since = now
            worker.paused = False
        worker.post.ring()
        if worker.watchdog is not None:
            worker.watchdog.bell.ring()

    def _reattach_all(self, error: int) -> None:
        """Wait for the jobs' new fences; declare those without one lost."""
        while self._detached:
            job = self._detached.popleft()
            if job.parent is None:
                self._worker.end(job, error or job._finished.error or errno.ECANCELED)
            else:
                self._worker.follow(job, job.parent, error)

    # -- ending

    def fini(self, timeout: float | None = None) -> None:
        """Cancel what runs, free what is left, and end the threads. The entities must be gone.

        Waits for the jobs of killed entities, and so for their dependencies, whoever has to signal them. End
        those first whom they come from: of two schedulers, the one for whose jobs the other's wait.

        Args:
            timeout: how long to wait for these jobs, in seconds; None for ever. It cuts no callback short.

        Raises:
            Busy: entities are left; or jobs are running and the backend has no ``cancel_job``. Nothing
                changes. Or the time was up: what ran is cancelled, no entity can join any more, and the
                jobs that were killed still wait. Signal the fences that are named and call it again.
            InvalidArgument: it has ended already; or called by one of its own threads, which would wait for
                itself.

        Source: ``drm_sched_fini``.
        """
        self._worker.refuse("fini")
        watchdog = self._worker.watchdog
        if watchdog is not None and watchdog.is_current():
            raise InvalidArgument("fini: called in timedout_job, for whose end it would wait")
        deadline = task.deadline_after(timeout)
        with guard:
            ending, entities = self._ending, len(self._entities)
            self._ending = ending or not entities
        if ending:
            raise InvalidArgument(f"fini: {self!r} has ended already, or another thread is ending it")
        if entities:
            raise Busy(f"fini: {_shown(self.entities)} still at {self!r}; destroy them before", entities, 0)
        try:
            self._end(deadline)
        except BaseException:
            self._ending = False
            raise

    def _end(self, deadline: int | None) -> None:
        worker, watchdog = self._worker, self._worker.watchdog
        worker.wait_for_run_job()  # then it is known of each job whether the hardware has it
        running = [job for job in self.in_flight if not job._ended]
        if running and not overrides(self._backend, "cancel_job"):
            raise Busy(
                f"fini: {_shown(running)} still running on {self!r}; wait for that, or give the backend a "
                "cancel_job",
                len(running),
                0,
            )
        worker.closing = True
        if watchdog is not None:
            watchdog.end()
        self._cancel_all()
        worker.paused = False
        worker.post.ring()
        if not worker.ended.wait_until(deadline):
            raise self._time_is_up()
        worker.join()

    def _cancel_all(self) -> None:
        """Have the driver cancel all jobs that run, and end those that it leaves."""
        try:
            with self._worker.free_lock:  # so that none is freed while it is cancelled
                for job in reversed(self.in_flight):
                    if not job._ended:
                        self._cancel(job)
        finally:
            for job in self._detached:
                job.parent = None
            self._reattach_all(0)

    def _cancel(self, job: Job) -> None:
        try:
            call(self._backend.cancel_job, job)
        except Exception as error:
            report(error, f"cancel_job of {job!r}")
        finally:
            self._detach(job)

    def _time_is_up(self) -> Busy:
        """What ``fini`` still waits for: not for fences of its own jobs, which wait themselves."""
        worker = self._worker
        with guard:
            left = [*worker.in_flight, *worker.killed]
        own = {job._finished for job in left}
        waits = {job: fence for job in left if (fence := job._waits_for) is not None and fence not in own}
        what = "; ".join(f"{job!r} waits for {fence!r}" for job, fence in list(waits.items())[:SHOWN])
        return Busy(
            f"fini: time is up, and {what or 'a callback has not returned'}; see to it and call fini again",
            tuple(waits.values()),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.fini()
            return
        try:
            self.fini(PATIENCE)
        except GpuvmError as left:
            error.add_note(f"  at the end of the with block: {left}")

    # -- the rest

    def check(self) -> None:
        """Verify that every job is in one place, that credits add up, and that fences fit the jobs. Any time.

        Raises:
            CheckFailed: with the state.
        """
        with guard:
            problem = self._find_problem()
            worker = self._worker
            state = (
                f"in flight {list(worker.in_flight)}, killed {list(worker.killed)}, "
                f"credits {worker.credits_used} of {self.credit_limit}, outstanding {worker.outstanding}"
            )
        if problem:
            raise CheckFailed(f"{self!r}: {problem}; {state}")

    def _find_problem(self) -> str:
        """What does not hold, or nothing; under ``guard``."""
        worker = self._worker
        here = [entity for entity in self._entities if entity._scheduler is self]
        for entity in here:
            problem = entity._find_problem()
            if problem:
                return f"{entity!r}: {problem}"
        if len(worker.queue.entities) != sum(entity._turns for entity in here):
            return f"{len(worker.queue.entities)} entities stand in the run queue"
        used = sum(job.credits for job in worker.in_flight)
        if used != worker.credits_used or used > self.credit_limit:
            return f"jobs in flight take {used} credits"
        queued = sum(len(entity._queue) for entity in here)
        if worker.outstanding != queued + len(worker.in_flight) + len(worker.killed):
            return f"{queued} queued"
        for jobs, state in (worker.in_flight, RUNNING), (worker.killed, KILLED):
            for job in jobs:
                if job._state is not state or job._finished.signalled > job._ended:
                    return f"{job!r} should be {state.value}; {job._finished!r}"
                if job._finished.signalled and not job._scheduled.signalled:
                    return f"{job!r} is done, but was not scheduled"
        return ""

    def statistics(self) -> SchedulerStatistics:
        """How much waits, runs, and was done."""
        worker, watchdog = self._worker, self._worker.watchdog
        return SchedulerStatistics(
            self.name,
            len(self._entities),
            sum(len(entity._queue) for entity in self.entities if entity._scheduler is self),
            len(worker.in_flight),
            len(worker.killed),
            worker.credits_used,
            self.credit_limit,
            worker.freed,
            0 if watchdog is None else watchdog.timeouts,
            0 if watchdog is None else watchdog.false_alarms,
        )

    def __repr__(self) -> str:
        return f'<Scheduler "{self.name}">'


def _shown(left: tuple[object, ...] | list[Job]) -> str:
    """Some of what is left, as words."""
    more = f" and {len(left) - SHOWN} more" if len(left) > SHOWN else ""
    verb = "is" if len(left) == 1 else "are"
    return f"{', '.join(map(repr, left[:SHOWN]))}{more} {verb}"
