"""Binds that are in each other's way: who waits, for whom, and what is bound in the end; in many orders."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import pushbuf
from contention import strategy_of
from driver_calls import Typed
from driver_world import (
    BIG,
    BINARY,
    HUGE,
    PAGE,
    Bo,
    Program,
    device_of,
    drop_op,
    ended,
    map_op,
    sparse_op,
    state,
    unmap_op,
)
from gpuvm.errors import Interrupted
from gpuvm.nouveau.sync import Sync
from gpuvm.nouveau.uapi.requests import VmBindOp
from gpuvm.sync import task
from gpuvm.testing import Interleaving
from interleaved import in_orders, pause, sleep_until
from suite import scaled
from uvmm_world import uvma

SEEDS = range(scaled(6, 150))
REGION = (16 * HUGE, 16 * PAGE)
START, END = REGION[0], sum(REGION)


class Scene:
    """A program with a region, two objects in it, and a sync object that holds binds back."""

    def __init__(self, run: Interleaving, program: Program) -> None:
        self.run, self.program = run, program
        self.one, self.other = program.bo(), program.bo()
        program.bind(sparse_op(*REGION), map_op(START, PAGE, self.one.handle))
        self.held = program.held()
        self.let_go = False
        self.order: list[str] = []

    def release(self) -> None:
        pause(3)
        self.let_go = True
        self.held.let_go()

    def bind(self, name: str, *ops: VmBindOp) -> None:
        self.program.bind(*ops)
        self.order.append(name)

    @property
    def waits(self) -> int:
        statistics = self.program.client.statistics().binds
        assert statistics is not None
        return statistics.waits

    def shows(self, addr: int, bo: Bo, offset: int = 0) -> bool:
        return self.program.shows(addr, bo, offset, PAGE)


@contextmanager
def scene_of(seed: int) -> Iterator[Scene]:
    with Interleaving(strategy_of(seed)) as run, device_of() as device:
        yield Scene(run, Program(device))


in_many_orders = in_orders(scene_of, SEEDS)


class TestRegionsBeingDropped:
    @staticmethod
    @in_many_orders
    def test_a_map_waits(s: Scene) -> None:
        """Also over what was the border; and nobody holds the VM's lock meanwhile."""
        dropped = s.program.bind_behind(s.held, drop_op(*REGION))

        def map_there() -> None:
            s.program.bind_async(map_op(END - PAGE, 2 * PAGE, s.other.handle))
            s.order.append("map")
            assert s.let_go
            assert dropped.signalled

        def map_elsewhere() -> None:
            s.program.bind_async(map_op(0, PAGE, s.other.handle))
            s.order.append("elsewhere")

        for work in (map_there, map_elsewhere, s.release):
            s.run.spawn(work)
        s.run.run()
        s.program.client.settle()
        assert {*s.order} == {"map", "elsewhere"}
        assert s.program.entries(START, END + PAGE) == 15 * "i" + "vv"
        assert s.shows(END, s.other, PAGE)
        assert s.shows(0, s.other)

    @staticmethod
    @in_many_orders
    def test_a_region_waits(s: Scene) -> None:
        """Even the same one again: what drops it unmaps there."""
        s.program.bind_behind(s.held, drop_op(*REGION))

        def make_again() -> None:
            s.program.bind_async(sparse_op(*REGION))
            assert s.let_go

        for work in (make_again, s.release):
            s.run.spawn(work)
        s.run.run()
        assert s.program.entries(START - PAGE, END + PAGE) == "i" + 16 * "s" + "i"

    @staticmethod
    @in_many_orders
    def test_who_does_not_wait(s: Scene) -> None:
        """Dropping it again is ENOENT, a region over its border ENOSPC in the end, unmapping is at once."""
        s.program.bind_behind(s.held, drop_op(*REGION))
        before = state(s.program)
        calls = Typed(s.program.client)

        def drop_again() -> None:
            assert calls.vm_bind([drop_op(*REGION)], run_async=True) == -errno.ENOENT
            assert (
                calls.vm_bind([map_op(START - PAGE, PAGE, s.one.handle), drop_op(*REGION)]) == -errno.ENOENT
            )
            assert state(s.program) == before

        s.run.spawn(drop_again)
        s.run.run()
        assert not s.waits
        s.program.bind_async(unmap_op(START, PAGE), map_op(END, PAGE, s.one.handle))
        assert not s.waits
        there = map_op(START, PAGE, s.one.handle)
        for code, bad in (
            (errno.EINVAL, there._replace(op=9)),
            (errno.ENOENT, there._replace(handle=77)),
            (errno.EINVAL, unmap_op(1, PAGE)),
        ):
            assert calls.vm_bind([there, bad]) == -code  # found before anybody waits
        s.held.let_go()

    @staticmethod
    @in_many_orders
    def test_what_was_waited_for_is_looked_at_again(s: Scene) -> None:
        """Two maps and a region wait for the same; whoever comes first decides about the others."""
        s.program.bind_behind(s.held, drop_op(*REGION))
        results: dict[str, int] = {}
        wanted = {
            "map over the border": map_op(START - PAGE, 2 * PAGE, s.one.handle),
            "region": sparse_op(*REGION),
            "map inside": map_op(END - PAGE, PAGE, s.other.handle),
        }

        def bind(name: str) -> None:
            results[name] = Typed(s.program.client).vm_bind([wanted[name]])

        for name in wanted:
            s.run.spawn(bind, name)
        s.run.spawn(s.release)
        s.run.run()
        assert results["map inside"] == 0
        made = results["region"] == 0
        assert made or results["region"] == -errno.ENOSPC
        assert results["map over the border"] in ((-errno.ENOSPC,) if made else (0,))
        expected = {0: "vv", -errno.ENOSPC: "is"}[results["map over the border"]]
        assert s.program.entries(START - PAGE, START + PAGE) == expected
        assert s.program.entry(END - PAGE) == "valid"

    @staticmethod
    @in_many_orders
    def test_nobody_needs_to_ask(s: Scene) -> None:
        """What an async bind leaves is cleaned up when it has run, whether anybody waits or not."""
        s.program.bind_behind(s.held, unmap_op(START, PAGE), drop_op(*REGION))
        s.run.spawn(s.release)
        s.run.run()
        assert s.program.client.statistics().binds.pending == 0  # type: ignore[union-attr]
        assert s.program.entries(START, START + PAGE) == "i"
        assert s.program.client.vm is not None
        assert s.program.client.vm.region_list() == []

    @staticmethod
    @in_many_orders
    def test_an_interrupted_wait(s: Scene) -> None:
        """It changes nothing, and nobody is kept out."""
        s.program.bind_behind(s.held, drop_op(*REGION))
        before = state(s.program)
        tasks: list[task.Task] = []

        def wait() -> None:
            tasks.append(task.current())
            with pytest.raises(Interrupted):
                s.program.bind(unmap_op(0, HUGE), map_op(START, PAGE, s.other.handle), drop_op(0, PAGE))

        def interrupt() -> None:
            sleep_until(task.now() + 1)  # nobody else can go on
            tasks[0].interrupt()

        for work in (wait, interrupt):
            s.run.spawn(work)
        s.run.run()
        after = state(s.program)
        assert after.pop("binds").waits == 1
        assert before.pop("binds").waits == 0
        assert after == before
        s.held.let_go()
        s.program.bind(map_op(START, PAGE, s.other.handle))
        assert s.shows(START, s.other)


class TestPendingUnmaps:
    @staticmethod
    @in_many_orders
    def test_a_region_waits(s: Scene) -> None:
        """For those that overlap, whatever was mapped there; not for others."""
        s.program.bind(map_op(HUGE, BIG, s.one.handle))
        unmapped = s.program.bind_behind(s.held, unmap_op(HUGE - PAGE, 2 * HUGE))

        def make() -> None:
            s.program.bind_async(sparse_op(8 * HUGE, PAGE))
            s.program.bind_async(sparse_op(HUGE, BIG))
            assert s.let_go
            assert unmapped.signalled

        for work in (make, s.release):
            s.run.spawn(work)
        s.run.run()
        assert s.program.entries(HUGE - PAGE, HUGE + BIG + PAGE) == "i" + 16 * "s" + "i"
        assert s.program.look(HUGE, 64) == bytes(64)

    @staticmethod
    @in_many_orders
    def test_a_map_does_not_wait(s: Scene) -> None:
        """It comes after them by the order of the queue."""
        s.program.bind(map_op(HUGE, BIG, s.one.handle))
        s.program.bind_behind(s.held, unmap_op(HUGE, BIG))
        s.program.bind_async(map_op(HUGE + PAGE, PAGE, s.other.handle))
        assert not s.waits
        assert s.program.entries(HUGE, HUGE + BIG) == 16 * "v"
        s.program.client.check()
        s.held.let_go()
        s.program.client.settle()
        assert s.program.entries(HUGE, HUGE + BIG) == "iv" + 14 * "i"
        assert s.shows(HUGE + PAGE, s.other)


class TestOrder:
    @staticmethod
    @in_many_orders
    def test_later_binds_come_later(s: Scene) -> None:
        """Though they wait for nothing themselves; a sync one returns when those before it are done."""
        fences = [s.program.bind_behind(s.held, map_op(HUGE, 2 * PAGE, s.one.handle))]
        fences.append(s.program.bind_async(map_op(HUGE + PAGE, PAGE, s.other.handle)))
        fences.append(s.program.bind_async(unmap_op(HUGE, PAGE)))

        def bind() -> None:
            s.bind("sync", map_op(HUGE + 2 * PAGE, PAGE, s.other.handle))
            assert all(fence.signalled for fence in fences)
            assert s.let_go

        for work in (bind, s.release):
            s.run.spawn(work)
        s.run.run()
        assert s.program.entries(HUGE, HUGE + 3 * PAGE) == "ivv"
        assert s.shows(HUGE + PAGE, s.other)

    @staticmethod
    @in_many_orders
    def test_threads_bind_the_same_page(s: Scene) -> None:
        """The order of the calls is that of the jobs: what the space says, the page table says."""
        objects = [s.program.bo() for _ in range(3)]

        def bind(number: int) -> None:
            for turn in range(2):
                op = map_op(HUGE, PAGE, objects[number].handle, turn * PAGE)
                if (number + turn) % 2:
                    s.program.bind(op)
                else:
                    s.program.bind_async(op)

        for number in range(3):
            s.run.spawn(bind, number)
        s.run.run()
        s.program.client.settle()
        vm = s.program.client.vm
        assert vm is not None
        va = uvma(vm, HUGE)
        (number,) = (
            at for at, bo in enumerate(objects) if s.program.client.handles.lookup(bo.handle) is va.obj
        )
        assert s.shows(HUGE, objects[number], va.offset)

    @staticmethod
    @in_many_orders
    def test_an_interrupt_comes_too_late(s: Scene) -> None:
        """A sync bind that was accepted waits for its end. UP-BUG: it says that it is done."""
        s.program.bind_behind(s.held, map_op(HUGE, PAGE, s.one.handle))
        tasks: list[task.Task] = []

        def bind() -> None:
            tasks.append(task.current())
            s.bind("sync", map_op(HUGE, PAGE, s.other.handle))
            assert s.let_go
            assert task.current().interrupted

        def interrupt() -> None:
            sleep_until(task.now() + 1)
            tasks[0].interrupt()
            sleep_until(task.now() + 1)
            s.release()

        for work in (bind, interrupt):
            s.run.spawn(work)
        s.run.run()
        assert s.shows(HUGE, s.other)

    @staticmethod
    @in_many_orders
    def test_what_failed_before_does_not_matter(s: Scene) -> None:
        """A fence with an error is a fence that is signalled."""
        fence = s.program.bind_behind(s.held, map_op(HUGE, PAGE, s.one.handle))
        s.held.let_go(errno.ECANCELED)
        assert ended(fence) == 0
        assert s.shows(HUGE, s.one)


class TestExecutions:
    @staticmethod
    @in_many_orders
    def test_only_what_its_syncs_say(s: Scene) -> None:
        """An execution does not wait for binds by itself, nor the other way round."""
        s.program.bind(map_op(HUGE, PAGE, s.one.handle))
        pending = s.program.bind_behind(s.held, map_op(HUGE, PAGE, s.other.handle))
        assert s.shows(HUGE, s.one)
        with s.program.out() as (sync, done):
            s.program.client.vm_bind([unmap_op(0, PAGE)], [s.held.sync], [sync], run_async=True)
            executed = s.program.exec(pushbuf.Push().copy(HUGE + 8, HUGE, 8), waits=[sync])
        assert not executed.signalled
        s.held.let_go()
        assert [ended(fence) for fence in (pending, *done, executed)] == [0, 0, 0]
        assert s.shows(HUGE, s.other)

    @staticmethod
    @in_many_orders
    def test_a_bind_that_waits_for_an_execution(s: Scene) -> None:
        """As a program unmaps what the GPU may still use."""
        s.program.bind(map_op(HUGE, BIG, s.one.handle), map_op(2 * HUGE, BIG, s.other.handle))
        syncobjs = s.program.client.syncobjs
        copied = syncobjs.create(0)
        sync = Sync(BINARY, copied)

        def copy_and_unmap() -> None:
            words = pushbuf.Push().copy(2 * HUGE, HUGE, BIG)
            fence = s.program.exec(words, waits=[s.held.sync], signals=[sync])
            s.program.client.vm_bind([unmap_op(HUGE, BIG)], [sync], run_async=True)
            assert ended(fence) == 0

        for work in (copy_and_unmap, s.release):
            s.run.spawn(work)
        s.run.run()
        s.program.client.settle()
        assert s.shows(2 * HUGE, s.one)
        assert s.program.entry(HUGE) == "invalid"


@in_many_orders
def test_eviction_waits_for_binds(s: Scene) -> None:
    """The entries that a bind will write must lead to where the object is."""
    s.program.bind_behind(s.held, map_op(HUGE, BIG, s.one.handle))

    def evict() -> None:
        s.program.evict(s.one)
        assert s.let_go

    for work in (evict, s.release):
        s.run.spawn(work)
    s.run.run()
    s.program.client.settle()
    assert s.program.entry(HUGE) == "invalid"
    assert s.shows(HUGE, s.one)
