"""Regions: the original series' (each mapping inside exactly one) and nouveau's sparse ones."""

from __future__ import annotations

import errno

import pytest

import gpuvm
from gpuvm import GpuVm, Merge, Region, Regions
from scenes import A, B, apply_map, kept, mapped, new, ops_of, plan_map, scene, va
from shapes import Va


@pytest.fixture(params=[Regions.REQUIRED, Regions.SPARSE], ids=lambda mode: mode.name)
def vm(request: pytest.FixtureRequest) -> GpuVm:
    """Regions [10,30) and [30,50), which touch, and [60,80) marked sparse."""
    space = scene(regions=request.param)
    space.region_insert(30, 20)
    space.region_insert(10, 20)
    space.region_insert(60, 20, sparse=True)
    return space


def test_regions_are_listed_in_address_order(vm: GpuVm) -> None:
    assert vm.region_list() == [Region(10, 20, False), Region(30, 20, False), Region(60, 20, True)]
    assert vm.region_list()[0].end == 30
    assert vm.statistics().regions == 3


def test_a_region_is_found_exactly(vm: GpuVm) -> None:
    assert vm.region_find(10, 20) == Region(10, 20, False)
    for addr, size in ((10, 40), (10, 19), (11, 19), (9, 20), (20, 10), (60, 10), (0, 10)):
        assert vm.region_find(addr, size) is None


@pytest.mark.parametrize(("addr", "size"), [(10, 20), (0, 11), (29, 1), (49, 30), (0, 100), (12, 2), (79, 1)])
def test_regions_do_not_overlap(vm: GpuVm, addr: int, size: int) -> None:
    before = vm.region_list()
    with pytest.raises(gpuvm.GpuvmError) as caught:
        vm.region_insert(addr, size)
    assert caught.value.errno == errno.EEXIST
    assert vm.region_list() == before


@pytest.mark.parametrize(
    ("addr", "size"), [(0, 0), (90, 0), ((1 << 20) - 1, 2), (1 << 20, 1), ((1 << 64) - 1, 2)]
)
def test_bad_ranges_are_refused(vm: GpuVm, addr: int, size: int) -> None:
    with pytest.raises(gpuvm.InvalidArgument):
        vm.region_insert(addr, size)


def test_a_region_may_not_touch_the_kernel_node() -> None:
    vm = scene(regions=Regions.REQUIRED, kernel_node=(100, 10))
    with pytest.raises(gpuvm.InvalidArgument):
        vm.region_insert(90, 11)
    vm.region_insert(90, 10)


def test_remove_and_insert_again(vm: GpuVm) -> None:
    region = vm.region_find(10, 20)
    assert region is not None
    vm.region_remove(region)
    assert vm.region_find(10, 20) is None
    with pytest.raises(gpuvm.NotFound):
        vm.region_remove(region)
    assert vm.region_insert(5, 25, sparse=True) == Region(5, 25, True)
    vm.check()


def test_a_region_in_use_is_not_removed(vm: GpuVm) -> None:
    apply_map(vm, va(12, 14, A))
    region = vm.region_find(10, 20)
    assert region is not None
    with pytest.raises(gpuvm.Busy):
        vm.region_remove(region)
    assert vm.region_find(10, 20) == region
    vm.check()


def test_a_change_of_regions_makes_plans_stale(vm: GpuVm) -> None:
    plan = plan_map(vm, va(12, 14, A))
    vm.region_insert(100, 10)
    with pytest.raises(gpuvm.StalePlan):
        plan.apply()


@pytest.mark.parametrize("place", [va(10, 30), va(12, 20), va(30, 50), va(60, 61), va(79, 80)])
def test_inside_one_region_all_is_well(vm: GpuVm, place: Va) -> None:
    vm.sm_map(place.addr, place.range).apply()
    assert [(mapping.addr, mapping.end) for mapping in vm] == [(place.addr, place.end)]
    vm.check()


@pytest.mark.parametrize(
    "place", [va(5, 11), va(29, 31), va(10, 50), va(45, 55), va(0, 90), va(79, 81), va(55, 65)]
)
def test_across_a_border_nothing_is_mapped(vm: GpuVm, place: Va) -> None:
    code = errno.EINVAL if vm.regions_mode is Regions.REQUIRED else errno.ENOSPC
    for attempt in (
        lambda: vm.sm_map(place.addr, place.range),
        lambda: vm.insert(gpuvm.Gpuva(place.addr, place.range)),
    ):
        with pytest.raises(gpuvm.GpuvmError) as caught:
            attempt()
        assert caught.value.errno == code
    assert mapped(vm) == []


@pytest.mark.parametrize("place", [va(0, 10), va(50, 60), va(80, 90), va(52, 54)])
def test_outside_all_regions(vm: GpuVm, place: Va) -> None:
    if vm.regions_mode is Regions.REQUIRED:
        with pytest.raises(gpuvm.InvalidArgument):
            vm.sm_map(place.addr, place.range)
    else:
        vm.sm_map(place.addr, place.range).apply()
        assert len(vm) == 1


def test_an_unmap_may_cross_regions_and_holes(vm: GpuVm) -> None:
    for shape in (va(20, 30, A), va(30, 40, A, 10), va(60, 70, B)):
        apply_map(vm, shape)
    vm.sm_unmap(25, 40).apply()
    assert mapped(vm) == [va(20, 25, A), va(65, 70, B, 5)]
    vm.check()


def test_a_region_over_mappings_is_refused_where_mappings_may_be_outside() -> None:
    vm = scene(va(10, 20, A), regions=Regions.SPARSE)
    with pytest.raises(gpuvm.AlreadyMapped):
        vm.region_insert(15, 10, sparse=True)
    vm.region_insert(20, 10, sparse=True)
    vm.check()


def test_merging_within_regions_needs_regions() -> None:
    with pytest.raises(gpuvm.InvalidArgument, match="regions"):
        GpuVm("none", range=100, merge=Merge.WITHIN_REGION)


def test_without_regions() -> None:
    vm = scene()
    with pytest.raises(gpuvm.InvalidArgument):
        vm.region_insert(0, 10)
    assert vm.region_list() == []
    assert vm.region_find(0, 10) is None


@pytest.mark.parametrize("mode", [Regions.REQUIRED, Regions.SPARSE])
@pytest.mark.parametrize("merge", [Merge.ALWAYS, Merge.WITHIN_REGION])
def test_a_merge_does_not_cross_the_border_of_a_region(merge: Merge, mode: Regions) -> None:
    vm = scene(regions=mode, merge=merge)
    vm.region_insert(0, 10)
    vm.region_insert(10, 10)
    apply_map(vm, va(5, 10, A, 5))
    assert ops_of(plan_map(vm, va(10, 15, A, 10))) == [new(va(10, 15, A, 10))]
    assert ops_of(plan_map(vm, va(0, 5, A))) == [kept(va(5, 10, A, 5)), new(va(0, 10, A))]


def test_outside_regions_only_always_merges() -> None:
    for merge, merged in ((Merge.ALWAYS, True), (Merge.WITHIN_REGION, False)):
        vm = scene(regions=Regions.SPARSE, merge=merge)
        vm.region_insert(50, 10)
        apply_map(vm, va(0, 5, A))
        want = [kept(va(0, 5, A)), new(va(0, 9, A))] if merged else [new(va(5, 9, A, 5))]
        assert ops_of(plan_map(vm, va(5, 9, A, 5))) == want


@pytest.mark.parametrize("merge", list(Merge))
def test_pieces_of_a_sparse_region_stay_inside(merge: Merge) -> None:
    vm = scene(regions=Regions.SPARSE, merge=merge)
    vm.region_insert(16, 64, sparse=True)
    apply_map(vm, va(16, 48, A))
    apply_map(vm, va(48, 80, A, 32))
    vm.sm_unmap(32, 32).apply()
    assert mapped(vm) == [va(16, 32, A), va(64, 80, A, 48)]
    assert vm.region_list() == [Region(16, 64, True)]
    vm.check()
