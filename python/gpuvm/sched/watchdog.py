"""The watchdog: one thread for each scheduler that has a timeout, which tells the driver of jobs that hang.

It is not the worker's thread, so a job times out even while ``run_job`` does not return.
"""

from __future__ import annotations

from _thread import get_ident
from typing import TYPE_CHECKING, Any

from gpuvm.sched.backend import SchedulerBackend, TimeoutStatus, call
from gpuvm.sched.doorbell import Doorbell
from gpuvm.sched.job import Job
from gpuvm.sched.run_queue import guard
from gpuvm.sync import task
from gpuvm.sync.unraisable import report

if TYPE_CHECKING:
    from gpuvm.sched.worker import Worker


class Watchdog:
    """Times the oldest job that the hardware has.

    Its time begins when it is taken out of the queue, or when the one before it is done, if that is later:
    on a ring, a job begins when those before it are done. The thread is not woken for each job. It sleeps
    until the moment at which the job that was the oldest would have timed out, and then looks who is the
    oldest now. Only when nothing was done all the while does it sleep until it is rung.

    Source: ``drm_sched_job_timedout``, ``drm_sched_start_timeout``.
    """

    def __init__(self, worker: Worker, backend: SchedulerBackend[Any], name: str, timeout: int) -> None:
        self.idle = False
        """It sleeps until it is rung; under ``guard``."""
        self.timeouts = 0
        """How many jobs timed out, false alarms included."""
        self.false_alarms = 0
        self._worker = worker
        self._backend = backend
        self._timeout = timeout
        self._no_device = False
        self._ended = False
        self._freed = 0
        """How many jobs had been freed when it looked last."""
        self.bell = Doorbell()
        """Rung when there may be something to time."""
        self._ident = 0
        self._thread = task.start(f"{name} watchdog", self._run)

    def is_current(self) -> bool:
        """True in ``timedout_job``."""
        return get_ident() == self._ident

    def wind_up(self) -> None:
        """There is something to time."""
        if self.idle:
            self.bell.ring()

    def end(self) -> None:
        """End the thread, after ``timedout_job`` has returned."""
        self._ended = True
        self.bell.ring()
        self._thread.join()

    def _run(self) -> None:
        self._ident = get_ident()
        while True:
            self.bell.clear()
            if self._ended:
                return
            job = self._oldest()
            if job is not None and self._deadline(job) <= task.now():
                self._time_out(job)
            else:
                look_at = self._next_look(job)
                job = None  # or it would live on while we sleep
                self.bell.sleep(look_at)

    def _next_look(self, oldest: Job | None) -> int | None:
        """When to look again: before that, nothing can time out."""
        if oldest is not None:
            return self._deadline(oldest)
        return None if self.idle else task.now() + self._timeout

    def _oldest(self) -> Job | None:
        """The oldest job that is not done."""
        worker = self._worker
        with guard:
            self.idle = False
            if worker.paused or self._no_device:
                self.idle = True
            else:
                for place in range(len(worker.in_flight)):
                    job = worker.in_flight[place]
                    if not job._ended:
                        return job
                    worker.note_end_of_oldest(job)
                self.idle = worker.freed == self._freed
                self._freed = worker.freed
        return None

    def _deadline(self, job: Job) -> int:
        return max(job._begun, self._worker.oldest_since) + self._timeout

    def _time_out(self, job: Job) -> None:
        """Ask the driver what is the matter."""
        worker = self._worker
        with guard:
            if job._ended or worker.paused:
                return
            worker.timing_out = job
        status = TimeoutStatus.RESET
        try:
            status = _require_status(call(self._backend.timedout_job, job))
        except BaseException as error:
            report(error, f"timedout_job of {job!r}")
        self.timeouts += 1
        self.false_alarms += status is TimeoutStatus.NO_HANG
        self._no_device = status is TimeoutStatus.NO_DEVICE
        now = task.now()
        with guard:
            worker.oldest_since = now
            worker.timing_out = None
            late, worker.done_late = worker.done_late, None
        if late is not None:
            worker.done.append(late)
            worker.post.ring()


def _require_status(answer: object) -> TimeoutStatus:
    if isinstance(answer, TimeoutStatus):
        return answer
    raise TypeError(f"timedout_job returned {answer!r}; return a TimeoutStatus")
