"""The bugs of the originals that could live in an address-space manager: one test for each of their numbers.

Of the 63 the following have no test here, with one word why:

* 15, 16, 23, 24: in test_known_bugs_exec
* 29 to 34: exec
* 38 to 40, 48, 50 to 59, 62, 63: nouveau
* 14, 25, 27: C

Numbers 20 to 22, 36, 37, 43, 44, 46 and 47 are defects of later floors; what is tested is the rule of this
floor that they come down to.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import pytest

import gpuvm
from arrays import SPARSE, bind_array, map_row, unmap_row
from drivers import Driver
from gpuvm import Gpuva, GpuVm, Merge, Plan, Regions, _core
from layouts import TOP
from scenes import OBJECTS, A, B, apply_map, kept, mapped, new, ops_of, plan_map, remap, scene, unmap, va
from snapshot import snapshot

HANDLES = OBJECTS.handles()


@pytest.mark.parametrize(
    ("addr", "size"), [(50, 101), (140, 20), (90, 20), (0, 1000), (99, 1), (150, 1), (140, TOP)]
)
def test_bug_01_a_request_partly_outside_is_refused(addr: int, size: int) -> None:
    vm = GpuVm("bug 1", start=100, range=50)
    assert not vm.range_valid(addr, size)
    for ask in (vm.sm_map, vm.sm_unmap):
        with pytest.raises(gpuvm.InvalidArgument):
            ask(addr, size)


def test_bug_02_a_remap_has_none_for_a_side_that_does_not_exist() -> None:
    vm = scene(va(0, 8, A))
    for addr, size, sides in ((0, 4, (False, True)), (4, 4, (True, False)), (2, 4, (True, True))):
        (op,) = vm.sm_unmap(addr, size)
        assert isinstance(op, gpuvm.Remap)
        assert (op.prev is not None, op.next is not None) == sides


def test_bug_03_unmap_validates_its_range() -> None:
    vm = scene(va(0, 8, A), range=100, kernel_node=(50, 10))
    for addr, size in ((0, 0), (0, 101), (100, 1), (45, 10), (55, 1), (TOP, 2)):
        with pytest.raises(gpuvm.InvalidArgument):
            vm.sm_unmap(addr, size)


def test_bug_04_find_compares_the_start_too() -> None:
    vm = scene(regions=Regions.SPARSE)
    vm.region_insert(8, 8)
    apply_map(vm, va(8, 16, A))
    for addr in (4, 7, 9, 12, 15):
        assert vm.find(addr, 8) is None
        assert vm.region_find(addr, 8) is None
    found = vm.find_many([4, 7, 8, 9, 12], [8] * 5)
    assert found["range"].tolist() == [0, 0, 8, 0, 0]


@pytest.mark.parametrize("place", [(10, 10), (5, 6), (19, 1), (0, 100), (12, 2)])
def test_bug_05_regions_that_overlap_are_refused(place: tuple[int, int]) -> None:
    vm = scene(regions=Regions.REQUIRED)
    region = vm.region_insert(10, 10)
    with pytest.raises(gpuvm.AlreadyMapped):
        vm.region_insert(*place)
    assert vm.region_list() == [region]


def test_bug_06_the_kernel_node_is_checked_and_skipped_for_zero() -> None:
    with pytest.raises(gpuvm.InvalidArgument):
        GpuVm("bug 6", range=100, kernel_node=(90, 11))
    vm = GpuVm("bug 6", range=100, kernel_node=(0, 0))
    assert list(vm) == []
    assert vm.interval_empty(0, 100)


def test_bug_07_neighbours_touch_exactly_and_nothing_comes_before_zero() -> None:
    vm = scene(va(0, 4, A), va(5, 8, A), va(9, 10, A))
    assert vm.find_prev(0) is None
    assert [at for at in range(12) if vm.find_prev(at)] == [4, 8, 10]
    assert [at for at in range(12) if vm.find_next(at)] == [0, 5, 9]


def test_bug_08_each_border_is_decided_once() -> None:
    between = scene(va(0, 2, A), va(2, 4, B), va(4, 6, A, 4), merge=Merge.ALWAYS)
    apply_map(between, va(2, 4, A, 2))
    assert mapped(between) == [va(0, 6, A)]
    several = scene(va(0, 2, A), va(3, 4, B), va(5, 6, B, 9), merge=Merge.ALWAYS)
    apply_map(several, va(2, 6, A, 2))
    assert mapped(several) == [va(0, 6, A)]
    crossed = scene(va(0, 3, A), va(3, 4, B), va(5, 7, A, 5), merge=Merge.ALWAYS)
    assert ops_of(plan_map(crossed, va(2, 5, A, 2))) == [
        kept(va(0, 3, A)),
        unmap(va(3, 4, B)),
        kept(va(5, 7, A, 5)),
        new(va(0, 7, A)),
    ]


def test_bug_09_a_merge_respects_flags_and_the_driver() -> None:
    asked: list[tuple[object, ...]] = []

    def can_merge(*pair: object) -> bool:
        asked.append(pair)
        return False

    vm = scene(va(0, 4, A, flags=4), merge=Merge.ALWAYS)
    assert ops_of(plan_map(vm, va(4, 8, A, 4, flags=8))) == [new(va(4, 8, A, 4, flags=8))]
    assert ops_of(plan_map(vm, va(1, 2, A, 1, flags=8)))[-1] == new(va(1, 2, A, 1, flags=8))
    assert ops_of(plan_map(vm, va(4, 8, A, 4, flags=4))) == [
        kept(va(0, 4, A, flags=4)),
        new(va(0, 8, A, flags=4)),
    ]
    vetoed = scene(va(0, 4, A), va(8, 12, A, 8), merge=Merge.ALWAYS, can_merge=can_merge)
    assert ops_of(plan_map(vetoed, va(4, 8, A, 4))) == [new(va(4, 8, A, 4))]
    assert len(asked) == 2
    assert ops_of(plan_map(vetoed, va(0, 4, A))) == [kept(va(0, 4, A)), new(va(0, 4, A))]


def test_bug_09_the_driver_sees_what_would_merge_with_what() -> None:
    seen = []

    def can_merge(existing: Gpuva, request: gpuvm.Map) -> bool:
        seen.append((existing.addr, existing.obj, request.addr, request.end, request.obj))
        return existing.addr == 0

    vm = scene(va(0, 4, A), va(8, 12, A, 8), merge=Merge.ALWAYS, can_merge=can_merge)
    assert ops_of(plan_map(vm, va(4, 8, A, 4))) == [kept(va(0, 4, A)), new(va(0, 8, A))]
    assert {row[0] for row in seen} == {0, 8}
    assert all(row[1] is row[4] is OBJECTS[A] for row in seen)
    assert all(row[2] <= 4 and row[3] == 8 for row in seen)


@pytest.mark.parametrize("allocation", range(6))
def test_bug_10_a_request_that_fails_holds_on_to_nothing(allocation: int) -> None:
    class Buffer:
        pass

    vm, buffers = scene(va(0, 8, A)), [Buffer()]
    watch = weakref.ref(buffers[0])

    _core.fail_allocation(allocation)
    try:
        vm.sm_map(0, 4, buffers[0]).apply()
    except gpuvm.OutOfMemory:
        assert mapped(vm) == [va(0, 8, A)]
    finally:
        _core.fail_allocation(None)
    vm.sm_unmap(0, 8).apply()
    buffers.clear()
    gc.collect()
    assert watch() is None
    vm.check()


def test_bug_11_unmapping_an_object_walks_this_space_only_and_keeps_nothing() -> None:
    vm, other = scene(), scene()
    for space in (vm, other):
        apply_map(space, va(0, 8, A))
    plan = vm.bo_unmap(vm.bo_obtain(OBJECTS[A]))
    assert ops_of(plan) == [unmap(va(0, 8, A), keep=False)]
    (op,) = plan
    assert isinstance(op, gpuvm.Unmap)
    assert op.va.vm is vm


def test_bug_12_a_remap_that_cannot_be_made_is_unwound() -> None:
    vm = scene(va(0, 12, A))
    before = snapshot(vm)
    for n in range(100):
        _core.fail_allocation(n)
        try:
            apply_map(vm, va(4, 8, B))
        except gpuvm.OutOfMemory:
            assert snapshot(vm) == before
        else:
            break
        finally:
            _core.fail_allocation(None)
    assert mapped(vm) == [va(0, 4, A), va(4, 8, B), va(8, 12, A, 8)]


def test_bug_13_iteration_survives_what_a_driver_does_to_the_current_mapping() -> None:
    vm = scene(*(va(8 * index, 8 * index + 8, A, 8 * index) for index in range(100)))
    visited = []
    for mapping in vm.mappings(20, 700):
        visited.append(mapping.addr)
        vm.sm_unmap(mapping.addr + 2, 4).apply()
        gc.collect(0)
    assert visited == list(range(16, 720, 8))
    vm.check()


def test_bug_17_lists_of_nothing_are_empty() -> None:
    vm = scene()
    assert (vm.extobjs, vm.evicted, vm.vm_bos(), list(vm)) == ([], [], [], [])
    vm_bo = vm.bo_obtain(OBJECTS[A])
    assert list(vm_bo) == []
    assert ops_of(vm.bo_unmap(vm_bo)) == []


def test_bug_18_dropping_the_last_reference_while_walking_is_safe() -> None:
    vm = scene()
    for addr in range(0, 80, 8):
        apply_map(vm, va(addr, addr + 8, A, addr))
    for vm_bo in vm.vm_bos():
        for mapping in vm_bo:
            vm.remove(mapping)
            mapping.unlink()
    assert vm.vm_bos() == []
    vm.check()


def test_bug_19_a_vm_bo_keeps_the_space_alive() -> None:
    vm = scene()
    vm_bo = vm.bo_obtain(OBJECTS[A])
    with pytest.raises(gpuvm.Busy):
        vm.put()
    del vm
    gc.collect()
    assert vm_bo.vm.refcount == 2
    assert vm_bo.put() is True


def test_bug_20_an_object_that_is_back_leaves_the_evicted_list() -> None:
    vm = scene()
    vm_bo = vm.bo_obtain(OBJECTS[A])
    vm_bo._set_evicted(True, True)
    vm_bo._set_evicted(False, True)
    assert vm.evicted == []


def test_bug_21_an_external_object_is_not_listed_behind_the_reservations_back() -> None:
    vm = scene()
    external = vm.bo_obtain(OBJECTS[A])
    external._extobj_add()
    external._set_evicted(True, listed=False)
    assert (external.evicted, external.on_evicted, vm.evicted) == (True, False, [])
    external._list_evicted()
    assert (external.on_evicted, vm.evicted) == (True, [external])
    external._set_evicted(False, listed=False)
    assert (external.evicted, vm.evicted) == (False, [external]), "the list is somebody else's until validate"


def test_bug_22_mappings_without_object_have_no_vm_bo() -> None:
    vm = scene()
    apply_map(vm, va(0, 8))
    (mapping,) = vm
    assert (mapping.obj, mapping.vm_bo, vm.vm_bos()) == (None, None, [])
    mapping.link(vm.bo_obtain(OBJECTS[A]))
    assert mapping.vm_bo is None


def test_bug_26_a_vm_bo_lets_go_of_its_object_last() -> None:
    class Buffer:
        pass

    vm, buffer, seen = scene(va(100, 108)), Buffer(), []
    vm.sm_map(0, 8, buffer).apply()

    def at_the_end() -> None:
        vm.check()
        seen.append((len(vm.vm_bos()), len(vm)))
        vm.sm_unmap(100, 4).apply()

    weakref.finalize(buffer, at_the_end)
    del buffer
    vm.sm_unmap(0, 8).apply()
    gc.collect()
    assert seen == [(0, 1)]
    assert mapped(vm) == [va(104, 108, 0, 4)]
    vm.check()


def test_bug_28_a_remap_links_the_new_before_it_unlinks_the_old() -> None:
    for step in (False, True):
        vm = scene()
        apply_map(vm, va(0, 8, A))
        (vm_bo,) = vm.vm_bos()
        for plan in (vm.sm_unmap(2, 2), plan_map(vm, va(0, 1, A))):
            if plan.stale:
                plan = plan_map(vm, va(0, 1, A))
            plan.step(Driver(vm)) if step else plan.apply()
            assert vm_bo.alive
            assert vm.vm_bos() == [vm_bo]
        assert vm_bo.refcount == len(vm_bo) == len(vm)


@pytest.mark.parametrize("kind", [0, 1, 2, 0x80, 0xFE, 0xFF])
def test_bug_35_the_kind_is_more_than_a_truth_value(kind: int) -> None:
    vm = scene()
    vm.bind(bind_array([map_row(0, 8, A, flags=kind)]), HANDLES)
    assert [int(mapping.flags) // gpuvm.GpuvaFlags.USERBITS for mapping in vm] == [kind]


def test_bug_36_unmapping_an_unknown_region_is_an_error() -> None:
    vm = scene(regions=Regions.SPARSE)
    with pytest.raises(gpuvm.NotFound):
        vm.bind(bind_array([unmap_row(0, 4096, SPARSE)]), {})


def test_bug_37_a_failing_request_undoes_exactly_those_before_it() -> None:
    vm = scene(va(0, 8, A))
    before = snapshot(vm)
    with pytest.raises(gpuvm.NotFound) as caught:
        vm.bind(
            bind_array([unmap_row(0, 4), map_row(0, 2, B), map_row(0, 8, 999), map_row(0, 8, A)]), HANDLES
        )
    assert caught.value.request == 2
    assert snapshot(vm) == before


def test_bug_41_a_remap_with_only_prev_clears_no_more_than_was_cut() -> None:
    """CVE-2024-36018: the length to clear is what the pieces leave of the old mapping."""
    vm = scene(va(0x3FFFED0000, 0x3FFFED0000 + 0x100000, A), range=1 << 47)
    cut, _ = plan_map(vm, va(0x3FFFFC0000, 0x3FFFFE0000, B))
    assert isinstance(cut, gpuvm.Remap)
    assert cut.next is None
    assert cut.prev is not None
    assert (cut.prev.addr, cut.prev.range) == (0x3FFFED0000, 0xF0000)
    start = cut.prev.end
    end = cut.unmap.va.end
    assert (start, end - start) == (0x3FFFFC0000, 0x10000)
    ops = vm.bind(bind_array([map_row(0x3FFFFC0000, 0x20000, B)]), HANDLES)
    first = ops[0]
    assert int(first["range"]) - int(first["prev_range"]) - int(first["next_range"]) == 0x10000


class LateFailure(Driver):
    """Carries the remap out and then finds that it cannot go on."""

    def sm_step_remap(self, op: gpuvm.Remap) -> None:
        super().sm_step_remap(op)
        raise MemoryError


def test_bug_42_a_failed_remap_puts_the_removed_mapping_back() -> None:
    vm = scene()
    apply_map(vm, va(0, 12, A))
    (old,), before = vm, snapshot(vm)
    with pytest.raises(MemoryError):
        plan_map(vm, va(4, 8, B)).step(LateFailure(vm))
    assert snapshot(vm) == before
    assert list(vm) == [old]
    assert (old.vm, vm.find(0, 12)) == (vm, old)
    vm.check()


def test_bug_46_a_space_is_made_once() -> None:
    vm = GpuVm("once", range=100)
    with pytest.raises(gpuvm.Busy):
        vm.__init__("twice", range=5, merge=Merge.ALWAYS)  # type: ignore[misc]
    assert (vm.name, vm.range, vm.merge) == ("once", 100, Merge.NEVER)


def test_bug_43_mappings_without_object_can_be_mapped_and_unmapped() -> None:
    vm = scene()
    for step in (False, True):
        makers: list[Callable[[], Plan]] = [lambda: plan_map(vm, va(0, 12)), lambda: vm.sm_unmap(4, 4)]
        for make in makers:
            plan = make()
            plan.step(Driver(vm)) if step else plan.apply()
        assert mapped(vm) == [va(0, 4), va(8, 12, 0, 8)]


def test_bug_44_a_region_taken_and_made_anew_in_one_call_is_the_new_one() -> None:
    vm = scene(regions=Regions.SPARSE)
    vm.bind(bind_array([map_row(0, 4096, flags=SPARSE), map_row(0, 64, A)]), HANDLES)
    vm.bind(
        bind_array([unmap_row(0, 4096, SPARSE), map_row(0, 8192, flags=SPARSE), map_row(4000, 200, B)]),
        HANDLES,
    )
    assert [(region.addr, region.range) for region in vm.region_list()] == [(0, 8192)]
    assert mapped(vm) == [va(4000, 4200, B)]


@pytest.mark.parametrize("flags", [2, 4, 1, (1 << 28) - 1])
def test_bug_45_pieces_keep_object_flags_and_region(flags: int) -> None:
    vm = scene(regions=Regions.SPARSE)
    vm.region_insert(0, 16, sparse=True)
    apply_map(vm, va(0, 12, A, 3, flags=flags))
    apply_map(vm, va(4, 8, B))
    assert mapped(vm) == [va(0, 4, A, 3, flags=flags), va(4, 8, B), va(8, 12, A, 11, flags=flags)]
    for mapping in vm:
        assert [
            region for region in vm.region_list() if region.addr <= mapping.addr and mapping.end <= region.end
        ]


def test_bug_47_the_kernel_node_is_validated() -> None:
    for node in ((0, 101), (100, 1), (TOP, 1), (50, TOP)):
        with pytest.raises(gpuvm.InvalidArgument):
            GpuVm("bug 47", range=100, kernel_node=node)


def test_bug_49_lengths_and_offsets_are_64_bits_wide() -> None:
    vm = scene(range=TOP)
    apply_map(vm, va(0, TOP, A, 1 << 63))
    apply_map(vm, va(1 << 33, (1 << 33) + 8, B))
    assert mapped(vm) == [
        va(0, 1 << 33, A, 1 << 63),
        va(1 << 33, (1 << 33) + 8, B),
        va((1 << 33) + 8, TOP, A, (1 << 63) + (1 << 33) + 8),
    ]
    assert vm.statistics().mapped_bytes == TOP


def test_bug_60_mappings_of_different_kinds_do_not_merge() -> None:
    vm = scene(merge=Merge.ALWAYS)
    vm.bind(bind_array([map_row(0, 8, A, 0, 1), map_row(8, 8, A, 8, 2), map_row(16, 8, A, 16, 2)]), HANDLES)
    assert [(mapping.addr, mapping.end) for mapping in vm] == [(0, 8), (8, 24)]
    assert ops_of(plan_map(vm, va(2, 4, A, 2, flags=8))) == [
        remap(va(0, 8, A, flags=4), va(0, 2, A, flags=4), va(4, 8, A, 4, flags=4), keep=True),
        new(va(2, 4, A, 2, flags=8)),
    ]


def test_bug_61_everything_is_in_bytes() -> None:
    vm = GpuVm("bytes", start=1, range=6)
    apply_map(vm, va(1, 7, A, 1))
    apply_map(vm, va(3, 4, B, 3))
    assert mapped(vm) == [va(1, 3, A, 1), va(3, 4, B, 3), va(4, 7, A, 4)]
    assert vm.statistics().mapped_bytes == 6
