"""MockDevice: hardware that does nothing and takes its time, for whatever sits on a scheduler.

After the mock scheduler of the kernel's tests, ``drivers/gpu/drm/scheduler/tests/mock_scheduler.c``.
"""

from __future__ import annotations

import errno
from _thread import allocate_lock
from collections import deque
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from gpuvm.errors import CheckFailed, InvalidArgument
from gpuvm.sched import Entity, Job, SchedulerBackend, TimeoutStatus
from gpuvm.sched.doorbell import Doorbell
from gpuvm.sync import task
from gpuvm.sync.fence import MAX_ERRNO, Fence, fence_context_alloc


class MockJob(Job):
    """A job for a ``MockDevice``.

    Args:
        entity: whose job it is.
        name: what the device's log calls it.
        duration: how long it takes, in ns of ``task.now``, from when the one before it on its queue is
            done. 0: it is done at once. None: it takes until ``advance``. (Nanoseconds, as all of this clock;
            the scheduler's ``timeout`` is in seconds.)
        queue: of the device, which executes it.
        credits: of the scheduler.
        false_alarm: whether the device will find, the first time that it times out, that nothing is wrong.

    Raises:
        InvalidArgument: ``duration`` is negative, or no int; or a device of the entity has no such queue.
    """

    __slots__ = ("duration", "ends", "false_alarm", "hardware_fence", "name", "order", "queue")

    def __init__(
        self,
        entity: Entity,
        name: str = "",
        *,
        duration: int | None = None,
        queue: int = 0,
        credits: int = 1,
        false_alarm: bool = False,
    ) -> None:
        super().__init__(entity, credits)
        if not (duration is None or _is_count(duration)):
            raise InvalidArgument(
                f"MockJob: duration is {duration!r}; pass ns as an int, at least 0, or None", duration, 0
            )
        for scheduler in entity.schedulers:
            if isinstance(scheduler._backend, MockDevice):
                scheduler._backend._require_queue("MockJob", queue)
        self.name = name
        self.duration = duration
        self.queue = queue
        self.false_alarm = false_alarm
        self.hardware_fence: Fence | None = None
        self.order = 0
        """The how manyeth job of the device it is."""
        self.ends: int | None = None
        """When it will be done, if it is being executed."""


@dataclass(frozen=True, slots=True)
class MockDeviceStatistics:
    """A snapshot of a mock device."""

    submitted: int
    """Jobs given to it so far."""
    pending: int
    """Of these, those that are not done."""


class MockDevice(SchedulerBackend[MockJob]):
    """Queues that execute jobs in order, independently of each other, as far as the jobs' durations tell.

    ``advance(n)`` ends the next n jobs, whatever their duration. Time passes by itself too: under an
    ``Interleaving`` in no time, otherwise really. It is a ``SchedulerBackend`` with all callbacks. ``with``
    ends its thread, which it has from the first job that takes time.

    Locking: none, any thread.

    Args:
        queues: how many it has.

    Attributes:
        log: what happened, as pairs of an event and the job's name: "run", "skip" (run with an error
            already), "done", "timeout", "cancel", "free".
    """

    def __init__(self, queues: int = 1) -> None:
        if not _is_count(queues) or queues < 1:
            raise InvalidArgument(f"MockDevice: {queues!r} queues; it needs at least 1", queues, 1)
        self.log: list[tuple[str, str]] = []
        self._context = fence_context_alloc(queues)
        self._queues: list[deque[MockJob]] = [deque() for _ in range(queues)]
        self._submitted = 0
        self._guard = allocate_lock()
        self._done: deque[tuple[MockJob, int]] = deque()
        """Jobs to be signalled, with their errors, in order."""
        self._signalling = False
        """Somebody is about it."""
        self._bell = Doorbell()
        self._thread: task.Thread | None = None
        self._ended = False

    # -- callbacks of the scheduler

    def run_job(self, job: MockJob) -> Fence | None:
        """Queue it, unless it has an error already.

        Raises:
            InvalidArgument: there is no such queue; the entity came from another device.
        """
        self._require_queue("run_job", job.queue)
        if job.finished.error:
            self.log.append(("skip", job.name))
            return None
        self.log.append(("run", job.name))
        fence = Fence(
            self._context + job.queue, self._submitted, driver="mock", timeline=f"queue {job.queue}"
        )
        job.hardware_fence = fence
        now = task.now()
        with self._guard:
            self._submitted += 1
            fence.seqno = job.order = self._submitted
            queue = self._queues[job.queue]
            queue.append(job)
            if queue[0] is job:
                _begin(job, now)
        if job.duration and self._thread is None:
            self._thread = task.start("mock device", self._run)
        self._end_due()
        return fence

    def timedout_job(self, job: MockJob) -> TimeoutStatus:
        """Find a false alarm, or end it with ``ETIMEDOUT``."""
        self.log.append(("timeout", job.name))
        if job.false_alarm:
            job.false_alarm = False
            return TimeoutStatus.NO_HANG
        self._abort(job, errno.ETIMEDOUT)
        return TimeoutStatus.RESET

    def cancel_job(self, job: MockJob) -> None:
        """End it with ``ECANCELED``."""
        self.log.append(("cancel", job.name))
        self._abort(job, errno.ECANCELED)

    def free_job(self, job: MockJob) -> None:
        """Note it."""
        self.log.append(("free", job.name))

    # -- for tests

    def advance(self, count: int = 1) -> int:
        """End the next ``count`` jobs, always the one of all queues' first that was submitted first.

        Returns:
            How many there were. Jobs that were pushed just now may not be here yet; sleep until they are
            ``scheduled``.

        Raises:
            InvalidArgument: ``count`` is negative, or no int.

        Source: ``drm_mock_sched_advance``.
        """
        if not _is_count(count):
            raise InvalidArgument(f"advance: {count!r} jobs; pass an int, at least 0", count, 0)
        ended = 0
        with self._guard:
            while ended < count:
                first = min((queue[0] for queue in self._queues if queue), key=_order, default=None)
                if first is None:
                    break
                self._end(first, 0)
                ended += 1
        self._end_due()
        return ended

    def abort(self, job: MockJob, error: int) -> None:
        """End this job with an error, a positive errno, unless it is done.

        Raises:
            InvalidArgument: that is no errno; or the job was not given to the device.
        """
        if not 0 < error <= MAX_ERRNO:
            raise InvalidArgument(f"abort: {error} is no errno; pass a positive one", error, MAX_ERRNO)
        if not job.order and job.statistics().finished_at is None:
            raise InvalidArgument(
                f"abort: {job!r} was not given to the device; sleep until it is scheduled, then abort it", job
            )
        self._abort(job, error)

    def _abort(self, job: MockJob, error: int) -> None:
        with self._guard:
            if job in self._queues[job.queue]:
                self._end(job, error)
        self._end_due()

    def names(self, event: str) -> list[str]:
        """The names of the jobs to which it happened, in order."""
        return [name for happened, name in self.log if happened == event]

    @property
    def pending(self) -> tuple[MockJob, ...]:
        """Jobs that are not done, in the order in which they were submitted."""
        with self._guard:
            return tuple(sorted((job for queue in self._queues for job in queue), key=_order))

    # -- executing

    def _end(self, job: MockJob, error: int) -> None:
        """Take it off its queue, and begin the next; under the guard."""
        queue = self._queues[job.queue]
        was_first = queue[0] is job
        queue.remove(job)
        if was_first and queue:
            _begin(queue[0], task.now() if job.ends is None else min(job.ends, task.now()))
        self._done.append((job, error))

    def _end_due(self) -> None:
        """End the jobs whose time is up, signal what was ended, and look when the next will be."""
        self._end_and_signal(task.now())
        if self._thread is not None:
            self._bell.ring()

    def _end_and_signal(self, now: int) -> None:
        with self._guard:
            while (job := self._next_due()) is not None and job.ends is not None and job.ends <= now:
                self._end(job, 0)
            if self._signalling:
                return  # so that fences of one queue are signalled in order
            self._signalling = True
        try:
            while (done := self._take_done()) is not None:
                self._signal(*done)
        except BaseException:  # a callback ends the program; others may still signal what is left
            with self._guard:
                self._signalling = False
            raise

    def _take_done(self) -> tuple[MockJob, int] | None:
        with self._guard:
            if self._done:
                return self._done.popleft()
            self._signalling = False
            return None

    def _signal(self, job: MockJob, error: int) -> None:
        self.log.append(("done", job.name))
        fence, job.hardware_fence = job.hardware_fence, None
        if fence is not None and not fence.signalled:  # or somebody else was faster
            if error:
                fence.set_error(error)
            fence.signal()

    def _require_queue(self, call: str, queue: int) -> None:
        if not _is_count(queue) or queue >= len(self._queues):
            raise InvalidArgument(
                f"{call}: queue is {queue!r}; the device has {len(self._queues)}, counted from 0",
                queue,
                len(self._queues) - 1,
            )

    def _next_due(self) -> MockJob | None:
        """The job whose time will be up first; under the guard."""
        timed = (queue[0] for queue in self._queues if queue and queue[0].ends is not None)
        return min(timed, key=_ends, default=None)

    # -- the clock

    def _run(self) -> None:
        while True:
            self._end_due()
            self._bell.clear()
            if self._ended:
                return
            with self._guard:
                job = self._next_due()
                ends = None if job is None else job.ends
            job = None  # or it would live on while we sleep
            self._bell.sleep(ends)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended = True
        self._bell.ring()
        if self._thread is not None:
            self._thread.join()

    # -- the rest

    def check(self) -> None:
        """Verify that the queues are in order, and that nobody was told of what is not done. Any time.

        Raises:
            CheckFailed: with the state.
        """
        with self._guard:
            for number, queue in enumerate(self._queues):
                orders = [job.order for job in queue]
                told = any(job.hardware_fence is None or job.hardware_fence.signalled for job in queue)
                if told or orders != sorted(orders) or any(job.ends is not None for job in list(queue)[1:]):
                    raise CheckFailed(
                        f"queue {number}: {[(job, job.hardware_fence, job.ends) for job in queue]}"
                    )

    def statistics(self) -> MockDeviceStatistics:
        """How much it got, and what of this is left."""
        return MockDeviceStatistics(self._submitted, sum(map(len, self._queues)))


def _is_count(number: object) -> bool:
    return isinstance(number, int) and number >= 0


def _begin(job: MockJob, now: int) -> None:
    """Its queue is free for it."""
    job.ends = None if job.duration is None else now + job.duration


def _order(job: MockJob) -> int:
    return job.order


def _ends(job: MockJob) -> int:
    return job.ends or 0
