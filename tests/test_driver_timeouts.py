"""Jobs that take too long and accesses that fault: the channel dies, and nothing else. On a virtual clock."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

import pushbuf
from contention import strategy_of
from driver_calls import WAYS, Typed
from driver_world import (
    BIG,
    BINARY,
    GART,
    HUGE,
    PAGE,
    Program,
    device_of,
    ended,
    map_op,
    program_of,
    unmap_op,
)
from gpuvm.errors import InvalidArgument
from gpuvm.nouveau.device import Device
from gpuvm.nouveau.sync import Sync
from gpuvm.sync import task
from gpuvm.sync.fence import Fence
from gpuvm.testing import Interleaving
from interleaved import in_orders, sleep_until
from suite import scaled

SECOND = task.NSEC_PER_SEC
LIMIT = 0.25
"""Seconds that most devices here give a job; the default are ten."""
AT, WORD = 16 * HUGE, 32 * HUGE


class Scene:
    """A program with an object, semaphores that are 0, and a second channel."""

    def __init__(self, run: Interleaving, program: Program) -> None:
        self.run, self.program = run, program
        self.bo, self.semaphores = program.bo(), program.bo(PAGE, GART)
        program.words(self.semaphores)[:] = 0
        program.bind(map_op(AT, BIG, self.bo.handle), map_op(WORD, PAGE, self.semaphores.handle))
        self.calls = Typed(program.client)
        self.other = program.client.channel_alloc()
        self.begun = task.now()

    def never(self, **options: Any) -> Fence:
        """An execution that waits for a semaphore that nobody releases."""
        return self.program.exec(pushbuf.Push().acquire(WORD, 1), **options)

    def exec(self) -> int:
        return self.calls.exec(self.program.channel.id)

    @property
    def passed(self) -> float:
        """Virtual seconds."""
        return (task.now() - self.begun) / SECOND

    def sleep(self, seconds: float) -> None:
        sleep_until(task.now() + int(seconds * SECOND))


@contextmanager
def scene_of(seed: int = 0, **options: Any) -> Iterator[Scene]:
    with Interleaving(strategy_of(seed)) as run, program_of(**options) as program:
        yield Scene(run, program)


in_many_orders = in_orders(partial(scene_of, timeout=LIMIT), range(scaled(3, 60)))


class TestATimeout:
    @staticmethod
    @in_many_orders
    def test_kills_the_channel(s: Scene) -> None:
        """When its time is up: what it had, what is queued, what comes."""
        first, second = s.never(), s.program.exec(pushbuf.Push().fill(AT, PAGE, 1))
        third = s.program.exec()
        assert (ended(first), ended(second), ended(third)) == (errno.ENODEV,) * 3
        assert LIMIT <= s.passed < LIMIT + 0.1
        assert s.exec() == -errno.ENODEV
        assert s.program.words(s.bo)[0, 0] == s.bo.tag
        assert s.program.channel.killed
        assert not s.program.device.faults

    @staticmethod
    @in_many_orders
    def test_others_go_on(s: Scene) -> None:
        """Other channels, other clients, binds, and who waits for the dead one's fence."""
        with s.program.out() as (sync, done):
            words = s.program.push(pushbuf.Push().acquire(WORD, 1))
            s.program.client.exec(s.program.channel.id, [words], (), [sync])
            behind = s.program.exec(pushbuf.Push().release(WORD + 8, 5), waits=[sync], channel=s.other)
            bound = s.program.bind_async(map_op(HUGE, PAGE, s.bo.handle), waits=[sync])
        assert (
            s.program.run(pushbuf.Push().fill(AT + PAGE, PAGE, 1), channel=s.other) == 0 or behind.signalled
        )
        assert (ended(done[0]), ended(behind), ended(bound)) == (errno.ENODEV, 0, 0)
        assert int(s.program.words(s.semaphores)[0, 1]) == 5
        assert s.program.entry(HUGE) == "valid"
        s.program.channel = s.other
        assert s.program.shows(AT, s.bo, 0, PAGE)

    @staticmethod
    @in_many_orders
    def test_freeing_what_is_dead(s: Scene) -> None:
        """Its number is another channel's then, which works."""
        assert ended(s.never()) == errno.ENODEV
        dead = s.program.channel.id
        assert s.calls.channel_free(dead) == 0
        assert s.calls.exec(dead) == -errno.ENOENT
        s.program.channel = s.program.client.channel_alloc()
        assert s.program.channel.id == dead
        assert s.program.shows(AT, s.bo)

    @staticmethod
    @in_many_orders
    def test_what_waits_comes_too_late(s: Scene) -> None:
        """It is done with ENODEV too, when what it waited for is signalled."""
        held = s.program.held()
        s.never()
        late = s.program.exec(pushbuf.Push().fill(AT, PAGE, 1), waits=[held.sync])
        s.sleep(1)
        assert s.program.channel.killed
        assert not late.signalled
        held.let_go()
        assert ended(late) == errno.ENODEV
        assert s.program.words(s.bo)[0, 0] == s.bo.tag

    @staticmethod
    @in_many_orders
    def test_time_begins_when_the_hardware_has_it(s: Scene) -> None:
        """Not while it waits in the queue; and for each job anew."""
        held = s.program.held()
        words = pushbuf.Push().acquire(WORD, 1, 4)
        first = s.program.exec(words, waits=[held.sync])
        second = s.program.exec(pushbuf.Push().acquire(WORD, 2, 4))
        s.sleep(1)
        held.let_go()
        s.sleep(0.2)
        s.program.words(s.semaphores)[0, 0] = 1
        assert ended(first) == 0
        s.sleep(0.2)
        s.program.words(s.semaphores)[0, 0] = 2
        assert ended(second) == 0
        assert s.exec() == 0
        s.program.client.settle()

    @staticmethod
    @in_many_orders
    def test_two_at_once(s: Scene) -> None:
        """Both channels, with more jobs behind; bug 54."""
        fences = [s.never(channel=channel) for channel in (s.program.channel, s.other) for _ in range(3)]
        assert {ended(fence) for fence in fences} == {errno.ENODEV}
        assert s.calls.exec(s.other.id) == s.exec() == -errno.ENODEV


class TestHowLong:
    def test_ten_seconds(self) -> None:
        with scene_of() as s:
            assert ended(s.never()) == errno.ENODEV
            assert 10 <= s.passed < 10.1

    def test_for_ever(self) -> None:
        with scene_of(timeout=None) as s:
            fence = s.never()
            s.sleep(12)
            assert not fence.signalled
            s.program.words(s.semaphores)[0, 0] = 1
            assert ended(fence) == 0

    @pytest.mark.parametrize("timeout", [0, -1.0, float("inf"), float("nan")])
    def test_no_time_at_all(self, timeout: float) -> None:
        with pytest.raises(InvalidArgument, match="timeout"):
            Device(timeout=timeout)

    def test_binds_have_all_the_time(self) -> None:
        with scene_of() as s:
            held = s.program.held()
            done = s.program.bind_behind(held, unmap_op(AT, PAGE))
            s.sleep(100)
            assert not done.signalled
            assert s.program.entry(AT) == "valid"
            held.let_go()
            assert ended(done) == 0
            assert s.program.entry(AT) == "invalid"

    @pytest.mark.parametrize("way", WAYS)
    def test_the_cpu_waits_for_half_a_minute(self, way: type[Typed]) -> None:
        with scene_of() as s:
            held, calls = s.program.held(), way(s.program.client)
            done = s.program.exec(waits=[held.sync])
            for flags in (0, 4):
                begun = s.passed
                assert calls.gem_cpu_prep(s.bo.handle, flags) == -errno.EBUSY
                assert 30 <= s.passed - begun < 30.1
            held.let_go()
            assert calls.gem_cpu_prep(s.bo.handle, 0) == calls.gem_cpu_prep(s.bo.handle, 4) == 0
            assert done.signalled


class TestFaults:
    FAULTS = (
        pushbuf.Push().fill(PAGE, 4, 0),
        pushbuf.Push().copy(AT, PAGE, 4),
        pushbuf.Push().copy(AT, AT + BIG - 4, 8),
        pushbuf.Push().release(PAGE, 1),
        pushbuf.Push().acquire(PAGE, 1),
        pushbuf.Push().fill(1 << 47, 4, 0),
    )

    @pytest.mark.parametrize("words", FAULTS, ids=range(len(FAULTS)))
    def test_kills_the_channel_at_once(self, words: pushbuf.Push) -> None:
        with scene_of() as s:
            after = pushbuf.Push().raw(words.words).fill(AT, PAGE, 1)
            fences = [s.program.exec(after), s.program.exec(pushbuf.Push().fill(AT, PAGE, 2))]
            assert [ended(fence) for fence in fences] == [errno.ENODEV] * 2
            assert s.passed < 1
            assert s.exec() == -errno.ENODEV
            assert s.program.words(s.bo)[0, 0] == s.bo.tag
            (report,) = s.program.device.faults
            assert (report.client, report.channel) == (s.program.client.name, s.program.channel.id)
            assert s.program.device.statistics().faults == 1
            s.program.channel = s.other
            assert s.program.shows(AT, s.bo)

    def test_a_push_that_cannot_be_fetched(self) -> None:
        with scene_of() as s:
            with s.program.out() as (sync, done):
                push = s.program.push(pushbuf.Push().raw([0]))._replace(va=PAGE)
                s.program.client.exec(s.program.channel.id, [push], (), [sync])
            assert ended(done[0]) == errno.ENODEV
            assert len(s.program.device.faults) == 1

    def test_what_was_executed_before_stays(self) -> None:
        with scene_of() as s:
            words = pushbuf.Push().release(WORD, 7).fill(PAGE, 4, 0)
            assert s.program.run(words) == errno.ENODEV
            assert int(s.program.words(s.semaphores)[0, 0]) == 7


class TestEndsInFlight:
    """A second of patience for what the ring has; then it is killed."""

    def test_freeing_a_channel(self) -> None:
        with scene_of() as s:
            held = s.program.held()
            stuck, queued = s.never(), s.program.exec(waits=[held.sync])

            def let_go() -> None:
                s.sleep(1.5)
                held.let_go()

            s.run.spawn(let_go)
            assert s.calls.channel_free(s.program.channel.id) == 0
            assert 1.5 <= s.passed < 1.6  # it is done with when what it waits for is
            assert (ended(stuck), ended(queued)) == (errno.ENODEV, errno.ESRCH)
            s.program.channel = s.other
            assert s.program.shows(AT, s.bo)

    def test_what_ends_in_time_ends_well(self) -> None:
        with scene_of() as s:
            nearly = s.never()
            s.run.spawn(self._release_after, s, 0.9)
            assert s.calls.channel_free(s.program.channel.id) == 0
            assert 0.9 <= s.passed < 1
            assert ended(nearly) == 0

    @staticmethod
    def _release_after(s: Scene, seconds: float) -> None:
        s.sleep(seconds)
        s.program.words(s.semaphores)[0, 0] = 1

    @pytest.mark.parametrize("timeout", [10.0, None])
    def test_closing_a_client(self, timeout: float | None) -> None:
        """Channels whose queues wait for what others have on their rings."""
        with Interleaving(0) as run, device_of(timeout=timeout) as device:
            s = Scene(run, Program(device))
            syncobjs = s.program.client.syncobjs
            sync = Sync(BINARY, syncobjs.create(0))
            stuck = s.never(channel=s.other, signals=[sync])
            queued = s.program.exec(waits=[sync])
            bound = s.program.bind_async(unmap_op(AT, PAGE), waits=[sync])
            s.program.client.close()
            assert s.passed < 1.1
            assert (stuck.error, queued.error, bound.error) == (errno.ENODEV, errno.ESRCH, 0)

    @pytest.mark.parametrize("timeout", [10.0, None])
    def test_closing_the_device(self, timeout: float | None) -> None:
        """The first client's queue waits for what the second has on its ring."""
        with Interleaving(0) as run, device_of(timeout=timeout) as device:
            first, second = Scene(run, Program(device)), Scene(run, Program(device))
            with second.program.out() as (sync, _):
                words = second.program.push(pushbuf.Push().acquire(WORD, 1))
                second.program.client.exec(second.program.channel.id, [words], (), [sync])
                shared = second.program.client.syncobjs.find(sync.handle)
                assert shared is not None
                wait = Sync(BINARY, first.program.client.syncobjs.insert(shared))
            queued = first.program.exec(waits=[wait])
            bound = first.program.bind_async(unmap_op(AT, PAGE), waits=[wait])
            device.close()
            assert first.passed < 2.2
            assert queued.error in (errno.ESRCH, errno.ENODEV)
            assert bound.error == 0
