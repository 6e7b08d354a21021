"""SYNCOBJ_WAIT for what is signalled already; a unit is a call."""

from __future__ import annotations

import threading
from collections.abc import Callable

from bench.driver.program import FOREVER, HANDLE, Array, Program, ioctl
from bench.sampling.contender import Contender, Job
from bench.selfcheck import Disagreement
from gpuvm.nouveau.uapi import numbers
from gpuvm.sync.syncobj_table import CREATE_SIGNALED


class Waits(Contender):
    """`wait` is called; `expected` is what it answers."""

    expected: object
    wait: Callable[[], object]

    def __init__(self) -> None:
        self._answers: list[object] = []

    def jobs(self, units: int) -> list[Job]:
        wait = self.wait
        answers: list[object] = [None] * units
        self._answers = answers

        def job() -> None:
            for unit in range(units):
                answers[unit] = wait()

        return [job]

    def check(self) -> int:
        if self._answers != [self.expected] * len(self._answers):
            raise Disagreement(f"{type(self).__name__}: it answered {set(self._answers)}")
        return len(self._answers)


class TypedWaits(Waits):
    """`SyncObjTable.wait`."""

    expected = 0

    def __init__(self) -> None:
        super().__init__()
        self._program = Program(16 << 20)
        self._handle = self._program.client.syncobjs.create(CREATE_SIGNALED)
        wait, handles = self._program.client.syncobjs.wait, [self._handle]
        self.wait = lambda: wait(handles, FOREVER, 0)

    def close(self) -> None:
        self._program.close()


class IoctlWaits(TypedWaits):
    """The same as bytes."""

    def __init__(self) -> None:
        super().__init__()
        self._handles = Array(HANDLE, [(self._handle,)])
        call = numbers.SYNCOBJ_WAIT
        self.wait = ioctl(self._program.client, call, self._handles.addr, FOREVER, 1, 0, 0, 0, 0)


class EventWaits(Waits):
    """`threading.Event.wait`."""

    expected = True

    def __init__(self) -> None:
        super().__init__()
        event = threading.Event()
        event.set()
        self.wait = event.wait
