"""Elements that the copy engine remakes, and fills, against a model byte by byte."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_world import MAPPED, SPARSE, A, Layout, by_pitch, in_blocks, shared_world
from gpuvm._core import fail_allocation
from gpuvm.errors import OutOfMemory
from gpuvm.sync import lockdep
from pushbuf import (
    CONST_A,
    CONST_B,
    COPY,
    DST_PITCH,
    MULTI_LINE,
    NO_WRITE,
    NON_PIPELINED,
    PIPELINED,
    REMAP,
    SRC_PITCH,
    Push,
    halves,
)
from uvmm_world import PAGE

PLAIN = NON_PIPELINED | SRC_PITCH | DST_PITCH

world, end = shared_world()


class Remap(NamedTuple):
    size: int
    source: int
    target: tuple[int, ...]

    @property
    def word(self) -> int:
        picks = sum(pick << 4 * place for place, pick in enumerate(self.target))
        return picks | self.size - 1 << 16 | self.source - 1 << 20 | len(self.target) - 1 << 24

    def element(self, source: bytes, constants: tuple[int, int]) -> list[int | None]:
        """Bytes of an element of the target; None: it stays."""
        made: list[int | None] = []
        for pick in self.target:
            if pick == NO_WRITE:
                made += [None] * self.size
            elif pick >= CONST_A:
                made += constants[pick - CONST_A].to_bytes(4, "little")[: self.size]
            else:
                made += source[pick * self.size : (pick + 1) * self.size]
        return made


@st.composite
def remaps(draw: st.DrawFn) -> Remap:
    source = draw(st.integers(1, 4))
    picks = st.sampled_from([*range(source), CONST_A, CONST_B, NO_WRITE])
    return Remap(draw(st.integers(1, 4)), source, tuple(draw(st.lists(picks, min_size=1, max_size=4))))


CONSTANTS = (0x11223344, 0xAABBCCDD)


@given(remaps(), st.integers(1, 40), st.integers(1, 12), st.booleans(), st.booleans(), st.data())
def test_components(
    remap: Remap, elements: int, lines: int, from_blocks: bool, to_blocks: bool, data: st.DataObject
) -> None:
    """Lines of elements, from and to both layouts, overlapping or not."""
    w = world()
    w.scramble(8)
    sizes = remap.size * remap.source, remap.size * len(remap.target)
    push = Push().inc(COPY, 0x700, *CONSTANTS, remap.word)
    flags = REMAP | MULTI_LINE | NON_PIPELINED
    sides = []
    for side, blocks in enumerate((from_blocks, to_blocks)):
        offset, pitch, block, origin = ((0x400, 0x410, 0x728, 0x744), (0x408, 0x414, 0x70C, 0x74C))[side]
        size = sizes[side]
        if blocks:
            x, y = data.draw(st.integers(0, 9)), data.draw(st.integers(0, 9))
            layout = Layout(A, x + elements + 3, y + lines + 2, 2, 1, 1, size)
            room = MAPPED + SPARSE - layout.size
            layout = layout._replace(addr=A + 512 * data.draw(st.integers(0, room // 512)))
            push.inc(COPY, offset, *halves(layout.addr)).inc(COPY, origin, x, y)
            layout.methods(push, block, 1)
            sides.append(in_blocks(layout, x, y, 1))
        else:
            length = elements * size
            step = data.draw(st.integers(length, length + 99))
            addr = A + data.draw(st.integers(0, MAPPED + SPARSE - step * lines))
            push.inc(COPY, offset, *halves(addr)).inc(COPY, pitch, step)
            flags |= (SRC_PITCH, DST_PITCH)[side]
            sides.append(by_pitch(addr, step))
    w.run(push.inc(COPY, 0x418, elements, lines).immediate(COPY, 0x300, flags))
    for line in range(lines):
        source = sides[0].line(w, line, elements * sizes[0])
        made = [
            byte
            for place in range(elements)
            for byte in remap.element(source[place * sizes[0] : (place + 1) * sizes[0]], CONSTANTS)
        ]
        sides[1].put(w, line, made)
    w.compare()


def test_depth_and_stencil() -> None:
    """As NVK puts a stencil into an image of both: the fourth byte of each element only."""
    w = world()
    w.scramble(9)
    remap = Remap(1, 1, (NO_WRITE, NO_WRITE, NO_WRITE, 0))
    push = Push().inc(COPY, 0x708, remap.word)
    push.inc(COPY, 0x400, *halves(A), *halves(A + PAGE), 50, 200, 50, 30)
    w.run(push.immediate(COPY, 0x300, PLAIN | MULTI_LINE | REMAP))
    for line in range(30):
        for x in range(50):
            w.write(A + PAGE + 200 * line + 4 * x + 3, w.read(A + 50 * line + x, 1))
    w.compare()


def test_where_others_may_not_allocate() -> None:
    """Engines are hardware: their buffers are no memory of the driver, which may be waited for."""
    with lockdep.fence_signalling(1):
        test_depth_and_stencil()


def test_no_memory_for_the_buffer() -> None:
    """Then nothing is moved."""
    w = world()
    w.scramble(10)
    push = Push().inc(COPY, 0x708, Remap(1, 2, (1, 0)).word)
    push.inc(COPY, 0x400, *halves(A), *halves(A + PAGE), 0, 0, 9, 1).immediate(COPY, 0x300, PLAIN | REMAP)
    for granted in range(2):
        fail_allocation(granted)
        with pytest.raises(OutOfMemory):
            w.run(push)
        fail_allocation(None)
        w.compare()


@pytest.mark.parametrize("lines", [0, 1, 7])
def test_fills_as_nvk_sends_them(lines: int) -> None:
    """By words, in lines of 128 KiB that are behind each other; nothing is read."""
    w = world()
    w.scramble(10)
    wide = 0x8000 // 64
    push = Push().immediate(COPY, 0x700, 0x123).immediate(COPY, 0x708, 0)
    push.inc(COPY, 0x708, Remap(4, 1, (CONST_A, CONST_A, CONST_A, CONST_A)).word & ~(3 << 24))
    push.inc(COPY, 0x410, 4 * wide, 4 * wide).inc(COPY, 0x400, 0, 0).inc(COPY, 0x408, *halves(A + 8))
    push.inc(COPY, 0x418, wide, max(lines, 1))
    before = w.channel.counts.bytes_filled
    w.run(
        push.immediate(
            COPY, 0x300, PIPELINED | 4 | SRC_PITCH | DST_PITCH | REMAP | (MULTI_LINE if lines else 0)
        )
    )
    size = 4 * wide * max(lines, 1)
    w.write(A + 8, bytes([0x23, 1, 0, 0]) * (size // 4))
    w.compare()
    assert w.channel.counts.bytes_filled == before + size


@pytest.mark.parametrize(
    ("word", "error"), [(Remap(1, 2, (0, 2)).word, "BAD_SRC_PIXEL_COMP_REF"), (7, "INVALID_VALUE")]
)
def test_components_that_there_are_not(word: int, error: str) -> None:
    w = world()
    w.scramble(11)
    push = Push().inc(COPY, 0x400, *halves(A), *halves(A + PAGE), 0, 0, 9, 1).inc(COPY, 0x708, word)
    fault = w.fault(push.immediate(COPY, 0x300, PLAIN | REMAP))
    assert (fault.engine, fault.method, fault.fault) == ("copy", 0x300, None)
    assert fault.error.startswith(error)
