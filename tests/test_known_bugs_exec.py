"""The bugs of the original series in GpuVm's protocol: one test for each of their numbers from 15 to 28.

Numbers 17 to 22, 26 and 28 are tested for the address-space manager in test_known_bugs, too. 25 and 27 are
defects of C and of its comments.
"""

from __future__ import annotations

import errno
import gc
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from drivers import Driver
from gpuvm import Busy, Exec, ExecFlags, GpuVm, GpuVmFlags, VmBo
from gpuvm.errors import LockdepError, NotSupported
from gpuvm.sync.resv import Usage
from interleaved import pending_fence
from protocol import (
    IMMEDIATE_MODE,
    OWN_LOCKS,
    PAGE,
    RESV_PROTECTED,
    SIZE,
    Bo,
    Userptr,
    bind,
    bind_all,
    both_protections,
    evict,
    external,
    private,
    space,
)


@both_protections
def test_bug_15_interruptible_waits_ignore_duplicates_too(flags: GpuVmFlags) -> None:
    vm = space(flags)
    one = Bo("one")
    bind_all(vm, one, Bo("twin", one.resv), *private(vm, "mine"))
    wait = ExecFlags.INTERRUPTIBLE_WAIT
    locks: list[Callable[[], AbstractContextManager[Exec]]] = [
        lambda: vm.exec_lock(flags=wait),
        lambda: vm.exec_lock_array([one], flags=wait),
        lambda: vm.exec_lock_range(0, SIZE, flags=wait),
    ]
    for lock in locks:
        with lock() as exec:
            assert exec.flags == wait | ExecFlags.IGNORE_DUPLICATES
            assert len(exec) == 2
            assert exec.holds(one)


def test_bug_16_external_objects_get_the_usage_for_external_objects() -> None:
    vm = space()
    (shared,), fence = external("shared"), pending_fence()
    bind_all(vm, shared, *private(vm, "mine"))
    with vm.exec_lock(1) as exec:
        vm.resv_add_fence(exec, fence, private_usage=Usage.BOOKKEEP, extobj_usage=Usage.WRITE)
    assert (shared.resv.fences(Usage.WRITE), vm.resv.fences(Usage.READ)) == ([fence], [])


@both_protections
def test_bug_17_walking_empty_lists_finds_nothing(flags: GpuVmFlags) -> None:
    vm = space(flags, lambda vm_bo, exec: pytest.fail("nothing is evicted"))
    with vm.exec_lock() as exec:
        vm.validate(exec)
        assert list(exec) == [vm.resv_obj]


@both_protections
def test_bug_18_walking_takes_no_reference_whose_drop_would_need_a_lock(flags: GpuVmFlags) -> None:
    vm = space(flags, lambda vm_bo, exec: counts.append(vm_bo.refcount))
    counts: list[int] = []
    vm_bos = bind_all(vm, *external("a", "b"))
    for vm_bo in vm_bos:
        evict(vm_bo)
    with vm.exec_lock() as exec:
        vm.validate(exec)
    assert counts == [vm_bo.refcount for vm_bo in vm_bos] == [1, 1]


def test_bug_19_a_space_does_not_end_before_its_vm_bos() -> None:
    vm = space(IMMEDIATE_MODE)
    vm_bo = bind(vm, 0, Bo("bo"))
    with pytest.raises(Busy):
        vm.put()
    with vm_bo.obj.gpuva_lock:
        vm.sm_unmap(0, PAGE).apply()
    with pytest.raises(Busy, match="bo_deferred_cleanup"):
        vm.put()
    vm.bo_deferred_cleanup()
    assert vm.put()


@both_protections
def test_bug_20_what_was_validated_leaves_the_list(flags: GpuVmFlags) -> None:
    seen = []

    def bring_back(vm_bo: VmBo, exec: Exec) -> None:
        seen.append(vm_bo)
        vm.bo_evict(vm_bo, False)

    vm = space(flags, bring_back)
    (vm_bo,) = bind_all(vm, *external("bo"))
    evict(vm_bo)
    for _ in range(2):
        with vm.exec_lock() as exec:
            vm.validate(exec)
            assert vm.evicted == []
    assert seen == [vm_bo]


def test_bug_21_evicting_is_checked_and_touches_no_list_of_others() -> None:
    vms = [space(RESV_PROTECTED), space(RESV_PROTECTED)]
    (bo,) = external("bo")
    vm_bos = [bind(vm, 0, bo) for vm in vms]
    with pytest.raises(LockdepError, match="bo"):
        vms[0].bo_evict(vm_bos[0], True)
    for vm_bo in vm_bos:
        evict(vm_bo)
        assert (vm_bo.evicted, vm_bo.vm.evicted) == (True, [])
    with vms[0].exec_lock():
        assert (vms[0].evicted, vms[1].evicted) == ([vm_bos[0]], [])


def test_bug_22_mappings_without_object_are_not_locked() -> None:
    vm = space()
    (bo,) = external("bo")
    bind_all(vm, None, bo, Userptr())
    with vm.exec_lock_range(0, SIZE) as exec:
        assert list(exec) == [bo]
    with Exec() as exec:
        for attempt in exec.until_all_locked():
            with attempt:
                vm.sm_map_exec_lock(exec, 1, 0, 4)
                vm.sm_unmap_exec_lock(exec, 0, PAGE)
        assert len(exec) == 0


def test_bug_23_the_errno_is_one_that_programs_know() -> None:
    vm = space()
    with vm.exec_lock() as exec, pytest.raises(NotSupported) as caught:
        vm.validate(exec)
    assert caught.value.errno == errno.EOPNOTSUPP


def test_bug_24_a_range_without_private_objects_leaves_the_vm_unlocked_as_documented() -> None:
    vm = space()
    bind_all(vm, *external("shared"), *private(vm, "mine"))
    for addr, locked in ((0, False), (PAGE, True)):
        with vm.exec_lock_range(addr, PAGE):
            assert vm.resv.locked is locked
    assert "only if a private object" in (GpuVm.exec_lock_range.__doc__ or "")


@pytest.mark.parametrize("flags", [OWN_LOCKS, IMMEDIATE_MODE], ids=["own", "immediate"])
def test_bug_26_obtaining_a_preallocated_vm_bo_asserts_the_lock(flags: GpuVmFlags) -> None:
    vm = space(flags)
    fresh = vm.bo_create(Bo("bo"))
    with pytest.raises(LockdepError, match="assert_held"):
        vm.bo_obtain_prealloc(fresh)
    assert fresh.alive
    assert vm.vm_bos() == []


def test_bug_26_the_object_of_a_zombie_lives_until_it_is_cleaned_up() -> None:
    vm, bos = space(IMMEDIATE_MODE), external("bo")
    watch = weakref.ref(bos[0])
    bind(vm, 0, bos[0])
    with bos[0].gpuva_lock:
        vm.sm_unmap(0, PAGE).apply()
    bos.clear()
    gc.collect()
    assert watch() is vm.deferred[0].obj
    vm.bo_deferred_cleanup()
    gc.collect()
    assert watch() is None


@both_protections
def test_bug_28_a_remap_keeps_its_vm_bo_on_the_lists(flags: GpuVmFlags) -> None:
    vm = space(flags)
    (bo,) = external("bo")
    vm_bo = bind(vm, 0, bo, 4 * PAGE)
    evict(vm_bo)
    with vm.exec_lock():
        vm.sm_unmap(PAGE, PAGE).step(Driver(vm))
    assert (vm.extobjs, vm.evicted, vm_bo.refcount) == ([vm_bo], [vm_bo], 2)
