"""What a cold reading of the driver found: each of these once went wrong."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from contextlib import suppress

import pytest

import pushbuf
from contention import strategy_of
from driver_world import (
    BIG,
    CPU,
    GART,
    HUGE,
    MIB,
    Held,
    Program,
    device_of,
    ended,
    map_op,
    nothing_is_left,
    program_of,
    unmap_op,
)
from gpuvm._core import Work
from gpuvm.errors import BadFile, Busy, Interrupted, InvalidArgument
from gpuvm.mem import Domain
from gpuvm.mem.placement import placement_of
from gpuvm.mmu import AddressSpace
from gpuvm.mmu.translation import Access
from gpuvm.nouveau import Device, client, device
from gpuvm.nouveau.uapi.requests import Push
from gpuvm.sync import task
from gpuvm.sync.fence import Fence, fence_context_alloc
from gpuvm.testing import Interleaving
from interleaved import sleep_until
from suite import scaled

SEEDS = range(scaled(10, 200))


def test_what_is_executed_is_what_was_submitted() -> None:
    """Though the caller goes on with his list; the kernel copies it."""
    with program_of() as program:
        source, target = program.bo(), program.bo()
        program.bind(map_op(HUGE, BIG, source.handle), map_op(2 * HUGE, BIG, target.handle))
        pushes = [program.push(pushbuf.Push().copy(2 * HUGE, HUGE, 64))]
        held = program.held()
        with program.out() as (sync, done):
            program.client.exec(1, pushes, [held.sync], [sync])
        pushes[0] = Push(0, 64)
        held.let_go()
        assert ended(done[0]) == 0
        assert program.words(target)[0, 0] == source.tag


@pytest.mark.parametrize("call", ["exec", "bind"])
def test_who_waits_for_memory_can_be_interrupted(call: str) -> None:
    """For the fences of what is to be moved out of the way; nothing is published then."""
    word = 64 * HUGE
    for seed in SEEDS:
        with Interleaving(strategy_of(seed)) as run, device_of(vram=4 * MIB, timeout=None) as gpu:
            user, other = Program(gpu), Program(gpu)
            semaphores = user.bo(BIG, GART)
            objects = user.bo(3 * MIB), other.bo(3 * MIB)
            other.bind(map_op(HUGE, 3 * MIB, objects[1].handle))
            user.bind(map_op(word, BIG, semaphores.handle), map_op(HUGE, 3 * MIB, objects[0].handle))
            using = user.exec(pushbuf.Push().acquire(word, 7))
            tasks: list[task.Task] = []

            def wait(
                other: Program = other, bo: int = objects[1].handle, tasks: list[task.Task] = tasks
            ) -> None:
                tasks.append(task.current())
                ops = [] if call == "exec" else [map_op(8 * HUGE, BIG, bo)]
                with pytest.raises(Interrupted):
                    other.bind(*ops) if ops else other.exec()

            def interrupt(tasks: list[task.Task] = tasks) -> None:
                sleep_until(task.now() + 1)
                tasks[0].interrupt()

            run.spawn(wait)
            run.spawn(interrupt)
            run.run()
            assert not using.signalled
            user.words(semaphores)[0, 0] = 7
            assert ended(using) == 0
            assert other.shows(HUGE, objects[1], 0, BIG)


def test_a_channel_can_be_freed_while_a_bind_waits_for_it() -> None:
    """It holds the VM's lock and needs memory that the channel uses, which ends after its second."""
    word = 64 * HUGE
    for seed in SEEDS:
        with Interleaving(strategy_of(seed)) as run, device_of(vram=4 * MIB, timeout=None) as gpu:
            program = Program(gpu)
            semaphores, used, wanted = program.bo(BIG, GART), program.bo(3 * MIB), program.bo(3 * MIB)
            program.bind(map_op(word, BIG, semaphores.handle), map_op(HUGE, 3 * MIB, used.handle))
            held = program.held()
            fences = [program.exec(pushbuf.Push().acquire(word, 7)), program.exec(waits=[held.sync])]
            program.bind(unmap_op(HUGE, 3 * MIB))

            def free(program: Program = program, held: Held = held) -> None:
                sleep_until(task.now() + 1)
                run.spawn(let_go, held)
                program.client.channel_free(1)

            def let_go(held: Held) -> None:
                sleep_until(task.now() + 2 * task.NSEC_PER_SEC)
                held.let_go()

            run.spawn(program.bind, map_op(HUGE, 3 * MIB, wanted.handle))
            run.spawn(free)
            run.run()
            assert [ended(fence) for fence in fences] == [errno.ENODEV, errno.ESRCH]


def test_memory_is_given_to_others_when_no_engine_writes_there_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nor will by entries that it looked at before. The object was mapped after the execution was submitted,
    whose fence it does not have."""
    word, translate = 64 * HUGE, AddressSpace._runs
    looked: list[Fence] = []
    steps = [None] * 100

    def translate_slowly(space: AddressSpace, addr: int, range: int, access: Access) -> bytes:
        runs = translate(space, addr, range, access)
        if addr == 16 * HUGE and task.preempt is not None:
            looked[-1].signal()
            for _ in steps:
                task.preempt()
        return runs

    monkeypatch.setattr(AddressSpace, "_runs", translate_slowly)
    for seed in SEEDS:
        with Interleaving(strategy_of(seed)) as run, device_of(vram=4 * MIB) as gpu:
            looked.append(Fence(fence_context_alloc(), 1, driver="test", timeline="looked"))
            program, stranger = Program(gpu), gpu.open()
            semaphores, source, target = program.bo(BIG, GART), program.bo(BIG, GART), program.bo(3 * MIB)
            program.bind(map_op(word, BIG, semaphores.handle), map_op(HUGE, BIG, source.handle))
            fence = program.exec(pushbuf.Push().acquire(word, 7).copy(16 * HUGE, HUGE, 64))
            program.bind(map_op(16 * HUGE, 3 * MIB, target.handle))
            handle = stranger.gem_new(3 * MIB, CPU).handle  # has no place in VRAM yet

            def take(stranger: client.Client = stranger, handle: int = handle) -> None:
                looked[-1].wait()
                obj = stranger.handles.lookup(handle)
                with obj.resv:
                    obj.device.validate(obj, placement_of(Domain.VRAM))

            program.words(semaphores)[0, 0] = 7
            run.spawn(take)
            run.run()
            assert ended(fence) in (0, errno.ENODEV)
            assert not stranger.view(handle).any()
            del fence


def test_a_device_that_is_closed_has_no_client() -> None:
    """Who opens it meanwhile gets one that is closed, or none."""
    for seed in SEEDS:
        with Interleaving(strategy_of(seed)) as run:
            run.step_lines(device, client)
            gpu = Device(vram=MIB, gart=MIB)
            opened: list[client.Client] = []

            def open_it(gpu: Device = gpu, opened: list[client.Client] = opened) -> None:
                with suppress(InvalidArgument):
                    opened.append(gpu.open())

            run.spawn(open_it)
            run.spawn(gpu.close)
            run.run()
            assert not any(one.is_open for one in opened)
            nothing_is_left(gpu)


def test_a_fault_knows_the_bind_that_writes_the_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the first entry on: engines look while they are written."""
    touches = []
    with program_of() as program:
        bo = program.bo()
        assert program.client.vm is not None
        entries = program.client.vm.entries
        write = entries.write

        def looking(work: Work) -> None:
            touches.append(program.client.history.last_touch(HUGE))
            write(work)

        monkeypatch.setattr(entries, "write", looking)
        for run_async in (False, True):
            program.bind(map_op(HUGE, BIG, bo.handle), run_async=run_async)
            program.client.settle()
        monkeypatch.undo()
    assert [touch is not None and (touch.run_async, touch.run) for touch in touches] == [
        (False, False),
        (True, False),
    ]


def test_of_a_closed_client_there_is_nothing_to_tell() -> None:
    with device_of() as gpu:
        program = Program(gpu)
        program.client.close()
        for look in (program.client.statistics, program.client.check, program.client.gpuvas):
            with pytest.raises(BadFile):
                look()


def test_what_is_in_the_way_of_closing_can_be_taken_away() -> None:
    """Nobody waits for ever for what was not released."""
    with device_of() as gpu:
        program = Program(gpu)
        obj, vm = program.client.handles.lookup(program.bo().handle), program.client.vm
        assert vm is not None
        with obj.resv:
            vm_bo = vm.bo_obtain(obj)
        for close in (program.client.close, gpu.close):
            with pytest.raises(Busy):
                close()
        with obj.resv:
            vm.bo_put(vm_bo)
        del obj, vm_bo
        assert not program.client.released.signalled
        program.client.close()
        assert program.client.released.signalled


class TestLittleStack:
    """A call that has no room for all it does is refused before it has done any of it."""

    def test_exec(self) -> None:
        self._with_more_and_more(lambda program, _: program.client.exec(1, ()))

    def test_bind(self) -> None:
        self._with_more_and_more(lambda program, bo: program.bind(map_op(HUGE, BIG, bo)))

    def test_async_bind(self) -> None:
        self._with_more_and_more(lambda program, bo: program.bind(map_op(HUGE, BIG, bo), run_async=True))

    def test_bind_behind_another(self) -> None:
        self._with_more_and_more(lambda program, bo: program.bind(map_op(HUGE, BIG, bo)), behind=True)

    def _with_more_and_more(
        self, call: Callable[[Program, int], Fence | None], *, behind: bool = False
    ) -> None:
        refused = 0
        with program_of() as program:
            bo = program.bo().handle
            for levels in range(8, 200):
                if behind:
                    program.bind(run_async=True)
                try:
                    with_levels(levels, lambda: call(program, bo))
                except RecursionError:
                    refused += 1
                program.client.settle()
                program.device.check()
                if levels - 8 > refused:
                    break
        assert refused


def with_levels(levels: int, call: Callable[[], object]) -> None:
    """Call with so many levels of the stack left."""
    depth, frame = 0, sys._getframe()
    while frame.f_back is not None:
        depth, frame = depth + 1, frame.f_back

    def go_down(further: int) -> None:
        if further:
            go_down(further - 1)
        else:
            call()

    limit = sys.getrecursionlimit()
    go_down(limit - depth - levels)
