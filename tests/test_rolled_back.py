"""A rolled-back change leaves nothing behind, for plans, vm_bos and mappings that were met on the way."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import gpuvm
from gpuvm import Gpuva, GpuVm, Plan, Regions

PAGE = 0x1000


class Failing:
    """A driver that applies its map, does something of its own, and fails."""

    def __init__(self, vm: GpuVm, meanwhile: Callable[[], object] = lambda: None) -> None:
        self.vm, self.meanwhile = vm, meanwhile

    def sm_step_map(self, op: gpuvm.Map) -> None:
        self.vm.map(op, Gpuva())
        self.meanwhile()
        raise KeyError("planned")

    def sm_step_remap(self, op: gpuvm.Remap) -> None:
        self.vm.remap(op, Gpuva() if op.prev else None, Gpuva() if op.next else None)

    def sm_step_unmap(self, op: gpuvm.Unmap) -> None:
        self.vm.unmap(op)
        self.meanwhile()


def full_leaf() -> GpuVm:
    """Exactly as many mappings as make the next one split a leaf."""
    vm = GpuVm("leaf", range=1 << 40, regions=Regions.SPARSE)
    for index in range(28):
        vm.sm_map(0x100000 * index, PAGE).apply()
    return vm


def test_a_plan_from_before_a_failed_step_is_stale() -> None:
    vm = full_leaf()
    plan = vm.sm_unmap(0x100000 * 27, PAGE)
    with pytest.raises(KeyError, match="planned"):
        vm.sm_map(0x4000, PAGE).step(Failing(vm))
    assert plan.stale
    with pytest.raises(gpuvm.StalePlan, match="changed back"):
        plan.apply()
    vm.check()


def test_a_plan_from_before_a_failed_bind_is_stale() -> None:
    vm = full_leaf()
    plan = vm.sm_unmap(0x100000 * 27, PAGE)
    rows = np.zeros(200, dtype=gpuvm.VM_BIND_OP)
    rows["addr"] = 0x10000000 + PAGE * np.arange(200)
    rows["range"] = PAGE
    rows[-1]["op"], rows[-1]["flags"] = 1, 0x100
    with pytest.raises(gpuvm.NotFound):
        vm.bind(rows, {})
    assert plan.stale
    assert len(vm) == 28
    vm.check()


def test_the_failed_plan_itself_can_be_applied_afterwards() -> None:
    vm = full_leaf()
    plan = vm.sm_map(0x4000, PAGE, "a")
    with pytest.raises(KeyError, match="planned"):
        plan.step(Failing(vm))
    plan.apply()
    found = vm.find(0x4000, PAGE)
    assert found is not None
    assert found.obj == "a"
    vm.check()


def test_a_plan_made_inside_a_failed_step_is_stale() -> None:
    vm = GpuVm("inside", range=1 << 40)
    plans: list[Plan] = []
    with pytest.raises(KeyError, match="planned"):
        vm.sm_map(0, PAGE, "a").step(Failing(vm, lambda: plans.append(vm.sm_unmap(0, 4 * PAGE))))
    with pytest.raises(gpuvm.StalePlan):
        plans[0].apply()
    vm.check()


def test_a_plan_maps_its_object_though_the_vm_bo_went_meanwhile() -> None:
    vm = GpuVm("objects", range=1 << 40)
    a, b = object(), object()
    vm_bo = vm.bo_obtain(a)
    plan = vm.sm_map(0, PAGE, a)
    vm_bo.put()
    other = vm.bo_obtain(b)
    plan.apply()
    (mapping,) = vm
    assert mapping.obj is a
    other.put()
    vm.check()


def test_the_requested_object_is_held_while_stepping() -> None:
    vm = GpuVm("held", range=1 << 40)
    a, b = object(), object()
    vm.sm_map(0, PAGE, a).apply()

    class Driver(Failing):
        def sm_step_map(self, op: gpuvm.Map) -> None:
            self.vm.map(op, Gpuva())

    vm.sm_map(0, PAGE, b).step(Driver(vm, lambda: vm.bo_obtain(a)))
    (mapping,) = vm
    assert mapping.obj is b
    vm.check()


def test_a_reference_that_undoing_needs_cannot_be_put() -> None:
    vm = GpuVm("put", range=1 << 40)
    a = object()
    vm.sm_map(0, PAGE, a).apply()
    vm_bo = vm.bo_obtain(a)

    def put_both() -> None:
        vm_bo.put()
        vm_bo.put()

    with pytest.raises(gpuvm.Busy):
        vm.sm_unmap(0, PAGE).step(Failing(vm, put_both))
    assert (vm_bo.refcount, len(vm_bo)) == (1, 1)
    vm.check()


def test_a_preallocated_mapping_can_be_used_again_after_a_failure() -> None:
    vm = GpuVm("again", range=1 << 40)
    spare = Gpuva(flags=8)

    class Driver(Failing):
        fail = True

        def sm_step_map(self, op: gpuvm.Map) -> None:
            self.vm.map(op, spare)
            if self.fail:
                raise KeyError("planned")

    driver = Driver(vm)
    with pytest.raises(KeyError, match="planned"):
        vm.sm_map(0, PAGE, flags=4).step(driver)
    driver.fail = False
    vm.sm_map(PAGE, PAGE, flags=16).step(driver)
    assert (spare.addr, spare.flags) == (PAGE, 16)
    vm.check()


def test_a_prefetch_plan_still_names_its_mappings_after_apply() -> None:
    vm = GpuVm("prefetch", range=1 << 40)
    vm.sm_map(0, PAGE, "a").apply()
    plan = vm.prefetch(0, PAGE)
    plan.apply()
    (op,) = plan
    assert isinstance(op, gpuvm.Prefetch)
    assert op.va is vm.find(0, PAGE)
