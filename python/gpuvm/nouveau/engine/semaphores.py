"""SemaphoreWaits: channels that wait until a word of memory says what they want."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gpuvm.errors import CheckFailed
from gpuvm.nouveau.engine.fault import Stopped
from gpuvm.sync import task

FIRST_POLL: Final = 10_000
"""ns until a word is looked at again."""
LAST_POLL: Final = 1_000_000
"""The same, after it was looked at often: what a write by the CPU may take to be seen."""


@dataclass(frozen=True, slots=True)
class SemaphoreWaitsStatistics:
    """A snapshot of a device's semaphores."""

    waiting: int
    """Channels that wait now."""


class SemaphoreWaits:
    """Who waits for words of memory; one for each device.

    Engines say when they wrote one, and whoever waits looks at once. The CPU says nothing, so they look by
    themselves too, less and less often.

    Locking: any thread. Nobody may hold a lock while he waits.
    """

    def __init__(self) -> None:
        self._waiters: Final[dict[task.Waiter, None]] = {}

    def wait_until(self, reached: Callable[[], bool], stopped: Callable[[], bool]) -> None:
        """Sleep until ``reached`` says so.

        Raises:
            Stopped: ``stopped`` says so.
            what ``reached`` raises.
        """
        pause = FIRST_POLL
        while True:
            waiter = task.Waiter()
            self._waiters[waiter] = None
            try:
                # Only now: what is written after this look wakes the waiter.
                if stopped():
                    raise Stopped
                if reached():
                    return
                waiter.wait(task.now() + pause)
            finally:
                del self._waiters[waiter]
            pause = min(2 * pause, LAST_POLL)

    def released(self) -> None:
        """A word was written, or a channel stopped: all look again. O(waiting)."""
        for waiter in list(self._waiters):
            waiter.wake()

    def check(self) -> None:
        """Verify that nobody is left in the list. Call it while no channel executes.

        Raises:
            CheckFailed: with the state.
        """
        if self._waiters:
            raise CheckFailed(f"semaphores: {[waiter.task for waiter in self._waiters]} wait")

    def statistics(self) -> SemaphoreWaitsStatistics:
        """Who waits now."""
        return SemaphoreWaitsStatistics(len(self._waiters))
