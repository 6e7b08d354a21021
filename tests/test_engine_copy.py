"""The copy engine by pitch: copies, launches together, faults; against a model byte by byte."""

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
    by_pitch,
    engine_world,
    shared_world,
)
from gpuvm.mmu import access as memory_access
from gpuvm.mmu.translation import Access, FaultType
from gpuvm.nouveau.engine import EngineFault, Stopped
from gpuvm.nouveau.engine.classes import AMPERE
from pushbuf import (
    COPY,
    DST_PITCH,
    MULTI_LINE,
    NON_PIPELINED,
    REMAP,
    SRC_PITCH,
    Push,
    halves,
)
from uvmm_world import PAGE

PLAIN = NON_PIPELINED | SRC_PITCH | DST_PITCH

world, end = shared_world()


def setup(dst: int, src: int, pitches: tuple[int, int], length: int, lines: int) -> Push:
    signed = [pitch & 0xFFFFFFFF for pitch in pitches]
    return Push().inc(COPY, 0x400, *halves(src), *halves(dst), *signed, length, lines)


# -- one line

places = st.one_of(st.integers(0, MAPPED + SPARSE - 1), st.integers(MAPPED - 300, MAPPED + 300))


@given(
    places, places, st.one_of(st.integers(1, 300), st.integers(1, MAPPED)), st.sampled_from([0, MULTI_LINE])
)
def test_a_line_is_moved(dst: int, src: int, length: int, flags: int) -> None:
    """As by memmove, overlapping or not; what is sparse reads as zeros and stays."""
    w = world()
    w.scramble(1)
    length = min(length, MAPPED + SPARSE - max(dst, src))
    w.run(setup(A + dst, A + src, (0, 0), length, 1).immediate(COPY, 0x300, PLAIN | flags))
    w.write(A + dst, w.read(A + src, length))
    w.compare()


def test_without_multi_line_lines_do_not_count() -> None:
    w = world()
    w.scramble(2)
    w.run(setup(A, A + PAGE, (64, 64), 10, 7).immediate(COPY, 0x300, PLAIN))
    w.write(A, w.read(A + PAGE, 10))
    w.compare()


@pytest.mark.parametrize(("length", "lines"), [(0, 1), (5, 0), (0, 0)])
def test_nothing_to_move(length: int, lines: int) -> None:
    w = world()
    w.scramble(3)
    for flags in (0, REMAP):
        w.run(setup(0, 1 << 48, (0, 0), length, lines).immediate(COPY, 0x300, PLAIN | MULTI_LINE | flags))
    w.compare()


# -- launches that continue each other


@st.composite
def rows_of_launches(draw: st.DrawFn) -> list[tuple[int, int, int]]:
    """Target, source, length; mostly each goes on where the one before ended."""
    found: list[tuple[int, int, int]] = []
    step = draw(st.integers(1, 3000))
    dst, src = draw(st.integers(0, 20000)), draw(st.integers(0, 20000))
    for _ in range(draw(st.integers(2, 12))):
        length = step if draw(st.integers(0, 5)) else draw(st.integers(1, step))
        found.append((A + dst, A + src, length))
        dst, src = dst + length, src + length
        if not draw(st.integers(0, 7)):
            dst = draw(st.integers(0, 20000))
    return found


@given(rows_of_launches())
@example([(A + 8, A, 8), (A + 16, A + 8, 8), (A + 24, A + 16, 8)])
def test_launches_are_as_if_done_one_by_one(launches: list[tuple[int, int, int]]) -> None:
    """However far they overlap; with a semaphore behind them."""
    w = world()
    w.scramble(4)
    push, before = Push(), w.channel.statistics()
    for dst, src, length in launches:
        push += setup(dst, src, (0, 0), length, 1).immediate(COPY, 0x300, PLAIN)
        w.write(dst, w.read(src, length))
    w.run(push.release(A + MAPPED - 4, 77))
    w.write(A + MAPPED - 4, bytes([77, 0, 0, 0]))
    w.compare()
    after = w.channel.statistics()
    assert after.launches - before.launches == len(launches)
    assert after.bytes_copied - before.bytes_copied == sum(length for _, _, length in launches)


def test_launches_between_addresses_of_the_same_memory() -> None:
    """The second reads what the first wrote, though no address tells."""
    with engine_world() as w:
        alias = A + (1 << 32)
        w.vm.bind(w.same_pages(alias))
        w.scramble(5)
        push = Push()
        for place in range(6):
            dst, src = alias + (place + 1) * 1000, A + place * 1000
            push += setup(dst, src, (0, 0), 1000, 1).immediate(COPY, 0x300, PLAIN)
            w.write(dst - (1 << 32), w.read(src, 1000))
        w.run(push)
        w.compare()


@pytest.mark.parametrize("bad", range(5))
def test_the_launches_before_the_one_that_faults_are_done(bad: int) -> None:
    w = world()
    w.scramble(6)
    push, start = Push(), END - bad * 512
    for place in range(5):
        push += setup(start + place * 512, A + place * 512, (0, 0), 512, 1).immediate(COPY, 0x300, PLAIN)
    before = w.channel.counts.launches
    fault = w.fault(push)
    assert fault.fault is not None
    assert (fault.engine, fault.method, fault.fault.va) == ("copy", 0x300, END)
    assert w.channel.counts.launches == before + bad


# -- several lines


class Lines(NamedTuple):
    dst: int
    src: int
    pitch_out: int
    pitch_in: int
    length: int
    lines: int


@st.composite
def several(draw: st.DrawFn) -> Lines:
    """Of any pitch, 0 and negative ones among them."""
    length, lines = draw(st.integers(1, 400)), draw(st.integers(1, 30))

    def side() -> tuple[int, int]:
        pitch = draw(st.one_of(st.just(length), st.integers(-600, 600), st.integers(-PAGE, PAGE)))
        down, up = min(0, (lines - 1) * pitch), max(0, (lines - 1) * pitch) + length
        return A + draw(st.integers(-down, MAPPED + SPARSE - up)), pitch

    (dst, pitch_out), (src, pitch_in) = side(), side()
    return Lines(dst, src, pitch_out, pitch_in, length, lines)


@given(several())
@example(Lines(A + PAGE, A, 100, 100, 100, 10))
@example(Lines(A + 4 * PAGE, A, 4 * PAGE, 2 * PAGE, 3 * PAGE, 5))
def test_lines(copy: Lines) -> None:
    """One after the other, each read before it is written."""
    w = world()
    w.scramble(7)
    dst, src, pitch_out, pitch_in, length, lines = copy
    w.run(setup(dst, src, (pitch_in, pitch_out), length, lines).immediate(COPY, 0x300, PLAIN | MULTI_LINE))
    for line in range(lines):
        by_pitch(dst, pitch_out).put(w, line, by_pitch(src, pitch_in).line(w, line, length))
    w.compare()


# -- what cannot be done


class TestRefused:
    def error(self, push: Push, launch: int) -> str:
        w = world()
        w.scramble(11)
        fault = w.fault(push.inc(COPY, 0x300, launch))
        assert (fault.engine, fault.method, fault.fault) == ("copy", 0x300, None)
        assert fault.error in str(fault)
        return fault.error.split(":")[0]

    def test_transfer_types(self) -> None:
        assert self.error(setup(A, A + 99, (0, 0), 9, 1), 3 | SRC_PITCH | DST_PITCH) == "INVALID_VALUE"

    @pytest.mark.parametrize("bit", [12, 13])
    def test_physical_addresses(self, bit: int) -> None:
        assert self.error(setup(A, A + 99, (0, 0), 9, 1), PLAIN | 1 << bit) == "PRIV"

    @pytest.mark.parametrize(
        ("length", "lines"), [(1, 0xFFFFFFFF), (0xFFFFFFFF, 5), (0xFFFFFFFF, 0xFFFFFFFF)]
    )
    def test_what_would_take_forever(self, length: int, lines: int) -> None:
        push = setup(A, BEHIND, (0, 0), length, lines)
        assert self.error(push, PLAIN | MULTI_LINE) == "NO_RESOURCES"


class TestFaults:
    """Before a byte is written, with the first bad address."""

    def fault(self, push: Push, launch: int = PLAIN | MULTI_LINE) -> EngineFault:
        w = world()
        w.scramble(12)
        fault = w.fault(push.inc(COPY, 0x300, launch))
        assert (fault.engine, fault.method, fault.error) == ("copy", 0x300, "")
        return fault

    @pytest.mark.parametrize("lines", [1, 3])
    def test_of_the_source_and_the_target(self, lines: int) -> None:
        for dst, src, access in ((A, END - 40, Access.READ), (END - 40, A, Access.WRITE)):
            fault = self.fault(setup(dst, src, (15, 15), 100 // lines, lines)).fault
            assert fault is not None
            assert (fault.va, fault.access) == (END, access)

    def test_by_the_order_of_lines(self) -> None:
        """Lines that go downwards: the first one that faults is the one with the greatest address."""
        fault = self.fault(setup(END + 300, A, (0, -100), 20, 8)).fault
        assert fault is not None
        assert fault.va == END + 300
        fault = self.fault(setup(A + 350, A, (0, -100), 20, 8)).fault
        assert fault is not None
        assert fault.va == A - 50

    def test_what_is_between_lines_may_lead_nowhere(self) -> None:
        w = world()
        w.scramble(13)
        apart = END - A  # the second line of the source is as far behind the hole as the first is in front
        push = setup(A + PAGE, A, (0, 2 * PAGE), 16, 2)
        w.run(push.inc(COPY, 0x414, apart - PAGE - 16).inc(COPY, 0x300, PLAIN | MULTI_LINE))
        w.write(A + PAGE, w.read(A, 16))
        w.compare()

    @pytest.mark.parametrize("addr", [0, A - 1, (1 << 49) - 8, (1 << 49) - 1])
    def test_addresses_at_the_ends(self, addr: int) -> None:
        for dst, src in ((A, addr), (addr, A)):
            for lines in (1, 2):
                fault = self.fault(setup(dst, src, (0, 0), 16, lines)).fault
                assert fault is not None
                assert fault.va == addr

    def test_lines_that_leave_all_addresses(self) -> None:
        for pitch in (0x7FFFFFFF, 0x80000000):
            fault = self.fault(setup(A, A, (0, pitch), 16, 1 << 24)).fault
            assert fault is not None
            assert fault.reason in (FaultType.PDE, FaultType.PTE)


def test_long_launches_can_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between parts, here of ten lines: what was moved so far stays."""
    monkeypatch.setattr(memory_access, "_PART", 2000)
    with engine_world() as w:
        w.scramble(14)
        parts = iter(range(100))

        def go_on() -> None:
            if next(parts) == 2:
                w.channel.stop()
            w.channel._go_on()

        monkeypatch.setattr(w.channel._copy, "_go_on", go_on)
        push = setup(A, A + MAPPED // 2, (200, 300), 200, 100).inc(COPY, 0x300, PLAIN | MULTI_LINE)
        with pytest.raises(Stopped):
            w.run(push)
        for line in range(20):
            w.write(A + 300 * line, w.read(A + MAPPED // 2 + 200 * line, 200))
        w.compare()
        assert w.channel.counts.launches == 0
        with pytest.raises(Stopped):
            w.run(Push().release(A, 1))


def test_semaphores_of_launches() -> None:
    """None, one word, four words with the time; reduced; of two words as of Ampere's second engine."""
    for classes, wide in ((AMPERE, True), (None, False)):
        with engine_world(*([classes] if classes else [])) as w:
            w.scramble(15)
            at = A + 64
            w.write(at, bytes(range(1, 33)))
            w.space.write(at, bytes(range(1, 33)))
            push = Push().inc(COPY, 0x240, *halves(at), 0x55667788, 0x11)
            w.run(push.immediate(COPY, 0x300, 1 << 3))
            w.write(at, (0x55667788).to_bytes(4, "little"))
            w.compare()
            w.time = 0x123456789AB
            w.run(Push().immediate(COPY, 0x300, 2 << 3))
            w.write(at, (0x55667788).to_bytes(8, "little") + w.time.to_bytes(8, "little"))
            w.compare()
            w.run(Push().inc(COPY, 0x300, 1 << 3 | 1 << 27))
            if wide:
                w.write(at, (0x1155667788).to_bytes(8, "little"))
            w.compare()
            w.run(Push().inc(COPY, 0x300, 1 << 3 | 1 << 19 | 5 << 14))
            w.write(at, (0x55667788 * 2).to_bytes(4, "little"))
            w.compare()
            assert w.channel.counts.releases == 4
