"""What tests of interleavings have their threads do, and in how many orders."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import TypeVar

from gpuvm.sync import task
from gpuvm.sync.fence import Fence, fence_context_alloc
from gpuvm.testing import Interleaving

Scene = TypeVar("Scene")


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


def in_orders(
    scene_of: Callable[[int], AbstractContextManager[Scene]], seeds: Iterable[int]
) -> Callable[[Callable[[Scene], None]], Callable[[], None]]:
    """Makes a test of a scenario: it is played in a new scene for each seed."""

    def decorate(scenario: Callable[[Scene], None]) -> Callable[[], None]:
        def test() -> None:
            for seed in seeds:
                with scene_of(seed) as scene:
                    scenario(scene)

        test.__doc__ = scenario.__doc__
        return test

    return decorate
