"""Job: a piece of work for the hardware, and its way through the scheduler (``struct drm_sched_job``)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

from gpuvm._core import require_stack
from gpuvm.errors import Busy, InvalidArgument, NotFound
from gpuvm.sched.dependency import Dependencies
from gpuvm.sched.fence import FinishedFence, JobFence
from gpuvm.sched.run_queue import guard
from gpuvm.sync import task
from gpuvm.sync.callbacks import repeatable
from gpuvm.sync.fence import Fence

if TYPE_CHECKING:
    from gpuvm.sched.entity import Entity
    from gpuvm.sched.worker import Worker


class JobState(Enum):
    """Where a job is. Of the way to FREED, either RUNNING or KILLED is a part."""

    INITIALISED = "initialised"
    """It is being made: dependencies can be added."""
    ARMED = "armed"
    """It has its fences and its place in the entity's queue, and must be pushed."""
    QUEUED = "queued"
    """It waits for its dependencies, for its turn, for credits."""
    RUNNING = "running"
    """It was given to the hardware, or is being given; perhaps it is done and not freed yet."""
    KILLED = "killed"
    """Its entity was killed; it waits for its dependencies and for the job before it."""
    FREED = "freed"
    """It is done, and ``free_job`` was called."""
    CLEANED_UP = "cleaned up"
    """It was given up before it was armed."""


INITIALISED: Final = JobState.INITIALISED
ARMED: Final = JobState.ARMED
QUEUED: Final = JobState.QUEUED
RUNNING: Final = JobState.RUNNING
KILLED: Final = JobState.KILLED
FREED: Final = JobState.FREED
CLEANED_UP: Final = JobState.CLEANED_UP

next_stamp: Final = itertools.count(1).__next__
"""When a job is pushed, compared with others."""

_ROOM: Final = 24
"""Levels of the stack for a push, and for all that a thread does that lends itself, but for what the driver
does."""


@dataclass(frozen=True, slots=True)
class JobStatistics:
    """A snapshot of one job."""

    state: JobState
    credits: int
    dependencies: int
    """Fences that it still has to look at."""
    scheduled_at: int | None
    """When it was given to the hardware, ns of ``task.now``."""
    finished_at: int | None
    """When it was done."""
    error: int


class Job:
    """Work that is pushed to an entity and given to the hardware in its turn. Drivers subclass it.

    ``Job(entity)``, ``add_dependency``, ``arm()``, publish ``finished`` where others find it, ``push()``. The
    order in which jobs of an entity are armed is the order in which they are run: ``arm`` takes the place
    in the queue, so no lock need be held until ``push``. Jobs behind one that is armed wait for it to be
    pushed.

    Locking: one thread until it is pushed; then it belongs to the scheduler.

    Args:
        entity: whose job it is.
        credits: how much of the scheduler's limit it takes while it runs, at least 1. ``arm`` cuts it down to
            the limit.

    Attributes:
        parent: the hardware's fence. While the scheduler is stopped, a driver that gave the job to the
            hardware again sets the new one here.

    Raises:
        NotFound: the entity was killed.
        InvalidArgument: ``credits`` is less than 1, or no int.

    Source: ``drm_sched_job_init``.
    """

    __slots__ = (
        "__weakref__",
        "_begun",
        "_dependencies",
        "_ended",
        "_error",
        "_finished",
        "_on_ring",
        "_previous",
        "_ready",
        "_scheduled",
        "_stamp",
        "_state",
        "_waits_for",
        "_worker",
        "credits",
        "entity",
        "parent",
    )

    _worker: Worker
    _scheduled: JobFence
    _finished: FinishedFence
    _ready: bool
    """Nothing is left of the dependencies."""
    _stamp: int
    """When it was pushed, compared with other jobs."""

    def __init__(self, entity: Entity, credits: int = 1) -> None:
        if entity.stopped:
            raise NotFound(f"Job: {entity!r} was killed and takes no more jobs; make a new entity", entity)
        if credits != 1:
            _require_credits(credits)
        self.entity = entity
        self.credits = credits
        self.parent: Fence | None = None
        self._state = INITIALISED
        self._dependencies: Dependencies | None = None
        self._waits_for: Fence | None = None
        """The dependency whose callback will go on with the others."""
        self._on_ring: Dependencies | None = None
        """Those of which only ``scheduled`` was waited for."""
        self._previous: Fence | None = None
        """``finished`` of the job before it, once it was taken out of the queue."""
        self._ended = False
        """It is known how it ends."""
        self._error = 0
        """With which errno; 0 without."""
        self._begun = 0
        """When it was taken out of the queue, if anybody times it."""

    # -- looking

    @property
    def state(self) -> JobState:
        """Where it is."""
        return self._state

    @property
    def scheduled(self) -> Fence:
        """Signalled when it was given to the hardware, or killed.

        Raises:
            InvalidArgument: it is not armed, so there is none yet.
        """
        self._require_armed("scheduled")
        return self._scheduled

    @property
    def finished(self) -> Fence:
        """Signalled when it is done.

        Raises:
            InvalidArgument: it is not armed, so there is none yet.
        """
        self._require_armed("finished")
        return self._finished

    @property
    def dependencies(self) -> tuple[Fence, ...]:
        """What it still has to look at, besides the one it waits for now."""
        dependencies = self._dependencies
        return dependencies.left() if dependencies is not None else ()

    # -- making

    def add_dependency(self, fence: Fence | None) -> None:
        """Do not run before ``fence`` is signalled. Its error does not keep the job from being run.

        None is nothing to wait for, as what a sync object without a fence answers.

        Of each context only the latest is kept, and none that is signalled. To wait for a reservation, add
        what it answers for the usage in question; for a sync object, the fence of the point.

        Raises:
            Busy: the job is armed.
            InvalidArgument: it was cleaned up; or that is no fence.

        Source: ``drm_sched_job_add_dependency``.
        """
        self._require_unarmed("add_dependency")
        if fence is None:
            return
        if not isinstance(fence, Fence):
            raise InvalidArgument(f"add_dependency: {fence!r} is no fence; pass a Fence, or None", fence)
        if fence.signalled:
            return
        if self._dependencies is None:
            self._dependencies = Dependencies()
        self._dependencies.add(fence)

    def arm(self) -> None:
        """Make the fences and take the next place in the entity's queue: the point of no return.

        An entity of several schedulers that is idle chooses the one with the fewest jobs now. Credits above
        the limit of the one chosen are cut down to it, with a ``RuntimeWarning``.

        Raises:
            Busy: it is armed already.
            InvalidArgument: it was cleaned up.
            NotFound: the entity was killed; nothing was changed, clean the job up.

        Source: ``drm_sched_job_arm``.
        """
        if self._state is not INITIALISED:
            self._require_unarmed("arm")
        if task.preempt is not None:
            task.preempt()
        entity = self.entity
        scheduled = JobFence(entity.context, entity.name)
        finished = FinishedFence(entity.context + 1, entity.name)
        finished.scheduled = scheduled
        finished.parent = None
        if not entity._enqueue(self, scheduled, finished):
            self._require_unarmed("arm")
            raise NotFound(f"arm: {entity!r} was killed and takes no more jobs; clean the job up", entity)

    def push(self) -> None:
        """Leave it to the scheduler. If the entity was killed since it was armed, it is killed as those were.

        Raises:
            InvalidArgument: it is not armed.
            Busy: it was pushed before, or an exception ended its entity's ``with`` block and killed it.
            RecursionError: the stack has no room; nothing was done.

        Source: ``drm_sched_entity_push_job``.
        """
        if task.preempt is not None:
            task.preempt()
        require_stack(_ROOM)
        entity = self.entity
        stamp = next_stamp()
        stopped = first = False
        try:
            with guard:
                armed = self._state is ARMED
                if armed:
                    self._stamp = stamp
                    stopped = entity.stopped
                    first = not stopped and entity._queue[0] is self
                    if first:
                        entity._join_run_queue(self)
                    else:
                        self._state = QUEUED
            if first:
                self._worker.post.ring()
            elif stopped:
                entity._kill_queued(QUEUED)
        except BaseException:  # Ctrl-C: perhaps it is pushed, and nobody knows
            if entity.stopped:
                entity._kill_queued(QUEUED)
            self._worker.post.ring()
            raise
        if not armed:
            raise self._unpushable("push")

    def push_and_wait(self, *, interruptible: bool = False) -> None:
        """Leave it to the scheduler and wait until it is done; what came of it is in ``finished``.

        As ``push`` and ``finished.wait``. But if nobody works for the scheduler now, and nothing keeps the
        job waiting, the calling thread gives it to the hardware by itself, and frees it if it is done then.
        So callbacks of the driver may run here, and what ends the program there, like ``KeyboardInterrupt``,
        comes out here; the job is done with ``EIO`` if it was ``run_job``.

        Locking: as a wait for ``finished``. Cost: no thread is woken if the calling one does it all.

        Args:
            interruptible: ``Task.interrupt`` ends the wait. The job is pushed all the same.

        Raises:
            InvalidArgument: it is not armed; or called in a callback of the worker, which would wait for
                itself: push it.
            Busy: it was pushed before, or killed.
            Interrupted: ``interruptible``, and the task was interrupted.
            LockdepError: under the validator, where this thread must not wait for it. It is pushed.
            Exception: what a dependency's ``poll`` raises. It is pushed.
            RecursionError: the stack has no room; nothing was done.
        """
        if self._state is not ARMED:
            raise self._unpushable("push_and_wait")
        require_stack(_ROOM)  # RecursionError, if any, is raised here rather than on the way
        worker = self._worker
        if worker.post.holder:
            worker.refuse("push_and_wait")
            self.push()
        elif not worker.lend(self):
            self.push()
        finished = self._finished
        if not finished._done:
            finished.wait(interruptible=interruptible)

    def cleanup(self) -> None:
        """Give it up instead of arming it.

        Raises:
            Busy: it is armed; push it.
            InvalidArgument: it was cleaned up already.

        Source: ``drm_sched_job_cleanup``.
        """
        self._require_unarmed("cleanup")
        self._state = CLEANED_UP
        self._dependencies = None

    # -- on the way

    @repeatable
    def _hardware_done(self, fence: Fence) -> None:
        """Callback of the hardware's fence."""
        self._worker.end(self, fence.error)

    @repeatable
    def _dependency_signalled(self, _fence: Fence) -> None:
        """Callback of a dependency. The worker looks at the others."""
        self._worker.look_again(self)

    # -- the rest

    def _require_unarmed(self, call: str) -> None:
        if self._state is INITIALISED:
            return
        if self._state is CLEANED_UP:
            raise InvalidArgument(f"{call}: {self!r} was cleaned up; make a new job", self._state)
        raise Busy(f"{call}: {self!r} is armed, from where there is no way back", self._state, INITIALISED)

    def _require_armed(self, what: str) -> None:
        if self._state is INITIALISED or self._state is CLEANED_UP:
            raise InvalidArgument(f"{what}: {self!r} has no fences before arm()", self._state, ARMED)

    def _unpushable(self, call: str) -> Busy | InvalidArgument:
        if self._state is INITIALISED or self._state is CLEANED_UP:
            return InvalidArgument(f"{call}: {self!r} is not armed; arm() it before", self._state, ARMED)
        if not hasattr(self, "_stamp"):
            problem = "was killed before it was pushed, when an exception ended its entity's with block"
            return Busy(f"{call}: {self!r} {problem}", self._state, ARMED)
        return Busy(f"{call}: {self!r} was pushed before; a job is pushed once", self._state, ARMED)

    def statistics(self) -> JobStatistics:
        """Where it is, and when it got there."""
        armed = self._state is not INITIALISED and self._state is not CLEANED_UP
        return JobStatistics(
            self._state,
            self.credits,
            len(self.dependencies) + (self._waits_for is not None),
            self._scheduled.timestamp if armed else None,
            self._finished.timestamp if armed else None,
            self._finished.error if armed else 0,
        )

    def __repr__(self) -> str:
        armed = self._state is not INITIALISED and self._state is not CLEANED_UP
        number = f" #{self._finished.seqno}" if armed else ""
        return f'<{type(self).__name__}{number} of entity "{self.entity.name}", {self._state.value}>'


def _require_credits(credits: object) -> None:
    if not isinstance(credits, int) or credits < 1:
        raise InvalidArgument(f"Job: credits is {credits!r}; pass an int, at least 1", credits, 1)
