"""Threads that bind, execute and evict, in thousands of orders; vm_world says what must hold after a step.

That it would say so is tested, too: it finds each of some bugs, planted in turn, within a stated number of
orders, and nothing in the same orders without them.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from gpuvm import Exec, GpuVm
from gpuvm.errors import InvalidArgument
from gpuvm.sync.fence import Fence
from gpuvm.sync.resv import Usage
from gpuvm.testing import Interleaving, Pct, RandomWalk, Strategy, replay
from suite import scaled
from vm_world import Bo, World

SEEDS = scaled(100, 10_000)
THREADS = 8
STEPS = 4


def strategy(seed: int) -> Strategy:
    return RandomWalk(seed) if seed % 2 else Pct(seed, depth=3, steps=400)


def scenario(seed: int) -> Callable[[Interleaving], Callable[[], None]]:
    def threads(run: Interleaving) -> Callable[[], None]:
        world = World(seed, threads=THREADS)
        for me in range(THREADS):
            run.spawn(world.thread, me, STEPS)
        return world.finish

    return threads


def run_all(seeds: range) -> None:
    for seed in seeds:
        replay(scenario(seed), strategy(seed))


@pytest.mark.timeout(3600)
def test_nothing_is_lost_in_any_order() -> None:
    run_all(range(SEEDS))


# -- bugs to be found


def evict_after_implicit_users(_world: World, bo: Bo) -> None:
    bo.resv.wait(Usage.READ)


def prepare_without_listing(vm: GpuVm, exec: Exec, num_fences: int) -> None:
    for vm_bo in vm.extobjs:
        exec.lock_obj(vm_bo.obj)
        vm_bo.obj.resv.reserve_fences(max(num_fences, 1))


def lock_what_is_mapped(_world: World, exec: Exec, vm: GpuVm, _addr: int, _range: int, bo: Bo) -> None:
    """But not what is unmapped."""
    vm.prepare_vm(exec, 1)
    if vm.is_extobj(bo):
        exec.prepare_obj(bo, 1)


def forget_before_validating(vm: GpuVm, exec: Exec) -> None:
    hook = vm._vm_bo_validate
    assert hook is not None
    for vm_bo in vm.evicted:
        vm_bo._unlist_evicted()
        hook(vm_bo, exec)


def swap_usages(vm: GpuVm, exec: Exec, fence: Fence, private: Usage, extobj: Usage) -> None:
    for obj in exec:
        obj.resv.add_fence(fence, private if vm.is_extobj(obj) else extobj)


@dataclass(frozen=True)
class Plant:
    where: type
    method: str
    broken: Callable[..., None]
    shows_as: tuple[type[BaseException], str]
    orders: int
    """So many find it, from whatever seed one begins."""


PLANTS = [
    Plant(World, "wait_for_users", evict_after_implicit_users, (AssertionError, "under the job"), 150),
    Plant(GpuVm, "prepare_objects", prepare_without_listing, (AssertionError, "VmBo ext"), 10),
    Plant(World, "lock_for_bind", lock_what_is_mapped, (InvalidArgument, "VmBo"), 30),
    Plant(GpuVm, "validate", forget_before_validating, (AssertionError, "VmBo"), 60),
    Plant(GpuVm, "resv_add_fence", swap_usages, (AssertionError, "is shown while"), 50),
]

beginnings = pytest.mark.parametrize("first", [1000 * number for number in range(scaled(1, 20))])


@beginnings
@pytest.mark.filterwarnings("ignore:.*was dropped unsignalled:RuntimeWarning")  # by a run that failed
@pytest.mark.parametrize("plant", PLANTS, ids=[plant.broken.__name__ for plant in PLANTS])
def test_it_finds(plant: Plant, first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plant.where, plant.method, plant.broken)
    fail(plant, first)
    gc.collect()  # what the run left, before another test has to hear of it


def fail(plant: Plant, first: int) -> None:
    failure, message = plant.shows_as
    with pytest.raises(failure, match=message):
        run_all(range(first, first + plant.orders))


@beginnings
def test_without_them_it_finds_nothing(first: int) -> None:
    run_all(range(first, first + max(plant.orders for plant in PLANTS)))
