"""Mistakes of the original series and of today's driver, by the document's numbers: none is made here."""

from __future__ import annotations

import errno
import os
import sys

import pytest

import pushbuf
from contention import in_real_threads, strategy_of
from driver_calls import Raw, Typed
from driver_failures import core_refuses
from driver_world import (
    BIG,
    BINARY,
    CPU,
    GART,
    HUGE,
    KERNEL,
    MIB,
    PAGE,
    TIMELINE,
    VRAM,
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
from gpuvm.errors import GpuvmError, OutOfMemory
from gpuvm.nouveau import gpuvas
from gpuvm.nouveau.bind_job import BindBackend, BindJob
from gpuvm.nouveau.device import Device
from gpuvm.nouveau.sync import Sync
from gpuvm.nouveau.uapi.dialects import SERIES
from gpuvm.sync import resv
from gpuvm.testing import Interleaving
from gpuvm.va import gpuvas as va_gpuvas
from suite import scaled

AT, REGION = 16 * HUGE, (64 * HUGE, HUGE)
KIND = 6


class TestArguments:
    def test_35_the_kind_is_a_byte_and_not_a_truth(self) -> None:
        with program_of() as program:
            bo = program.bo()
            program.bind(map_op(AT, BIG, bo.handle, kind=KIND), map_op(2 * AT, BIG, bo.handle))
            kinds = [program.client.page_table.translate(addr).kind for addr in (AT, 2 * AT)]  # type: ignore[union-attr]
            assert kinds == [KIND, 0]

    def test_36_freeing_an_unknown_region_is_an_error(self) -> None:
        with device_of() as device:
            calls = Typed(device.open(dialect=SERIES))
            assert calls.vm_init(*KERNEL) == 0
            assert calls.vm_bind([map_op(0, PAGE, 0)._replace(op=1)]) == -errno.ENOENT

    def test_46_a_second_vm_init(self) -> None:
        """UP-BUG: it is accepted there, and what the first made leaks."""
        with program_of() as program:
            assert Raw(program.client).vm_init(*KERNEL) == -errno.EBUSY

    def test_47_the_kernels_area_is_of_whole_pages(self) -> None:
        """UP-BUG."""
        with device_of() as device:
            calls = Raw(device.open())
            assert calls.vm_init(KERNEL[0] + 1, KERNEL[1]) == calls.vm_init(KERNEL[0], 1) == -errno.EINVAL

    def test_49_counts_do_not_wrap(self) -> None:
        """So many operations of 40 bytes are 40 in 32 bits."""
        with program_of() as program:
            fields = ((1 << 32) // 8 + 1, 1, 0, 0, 0, 0, 8)
            assert Raw(program.client).ioctl("vm_bind", "<IIIIQQQ", *fields)[0] == -errno.ENOMEM

    def test_50_pushbuf_holds_nothing(self) -> None:
        with program_of() as program:
            assert Raw(program.client).gem_pushbuf() == -errno.ENOSYS

            def work(number: int) -> None:
                program.client.channel_free(program.client.channel_alloc().id)

            in_real_threads(2, work)

    def test_51_objects_that_are_refused_leave_nothing(self) -> None:
        with program_of() as program:
            before = program.device.mem.statistics().objects
            assert Typed(program.client).gem_new(PAGE, VRAM, tile_flags=0xFF00) == -errno.EINVAL
            assert Typed(program.client).gem_new(PAGE, VRAM, align=3) == -errno.EINVAL
            assert program.device.mem.statistics().objects == before

    def test_52_an_address_space_that_is_refused_leaves_nothing(self) -> None:
        with device_of() as device:
            client = device.open()
            before = device.mem.statistics().instance_memory
            assert Typed(client).vm_init(1 << 47, PAGE) == -errno.EINVAL
            assert device.mem.statistics().instance_memory == before

    def test_61_everything_is_in_bytes(self) -> None:
        with program_of() as program:
            bo = program.bo(4 * PAGE)
            assert program.client.gem_info(bo.handle).size == 4 * PAGE
            program.bind(map_op(AT + PAGE, PAGE, bo.handle, 3 * PAGE))
            assert program.entries(AT, AT + 3 * PAGE) == "ivi"
            assert program.shows(AT + PAGE, bo, 3 * PAGE)
            assert program.client.getparam(8) == program.device.mem.vram.size

    @pytest.mark.parametrize("flags", [0, 1])
    def test_62_no_prefetch_is_said_by_a_flag(self, flags: int) -> None:
        with program_of() as program:
            push = program.push(pushbuf.Push().raw([0]))._replace(flags=flags)
            assert Raw(program.client).exec(1, [push]) == 0

    def test_63_pushes_have_23_bits(self) -> None:
        with program_of() as program:
            push = program.push(pushbuf.Push())
            for length in (0x800000, 0x80000000, 0xFFFFFFFC):
                assert Raw(program.client).exec(1, [push._replace(va_len=length)]) == -errno.EINVAL


class TestUnwinding:
    def test_37_failure_after_the_last_operation(self) -> None:
        """When everything is prepared, but not locked or not reserved."""
        with program_of() as program:
            bo, other = program.bo(), program.bo()
            program.bind(map_op(AT, BIG, bo.handle), map_op(2 * AT, BIG, other.handle))
            before = state(program)
            ops = [map_op(AT + PAGE, PAGE, other.handle), unmap_op(AT, PAGE), sparse_op(*REGION)]
            for number in range(3):  # the space's, and two objects'
                with resv.refuse_reservation(number), pytest.raises(OutOfMemory):
                    program.client.vm_bind(ops, run_async=True)
                assert state(program) == before

    def test_38_an_operation_that_fails_and_is_tried_again(self) -> None:
        with program_of() as program:
            bo = program.bo()
            program.bind(map_op(AT, BIG, bo.handle))
            before = state(program)
            for number in range(0, 60, scaled(7, 1)):
                for _ in range(2):
                    with core_refuses(number):
                        try:
                            program.bind(map_op(AT + PAGE, PAGE, bo.handle), unmap_op(AT, PAGE))
                        except OutOfMemory:
                            assert state(program) == before
                        else:
                            program.bind(map_op(AT, BIG, bo.handle))
                            before = state(program)

    def test_39_regions_are_undone_first_and_last(self) -> None:
        """UP-BUG: the list of a region's operations is freed, which it does not have."""
        with program_of() as program:
            before = state(program)
            for ops in ([sparse_op(*REGION)], [sparse_op(*REGION), drop_op(*REGION), sparse_op(AT, PAGE)]):
                assert Typed(program.client).vm_bind([*ops, drop_op(0, PAGE)]) == -errno.ENOENT
                assert state(program) == before

    @pytest.mark.parametrize("number", range(0, 40, scaled(5, 1)))
    def test_42_what_is_cut_comes_back(self, number: int) -> None:
        """UP-BUG: a mapping that was to be cut is lost if preparing fails."""
        with program_of() as program:
            bo = program.bo()
            program.bind(map_op(AT, BIG, bo.handle))
            try:
                with core_refuses(number):
                    program.bind(unmap_op(AT + PAGE, PAGE))
            except OutOfMemory:
                assert program.shows(AT, bo)
                program.bind(unmap_op(AT, BIG))
                assert program.entries(AT, AT + BIG) == 16 * "i"

    def test_dropping_a_region_is_undone(self) -> None:
        """UP-BUG: it is inserted though it is there, stays dirty, and who maps there waits for ever."""
        with program_of() as program:
            bo = program.bo()
            program.bind(sparse_op(*REGION), map_op(REGION[0], BIG, bo.handle))
            for _ in range(2):
                assert Typed(program.client).vm_bind([drop_op(*REGION), drop_op(0, PAGE)]) == -errno.ENOENT
                program.bind(map_op(REGION[0] + BIG, PAGE, bo.handle))
                assert program.shows(REGION[0], bo)
            program.bind(drop_op(*REGION))

    def test_48_nothing_stays_locked_after_an_execution_that_failed(self) -> None:
        with device_of(vram=16 * MIB) as device:
            program = Program(device)
            bos = [program.bo(6 * MIB) for _ in range(3)]
            for at, bo in enumerate(bos):
                program.bind(map_op(AT + at * 8 * HUGE, 6 * MIB, bo.handle))
            calls = Typed(program.client)

            def work(number: int) -> None:
                for _ in range(3):
                    assert calls.exec(1) == -errno.ENOMEM
                    program.bind(unmap_op(0, PAGE))

            in_real_threads(2, work)
            program.bind(unmap_op(AT, 6 * MIB))
            assert calls.exec(1) == 0

    def test_56_sync_objects_that_were_found_before_the_bad_one(self) -> None:
        """They are let go of once: they can be destroyed, and go."""
        with program_of() as program:
            syncobjs = program.client.syncobjs
            good = [Sync(kind, syncobjs.create(0), 5) for kind in (BINARY, TIMELINE)]
            for _ in range(3):
                assert Typed(program.client).exec(1, (), (), [*good, Sync(9, 1)]) == -errno.EINVAL
            assert [syncobjs.find(sync.handle).head for sync in good] == [None, None]  # type: ignore[union-attr]
            assert Typed(program.client).exec(1, (), (), good) == 0
            for sync in good:
                syncobjs.destroy(sync.handle)


class TestPageTables:
    @pytest.mark.parametrize("start", [0, 4, 12])
    @pytest.mark.parametrize("over", [False, True])
    def test_40_41_only_what_is_cut_off_is_cleared(self, start: int, over: bool) -> None:
        """CVE-2024-36018: entries beyond the end of what is cut belong to somebody else."""
        with program_of() as program:
            bo, after, new = program.bo(), program.bo(), program.bo()
            program.bind(map_op(AT, BIG, bo.handle), map_op(AT + BIG, BIG, after.handle))
            addr, size = AT + start * PAGE, 4 * PAGE
            program.bind(map_op(addr, size, new.handle) if over else unmap_op(addr, size))
            letters = 16 * "v" if over else start * "v" + 4 * "i" + (12 - start) * "v"
            assert program.entries(AT, AT + BIG) == letters
            assert program.shows(AT + BIG, after)
            if start:
                assert program.shows(AT, bo, 0, start * PAGE)
            if start < 12:
                assert program.shows(AT + (start + 4) * PAGE, bo, (start + 4) * PAGE)
            before = program.client.page_table.statistics().references
            program.bind(unmap_op(AT, 2 * BIG))
            assert program.client.page_table.statistics().references < before

    def test_43_regions_have_no_object(self) -> None:
        with program_of() as program:
            bo = program.bo()
            program.bind(sparse_op(*REGION), map_op(REGION[0] - PAGE, PAGE, bo.handle))
            program.bind(unmap_op(REGION[0] - PAGE, 2 * HUGE), drop_op(*REGION))

    def test_44_a_region_that_is_made_again(self) -> None:
        """The old one's job must not take the new one away."""
        with program_of() as program:
            for _ in range(scaled(5, 50)):
                program.bind_async(sparse_op(*REGION))
                program.bind_async(drop_op(*REGION))
                program.bind_async(sparse_op(*REGION))
                program.client.settle()
                assert program.entry(REGION[0]) == "sparse"
                program.bind(drop_op(*REGION))

    def test_45_pieces_know_their_region(self) -> None:
        with program_of() as program:
            bo = program.bo()
            program.bind(sparse_op(*REGION), map_op(REGION[0], BIG, bo.handle))
            program.bind(unmap_op(REGION[0] + 4 * PAGE, 4 * PAGE))
            program.bind(unmap_op(REGION[0], 2 * PAGE), unmap_op(REGION[0] + 14 * PAGE, 2 * PAGE))
            assert program.entries(REGION[0], REGION[0] + BIG) == "ssvvssssvvvvvvss"

    def test_60_neighbours_of_different_kinds_stay_apart(self) -> None:
        with program_of() as program:
            bo = program.bo(2 * BIG)
            program.bind(map_op(AT, BIG, bo.handle), map_op(AT + BIG, BIG, bo.handle, BIG, KIND))
            program.bind(unmap_op(AT, PAGE), unmap_op(AT + BIG, PAGE))
            kinds = [
                program.client.page_table.translate(addr).kind  # type: ignore[union-attr]
                for addr in (AT + PAGE, AT + BIG + PAGE)
            ]
            assert kinds == [0, KIND]

    def test_small_pages_make_way_for_a_large_one(self) -> None:
        """A race of 6.10: the small pages' table must not go while they are being replaced."""
        with program_of() as program:
            small, large = program.bo(HUGE, GART), program.bo(HUGE, VRAM)
            for _ in range(scaled(3, 30)):
                program.bind_async(map_op(AT, HUGE, small.handle))
                program.bind_async(unmap_op(AT, HUGE))
                program.bind_async(map_op(AT, HUGE, large.handle))
                program.client.settle()
                assert program.shows(AT, large, 0, BIG)

    def test_an_object_out_of_the_gpus_reach(self) -> None:
        """2026: use after free when it is in system memory and mapped or unmapped."""
        with program_of() as program:
            here, bo = program.bo(PAGE, CPU), program.bo()
            program.bind(map_op(AT, BIG, bo.handle))
            program.evict(bo)
            program.evict(bo)
            assert (
                Typed(program.client).vm_bind([unmap_op(AT, PAGE), map_op(0, PAGE, here.handle)])
                == -errno.EINVAL
            )
            program.bind(unmap_op(AT, PAGE))
            program.bind(unmap_op(AT, BIG))
            assert program.entries(AT, AT + BIG) == 16 * "i"


class TestJobs:
    def test_53_a_sync_bind_tells_of_its_job(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """UP-BUG: 0, whatever became of it."""
        run_job, failing = BindBackend.run_job, [False]

        def fail(backend: BindBackend, job: BindJob) -> None:
            run_job(backend, job)
            if failing[0]:
                raise OutOfMemory("planned")

        monkeypatch.setattr(BindBackend, "run_job", fail)
        with program_of() as program:
            monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: None)
            held = program.held()
            first = program.bind_behind(held, unmap_op(AT, PAGE))
            failing[0] = True

            def work(number: int) -> None:
                if number:
                    with pytest.raises(GpuvmError, match="errno 12"):
                        program.bind(unmap_op(AT, PAGE))
                else:
                    while len(program.client.vm.pending) < 2:  # type: ignore[union-attr]
                        os.sched_yield()
                    held.let_go()

            in_real_threads(2, work)
            assert ended(first) == errno.ENOMEM
            failing[0] = False
            program.bind(unmap_op(AT, PAGE))

    def test_54_a_channel_that_times_out_twice(self) -> None:
        """Killed by the first job, it has nothing more to destroy for the others."""
        with program_of(timeout=0.05) as program:
            bo = program.bo(PAGE, GART)
            program.words(bo)[:] = 0
            program.bind(map_op(AT, PAGE, bo.handle))
            fences = [program.exec(pushbuf.Push().acquire(AT, 1)) for _ in range(3)]
            assert [ended(fence) for fence in fences] == [errno.ENODEV] * 3
            program.client.channel_free(1)

    def test_55_points_that_are_not_there_are_not_waited_for(self) -> None:
        """The type of a sync is no flag of a wait: it would wait five seconds for the point."""
        with program_of() as program:
            timeline = program.client.syncobjs.create(0)
            wait = [Sync(TIMELINE, timeline, 1)]
            assert Typed(program.client).exec(1, (), wait) == -errno.EINVAL
            assert Typed(program.client).vm_bind([], wait, run_async=True) == -errno.EINVAL

    def test_57_nothing_to_execute(self) -> None:
        with program_of() as program:
            held = program.held()
            done = program.exec(waits=[held.sync])
            assert not done.signalled
            held.let_go()
            assert ended(done) == 0

    def test_58_queues_wait_for_each_others_ends(self) -> None:
        """Of binds for executions: not until they were begun."""
        with program_of() as program:
            bo = program.bo(PAGE, GART)
            program.words(bo)[:] = 0
            program.bind(map_op(AT, PAGE, bo.handle))
            sync = Sync(BINARY, program.client.syncobjs.create(0))
            program.exec(pushbuf.Push().acquire(AT, 1), signals=[sync])
            unmapped = program.bind_async(unmap_op(AT, PAGE), waits=[sync])
            assert not unmapped.signalled
            assert program.entry(AT) == "valid"
            program.words(bo)[0, 0] = 1
            assert ended(unmapped) == 0
            assert program.entry(AT) == "invalid"

    def test_59_dumping_while_clients_come_and_go(self) -> None:
        for seed in range(scaled(8, 300)):
            with Interleaving(strategy_of(seed)) as run, device_of() as device:
                run.step_lines(gpuvas, va_gpuvas)
                programs = [Program(device) for _ in range(2)]
                programs[0].bind(map_op(AT, BIG, programs[0].bo().handle))

                def dump(device: Device = device) -> None:
                    for _ in range(2):
                        assert "client" in device.gpuvas() or not device.clients

                run.spawn(dump)
                for program in programs:
                    run.spawn(program.client.close)
                run.run()
