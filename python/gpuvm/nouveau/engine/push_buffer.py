"""PushBuffer: the words of a push, and what drivers send with them most."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Final, Self

from gpuvm.errors import InvalidArgument
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

PUSH_MAX_LENGTH: Final = 0x7FFFFF
"""Bytes of one push: 23 bits, as the entry of the hardware's ring has them (``NV50_DMA_PUSH_MAX_LENGTH``)."""

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
_COPY_WORDS: Final = 9
"""Of a launch that copies."""
COPY_LAUNCH: Final = NON_PIPELINED | FLUSH_ENABLE | SRC_PITCH | DST_PITCH | MULTI_LINE_ENABLE
"""LAUNCH_DMA, as NVK sends it for copies of buffers."""
_FILL: Final = NON_PIPELINED | FLUSH_ENABLE | SRC_PITCH | DST_PITCH | REMAP_ENABLE
_FILL_WORDS: Final = 11
"""Of a launch that fills."""
_COMPONENTS: Final = 0x00034444
"""Of an element: one, the four bytes of the first constant."""

_SUBCHANNELS: Final = 1 << 3
_METHODS: Final = 1 << 14
_COUNTS: Final = 1 << 13
_WORDS: Final = 1 << 32
_ADDRESSES: Final = 1 << 64
"""The first number that does not fit."""
_WORDS_SHOWN: Final = 4

_ACQUIRE_SWITCH: Final = 1 << 12
_RELEASE: Final = 2 | 1 << 24
"""Without the time."""
_REPORT_TIME: Final = 2 | 0xF << 12


class PushBuffer:
    """Words, appended by calls that return it.

    ``bytes(PushBuffer().copy(dst, src, size))`` is what a channel executes. Addresses are the GPU's; methods
    are told by their address in bytes. What fits into its field is taken, though no engine may know it.

    Attributes:
        words: 32 bits each.

    Raises (every call, and nothing is appended then):
        InvalidArgument: a number does not fit into its field, or is none.

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

    def __repr__(self) -> str:
        shown = [f"{word:08x}" for word in self.words[:_WORDS_SHOWN]]
        more = ["..."] if len(self.words) > _WORDS_SHOWN else []
        return f"<{' '.join([type(self).__name__, str(len(self.words)), 'words', *shown, *more])}>"

    # -- any method

    def inc(self, subchannel: int, method: int, *data: int) -> Self:
        """Each word to the next method."""
        return self._sequence(1, subchannel, method, data)

    def non_inc(self, subchannel: int, method: int, *data: int) -> Self:
        """All words to the same method."""
        return self._sequence(3, subchannel, method, data)

    def one_inc(self, subchannel: int, method: int, *data: int) -> Self:
        """The first word to the method, all others to the next one."""
        return self._sequence(5, subchannel, method, data)

    def immediate(self, subchannel: int, method: int, data: int) -> Self:
        """At most 13 bits, in the header itself."""
        return self.header(4, data, subchannel, method)

    def header(self, op: int, count: int, subchannel: int, method: int) -> Self:
        """A header alone, of a sequence of kind ``op``."""
        _require("op", op, 8)
        _require("count or immediate data", count, _COUNTS)
        _require("subchannel", subchannel, _SUBCHANNELS)
        _require("method", method, _METHODS)
        if method % 4:
            raise InvalidArgument(f"PushBuffer: method {method:#x}; pass a multiple of 4", method, 4)
        self.words.append(op << 29 | count << 16 | subchannel << 13 | method >> 2)
        return self

    def raw(self, words: Iterable[int]) -> Self:
        """Words as they are, modulo 2^32."""
        self.words.extend(word & 0xFFFFFFFF for word in words)
        return self

    def _sequence(self, op: int, subchannel: int, method: int, data: tuple[int, ...]) -> Self:
        for word in data:
            _require("data", word, _WORDS)
        return self.header(op, len(data), subchannel, method).raw(data)

    # -- the copy engine

    def copy(self, dst: int, src: int, size: int) -> Self:
        """Copy bytes, ``LARGEST_COPY`` in a launch; as many as launches fit into one push.

        Raises:
            InvalidArgument: more, or beyond addresses of 64 bits.
        """
        room = max(PUSH_MAX_LENGTH - len(self), 0) // (4 * _COPY_WORDS) * LARGEST_COPY
        _require_size("copy", size, room)
        _require_range("copy: dst", dst, size)
        _require_range("copy: src", src, size)
        for done in range(0, size, LARGEST_COPY):
            self.inc(COPY, OFFSET_IN_UPPER, *halves(src + done), *halves(dst + done))
            self.inc(COPY, LINE_LENGTH_IN, min(size - done, LARGEST_COPY), 1)
            self.immediate(COPY, LAUNCH_DMA, COPY_LAUNCH)
        return self

    def fill(self, dst: int, size: int, value: int) -> Self:
        """Write a word of 4 bytes over and over; ``size`` is a multiple of that. One launch.

        Raises:
            InvalidArgument: it is none, 2^34 or more, or beyond addresses of 64 bits; the push is full.
        """
        room = 4 * (_WORDS - 1) if len(self) + 4 * _FILL_WORDS <= PUSH_MAX_LENGTH else 0
        _require_size("fill", size, room)
        if size % 4:
            raise InvalidArgument(f"PushBuffer: fill of {size:#x} bytes; pass a multiple of 4", size, 4)
        _require_range("fill: dst", dst, size)
        _require("fill: value", value, _WORDS)
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


def _require(what: str, value: object, end: int) -> None:
    """A number of a field."""
    if not (isinstance(value, int) and 0 <= value < end):
        raise InvalidArgument(f"PushBuffer: {what} {value!r}; pass an int from 0 to {end - 1:#x}", value, end)


def _require_size(what: str, size: object, room: int) -> None:
    """Bytes that one push can be about."""
    if not (isinstance(size, int) and 0 <= size <= room):
        raise InvalidArgument(
            f"PushBuffer: {what} of {size!r} bytes; pass an int from 0 to {room:#x}, what fits into a push "
            f"of at most {PUSH_MAX_LENGTH:#x} bytes; begin another one for the rest",
            size,
            room,
        )


def _require_range(what: str, addr: object, size: int) -> None:
    """Addresses that exist."""
    _require(what, addr, _ADDRESSES - max(size - 1, 0))
