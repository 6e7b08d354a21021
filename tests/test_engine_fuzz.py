"""Hostile pushes: whatever their words are, they end soon, by themselves or by a fault."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_world import BEHIND, END, A, EngineWorld, shared_world
from gpuvm.nouveau.engine import AMPERE, EngineFault, Processor, Stopped, copy_state
from gpuvm.sync import task
from gpuvm.testing import Interleaving
from pushbuf import COMPUTE, COPY, INLINE, THREED, TWOD, Push, halves
from suite import scaled

world, end = shared_world(AMPERE)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a launch may move at most is a thousandth, so that it takes a thousandth of the time."""
    monkeypatch.setattr(copy_state, "LARGEST", copy_state.LARGEST >> 10)
    monkeypatch.setattr(copy_state, "MOST_LINES", copy_state.MOST_LINES >> 10)


ENDS: Counter[str] = Counter()


def attempt(push: Push) -> None:
    """A push that waits for ever is stopped, in virtual time. Anything but a fault fails the run."""
    w = world()
    channel = w.processor(AMPERE)
    with Interleaving(1) as run:
        run.spawn(execute, w, channel, push)
        run.start("watchdog", lambda: watch(channel))
        run.run()
    channel.check()
    channel.statistics()
    w.waits.check()


def execute(w: EngineWorld, channel: Processor, push: Push) -> None:
    end = "done"
    try:
        w.run(push, channel)
    except Stopped:
        end = "stopped"
    except EngineFault as fault:
        end = told(fault)
    ENDS[end] += 1


def told(fault: EngineFault) -> str:
    """Either an access that was refused, or what else was wrong."""
    if fault.fault is None:
        assert fault.error in str(fault)
        return fault.error.split(":")[0]
    assert fault.error == ""
    assert f"{fault.fault.va:#x}" in str(fault)
    return fault.fault.reason.name


def watch(channel: Processor) -> None:
    task.Waiter().wait(task.now() + 100_000_000)
    channel.stop()


words = st.integers(0, 0xFFFFFFFF)


@given(st.lists(words, max_size=200))
def test_any_words(found: list[int]) -> None:
    attempt(Push().raw(found))


sizes = [0, 1, 2, 4, 8, 15, 16, 63, 64, 512, 0x1000, 0x1FFFF, 0x1FFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
fields = [
    0x186,
    0x386,
    0x786,
    0x586,
    0x1044,
    0x1022,
    A >> 32,
    *(at & 0xFFFFFFFF for at in (A, BEHIND, END - 8)),
]
interesting = st.sampled_from([*sizes, *fields])
DOING = {
    COPY: [0x300],
    THREED: [0x1B0C, 0x1B0, 0x1B4],
    COMPUTE: [0x1B0C, 0x1B0, 0x1B4],
    INLINE: [0x1B0, 0x1B4],
    TWOD: [0x100],
}
STATE = {
    COPY: [0x240, 0x400, 0x408, 0x410, 0x418, 0x700, 0x70C, 0x710, 0x720, 0x728, 0x73C, 0x744],
    THREED: [0x1B00, 0x180, 0x188, 0x194, 0x1DC],
    COMPUTE: [0x1B00, 0x180, 0x188, 0x194, 0x1DC],
    INLINE: [0x180, 0x188, 0x194, 0x1DC],
    TWOD: [0x200],
}
HOST = [0x00, 0x10, 0x14, 0x18, 0x1C, 0x50, 0x5C, 0x60, 0x64, 0x68, 0x6C, 0x78]


@st.composite
def pushes(draw: st.DrawFn) -> Push:
    """Methods that do something, with state that is nearly right."""
    push = Push()
    addresses = st.sampled_from([A, A + 0x1200, BEHIND - 64, BEHIND, END - 4, END, 0, (1 << 49) - 16])
    for _ in range(draw(st.integers(1, 12))):
        subchannel = draw(st.sampled_from([COPY, COPY, COPY, THREED, COMPUTE, INLINE, TWOD]))
        if draw(st.integers(0, 5)) == 0:
            data = draw(st.lists(st.one_of(interesting, words), min_size=1, max_size=5))
            push.inc(subchannel, draw(st.sampled_from(HOST)), *data)
        for state in draw(st.lists(st.sampled_from(STATE[subchannel]), max_size=6)):
            if state in (0x240, 0x400, 0x408, 0x188, 0x1DC, 0x1B00):
                push.inc(subchannel, state, *halves(draw(addresses)))
            else:
                data = draw(st.lists(st.one_of(interesting, st.integers(0, 300)), min_size=1, max_size=6))
                push.inc(subchannel, state, *data)
        data = draw(st.lists(st.one_of(interesting, words), min_size=1, max_size=3))
        push.non_inc(subchannel, draw(st.sampled_from(DOING[subchannel])), *data)
    return push


@given(pushes())
def test_methods_that_do_something(push: Push) -> None:
    attempt(push)


LAUNCHES = [0x186, 0x386, 0x786, 0x206, 0x286, 0x306, 0x606, 0x686, 0x19E, 0x80018E]


def test_launches_of_any_state() -> None:
    """All methods of a launch at once, most of them right, in large numbers."""
    dice = Random(11)
    before = Counter(ENDS)
    for _ in range(scaled(400, 20000)):
        push = Push()

        def pick(*usual: int) -> int:
            return dice.choice([*usual] * 6 + [0, 1, 0xFFFFFFFF, dice.getrandbits(32), dice.getrandbits(12)])

        def address() -> tuple[int, int]:
            at = dice.choice([A, A + 0x2000, BEHIND - 0x200, BEHIND, END - 0x1000]) + pick(0, 0, 512, 5)
            return halves(at & (1 << 64) - 1)

        length, lines = pick(64, 300, 4096), pick(1, 8, 50)
        push.inc(COPY, 0x400, *address(), *address(), pick(300, 64), pick(300, 512), length, lines)
        push.inc(COPY, 0x700, 1, 2, pick(0x00034444, 0x03303210, 0x01106500, 0x03340123))
        for block in (0x70C, 0x728):
            push.inc(COPY, block, pick(0x1000, 0x1010, 0x1120), pick(4096, 320), pick(60, 600))
            push.inc(COPY, block + 12, pick(1, 4), pick(0, 0, 1))
        push.inc(COPY, 0x744, pick(0, 3), pick(0, 9), pick(0, 16), pick(0, 8))
        push.inc(COPY, 0x240, *address(), 7).immediate(COPY, 0x300, dice.getrandbits(12))
        push.inc(COPY, 0x300, dice.choice(LAUNCHES))
        attempt(push)
    found = ENDS - before
    assert found["done"] > 20, found
    assert {"MEM2MEM_RECT_OUT_OF_BOUNDS", "NO_RESOURCES", "INVALID_ALIGNMENT", "PDE"} <= set(found), found


def test_many_headers_are_quick() -> None:
    """A push of as many launches as fit, none of which moves anything."""
    w = world()
    push = Push().raw([4 << 29 | 1 << 16 | COPY << 13 | 0x300 >> 2] * 5000)
    before = w.channel.counts.launches
    w.run(push)
    assert w.channel.counts.launches == before
