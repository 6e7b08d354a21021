"""Bulk binds: the uAPI's own structs, all or nothing, and an answer that says what was done."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections import UserDict
from random import Random
from typing import Any

import numpy as np
import pytest

import gpuvm
from arrays import KIND_UNIT, MAP, SPARSE, UNMAP, Row, array_shape, bind_array, emitted, map_row, unmap_row
from gpuvm import GpuVm, Merge, Regions
from scenes import OBJECTS, SIZE, A, B, mapped, new, remap, scene, unmap, va
from snapshot import snapshot

HANDLES = OBJECTS.handles()

LAYOUTS = {
    "VM_BIND_OP": (40, "op:0 flags:4 handle:8 pad:12 addr:16 bo_offset:24 range:32"),
    "BIND_OP": (
        56,
        "op:0 keep:1 pad:2 request:4 handle:8 flags:12 addr:16 bo_offset:24 range:32"
        " prev_range:40 next_range:48",
    ),
    "MAPPING": (32, "addr:0 range:8 bo_offset:16 handle:24 flags:28"),
}
BYTES = {"op": 1, "keep": 1, "addr": 8, "bo_offset": 8, "range": 8, "prev_range": 8, "next_range": 8}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout_is_the_one_of_the_c_structs(name: str) -> None:
    dtype, (size, fields) = getattr(gpuvm, name), LAYOUTS[name]
    assert dtype.itemsize == size
    assert " ".join(f"{field}:{dtype.fields[field][1]}" for field in dtype.names) == fields
    for field in dtype.names:
        kind = dtype.fields[field][0]
        assert kind.kind == "u"
        assert kind.isnative
        if name != "VM_BIND_OP" or field not in ("op", "pad"):
            assert kind.itemsize == (2 if (name, field) == ("BIND_OP", "pad") else BYTES.get(field, 4))


def test_a_struct_of_the_uapi_can_be_bound_as_it_is() -> None:
    raw = bytearray()
    for op, flags, handle, addr, offset, size in (
        map_row(0x1000, 0x4000, A, 0x2000),
        unmap_row(0x2000, 0x1000),
    ):
        raw += b"".join(word.to_bytes(4, "little") for word in (op, flags, handle, 0))
        raw += b"".join(word.to_bytes(8, "little") for word in (addr, offset, size))
    vm = scene()
    vm.bind(np.frombuffer(raw, dtype=gpuvm.VM_BIND_OP), HANDLES)
    assert mapped(vm) == [va(0x1000, 0x2000, A, 0x2000), va(0x3000, 0x5000, A, 0x4000)]


def test_importing_the_package_does_not_import_numpy() -> None:
    code = "import sys, gpuvm; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_was_done_is_told() -> None:
    vm = scene()
    ops = vm.bind(bind_array([map_row(0, 12, A, 100), map_row(4, 4, B), unmap_row(8, 100)]), HANDLES)
    assert ops.dtype == gpuvm.BIND_OP
    assert emitted(ops) == [
        new(va(0, 12, A, 100)),
        remap(va(0, 12, A, 100), va(0, 4, A, 100), va(8, 12, A, 108)),
        new(va(4, 8, B)),
        unmap(va(8, 12, A, 108)),
    ]
    assert ops["request"].tolist() == [0, 1, 1, 2]
    assert ops["pad"].tolist() == [0] * 4
    assert mapped(vm) == array_shape(vm.to_array()) == [va(0, 4, A, 100), va(4, 8, B)]
    vm.check()


def test_keep_is_told() -> None:
    vm = scene()
    ops = vm.bind(bind_array([map_row(0, 8, A, 8), map_row(0, 8, A, 8), map_row(2, 2, A, 10)]), HANDLES)
    assert [(int(op["op"]), int(op["keep"])) for op in ops] == [(0, 0), (2, 1), (0, 0), (1, 1), (0, 0)]


def test_the_kind_is_kept_in_the_flags_and_inherited_by_pieces() -> None:
    vm = scene()
    vm.bind(bind_array([map_row(0, 8, A, flags=0xFE), unmap_row(2, 2)]), HANDLES)
    assert [int(mapping.flags) for mapping in vm] == [0xFE * KIND_UNIT] * 2
    assert vm.to_array()["flags"].tolist() == [0xFE * KIND_UNIT] * 2


def test_handle_zero_is_a_mapping_without_object() -> None:
    vm = scene()
    vm.bind(bind_array([map_row(0, 8, 0)]), HANDLES)
    assert [mapping.obj for mapping in vm] == [None]
    assert vm.vm_bos() == []


def test_an_empty_array_does_nothing() -> None:
    vm = scene(va(0, 8, A))
    before = snapshot(vm)
    ops = vm.bind(bind_array([]), HANDLES)
    assert (len(ops), ops.dtype) == (0, gpuvm.BIND_OP)
    assert snapshot(vm) == before


def test_mappings_are_linked() -> None:
    vm = scene()
    vm.bind(bind_array([map_row(0, 8, A), map_row(16, 8, A), map_row(2, 2, B)]), HANDLES)
    of_a, of_b = vm.vm_bos()
    assert [(mapping.addr, mapping.end) for mapping in sorted(of_a, key=lambda mapping: mapping.addr)] == [
        (0, 2),
        (4, 8),
        (16, 24),
    ]
    assert (of_a.refcount, of_b.refcount) == (3, 1)
    vm.bind(bind_array([unmap_row(0, 100)]), HANDLES)
    assert vm.vm_bos() == []
    assert not of_a.alive


def test_the_handle_of_an_object_is_the_last_one() -> None:
    vm = scene()
    vm.bind(bind_array([map_row(0, 8, 5)]), {5: OBJECTS[A]})
    vm.bind(bind_array([map_row(8, 8, 9)]), {9: OBJECTS[A]})
    assert vm.to_array()["handle"].tolist() == [9, 9]
    vm.sm_map(16, 8, OBJECTS[B]).apply()
    assert vm.to_array()["handle"].tolist() == [9, 9, 0]


def test_handles_of_a_merging_space() -> None:
    vm = scene(merge=Merge.ALWAYS)
    ops = vm.bind(bind_array([map_row(0, 8, A), map_row(8, 8, A, 8), map_row(2, 2, A, 2)]), HANDLES)
    assert emitted(ops) == [new(va(0, 8, A)), unmap(va(0, 8, A), keep=True), new(va(0, 16, A))]
    assert ops["request"].tolist() == [0, 1, 1]


class TestSparse:
    @pytest.fixture
    def vm(self) -> GpuVm:
        space = GpuVm("sparse", range=SIZE, regions=Regions.SPARSE, kernel_node=(0, 0x1000))
        space.bind(bind_array([map_row(0x10000, 0x10000, flags=SPARSE)]), HANDLES)
        return space

    def bind(self, vm: GpuVm, *rows: Row) -> Any:
        return vm.bind(bind_array(rows), HANDLES)

    def test_map_makes_a_region_and_no_mapping(self, vm: GpuVm) -> None:
        (region,) = vm.region_list()
        assert (region.addr, region.range, region.sparse) == (0x10000, 0x10000, True)
        assert len(vm) == 0

    def test_its_handle_is_ignored(self, vm: GpuVm) -> None:
        self.bind(vm, map_row(0x40000, 0x1000, 77, flags=SPARSE))
        assert len(vm.region_list()) == 2
        assert len(vm) == 0

    def test_unmap_takes_all_in_it_and_drops_it(self, vm: GpuVm) -> None:
        self.bind(vm, map_row(0x11000, 0x1000, A), map_row(0x18000, 0x8000, B))
        ops = self.bind(vm, unmap_row(0x10000, 0x10000, SPARSE))
        assert emitted(ops) == [unmap(va(0x11000, 0x12000, A)), unmap(va(0x18000, 0x20000, B))]
        assert (vm.region_list(), len(vm)) == ([], 0)
        vm.check()

    def test_a_plain_unmap_leaves_it(self, vm: GpuVm) -> None:
        self.bind(vm, map_row(0x11000, 0x2000, A), unmap_row(0x10000, 0x2000))
        assert len(vm.region_list()) == 1
        assert mapped(vm) == [va(0x12000, 0x13000, A, 0x1000)]

    @pytest.mark.parametrize(
        "row", [map_row(0xF000, 0x2000, A), map_row(0x1F000, 0x2000, A), map_row(0x8000, 0x20000)]
    )
    def test_partly_inside_is_refused(self, vm: GpuVm, row: Row) -> None:
        with pytest.raises(gpuvm.NoSpace) as caught:
            self.bind(vm, row)
        assert (caught.value.errno, caught.value.request) == (errno.ENOSPC, 0)

    @pytest.mark.parametrize(
        "place", [(0x10000, 0x10000), (0x8000, 0x9000), (0x1F000, 0x1000), (0x8000, 0x20000)]
    )
    def test_a_region_over_a_region_is_refused(self, vm: GpuVm, place: tuple[int, int]) -> None:
        with pytest.raises(gpuvm.NoSpace):
            self.bind(vm, map_row(*place, flags=SPARSE))

    @pytest.mark.parametrize(
        "place", [(0x30000, 0x1000), (0x2F000, 0x1001), (0x2F000, 0x10000), (0x30800, 0x100)]
    )
    def test_a_region_over_a_mapping_is_refused(self, vm: GpuVm, place: tuple[int, int]) -> None:
        self.bind(vm, map_row(0x30000, 0x1000, A))
        with pytest.raises(gpuvm.NoSpace):
            self.bind(vm, map_row(*place, flags=SPARSE))
        assert len(vm.region_list()) == 1

    @pytest.mark.parametrize(
        "place", [(0x10000, 0x8000), (0x18000, 0x8000), (0x8000, 0x20000), (0x40000, 0x1000)]
    )
    def test_unmap_of_what_is_not_exactly_a_region(self, vm: GpuVm, place: tuple[int, int]) -> None:
        with pytest.raises(gpuvm.NotFound) as caught:
            self.bind(vm, unmap_row(*place, SPARSE))
        assert caught.value.errno == errno.ENOENT

    def test_made_used_and_dropped_in_one_call(self, vm: GpuVm) -> None:
        place = (0x40000, 0x4000)
        self.bind(vm, map_row(*place, flags=SPARSE), map_row(0x41000, 0x1000, A), unmap_row(*place, SPARSE))
        assert len(vm.region_list()) == 1
        assert len(vm) == 0

    def test_a_refused_call_leaves_regions_as_they_were(self, vm: GpuVm) -> None:
        self.bind(vm, map_row(0x12000, 0x1000, A))
        before = snapshot(vm)
        with pytest.raises(gpuvm.NotFound):
            self.bind(
                vm,
                unmap_row(0x10000, 0x10000, SPARSE),
                map_row(0x10000, 0x20000, flags=SPARSE),
                map_row(0x12000, 0x100, 77),
            )
        assert snapshot(vm) == before
        vm.check()

    def test_sparse_needs_regions(self) -> None:
        for row in (map_row(0, 8, flags=SPARSE), unmap_row(0, 8, SPARSE)):
            with pytest.raises(gpuvm.InvalidArgument):
                self.bind(scene(), row)

    def test_the_kernel_node_is_out_of_bounds(self, vm: GpuVm) -> None:
        with pytest.raises(gpuvm.InvalidArgument):
            self.bind(vm, map_row(0x800, 0x1000, flags=SPARSE))


GOOD: list[Row] = [
    map_row(0, 64, A),
    map_row(16, 16, B, 4),
    unmap_row(8, 4),
    map_row(0, 64, A, 0),
    map_row(100, 20, A, 100, 3),
    unmap_row(110, 500),
    map_row(60, 45, B, 60),
]
BAD: dict[str, tuple[Row, int]] = {
    "unknown op": ((2, 0, 0, 0, 0, 8), errno.EINVAL),
    "unknown flag": ((MAP, 0x200, 0, 0, 0, 8), errno.EINVAL),
    "unknown handle": (map_row(0, 8, 1234), errno.ENOENT),
    "no range": (map_row(0, 0, A), errno.EINVAL),
    "overflow": (map_row((1 << 64) - 8, 16, A), errno.EINVAL),
    "outside": (map_row(SIZE - 4, 8, A), errno.EINVAL),
    "unmap outside": (unmap_row(SIZE, 1), errno.EINVAL),
    "unmap nothing": (unmap_row(8, 0), errno.EINVAL),
    "kernel node": (unmap_row(900, 200), errno.EINVAL),
}


@pytest.mark.parametrize("merge", list(Merge), ids=lambda merge: merge.name)
@pytest.mark.parametrize("bad", BAD)
def test_a_bad_request_anywhere_leaves_everything_as_it_was(bad: str, merge: Merge) -> None:
    row, code = BAD[bad]
    for position in range(len(GOOD) + 1):
        vm = scene(va(4, 12, B, 50), merge=merge, kernel_node=(1000, 24))
        vm.bind(bind_array([map_row(30, 10, B, 9), map_row(200, 8, 6)]), HANDLES)
        of_b = vm.bo_obtain(OBJECTS[B])
        of_b._set_evicted(True, True)
        held = list(vm)
        before, plan = snapshot(vm), vm.sm_unmap(0, 100)
        with pytest.raises(gpuvm.GpuvmError) as caught:
            vm.bind(bind_array([*GOOD[:position], row, *GOOD[position:]]), {**HANDLES})
        assert (caught.value.errno, caught.value.request) == (code, position)
        assert str(position) in str(caught.value)
        assert snapshot(vm) == before
        assert list(vm) == held
        vm.check()
        assert not plan.stale
        vm.bind(bind_array(GOOD), HANDLES)
        vm.check()


@pytest.mark.parametrize("merge", list(Merge), ids=lambda merge: merge.name)
def test_large_arrays_do_the_same_as_single_calls(merge: Merge) -> None:
    """Arrays far longer than any look-ahead, over a tree of several levels."""
    random, one, many = Random(11), scene(merge=merge), scene(merge=merge)
    for size in (1, 2, 7, 63, 64, 65, 500, 3000):
        rows: list[Row] = []
        for _ in range(size):
            addr, length = random.randrange(SIZE - 600) & ~7, 8 * random.choice((1, 1, 2, 9, 60))
            offset = random.choice((addr, addr, 0))
            rows.append(
                map_row(addr, length, random.randint(0, 4), offset)
                if random.random() < 0.8
                else unmap_row(addr, length)
            )
        want = [op for row in rows for op in emitted(one.bind(bind_array([row]), HANDLES))]
        got = many.bind(bind_array(rows), HANDLES)
        assert emitted(got) == want
        assert array_shape(many.to_array()) == array_shape(one.to_array()) == mapped(many)
        many.check()
    assert len(many) > 1000


def test_find_many_is_exact() -> None:
    vm = scene()
    vm.bind(bind_array([map_row(8 * index, 8, A, index) for index in range(0, 1000, 2)]), HANDLES)
    addrs = np.arange(0, 8000, 4, dtype=np.uint64)
    ranges = np.where(addrs % 24 == 0, 7, 8).astype(np.uint64)
    found = vm.find_many(addrs, ranges)
    assert found.dtype == gpuvm.MAPPING
    for addr, size, row in zip(addrs.tolist(), ranges.tolist(), found, strict=True):
        hit = addr % 16 == 0 and size == 8
        assert (int(row["addr"]), int(row["range"])) == ((addr, 8) if hit else (0, 0)) or not (
            hit or row["range"]
        )
        assert bool(row["range"]) is hit
        if hit:
            assert (int(row["handle"]), int(row["bo_offset"])) == (A, addr // 8)


def test_find_many_needs_as_many_ranges_as_addresses() -> None:
    with pytest.raises((gpuvm.InvalidArgument, ValueError)):
        scene().find_many(np.zeros(2, np.uint64), np.zeros(3, np.uint64))


def test_to_array_leaves_the_kernel_node_out() -> None:
    vm = scene(va(0, 8), kernel_node=(100, 10))
    assert array_shape(vm.to_array()) == [va(0, 8)]
    assert len(scene().to_array()) == 0


class TestWrongArrays:
    def refused(self, array: Any) -> None:
        vm = scene(va(0, 8, A))
        before = snapshot(vm)
        with pytest.raises((gpuvm.InvalidArgument, TypeError)):
            vm.bind(array, HANDLES)
        assert snapshot(vm) == before

    def test_other_types(self) -> None:
        good = bind_array([map_row(0, 8, A)])
        for array in (
            None,
            [map_row(0, 8, A)],
            good.tolist(),
            np.zeros(5, np.uint64),
            np.zeros(40, np.uint8),
        ):
            self.refused(array)

    def test_other_layouts(self) -> None:
        self.refused(np.zeros(1, dtype=gpuvm.BIND_OP))
        self.refused(np.zeros(1, dtype=[(name, "<u8") for name in gpuvm.VM_BIND_OP.names or ()]))
        self.refused(np.zeros(1, dtype=gpuvm.VM_BIND_OP.newbyteorder()))

    def test_other_shapes(self) -> None:
        good = bind_array([map_row(0, 8, A)] * 4)
        self.refused(good.reshape(2, 2))
        self.refused(good[0])
        self.refused(np.array(good[0]))

    def test_a_view_with_gaps_is_refused_or_read_right(self) -> None:
        rows = bind_array([map_row(8 * index, 8, A) for index in range(8)])
        vm = scene()
        try:
            vm.bind(rows[::-2], HANDLES)
        except (gpuvm.InvalidArgument, TypeError):
            assert mapped(vm) == []
        else:
            assert [shape.addr for shape in mapped(vm)] == [8, 24, 40, 56]

    def test_a_read_only_array_is_fine(self) -> None:
        rows = bind_array([map_row(0, 8, A)])
        rows.flags.writeable = False
        vm = scene()
        vm.bind(rows, HANDLES)
        assert len(vm) == 1

    def test_requests_are_not_written_to(self) -> None:
        rows = bind_array(GOOD)
        before = rows.tobytes()
        scene(kernel_node=(1000, 24)).bind(rows[:5], HANDLES)
        assert rows.tobytes() == before

    def test_objects_must_be_a_mapping(self) -> None:
        with pytest.raises((TypeError, gpuvm.GpuvmError)):
            scene().bind(bind_array([map_row(0, 8, A)]), None)  # type: ignore[arg-type]

    def test_objects_may_be_any_mapping(self) -> None:
        vm = scene()
        vm.bind(bind_array([map_row(0, 8, A)]), UserDict(HANDLES))
        assert mapped(vm) == [va(0, 8, A)]
        with pytest.raises(gpuvm.NotFound):
            vm.bind(bind_array([map_row(0, 8, 99)]), UserDict(HANDLES))

    def test_an_error_of_the_mapping_comes_through(self) -> None:
        class Broken(UserDict[int, object]):
            def __getitem__(self, key: int) -> object:
                raise RuntimeError("look-up failed")

        vm = scene(va(0, 8, A))
        before = snapshot(vm)
        with pytest.raises(RuntimeError, match="look-up failed"):
            vm.bind(bind_array([unmap_row(0, 8), map_row(0, 8, A)]), Broken({A: OBJECTS[A]}))
        assert snapshot(vm) == before


def test_unmap_ignores_the_object() -> None:
    vm = scene(va(0, 8, A))
    vm.bind(bind_array([(UNMAP, 0, 0, 0, 99, 8)]), {})
    assert mapped(vm) == []


def test_a_misaligned_array_is_bound_all_the_same() -> None:
    vm = scene()
    memory = bytearray(1 + 40)
    rows = np.frombuffer(memory, dtype=gpuvm.VM_BIND_OP, offset=1)
    rows["range"] = 8
    vm.bind(rows, {})
    assert mapped(vm) == [va(0, 8)]


def test_the_core_refuses_buffers_that_do_not_fit() -> None:
    vm = scene()
    words = np.zeros(2, dtype=np.uint64)
    with pytest.raises(ValueError, match="one length"):
        vm._find_many(words, words[:1].copy(), np.zeros(64, dtype=np.uint8))
    with pytest.raises(BufferError):
        vm._find_many(words[::-1], words, np.zeros(64, dtype=np.uint8))
    with pytest.raises(BufferError):
        vm._fill(np.frombuffer(bytes(32), dtype=np.uint8))


@pytest.mark.parametrize(
    ("values", "error"), [([0.5], TypeError), (["1"], TypeError), ([-1], gpuvm.InvalidArgument)]
)
def test_find_many_takes_addresses_only(values: list[Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        scene().find_many(values, [1])


def test_objects_may_be_any_mapping() -> None:
    from collections import defaultdict

    vm = scene()
    vm.bind(bind_array([map_row(0, 8, 5)]), defaultdict(lambda: "made"))
    (mapping,) = vm
    assert mapping.obj == "made"
