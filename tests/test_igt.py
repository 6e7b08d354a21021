"""Vectors of the kernel's own user-space test suite (IGT: xe_vm, panthor_vm), as far as they are about the
VA space.

A page of the test stands for 4 KiB. What the originals show by executing on the GPU is shown here by what is
mapped.
"""

from __future__ import annotations

import errno

import pytest

import gpuvm
from arrays import SPARSE, bind_array, map_row, unmap_row
from gpuvm import GpuVm, Merge, Regions
from igt_vectors import MUNMAP_STYLE
from scenes import OBJECTS, A, B, apply_map, mapped, scene, va
from shapes import Va
from snapshot import snapshot

PAGE = 4096
MIB = 1 << 20
HUGE = 2 * MIB
BASE = 0x1A0000
HANDLES = OBJECTS.handles()


def pages(first: int, last: int, bo: int = A, offset: int | None = None) -> Va:
    return va(BASE + first * PAGE, BASE + last * PAGE, bo, (first if offset is None else offset) * PAGE)


def bound(name: str) -> tuple[GpuVm, int, int, int]:
    count, mappings, first, last = MUNMAP_STYLE[name]
    vm, each = scene(range=1 << 47), count // mappings
    for index in range(mappings):
        apply_map(vm, pages(index * each, (index + 1) * each))
    return vm, count, first, last


def backing(vm: GpuVm) -> dict[int, tuple[object, int]]:
    """Object and offset, both in pages, that each page shows."""
    return {
        (mapping.addr - BASE) // PAGE + index: (mapping.obj, mapping.offset // PAGE + index)
        for mapping in vm
        for index in range(mapping.range // PAGE)
    }


@pytest.mark.parametrize("name", MUNMAP_STYLE)
def test_munmap_style_unbind(name: str) -> None:
    vm, count, first, last = bound(name)
    vm.sm_unmap(BASE + first * PAGE, (last - first) * PAGE).apply()
    kept = [page for page in range(count) if not first <= page < last]
    assert backing(vm) == {page: (OBJECTS[A], page) for page in kept}
    apply_map(vm, pages(first, last))
    assert backing(vm) == {page: (OBJECTS[A], page) for page in range(count)}
    vm.check()


@pytest.mark.parametrize("name", MUNMAP_STYLE)
def test_mmap_style_bind(name: str) -> None:
    vm, count, first, last = bound(name)
    apply_map(vm, pages(first, last, B, 0))
    want: dict[int, tuple[object, int]] = {page: (OBJECTS[A], page) for page in range(count)}
    want |= {page: (OBJECTS[B], page - first) for page in range(first, last)}
    assert backing(vm) == want
    vm.check()


@pytest.mark.parametrize("name", MUNMAP_STYLE)
def test_untouched_pages_are_in_no_op(name: str) -> None:
    """What a hammering thread would notice: an op that covers more than mappings which the request cuts."""
    vm, _, first, last = bound(name)
    start, end = BASE + first * PAGE, BASE + last * PAGE
    for op in vm.sm_unmap(start, end - start):
        assert isinstance(op, gpuvm.Unmap | gpuvm.Remap)
        whole = op.unmap.va if isinstance(op, gpuvm.Remap) else op.va
        pieces = [op.prev, op.next] if isinstance(op, gpuvm.Remap) else []
        cut = whole.range - sum(piece.range for piece in pieces if piece is not None)
        assert cut == min(whole.end, end) - max(whole.addr, start)


def test_partial_unbinds() -> None:
    vm = scene()
    apply_map(vm, va(0, 3 * PAGE, A))
    for first, left in ((1, [0, 2]), (0, [2]), (2, [])):
        vm.sm_unmap(first * PAGE, PAGE).apply()
        assert [mapping.addr // PAGE for mapping in vm] == left
        assert all(mapping.offset == mapping.addr for mapping in vm)


@pytest.mark.parametrize("count", [2, 8])
def test_unbind_all(count: int) -> None:
    vm = scene()
    for index in range(count):
        apply_map(vm, va(2 * index * PAGE, (2 * index + 1) * PAGE, A))
    apply_map(vm, va(100 * PAGE, 101 * PAGE, B))
    vm_bo = vm.bo_obtain(OBJECTS[A])
    vm.bo_unmap(vm_bo).apply()
    assert mapped(vm) == [va(100 * PAGE, 101 * PAGE, B)]
    assert vm_bo.put() is True


def test_bind_one_object_many_times() -> None:
    vm = scene(range=1 << 40)
    for index in range(500):
        apply_map(vm, va(2 * index * PAGE, (2 * index + 1) * PAGE, A))
    (vm_bo,) = vm.vm_bos()
    assert (vm_bo.refcount, len(vm_bo), len(vm)) == (500, 500, 500)


def conflict_rows() -> list[tuple[int, int, int, int, int, int]]:
    places = [(0, 1), (1, 3), (3, 6)]
    rows = [map_row(first * MIB, (last - first) * MIB, A, first * MIB) for first, last in places]
    return [*rows, unmap_row(MIB, 4 * MIB)]


@pytest.mark.parametrize("merge", [Merge.NEVER, Merge.ALWAYS])
@pytest.mark.parametrize("one_call", [True, False], ids=["bind-array-conflict", "bind-no-array-conflict"])
def test_bind_array_conflict(one_call: bool, merge: Merge) -> None:
    vm, rows = scene(range=1 << 40, merge=merge), conflict_rows()
    for part in [rows] if one_call else [[row] for row in rows]:
        vm.bind(bind_array(part), HANDLES)
    assert mapped(vm) == [va(0, MIB, A), va(5 * MIB, 6 * MIB, A, 5 * MIB)]


@pytest.mark.parametrize("merge", [Merge.NEVER, Merge.ALWAYS])
def test_bind_array_conflict_with_an_error_in_the_last(merge: Merge) -> None:
    vm = scene(range=1 << 40, merge=merge, regions=Regions.SPARSE)
    vm.region_insert(16 * MIB, 16 * MIB, sparse=True)
    apply_map(vm, va(2 * MIB, 4 * MIB, B))
    before = snapshot(vm)
    with pytest.raises(gpuvm.NoSpace) as caught:
        vm.bind(bind_array([*conflict_rows(), map_row(15 * MIB, 2 * MIB, A)]), HANDLES)
    assert (caught.value.errno, caught.value.request) == (errno.ENOSPC, 4)
    assert snapshot(vm) == before
    assert mapped(vm) == [va(2 * MIB, 4 * MIB, B)]


def test_bind_array_twice() -> None:
    vm, rows = scene(range=1 << 40), conflict_rows()
    vm.bind(bind_array(rows), HANDLES)
    once = mapped(vm)
    vm.bind(bind_array(rows), HANDLES)
    assert mapped(vm) == once


def test_every_second_mapping_is_unbound_and_bound_again() -> None:
    """shared-{pte,pde}-page: neighbours share a table page; here they share leaves."""
    vm = scene(range=1 << 47)
    everything = [pages(index, index + 1) for index in range(600)]
    vm.bind(bind_array([map_row(shape.addr, shape.range, A, shape.offset) for shape in everything]), HANDLES)
    seconds = everything[1::2]
    vm.bind(bind_array([unmap_row(shape.addr, shape.range) for shape in seconds]), HANDLES)
    assert mapped(vm) == everything[::2]
    vm.check()
    vm.bind(bind_array([map_row(shape.addr, shape.range, A, shape.offset) for shape in seconds]), HANDLES)
    assert mapped(vm) == everything


HUGE_UNBINDS = {
    "single": (0, HUGE),
    "single_partial": (PAGE, HUGE - PAGE),
    "leftaligned": (0, PAGE),
    "rightaligned": (HUGE - PAGE, HUGE),
    "superset": (-PAGE, HUGE + PAGE),
    "subset": (16 * PAGE, 17 * PAGE),
}


@pytest.mark.parametrize("name", HUGE_UNBINDS)
def test_unbind_from_a_huge_page(name: str) -> None:
    start, low, high = 8 * HUGE, *HUGE_UNBINDS[name]
    vm = scene(range=1 << 40)
    apply_map(vm, va(start, start + HUGE, A))
    vm.sm_unmap(start + low, high - low).apply()
    low, high = max(low, 0), min(high, HUGE)
    want = [va(start + a, start + b, A, a) for a, b in ((0, low), (high, HUGE)) if a < b]
    assert mapped(vm) == want


def test_unbind_successive_pages_of_a_huge_page() -> None:
    vm = scene(range=1 << 40)
    apply_map(vm, va(0, HUGE, A))
    for page in range(HUGE // PAGE):
        vm.sm_unmap(page * PAGE, PAGE).apply()
        assert [(mapping.addr, mapping.offset) for mapping in vm] == [((page + 1) * PAGE,) * 2] * (
            page + 1 < 512
        )


@pytest.mark.parametrize(
    ("addr", "size"), [(7 * MIB, 2 * MIB), (8 * MIB, PAGE), (9 * MIB, MIB), (0, 16 * MIB)]
)
def test_bind_into_the_kernels_range(addr: int, size: int) -> None:
    vm = GpuVm("kbo", range=16 * MIB, kernel_node=(8 * MIB, 2 * MIB))
    for row in (map_row(addr, size, A), unmap_row(addr, size)):
        with pytest.raises(gpuvm.InvalidArgument):
            vm.bind(bind_array([row]), HANDLES)


SPARSE_UNMAPS = {
    "start_size_unaligned": (PAGE, HUGE + PAGE),
    "start_size_aligned": (HUGE, 2 * HUGE),
    "start_aligned_no_hugepage_multiple": (HUGE, HUGE + 5 * PAGE),
    "below_start": (-HUGE, HUGE),
    "above_start": (3 * HUGE, 5 * HUGE),
}


@pytest.mark.parametrize("name", SPARSE_UNMAPS)
def test_partial_unmap_of_a_mapping_without_object(name: str) -> None:
    start, size = 8 * HUGE, 4 * HUGE
    low, high = SPARSE_UNMAPS[name]
    vm = scene(range=1 << 40)
    vm.sm_map(start, size, None, 0, gpuvm.GpuvaFlags.SPARSE).apply()
    vm.sm_unmap(start + low, high - low).apply()
    low, high = max(low, 0), min(high, size)
    want = [(start + a, start + b) for a, b in ((0, low), (high, size)) if a < b]
    assert [(mapping.addr, mapping.end) for mapping in vm] == want
    assert all(mapping.sparse and mapping.obj is None for mapping in vm)


@pytest.mark.parametrize(("first", "last"), [(0, 4), (1, 3), (0, 1), (3, 4), (2, 4)])
def test_tiles_of_a_sparse_region_are_bound_and_unbound(first: int, last: int) -> None:
    """A sparse buffer: the region stays through any tile update and goes as one."""
    vm, tile = scene(range=1 << 40, regions=Regions.SPARSE), 65536
    region = (16 * tile, 4 * tile)
    vm.bind(bind_array([map_row(*region, flags=SPARSE)]), {})
    rows = [map_row(region[0] + index * tile, tile, A, index * tile) for index in range(4)]
    vm.bind(bind_array(rows), HANDLES)
    vm.bind(bind_array([unmap_row(region[0] + first * tile, (last - first) * tile)]), HANDLES)
    assert [(mapping.addr - region[0]) // tile for mapping in vm] == [
        tile for tile in range(4) if not first <= tile < last
    ]
    assert len(vm.region_list()) == 1
    vm.bind(bind_array([*rows[first:last], unmap_row(*region, SPARSE)]), HANDLES)
    assert (vm.region_list(), mapped(vm), vm.vm_bos()) == ([], [], [])
