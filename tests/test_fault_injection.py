"""Every allocation of the core fails once, in every operation that allocates; and so does every step of a
driver.

`fail_allocation(n)` refuses the n-th allocation from now. After each refusal the space is as it was, and
asking again succeeds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gpuvm
from arrays import SPARSE, bind_array, map_row, unmap_row
from drivers import Driver
from gpuvm import Gpuva, GpuVm, GpuVmFlags, Merge, Regions, _core
from scenes import OBJECTS, SIZE, A, C, apply_map, mapped, plan_map, scene, va
from snapshot import snapshot

MOST = 1000
"""No operation asks for memory this often."""

HANDLES = OBJECTS.handles()
FREEING, IMMEDIATELY = GpuVmFlags(0), GpuVmFlags.IMMEDIATE_MODE
MODES = pytest.mark.parametrize("flags", [FREEING, IMMEDIATELY], ids=["freeing", "deferring"])
LOOSE = (SIZE - 64, 8)
"""Where a mapping of object A is in the tree but not linked."""


@pytest.fixture(autouse=True)
def _disarm() -> Any:
    yield
    _core.fail_allocation(None)


def space(merge: Merge = Merge.NEVER, flags: GpuVmFlags = FREEING) -> GpuVm:
    """Enough mappings that leaves are full, and one linked object with references of its own."""
    vm = scene(merge=merge, regions=Regions.SPARSE, flags=flags)
    for index in range(60):
        apply_map(vm, va(32 * index, 32 * index + 16, A + index % 2, 7 * index))
    vm.region_insert(SIZE // 2, 4096, sparse=True)
    vm.insert(Gpuva(*LOOSE, OBJECTS[A]))
    vm.bo_obtain(OBJECTS[A])._set_evicted(True, listed=True)
    return vm


def _insert(vm: GpuVm) -> None:
    vm.insert(Gpuva(16, 8, OBJECTS[C]))


def _link(vm: GpuVm) -> None:
    loose, vm_bo = vm.find(*LOOSE), vm.bo_find(OBJECTS[A])
    assert loose is not None
    assert vm_bo is not None
    try:
        loose.link(vm_bo)
    finally:
        vm_bo.put()


def _step(vm: GpuVm) -> None:
    plan_map(vm, va(8, 2000, C)).step(Driver(vm))


def _bind(vm: GpuVm) -> None:
    rows = [map_row(32 * index + 4, 8, C, index) for index in range(60)]
    vm.bind(bind_array([*rows, unmap_row(100, 1000), map_row(SIZE // 4, 4096, flags=SPARSE)]), HANDLES)


def _preallocate(vm: GpuVm) -> None:
    vm.preallocate(600, 50)
    vm.release_preallocated(600, 50)


OPERATIONS: dict[str, Callable[[GpuVm], object]] = {
    "sm_map": lambda vm: apply_map(vm, va(8, 2000, C)),
    "sm_map of a hole": lambda vm: apply_map(vm, va(16, 32, C)),
    "sm_map in the middle": lambda vm: apply_map(vm, va(4, 12, C)),
    "sm_unmap": lambda vm: vm.sm_unmap(4, 8).apply(),
    "madvise": lambda vm: vm.madvise(4, 8).apply(),
    "prefetch": lambda vm: vm.prefetch(0, SIZE),
    "step": _step,
    "insert": _insert,
    "link": _link,
    "bind": _bind,
    "bo_obtain": lambda vm: vm.bo_obtain(OBJECTS[C]).put(),
    "preallocate": _preallocate,
    "bo_create": lambda vm: vm.bo_create(OBJECTS[C]).put(),
    "bo_unmap": lambda vm: vm.bo_unmap(vm.vm_bos()[0]).apply(),
    "region_insert": lambda vm: vm.region_insert(SIZE // 4, 4096),
    "to_array": lambda vm: vm.to_array(),
    "find_many": lambda vm: vm.find_many(np.zeros(4, np.uint64), np.ones(4, np.uint64)),
}


def refused_until_it_succeeds(vm: GpuVm, operation: Callable[[GpuVm], object]) -> int:
    """Run with allocation 0, 1, 2... failing; how many were refused before it went through."""
    for n in range(MOST):
        before = snapshot(vm)
        _core.fail_allocation(n)
        try:
            operation(vm)
        except gpuvm.OutOfMemory:
            _core.fail_allocation(None)
            vm.check()
            assert snapshot(vm) == before
        else:
            _core.fail_allocation(None)
            vm.check()
            return n
    raise AssertionError(f"still refused after {MOST} allocations")


@MODES
@pytest.mark.parametrize("merge", list(Merge), ids=lambda merge: merge.name)
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_allocation_may_fail(name: str, merge: Merge, flags: GpuVmFlags) -> None:
    tried, untroubled = space(merge, flags), space(merge, flags)
    refused_until_it_succeeds(tried, OPERATIONS[name])
    OPERATIONS[name](untroubled)
    assert mapped(tried) == mapped(untroubled)
    assert tried.region_list() == untroubled.region_list()
    assert [bo.refcount for bo in tried.vm_bos()] == [bo.refcount for bo in untroubled.vm_bos()]
    assert [bo.obj for bo in tried.deferred] == [bo.obj for bo in untroubled.deferred]


def test_allocations_are_really_refused() -> None:
    """Guards the tests above: the operations that must grow something do fail."""
    for name in ("sm_map", "sm_map in the middle", "sm_unmap", "step", "insert", "bind", "bo_obtain"):
        assert refused_until_it_succeeds(space(), OPERATIONS[name]) > 0, name


def test_construction_may_fail() -> None:
    made = None
    for n in range(MOST):
        _core.fail_allocation(n)
        try:
            made = GpuVm("unlucky", range=4096, kernel_node=(0, 16))
        except gpuvm.OutOfMemory:
            continue
        finally:
            _core.fail_allocation(None)
        break
    assert made is not None
    made.check()


def test_a_plan_survives_a_failure_to_apply_it() -> None:
    vm = space()
    plan, tries = plan_map(vm, va(4, 12, C)), 0
    while not plan.applied:
        _core.fail_allocation(tries)
        try:
            plan.apply()
        except gpuvm.OutOfMemory:
            assert not plan.stale
            tries += 1
        finally:
            _core.fail_allocation(None)
    assert tries < MOST
    vm.check()


class DriverFailed(Exception):
    """What a driver raises when it cannot go on."""


class FailingDriver(Driver):
    """Raises at its `fatal`-th step, before or after that step's op was carried out."""

    def __init__(self, vm: GpuVm, fatal: int, after: bool) -> None:
        super().__init__(vm)
        self.fatal = fatal
        self.after = after

    def _step(self, carry_out: Callable[[Any], None], op: Any) -> None:
        doomed = len(self.seen) == self.fatal
        if doomed and not self.after:
            raise DriverFailed(self.fatal)
        carry_out(op)
        if doomed:
            raise DriverFailed(self.fatal)

    def sm_step_map(self, op: gpuvm.Map) -> None:
        self._step(super().sm_step_map, op)

    def sm_step_remap(self, op: gpuvm.Remap) -> None:
        self._step(super().sm_step_remap, op)

    def sm_step_unmap(self, op: gpuvm.Unmap) -> None:
        self._step(super().sm_step_unmap, op)


@MODES
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("merge", list(Merge), ids=lambda merge: merge.name)
def test_a_driver_may_fail_at_every_step(merge: Merge, after: bool, flags: GpuVmFlags) -> None:
    vm = space(merge, flags)
    request = va(8, 8 + 32 * 6, C, 3)
    before, held = snapshot(vm), list(vm)
    plan = plan_map(vm, request)
    assert {op.kind for op in plan} == {"remap", "unmap", "map"}
    for fatal in range(len(plan)):
        driver = FailingDriver(vm, fatal, after)
        with pytest.raises(DriverFailed):
            plan.step(driver)
        assert snapshot(vm) == before
        assert list(vm) == held, "removed mappings come back as the same objects"
        assert [(mine.vm, mine.vm_bo) for mine in driver.used] == [(None, None)] * len(driver.used)
        assert not plan.applied
        vm.check()
        plan = plan_map(vm, request)
    plan.step(Driver(vm))
    vm.check()
    assert request in mapped(vm)


def test_a_merge_veto_that_raises_changes_nothing() -> None:
    def can_merge(*_: object) -> bool:
        raise DriverFailed("undecided")

    vm = scene(va(0, 8, A), merge=Merge.ALWAYS, can_merge=can_merge)
    before = snapshot(vm)
    with pytest.raises(DriverFailed):
        plan_map(vm, va(8, 16, A, 8))
    with pytest.raises(DriverFailed):
        vm.bind(bind_array([unmap_row(0, 4), map_row(8, 8, A, 8), map_row(8, 8, A, 8)]), HANDLES)
    assert snapshot(vm) == before
    vm.check()
