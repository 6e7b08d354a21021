"""Report semaphores of 3D and compute, and data in the push: what these classes do besides drawing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_world import BEHIND, END, MAPPED, SPARSE, A, EngineWorld, Layout, engine_world, in_blocks
from gpuvm.mmu.translation import Access
from gpuvm.sync import task
from gpuvm.testing import Interleaving
from pushbuf import COMPUTE, INLINE, THREED, TWOD, Push, halves


@pytest.fixture
def world() -> Iterator[EngineWorld]:
    with engine_world() as made:
        yield made


RELEASE, ACQUIRE, REPORT, TRAP = range(4)
ONE_WORD = 1 << 28
REDUCTION = 1 << 3


def report(subchannel: int, addr: int, payload: int, data: int) -> Push:
    return Push().inc(subchannel, 0x1B00, *halves(addr), payload, data)


@pytest.mark.parametrize("subchannel", [THREED, COMPUTE])
def test_releases_and_times(world: EngineWorld, subchannel: int) -> None:
    """As NVK sends them: 0x1000f010 for an event, 2 for a time."""
    w, at = world, A + 160
    w.time = 0x0102030405060708
    for data, size in ((0x1000F010, 4), (0, 16), (2 | 0xF << 12, 16), (2 | ONE_WORD, 4)):
        w.scramble(1)
        w.run(report(subchannel, at, 0x99887766, data))
        w.write(at, (0x99887766 | w.time << 64).to_bytes(16, "little")[:size])
        w.compare()
    assert w.channel.counts.not_executed == {}
    assert w.channel.counts.releases == 4


def test_a_timestamp_of_nvk(world: EngineWorld) -> None:
    w = world
    w.time = 123456789
    w.run(Push().timestamp(A).copy(A + 64, A + 8, 8).timestamp(A + 16))
    assert (w.number(A + 8, 8), w.number(A + 64, 8), w.number(A + 24, 8)) == (w.time, w.time, w.time)


@pytest.mark.parametrize("number", [2, 0x15])
def test_what_is_counted_while_drawing_is_none(world: EngineWorld, number: int) -> None:
    """Samples that passed: zero, told as not executed; the time is right."""
    w = world
    w.scramble(2)
    w.run(report(THREED, A, 55, REPORT | number << 23))
    w.write(A, bytes(8) + w.time.to_bytes(8, "little"))
    w.compare()
    assert w.channel.counts.not_executed == {(w.channel.classes.threed, 0x1B0C): 1}


@pytest.mark.parametrize(
    ("operation", "signed", "result"),
    [(0, 0, 8), (1, 0, 3), (2, 0, 5), (1, 1, 3), (3, 0, 0), (4, 0, 3), (5, 0, 1), (6, 0, 7), (7, 0, 6)],
)
def test_reductions(world: EngineWorld, operation: int, signed: int, result: int) -> None:
    """Add, min, max, inc, dec, and, or, xor of 5 and 3: numbers of the front end."""
    w = world
    w.space.write(A, (5).to_bytes(4, "little"))
    w.run(report(THREED, A, 3, REDUCTION | ONE_WORD | operation << 9 | signed << 17))
    assert w.number(A) == result
    fault = report(THREED, A, 3, REDUCTION | 2 << 17)
    w.model[:] = w.space.read(A, MAPPED + SPARSE)
    assert w.fault(fault).error.startswith("INVALID_VALUE")


def test_acquires(world: EngineWorld) -> None:
    """3D can wait, too: for the very value, or at least it."""
    w = world
    w.space.write(A, (6).to_bytes(4, "little"))
    w.run(report(THREED, A, 5, ACQUIRE | 1 << 16))

    def store() -> None:
        task.Waiter().wait(task.now() + 10_000_000)
        w.space.write(A, (5).to_bytes(4, "little"))

    busy = w.channel.counts.busy["3d"]
    with Interleaving(1) as run:
        run.spawn(w.run, report(THREED, A, 5, ACQUIRE))
        run.spawn(store)
        run.run()
    assert (w.channel.counts.waits, w.channel.counts.acquires) == (1, 2)
    assert w.channel.counts.waited >= 10_000_000
    assert w.channel.counts.busy["3d"] == busy


def test_traps_are_not_executed(world: EngineWorld) -> None:
    world.run(report(COMPUTE, END, 1, TRAP))
    assert world.channel.counts.not_executed == {(world.channel.classes.compute, 0x1B0C): 1}


@pytest.mark.parametrize("subchannel", [INLINE, TWOD])
def test_other_classes_have_no_reports(world: EngineWorld, subchannel: int) -> None:
    world.run(report(subchannel, END, 1, RELEASE))
    assert len(world.channel.counts.not_executed) == 4


def test_faults(world: EngineWorld) -> None:
    fault = world.fault(report(COMPUTE, END, 1, ONE_WORD))
    assert fault.fault is not None
    assert (fault.engine, fault.class_, fault.method) == ("compute", world.channel.classes.compute, 0x1B0C)
    assert (fault.fault.va, fault.fault.access) == (END, Access.WRITE)
    assert world.fault(report(THREED, A + 8, 1, RELEASE)).error.startswith("SEMAPHORE")


# -- data in the push

PITCH, FLUSH_ONLY, SEMAPHORE = 1, 1 << 4, 2 << 4


def inline(
    subchannel: int, addr: int, data: bytes, length: int, lines: int, launch: int, pitch: int = 0
) -> Push:
    """A transfer as NVK sends it: LAUNCH_DMA and the data in one sequence."""
    padded = data + bytes(-len(data) % 4)
    words = [int.from_bytes(padded[at : at + 4], "little") for at in range(0, len(padded), 4)]
    push = Push().inc(subchannel, 0x180, length, lines, *halves(addr), pitch)
    return push.one_inc(subchannel, 0x1B0, launch, *words)


@given(
    st.sampled_from([THREED, COMPUTE, INLINE]),
    st.integers(1, 90),
    st.integers(1, 9),
    st.integers(0, 200),
    st.integers(0, MAPPED + SPARSE - 9 * 290),
)
def test_lines_of_data(subchannel: int, length: int, lines: int, gap: int, at: int) -> None:
    """Directly behind each other in the push, by a pitch in memory; the last word may be cut."""
    w = WORLDS.setdefault("lines", EngineWorld())
    w.scramble(3)
    data = bytes(n % 251 + 1 for n in range(length * lines))
    w.run(inline(subchannel, A + at, data, length, lines, PITCH | FLUSH_ONLY, length + gap))
    for line in range(lines):
        w.write(A + at + line * (length + gap), data[line * length : (line + 1) * length])
    w.compare()


WORLDS: dict[str, EngineWorld] = {}


@pytest.mark.parametrize("block", [0, 1 << 12])
def test_blocks_of_data(world: EngineWorld, block: int) -> None:
    """Of a block these classes say no height of GOBs, which copy engines want to know."""
    w = world
    w.scramble(4)
    layout = Layout(A + 1024, 200, 50, 3, 1, 1)
    push = Push().inc(INLINE, 0x194, block | 1 << 8 | 1 << 4, 200, 50, 3, 2, 33, 11)
    data = bytes(n % 251 for n in range(100 * 20))
    w.run(push + inline(INLINE, layout.addr, data, 100, 20, 0))
    for line in range(20):
        in_blocks(layout, 33, 11, 2).put(w, line, data[100 * line : 100 * line + 100])
    w.compare()
    fault = w.fault(Push().inc(INLINE, 0x1A4, 3) + inline(INLINE, layout.addr, data, 100, 20, 0))
    assert (fault.engine, fault.error.split(":")[0]) == ("inline", "2D_LAYER_EXCEEDS_DEPTH")


def test_data_may_come_in_several_sequences_and_pushes(world: EngineWorld) -> None:
    """It is written when the last of it came; a launch before that makes it vanish, which is counted."""
    w = world
    w.scramble(5)
    w.run(Push().inc(INLINE, 0x180, 12, 1, *halves(A)).inc(INLINE, 0x1B0, PITCH, 1))
    w.compare()
    w.run(Push().immediate(INLINE, 0x1B4, 2))
    w.compare()
    w.run(Push().inc(INLINE, 0x180, 99, 99, 0, 0).non_inc(INLINE, 0x1B4, 3, 4, 5))
    w.write(A, b"".join(n.to_bytes(4, "little") for n in (1, 2, 3)))
    w.compare()
    assert w.channel.counts.not_executed == {}
    w.run(Push().immediate(INLINE, 0x1B4, 9))
    w.run(Push().inc(INLINE, 0x180, 12, 1).immediate(INLINE, 0x1B0, PITCH).immediate(INLINE, 0x1B0, PITCH))
    w.compare()
    assert w.channel.counts.not_executed == {
        (w.channel.classes.inline, 0x1B0): 1,
        (w.channel.classes.inline, 0x1B4): 1,
    }


@pytest.mark.parametrize(("extra", "size"), [(0, 16), (1 << 12, 4), (1 << 12 | 2, 4)])
def test_semaphores_of_data(world: EngineWorld, extra: int, size: int) -> None:
    """Written when the data is; even if that is none. 2: added to what is there."""
    w = world
    for length in (4, 0):
        w.scramble(6)
        w.space.write(A, (7).to_bytes(4, "little"))
        w.write(A, (7).to_bytes(4, "little"))
        push = Push().inc(COMPUTE, 0x1DC, *halves(A), 35)
        w.run(push + inline(COMPUTE, A + 64, b"abcd"[:length], length, 1, PITCH | SEMAPHORE | extra))
        number = 42 if extra & 2 else 35
        w.write(A, (number | w.time << 64).to_bytes(16, "little")[:size])
        w.write(A + 64, b"abcd"[:length])
        w.compare()


def test_data_that_cannot_be_written(world: EngineWorld) -> None:
    """The fault is LOAD_INLINE_DATA's, which brought the last of it; nothing was written."""
    w = world
    w.scramble(7)
    fault = w.fault(inline(THREED, END - 8, bytes(16), 16, 1, PITCH))
    assert fault.fault is not None
    assert (fault.engine, fault.method, fault.fault.va) == ("3d", 0x1B4, END)
    w.run(inline(THREED, BEHIND, bytes(16), 16, 1, PITCH))
    fault = w.fault(inline(THREED, A, b"", 0xFFFFFFFF, 0xFFFFFFFF, PITCH))
    assert (fault.method, fault.error.split(":")[0]) == (0x1B0, "INVALID_VALUE")
