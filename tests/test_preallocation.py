"""Inside fence-signalling sections the core allocates nothing: it refuses, or uses what was preallocated.

What was allocated shows in `statistics().bytes`, the capacity of all of the core's arrays.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random

import pytest

import gpuvm
from arrays import Row, bind_array, map_row, unmap_row
from drivers import Driver
from gpuvm import Gpuva, GpuVm, GpuVmFlags, Merge, Regions, _core
from gpuvm.errors import LockdepError
from scenes import OBJECTS, A, B, C, apply_map, mapped, plan_map, scene, va
from snapshot import snapshot
from suite import scaled

HANDLES = OBJECTS.handles()
WIDE = 1 << 40
MOST = 10_000
"""No call reserves this often, and no space has room for this many changes by chance."""


@pytest.fixture(autouse=True)
def _allow() -> Iterator[None]:
    yield
    _core.fail_allocation(None)


@contextmanager
def section() -> Iterator[None]:
    _core.forbid_allocation(True)
    try:
        yield
    finally:
        _core.forbid_allocation(False)


@contextmanager
def strict_section(vm: GpuVm) -> Iterator[None]:
    """A section in which nothing was allocated, indeed."""
    held = vm.statistics().bytes
    with section():
        yield
        assert vm.statistics().bytes == held
        vm.check()


def full(vm: GpuVm) -> int:
    """Map in a section until it is refused; how often that went well."""
    return refused_after(vm, lambda count: vm.sm_map((1 << 30) + 16 * count, 8, OBJECTS[A]).apply())


def refused_after(vm: GpuVm, call: Callable[[int], object]) -> int:
    """Call in a section until it is refused; how often that went well."""
    with strict_section(vm):
        for count in range(MOST):
            generation = vm.generation
            try:
                call(count)
            except LockdepError:
                assert vm.generation == generation
                before = state(vm)
                with pytest.raises(LockdepError):
                    call(count)
                assert state(vm) == before
                return count
    raise AssertionError("never refused")


def state(vm: GpuVm) -> object:
    """What can be seen without making Python objects for it, which takes memory of the core."""
    return vm.to_array().tolist(), vm.region_list(), vm.generation, vm.statistics()


def crowded(count: int = 30_000, **options: object) -> GpuVm:
    """Mapped in ascending order, so that leaves are full, and their parents too but for one child."""
    vm = scene(**{"range": WIDE} | options)
    rows = [map_row(64 * index, 32, A + index % 3, index) for index in range(count)]
    for few in batched(rows, 50):
        vm.bind(bind_array(few), HANDLES)
    return vm


def batched(rows: list[Row], size: int) -> Iterator[list[Row]]:
    """A large array would leave much room behind."""
    return (rows[start : start + size] for start in range(0, len(rows), size))


class TestForbidding:
    def test_growing_is_refused_and_says_what_to_do(self) -> None:
        vm = scene()
        before = snapshot(vm)
        with section(), pytest.raises(LockdepError, match=r"fence-signalling section.*preallocate"):
            apply_map(vm, va(0, 8, A))
        assert snapshot(vm) == before
        apply_map(vm, va(0, 8, A))
        vm.check()

    def test_it_nests(self) -> None:
        vm = scene()
        with section():
            with section():
                pass
            with pytest.raises(LockdepError):
                apply_map(vm, va(0, 8, A))

    def test_allowing_what_is_allowed_is_a_mistake(self) -> None:
        with pytest.raises(gpuvm.InvalidArgument, match="forbid_allocation"):
            _core.forbid_allocation(False)
        with section():
            pass
        with pytest.raises(gpuvm.InvalidArgument):
            _core.forbid_allocation(False)

    def test_other_threads_may_allocate(self) -> None:
        vm = scene()
        with section():
            thread = threading.Thread(target=apply_map, args=(vm, va(0, 8, A)))
            thread.start()
            thread.join()
        assert mapped(vm) == [va(0, 8, A)]

    def test_what_needs_no_memory_is_allowed(self) -> None:
        vm = scene(va(0, 8, A), va(8, 16, B))
        vm.bo_obtain(OBJECTS[A])
        list(vm)
        with strict_section(vm):
            vm.sm_unmap(0, 16).apply()
            assert vm.bo_find(OBJECTS[A]) is not None
        assert len(vm) == 0

    def test_room_that_happens_to_be_there_is_used(self) -> None:
        vm = scene(range=WIDE)
        apply_map(vm, va(0, 8, A))
        assert full(vm) > 0

    def test_regions_are_made_before(self) -> None:
        vm = scene(regions=Regions.SPARSE)
        with section(), pytest.raises(LockdepError):
            vm.region_insert(0, 4096)
        assert vm.region_list() == []


GROWING: dict[str, Callable[[GpuVm, int], object]] = {
    "apply": lambda vm, n: vm.sm_map(16 * n, 8, object()).apply(),
    "apply of madvise": lambda vm, n: vm.madvise(2 * n + 1, WIDE // 2).apply(),
    "step": lambda vm, n: vm.sm_map(16 * n, 8, object()).step(Driver(vm)),
    "insert": lambda vm, n: vm.insert(Gpuva(WIDE // 2 + 8 * n, 8, object())),
    "bind": lambda vm, n: vm.bind(bind_array([map_row(16 * n, 8, C)] * (n + 1)), HANDLES),
    "bo_obtain": lambda vm, _: vm.bo_obtain(object()),
    "bo_obtain_prealloc": lambda vm, _: vm.bo_obtain_prealloc(vm.bo_create(object())),
}


@pytest.mark.parametrize("flags", list(GpuVmFlags), ids=lambda flags: flags.name)
@pytest.mark.parametrize("merge", [Merge.NEVER, Merge.ALWAYS], ids=lambda merge: merge.name)
@pytest.mark.parametrize("name", GROWING)
def test_every_call_that_grows_something_is_refused(name: str, merge: Merge, flags: GpuVmFlags) -> None:
    vm = GpuVm("small", range=WIDE, merge=merge, flags=flags)
    vm.sm_map(0, WIDE // 2).apply()
    refused_after(vm, lambda count: GROWING[name](vm, count))
    GROWING[name](vm, 0)
    vm.check()


def test_looking_at_a_mapping_for_the_first_time_is_refused_too() -> None:
    vm = scene()
    apply_map(vm, va(0, 8, A))
    with section(), pytest.raises(LockdepError):
        vm.find(0, 8)
    found = vm.find(0, 8)
    with section():
        assert vm.find(0, 8) is found


class TestPromises:
    def test_promises_add_up_and_are_given_back(self) -> None:
        vm = scene()
        vm.preallocate(3)
        vm.preallocate(4, 2)
        assert vm.statistics().preallocated == 7
        vm.release_preallocated(5, 1)
        assert vm.statistics().preallocated == 2
        vm.release_preallocated(2, 1)
        assert vm.statistics().preallocated == 0
        vm.preallocate(0)
        vm.check()

    def test_more_than_promised_cannot_be_given_back(self) -> None:
        vm = scene()
        vm.preallocate(3, 1)
        for changes, objects in ((4, 0), (0, 2), (4, 2)):
            with pytest.raises(gpuvm.InvalidArgument, match="release_preallocated") as caught:
                vm.release_preallocated(changes, objects)
            assert (caught.value.value, caught.value.bound) == ((changes, objects), (3, 1))
        assert vm.statistics().preallocated == 3

    def test_numbers_below_zero_are_refused(self) -> None:
        vm = scene()
        for call in (vm.preallocate, vm.release_preallocated):
            for numbers in ((-1, 0), (0, -1)):
                with pytest.raises(gpuvm.InvalidArgument):
                    call(*numbers)
        assert vm.statistics().preallocated == 0

    def test_more_than_there_can_be_is_out_of_memory(self) -> None:
        vm = scene()
        vm.preallocate(1)
        for numbers in ((1 << 62, 0), (0, 1 << 62)):
            with pytest.raises(gpuvm.OutOfMemory):
                vm.preallocate(*numbers)
        assert vm.statistics().preallocated == 1
        vm.check()

    def test_not_where_nothing_may_be_allocated(self) -> None:
        vm = scene()
        with section(), pytest.raises(LockdepError, match="preallocate"):
            vm.preallocate(1)
        vm.preallocate(1)
        with section():
            vm.release_preallocated(1)

    def test_every_allocation_may_fail(self) -> None:
        vm = crowded(100)
        vm.preallocate(2, 1)
        for n in range(MOST):
            before = snapshot(vm)
            _core.fail_allocation(n)
            try:
                vm.preallocate(500, 300)
            except gpuvm.OutOfMemory:
                assert snapshot(vm) == before
                vm.check()
            else:
                break
        assert 0 < n < MOST
        _core.fail_allocation(None)
        assert vm.statistics().preallocated == 502
        vm.check()

    def test_two_jobs(self) -> None:
        """Each uses what was promised for it, in any order, and gives back that."""
        vm = crowded()
        vm.preallocate(3)
        vm.preallocate(2)
        with strict_section(vm):
            for index in (100, 5000, 9000):
                apply_map(vm, va(64 * index + 4, 64 * index + 8, B))
        vm.release_preallocated(3)
        vm.check()
        with strict_section(vm):
            for index in (200, 20000):
                apply_map(vm, va(64 * index + 4, 64 * index + 8, B))
        vm.release_preallocated(2)
        vm.check()

    def test_once_used_up_it_is_refused(self) -> None:
        vm = crowded()
        vm.preallocate(2000)
        assert full(vm) >= 2000
        vm.release_preallocated(2000)
        assert full(vm) == 0, "what was taken is not made up for"

    def test_changes_outside_leave_the_room_alone(self) -> None:
        vm = crowded(2000)
        vm.preallocate(20)
        rows = [map_row(64 * index + 8, 4, B, index) for index in range(2000)]
        vm.bind(bind_array(rows), HANDLES)
        vm.check()
        vm.bind(bind_array([unmap_row(64 * index + 9, 2) for index in range(2000)]), HANDLES)
        vm.check()
        for index in range(300):
            vm.insert(Gpuva(WIDE // 2 + 8 * index, 8, object()))
            vm.check()
        vm.sm_unmap(0, WIDE).apply()
        vm.check()
        with strict_section(vm):
            for index in range(20):
                apply_map(vm, va(8 * index, 8 * index + 8, B))

    def test_a_change_outside_that_needs_more_than_it_reserved(self) -> None:
        """An array of a hundred splits a hundred full leaves, none of them with room beside it."""
        vm = crowded(10_000)
        vm.preallocate(20)
        vm.bind(bind_array([map_row(64 * index + 4, 4, B) for index in range(14, 8400, 84)]), HANDLES)
        vm.check()
        with strict_section(vm):
            for index in range(8414, 10_000, 84):
                apply_map(vm, va(64 * index + 4, 64 * index + 8, B))

    def test_splits_that_go_up(self) -> None:
        """Two full leaves split below each inner node, which has room for one child: they all split."""
        vm = crowded(100_000)
        places = [64 * (868 * parent + index) for parent in range(110) for index in (100, 500)]
        vm.preallocate(len(places))
        with strict_section(vm):
            for addr in places:
                apply_map(vm, va(addr + 4, addr + 8, B))


class TestWhatAChangeIs:
    def test_a_step_is_one_however_many_mappings_go(self) -> None:
        vm = crowded(600)
        vm.preallocate(1)
        driver = Driver(vm)
        with strict_section(vm):
            plan_map(vm, va(4, 64 * 500 + 4, B)).step(driver)
        assert len(driver.seen) == 502

    def test_unmapping_whole_mappings_is_none(self) -> None:
        vm = crowded(600)
        seen = list(vm)
        with strict_section(vm):
            vm.sm_unmap(0, WIDE).step(Driver(vm))
        assert all(mapping.vm is None for mapping in seen)

    def test_a_row_is_one(self) -> None:
        vm = crowded()
        vm.preallocate(300)
        rows = [map_row(6400 * index + 8, 4, B, index) for index in range(300)]
        with strict_section(vm):
            emitted = vm.bind(bind_array(rows), HANDLES)
        assert len(emitted) == 600

    def test_a_failed_step_is_undone_and_the_promise_holds(self) -> None:
        class Failing(Driver):
            def sm_step_map(self, op: gpuvm.Map) -> None:
                super().sm_step_map(op)
                raise KeyError("planned")

        vm = crowded(flags=GpuVmFlags.IMMEDIATE_MODE)
        vm.preallocate(3)
        list(vm.mappings(0, 64 * 3000))
        before = snapshot(vm)
        with section(), pytest.raises(KeyError, match="planned"):
            plan_map(vm, va(4, 64 * 2500 + 4, B)).step(Failing(vm))
        vm.check()
        assert snapshot(vm) == before
        with strict_section(vm):
            plan_map(vm, va(4, 64 * 2500 + 4, B)).step(Driver(vm))
            apply_map(vm, va(64 * 2700 + 4, 64 * 2700 + 8, C))

    @pytest.mark.parametrize("merge", [Merge.NEVER, Merge.ALWAYS], ids=lambda merge: merge.name)
    def test_new_objects_are_counted_apart(self, merge: Merge) -> None:
        vm = crowded(100, merge=merge, flags=GpuVmFlags.IMMEDIATE_MODE)
        vm.preallocate(8, 4)
        with strict_section(vm):
            for index in range(4):
                vm.sm_map(64 * index + 2, 4, object()).apply()
            for index in range(4):
                vm.sm_unmap(64 * index + 2, 4).apply()
        assert len(vm.deferred) == 4
        vm.check()

    def test_an_object_without_vm_bo_counts_as_new_though_it_is_mapped(self) -> None:
        vm = scene(flags=GpuVmFlags.IMMEDIATE_MODE)
        objects = [object() for _ in range(200)]
        for index, obj in enumerate(objects):
            vm.insert(Gpuva(8 * index, 8, obj))
        vm.preallocate(0, 100)
        with strict_section(vm):
            for obj in objects[:100]:
                vm.bo_obtain(obj).put_deferred()
        vm.release_preallocated(0, 100)
        rest = iter(objects[100:] * 99)
        refused_after(vm, lambda _: vm.bo_obtain(next(rest)).put_deferred())
        assert len(vm.deferred) >= 100


@dataclass
class Job:
    """Random changes, of which every one counts as one."""

    random: Random
    vm: GpuVm
    objects: list[object] = field(default_factory=list)

    def place(self) -> tuple[int, int]:
        addr = 64 * self.random.randrange(30_000) + self.random.randrange(64)
        return addr, self.random.choice((1, 3, 4, 30, 64, 3000))

    def change(self, fresh: bool) -> None:
        (addr, size), vm = self.place(), self.vm
        obj: object = object() if fresh else OBJECTS[self.random.randint(1, 3)]
        match self.random.randrange(6):
            case 0 | 1:
                vm.sm_map(addr, size, obj).apply()
            case 2:
                vm.sm_map(addr, size, obj).step(Driver(vm))
            case 3:
                vm.sm_unmap(addr, size).apply()
            case 4:
                vm.bind(bind_array([map_row(addr, size, 1)]), {1: obj})
            case _:
                hole = vm.find_gap(8, start=WIDE // 4 * self.random.randrange(4))
                vm.insert(Gpuva(hole, 8, obj))


@pytest.mark.parametrize("merge", [Merge.NEVER, Merge.ALWAYS], ids=lambda merge: merge.name)
@pytest.mark.parametrize("seed", range(scaled(6, 150)))
def test_a_promise_is_kept(seed: int, merge: Merge) -> None:
    """As many changes as promised, after any others, in a tree as unfavourable as can be: none allocates."""
    random = Random(seed)
    vm = crowded(random.choice((20, 1000, 30_000)), merge=merge, flags=GpuVmFlags.IMMEDIATE_MODE)
    job = Job(random, vm)
    for _ in range(4):
        changes, objects = random.choice((1, 3, 30, 200)), random.choice((0, 1, 20))
        print(f"seed {seed}: {changes} changes, {objects} objects")
        vm.preallocate(changes, objects)
        for _ in range(random.choice((0, 1, 40))):
            job.change(fresh=random.random() < 0.3)
        vm.check()
        with strict_section(vm):
            for index in range(changes):
                job.change(fresh=index < objects)
        vm.release_preallocated(changes, objects)
        if random.random() < 0.5:
            vm.bo_deferred_cleanup()
        vm.check()


@pytest.mark.parametrize("seed", range(scaled(3, 60)))
def test_a_tree_that_grows_higher_inside(seed: int) -> None:
    """From nothing to several levels on one promise, upwards, downwards or anywhere."""
    random, count = Random(seed), 3000
    vm = GpuVm("growing", range=WIDE)
    vm.preallocate(count, 1)
    addresses = [16 * index for index in range(count)]
    if seed % 3 == 1:
        addresses.reverse()
    elif seed % 3 == 2:
        random.shuffle(addresses)
    with strict_section(vm):
        for addr in addresses:
            vm.sm_map(addr, 8, OBJECTS[A]).apply()
    assert len(vm) == count
