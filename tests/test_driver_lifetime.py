"""How clients, channels, objects and devices end: in flight, shared, in any order; and nothing is left."""

from __future__ import annotations

import errno
import gc
import os
import threading
import weakref

import numpy as np
import pytest

import pushbuf
from contention import in_real_threads, strategy_of
from driver_calls import Typed
from driver_world import (
    BIG,
    GART,
    HUGE,
    NO_SHARE,
    PAGE,
    VRAM,
    Bo,
    Held,
    Program,
    device_of,
    drop_op,
    ended,
    map_op,
    nothing_is_left,
    program_of,
    sparse_op,
    unmap_op,
)
from gpuvm.errors import BadFile, Busy, InvalidArgument
from gpuvm.nouveau.device import Device
from gpuvm.nouveau.uapi.requests import Push
from gpuvm.sync import task
from gpuvm.testing import Interleaving
from interleaved import sleep_until
from suite import scaled

SEEDS = range(scaled(6, 300))
AT, REGION = HUGE, (16 * HUGE, HUGE)


def share(one: Program, bo: Bo, other: Program) -> Bo:
    """The same object in another client."""
    fd = one.client.prime_handle_to_fd(bo.handle)
    try:
        return Bo(other.client.prime_fd_to_handle(fd), bo.size, bo.tag)
    finally:
        os.close(fd)


class TestObjects:
    def test_what_is_mapped_needs_no_handle(self) -> None:
        with program_of() as program:
            bo = program.bo()
            obj = weakref.ref(program.client.handles.lookup(bo.handle))
            program.bind(map_op(AT, BIG, bo.handle), map_op(2 * AT, PAGE, bo.handle, PAGE))
            program.client.gem_close(bo.handle)
            assert Typed(program.client).gem_info(bo.handle) == -errno.ENOENT
            assert program.shows(AT, bo)
            program.bind(unmap_op(AT, BIG))
            assert program.shows(2 * AT, bo, PAGE, PAGE)
            program.bind(unmap_op(2 * AT, PAGE))
            program.client.settle()
            assert obj() is None

    def test_a_handle_that_is_closed_while_a_bind_is_held_back(self) -> None:
        with program_of() as program:
            held, bo, gone = program.held(), program.bo(), program.bo()
            program.bind(map_op(2 * AT, BIG, gone.handle))
            program.bind_behind(held, map_op(AT, BIG, bo.handle), unmap_op(2 * AT, BIG))
            for handle in (bo.handle, gone.handle):
                program.client.gem_close(handle)
            assert program.entry(2 * AT) == "valid"
            held.let_go()
            program.client.settle()
            assert program.shows(AT, bo)
            assert program.entry(2 * AT) == "invalid"

    def test_unmapped_while_the_gpu_uses_it(self) -> None:
        """Its memory is nobody else's before the execution is done, though nothing knows it any more."""
        with program_of(vram=8 << 20) as program:
            bo, target = program.bo(4 << 20), program.bo(BIG, GART)
            program.bind(map_op(AT, 4 << 20, bo.handle), map_op(8 * AT, BIG, target.handle))
            held = program.held()
            done = program.exec(pushbuf.Push(), waits=[held.sync])
            program.bind_async(unmap_op(AT, 4 << 20))
            program.client.gem_close(bo.handle)
            program.client._binds.drain()  # type: ignore[union-attr]
            statistics = program.device.mem.statistics()
            assert statistics.dying == 1
            held.let_go()
            assert ended(done) == 0
            again = program.bo(4 << 20)
            program.bind(map_op(AT, 4 << 20, again.handle))
            assert program.device.mem.statistics().dying == 0

    def test_a_view_outlives_everything(self) -> None:
        """As a mapping of the CPU does. Meanwhile the device is not closed for good."""
        device = Device(vram=16 << 20, gart=16 << 20)
        program = Program(device)
        bo = program.bo()
        view = program.client.view(bo.handle)
        program.client.close()
        assert int(view.view(np.uint64)[0]) == bo.tag
        with pytest.raises(Busy):
            device.close()
        del view
        gc.collect()
        device.close()
        nothing_is_left(device)


class TestSharing:
    def test_shared_objects_outlive_their_client(self) -> None:
        with device_of() as device:
            one, other = Program(device), Program(device)
            bo = one.bo()
            theirs = share(one, bo, other)
            one.bind(map_op(AT, BIG, bo.handle))
            one.copy(AT + 8, AT, 8)
            one.client.close()
            other.bind(map_op(AT, BIG, theirs.handle))
            assert other.shows(AT, theirs)
            assert int.from_bytes(other.look(AT + 8), "little") == bo.tag

    def test_a_file_alone_keeps_it(self) -> None:
        with device_of() as device:
            one, other = Program(device), Program(device)
            bo = one.bo()
            fd = one.client.prime_handle_to_fd(bo.handle)
            one.client.close()
            imported = other.client.prime_fd_to_handle(fd)
            assert other.client.prime_fd_to_handle(fd) == imported
            os.close(fd)
            other.bind(map_op(AT, BIG, imported))
            assert other.shows(AT, bo)

    def test_executions_of_both_are_waited_for(self) -> None:
        """Through the one reservation: the CPU is told of all, eviction waits for all."""
        with device_of() as device:
            one, other = Program(device), Program(device)
            bo = one.bo()
            theirs = share(one, bo, other)
            one.bind(map_op(AT, BIG, bo.handle))
            other.bind(map_op(AT, BIG, theirs.handle))
            held = one.held()
            done = one.exec(waits=[held.sync])
            assert Typed(other.client).gem_cpu_prep(theirs.handle, 1) == -errno.EBUSY
            held.let_go()
            assert ended(done) == 0
            assert Typed(other.client).gem_cpu_prep(theirs.handle, 0) == 0

    def test_on_another_device(self) -> None:
        """It lies in the exporter's memory as system memory does; nobody's device is closed before."""
        with device_of() as theirs, device_of() as ours:
            one, other = Program(theirs), Program(ours)
            bo = one.bo(BIG, GART)
            imported = share(one, bo, other)
            one.bind(map_op(AT, BIG, bo.handle))
            other.bind(map_op(2 * AT, BIG, imported.handle))
            assert other.shows(2 * AT, imported)
            other.copy(2 * AT + 8, 2 * AT + PAGE, 8)
            assert int.from_bytes(one.look(AT + 8), "little") == bo.tag_at(PAGE)
            other.client.close()
            one.client.close()

    def test_private_objects_stay_at_home(self) -> None:
        with program_of() as program:
            bo = program.bo(BIG, VRAM | NO_SHARE)
            with pytest.raises(OSError, match="EPERM"):
                program.client.prime_handle_to_fd(bo.handle)
            read, write = os.pipe()
            for bad in (read, write, 10_000):
                with pytest.raises((InvalidArgument, BadFile)):
                    program.client.prime_fd_to_handle(bad)
            os.close(read)
            os.close(write)


def _let_go_later(held: Held) -> None:
    sleep_until(task.now() + task.NSEC_PER_SEC)
    held.let_go()


class TestClosing:
    def test_every_call_afterwards(self) -> None:
        with device_of() as device:
            program = Program(device)
            closed, calls = program.client, Typed(program.client)
            closed.close()
            closed.close()
            results = (
                calls.vm_init(0, PAGE),
                calls.vm_bind([]),
                calls.exec(1),
                calls.gem_new(PAGE, VRAM),
                calls.gem_info(1),
                calls.gem_cpu_prep(1, 0),
                calls.gem_cpu_fini(1),
                calls.channel_alloc(),
                calls.channel_free(1),
                closed.ioctl(0xC0106440, bytearray(16)),
            )
            assert set(results) == {-errno.EBADF}
            assert closed.released.signalled

    def test_with_everything_in_it(self) -> None:
        with device_of() as device:
            for _ in range(3):
                program = Program(device)
                bos = [program.bo(HUGE, domain) for domain in (VRAM, GART, VRAM | NO_SHARE)]
                program.bind(
                    sparse_op(*REGION), *(map_op(AT * (1 + at), HUGE, bo.handle) for at, bo in enumerate(bos))
                )
                program.bind(map_op(REGION[0], BIG, bos[0].handle), unmap_op(AT + BIG, PAGE))
                program.evict(bos[0], bos[2])
                program.client.channel_alloc()
                program.client.close()
                device.check()
                assert device.mem.statistics().objects == 0

    def test_binds_and_executions_in_flight(self) -> None:
        """Binds run, what is queued on channels does not, and nobody waits for ever."""
        for seed in SEEDS:
            with Interleaving(strategy_of(seed)) as run, device_of() as device:
                program = Program(device)
                held, bo = program.held(), program.bo()
                program.bind(sparse_op(*REGION))
                bound = program.bind_behind(held, map_op(AT, BIG, bo.handle), drop_op(*REGION))
                queued = program.exec(pushbuf.Push().raw([0]), waits=[held.sync])
                run.spawn(program.client.close)
                run.spawn(held.let_go)
                run.run()
                assert device.clients == ()
                assert bound.signalled
                assert bound.error == 0
                assert queued.error in (0, errno.ESRCH)

    def test_while_a_call_waits(self) -> None:
        """Closing waits for nobody; the call ends as it would, and then everything goes."""
        for seed in SEEDS:
            with Interleaving(strategy_of(seed)) as run, device_of() as device:
                program = Program(device)
                held, bo = program.held(), program.bo()
                program.bind(sparse_op(*REGION))
                program.bind_behind(held, drop_op(*REGION))
                run.spawn(program.bind, map_op(REGION[0], BIG, bo.handle))

                def close(program: Program = program) -> None:
                    sleep_until(task.now() + 1)  # nobody else can go on
                    program.client.close()
                    assert not program.client.released.signalled

                run.spawn(close)
                run.spawn(_let_go_later, held)
                run.run()
                assert program.client.released.signalled

    def test_fences_outlive_their_schedulers(self) -> None:
        """They are asked for names and for what they wait for, long after."""
        with device_of() as device:
            program = Program(device)
            bound = program.bind_async(unmap_op(0, PAGE))
            done = program.exec(pushbuf.Push())
            program.client.close()
            for fence in (bound, done):
                assert fence.signalled
                assert repr(fence)
                assert fence.driver


class TestDevices:
    def test_one_address_space(self) -> None:
        """Of several threads that ask for it one gets it."""
        for seed in SEEDS:
            with Interleaving(strategy_of(seed)) as run, device_of() as device:
                calls = Typed(device.open())
                results: list[int] = []

                def init(calls: Typed = calls, results: list[int] = results) -> None:
                    results.append(calls.vm_init(0, PAGE))
                    assert calls.channel_alloc() == 0

                for _ in range(3):
                    run.spawn(init)
                run.run()
                assert sorted(results) == [-errno.EBUSY, -errno.EBUSY, 0]
                assert sorted(calls.client.channels) == [1, 2, 3]

    def test_closing_closes_clients(self) -> None:
        device = Device(vram=16 << 20, gart=16 << 20)
        programs = [Program(device) for _ in range(3)]
        held = programs[0].held()
        fence = programs[0].exec(waits=[held.sync])
        held.let_go()
        device.close()
        device.close()
        assert fence.signalled
        nothing_is_left(device)
        with pytest.raises(InvalidArgument):
            device.open()

    def test_opening_and_closing_from_many_threads(self) -> None:
        with device_of() as device:

            def work(number: int) -> None:
                for _ in range(scaled(3, 20)):
                    program = Program(device)
                    bo = program.bo()
                    program.bind(map_op(AT, BIG, bo.handle))
                    assert program.shows(AT, bo)
                    program.client.close()

            in_real_threads(4, work)
            assert device.statistics().clients == 0

    def test_leaving_by_an_exception(self) -> None:
        """What raised may hold objects: the error is what one gets to see."""

        def fail() -> None:
            with Device(vram=16 << 20, gart=16 << 20) as device:
                devices.append(device)
                program = Program(device)
                view = program.client.view(program.bo().handle)
                program.client.exec(1, [Push(0, 0)])
                assert len(view) == 1

        devices: list[Device] = []
        with pytest.raises(AssertionError, match="len"):
            fail()
        assert devices[0].clients == ()


def test_no_threads_and_files_are_left() -> None:
    def left() -> tuple[int, int]:
        gc.collect()
        return threading.active_count(), len(os.listdir("/proc/self/fd"))

    for turn in range(3):
        with program_of() as program:
            for _ in range(4):
                program.client.channel_free(program.client.channel_alloc().id)
            assert program.run() == 0
        if turn == 0:
            before = left()
    assert left() == before
