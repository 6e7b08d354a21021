"""Doorbell: wakes a thread that looks for work when there is some."""

from __future__ import annotations

from gpuvm.sync import task


class Doorbell:
    """One thread sleeps here when it has found nothing to do; any thread rings after having left something.

    The thread calls ``clear``, looks for work, and if there is none, ``sleep``, which returns at once if
    somebody rang since ``clear``. Neither side takes a lock, so that a finalizer may ring. A thread that is
    awake already is rung for next to nothing.
    """

    __slots__ = ("_rung", "_sleeper")

    def __init__(self) -> None:
        self._rung = False
        self._sleeper: task.Waiter | None = None

    def ring(self) -> None:
        """There may be work. Any thread."""
        self._rung = True
        if task.preempt is not None:
            task.preempt()
        sleeper = self._sleeper
        if sleeper is not None and not sleeper.woken:
            sleeper.wake()

    def clear(self) -> None:
        """From here on, look for work."""
        if task.preempt is not None:
            task.preempt()
        self._rung = False

    def sleep(self, deadline: int | None = None) -> None:
        """Until rung, or until ``deadline``, in ns of ``task.now``."""
        if self._rung:
            return
        if task.preempt is not None:
            task.preempt()
        waiter = self._sleeper = task.Waiter()
        if not self._rung:  # who rings now sees the sleeper
            waiter.wait(deadline)
        self._sleeper = None
