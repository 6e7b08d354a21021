"""Channels: their lives and deaths, and what that means for their jobs and for others."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from typing import Any

import pytest

from actors import actors, settle
from driver_world import (
    BIG,
    GART,
    MIB,
    SCRATCH,
    VRAM,
    Held,
    Program,
    device_of,
    ended,
    map_op,
    program_of,
    state,
)
from gpuvm.errors import GpuvmError, InvalidArgument, NoDevice, NoSpace, NotFound, OutOfMemory
from gpuvm.nouveau import Push
from gpuvm.nouveau.channel import EXEC_PUSH_MAX, PATIENCE
from gpuvm.sync import task
from gpuvm.testing import Interleaving
from pushbuf import Push as Words

A, SEMAPHORE, NOWHERE = 0x10_0000, 0x50_0000, 0xDEAD_0000
SECOND = task.NSEC_PER_SEC


def semaphore(program: Program) -> int:
    """A word that channels wait for, at SEMAPHORE; its handle."""
    bo = program.client.gem_new(BIG, GART).handle
    program.bind(map_op(SEMAPHORE, BIG, bo))
    return bo


def release(program: Program, bo: int) -> None:
    program.client.view(bo)[0] = 1


def fault() -> Words:
    return Words().copy(NOWHERE, SCRATCH, 8)


# -- numbers and limits


def test_numbers_are_the_lowest_that_are_free() -> None:
    with device_of() as device:
        client = Program(device, channel=False).client
        assert [client.channel_alloc().id for _ in range(3)] == [1, 2, 3]
        client.channel_free(2)
        assert [*client.channels] == [1, 3]
        assert [client.channel_alloc().id for _ in range(2)] == [2, 4]
        for id in (0, 5, -1):
            with pytest.raises(NotFound):
                client.channel_free(id)
            with pytest.raises(NotFound):
                client.exec(id, [])


def test_how_many_channels_there_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpuvm.nouveau.device.CHANNELS", 3)
    with device_of() as device:
        clients = [Program(device).client for _ in range(2)]
        clients[0].channel_alloc()
        with pytest.raises(NoSpace):
            clients[1].channel_alloc()
        assert [*clients[1].channels] == [1]
        clients[0].channel_free(2)
        clients[1].channel_alloc()
        clients[1].close()
        assert [clients[0].channel_alloc().id for _ in range(2)] == [2, 3]


@pytest.mark.parametrize("started", range(3))
def test_a_channel_for_which_there_are_no_threads(monkeypatch: pytest.MonkeyPatch, started: int) -> None:
    with program_of() as program:
        start, left = task.start, [started]

        def shortage(name: str, target: Callable[[], None]) -> task.Thread:
            if not left[0]:
                raise RuntimeError("can't start new thread")
            left[0] -= 1
            return start(name, target)

        before = state(program)
        with monkeypatch.context() as patch:
            patch.setattr(task, "start", shortage)
            with pytest.raises(OutOfMemory):
                program.client.channel_alloc()
        assert state(program) == before
        assert program.client.channel_alloc().id == 2


def test_how_many_pushes_and_how_long() -> None:
    with program_of() as program:
        good = program.push(Words().fill(SCRATCH + 0x8000, 4, 7))
        client, id = program.client, program.channel.id
        client.exec(id, [good._replace(va_len=0x7FFFFC)] * 0 + [good] * EXEC_PUSH_MAX)
        client.settle()
        before = state(program)
        for pushes in ([good] * (EXEC_PUSH_MAX + 1), [good, Push(SCRATCH, 0x800000)], [Push(SCRATCH, -4)]):
            with pytest.raises(InvalidArgument):
                client.exec(id, pushes)
        assert state(program) == before
        assert client.view(program.scratch)[0x8000] == 7
        assert program.channel.statistics().launches == EXEC_PUSH_MAX


def test_an_exec_of_nothing_comes_after_what_is_before_it() -> None:
    with actors() as _, program_of() as program:
        bo, held = semaphore(program), Held(program)
        fences = [
            program.exec(Words().acquire(SEMAPHORE, 1)),
            program.exec(),
            program.exec(waits=[held.sync]),
        ]
        settle()
        assert [fence.signalled for fence in fences] == [False] * 3
        release(program, bo)
        assert ended(fences[1]) == 0
        settle()
        assert [fence.signalled for fence in fences] == [True, True, False]
        held.let_go()
        assert ended(fences[2]) == 0


def test_a_job_may_wait_for_one_before_it_on_its_own_ring() -> None:
    with program_of() as program:
        with program.out() as (sync, _):
            program.exec(Words().fill(SCRATCH + 0x8000, 4, 1), signals=[sync])
            assert ended(program.exec(Words().copy(SCRATCH + 0x8004, SCRATCH + 0x8000, 4), waits=[sync])) == 0
        assert program.client.view(program.scratch)[0x8004] == 1


# -- death


@pytest.mark.parametrize("died", ["fault", "killed"])
def test_a_channel_dies_alone(died: str) -> None:
    """Its job fails, so does what is queued, and what comes is refused; others go on; a new one works."""
    with program_of() as program:
        client, other, held = program.client, program.client.channel_alloc(), Held(program)
        queued = program.exec(Words().fill(SCRATCH + 0x8000, 4, 7), waits=[held.sync])
        others = program.exec(Words().fill(SCRATCH + 0x8004, 4, 8), channel=other, waits=[held.sync])
        dead = client.channel_alloc()
        behind = [
            program.exec(fault() if died == "fault" else Words(), channel=dead),
            program.exec(Words().fill(SCRATCH + 0x8008, 4, 9), channel=dead, waits=[held.sync]),
            program.exec(channel=dead, waits=[held.sync]),
        ]
        if died == "killed":
            assert ended(behind.pop(0)) == 0
            dead.kill("by hand")
        else:
            assert ended(behind[0]) == errno.ENODEV
            assert [report.channel for report in program.device.faults] == [dead.id]
        assert (dead.killed, program.channel.killed) == (True, False)
        before = state(program)
        with pytest.raises(NoDevice):
            program.exec(channel=dead)
        assert state(program) == before
        held.let_go()
        assert {ended(fence) for fence in behind} == {errno.ENODEV}
        assert (ended(queued), ended(others)) == (0, 0)
        assert client.view(program.scratch)[0x8000:0x800C:4].tolist() == [7, 8, 0]
        client.channel_free(dead.id)
        fresh = client.channel_alloc()
        assert fresh.id == dead.id
        assert program.run(Words().fill(SCRATCH + 0x8008, 4, 9), channel=fresh) == 0
        assert program.device.statistics().faults == (died == "fault")


def test_what_follows_a_fault_in_its_job_is_not_executed() -> None:
    with program_of() as program:
        after = Words().fill(SCRATCH + 0x8000, 4, 7)
        fence = program.exec(Words().fill(SCRATCH + 0x8004, 4, 8), fault(), after)
        assert ended(fence) == errno.ENODEV
        assert program.client.view(program.scratch)[0x8000:0x8008:4].tolist() == [0, 8]


def test_a_job_that_takes_too_long() -> None:
    with Interleaving(0) as run, program_of(timeout=10) as program:
        bo, other = semaphore(program), program.client.channel_alloc()
        began = task.now()
        stuck = program.exec(Words().acquire(SEMAPHORE, 1))
        behind = program.exec(Words().fill(SCRATCH + 0x8000, 4, 7))
        assert ended(program.exec(Words().fill(SCRATCH + 0x8004, 4, 8), channel=other)) == 0
        assert (ended(stuck), ended(behind)) == (errno.ENODEV, errno.ENODEV)
        assert 10 * SECOND <= task.now() - began < 10.1 * SECOND
        with pytest.raises(NoDevice):
            program.exec()
        assert program.channel.statistics().scheduler.timeouts == 1
        assert program.run(Words().fill(SCRATCH + 0x8008, 4, 9), channel=other) == 0
        release(program, bo)
        program.client.channel_free(program.channel.id)
        run.run()


def test_a_bind_does_not_time_out() -> None:
    with Interleaving(0), program_of(timeout=1) as program:
        bo, held = program.bo(), Held(program)
        bind = program.bind_behind(held, map_op(A, BIG, bo.handle))
        exec = program.exec(waits=[held.sync])
        assert not bind.wait(100)
        assert not exec.signalled
        held.let_go()
        assert (ended(bind), ended(exec)) == (0, 0)


def test_a_bug_in_an_engine_kills_the_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    with program_of() as program:
        told: list[Any] = []
        with monkeypatch.context() as patch:
            patch.setattr(sys, "unraisablehook", told.append)
            patch.setattr(program.channel.processor, "execute", lambda va, va_len: 1 // 0)
            assert program.run(Words()) == errno.ENODEV
        assert [each.exc_type for each in told] == [ZeroDivisionError]
        assert program.channel.killed
        told.clear()


# -- freeing, with work under way


def test_freeing_lets_the_ring_end_and_drops_what_is_queued() -> None:
    with actors("frees") as (actor,), program_of() as program:
        bo, held = semaphore(program), Held(program)
        running = program.exec(Words().acquire(SEMAPHORE, 1))
        queued = program.exec(waits=[held.sync])
        actor.do(program.client.channel_free, program.channel.id)
        assert actor.asleep
        with pytest.raises(NotFound):
            program.client.exec(program.channel.id, [])
        release(program, bo)
        assert ended(running) == 0
        assert not queued.wait(2 * PATIENCE)
        held.let_go()
        assert ended(queued) == errno.ESRCH
        settle()
        assert actor.result is None
        assert program.client.channel_alloc().id == program.channel.id


def test_freeing_kills_a_ring_that_does_not_end() -> None:
    with Interleaving(0), program_of(timeout=None) as program:
        semaphore(program)
        stuck = program.exec(Words().acquire(SEMAPHORE, 1))
        began = task.now()
        program.client.channel_free(program.channel.id)
        assert ended(stuck) == errno.ENODEV
        assert PATIENCE * SECOND <= task.now() - began < (PATIENCE + 0.1) * SECOND


def test_channels_that_wait_for_each_other_end_together() -> None:
    """The first waits for what the second does after a fence; closing ends neither before the other."""
    with Interleaving(0), device_of(timeout=None) as device:
        program = Program(device)
        semaphore(program)
        second = program.client.channel_alloc()
        first = program.exec(Words().acquire(SEMAPHORE, 1))
        other = program.exec(Words().acquire(SEMAPHORE + 16, 1).release(SEMAPHORE, 1), channel=second)
        third = program.client.channel_alloc()
        last = program.exec(Words().release(SEMAPHORE + 16, 1), channel=third)
        program.client.close()
        assert [ended(fence) for fence in (first, other, last)] == [0, 0, 0]


def test_closing_kills_what_does_not_end() -> None:
    with Interleaving(0), device_of(timeout=None) as device:
        program = Program(device)
        semaphore(program)
        channels = [program.client.channel_alloc() for _ in range(3)]
        stuck = [program.exec(Words().acquire(SEMAPHORE, 1), channel=channel) for channel in channels]
        began = task.now()
        program.client.close()
        assert [ended(fence) for fence in stuck] == [errno.ENODEV] * 3
        assert task.now() - began < (PATIENCE + 0.1) * SECOND


@pytest.mark.parametrize("clients", [1, 2])
def test_what_is_queued_on_one_may_wait_for_another_that_hangs(clients: int) -> None:
    """Of one client or of two, and the device is closed: nobody waits for the hanging one for ever."""
    with Interleaving(0), device_of(timeout=None) as device:
        first = Program(device)
        second = Program(device) if clients == 2 else first
        semaphore(second)
        hangs = second.client.channel_alloc()
        stuck = second.exec(Words().acquire(SEMAPHORE, 1), channel=hangs)
        held = Held(first)
        held.syncobj.replace_fence(stuck)
        queued = first.exec(waits=[held.sync])
        held.let_go()
        if clients == 1:
            first.client.close()
            assert ended(queued) == errno.ESRCH
        else:
            device.close()
            assert ended(queued) == errno.ENODEV
        assert ended(stuck) == errno.ENODEV


@pytest.mark.parametrize("seed", range(8))
def test_freeing_while_another_thread_submits(seed: int) -> None:
    """Each submission was whole or refused, and every fence is signalled."""
    with Interleaving(seed) as run, program_of(vram=MIB, gart=MIB) as program:
        results: list[object] = []

        def submit() -> None:
            for _ in range(3):
                try:
                    results.append(program.exec(Words().fill(SCRATCH + 0x8000, 4, 7)))
                except GpuvmError as error:
                    results.append(type(error))

        run.spawn(submit)
        run.spawn(program.client.channel_free, 1)
        run.run()
        for result in results:
            if isinstance(result, type):
                assert result is NotFound
            else:
                assert ended(result) in (0, errno.ESRCH)  # type: ignore[arg-type]
        assert program.client.channels == {}
        assert program.bo(BIG, VRAM).handle
