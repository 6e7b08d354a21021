"""CopyEngine: the DMA copy classes c5b5 (Turing), c6b5 and c7b5 (Ampere)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from gpuvm._core import Pbdma
from gpuvm.errors import PageFault
from gpuvm.nouveau.engine.copy_state import (
    CONST_A,
    DST_ORIGIN_X,
    DST_PITCH,
    LAUNCH_DMA,
    MULTI_LINE_ENABLE,
    OFFSET_IN_UPPER,
    OFFSET_OUT_UPPER,
    PHYSICAL,
    PITCH_OUT,
    REMAP_ENABLE,
    SET_DST_ORIGIN,
    SET_SEMAPHORE_A,
    SET_SRC_ORIGIN,
    SRC_ORIGIN_X,
    SRC_PITCH,
    STATE,
    Launch,
    address_of,
    launch_of,
)
from gpuvm.nouveau.engine.counts import MethodCounts
from gpuvm.nouveau.engine.engine import Engine
from gpuvm.nouveau.engine.fault import Rejected
from gpuvm.nouveau.engine.memory import EngineMemory
from gpuvm.nouveau.engine.semaphore import Semaphore

UNIT: Final = 4

_KIND: Final = PHYSICAL | REMAP_ENABLE | SRC_PITCH | DST_PITCH
_PLAIN: Final = SRC_PITCH | DST_PITCH
"""Of these bits a copy of bytes has those."""
_TOGETHER: Final = 1 << 28
"""Bytes of continued copies that are done at once, at most."""


class Copies(NamedTuple):
    """Launches of one line each, of which each goes on where the one before ended."""

    dst: int
    src: int
    range: int
    step: int
    """Bytes of each; of the last one less, perhaps."""


class CopyEngine(Engine):
    """Executes LAUNCH_DMA.

    A launch faults before it writes, or it is done, before its semaphore is written; only ``Processor.stop``
    can end a long one between parts. A line by itself is copied as by ``memmove``; lines of surfaces that
    overlap are moved one after the other. Pitches are signed. Lines may overlap: hardware may call that
    SRC_LINE_EXCEEDS_PITCH.

    Of the layouts in a GOB it knows that of colour images, as Turing has it. A kind of page that has another
    one, of depth images perhaps, looks to it as to everybody here.

    Drivers split what they copy. Launches that continue each other are put off and done together, as if they
    were done one by one; ``flush`` does what was put off.

    Args:
        go_on: called now and then, to be stopped by an exception.
    """

    def __init__(
        self,
        class_: int,
        pbdma: Pbdma,
        counts: MethodCounts,
        memory: EngineMemory,
        semaphore: Semaphore,
        go_on: Callable[[], None],
    ) -> None:
        super().__init__("copy", class_, UNIT, pbdma, counts)
        self._memory: Final = memory
        self._semaphore: Final = semaphore
        self._go_on: Final = go_on
        self.pending: Copies | None = None
        """What was put off."""
        self.on_word(LAUNCH_DMA, self._launch_dma)
        self.on_word(SET_SRC_ORIGIN, lambda data: self._set_origin(SRC_ORIGIN_X, data))
        self.on_word(SET_DST_ORIGIN, lambda data: self._set_origin(DST_ORIGIN_X, data))
        self.uses(STATE)
        self.ready()

    def _set_origin(self, method: int, data: int) -> None:
        """The older way to say it, in half a word each."""
        self.pbdma.set_state(self.unit, method, data & 0xFFFF)
        self.pbdma.set_state(self.unit, method + 4, data >> 16)

    def _launch_dma(self, launch: int) -> None:
        kind = launch & 3
        if kind == 3:
            raise Rejected(f"INVALID_VALUE: LAUNCH_DMA {launch:#x}: transfer type 3")
        if kind:
            high_in, low_in, high_out, low_out, _, _, length, lines = self.state(OFFSET_IN_UPPER, 8)
            one = lines == 1 or not launch & MULTI_LINE_ENABLE
            if one and launch & _KIND == _PLAIN:
                src, dst = (high_in & 0x1FFFF) << 32 | low_in, (high_out & 0x1FFFF) << 32 | low_out
                self._copy(dst, src, length)
            else:
                self.flush()
                wanted = launch_of(self, launch)
                if wanted is not None:
                    self._transfer(wanted, launch)
        if launch >> 3 & 3:
            self.flush()
            self._release(launch)

    # -- copies of one line

    def _copy(self, dst: int, src: int, length: int) -> None:
        """Copy at the next flush, together with what continues it."""
        if self.pending is not None:
            first_dst, first_src, done, step = self.pending
            range = done + length
            if (
                dst == first_dst + done
                and src == first_src + done
                and length <= step
                and not done % step
                and range <= min(abs(dst - src), _TOGETHER)
            ):
                self.pending = Copies(first_dst, first_src, range, step)
                return
            self.flush()
        if length:
            self.pending = Copies(dst, src, length, length)

    def flush(self) -> None:
        """Do what was put off.

        Raises:
            PageFault: of the first launch that cannot be done. Those before it were, those after it were not.
        """
        if self.pending is None:
            return
        dst, src, range_, step = self.pending
        self.pending = None
        if range_ == step:
            self._copy_now(dst, src, range_)
            return
        try:
            self._memory.copy(dst, src, range_, step)
        except PageFault:
            for done in range(0, range_, step):
                self._copy_now(dst + done, src + done, min(step, range_ - done))
            return
        self.counts.launches += -(-range_ // step)
        self.counts.bytes_copied += range_

    def _copy_now(self, dst: int, src: int, length: int) -> None:
        self._memory.copy(dst, src, length)
        self.counts.launches += 1
        self.counts.bytes_copied += length

    # -- all others

    def _transfer(self, wanted: Launch, launch: int) -> None:
        target, source, elements, lines, components = wanted
        size = 1 if components is None else components.target_size
        length = elements * size
        filling = components is not None and source is None
        adjacent = launch & DST_PITCH and (lines == 1 or self.word(PITCH_OUT) == length)
        if components is not None and adjacent and set(components.target) <= {CONST_A, CONST_A + 1}:
            element = b"".join(
                components.constants[origin - CONST_A].to_bytes(4, "little")[: components.size]
                for origin in components.target
            )
            self._memory.fill(address_of(self, OFFSET_OUT_UPPER), length * lines, element)
        else:
            self._memory.move_lines(target, source, elements, lines, components, self._go_on)
        self.counts.launches += 1
        if filling:
            self.counts.bytes_filled += length * lines
        else:
            self.counts.bytes_copied += length * lines

    def _release(self, launch: int) -> None:
        """Write the semaphore; that of type 3 is one word, too, and an interrupt that nobody waits for."""
        addr = address_of(self, SET_SEMAPHORE_A)
        payload, upper = self.state(SET_SEMAPHORE_A + 8, 2)
        size = 4
        if launch >> 27 & 1 and self.class_ >= 0xC7B5:  # those before have no upper payload
            size, payload = 8, upper << 32 | payload
        timestamp = launch >> 3 & 3 == 2
        if launch >> 19 & 1:
            operation, signed = launch >> 14 & 0xF, not launch >> 18 & 1
            self._semaphore.reduce(addr, payload, size, operation, signed=signed, timestamp=timestamp)
        else:
            self._semaphore.release(addr, payload, size, timestamp=timestamp)
