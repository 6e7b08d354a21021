"""Construction of a `GpuVm`, its kernel node, insertion, look-up and iteration."""

from __future__ import annotations

import errno

import pytest

import gpuvm
from gpuvm import Gpuva, GpuVm, Merge, Regions
from layouts import TOP
from scenes import OBJECTS, A, B, gpuva, mapped, scene, va

PAGE = 4096


@pytest.mark.parametrize(
    ("start", "size", "node"),
    [
        (0, 0, None),
        (PAGE, 0, None),
        (1, TOP, None),
        (TOP, 1, None),
        (1 << 63, 1 << 63, None),
        (PAGE, PAGE, (0, 1)),
        (PAGE, PAGE, (0, PAGE + 1)),
        (PAGE, PAGE, (2 * PAGE - 1, 2)),
        (PAGE, PAGE, (2 * PAGE, 1)),
        (PAGE, PAGE, (0, 3 * PAGE)),
        (PAGE, PAGE, (PAGE, TOP)),
        (PAGE, PAGE, (TOP, 2)),
    ],
)
def test_impossible_spaces_are_refused(start: int, size: int, node: tuple[int, int] | None) -> None:
    with pytest.raises(gpuvm.InvalidArgument) as caught:
        GpuVm("impossible", start=start, range=size, kernel_node=node)
    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize("number", [-1, 1 << 64, 1 << 200])
def test_numbers_beyond_64_bits_are_refused_at_construction(number: int) -> None:
    for options in (
        {"start": number, "range": 1},
        {"range": number},
        {"range": 1, "kernel_node": (number, 1)},
    ):
        with pytest.raises(gpuvm.InvalidArgument, match=str(number)[:8] + "|" + hex(number)[:8]):
            scene(**options)


@pytest.mark.parametrize(
    ("start", "size"), [(0, 1), (0, TOP), (TOP - 1, 1), (1, TOP - 1), (1 << 63, (1 << 63) - 1)]
)
def test_extreme_spaces_work_to_the_last_byte(start: int, size: int) -> None:
    vm = GpuVm("extreme", start=start, range=size)
    assert (vm.start, vm.range, vm.end) == (start, size, start + size)
    vm.sm_map(start, size, OBJECTS[A]).apply()
    assert mapped(vm) == [va(start, start + size, A)]
    last = vm.find_first(vm.end - 1, 1)
    assert last is not None
    assert last.end == vm.end
    assert vm.range_valid(vm.end - 1, 1)
    assert not vm.range_valid(vm.end - 1, 2)
    vm.check()


def test_a_space_says_what_it_is() -> None:
    vm = GpuVm(
        "mine",
        start=PAGE,
        range=PAGE,
        kernel_node=(PAGE, 16),
        merge=Merge.ALWAYS,
        regions=Regions.SPARSE,
        flags=gpuvm.GpuVmFlags.RESV_PROTECTED,
    )
    assert (vm.name, vm.merge, vm.regions_mode) == ("mine", Merge.ALWAYS, Regions.SPARSE)
    assert vm.flags == gpuvm.GpuVmFlags.RESV_PROTECTED
    assert "mine" in repr(vm)
    assert vm, "an empty space is not nothing"
    assert vm.generation == GpuVm("other", range=1).generation


def test_a_kernel_node_of_no_length_is_no_node() -> None:
    vm = GpuVm("no node", range=PAGE, kernel_node=(0, 0))
    assert vm.kernel_node is None
    assert list(vm) == []
    vm.insert(Gpuva(0, PAGE))


class TestKernelNode:
    @pytest.fixture
    def vm(self) -> GpuVm:
        return GpuVm("with node", range=100, kernel_node=(40, 10))

    def test_it_is_seen_but_not_counted(self, vm: GpuVm) -> None:
        node = vm.kernel_node
        assert node is not None
        assert (node.addr, node.range, node.obj, node.kernel, node.vm) == (40, 10, None, True, vm)
        assert list(vm) == [node]
        assert len(vm) == 0
        assert vm.find_first(0, 100) is node
        assert vm.find(40, 10) is node
        assert not vm.interval_empty(49, 1)
        assert vm.interval_empty(50, 50)

    @pytest.mark.parametrize(("addr", "size"), [(40, 10), (30, 11), (49, 1), (0, 100), (44, 2), (49, 40)])
    def test_nothing_may_touch_it(self, vm: GpuVm, addr: int, size: int) -> None:
        assert not vm.range_valid(addr, size)
        for attempt in (
            lambda: vm.sm_map(addr, size),
            lambda: vm.sm_unmap(addr, size),
            lambda: vm.insert(Gpuva(addr, size)),
        ):
            with pytest.raises(gpuvm.InvalidArgument):
                attempt()
        assert [node.kernel for node in vm] == [True]

    @pytest.mark.parametrize(("addr", "size"), [(30, 10), (50, 10), (0, 40), (50, 50)])
    def test_neighbours_may_touch_its_borders(self, vm: GpuVm, addr: int, size: int) -> None:
        assert vm.range_valid(addr, size)
        vm.sm_map(addr, size).apply()
        assert len(vm) == 1

    def test_it_cannot_be_removed(self, vm: GpuVm) -> None:
        node = vm.kernel_node
        assert node is not None
        with pytest.raises(gpuvm.InvalidArgument):
            vm.remove(node)
        assert list(vm) == [node]
        vm.check()

    def test_prefetch_and_madvise_pass_it_by(self, vm: GpuVm) -> None:
        vm.insert(Gpuva(30, 10))
        vm.insert(Gpuva(50, 10))
        assert [(op.va.addr, op.va.end) for op in vm.prefetch(0, 100)] == [(30, 40), (50, 60)]  # type: ignore[union-attr]

    def test_it_is_no_neighbour(self, vm: GpuVm) -> None:
        assert vm.find_prev(50) is None
        assert vm.find_next(40) is None


class TestInsertAndRemove:
    def test_insert_keeps_the_object_that_was_given(self) -> None:
        vm, mine = scene(), gpuva(va(8, 16, A, 100, flags=8))
        vm.insert(mine)
        assert vm.find(8, 8) is mine
        assert mine.vm is vm
        assert mapped(vm) == [va(8, 16, A, 100, flags=8)]

    @pytest.mark.parametrize(("addr", "size"), [(8, 8), (0, 9), (15, 1), (10, 2), (0, 100)])
    def test_overlap_is_refused(self, addr: int, size: int) -> None:
        vm = scene(va(8, 16, A))
        with pytest.raises(gpuvm.AlreadyMapped) as caught:
            vm.insert(Gpuva(addr, size))
        assert caught.value.errno == errno.EEXIST
        assert mapped(vm) == [va(8, 16, A)]

    @pytest.mark.parametrize(("addr", "size"), [(0, 0), (99, 2), (100, 1), (0, 101), (50, TOP), (TOP, TOP)])
    def test_bad_ranges_are_refused(self, addr: int, size: int) -> None:
        vm = scene(range=100)
        with pytest.raises(gpuvm.InvalidArgument):
            vm.insert(Gpuva(addr, size))
        assert not vm.range_valid(addr, size)
        assert len(vm) == 0

    def test_one_mapping_is_in_one_tree_once(self) -> None:
        vm, other, mine = scene(), scene(), Gpuva(8, 8)
        vm.insert(mine)
        for space in (vm, other):
            with pytest.raises(gpuvm.GpuvmError):
                space.insert(mine)
        assert mine.vm is vm
        assert len(other) == 0

    def test_remove_and_insert_again(self) -> None:
        vm, mine = scene(), gpuva(va(8, 16, A, 1))
        for _ in range(3):
            vm.insert(mine)
            vm.remove(mine)
            assert mine.vm is None
            assert (mine.addr, mine.range, mine.obj, mine.offset) == (8, 8, OBJECTS[A], 1)
            assert list(vm) == []
            vm.check()

    def test_only_what_is_there_can_be_removed(self) -> None:
        vm, other = scene(va(0, 8)), scene(va(0, 8))
        with pytest.raises(gpuvm.GpuvmError):
            vm.remove(Gpuva(0, 8))
        with pytest.raises(gpuvm.GpuvmError):
            vm.remove(next(iter(other)))
        assert len(vm) == len(other) == 1


class TestFind:
    @pytest.fixture
    def vm(self) -> GpuVm:
        return scene(va(8, 16, A), va(16, 20, B), va(32, 40, A))

    def test_exact(self, vm: GpuVm) -> None:
        found = vm.find(8, 8)
        assert found is not None
        assert (found.addr, found.end) == (8, 16)
        for addr, size in ((8, 7), (8, 9), (9, 7), (7, 8), (8, 12), (0, 8), (9, 8)):
            assert vm.find(addr, size) is None

    def test_first(self, vm: GpuVm) -> None:
        for addr, size, want in (
            (0, 9, 8),
            (0, 100, 8),
            (15, 1, 8),
            (15, 2, 8),
            (16, 9, 16),
            (19, 50, 16),
            (20, 13, 32),
        ):
            found = vm.find_first(addr, size)
            assert found is not None
            assert found.addr == want
        assert vm.find_first(20, 12) is None
        assert vm.find_first(40, 1000) is None
        with pytest.raises(gpuvm.InvalidArgument):
            vm.find_first(8, 0)

    def test_neighbours_touch(self, vm: GpuVm) -> None:
        ends = {at: found.addr for at in range(50) if (found := vm.find_prev(at))}
        begins = {at: found.addr for at in range(50) if (found := vm.find_next(at))}
        assert ends == {16: 8, 20: 16, 40: 32}
        assert begins == {8: 8, 16: 16, 32: 32}

    def test_one_mapping_is_one_object(self, vm: GpuVm) -> None:
        assert vm.find(8, 8) is vm.find_first(0, 9) is vm.find_prev(16) is next(iter(vm))

    def test_found_mappings_never_raise_at_the_edges(self, vm: GpuVm) -> None:
        assert vm.find_prev(0) is None
        assert vm.find_next(TOP) is None
        assert vm.find_prev(TOP) is None
        assert vm.find(TOP, TOP) is None
        assert vm.interval_empty(TOP, 1)
        assert not vm.range_valid(TOP, TOP)
        assert not vm.range_valid(0, 0)


class TestIteration:
    @pytest.fixture
    def vm(self) -> GpuVm:
        return scene(*(va(8 * index, 8 * index + 6, A, index) for index in range(200)))

    def test_in_address_order(self, vm: GpuVm) -> None:
        addrs = [mapping.addr for mapping in vm]
        assert addrs == [8 * index for index in range(200)]
        assert len(vm) == 200

    def test_range(self, vm: GpuVm) -> None:
        assert [mapping.addr for mapping in vm.mappings(13, 19)] == [8, 16, 24]
        assert [mapping.addr for mapping in vm.mappings(14, 2)] == []
        assert [mapping.addr for mapping in vm.mappings(14, 3)] == [16]

    def test_the_current_one_may_be_removed(self, vm: GpuVm) -> None:
        seen = []
        for mapping in vm:
            seen.append(mapping.addr)
            vm.remove(mapping)
        assert seen == [8 * index for index in range(200)]
        assert len(vm) == 0

    def test_remainders_may_be_inserted(self, vm: GpuVm) -> None:
        seen = []
        for mapping in vm.mappings(0, 1600):
            seen.append(mapping.addr)
            vm.remove(mapping)
            vm.insert(Gpuva(mapping.addr, 2))
            vm.insert(Gpuva(mapping.addr + 4, 2))
        assert seen == [8 * index for index in range(200)]
        assert len(vm) == 400
        vm.check()

    def test_replacing_while_walking(self, vm: GpuVm) -> None:
        for count, mapping in enumerate(vm):
            vm.sm_unmap(mapping.addr + 2, 1).apply()
            assert count < 200
        assert len(vm) == 400
