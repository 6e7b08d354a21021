"""EXEC: what it locks and publishes, what it waits for and signals, and what channels are to each other."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import pushbuf
from contention import strategy_of
from driver_calls import Typed
from driver_world import (
    BIG,
    BINARY,
    GART,
    HUGE,
    MIB,
    NO_SHARE,
    PAGE,
    TIMELINE,
    VRAM,
    Bo,
    Program,
    device_of,
    ended,
    map_op,
    program_of,
    state,
    unmap_op,
    unsignalled,
)
from gpuvm.errors import Interrupted, LockdepError
from gpuvm.nouveau.bind_job import BindBackend
from gpuvm.nouveau.exec_job import ExecBackend
from gpuvm.nouveau.sync import Sync
from gpuvm.nouveau.uapi.requests import Push
from gpuvm.sync import task
from gpuvm.sync.resv import Usage
from gpuvm.testing import Interleaving
from interleaved import sleep_until
from suite import scaled

SEEDS = range(scaled(5, 200))
A, B, WORD = 16 * HUGE, 32 * HUGE, 48 * HUGE
"""Where the scene's objects are, and the one with semaphores."""


class Scene:
    """Two objects and one for semaphores, mapped; and one that is not."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.a, self.b = program.bo(), program.bo(BIG, VRAM | NO_SHARE)
        self.semaphores, self.stranger = program.bo(PAGE, GART), program.bo()
        program.words(self.semaphores)[:] = 0
        program.bind(map_op(A, BIG, self.a.handle), map_op(B, BIG, self.b.handle))
        program.bind(map_op(WORD, PAGE, self.semaphores.handle))
        self.other = program.client.channel_alloc()

    def fences(self, bo: Bo | None = None) -> list[tuple[Any, Usage]]:
        """In the reservation of an object, or of the address space."""
        client = self.program.client
        assert client.vm is not None
        return unsignalled(client.vm.resv if bo is None else client.handles.lookup(bo.handle).resv)

    def word(self) -> int:
        """The semaphore, as the CPU sees it."""
        return int(self.program.words(self.semaphores)[0, 0])


@contextmanager
def scene_of(**options: Any) -> Iterator[Scene]:
    with program_of(**options) as program:
        yield Scene(program)


class TestReservations:
    def test_an_execution_writes_all_that_is_mapped(self) -> None:
        with scene_of() as s:
            held = s.program.held()
            done = s.program.exec(waits=[held.sync])
            assert s.fences() == s.fences(s.a) == s.fences(s.b) == [(done, Usage.WRITE)]
            assert s.fences(s.semaphores) == [(done, Usage.WRITE)]
            assert s.fences(s.stranger) == []
            held.let_go()

    def test_a_bind_only_keeps_what_it_touches(self) -> None:
        """Mapped, unmapped or cut, and the space; memory management waits for it, nobody else."""
        with scene_of() as s:
            for op, touched in (
                (map_op(0, PAGE, s.stranger.handle), [s.stranger]),
                (unmap_op(A, 2 * BIG), [s.a]),
                (unmap_op(WORD, PAGE), [s.semaphores]),
                (map_op(B + PAGE, PAGE, s.stranger.handle), [s.stranger, s.b]),
                (unmap_op(HUGE, PAGE), []),
            ):
                held = s.program.held()
                done = s.program.bind_behind(held, op)
                ours = [(done, Usage.BOOKKEEP)]
                assert s.fences() == s.fences(s.b) == ours
                for bo in (s.a, s.semaphores, s.stranger):
                    assert s.fences(bo) == (ours if bo in touched else [])
                held.let_go()
                s.program.client.settle()
                s.program.bind(map_op(A, BIG, s.a.handle), map_op(B, BIG, s.b.handle), unmap_op(0, PAGE))
                s.program.bind(map_op(WORD, PAGE, s.semaphores.handle))

    def test_private_objects_share_the_spaces(self) -> None:
        with scene_of() as s:
            client = s.program.client
            assert client.vm is not None
            assert client.handles.lookup(s.b.handle).resv is client.vm.resv
            assert client.handles.lookup(s.a.handle).resv is not client.vm.resv

    def test_who_holds_an_object_is_waited_for(self) -> None:
        """As eviction does; and that wait can be interrupted, which publishes nothing."""
        for seed in SEEDS:
            with Interleaving(strategy_of(seed)) as run, scene_of() as s:
                tasks: list[task.Task] = []
                before = state(s.program)

                def execute(s: Scene = s, tasks: list[task.Task] = tasks) -> None:
                    tasks.append(task.current())
                    with pytest.raises(Interrupted):
                        s.program.exec(pushbuf.Push().raw([0]))

                def interrupt(tasks: list[task.Task] = tasks) -> None:
                    sleep_until(task.now() + 1)  # nobody else can go on
                    tasks[0].interrupt()

                with s.program.client.handles.lookup(s.a.handle).resv:
                    run.spawn(execute)
                    run.spawn(interrupt)
                    run.run()
                assert state(s.program) == before
                assert s.program.run() == 0


class TestSyncs:
    def test_without_pushes(self) -> None:
        """It waits, and then signals, bug 57; in its turn on the channel."""
        with scene_of() as s:
            assert s.program.run() == 0
            held = s.program.held()
            words = pushbuf.Push().acquire(WORD, 7)
            first = s.program.exec(words)
            second, third = s.program.exec(), s.program.exec(waits=[held.sync])
            held.let_go()
            assert not any(fence.signalled for fence in (first, second, third))
            s.program.words(s.semaphores)[0, 0] = 7
            assert (ended(first), ended(second), ended(third)) == (0, 0, 0)

    def test_a_timeline(self) -> None:
        with scene_of() as s:
            syncobjs = s.program.client.syncobjs
            timeline = syncobjs.create(0)
            words = pushbuf.Push().acquire(WORD, 1)
            s.program.exec(words, signals=[Sync(TIMELINE, timeline, 10)])
            s.program.exec(signals=[Sync(TIMELINE, timeline, 20)])
            s.program.exec(
                pushbuf.Push().release(WORD + 8, 5),
                waits=[Sync(TIMELINE, timeline, 15)],  # no such point: as soon as the next one
                signals=[Sync(TIMELINE, timeline, 30)],
                channel=s.other,
            )
            assert syncobjs.query([timeline], 0) == [0]
            assert syncobjs.query([timeline], 1) == [30]
            s.program.words(s.semaphores)[0, 0] = 1
            syncobjs.timeline_wait([timeline], [30], (1 << 63) - 1, 0)
            assert syncobjs.query([timeline], 0) == [30]
            assert int(s.program.words(s.semaphores)[0, 1]) == 5

    def test_the_same_sync_object_before_and_after(self) -> None:
        """What is in it is waited for, and then replaced."""
        with scene_of() as s:
            held = s.program.held()
            sync = held.sync
            done = s.program.exec(waits=[sync, sync], signals=[sync, sync])
            assert held.syncobj.head is done
            assert not done.signalled
            held.let_go()
            assert ended(done) == 0

    def test_errors_do_not_spread(self) -> None:
        with scene_of() as s:
            held = s.program.held()
            done = s.program.exec(pushbuf.Push().fill(A, PAGE, 9), waits=[held.sync])
            held.let_go(errno.ECANCELED)
            assert ended(done) == 0
            assert s.program.look(A, 4) == b"\t\0\0\0"

    def test_point_0(self) -> None:
        with scene_of() as s:
            timeline = s.program.client.syncobjs.create(0)
            s.program.exec(signals=[Sync(TIMELINE, timeline, 0)])
            s.program.exec(
                waits=[Sync(TIMELINE, timeline, 0)], signals=[Sync(TIMELINE, timeline, (1 << 64) - 1)]
            )
            s.program.client.settle()
            assert s.program.client.syncobjs.query([timeline], 0) == [(1 << 64) - 1]


class TestRunning:
    """Jobs run where fences depend on them."""

    @pytest.mark.parametrize("backend", [BindBackend, ExecBackend])
    def test_no_memory_and_no_reservations(
        self, backend: type[BindBackend | ExecBackend], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The validator would tell."""
        run_job, told, programs = backend.run_job, [], list[Program]()

        def watched(self: Any, job: Any) -> Any:
            for forbidden in (reserve, allocate) if programs else ():
                with pytest.raises(LockdepError):
                    forbidden()
                told.append(forbidden.__name__)
            return run_job(self, job)

        def reserve() -> None:
            with programs[0].client.vm.resv:  # type: ignore[union-attr]
                pass

        def allocate() -> None:
            programs[0].client.page_table.get(1 << 40, PAGE, 12)

        monkeypatch.setattr(backend, "run_job", watched)
        with program_of() as program:
            programs.append(program)
            program.bind(unmap_op(0, PAGE))
            program.bind_async(unmap_op(0, PAGE))
            assert program.run() == 0
            assert program.run(pushbuf.Push().raw([0])) == 0
            program.client.settle()
        assert {*told} == {"reserve", "allocate"}


class TestOrder:
    def test_pushes_and_calls_come_in_order(self) -> None:
        with scene_of() as s:
            fences = [
                s.program.exec(*(pushbuf.Push().release(WORD, 100 * call + push) for push in range(8)))
                for call in range(8)
            ]
            before = pushbuf.Push().acquire(WORD, 707).copy(A, WORD, 4)
            assert s.program.run(before, channel=s.other) == 0
            assert all(fence.signalled for fence in fences)
            assert int.from_bytes(s.program.look(A, 4), "little") == 707

    def test_channels_go_on_beside_each_other(self) -> None:
        """One waits until another one has released; neither knows of the other's syncs."""
        with scene_of() as s:
            stuck = s.program.exec(pushbuf.Push().acquire(WORD, 3).release(WORD + 8, 4))
            assert s.program.run(pushbuf.Push().fill(A, PAGE, 1), channel=s.other) == 0
            assert not stuck.signalled
            assert s.program.run(pushbuf.Push().release(WORD, 3), channel=s.other) == 0
            assert ended(stuck) == 0
            assert int(s.program.words(s.semaphores)[0, 1]) == 4

    def test_another_channels_job_is_waited_for_to_the_end(self) -> None:
        """Not only until the hardware has it, bug 58."""
        for seed in SEEDS:
            with Interleaving(strategy_of(seed)) as run, scene_of() as s:
                with s.program.out() as (sync, _):
                    words = pushbuf.Push().acquire(WORD, 1).copy(A, B, BIG)
                    s.program.client.exec(s.program.channel.id, [s.program.push(words)], (), [sync])
                    second = s.program.exec(
                        pushbuf.Push().copy(WORD + 8, A, 8), waits=[sync], channel=s.other
                    )

                def let_go(s: Scene = s) -> None:
                    sleep_until(task.now() + task.NSEC_PER_SEC)
                    assert int(s.program.words(s.semaphores)[0, 1]) == 0
                    s.program.words(s.semaphores)[0, 0] = 1

                run.spawn(let_go)
                run.run()
                assert ended(second) == 0
                assert int(s.program.words(s.semaphores)[0, 1]) == s.b.tag

    def test_a_chain_through_channels(self) -> None:
        with scene_of() as s:
            channels = [s.program.channel, s.other, s.program.client.channel_alloc()]
            places = [A + index * PAGE for index in range(9)]
            waits: list[Sync] = []
            for index, (src, dst) in enumerate(pairwise(places)):
                handle = s.program.client.syncobjs.create(0)
                s.program.exec(
                    pushbuf.Push().copy(dst, src, PAGE),
                    waits=waits,
                    signals=[Sync(BINARY, handle)],
                    channel=channels[index % 3],
                )
                waits = [Sync(BINARY, handle)]
            done = s.program.exec(waits=waits)
            assert ended(done) == 0
            assert set(s.program.tags_at(places).values()) == {s.a.tag}


class TestLimits:
    def test_as_many_pushes_as_there_may_be(self) -> None:
        with scene_of() as s:
            limit = s.program.client.getparam(17)
            assert limit == 1023 // 2 - 1
            push = s.program.push(pushbuf.Push().raw([0]))
            with s.program.out() as (sync, done):
                for _ in range(5):  # more than the ring has room for
                    s.program.client.exec(s.program.channel.id, [push] * limit, (), [sync])
            assert ended(done[0]) == 0
            last = s.program.push(pushbuf.Push().release(WORD, 1))
            before = s.program.push(pushbuf.Push().release(WORD, 2))
            s.program.client.exec(s.program.channel.id, [before] * (limit - 1) + [last])
            s.program.client.settle()
            assert s.word() == 1

    def test_flags_of_pushes(self) -> None:
        """NO_PREFETCH says when to fetch, bug 62: here always late enough."""
        with scene_of() as s:
            with s.program.out() as (sync, done):
                push = s.program.push(pushbuf.Push().release(WORD, 9))._replace(flags=1)
                s.program.client.exec(s.program.channel.id, [push], (), [sync])
            assert ended(done[0]) == 0
            assert s.word() == 9

    def test_a_working_set_that_does_not_fit(self) -> None:
        """Nothing is published; with less mapped it goes on."""
        with device_of(vram=32 * MIB) as device:
            s = Scene(Program(device))
            large = [s.program.bo(14 * MIB) for _ in range(2)]
            program = s.program
            program.bind(map_op(64 * HUGE, 14 * MIB, large[0].handle))
            program.bind(map_op(96 * HUGE, 14 * MIB, large[1].handle))
            third = program.bo(14 * MIB)
            program.bind(map_op(128 * HUGE, 14 * MIB, third.handle))
            calls, before = Typed(program.client), published(program)
            timeline = program.client.syncobjs.create(0)
            signals = [Sync(TIMELINE, timeline, 5)]
            assert (
                calls.exec(program.channel.id, [program.push(pushbuf.Push())], (), signals) == -errno.ENOMEM
            )
            assert program.client.syncobjs.find(timeline).head is None  # type: ignore[union-attr]
            program.client.syncobjs.destroy(timeline)
            assert published(program) == before
            program.bind(unmap_op(96 * HUGE, 14 * MIB))
            for addr, bo in ((64 * HUGE, large[0]), (128 * HUGE, third), (A, s.a), (B, s.b)):
                assert program.shows(addr, bo, 0, BIG)


def published(program: Program) -> dict[str, Any]:
    """What others can see of executions."""
    found = state(program)
    return {name: found[name] for name in ("fences", "syncobjs", "channels", "binds")}


def test_the_cpu_and_the_gpu_see_the_same_bytes() -> None:
    """Wherever an object is, and whatever happened to it."""
    with program_of() as program:
        random = np.random.default_rng(5)
        bos = [program.bo(4 * BIG, domain) for domain in (VRAM, GART, VRAM | GART, VRAM | NO_SHARE)]
        program.bind(*(map_op(HUGE * (1 + index), 4 * BIG, bo.handle) for index, bo in enumerate(bos)))
        data = random.integers(0, 256, 4 * BIG, np.uint8)
        program.client.view(bos[0].handle)[:] = data
        for index in range(3):
            program.copy(HUGE * (2 + index), HUGE * (1 + index), 4 * BIG)
            assert np.array_equal(program.client.view(bos[index + 1].handle), data)
            program.evict(*bos)
            data = random.permutation(data)
            program.client.view(bos[index + 1].handle)[:] = data


def test_a_channel_of_a_client_without_an_address_space() -> None:
    """There is one, and it executes nothing."""
    with device_of() as device:
        client = device.open()
        channel = client.channel_alloc()
        assert Typed(client).exec(channel.id, [Push(0, 4)]) == -errno.ENOSYS
        client.channel_free(channel.id)
        assert client.channel_alloc().id == channel.id


def test_channels_have_the_lowest_numbers() -> None:
    with program_of() as program:
        client = program.client
        made = [client.channel_alloc().id for _ in range(3)]
        assert made == [2, 3, 4]
        client.channel_free(3)
        client.channel_free(1)
        assert [client.channel_alloc().id for _ in range(3)] == [1, 3, 5]
