"""Ring: the thread that executes what a channel is given, one push after the other."""

from __future__ import annotations

import errno
import itertools
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from gpuvm.errors import CheckFailed
from gpuvm.nouveau.engine.fault import EngineFault, Stopped
from gpuvm.nouveau.engine.processor import Processor
from gpuvm.nouveau.uapi.requests import Push
from gpuvm.nouveau.worker_thread import WorkerThread
from gpuvm.sync import lockdep, task
from gpuvm.sync.fence import Fence, fence_context_alloc
from gpuvm.sync.unraisable import report


class _Work(NamedTuple):
    """Some pushes, and the fence that is signalled after the last."""

    fence: Fence
    pushes: Sequence[Push]
    started: Callable[[], None] | None


class Ring:
    """Executes pushes in the order in which they came, and signals a fence after those of each job.

    Once it is killed nothing more is executed: what is left, and what comes, is done with ``ENODEV``.

    Locking: any thread. It takes no lock, so that fences may depend on it.

    Args:
        processor: what executes them.
        name: of the channel.
        faulted: called, in the ring's thread, with what an engine could not do, before the ring is killed;
            says why that is.

    Attributes:
        busy_ns: time that it spent executing.
    """

    def __init__(self, processor: Processor, name: str, faulted: Callable[[EngineFault], str]) -> None:
        self.processor: Final = processor
        self.name: Final = name
        self.busy_ns = 0
        self._faulted: Final = faulted
        self._context: Final = fence_context_alloc()
        self._seqnos: Final = itertools.count(1)
        self._work: Final[deque[_Work]] = deque()
        self._latest: Fence | None = None
        self._reasons: Final[list[str]] = []
        """For killing it: more than one if several threads did."""
        self._thread: Final = WorkerThread(f"{name} ring", self._do_all)

    @property
    def dead(self) -> bool:
        """True once it was killed."""
        return bool(self._reasons)

    @property
    def killed_by(self) -> str:
        """Why it was killed, the first time; "" while it lives."""
        return self._reasons[0] if self._reasons else ""

    def emit(self, pushes: Sequence[Push], started: Callable[[], None] | None = None) -> Fence:
        """Have these executed; the fence is signalled when they are. One thread: the scheduler's worker.

        Args:
            started: called in the ring's thread before the first.

        Source: ``nouveau_exec_job_run``, ``nv50_dma_push``.
        """
        fence = self._latest = Fence(
            self._context, next(self._seqnos), driver="nouveau", timeline=f"{self.name} ring"
        )
        self._work.append(_Work(fence, pushes, started))
        self._thread.ring()
        return fence

    def kill(self, why: str) -> None:
        """Execute nothing more. What is being executed ends as soon as the processor looks."""
        self._reasons.append(why)
        self.processor.stop()
        self._thread.ring()

    def idle(self, deadline: int) -> bool:
        """Wait until all that was emitted is done; False if ``deadline``, in ns of ``task.now``, came before.

        Locking: none held. Source: ``nouveau_channel_idle``.
        """
        latest = self._latest
        return latest is None or latest.wait_until(deadline)

    def end(self) -> None:
        """Execute what is left, and end the thread."""
        self._thread.end()

    # -- the thread

    def _do_all(self) -> None:
        while self._work:
            self._do(self._work[0])

    def _do(self, work: _Work) -> None:
        with lockdep.fence_signalling(work.fence.context):
            begun = task.now()
            try:
                if work.started is not None:
                    work.started()
                self._execute(work.pushes)
            except Exception as error:  # a bug of ours; and others wait for the fence
                report(error, f"{self!r}")
                self.kill(f"a bug of the driver: {error!r}")
            self.busy_ns += task.now() - begun
            if self.dead:
                work.fence.set_error(errno.ENODEV)
            self._work.popleft()
            work.fence.signal()

    def _execute(self, pushes: Sequence[Push]) -> None:
        try:
            for push in pushes:
                if self.dead:
                    return
                self.processor.execute(push.va, push.va_len)
        except Stopped:
            pass
        except EngineFault as fault:
            self.kill(self._faulted(fault))

    # -- itself

    def check(self) -> None:
        """Verify it. Call it while nothing is executed.

        Raises:
            CheckFailed: with the state.
        """
        self.processor.check()
        latest = self._latest
        if latest is not None and latest.signalled == bool(self._work):
            raise CheckFailed(f"{self!r}: {list(self._work)} left, the latest fence is {latest!r}")

    def __len__(self) -> int:
        """Jobs that are not done."""
        return len(self._work)

    def __repr__(self) -> str:
        return f'<Ring "{self.name}"{", dead" if self.dead else ""}: {len(self._work)} jobs>'
