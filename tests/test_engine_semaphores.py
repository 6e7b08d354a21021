"""Semaphores of the host: what is written and waited for; channels that wait, for each other or the CPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from engine_world import BEHIND, END, PUSH, A, EngineWorld, engine_world
from gpuvm.errors import CheckFailed
from gpuvm.mmu.translation import Access
from gpuvm.nouveau.engine import EngineFault, Processor, Stopped
from gpuvm.nouveau.engine.semaphores import LAST_POLL
from gpuvm.sync import task
from gpuvm.testing import Interleaving, sample
from pushbuf import (
    ACQUIRE,
    AND,
    CIRC_GEQ,
    NOR,
    REDUCTION,
    RELEASE,
    STRICT_GEQ,
    TIMESTAMP,
    UNSIGNED,
    WIDE,
    Push,
    execute,
    legacy,
)
from suite import scaled


@pytest.fixture
def world() -> Iterator[EngineWorld]:
    with engine_world() as made:
        yield made


# -- releases


@pytest.mark.parametrize("behind", [A + 96, BEHIND + 96])
def test_releases(world: EngineWorld, behind: int) -> None:
    """4 or 8 bytes, or 16 with the time; where it is sparse nothing is written."""
    payload = 0x1122334455667788
    world.time = 0xA1A2A3A4A5A6A7A8
    for push, data in (
        (execute(behind, payload, RELEASE), [0x55667788, 4]),
        (execute(behind, payload, RELEASE | WIDE), [payload, 8]),
        (execute(behind, payload, RELEASE | TIMESTAMP), [0x55667788 | world.time << 64, 16]),
        (execute(behind, payload, RELEASE | WIDE | TIMESTAMP), [payload | world.time << 64, 16]),
        (legacy(behind, 0x99, 2 | 1 << 24), [0x99, 4]),
        (legacy(behind, 0x99, 2), [0x99 | world.time << 64, 16]),
        (legacy(behind + 3, 0x98, 2 | 1 << 24), [0x98, 4]),  # the low bits are no address
    ):
        world.scramble(1)
        world.run(push)
        world.write(behind, data[0].to_bytes(data[1], "little"))
        world.compare()
    assert world.channel.counts.releases == 7


# -- what cannot be done


@pytest.mark.parametrize(
    "push",
    [
        execute(A + 4, 0, RELEASE | WIDE),
        execute(A + 8, 0, RELEASE | TIMESTAMP),
        execute(A + 4, 0, ACQUIRE | WIDE),
        execute(A, 0, 7),
        execute(A, 0, REDUCTION | 8 << 27),
        legacy(A + 8, 0, 2),
        legacy(A, 0, 0),
        legacy(A, 0, 3),
    ],
    ids=lambda push: f"{push.words[0]:x}-{push.words[-1]:x}",
)
def test_operations_that_there_are_not(world: EngineWorld, push: Push) -> None:
    world.scramble(3)
    fault = world.fault(push)
    assert (fault.engine, fault.fault) == ("host", None)
    assert fault.error.startswith("SEMAPHORE")
    assert fault.method == (0x6C if len(push.words) == 6 else 0x1C)


@pytest.mark.parametrize(
    ("operation", "access"),
    [(ACQUIRE, Access.READ), (RELEASE, Access.WRITE), (REDUCTION | UNSIGNED, Access.ATOMIC)],
)
@pytest.mark.parametrize("addr", [END, 0, (1 << 40) - 4])
def test_faults(world: EngineWorld, operation: int, access: Access, addr: int) -> None:
    fault = world.fault(execute(addr, 1, operation))
    assert fault.fault is not None
    assert (fault.engine, fault.method, fault.fault.va, fault.fault.access) == ("host", 0x6C, addr, access)


# -- acquires


@pytest.mark.parametrize(
    ("operation", "payload", "good", "bad"),
    [
        (ACQUIRE, 5, [5], [4, 6]),
        (STRICT_GEQ, 5, [5, 6, 0xFFFFFFFF], [4, 0]),
        (CIRC_GEQ, 5, [5, 6, 0x80000004], [4, 0x80000005]),
        (CIRC_GEQ, 0xFFFFFFFF, [0xFFFFFFFF, 0, 5], [0xFFFFFFFE]),
        (AND, 6, [2, 4, 0xFF], [1, 0, 0xFFFFFFF8]),
        (NOR, 0xFFFFFFFE, [0], [1, 3]),
        (CIRC_GEQ | WIDE, 1 << 63, [1 << 63, (1 << 64) - 1], [0, (1 << 63) - 1]),
        (ACQUIRE | WIDE, 5 << 32, [5 << 32], [5, 0]),
    ],
)
def test_what_an_acquire_waits_for(
    world: EngineWorld, operation: int, payload: int, good: list[int], bad: list[int]
) -> None:
    """Each good value lets it go on; each bad one lets it wait, which is ended by a write of the CPU."""
    for value in good:
        world.space.write(A, value.to_bytes(8, "little"))
        world.run(execute(A, payload, operation))
    assert world.channel.counts.waits == 0
    for value in bad:
        waits_until(world, execute(A, payload, operation), value, good[0])
    assert world.channel.counts.acquires == len(good) + len(bad)


@pytest.mark.parametrize(
    ("operation", "payload", "good", "bad"),
    [(1, 5, 5, 6), (4, 5, 0x80000004, 0x80000005), (8, 6, 2, 1)],
)
def test_legacy_acquires(world: EngineWorld, operation: int, payload: int, good: int, bad: int) -> None:
    world.space.write(A, good.to_bytes(8, "little"))
    world.run(legacy(A, payload, operation | 1 << 12))
    assert world.channel.counts.waits == 0
    waits_until(world, legacy(A, payload, operation), bad, good)


def waits_until(w: EngineWorld, push: Push, bad: int, good: int) -> None:
    """The CPU writes the good value while the channel sleeps; it finds that by itself, soon."""
    w.space.write(A, bad.to_bytes(8, "little"))
    waits = w.channel.counts.waits
    with Interleaving(1) as run:
        channel = run.spawn(w.run, push)
        run.spawn(store_later, w, good)
        run.run()
        assert channel.ended
    assert w.channel.counts.waits == waits + 1


def store_later(w: EngineWorld, value: int, after: int = 50 * LAST_POLL) -> None:
    """As the CPU, which tells nobody."""
    task.Waiter().wait(task.now() + after)
    w.space.write(A, value.to_bytes(8, "little"))


def test_the_cpu_is_seen_within_the_longest_pause(world: EngineWorld) -> None:
    with Interleaving(2) as run:
        start = run.now()
        run.spawn(world.run, Push().acquire(A, 7).timestamp(A + 16))
        run.spawn(store_later, world, 7)
        run.run()
        assert 50 * LAST_POLL <= run.now() - start <= 51 * LAST_POLL
    assert world.channel.counts.busy["host"] == 0


def test_channels_wake_each_other_at_once(world: EngineWorld) -> None:
    """In any order of their steps; no time passes, since nobody has to look by himself."""
    first, second = Push(), Push()
    for turn in range(1, 20, 2):
        first.release(A, turn).acquire(A, turn + 1)
        second.acquire(A, turn).release(A, turn + 1)

    def scenario(run: Interleaving) -> None:
        world.space.write(A, bytes(4))
        start = run.now()
        run.spawn(world.run, first, world.processor(name="one"), PUSH)
        run.spawn(world.run, second, world.processor(name="two"), PUSH + 0x1000)
        run.run()
        assert run.now() == start
        assert world.number(A) == 20

    sample(scenario, range(scaled(10, 300)))
    world.waits.check()


def test_a_channel_that_waits_can_be_stopped(world: EngineWorld) -> None:
    """At once, and for good; others wait on."""
    other = world.processor(name="other")
    ends: list[str] = []

    def wait(channel: Processor, at: int) -> None:
        try:
            world.run(Push().acquire(A, 7), channel, at)
        except Stopped:
            ends.append(f"{channel.name} stopped")
        else:
            ends.append(f"{channel.name} went on")

    def stop() -> None:
        task.Waiter().wait(task.now() + LAST_POLL)
        assert world.waits.statistics().waiting == 2
        world.channel.stop()
        now = task.now()
        while len(ends) < 1:
            task.Waiter().wait(task.now() + 1)
        assert task.now() - now <= 1
        assert world.waits.statistics().waiting == 1
        world.run(Push().release(A, 7), world.processor(name="third"), PUSH + 0x2000)

    with Interleaving(3) as run:
        run.spawn(wait, world.channel, PUSH)
        run.spawn(wait, other, PUSH + 0x1000)
        run.spawn(stop)
        run.run()
    assert ends == ["channel stopped", "other went on"]
    with pytest.raises(Stopped):
        world.run(Push().release(A, 1))


def test_the_page_goes_while_a_channel_waits(world: EngineWorld) -> None:
    """It faults then, as it would have before."""

    def unmap() -> None:
        task.Waiter().wait(task.now() + LAST_POLL)
        world.vm.backend.sparse(A, END - A, False)
        for page in range(0, BEHIND - A, 0x1000):
            world.vm.backend.unmap(A + page, 0x1000, 12)

    def acquire() -> None:
        with pytest.raises(EngineFault) as fault:
            world.run(Push().acquire(A, 7))
        assert fault.value.fault is not None
        assert (fault.value.method, fault.value.fault.va) == (0x1C, A)

    with Interleaving(4) as run:
        run.spawn(acquire)
        run.spawn(unmap)
        run.run()
    world.vm.backend.sparse(A, END - A, True)
    world.vm.bind(world.same_pages(A))


def test_the_check_finds_who_waits(world: EngineWorld) -> None:
    with Interleaving(5) as run:
        run.spawn(world.run, Push().acquire(A, 7))
        run.spawn(store_later, world, 7, 2 * LAST_POLL)
        run.spawn(found_waiting, world)
        run.run()


def found_waiting(w: EngineWorld) -> None:
    task.Waiter().wait(task.now() + LAST_POLL)
    with pytest.raises(CheckFailed, match="wait"):
        w.waits.check()
    with pytest.raises(CheckFailed, match="executing True"):
        w.channel.check()
