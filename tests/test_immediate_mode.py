"""Immediate mode: binds are prepared when they are submitted, and applied when their job runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from gpuvm import GpuVm, GpuVmFlags, VmBo
from gpuvm.errors import InvalidArgument, LockdepError
from gpuvm.exec import gpuvm as gpuvm_module
from gpuvm.sync import lockdep
from gpuvm.sync.fence import fence_context_alloc, stub_fence
from gpuvm.sync.mutex import Mutex
from gpuvm.testing import Interleaving, Pct, RandomWalk, explore, replay
from immediate_world import Step, World
from protocol import IMMEDIATE_MODE, PAGE, RESV_PROTECTED, Bo, bind, bind_all, evict, external, space
from snapshot import snapshot
from suite import scaled

both_protections = pytest.mark.parametrize(
    "flags", [IMMEDIATE_MODE, IMMEDIATE_MODE | RESV_PROTECTED], ids=["own", "resv"]
)
CONTEXT = fence_context_alloc()


def obtain(vm: GpuVm, bo: Bo) -> VmBo:
    """As a submitter does, who keeps the reference until the job is cleaned up."""
    fresh = vm.bo_create(bo)
    with vm.exec_lock_array([bo]):
        with bo.gpuva_lock:
            vm_bo = vm.bo_obtain_prealloc(fresh)
        vm.bo_extobj_add(vm_bo)
    return vm_bo


def unmap_in_job(vm: GpuVm, addr: int, range_: int = PAGE) -> None:
    vm.preallocate(1)
    step = Step(vm)
    with lockdep.fence_signalling(CONTEXT):
        vm.sm_unmap(addr, range_).step(step)
    vm.release_preallocated(1)


class TestABind:
    @both_protections
    def test_it_is_prepared_when_submitted_and_applied_when_run(self, flags: GpuVmFlags) -> None:
        vm = space(flags)
        old, new = external("old", "new")
        bind(vm, 0, old, 4 * PAGE)
        vm.preallocate(1)
        vm_bo, step = obtain(vm, new), Step(vm)
        assert (list(vm_bo), vm_bo.on_extobjs) == ([], True)
        size = vm.statistics().bytes

        with lockdep.fence_signalling(CONTEXT):
            vm.sm_map(PAGE, PAGE, new).step(step)
            assert vm.statistics().bytes == size
        assert [(va.addr, va.obj) for va in vm] == [(0, old), (PAGE, new), (2 * PAGE, old)]

        with new.gpuva_lock:
            assert not vm_bo.put_deferred()
        vm.release_preallocated(1)
        assert vm_bo.refcount == len(vm_bo) == 1
        assert vm.deferred == []
        vm.check()

    def test_what_was_not_preallocated_is_refused_and_nothing_changes(self) -> None:
        vm = space(IMMEDIATE_MODE)
        refused = None
        while refused is None:
            addr = PAGE * len(vm)
            step, vm_bo = Step(vm), obtain(vm, Bo("another"))
            before = snapshot(vm)
            with lockdep.fence_signalling(CONTEXT):
                try:
                    vm.sm_map(addr, PAGE, vm_bo.obj).step(step)
                except LockdepError as error:
                    refused = error
        assert "preallocate" in str(refused)
        assert snapshot(vm) == before
        vm.check()

    def test_a_new_vm_bo_may_be_made_in_the_job_if_it_was_promised(self) -> None:
        vm = space(IMMEDIATE_MODE)
        vm.preallocate(1, objects=1)
        (bo,), step = external("bo"), Step(vm)
        with lockdep.fence_signalling(CONTEXT), bo.gpuva_lock:
            vm_bo = vm.bo_obtain(bo)
        with lockdep.fence_signalling(CONTEXT):
            vm.sm_map(0, PAGE, bo).step(step)
        assert (vm.vm_bos(), vm_bo.refcount) == ([vm_bo], 2)

    def test_a_reservation_taken_in_a_job_is_found(self) -> None:
        vm = space(IMMEDIATE_MODE)
        section = lockdep.fence_signalling(CONTEXT)
        with section, pytest.raises(LockdepError, match="reservation"), vm.exec_lock():
            pytest.fail("the block must not run")
        assert not vm.resv.locked

    def test_a_submitter_with_the_lock_of_jobs_is_found(self) -> None:
        """Evictors wait for jobs with reservations in hand, for which such a submitter would wait."""
        vm, lock = space(IMMEDIATE_MODE), Mutex("vm lock")
        with lockdep.fence_signalling(CONTEXT), lock:
            pass
        with vm.exec_lock():
            stub_fence().wait()
        with lock, pytest.raises(LockdepError, match="vm lock"), vm.exec_lock():
            pytest.fail("the block must not run")


class TestZombies:
    @both_protections
    def test_walkers_skip_them(self, flags: GpuVmFlags) -> None:
        seen: list[VmBo] = []
        vm = space(flags, lambda vm_bo, exec: seen.append(vm_bo))
        ended, stays = bind_all(vm, *external("ended", "stays"))
        for vm_bo in (ended, stays):
            evict(vm_bo)
        with vm.exec_lock():
            assert vm.evicted == [ended, stays]
        unmap_in_job(vm, 0)
        assert (ended.zombie, vm.deferred) == (True, [ended])
        with vm.exec_lock() as exec:
            assert list(exec) == [vm.resv_obj, stays.obj]
            vm.validate(exec)
        assert seen == [stays]
        vm.check()

    @both_protections
    def test_obtaining_makes_a_new_one(self, flags: GpuVmFlags) -> None:
        vm = space(flags)
        (bo,) = external("bo")
        old = bind(vm, 0, bo)
        unmap_in_job(vm, 0)
        with bo.gpuva_lock:
            assert vm.bo_find(bo) is None
        new = obtain(vm, bo)
        assert new is not old
        assert (old.zombie, new.zombie, vm.extobjs, vm.deferred) == (True, False, [new], [old])
        assert vm.bo_deferred_cleanup() == 1
        assert (old.zombie, old.alive, new.alive, vm.deferred) == (False, False, True, [])
        vm.check()

    def test_they_are_cleaned_up_elsewhere(self) -> None:
        vm = space(IMMEDIATE_MODE)
        bind_all(vm, *external("bo"))
        unmap_in_job(vm, 0)
        with lockdep.fence_signalling(CONTEXT), pytest.raises(LockdepError):
            vm.bo_deferred_cleanup()
        assert len(vm.deferred) == vm.bo_deferred_cleanup() == 1
        assert vm.put()

    @both_protections
    @pytest.mark.parametrize("cleaned", [False, True])
    def test_evicting_one_is_no_error(self, flags: GpuVmFlags, cleaned: bool) -> None:
        """Whoever evicts holds the reservation, which does not keep jobs away."""
        vm = space(flags)
        (vm_bo,) = bind_all(vm, *external("bo"))
        unmap_in_job(vm, 0)
        if cleaned:
            vm.bo_deferred_cleanup()
        for evicted in (True, False):
            evict(vm_bo, evicted)
            assert (vm_bo.evicted, vm.evicted) == (False, [])

    def test_evicting_one_that_was_never_obtained_is(self) -> None:
        vm = space(IMMEDIATE_MODE)
        with pytest.raises(InvalidArgument, match="bo_create"):
            evict(vm.bo_create(Bo("bo")))

    def test_without_the_mode_evicting_one_that_ended_is(self) -> None:
        vm = space()
        (vm_bo,) = bind_all(vm, *external("bo"))
        with vm.exec_lock():
            vm.sm_unmap(0, PAGE).apply()
        with pytest.raises(InvalidArgument):
            evict(vm_bo)

    @both_protections
    def test_a_job_may_end_one_between_any_two_lines_of_a_walk(self, flags: GpuVmFlags) -> None:
        ends: Counter[str] = Counter()

        def scenario(run: Interleaving) -> Callable[[], None]:
            run.step_lines(gpuvm_module)
            vm = space(flags, lambda vm_bo, exec: vm_bo.vm.bo_evict(vm_bo, False))
            ended, stays = bind_all(vm, *external("ended", "stays"))
            for vm_bo in (ended, stays):
                evict(vm_bo)

            def submit() -> None:
                with vm.exec_lock() as exec:
                    ends["before"] += ended.obj not in list(exec)
                    vm.validate(exec)
                    ends["after"] += ended.alive

            run.spawn(submit)
            run.spawn(unmap_in_job, vm, 0)

            def check() -> None:
                ends["all"] += 1
                assert (vm.evicted, vm.extobjs, vm.deferred) == ([], [stays], [ended])
                vm.check()

            return check

        assert explore(scenario, preemptions=1).complete
        assert 0 < ends["before"] < ends["all"]
        assert 0 < ends["after"] < ends["all"] - ends["before"], "and some in the middle of it"


SUBMITTERS, EVICTORS, CLEANERS = 4, 2, 1


def test_nothing_is_lost_in_any_order() -> None:
    counts: Counter[str] = Counter()

    def world(seed: int) -> Callable[[Interleaving], Callable[[], None]]:
        def threads(run: Interleaving) -> Callable[[], None]:
            world = World(seed, SUBMITTERS + EVICTORS)
            for me in range(SUBMITTERS):
                run.spawn(world.submit, me, 6)
            for me in range(SUBMITTERS, SUBMITTERS + EVICTORS):
                run.spawn(world.evict, me, 4)
            for _ in range(CLEANERS):
                run.spawn(world.clean, 6)

            def finish() -> None:
                world.finish()
                counts.update(world.counts)

            return finish

        return threads

    for seed in range(scaled(40, 2000)):
        replay(world(seed), RandomWalk(seed) if seed % 2 else Pct(seed, depth=3, steps=600))
    assert min(counts.values()) > 0, counts
