"""Bind jobs and exec jobs: what they wait for, whom they make wait, and when their effects are seen."""

from __future__ import annotations

import errno
import gc
import sys
from _thread import get_ident
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from actors import actors, settle
from driver_world import (
    BIG,
    BINARY,
    GART,
    MIB,
    NO_SHARE,
    PAGE,
    TIMELINE,
    VRAM,
    Held,
    Program,
    device_of,
    drop_op,
    ended,
    map_op,
    program_of,
    sparse_op,
    state,
    unmap_op,
)
from gpuvm.errors import GpuvmError, Interrupted, InvalidArgument, NotFound, NotSupported, OutOfMemory
from gpuvm.nouveau import SERIES, Sync, VmBindOp
from gpuvm.sync.fence import Fence
from gpuvm.sync.resv import Resv, Usage
from gpuvm.testing import Interleaving, sample

A, B, REGION = 0x10_0000, 0x20_0000, 0x100_0000


def usages(resv: Resv, fence: Fence) -> list[Usage]:
    """How a reservation knows it."""
    return [usage for found, usage in list(resv._entries) if found is fence]


def resv_of(program: Program, handle: int) -> Resv:
    return program.client.handles.lookup(handle).resv


def own_resv(program: Program) -> Resv:
    assert program.client.vm is not None
    return program.client.vm.resv


# -- fences


def test_fences_and_their_usages() -> None:
    """A bind is in what it touches, an exec in all that is mapped."""
    with program_of() as program:
        old, new, aside = (program.bo().handle for _ in range(3))
        program.bind(map_op(A, BIG, old), map_op(B, BIG, aside))
        held = Held(program)
        bind = program.bind_behind(held, map_op(A, BIG, new))
        exec = program.exec(waits=[held.sync])
        found = {
            name: [usages(resv, fence) for fence in (bind, exec)]
            for name, resv in (
                ("space", own_resv(program)),
                ("old", resv_of(program, old)),
                ("new", resv_of(program, new)),
                ("aside", resv_of(program, aside)),
            )
        }
        assert found == {
            "space": [[Usage.BOOKKEEP], [Usage.WRITE]],
            "old": [[Usage.BOOKKEEP], []],
            "new": [[Usage.BOOKKEEP], [Usage.WRITE]],
            "aside": [[], [Usage.WRITE]],
        }
        held.let_go()
        assert (ended(bind), ended(exec)) == (0, 0)


def test_out_syncs_of_both_kinds() -> None:
    with program_of() as program:
        syncobjs, held = program.client.syncobjs, Held(program)
        binary, line = syncobjs.create(0), syncobjs.create(0)
        signals = [Sync(BINARY, binary), Sync(TIMELINE, line, 5), Sync(TIMELINE | 0xFF0, line, 7)]
        program.bind(waits=[held.sync], signals=signals, run_async=True)
        program.exec(waits=[Sync(TIMELINE, line, 7)], signals=[Sync(TIMELINE, line, 9)])
        assert syncobjs.query([line]) == [0]
        assert syncobjs.query([line], 1) == [9]
        held.let_go()
        syncobjs.timeline_wait([line, binary], [9, 0], 1 << 62, 1)
        assert syncobjs.query([line]) == [9]


@pytest.mark.parametrize("submit", ["bind", "exec"])
@pytest.mark.parametrize(
    ("waits", "signals", "error"),
    [
        ([(2, 1)], [], NotSupported),
        ([(0, 99)], [], NotFound),
        ([(0, 2)], [], InvalidArgument),
        ([(1, 3, 6)], [], InvalidArgument),
        ([(1, 1, 1)], [], InvalidArgument),
        ([], [(3, 1)], InvalidArgument),
        ([], [(0, 99)], NotFound),
        ([], [(0, 1), (1, 1, 1 << 64)], InvalidArgument),
        ([(2, 1)], [(0, 99)], NotSupported),
    ],
)
def test_syncs_that_are_refused(
    submit: str, waits: list[Any], signals: list[Any], error: type[GpuvmError]
) -> None:
    """Nothing was done then: no mapping, no fence, no point."""
    with program_of() as program:
        syncobjs, bo = program.client.syncobjs, program.bo().handle
        assert [syncobjs.create(1), syncobjs.create(0), syncobjs.create(0)] == [1, 2, 3]
        syncobjs.timeline_signal([3], [5])
        program.bind(map_op(A, BIG, bo))
        before = state(program)
        lists = [Sync(*wait) for wait in waits], [Sync(*signal) for signal in signals]
        call = {
            "bind": partial(program.client.vm_bind, [unmap_op(A, PAGE)], *lists, run_async=True),
            "exec": partial(program.client.exec, program.channel.id, [], *lists),
        }[submit]
        with pytest.raises(error):
            call()
        assert state(program) == before


def test_sync_binds_take_no_syncs() -> None:
    with program_of() as program:
        held = Held(program)
        for lists in ({"waits": [held.sync]}, {"signals": [held.sync]}):
            with pytest.raises(InvalidArgument, match="RUN_ASYNC"):
                program.bind(VmBindOp(99, 0, 0, 0, 0, 0), **lists)
        held.let_go()


# -- order


def test_the_page_table_follows_when_the_job_runs() -> None:
    with program_of() as program:
        bo, held = program.bo(), Held(program)
        first = program.bind_behind(held, map_op(A, BIG, bo.handle))
        second = program.bind_async(unmap_op(A, PAGE))
        assert program.client.vm is not None
        assert next(va.addr for va in program.client.vm if not va.kernel) == A + PAGE
        assert program.entries(A, A + 2 * PAGE) == "ii"
        held.let_go()
        assert (ended(first), ended(second)) == (0, 0)
        assert program.entries(A, A + 2 * PAGE) == "iv"


def test_a_failed_dependency_does_not_keep_a_bind_from_running() -> None:
    with program_of() as program:
        bo, held = program.bo(), Held(program)
        bind = program.bind_behind(held, map_op(A, BIG, bo.handle))
        held.let_go(errno.EIO)
        assert ended(bind) == 0
        assert program.shows(A, bo)


def test_a_sync_bind_runs_here_and_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """If nothing is in its way no other thread has to be woken; it is cleaned up when it returns."""
    with program_of() as program:
        bo, threads = program.bo(), list[int]()
        monkeypatch.setattr(program.client.history, "ran", lambda number: threads.append(get_ident()))
        program.bind(map_op(A, BIG, bo.handle))
        assert threads == [get_ident()]
        program.bind(unmap_op(A, BIG))
        statistics = program.client.statistics().binds
        assert statistics is not None
        assert statistics.pending == 0


def test_a_sync_bind_waits_behind_others() -> None:
    with actors("binds") as (actor,), program_of() as program:
        bo, held = program.bo(), Held(program)
        first = program.bind_behind(held, map_op(A, BIG, bo.handle))
        actor.do(program.bind, unmap_op(A, BIG))
        assert actor.asleep
        actor.thread.task.interrupt()  # too late: it was accepted
        held.let_go()
        settle()
        assert (actor.result, first.error) == (None, 0)
        assert program.entry(A) == "invalid"


def test_a_bug_in_a_job_is_told_to_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    with actors("binds") as (actor,), program_of() as program:
        bo, held, told = program.bo(), Held(program), list[Any]()

        def broken(number: int) -> None:
            raise RuntimeError("broken")

        program.bind_behind(held, map_op(B, BIG, bo.handle))
        with monkeypatch.context() as patch:
            patch.setattr(program.client.history, "ran", broken)
            actor.do(program.bind, map_op(A, BIG, bo.handle))
        with monkeypatch.context() as patch:
            patch.setattr(sys, "unraisablehook", told.append)
            held.let_go()
            settle()
        assert [str(each.exc_value) for each in told] == ["broken"]
        assert isinstance(actor.error, GpuvmError)
        assert "failed with errno 5" in str(actor.error)
        actor.error = None
        told.clear()
        gc.collect()  # tracebacks know the object


# -- conflicts in time


@pytest.mark.parametrize(
    ("pending", "op", "waits"),
    [
        (drop_op(REGION, MIB), lambda bo: map_op(REGION + BIG, BIG, bo), True),
        (drop_op(REGION, MIB), lambda bo: map_op(REGION - BIG, 2 * BIG, bo), True),
        (drop_op(REGION, MIB), lambda bo: sparse_op(REGION, MIB), True),
        (drop_op(REGION, MIB), lambda bo: map_op(REGION - BIG, BIG, bo), False),
        (drop_op(REGION, MIB), lambda bo: unmap_op(REGION, MIB), False),
        (unmap_op(A, BIG), lambda bo: sparse_op(A - MIB, 2 * MIB), True),
        (unmap_op(A, BIG), lambda bo: sparse_op(A + BIG, MIB), False),
        (unmap_op(A, BIG), lambda bo: map_op(A, BIG, bo), False),
    ],
)
def test_what_waits_for_binds_on_their_way(
    pending: VmBindOp, op: Callable[[int], VmBindOp], waits: bool
) -> None:
    with actors("binds") as (actor,), program_of() as program:
        bo = program.bo(2 * BIG).handle
        program.bind(sparse_op(REGION, MIB), map_op(A, BIG, bo))
        held = Held(program)
        program.bind_behind(held, pending)
        actor.do(program.bind_async, op(bo))
        assert actor.asleep == waits
        if waits:
            before = state(program)
            actor.thread.task.interrupt()
            settle()
            assert isinstance(actor.error, Interrupted)
            assert {**state(program), "syncobjs": 0} == {**before, "syncobjs": 0}
            actor.do(program.bind_async, op(bo))
            assert actor.asleep
        held.let_go()
        settle()
        assert ended(actor.result) == 0
        statistics = program.client.statistics().binds
        assert statistics is not None
        assert statistics.waits == 2 * waits


def test_regions_of_the_original_series() -> None:
    def op(code: int, addr: int, range_: int, handle: int = 0) -> VmBindOp:
        return VmBindOp(code, 0, handle, addr, 0, range_)

    alloc, free, map_ = (partial(op, code) for code in (0, 1, 2))
    with actors("binds") as (actor,), program_of(dialect=SERIES) as program:
        bo = program.bo().handle
        with pytest.raises(InvalidArgument):
            program.bind(map_(A, BIG, handle=bo))
        program.bind(alloc(A, MIB), map_(A, BIG, handle=bo))
        held = Held(program)
        program.bind_behind(held, free(A, MIB))
        actor.do(program.bind, alloc(A, MIB), map_(A + BIG, BIG, handle=bo))
        assert actor.asleep
        held.let_go()
        settle()
        assert actor.result is None
        assert program.entries(A + BIG - PAGE, A + BIG + PAGE) == "iv"
        with pytest.raises(NotFound):
            program.bind(free(B, MIB))


# -- objects that went away


def test_an_exec_brings_back_what_was_evicted() -> None:
    with program_of() as program:
        bo = program.bo(BIG, VRAM)
        program.bind(map_op(A, BIG, bo.handle))
        program.evict(bo)
        assert program.entry(A) == "invalid"
        assert ended(program.exec()) == 0
        assert (program.entry(A), program.client.gem_info(bo.handle).domain) == ("valid", VRAM)
        assert program.shows(A, bo)


def test_an_exec_that_does_not_fit_publishes_nothing() -> None:
    """Two that fit one at a time are mapped; the second bind pushes out the first, which exec cannot undo."""
    with program_of(vram=2 * MIB) as program:
        bos = [program.bo(MIB + 256 * 1024, VRAM) for _ in range(2)]
        for index, bo in enumerate(bos):
            program.bind(map_op(A + index * 16 * MIB, bo.size, bo.handle))
        before = state(program)
        with pytest.raises(OutOfMemory):
            program.exec()
        after = state(program)
        for name in ("fences", "syncobjs", "channels", "binds"):
            assert after[name] == before[name]
        program.bind(unmap_op(A, bos[0].size))
        assert ended(program.exec()) == 0
        assert program.shows(A + 16 * MIB, bos[1], 0, BIG)


def test_others_wait_for_the_exec_before_they_move_what_it_uses() -> None:
    with actors("evicts") as (actor,), program_of() as program:
        bo, held = program.bo(), Held(program)
        program.bind(map_op(A, BIG, bo.handle))
        exec = program.exec(waits=[held.sync])
        actor.do(program.evict, bo)
        assert actor.asleep
        assert program.entry(A) == "valid"
        held.let_go()
        settle()
        assert (actor.result, exec.error) == (None, 0)
        assert program.entry(A) == "invalid"


def test_a_bind_keeps_its_objects_until_it_has_run() -> None:
    with actors("evicts") as (actor,), program_of() as program:
        old, new = program.bo(), program.bo()
        program.bind(map_op(A, BIG, old.handle))
        held = Held(program)
        bind = program.bind_behind(held, map_op(A, BIG, new.handle))
        actor.do(program.evict, old, new)
        assert actor.asleep
        held.let_go()
        settle()
        assert (actor.result, bind.error) == (None, 0)
        assert program.shows(A, new)


def test_binds_of_many_threads_run_in_the_order_of_their_calls() -> None:
    """Whatever the interleaving, the page table ends as the space does; Device.check compares them."""

    def scenario(run: Interleaving) -> Callable[[], None]:
        device = device_of(vram=MIB, gart=MIB)
        program = Program(device.__enter__(), channel=False)
        bos = [program.bo(PAGE, GART | NO_SHARE).handle for _ in range(2)]

        def work(number: int) -> None:
            program.bind(map_op(A, PAGE, bos[number]), run_async=bool(number))
            program.bind(unmap_op(A, PAGE) if number else map_op(A + PAGE, PAGE, bos[number]))

        for number in range(2):
            run.spawn(work, number)

        def finish() -> None:
            program.client.settle()
            program.device.check()
            device.__exit__(None, None, None)

        return finish

    assert sample(scenario, range(20)).schedules == 20
