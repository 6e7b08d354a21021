"""EXEC: pushes are handed over and executed in another thread; a unit is a call.

The push, if there is one, has 4 KiB copied. Either every call is waited for, by the sync object that it
signals, or only the last one, after the clock has stopped.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from bench.driver.program import FOREVER, HANDLE, Array, Program, ioctl
from bench.sampling.contender import Contender, Job
from bench.selfcheck import Disagreement
from gpuvm.mem import Domain
from gpuvm.nouveau import Push, PushBuffer
from gpuvm.nouveau.uapi import numbers, structs

SIZE = 4096
SOURCE, TARGET, PUSHES = 1 << 32, 2 << 32, 3 << 32
PATIENCE = 60.0
"""Seconds after which a job that nobody has seen end is missed."""

Call = Callable[[], object]


class Execs(Contender):
    """`copying`: with a push. `waiting`: each call is waited for."""

    source: NDArray[np.uint8]
    target: NDArray[np.uint8]

    def __init__(self, copying: bool, waiting: bool) -> None:
        self._copying = copying
        self._waiting = waiting
        self._asked = 0

    def jobs(self, units: int) -> list[Job]:
        submit, wait = self._calls()
        self._asked += units
        self.source[:] = np.random.default_rng(self._asked).integers(0, 256, SIZE, np.uint8)

        def submit_only() -> None:
            for _ in range(units):
                submit()

        def submit_and_wait() -> None:
            for _ in range(units):
                submit()
                wait()

        return [submit_and_wait if self._waiting else submit_only]

    def settle(self) -> None:
        _, wait = self._calls()
        wait()

    def check(self) -> int:
        done, deadline = self._done(), time.monotonic() + PATIENCE
        while done < self._asked and time.monotonic() < deadline:  # a job is counted after it was signalled
            time.sleep(0.001)
            done = self._done()
        if done != self._asked:
            raise Disagreement(f"{type(self).__name__}: {done} of {self._asked} jobs were done")
        if self._copying and not np.array_equal(self.source, self.target):
            raise Disagreement(f"{type(self).__name__}: other bytes arrived")
        return self._asked

    @abstractmethod
    def _calls(self) -> tuple[Call, Call]:
        """What submits one, and what waits for the last."""

    @abstractmethod
    def _done(self) -> int:
        """How many were, so far."""


class TypedExecs(Execs):
    """`Client.exec` and `SyncObjTable.wait`."""

    def __init__(self, copying: bool, waiting: bool) -> None:
        super().__init__(copying, waiting)
        self._program = Program(16 << 20)
        client = self._program.client
        self.source, self.target = (client.view(self._program.new(at, SIZE)) for at in (SOURCE, TARGET))
        words = bytes(PushBuffer().copy(TARGET, SOURCE, SIZE))
        client.view(self._program.new(PUSHES, SIZE, Domain.GART)).data[: len(words)] = words
        self._pushes = [Push(PUSHES, len(words))] if copying else []
        self._channel = client.channel_alloc()
        self._handle, self._signals = self._program.signal()

    def _calls(self) -> tuple[Call, Call]:
        client, channel, pushes, signals = self._program.client, self._channel.id, self._pushes, self._signals
        exec, wait, handles = client.exec, client.syncobjs.wait, [self._handle]
        return lambda: exec(channel, pushes, (), signals), lambda: wait(handles, FOREVER, 0)

    def _done(self) -> int:
        counts = self._channel.statistics()
        return min(counts.launches, counts.scheduler.freed) if self._copying else counts.scheduler.freed

    def close(self) -> None:
        del self.source, self.target
        self._program.close()


class IoctlExecs(TypedExecs):
    """The same as bytes."""

    def __init__(self, copying: bool, waiting: bool) -> None:
        super().__init__(copying, waiting)
        self._push_array = Array(structs.EXEC_PUSH, self._pushes)
        self._signal_array = Array(structs.SYNC, self._signals)
        self._handle_array = Array(HANDLE, [(self._handle,)])

    def _calls(self) -> tuple[Call, Call]:
        client, pushes, signals = self._program.client, self._push_array, self._signal_array
        channel, handles = self._channel.id, self._handle_array
        submit = ioctl(
            client, numbers.EXEC, channel, pushes.count, 0, signals.count, 0, signals.addr, pushes.addr
        )
        return submit, ioctl(client, numbers.SYNCOBJ_WAIT, handles.addr, FOREVER, 1, 0, 0, 0, 0)


class ExecutorExecs(Execs):
    """`ThreadPoolExecutor(1)`: a future for each, which copies by NumPy."""

    def __init__(self, copying: bool, waiting: bool) -> None:
        super().__init__(copying, waiting)
        self.source, self.target = np.zeros(SIZE, np.uint8), np.zeros(SIZE, np.uint8)
        self._executor = ThreadPoolExecutor(1)
        self._count = 0
        self._last: Future[None] | None = None

    def _work(self) -> None:
        self._count += 1
        if self._copying:
            self.target[:] = self.source

    def _calls(self) -> tuple[Call, Call]:
        def submit() -> None:
            self._last = self._executor.submit(self._work)

        def wait() -> None:
            assert self._last is not None
            self._last.result()

        return submit, wait

    def _done(self) -> int:
        return self._count

    def close(self) -> None:
        self._executor.shutdown()
