"""Post: where a scheduler's worker stands while it works, and where another thread may stand in for it."""

from __future__ import annotations

from _thread import get_ident

from gpuvm.sync import task


class Post:
    """One thread stands here at a time, and nobody else works for the scheduler; any thread rings.

    The worker sleeps until somebody rings and the post is free. It takes it, calls ``clear``, looks for work,
    and leaves when there is none. Another thread may ``take`` a free post, work, and leave. Whoever rings
    meanwhile wakes nobody: that is made up for by ``leave``, if nobody called ``clear`` since.

    No side takes a lock, so that a finalizer may ring. Who stands here is one entry of a dictionary, written
    and removed in one step each. So after Ctrl-C it is known whether one has to leave.
    """

    __slots__ = ("_rung", "_sleeper", "holder")

    def __init__(self) -> None:
        self.holder: dict[None, int] = {}
        """Who stands here, if anybody does."""
        self._rung = False
        self._sleeper: task.Waiter | None = None
        """Where the worker sleeps, or slept last."""

    def ring(self) -> None:
        """There may be work. Any thread."""
        self._rung = True
        if task.preempt is not None:
            task.preempt()
        if not self.holder:  # or whoever leaves looks again
            sleeper = self._sleeper
            if sleeper is not None and not sleeper.woken:
                sleeper.wake()

    def clear(self) -> None:
        """From here on, look for work."""
        if task.preempt is not None:
            task.preempt()
        self._rung = False

    def is_mine(self) -> bool:
        """True if the calling thread stands here."""
        return self.holder.get(None) == get_ident()

    def take(self) -> bool:
        """Stand here, unless somebody does."""
        if task.preempt is not None:
            task.preempt()
        me = get_ident()
        return self.holder.setdefault(None, me) == me

    def leave(self) -> None:
        """Go away, and wake the worker if somebody rang."""
        del self.holder[None]
        if task.preempt is not None:
            task.preempt()
        if self._rung:
            self.ring()

    def take_when_rung(self) -> None:
        """Sleep until somebody rang, and stand here. The worker."""
        while True:
            waiter = self._sleeper = task.Waiter()
            if self._rung and self.take():
                return
            waiter.wait()  # who rings a free post, or leaves one that was rung, sees the sleeper
