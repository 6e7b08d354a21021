"""WorkerThread: a thread that does what was left for it, and sleeps while there is nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gpuvm.sched.doorbell import Doorbell
from gpuvm.sync import task


class WorkerThread:
    """Calls ``work`` after each ``ring``, one call for several if they come while it is at work.

    Args:
        name: of the thread.
        work: does all that there is to do, and raises nothing.
    """

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        self._bell: Final = Doorbell()
        self._ending = False
        self._thread: Final = task.start(name, lambda: self._run(work))

    def ring(self) -> None:
        """There may be work. Any thread; takes no lock."""
        self._bell.ring()

    def end(self) -> None:
        """Have it do what is left, and wait for its end. Locking: none held."""
        self._ending = True
        self._bell.ring()
        self._thread.join()

    def _run(self, work: Callable[[], None]) -> None:
        while True:
            self._bell.clear()
            ending = self._ending  # before it looks for work: what was left before `end` is done
            work()
            if ending:
                return
            self._bell.sleep()
