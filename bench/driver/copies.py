"""The copy engine, from one object to another; a unit is a kibibyte.

One EXEC, and its end is waited for: the push is fetched, and pages are looked up, too.
"""

from __future__ import annotations

import mmap
from abc import abstractmethod

import numpy as np
from numpy.typing import NDArray

from bench.driver.program import FOREVER, Program
from bench.sampling.contender import Contender, Job
from bench.selfcheck import Disagreement
from gpuvm.mem import Domain
from gpuvm.nouveau import Push, PushBuffer
from gpuvm.nouveau.engine.copy_state import LAUNCH_DMA, LINE_LENGTH_IN, OFFSET_IN_UPPER
from gpuvm.nouveau.engine.push_buffer import COPY, COPY_LAUNCH, halves

UNIT = 1024
SOURCE, TARGET, PUSHES = 1 << 40, 2 << 40, 3 << 40


class Copies(Contender):
    """`size` bytes; `source` and `target` are in memory of that many."""

    source: NDArray[np.uint8]
    target: NDArray[np.uint8]

    def __init__(self, size: int) -> None:
        self._size = size

    def jobs(self, units: int) -> list[Job]:
        rounds = units * UNIT // self._size
        self._copy()  # once before, so that the machine has given all pages
        self.target.fill(0)

        def job() -> None:
            for _ in range(rounds):
                self._copy()

        return [job]

    def check(self) -> int:
        if not self._arrived():
            raise Disagreement(f"{type(self).__name__}: other bytes arrived")
        return self._size // UNIT

    @abstractmethod
    def _copy(self) -> None:
        """Once."""

    def _arrived(self) -> bool:
        return np.array_equal(self.source, self.target)


def fill(source: NDArray[np.uint8]) -> None:
    """With bytes of which no run is like another."""
    source[:] = np.random.default_rng(len(source)).integers(0, 256, len(source), np.uint8)


class EngineCopies(Copies):
    """A channel's copy engine, in VRAM."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._program = Program(2 * size + (16 << 20))
        client = self._program.client
        self.source, self.target = (client.view(self._program.new(at, size)) for at in (SOURCE, TARGET))
        fill(self.source)
        words = bytes(self._words())
        client.view(self._program.new(PUSHES, 1 << 20, Domain.GART)).data[: len(words)] = words
        self._channel = client.channel_alloc()
        self._pushes = [Push(PUSHES, len(words))]
        self._handle, self._signals = self._program.signal()

    @abstractmethod
    def _words(self) -> PushBuffer:
        """What is executed each time."""

    def _copy(self) -> None:
        client = self._program.client
        client.exec(self._channel.id, self._pushes, (), self._signals)
        client.syncobjs.wait([self._handle], FOREVER, 0)

    def check(self) -> int:
        if self._program.device.faults:
            raise Disagreement(f"{type(self).__name__}: {self._program.device.faults[0]}")
        return super().check()

    def close(self) -> None:
        del self.source, self.target
        self._program.close()


class OneLaunch(EngineCopies):
    """One line of all bytes."""

    def _words(self) -> PushBuffer:
        words = PushBuffer().inc(COPY, OFFSET_IN_UPPER, *halves(SOURCE), *halves(TARGET))
        return words.inc(COPY, LINE_LENGTH_IN, self._size, 1).immediate(COPY, LAUNCH_DMA, COPY_LAUNCH)


class ManyLaunches(EngineCopies):
    """128 KiB each, as NVK splits copies."""

    def _words(self) -> PushBuffer:
        return PushBuffer().copy(TARGET, SOURCE, self._size)


class PlainCopies(Copies):
    """NumPy's copy, which is the machine's `memcpy`, within one shared mapping."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        both = np.frombuffer(mmap.mmap(-1, 2 * size), np.uint8)
        self.source, self.target = both[:size], both[size:]
        fill(self.source)

    def _copy(self) -> None:
        self.target[:] = self.source
