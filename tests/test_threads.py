"""Several real threads on one space: plans made by one go stale by another, and nothing is ever torn."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

import gpuvm
from arrays import bind_array, map_row, unmap_row
from contention import in_real_threads
from drivers import Driver
from gpuvm import GpuVm, Merge
from scenes import OBJECTS, scene
from suite import scaled

THREADS = 6
TURNS = scaled(3000, 20_000)
SPAN = 1 << 14
PATIENCE = 100_000
HANDLES = OBJECTS.handles()


def until_accepted(attempt: Callable[[], object]) -> None:
    """Repeat while another thread is quicker; that one gets on, so this one will."""
    for _ in range(PATIENCE):
        try:
            attempt()
        except (gpuvm.StalePlan, gpuvm.Busy):
            continue
        return
    raise AssertionError(f"refused {PATIENCE} times in a row: nobody gets on")


def hammer(vm: GpuVm, number: int, base: int) -> None:
    random = Random(number)
    for _ in range(TURNS):
        addr, size = base + 8 * random.randrange(SPAN // 8 - 20), 8 * random.randint(1, 16)
        one_turn(vm, random.randrange(6), addr, size, random.randint(0, 3))


def one_turn(vm: GpuVm, choice: int, addr: int, size: int, bo: int) -> None:
    match choice:
        case 0:
            until_accepted(lambda: vm.sm_unmap(addr, size).apply())
        case 1:
            until_accepted(lambda: vm.sm_map(addr, size, OBJECTS[bo], addr).step(Driver(vm)))
        case 2:
            rows = [map_row(addr, size, bo, addr), unmap_row(addr, 8), map_row(addr, 16, bo, addr)]
            until_accepted(lambda: vm.bind(bind_array(rows), HANDLES))
        case 3:
            assert all(mapping.range > 0 for mapping in vm.mappings(addr, size))
            vm.find_first(addr, size)
            vm.statistics()
        case _:
            until_accepted(lambda: vm.sm_map(addr, size, OBJECTS[bo], addr).apply())


@pytest.mark.parametrize("merge", [Merge.NEVER, Merge.ALWAYS], ids=lambda merge: merge.name)
def test_one_space_hammered_by_all(merge: Merge) -> None:
    vm = scene(merge=merge)
    in_real_threads(THREADS, lambda number: hammer(vm, number, 0))
    vm.check()
    total = sum(mapping.range for mapping in vm)
    assert total == vm.statistics().mapped_bytes
    assert sum(len(vm_bo) for vm_bo in vm.vm_bos()) == sum(mapping.obj is not None for mapping in vm)
    vm.sm_unmap(vm.start, vm.range).apply()
    assert vm.put() is True


def test_threads_in_areas_of_their_own_do_not_disturb_each_other() -> None:
    """Each thread's area ends exactly as if it had been alone."""
    shared = scene()
    in_real_threads(THREADS, lambda number: hammer(shared, number, number * SPAN))
    shared.check()
    for number in range(THREADS):
        alone = scene()
        hammer(alone, number, number * SPAN)
        mine = [(va.addr, va.end, va.obj, va.offset) for va in shared.mappings(number * SPAN, SPAN)]
        assert mine == [(va.addr, va.end, va.obj, va.offset) for va in alone]


def test_references_from_many_threads() -> None:
    vm = scene()
    vm_bo = vm.bo_obtain(OBJECTS[1])

    def work(_: int) -> None:
        for _turn in range(TURNS):
            vm.get()
            until_accepted(lambda: vm.bo_obtain(OBJECTS[1]))
            vm_bo.put()
            vm.put()

    in_real_threads(THREADS, work)
    assert (vm.refcount, vm_bo.refcount) == (2, 1)
    vm.check()


def test_one_plan_is_applied_by_one_thread_only() -> None:
    vm = scene()
    for turn in range(50):
        plan, winners = vm.sm_map(8 * turn, 8, OBJECTS[1]), list[int]()

        def work(number: int, plan: gpuvm.Plan = plan, winners: list[int] = winners) -> None:
            try:
                plan.apply()
            except (gpuvm.StalePlan, gpuvm.Busy):
                return
            winners.append(number)

        in_real_threads(THREADS, work)
        assert len(winners) == 1
    assert len(vm) == 50
    vm.check()
