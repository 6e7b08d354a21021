"""The fences of a job, and what others have to know of the job behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpuvm.errors import InvalidArgument
from gpuvm.sync.fence import WATCHED, Fence

if TYPE_CHECKING:
    from gpuvm.sched.worker import Worker


class JobFence(Fence):
    """Signalled by the scheduler and nobody else.

    Args:
        context: one of its entity's two; ``Job.arm`` gives it its place there.
        timeline: the entity's name.
    """

    __slots__ = ()

    def __init__(self, context: int, timeline: str) -> None:
        # As Fence does, without a look at numbers that are right: two of these are made for each job.
        self._callbacks = {}
        self._done = []
        self._unwatched = WATCHED
        self._error = 0
        self._deadlines = []
        self.context = context
        self.seqno = 0
        self.driver = "sched"
        self.timeline = timeline
        self.dont_pipeline = False

    def signal(self, timestamp: int | None = None) -> None:
        """Refused: the scheduler, which signals it by ``announce``, would lose its job.

        Raises:
            InvalidArgument: always.
        """
        raise InvalidArgument(
            f"signal: {self!r} is signalled by the scheduler alone; signal the hardware's fence, which "
            "run_job returned"
        )

    announce = Fence._finish


class FinishedFence(JobFence):
    """Signalled when the job is done, with the error of the hardware's fence (``drm_sched_fence.finished``).

    A deadline asked of it is passed on to the hardware's fence, as soon as there is one.

    Attributes:
        scheduled: its other half, signalled when the job was given to the hardware.
        worker: of the scheduler that runs the job; None before it is armed and once it is done.
        parent: the hardware's fence, as long as it is waited for.

    ``Job.arm`` sets these.

    Source: ``drivers/gpu/drm/scheduler/sched_fence.c``.
    """

    __slots__ = ("parent", "scheduled", "worker")

    scheduled: JobFence
    worker: Worker | None
    parent: Fence | None

    def follow(self, parent: Fence) -> None:
        """The hardware has the job, and ``parent`` stands for it (``drm_sched_fence_set_parent``)."""
        self.parent = parent
        deadline = self.deadline
        if deadline is not None:
            parent.set_deadline(deadline)

    def set_deadline(self, deadline: int) -> None:
        """Hint, passed on to the hardware (``drm_sched_fence_set_deadline_finished``)."""
        super().set_deadline(deadline)
        parent = self.parent
        if parent is not None:
            parent.set_deadline(deadline)
