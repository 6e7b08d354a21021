"""Copies from, to and between block-linear surfaces, against a model that knows one byte at a time."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine_world import (
    BEHIND,
    END,
    MAPPED,
    SPARSE,
    A,
    EngineWorld,
    Layout,
    Rectangle,
    by_pitch,
    engine_world,
    in_blocks,
    shared_world,
)
from gpuvm.mmu.translation import Access
from gpuvm.nouveau.engine.classes import AMPERE
from pushbuf import COPY, DST_PITCH, FLUSH, MULTI_LINE, NON_PIPELINED, SRC_PITCH, Push, halves
from uvmm_world import PAGE

SRC, DST = "source", "target"
OFFSET = {SRC: 0x400, DST: 0x408}
PITCH = {SRC: 0x410, DST: 0x414}
BLOCK_SIZE = {SRC: 0x728, DST: 0x70C}
ORIGIN = {SRC: 0x744, DST: 0x74C}
IS_PITCH = {SRC: SRC_PITCH, DST: DST_PITCH}

world, end = shared_world()


class Lines(NamedTuple):
    """A side of a launch by pitch."""

    addr: int
    pitch: int

    def methods(self, push: Push, side: str) -> int:
        push.inc(COPY, OFFSET[side], *halves(self.addr)).inc(COPY, PITCH[side], self.pitch)
        return IS_PITCH[side]

    def rectangle(self) -> Rectangle:
        return by_pitch(self.addr, self.pitch)


class Blocks(NamedTuple):
    """A side of a launch in blocks."""

    layout: Layout
    x: int
    y: int
    z: int

    def methods(self, push: Push, side: str) -> int:
        push.inc(COPY, OFFSET[side], *halves(self.layout.addr))
        self.layout.methods(push, BLOCK_SIZE[side], self.z)
        push.inc(COPY, ORIGIN[side], self.x, self.y)
        return 0

    def rectangle(self) -> Rectangle:
        return in_blocks(self.layout, self.x, self.y, self.z)


Side = Lines | Blocks


def push_of(source: Side, target: Side, length: int, lines: int) -> Push:
    push = Push()
    flags = source.methods(push, SRC) | target.methods(push, DST)
    push.inc(COPY, 0x418, length, lines)
    return push.immediate(COPY, 0x300, NON_PIPELINED | FLUSH | MULTI_LINE | flags)


def check(w: EngineWorld, source: Side, target: Side, length: int, lines: int) -> None:
    """Do it, and by the model: line after line, each read before it is written."""
    w.run(push_of(source, target, length, lines))
    taken, given_ = source.rectangle(), target.rectangle()
    for line in range(lines):
        given_.put(w, line, taken.line(w, line, length))
    w.compare()


@st.composite
def sides(draw: st.DrawFn, length: int, lines: int) -> Side:
    """Somewhere in the memory, perhaps where it is sparse."""
    if draw(st.booleans()):
        pitch = draw(st.integers(length, 2 * length + 70))
        room = MAPPED + SPARSE - (lines - 1) * pitch - length
        return Lines(A + draw(st.integers(0, room)), pitch)
    x, y = draw(st.integers(0, 150)), draw(st.integers(0, 40))
    width, height = x + length + draw(st.integers(0, 100)), y + lines + draw(st.integers(0, 40))
    gobs_high, gobs_deep = draw(st.integers(0, 5)), draw(st.integers(0, 3))
    depth = draw(st.integers(1, 3))
    layout = Layout(A, width, height, depth, gobs_high, gobs_deep)
    room = MAPPED + SPARSE - layout.size
    if room < 0:
        layout = layout._replace(gobs_high=0, gobs_deep=0)
        room = MAPPED + SPARSE - layout.size
    layout = layout._replace(addr=A + draw(st.integers(0, room // 512)) * 512)
    return Blocks(layout, x, y, draw(st.integers(0, depth - 1)))


@st.composite
def copies(draw: st.DrawFn) -> tuple[Side, Side, int, int]:
    length, lines = draw(st.integers(1, 300)), draw(st.integers(1, 40))
    return draw(sides(length, lines)), draw(sides(length, lines)), length, lines


@given(copies())
@example((Lines(A, 640), Blocks(Layout(A + MAPPED // 2, 640, 64, 1, 3, 0), 0, 0, 0), 640, 64))
@example((Blocks(Layout(A, 640, 64, 1, 3, 0), 0, 0, 0), Lines(A + MAPPED // 2, 640), 640, 64))
@example(
    (Blocks(Layout(A, 256, 40, 5, 1, 2), 17, 3, 4), Blocks(Layout(A, 256, 40, 5, 1, 2), 64, 8, 1), 150, 20)
)
def test_any_copy(copy: tuple[Side, Side, int, int]) -> None:
    """Over both layouts, odd sizes and origins, scattered pages, sparse ones, overlapping or not."""
    w = world()
    w.scramble(1)
    check(w, *copy)


@pytest.mark.parametrize("gobs_high", range(6))
@pytest.mark.parametrize("gobs_deep", range(6))
def test_all_blocks(gobs_high: int, gobs_deep: int) -> None:
    """A part of a layer in the midst of a surface whose last blocks are not full."""
    w = world()
    w.scramble(2)
    layout = Layout(A, 100, (8 << gobs_high) - 3, (1 << gobs_deep) + 1, gobs_high, gobs_deep)
    while layout.size > MAPPED + SPARSE:
        layout = layout._replace(depth=layout.depth // 2 or 1, height=layout.height // 2)
        if layout.depth == 1 and layout.size > MAPPED + SPARSE:
            layout = layout._replace(width=60)
            break
    lines = min(20, layout.height - 1)
    check(w, Lines(A + 77, 70), Blocks(layout, 13, 1, layout.depth - 1), 47, lines)


def test_a_gob_byte_by_byte() -> None:
    """Each byte where the table of sectors says."""
    w = world()
    w.scramble(3)
    layout = Layout(A, 64, 8, 1, 0, 0)
    w.run(push_of(Lines(A + PAGE, 64), Blocks(layout, 0, 0, 0), 64, 8))
    for y in range(8):
        for x in range(64):
            assert w.number(layout.byte(x, y, 0), 1) == w.read(A + PAGE + 64 * y + x, 1)[0]


def test_there_and_back_in_large() -> None:
    """As a program does it with an image: 100 by 120 elements of 4 bytes, blocks of 16 GOBs."""
    w = world()
    w.scramble(4)
    image, buffer = Layout(A, 448, 120, 1, 4, 0), A + MAPPED // 2
    before = w.read(buffer, 400 * 120)
    w.run(push_of(Lines(buffer, 400), Blocks(image, 0, 0, 0), 400, 120))
    w.space.fill(buffer, 400 * 120, b"\0")
    w.run(push_of(Blocks(image, 0, 0, 0), Lines(buffer, 400), 400, 120))
    assert w.space.read(buffer, 400 * 120) == before


def test_the_older_origin() -> None:
    """Two halves of a word; what was said last counts."""
    w = world()
    for set_origin in (0x720, 0x74C):
        w.scramble(5)
        layout = Layout(A, 200, 40, 1, 1, 0)
        push = Push().inc(COPY, 0x74C if set_origin == 0x720 else 0x720, 1, 1)
        push.inc(COPY, OFFSET[SRC], *halves(A + MAPPED // 2), *halves(A))
        layout.methods(push, BLOCK_SIZE[DST], 0)
        push.inc(COPY, set_origin, *((30 | 7 << 16,) if set_origin == 0x720 else (30, 7)))
        push.inc(COPY, 0x410, 100).inc(COPY, 0x418, 100, 20)
        w.run(push.immediate(COPY, 0x300, NON_PIPELINED | MULTI_LINE | SRC_PITCH))
        to, source = in_blocks(layout, 30, 7, 0), by_pitch(A + MAPPED // 2, 100)
        for line in range(20):
            to.put(w, line, source.line(w, line, 100))
        w.compare()


class TestRefused:
    """What the launch would be called wrong by hardware; nothing is written."""

    def fault(
        self, layout: Layout, x: int = 0, y: int = 0, z: int = 0, length: int = 64, lines: int = 8
    ) -> str:
        w = world()
        w.scramble(6)
        fault = w.fault(push_of(Lines(A + MAPPED // 2, length), Blocks(layout, x, y, z), length, lines))
        assert (fault.engine, fault.class_, fault.method) == ("copy", w.channel.classes.copy, 0x300)
        assert fault.fault is None
        return fault.error.split(":")[0]

    def test_rectangles_beyond_the_surface(self) -> None:
        layout = Layout(A, 128, 16, 1, 0, 0)
        assert self.fault(layout, x=65) == "MEM2MEM_RECT_OUT_OF_BOUNDS"
        assert self.fault(layout, y=9) == "MEM2MEM_RECT_OUT_OF_BOUNDS"
        assert self.fault(layout, x=0xFFFFFFFF) == "MEM2MEM_RECT_OUT_OF_BOUNDS"

    def test_layers_beyond_the_depth(self) -> None:
        assert self.fault(Layout(A, 64, 8, 2, 0, 0), z=2) == "2D_LAYER_EXCEEDS_DEPTH"

    def test_addresses_inside_a_gob(self) -> None:
        assert self.fault(Layout(A + 256, 64, 8, 1, 0, 0)) == "INVALID_ALIGNMENT"

    @pytest.mark.parametrize("block", [0x1060, 0x1600, 0x1001, 0x0000, 0x2000])
    def test_blocks_that_there_are_not(self, block: int) -> None:
        w = world()
        w.scramble(7)
        push = Push().inc(COPY, BLOCK_SIZE[DST], block, 64, 8, 1, 0).inc(COPY, ORIGIN[DST], 0, 0)
        push.inc(COPY, OFFSET[SRC], *halves(A), *halves(A)).inc(COPY, 0x418, 64, 8)
        fault = w.fault(push.immediate(COPY, 0x300, NON_PIPELINED | SRC_PITCH))
        assert fault.error.startswith("INVALID_VALUE")


class TestFaults:
    """The first bad address, line by line, before a byte is written."""

    def test_of_the_target(self) -> None:
        w = world()
        w.scramble(8)
        layout = Layout(END - 2048, 256, 40, 1, 0, 0)  # a row of four GOBs, then nothing
        fault = w.fault(push_of(Lines(A, 256), Blocks(layout, 20, 5, 0), 200, 10))
        assert fault.fault is not None
        assert (fault.fault.va, fault.fault.access) == (layout.byte(20, 8, 0), Access.WRITE)

    def test_of_the_source(self) -> None:
        w = world()
        w.scramble(9)
        layout = Layout(END - 1024, 256, 8, 1, 0, 0)  # the left half of a row
        fault = w.fault(push_of(Blocks(layout, 100, 2, 0), Lines(A, 100), 100, 3))
        assert fault.fault is not None
        assert (fault.fault.va, fault.fault.access) == (layout.byte(128, 2, 0), Access.READ)

    def test_parts_beside_the_rectangle_may_lead_nowhere(self) -> None:
        w = world()
        w.scramble(10)
        layout = Layout(END - 1024, 256, 8, 1, 0, 0)
        check(w, Lines(A, 100), Blocks(layout, 28, 0, 0), 100, 8)

    def test_a_surface_that_no_number_can_hold(self) -> None:
        w = world()
        w.scramble(11)
        layout = Layout(A, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 5, 5)
        for x, y in ((0xFFFFFF00, 0xFFFFFF00), (0xFFFFFF01, 0xFFFFFF03)):
            fault = w.fault(push_of(Lines(A, 64), Blocks(layout, x, y, 0xFFFFFF00), 64, 8))
            assert fault.fault is not None
            assert fault.fault.va >= 1 << 49


def test_ampere_is_no_different() -> None:
    with engine_world(AMPERE) as w:
        w.scramble(12)
        layout = Layout(BEHIND - 8 * PAGE, 300, 60, 1, 2, 0)
        check(w, Lines(A, 280), Blocks(layout, 7, 9, 0), 280, 50)
