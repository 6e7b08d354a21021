"""Waiting for one fence: asleep, or suspended in asyncio. Neither keeps the fence alive meanwhile."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from gpuvm.sync import lockdep, task
from gpuvm.sync.callbacks import Repeatable, run_due

if TYPE_CHECKING:
    from gpuvm.sync.fence import Fence


class Wait(Repeatable):
    """One wait of one thread. What has to be done with the fence is done when it is made.

    Args:
        fence: what to wait for.
        deadline: when to give up, in ns of ``task.now``; None for never; what is past: look only.
        interruptible: ``Task.interrupt`` ends the wait.

    Raises:
        LockdepError: under the validator, where this thread must not wait for the fence.
    """

    __slots__ = ("_callbacks", "_deadline", "_interruptible", "_signalled", "_ticket", "_waiter")

    def __init__(self, fence: Fence, deadline: int | None, interruptible: bool) -> None:
        if lockdep.enabled:
            lockdep.might_wait(fence)
        self._deadline = deadline
        self._interruptible = interruptible
        self._ticket: int | None = None
        self._signalled = fence.signalled
        if self._signalled:
            return
        self._waiter = task.Waiter()
        if deadline is not None and deadline <= task.now():
            if task.preempt is not None:
                task.preempt()
            return
        self._callbacks = fence._callbacks
        self._ticket = fence._add(self)
        self._signalled = self._ticket is None

    def __call__(self, _fence: Fence) -> None:
        """Callback of the fence."""
        self._waiter.wake()

    def sleep(self) -> bool:
        """Until it is signalled; False if the time was up before.

        Raises:
            Interrupted: it was to be ``interruptible``, and the task was interrupted.
        """
        if self._signalled:
            return True
        if self._ticket is None:
            return self._interruptible and self._waiter.wait(self._deadline, interruptible=True)
        run_due()
        try:
            self._waiter.wait(self._deadline, interruptible=self._interruptible)
        finally:
            in_time = self._callbacks.pop(self._ticket, None) is None
        return in_time


def resume_when_signalled(fence: Fence) -> Generator[Any, None, None]:
    """What ``await fence`` comes to.

    Raises:
        LockdepError: under the validator, where this thread must not wait for the fence.
    """
    import asyncio

    if lockdep.enabled:
        lockdep.might_wait(fence)
    loop = asyncio.get_running_loop()
    future = loop.create_future()

    def resume() -> None:
        if not future.done():
            future.set_result(None)

    def wake(_fence: Fence) -> None:
        loop.call_soon_threadsafe(resume)

    ticket = None if fence.signalled else fence._add(wake)
    if ticket is None:
        return
    callbacks = fence._callbacks
    del fence
    try:
        yield from future
    finally:
        callbacks.pop(ticket, None)
