"""InlineToMemory: data in the push that goes to memory: class a140, and the same methods elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from gpuvm._core import Surface
from gpuvm.nouveau.engine.block_linear import block_linear_surface, pitch_surface
from gpuvm.nouveau.engine.engine import Engine
from gpuvm.nouveau.engine.fault import Rejected
from gpuvm.nouveau.engine.memory import EngineMemory
from gpuvm.nouveau.engine.semaphore import FRONT_END_REDUCTIONS, Semaphore

LINE_LENGTH_IN: Final = 0x180
OFFSET_OUT_UPPER: Final = 0x188
PITCH_OUT: Final = 0x190
SET_DST_BLOCK_SIZE: Final = 0x194
SET_DST_ORIGIN_BYTES_X: Final = 0x1A8
LAUNCH_DMA: Final = 0x1B0
LOAD_INLINE_DATA: Final = 0x1B4
SET_I2M_SEMAPHORE_A: Final = 0x1DC

LARGEST: Final = 1 << 26
"""Bytes of a transfer, which are kept until the last of them came. Drivers send some thousand."""


class Transfer(NamedTuple):
    """What LAUNCH_DMA said."""

    launch: int
    target: Surface
    length: int
    lines: int


class InlineToMemory:
    """Has the methods executed for an engine.

    LAUNCH_DMA says where the data goes; it is written when all of it has come, lines directly behind each
    other. So a transfer faults before it writes, or is done.

    Source: cla140. That lines are not padded to words: emulators of the Switch, with which its games agree.
    """

    def __init__(
        self, engine: Engine, memory: EngineMemory, semaphore: Semaphore, go_on: Callable[[], None]
    ) -> None:
        self._engine: Final = engine
        self._memory: Final = memory
        self._semaphore: Final = semaphore
        self._go_on: Final = go_on
        self._transfer: Transfer | None = None
        """What data is expected for."""
        self._data = bytearray()
        """What has come."""
        engine.on_word(LAUNCH_DMA, self._launch_dma)
        engine.on_words(LOAD_INLINE_DATA, self._load)
        engine.uses((*range(LINE_LENGTH_IN, LAUNCH_DMA, 4), *range(SET_I2M_SEMAPHORE_A, 0x1E8, 4)))

    def _launch_dma(self, launch: int) -> None:
        if self._transfer is not None:  # the one before, whose data never came
            self._engine.counts.decline(self._engine.class_, LAUNCH_DMA)
        self._transfer = None
        self._data.clear()
        length, lines = self._engine.state(LINE_LENGTH_IN, 2)
        if length * lines > LARGEST:
            raise Rejected(f"INVALID_VALUE: {lines} lines of {length:#x} inline bytes")
        if not length * lines:
            self._complete(launch)
            return
        self._transfer = Transfer(launch, self._target(launch, length, lines), length, lines)

    def _target(self, launch: int, length: int, lines: int) -> Surface:
        upper, lower = self._engine.state(OFFSET_OUT_UPPER, 2)
        addr = (upper & 0x1FFFF) << 32 | lower
        if launch & 1:
            return pitch_surface(addr, self._engine.word(PITCH_OUT))
        x, y = self._engine.state(SET_DST_ORIGIN_BYTES_X, 2)
        layout = self._engine.state(SET_DST_BLOCK_SIZE, 5)
        return block_linear_surface(addr, layout, (x, y), (length, lines), 1)

    def _load(self, words: bytes) -> None:
        if self._transfer is None:
            self._engine.counts.decline(self._engine.class_, LOAD_INLINE_DATA)
            return
        launch, target, length, lines = self._transfer
        self._data += words
        if len(self._data) < length * lines:
            return
        data = bytes(self._data[: length * lines])
        self._transfer = None
        self._data.clear()
        self._memory.move_lines(target, data, length, lines, None, self._go_on)
        self._engine.counts.launches += 1
        self._engine.counts.bytes_copied += len(data)
        self._complete(launch)

    def _complete(self, launch: int) -> None:
        """Write the semaphore that LAUNCH_DMA asked for."""
        if launch >> 4 & 3 != 2:
            return
        upper, lower, payload = self._engine.state(SET_I2M_SEMAPHORE_A, 3)
        addr = (upper & 0x1FFFF) << 32 | lower
        timestamp = not launch >> 12 & 1
        if launch >> 1 & 1:
            operation, signed = FRONT_END_REDUCTIONS[launch >> 13 & 7], launch >> 2 & 3 == 1
            self._semaphore.reduce(addr, payload, 4, operation, signed=signed, timestamp=timestamp)
        else:
            self._semaphore.release(addr, payload, 4, timestamp=timestamp)
