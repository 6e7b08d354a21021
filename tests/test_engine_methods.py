"""From words of a push buffer to methods, against a decoder that takes one word at a time."""

from __future__ import annotations

import gc
from array import array
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_world import A, EngineWorld, engine_world
from gpuvm._core import Pbdma
from gpuvm.errors import InvalidArgument
from gpuvm.nouveau.engine import EngineFault
from gpuvm.nouveau.engine.classes import AMPERE, TURING, class_name, method_name
from pushbuf import COMPUTE, COPY, THREED, TWOD, Push
from uvmm_world import MIB

HOST = 8
EACH, ALL = (THREED, 0x118), (COPY, 0x300)
"""Methods that are told of word by word, and all words at once."""
TOLD = {EACH: False, (THREED, 0xFFC): False, ALL: True, (HOST, 0x1C): False, (COPY, 0x3FFC): True}


class Slow:
    """What should come of a push: events, what was sent last, and how often."""

    def __init__(self) -> None:
        self.events: list[tuple[int, int, Any]] = []
        self.state: dict[tuple[int, int], int] = {}
        self.sent: Counter[tuple[int, int]] = Counter()

    def decode(self, words: list[int]) -> None:
        at = 0
        while at < len(words):
            header = words[at]
            at += 1
            op, count, subchannel, method = (
                header >> 29,
                header >> 16 & 0x1FFF,
                header >> 13 & 7,
                header & 0xFFF,
            )
            if header == 0 or (op == 0 and count & 3):
                continue
            if op == 7:
                return
            if op == 4:
                self.send(subchannel, [(method, count)], False)
                continue
            if op in (0, 2, 6):
                self.events.append((-1, at - 1, 0))
                return
            step = {1: list(range(count)), 3: [0] * count, 5: [0] + [1] * (count - 1) if count else []}[op]
            if step and method + max(step) > 0xFFF:
                self.events.append((-1, at - 1, 1))
                return
            if at + count > len(words):
                self.events.append((-1, at - 1, 2))
                return
            data = words[at : at + count]
            at += count
            pairs = [(method + more, word) for more, word in zip(step, data, strict=True)]
            if op == 5:
                self.send(subchannel, pairs[:1], False)
                self.send(subchannel, pairs[1:], True)
            else:
                self.send(subchannel, pairs, op == 3)

    def send(self, subchannel: int, pairs: list[tuple[int, int]], together: bool) -> None:
        for number, (word, data) in enumerate(pairs):
            method = (HOST if word < 0x40 else subchannel), word << 2
            self.state[method] = data
            self.sent[method] += 1
            if method not in TOLD:
                continue
            if not TOLD[method]:
                self.events.append((*method, data))
            elif not together:
                self.events.append((*method, array("I", [data]).tobytes()))
            elif number == 0:
                self.events.append((*method, array("I", [data for _, data in pairs]).tobytes()))


def decoded(pbdma: Pbdma, words: list[int]) -> list[tuple[int, int, Any]]:
    pbdma.begin(array("I", words).tobytes())
    events = []
    while (event := pbdma.next()) is not None:
        events.append(event)
        if event[0] < 0:
            break
    return events


def fresh() -> Pbdma:
    pbdma = Pbdma()
    for (unit, method), together in TOLD.items():
        pbdma.act(unit, method, together)
    return pbdma


def compare(words: list[int]) -> None:
    pbdma, slow = fresh(), Slow()
    slow.decode(words)
    assert decoded(pbdma, words) == slow.events
    for unit in range(9):
        assert dict(pbdma.sent(unit)) == {at[1]: times for at, times in slow.sent.items() if at[0] == unit}
    for (unit, method), data in slow.state.items():
        assert pbdma.state(unit, method, 1) == (data,)


near = st.sampled_from([0, 0x1C, 0xF0, 0xFC, 0x100, 0x118, 0x2FC, 0x300, 0x3FF8, 0x3FFC])
headers = st.builds(
    lambda op, count, subchannel, method: op << 29 | count << 16 | subchannel << 13 | method >> 2,
    st.sampled_from([0, 1, 1, 1, 3, 3, 4, 5, 5, 7]),
    st.one_of(st.integers(0, 6), st.integers(0, 0x1FFF)),
    st.sampled_from([THREED, COPY, 7]),
    st.one_of(near, near, st.integers(0, 0x3FFF)),
)


@given(st.lists(st.one_of(headers, headers, st.integers(0, 0xFFFFFFFF), st.just(0)), max_size=60))
def test_any_words(words: list[int]) -> None:
    compare(words)


@st.composite
def well_formed(draw: st.DrawFn) -> list[int]:
    """Headers with their data."""
    push = Push()
    for _ in range(draw(st.integers(1, 8))):
        op = draw(st.sampled_from([1, 3, 4, 5]))
        count = draw(st.integers(0, 40))
        method = draw(near)
        method = min(method, 0x4000 - 4 * max(count, 1)) if op == 1 else min(method, 0x3FF8)
        push.header(op, count, draw(st.sampled_from([THREED, COMPUTE, COPY])), method)
        if op != 4:
            push.raw(draw(st.lists(st.integers(0, 99), min_size=count, max_size=count)))
    return push.words.tolist()


@given(well_formed())
def test_sequences(words: list[int]) -> None:
    compare(words)


def test_methods_of_the_host_are_its_own_on_any_subchannel() -> None:
    """A sequence may go on into those of an engine."""
    words = Push().inc(COPY, 0xF8, 1, 2, 3, 4).inc(THREED, 0x18, 5, 6).words.tolist()
    pbdma = fresh()
    assert decoded(pbdma, words) == [(HOST, 0x1C, 6)]
    assert pbdma.subchannel == THREED
    assert (pbdma.state(HOST, 0xF8, 2), pbdma.state(COPY, 0x100, 2)) == ((1, 2), (3, 4))


def test_the_end_of_a_segment() -> None:
    pbdma = fresh()
    assert decoded(pbdma, [7 << 29, 4 << 29 | 9 << 16 | 0x118 >> 2]) == []
    assert pbdma.sent(THREED) == []


def test_another_push_begins_anew() -> None:
    """Whatever was left of the last one; what was sent stays."""
    pbdma = fresh()
    pbdma.begin(bytes(Push().inc(THREED, 0x114, 1, 2, 3)))
    assert pbdma.next() == (THREED, 0x118, 2)
    assert decoded(pbdma, [0, 0]) == []
    assert pbdma.state(THREED, 0x114, 3) == (1, 2, 0)


def test_misuse_of_the_core() -> None:
    pbdma = Pbdma()
    assert pbdma.next() is None
    for unit, method in ((9, 0), (0, 0x4000), (0, 2)):
        with pytest.raises(InvalidArgument, match=f"method {method:#x} of unit {unit}"):
            pbdma.act(unit, method, False)
    assert pbdma.state(0, 0x3FFC, 9) == (0,)


# -- by a channel


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([3 << 29 | 0x1FFF << 16 | 0x100], "data beyond"),
        ([1 << 29 | 2 << 16 | 0xFFF, 1, 2], "methods beyond"),
        ([5 << 29 | 2 << 16 | 0xFFF, 1, 2], "methods beyond"),
        ([6 << 29 | 1 << 16], "no header"),
        ([2 << 29 | 4 << 16], "no header"),
        ([0x00040100], "no header"),
    ],
)
def test_malformed_pushes_end_there(words: list[int], why: str) -> None:
    with engine_world() as w:
        w.run(Push().release(A, 1))
        with pytest.raises(EngineFault, match=f"PBENTRY: word 0x5: {why}") as fault:
            w.run(Push().release(A, 2).raw(words).release(A, 3))
        assert (fault.value.engine, fault.value.class_, fault.value.fault) == ("host", TURING.host, None)
        assert w.number(A) == 2
        assert w.channel.statistics().malformed == 1


def test_what_is_not_executed_is_counted() -> None:
    """Macros, state, cache invalidates: by class and method; what is executed is not in the list."""
    with engine_world(AMPERE) as w:
        push = Push().immediate(THREED, 0x114, 0).non_inc(THREED, 0x118, *range(3000))
        push.immediate(THREED, 0x110, 0).immediate(COMPUTE, 0x110, 0).inc(TWOD, 0x200, 1, 2)
        push.inc(THREED, 0x3800, 1, 2).inc(THREED, 0x3800, 1, 2)
        push.immediate(0, 0x78, 0).immediate(0, 0x28, 0).immediate(7, 0x100, 0).release(A, 1).copy(
            A, A + 64, 64
        )
        w.run(push)
        names = {
            f"{class_name(class_)}.{method_name(class_, method)}": times
            for (class_, method), times in w.channel.counts.not_executed.items()
        }
        assert names == {
            "0000.0100": 1,
            "AMPERE_CHANNEL_GPFIFO_A.MEM_OP_A": 1,
            "AMPERE_B.LOAD_MME_INSTRUCTION_RAM_POINTER": 1,
            "AMPERE_B.LOAD_MME_INSTRUCTION_RAM": 3000,
            "AMPERE_B.WAIT_FOR_IDLE": 1,
            "AMPERE_B.CALL_MME_MACRO(0)": 2,
            "AMPERE_B.CALL_MME_DATA(0)": 2,
            "AMPERE_COMPUTE_B.WAIT_FOR_IDLE": 1,
            "FERMI_TWOD_A.0200": 1,
            "FERMI_TWOD_A.0204": 1,
        }
        statistics = w.channel.statistics()
        assert (statistics.pushes, statistics.words) == (1, len(push.words))
        assert statistics.not_executed == w.channel.counts.not_executed


@pytest.mark.parametrize(("subchannel", "class_"), [(COPY, 0xC6B5), (COPY, 0xC7B5), (0, 0xC797), (7, 0x906E)])
def test_objects_of_a_subchannel(subchannel: int, class_: int) -> None:
    with engine_world(AMPERE) as w:
        w.run(Push().inc(subchannel, 0, class_ | 3 << 16))


@pytest.mark.parametrize(("subchannel", "class_"), [(COPY, 0xC8B5), (COPY, 0xC797), (0, 0xC7C0), (1, 0)])
def test_objects_that_a_subchannel_has_not(subchannel: int, class_: int) -> None:
    with engine_world(AMPERE) as w, pytest.raises(EngineFault, match="ILLEGAL_CLASS") as fault:
        w.run(Push().inc(subchannel, 0, class_))
    assert (fault.value.engine, fault.value.method) == ("host", 0)


@pytest.mark.parametrize("method", [0x04, 0x0C, 0x38, 0x54, 0x70, 0xFC])
def test_methods_that_the_host_has_not(method: int) -> None:
    with engine_world() as w, pytest.raises(EngineFault, match=f"METHOD: {method:#x} with 0x7") as fault:
        w.run(Push().immediate(3, method, 7))
    assert fault.value.method == method


def test_a_push_that_cannot_be_read() -> None:
    with engine_world() as w:
        for va in (A - 0x1000, 1 << 49, (1 << 64) - 4):
            with pytest.raises(EngineFault) as fault:
                w.channel.execute(va, 8)
            assert (fault.value.engine, fault.value.method) == ("host", 0)
            assert fault.value.fault is not None
            assert fault.value.fault.va == va
            assert f"{va:#x}" in str(fault.value)


def test_zeros_are_no_ops() -> None:
    """As where a trace is replayed, whose pushes are in memory that nobody wrote; so is no push at all."""
    with engine_world() as w:
        w.channel.execute(1 << 37, MIB)
        for length in (0, 1, 3):
            w.channel.execute(5, length)
        w.run(Push().raw([0] * 5).release(A, 7).raw([0] * 3))
        assert w.number(A) == 7
        assert w.channel.counts.not_executed == {}


def test_words_only() -> None:
    """An address or a length within a word is cut."""
    with engine_world() as w:
        push = Push().release(A, 9)
        w.space.write(1 << 37, bytes(push) + b"\xff")
        w.channel.execute((1 << 37) + 3, len(push) + 3)
        assert w.number(A) == 9


def state_of(w: EngineWorld) -> tuple[int, ...]:
    return w.channel.statistics().pushes, w.channel.statistics().words


def test_state_stays_between_pushes() -> None:
    with engine_world() as w:
        w.scramble(1)
        w.run(Push().inc(COPY, 0x400, A >> 32, A & 0xFFFFFFFF, A >> 32, (A & 0xFFFFFFFF) + 512))
        w.run(Push().inc(COPY, 0x418, 100, 1))
        w.run(Push().immediate(COPY, 0x300, 0x186))
        w.write(A + 512, w.read(A, 100))
        w.compare()
        assert state_of(w) == (3, 5 + 3 + 1)


def test_finalizers_find_it_at_rest() -> None:
    """Whoever makes many objects has the garbage collected, and so may run another thread's Python code."""
    pbdma = fresh()
    assert decoded(pbdma, Push().inc(COPY, 0x100, *range(0xFC0)).words.tolist()) != []
    ends: list[object] = []

    class Garbage:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            try:
                ends.append(decoded(pbdma, [0]))
            except BaseException as error:
                ends.append(error)

    for ask in (lambda: pbdma.sent(COPY), lambda: [pbdma.state(COPY, 0x100, 1) for _ in range(1000)]):
        for threshold in (1, 50, 500):
            gc.collect()
            before = gc.get_threshold()
            gc.set_threshold(threshold)
            Garbage()
            ask()
            gc.set_threshold(*before)
    gc.collect()
    assert ends == [[]] * 6
