"""Cleanup: the thread that cleans asynchronous binds up."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from gpuvm.nouveau.worker_thread import WorkerThread
from gpuvm.sync.mutex import Mutex
from gpuvm.sync.unraisable import report

if TYPE_CHECKING:
    from gpuvm.nouveau.bind_job import BindJob


class Cleanup:
    """Frees what binds left, with the VM's lock, which the scheduler must not take: fences depend on it.

    Locking: ``add`` from anywhere, fence-signalling sections too.

    Args:
        name: of the thread.
        lock: the VM's.
        clean: cleans one up, with the lock held.

    Source: ``nouveau_uvmm_bind_job_cleanup``, which the kernel's scheduler calls in a work item.
    """

    def __init__(self, name: str, lock: Mutex, clean: Callable[[BindJob], None]) -> None:
        self._lock: Final = lock
        self._clean: Final = clean
        self._done: Final[deque[BindJob]] = deque()
        self._thread: Final = WorkerThread(f"{name} cleanup", self._clean_all_up)

    def __len__(self) -> int:
        """How many wait."""
        return len(self._done)

    def add(self, job: BindJob) -> None:
        """This one has run, and nobody waits for it to clean it up."""
        self._done.append(job)
        self._thread.ring()

    def end(self) -> None:
        """Clean up what was added, and end the thread. Locking: none held."""
        self._thread.end()

    def _clean_all_up(self) -> None:
        if self._done:
            with self._lock:
                while self._done:
                    self._clean_up(self._done.popleft())

    def _clean_up(self, job: BindJob) -> None:
        try:
            self._clean(job)
        except Exception as error:  # nobody called; and the others want to be cleaned up
            report(error, f"cleanup of {job!r}")
