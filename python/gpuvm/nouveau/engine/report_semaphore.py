"""ReportSemaphore: SET_REPORT_SEMAPHORE of the 3D and compute classes: releases, times, waiting."""

from __future__ import annotations

from typing import Final

from gpuvm.nouveau.engine.engine import Engine
from gpuvm.nouveau.engine.fault import Rejected
from gpuvm.nouveau.engine.semaphore import FRONT_END_REDUCTIONS, Semaphore

A: Final = 0x1B00
D: Final = 0x1B0C


class ReportSemaphore:
    """Has the four methods executed for an engine.

    What the engine is to report besides the time, like the samples that passed, is 0: nothing is drawn here.
    It counts as not executed.

    Source: ``SET_REPORT_SEMAPHORE_A`` to ``D`` in clc597.
    """

    def __init__(self, engine: Engine, semaphore: Semaphore) -> None:
        self._engine: Final = engine
        self._semaphore: Final = semaphore
        engine.on_word(D, self._execute)
        engine.uses(range(A, D, 4))

    def _execute(self, data: int) -> None:
        upper, lower, payload = self._engine.state(A, 3)
        addr = (upper & 0xFF) << 32 | lower
        timestamp = not data >> 28 & 1
        match data & 3:
            case 0 if data >> 3 & 1:
                operation, format = FRONT_END_REDUCTIONS[data >> 9 & 7], data >> 17 & 3
                if format > 1:
                    raise Rejected(
                        f"INVALID_VALUE: SET_REPORT_SEMAPHORE_D {data:#x}: reduction format {format}"
                    )
                self._semaphore.reduce(addr, payload, 4, operation, signed=format == 1, timestamp=timestamp)
            case 0:
                self._semaphore.release(addr, payload, 4, timestamp=timestamp)
            case 1:
                at_least = bool(data >> 16 & 1)
                self._semaphore.acquire(
                    addr, 4, payload, lambda value: value >= payload if at_least else value == payload
                )
            case 2:
                report = data >> 23 & 0x1F
                if report:
                    self._engine.counts.decline(self._engine.class_, D)
                self._semaphore.release(addr, 0 if report else payload, 4, timestamp=timestamp)
            case _:  # TRAP
                self._engine.counts.decline(self._engine.class_, D)
