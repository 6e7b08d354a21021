"""What a driver brings to the scheduler: the callbacks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from enum import Enum
from typing import Any, Generic, TypeVar

from gpuvm.sched.job import Job
from gpuvm.sync import lockdep
from gpuvm.sync.fence import Fence

J = TypeVar("J", bound=Job)
T = TypeVar("T")


class TimeoutStatus(Enum):
    """What ``timedout_job`` found (``enum drm_gpu_sched_stat``)."""

    RESET = "reset"
    """The job hung; the driver did what it takes."""
    NO_HANG = "no hang"
    """False alarm: the job is given as much time again."""
    NO_DEVICE = "no device"
    """The device is gone: no timeouts from now on (``ENODEV``)."""


class SchedulerBackend(ABC, Generic[J]):
    """The driver's side of a scheduler, for jobs of its class ``J``. Only ``run_job`` must be there.

    ``prepare_job``, ``run_job`` and ``free_job`` are called by the scheduler's worker, or ``run_job`` and
    ``free_job`` by a thread in ``Job.push_and_wait``, one at a time; ``timedout_job`` by a thread of its own.
    As long as one of these does not return, fences that others wait for are not signalled. So none may lock a
    reservation, wait for a fence of somebody else, or make the core allocate; the validator sees to it. What
    needs more belongs into a thread of the driver's.

    What a callback raises besides the errors listed has no caller; it goes to ``sys.unraisablehook``, be it
    ``SystemExit``. Only what ends the program passes through to a caller of ``push_and_wait``, and through
    ``cancel_job`` to the caller of ``fini``.

    Source: ``struct drm_sched_backend_ops``.
    """

    @abstractmethod
    def run_job(self, job: J) -> Fence | None:
        """Give the job to the hardware.

        It is called for jobs too whose ``finished`` carries an error already, those of a guilty entity. The
        driver should look, and leave the hardware alone.

        Returns:
            The hardware's fence, whose error becomes the job's; None if the job is done.

        Raises:
            GpuvmError: the job is done, with this errno. Any other exception: done with EIO.
        """

    def prepare_job(self, job: J) -> Fence | None:
        """One more fence that the job must wait for; None if there is none. Called until it returns None.

        It is called once all dependencies are signalled. Not for jobs that were killed. A fence of this job
        or of a later one of its entity would never be signalled: that is a bug, which is told, and not
        waited for.
        """
        return None

    def timedout_job(self, job: J) -> TimeoutStatus:
        """The job takes longer than the scheduler's timeout; needed where there is one.

        The driver may ``stop`` the scheduler, reset the hardware and ``start`` it again, or signal the
        hardware's fence with an error, or find that nothing is wrong. If the job is not done afterwards, it
        is given as much time again. It is not freed before this returns. An exception counts as RESET.
        """
        raise NotImplementedError

    def cancel_job(self, job: J) -> None:
        """The scheduler ends: signal the hardware's fence, with an error, e.g. ``ECANCELED``. Do not free.

        Called by ``fini``, in the thread of its caller, for the youngest job first. A fence left unsignalled
        is not waited for: the job is done with ``ECANCELED``. A backend without it can only end with nothing
        running.
        """
        raise NotImplementedError

    def free_job(self, job: J) -> None:
        """The job is done and ``finished`` is signalled. Called once for every job that was pushed."""


def overrides(backend: SchedulerBackend[Any], callback: str) -> bool:
    """True if the driver brought this callback."""
    own = getattr(backend, callback)
    return getattr(own, "__func__", own) is not getattr(SchedulerBackend, callback)


def call(callback: Callable[[Any], T], job: Job) -> T:
    """Call it for the job, whose fence waits to be signalled, in the validator's sight."""
    if not lockdep.enabled:
        return callback(job)
    with lockdep.fence_signalling(job._finished.context):
        return callback(job)
