"""PushBuffer: the words of a push, and what drivers send with them most."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Final, Self

from gpuvm.nouveau.engine import host, report_semaphore
from gpuvm.nouveau.engine.copy_state import (
    DST_PITCH,
    LAUNCH_DMA,
    LINE_LENGTH_IN,
    MULTI_LINE_ENABLE,
    OFFSET_IN_UPPER,
    OFFSET_OUT_UPPER,
    REMAP_ENABLE,
    SET_REMAP_CONST_A,
    SRC_PITCH,
)

THREED: Final = 0
COMPUTE: Final = 1
INLINE: Final = 2
TWOD: Final = 3
COPY: Final = 4
"""Subchannels, as NVK uses them."""

NON_PIPELINED: Final = 2
FLUSH_ENABLE: Final = 1 << 2
"""More of LAUNCH_DMA's fields."""

LARGEST_COPY: Final = 1 << 17
"""Bytes of a launch, as NVK splits copies."""
COPY_LAUNCH: Final = NON_PIPELINED | FLUSH_ENABLE | SRC_PITCH | DST_PITCH | MULTI_LINE_ENABLE
"""LAUNCH_DMA, as NVK sends it for copies of buffers."""
_FILL: Final = NON_PIPELINED | FLUSH_ENABLE | SRC_PITCH | DST_PITCH | REMAP_ENABLE
_COMPONENTS: Final = 0x00034444
"""Of an element: one, the four bytes of the first constant."""

_ACQUIRE_SWITCH: Final = 1 << 12
_RELEASE: Final = 2 | 1 << 24
"""Without the time."""
_REPORT_TIME: Final = 2 | 0xF << 12


class PushBuffer:
    """Words, appended by calls that return it.

    ``bytes(PushBuffer().copy(dst, src, size))`` is what a channel executes. Addresses are the GPU's; methods
    are told by their address in bytes. Nothing is checked here, since what is wrong may be wanted.

    Attributes:
        words: 32 bits each.

    Source: method formats in NVIDIA's dev_ram, its class headers; NVK for what is sent with a copy.
    """

    __slots__ = ("words",)

    def __init__(self) -> None:
        self.words: Final = array("I")

    def __bytes__(self) -> bytes:
        return self.words.tobytes()

    def __len__(self) -> int:
        """Bytes."""
        return 4 * len(self.words)

    # -- any method

    def inc(self, subchannel: int, method: int, *data: int) -> Self:
        """Each word to the next method."""
        return self.header(1, len(data), subchannel, method).raw(data)

    def non_inc(self, subchannel: int, method: int, *data: int) -> Self:
        """All words to the same method."""
        return self.header(3, len(data), subchannel, method).raw(data)

    def one_inc(self, subchannel: int, method: int, *data: int) -> Self:
        """The first word to the method, all others to the next one."""
        return self.header(5, len(data), subchannel, method).raw(data)

    def immediate(self, subchannel: int, method: int, data: int) -> Self:
        """At most 13 bits, in the header itself."""
        return self.header(4, data, subchannel, method)

    def header(self, op: int, count: int, subchannel: int, method: int) -> Self:
        """A header alone."""
        self.words.append(op << 29 | count << 16 | subchannel << 13 | method >> 2)
        return self

    def raw(self, words: Iterable[int]) -> Self:
        """Words as they are, modulo 2^32."""
        self.words.extend(word & 0xFFFFFFFF for word in words)
        return self

    # -- the copy engine

    def copy(self, dst: int, src: int, size: int) -> Self:
        """Copy bytes, ``LARGEST_COPY`` in a launch."""
        for done in range(0, size, LARGEST_COPY):
            self.inc(COPY, OFFSET_IN_UPPER, *halves(src + done), *halves(dst + done))
            self.inc(COPY, LINE_LENGTH_IN, min(size - done, LARGEST_COPY), 1)
            self.immediate(COPY, LAUNCH_DMA, COPY_LAUNCH)
        return self

    def fill(self, dst: int, size: int, value: int) -> Self:
        """Write a word of 4 bytes over and over; ``size`` is a multiple of that. One launch."""
        self.inc(COPY, SET_REMAP_CONST_A, value, 0, _COMPONENTS)
        self.inc(COPY, OFFSET_OUT_UPPER, *halves(dst))
        self.inc(COPY, LINE_LENGTH_IN, size // 4, 1)
        return self.immediate(COPY, LAUNCH_DMA, _FILL)

    # -- semaphores

    def acquire(self, addr: int, value: int, operation: int = 1) -> Self:
        """Wait until the word is ``value``; by operation 4 at least that, by 8 one of its bits."""
        return self.inc(0, host.SEMAPHORE_A, *halves(addr), value, operation | _ACQUIRE_SWITCH)

    def release(self, addr: int, value: int) -> Self:
        """Write the word, after all that came before."""
        return self.inc(0, host.SEMAPHORE_A, *halves(addr), value, _RELEASE)

    def timestamp(self, addr: int) -> Self:
        """Write 16 bytes, of which the upper 8 are the time in ns, by the 3D engine."""
        return self.inc(THREED, report_semaphore.A, *halves(addr), 0, _REPORT_TIME)


def halves(addr: int) -> tuple[int, int]:
    """The upper 32 bits, then the lower ones, as methods have an address."""
    return addr >> 32, addr & 0xFFFFFFFF
