"""What tests of interleavings have their threads do."""

from __future__ import annotations

from gpuvm.sync import task
from gpuvm.sync.fence import Fence, fence_context_alloc
from gpuvm.testing import Interleaving


def pause(times: int = 1) -> None:
    for _ in range(times):
        if task.preempt is not None:
            task.preempt()


def sleep_until(deadline: int) -> None:
    assert not task.Waiter().wait(deadline)


def pending_fence() -> Fence:
    return Fence(fence_context_alloc(), 1)


def waits_for_ever(run: Interleaving) -> None:
    run.spawn(pending_fence().wait)
