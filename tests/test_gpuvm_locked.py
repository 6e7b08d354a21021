"""GpuVm's protocol once all is locked: external objects, validating, adding fences, checking."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from gpuvm import Exec, GpuVmFlags, VmBo
from gpuvm.errors import (
    CheckFailed,
    InvalidArgument,
    NotSupported,
    OutOfMemory,
)
from gpuvm.exec import ResvObject
from gpuvm.sync.fence import Fence, fence_context_alloc
from gpuvm.sync.resv import Usage
from gpuvm.testing import Interleaving, sample
from interleaved import pause, pending_fence
from protocol import (
    OWN_LOCKS,
    PAGE,
    RESV_PROTECTED,
    Bo,
    Userptr,
    bind_all,
    both_protections,
    evict,
    external,
    private,
    space,
)
from suite import scaled


class TestExternal:
    def test_its_reservation_decides(self) -> None:
        vm, other = space(), space()
        (mine,), (shared,), (theirs,) = private(vm, "mine"), external("shared"), private(other, "theirs")
        cases = [mine, shared, theirs, vm.resv_obj, Userptr(), None]
        assert [vm.is_extobj(obj) for obj in cases] == [False, True, True, False, False, False]

    @both_protections
    def test_only_external_ones_are_listed_and_once(self, flags: GpuVmFlags) -> None:
        vm = space(flags)
        (mine,), (one, two) = private(vm, "mine"), external("one", "two")
        vm_bos = bind_all(vm, two, mine, one, Userptr(), two)
        assert vm.extobjs == [vm_bos[0], vm_bos[2]]
        assert [vm_bo.on_extobjs for vm_bo in vm_bos] == [True, False, True, False, True]
        vm.check()

    def test_the_reservation_is_one_for_all_private_objects(self) -> None:
        vm = space()
        assert vm.resv_obj.resv is vm.resv
        root = Bo("page table root")
        assert space(r_obj=root).resv is root.resv
        assert ResvObject("apart").resv is not vm.resv


class Restorer:
    """A driver's hook: brings back all but those that it is told to leave or to fail at."""

    def __init__(self) -> None:
        self.seen: list[Bo] = []
        self.leaves: set[Bo] = set()
        self.fails: set[Bo] = set()

    def __call__(self, vm_bo: VmBo, exec: Exec) -> None:
        assert exec.holds(vm_bo.obj)
        self.seen.append(vm_bo.obj)
        if vm_bo.obj in self.fails:
            raise OutOfMemory("validate: no memory for it")
        if vm_bo.obj not in self.leaves:
            vm_bo.vm.bo_evict(vm_bo, False)


class TestValidate:
    @both_protections
    def test_each_evicted_object_in_the_order_of_eviction(self, flags: GpuVmFlags) -> None:
        hook = Restorer()
        vm = space(flags, hook)
        mine, yours = private(vm, "mine", "yours")
        vm_bos = bind_all(vm, mine, yours)
        for vm_bo in reversed(vm_bos):
            evict(vm_bo)
        with vm.exec_lock() as exec:
            vm.validate(exec)
            assert vm.evicted == []
        assert hook.seen == [yours, mine]
        with vm.exec_lock() as exec:
            vm.validate(exec)
        assert len(hook.seen) == 2, "there is nothing to do the second time"
        vm.check()

    @both_protections
    def test_an_error_leaves_this_one_and_those_behind_it(self, flags: GpuVmFlags) -> None:
        hook = Restorer()
        vm = space(flags, hook)
        a, b, c = external("a", "b", "c")
        vm_bos = bind_all(vm, a, b, c)
        for vm_bo in vm_bos:
            evict(vm_bo)
        hook.fails = {b}
        with pytest.raises(OutOfMemory), vm.exec_lock() as exec:
            vm.validate(exec)
        assert vm.evicted == vm_bos[1:]
        assert [vm_bo.evicted for vm_bo in vm_bos] == [False, True, True]
        vm.check()
        hook.fails = set()
        with vm.exec_lock() as exec:
            vm.validate(exec)
        assert hook.seen == [a, b, b, c]
        assert vm.evicted == []

    @both_protections
    def test_what_the_hook_leaves_evicted_stays_listed(self, flags: GpuVmFlags) -> None:
        hook = Restorer()
        vm = space(flags, hook)
        a, b = external("a", "b")
        vm_bos = bind_all(vm, a, b)
        for vm_bo in vm_bos:
            evict(vm_bo)
        hook.leaves = {a}
        with vm.exec_lock() as exec:
            vm.validate(exec)
            assert vm.evicted == vm_bos[:1]
        assert hook.seen == [a, b]

    @both_protections
    def test_the_hook_may_evict_others_to_make_room(self, flags: GpuVmFlags) -> None:
        def swap(vm_bo: VmBo, exec: Exec) -> None:
            seen.append(vm_bo)
            vm.bo_evict(vm_bo, False)
            if len(seen) == 1:
                vm.bo_evict(second, True)

        seen: list[VmBo] = []
        vm = space(flags, swap)
        first, second = bind_all(vm, *private(vm, "first", "second"))
        evict(first)
        with vm.exec_lock() as exec:
            vm.validate(exec)
        assert seen == [first, second]
        assert vm.evicted == []

    @both_protections
    def test_the_hook_may_unmap_the_object(self, flags: GpuVmFlags) -> None:
        vm = space(flags, lambda vm_bo, exec: vm.sm_unmap(0, PAGE).apply())
        gone, stays = bind_all(vm, *external("gone", "stays"))
        evict(gone)
        with vm.exec_lock() as exec:
            vm.validate(exec)
            assert (gone.alive, vm.evicted, vm.extobjs) == (False, [], [stays])

    def test_without_a_hook_it_is_not_supported(self) -> None:
        vm = space()
        (vm_bo,) = bind_all(vm, *external("a"))
        evict(vm_bo)
        with vm.exec_lock() as exec, pytest.raises(NotSupported, match="vm_bo_validate") as caught:
            vm.validate(exec)
        assert caught.value.errno == errno.EOPNOTSUPP
        assert vm.evicted == [vm_bo]

    @both_protections
    def test_a_hook_that_evicts_another(self, flags: GpuVmFlags) -> None:
        """That one is brought back too, but not in turns for ever: then not all of it fits."""
        room = 1

        def bring_back(vm_bo: VmBo, exec: Exec) -> None:
            vm.bo_evict(vm_bo, False)
            resident.append(vm_bo)
            while len(resident) > room:
                vm.bo_evict(resident.pop(0), True)

        vm = space(flags, bring_back)
        resident: list[VmBo] = []
        one, two = bind_all(vm, *private(vm, "one", "two"))
        with vm.resv:
            for vm_bo in one, two:
                vm.bo_evict(vm_bo, True)
        with vm.exec_lock() as exec, pytest.raises(OutOfMemory, match="evicted again"):
            vm.validate(exec)
        room = 2
        with vm.exec_lock() as exec:
            vm.validate(exec)
        assert not vm.evicted
        vm.check()

    def test_a_vm_bo_of_another_space(self) -> None:
        vm, other = space(), space(RESV_PROTECTED)
        (shared,) = external("shared")
        (vm_bo,) = bind_all(vm, shared)
        for change in other.bo_extobj_add, lambda vm_bo: other.bo_evict(vm_bo, True):
            with shared.resv, pytest.raises(InvalidArgument, match="not of"):
                change(vm_bo)
        assert not vm_bo.evicted


class TestAddFence:
    @both_protections
    def test_external_objects_get_the_usage_for_external_ones(self, flags: GpuVmFlags) -> None:
        vm, other = space(flags), space()
        (mine,), (shared, extra) = private(vm, "mine"), external("shared", "extra")
        (theirs,) = private(other, "theirs")
        bind_all(vm, mine, shared, theirs)
        fence = pending_fence()
        with vm.exec_lock_array([extra], 1) as exec:
            vm.resv_add_fence(exec, fence, Usage.BOOKKEEP, Usage.WRITE)
        for resv, usage in (
            (vm.resv, Usage.BOOKKEEP),
            (shared.resv, Usage.WRITE),
            (other.resv, Usage.WRITE),
            (extra.resv, Usage.WRITE),
        ):
            with resv:
                assert list(resv.entries()) == [(fence, usage)]

    def test_a_shared_reservation_gets_it_once(self) -> None:
        vm = space()
        one = Bo("one")
        bind_all(vm, one, Bo("twin", one.resv), *private(vm, "mine", "yours"))
        with vm.exec_lock(1) as exec:
            vm.resv_add_fence(exec, pending_fence(), Usage.READ, Usage.READ)
            assert len(list(one.resv.entries())) == len(list(vm.resv.entries())) == 1

    def test_it_needs_slots(self) -> None:
        vm = space()
        with vm.exec_lock() as exec, pytest.raises(InvalidArgument, match="slot"):
            vm.resv_add_fence(exec, pending_fence(), Usage.BOOKKEEP, Usage.WRITE)

    def test_no_usage(self) -> None:
        vm = space()
        with vm.exec_lock(1) as exec, pytest.raises(InvalidArgument, match="usage 9"):
            vm.resv_add_fence(exec, pending_fence(), 9, Usage.WRITE)  # type: ignore[arg-type]
        assert vm.resv.test_signalled(Usage.BOOKKEEP)

    def test_it_is_published_everywhere_or_nowhere(self) -> None:
        vm = space()
        prepared, only_locked = external("prepared", "only locked")
        with Exec() as exec:
            for attempt in exec.until_all_locked():
                with attempt:
                    vm.prepare_vm(exec, 1)
                    exec.prepare_obj(prepared, 1)
                    exec.lock_obj(only_locked)
            with pytest.raises(InvalidArgument, match="only locked"):
                vm.resv_add_fence(exec, pending_fence(), Usage.BOOKKEEP, Usage.WRITE)
            assert not [*vm.resv.entries(), *prepared.resv.entries(), *only_locked.resv.entries()]

    def test_what_was_contended_and_then_went_gets_none(self) -> None:
        """It is locked first in the next pass, in which nobody asks for it or reserves a slot."""
        ended = 0

        def scenario(run: Interleaving) -> Callable[[], None]:
            vm = space()
            stays, goes = external("stays", "goes")
            bind_all(vm, stays, goes)
            fence = pending_fence()

            def unbind() -> None:
                with Exec() as exec:
                    for attempt in exec.until_all_locked():
                        with attempt:
                            exec.lock_obj(goes)
                    pause(4)
                    vm.sm_unmap(PAGE, PAGE).apply()

            def submit() -> None:
                nonlocal ended
                with vm.exec_lock(1) as exec:
                    ended += exec.holds(goes) and goes not in list(exec.claimed())
                    vm.resv_add_fence(exec, fence, Usage.BOOKKEEP, Usage.WRITE)

            run.spawn(unbind)
            run.spawn(submit)

            def check() -> None:
                assert stays.resv.fences(Usage.WRITE) == [fence]

            return check

        sample(scenario, range(scaled(60, 2000)))
        assert ended > 2

    def test_many_submissions_keep_what_is_not_done(self) -> None:
        vm = space()
        (one,) = external("one")
        bind_all(vm, one)
        timeline = fence_context_alloc()
        fences = [Fence(timeline, seqno) for seqno in range(1, 20)]
        for fence in fences:
            with vm.exec_lock(1) as exec:
                vm.resv_add_fence(exec, fence, Usage.BOOKKEEP, Usage.WRITE)
        assert one.resv.fences(Usage.WRITE) == vm.resv.fences(Usage.BOOKKEEP) == fences[-1:]


class TestCheck:
    def test_an_external_object_mapped_and_not_listed(self) -> None:
        vm = space()
        (shared,) = external("shared")
        with shared.resv:
            vm.sm_map(0, PAGE, shared).apply()
        with pytest.raises(CheckFailed, match="external True"):
            vm.check()

    def test_a_private_object_on_the_external_list(self) -> None:
        vm = space()
        (vm_bo,) = bind_all(vm, *private(vm, "mine"))
        vm_bo._extobj_add()
        with pytest.raises(CheckFailed, match="mine"):
            vm.check()

    @pytest.mark.parametrize("flags", [OWN_LOCKS, RESV_PROTECTED], ids=["own", "resv"])
    def test_an_evicted_one_that_is_not_listed(self, flags: GpuVmFlags) -> None:
        vm = space(flags)
        mine, shared = bind_all(vm, *private(vm, "mine"), *external("shared"))
        shared._set_evicted(True, False)
        if flags is OWN_LOCKS:
            with pytest.raises(CheckFailed, match="shared"):
                vm.check()
        else:
            vm.check()
            mine._set_evicted(True, False)
            with pytest.raises(CheckFailed, match="mine"):
                vm.check()
