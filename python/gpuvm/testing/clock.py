"""Clock: virtual time, and those who sleep in it."""

from __future__ import annotations

from gpuvm.errors import InvalidArgument
from gpuvm.sync import task
from gpuvm.testing.thread import Controlled


class Clock:
    """It stands still until it is moved; then those whose deadline has come sleep no more."""

    __slots__ = ("now", "sleepers")

    def __init__(self) -> None:
        self.now = task.NSEC_PER_SEC  # not 0, which might mean "never"
        self.sleepers: dict[task.Waiter, Controlled[object]] = {}

    def advance(self, duration: int) -> list[Controlled[object]]:
        """Move on by ``duration`` ns; returns who wakes.

        Raises:
            InvalidArgument: it is negative, or no whole number.
        """
        asked: object = duration
        if not isinstance(asked, int) or duration < 0:
            raise InvalidArgument(
                f"advance: {duration!r} ns; give a whole number: the clock does not run backwards",
                duration,
                0,
            )
        return self._wake_at(self.now + duration)

    def jump(self) -> list[Controlled[object]]:
        """Move on to the nearest deadline; returns who wakes, nobody if nobody has a deadline."""
        deadlines = [each.deadline for each in self.sleepers.values() if each.deadline is not None]
        return self._wake_at(max(self.now, min(deadlines))) if deadlines else []

    def _wake_at(self, now: int) -> list[Controlled[object]]:
        self.now = now
        due = [
            waiter
            for waiter, sleeper in list(self.sleepers.items())
            if sleeper.deadline is not None and sleeper.deadline <= now
        ]
        woken = [self.sleepers.pop(waiter, None) for waiter in due]  # None: woken by a stranger just now
        return [sleeper for sleeper in woken if sleeper is not None]
