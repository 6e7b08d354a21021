"""What a job waits for before it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpuvm.errors import InvalidArgument
from gpuvm.sched.fence import FinishedFence
from gpuvm.sync.fence import Fence

if TYPE_CHECKING:
    from gpuvm.sched.job import Job
    from gpuvm.sched.worker import Worker


class Dependencies:
    """Fences, of each context only the latest: it is signalled after those before it.

    Locking: the thread that makes the job until it is armed, the worker from then on.

    Source: ``drm_sched_job_add_dependency``.
    """

    __slots__ = ("_latest",)

    def __init__(self) -> None:
        self._latest: dict[int, Fence] = {}

    def add(self, fence: Fence) -> None:
        """Wait for this one too, unless a later one of its context is there."""
        known = self._latest.get(fence.context)
        if known is None or fence.is_later(known):
            self._latest[fence.context] = fence

    def take(self) -> Fence | None:
        """Remove one, the first that was added; None if none is left."""
        latest = self._latest
        return latest.pop(next(iter(latest))) if latest else None

    def left(self) -> tuple[Fence, ...]:
        """Those not taken yet."""
        return tuple(self._latest.values())

    def all_signalled(self) -> bool:
        """True if there is nothing left to wait for."""
        return all(fence.signalled for fence in self._latest.values())


def pipelined(worker: Worker, job: Job, fence: Fence) -> Fence:
    """What to wait for in place of ``fence`` before ``job`` is run.

    If the scheduler is one ring, which executes in the order in which it is given jobs, it is enough that the
    other job was given to it before. It is not if jobs may go to different queues.
    """
    if not worker.in_order or not isinstance(fence, FinishedFence) or fence.dont_pipeline:
        return fence
    if fence.worker is not worker:
        return fence
    if job._on_ring is None:
        job._on_ring = Dependencies()
    job._on_ring.add(fence)
    return fence.scheduled


def require_dependency(fence: object, job: Job) -> Fence:
    """What ``prepare_job`` answered, if it is a fence that can be signalled before the job is run."""
    if not isinstance(fence, Fence):
        raise TypeError(f"prepare_job returned {fence!r}; return a Fence, or None if there is nothing more")
    first = job._finished.seqno
    if fence.context in (job._scheduled.context, job._finished.context) and fence.seqno >= first:
        raise InvalidArgument(
            f"prepare_job: {fence!r} is of this job or of a later one, which wait for it; return None if "
            "there is nothing more",
            fence.seqno,
            first,
        )
    return fence
