"""Every error a caller can cause: its class, its errno, and a message that names the value and the bound."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

import gpuvm
from arrays import bind_array, map_row, unmap_row
from gpuvm import Gpuva, GpuVm, Regions
from scenes import OBJECTS, A, B, plan_map, scene, va
from snapshot import snapshot

ERRNO = {
    gpuvm.InvalidArgument: errno.EINVAL,
    gpuvm.AlreadyMapped: errno.EEXIST,
    gpuvm.NotFound: errno.ENOENT,
    gpuvm.NoSpace: errno.ENOSPC,
    gpuvm.OutOfMemory: errno.ENOMEM,
    gpuvm.StalePlan: errno.ESTALE,
    gpuvm.Busy: errno.EBUSY,
    gpuvm.PermissionDenied: errno.EPERM,
    gpuvm.PageFault: errno.EFAULT,
}


@pytest.mark.parametrize("kind", ERRNO, ids=lambda kind: kind.__name__)
def test_each_class_has_its_errno(kind: type[gpuvm.GpuvmError]) -> None:
    error = kind("what was wrong", value=5, bound=4, request=3)
    assert isinstance(error, OSError)
    assert isinstance(error, gpuvm.GpuvmError)
    assert (error.errno, error.value, error.bound, error.request) == (ERRNO[kind], 5, 4, 3)
    assert "what was wrong" in str(error)
    assert errno.errorcode[ERRNO[kind]] in str(error)


def test_a_failed_check_is_no_ordinary_error() -> None:
    assert issubclass(gpuvm.CheckFailed, AssertionError)
    assert not issubclass(gpuvm.CheckFailed, gpuvm.GpuvmError)


START, END, NODE = 0x10000, 0x90000, (0x40000, 0x48000)
WORDS = {"start": "0x10000", "end": "0x90000", "node": "0x40000", "node end": "0x48000"}


@pytest.fixture
def vm() -> GpuVm:
    space = GpuVm(
        "errors",
        start=START,
        range=END - START,
        kernel_node=(NODE[0], NODE[1] - NODE[0]),
        regions=Regions.SPARSE,
    )
    space.region_insert(0x60000, 0x8000, sparse=True)
    space.insert(Gpuva(0x20000, 0x4000, OBJECTS[A]))
    return space


Call = Callable[[GpuVm, int, int], object]
RANGES: dict[str, Call] = {
    "sm_map": lambda vm, addr, size: vm.sm_map(addr, size, OBJECTS[B]),
    "sm_unmap": lambda vm, addr, size: vm.sm_unmap(addr, size),
    "madvise": lambda vm, addr, size: vm.madvise(addr, size),
    "insert": lambda vm, addr, size: vm.insert(Gpuva(addr, size)),
    "region_insert": lambda vm, addr, size: vm.region_insert(addr, size),
    "bind map": lambda vm, addr, size: vm.bind(bind_array([map_row(addr, size)]), {}),
    "bind unmap": lambda vm, addr, size: vm.bind(bind_array([unmap_row(addr, size)]), {}),
}
BAD_RANGES = {
    "empty": (0x30000, 0, ["0x30000"]),
    "below": (0xF000, 0x2000, ["0xf000", WORDS["start"]]),
    "far below": (0, 1, [WORDS["start"]]),
    "above": (0x8F000, 0x2000, ["0x8f000", WORDS["end"]]),
    "far above": (1 << 63, 0x1000, [hex(1 << 63), WORDS["end"]]),
    "all of it and more": (0, 0x100000, [WORDS["start"], WORDS["end"]]),
    "overflow": ((1 << 64) - 0x1000, 0x2000, [hex((1 << 64) - 0x1000)]),
    "overflow to the byte": ((1 << 64) - 1, 1, [hex((1 << 64) - 1)]),
    "kernel node": (0x3F000, 0x2000, ["0x3f000", WORDS["node"], WORDS["node end"]]),
    "inside the kernel node": (0x41000, 0x1000, ["0x41000", WORDS["node"], WORDS["node end"]]),
}


@pytest.mark.parametrize("bad", BAD_RANGES)
@pytest.mark.parametrize("call", RANGES)
def test_a_bad_range(vm: GpuVm, call: str, bad: str) -> None:
    addr, size, words = BAD_RANGES[bad]
    before = snapshot(vm)
    with pytest.raises(gpuvm.InvalidArgument) as caught:
        RANGES[call](vm, addr, size)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert caught.value.value is not None
    assert caught.value.bound is not None
    assert snapshot(vm) == before
    vm.check()


@pytest.mark.parametrize("number", [-1, -(1 << 70), 1 << 64, 1 << 100])
@pytest.mark.parametrize(
    "call", ["sm_map", "sm_unmap", "madvise", "insert", "region_insert", "find", "find_first", "prefetch"]
)
def test_numbers_beyond_64_bits(vm: GpuVm, call: str, number: int) -> None:
    calls = RANGES | {"find": GpuVm.find, "find_first": GpuVm.find_first, "prefetch": GpuVm.prefetch}
    for addr, size in ((number, 0x1000), (0x30000, number)):
        with pytest.raises(gpuvm.InvalidArgument) as caught:
            calls[call](vm, addr, size)
        assert str(number) in str(caught.value) or hex(number) in str(caught.value)


@pytest.mark.parametrize("number", [-1, 1 << 64])
def test_an_offset_beyond_64_bits(vm: GpuVm, number: int) -> None:
    with pytest.raises(gpuvm.InvalidArgument, match=f"{number}|{number:#x}"):
        vm.sm_map(0x30000, 0x1000, OBJECTS[A], number)


@pytest.mark.parametrize("thing", ["0x1000", 4096.0, None, object()])
def test_what_is_no_number_is_a_type_error(vm: GpuVm, thing: object) -> None:
    for call in (
        vm.sm_unmap,
        vm.find,
        vm.find_first,
        vm.prefetch,
        vm.madvise,
        vm.interval_empty,
        vm.range_valid,
    ):
        with pytest.raises(TypeError):
            call(thing, 0x1000)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            call(0x30000, thing)  # type: ignore[arg-type]


def test_overlap_names_both(vm: GpuVm) -> None:
    with pytest.raises(gpuvm.AlreadyMapped) as caught:
        vm.insert(Gpuva(0x23000, 0x2000))
    assert "0x23000" in str(caught.value)
    assert "0x20000" in str(caught.value) or "0x24000" in str(caught.value)


def test_a_region_in_the_way_is_named(vm: GpuVm) -> None:
    with pytest.raises(gpuvm.NoSpace, match="0x60000"):
        vm.sm_map(0x5F000, 0x2000)
    with pytest.raises(gpuvm.AlreadyMapped, match="0x60000"):
        vm.region_insert(0x67000, 0x2000)


def test_no_gap_names_what_was_asked_and_what_there_is(vm: GpuVm) -> None:
    with pytest.raises(gpuvm.NoSpace) as caught:
        vm.find_gap(0x50000)
    assert "0x50000" in str(caught.value)
    assert caught.value.value == 0x50000


def test_a_stale_plan_says_how_stale(vm: GpuVm) -> None:
    plan = plan_map(vm, va(0x30000, 0x31000, A))
    for addr in (0x34000, 0x38000):
        vm.insert(Gpuva(addr, 0x1000))
    with pytest.raises(gpuvm.StalePlan, match=str(vm.generation)):
        plan.apply()


def test_an_unknown_handle_is_named(vm: GpuVm) -> None:
    with pytest.raises(gpuvm.NotFound, match="4242") as caught:
        vm.bind(bind_array([unmap_row(0x20000, 0x1000), map_row(0x30000, 0x1000, 4242)]), {1: OBJECTS[A]})
    assert (caught.value.request, caught.value.errno) == (1, errno.ENOENT)


def test_a_mapping_of_another_space_is_not_removed(vm: GpuVm) -> None:
    other = scene(va(0, 8))
    with pytest.raises(gpuvm.GpuvmError):
        vm.remove(next(iter(other)))
    assert len(other) == 1


def test_options_of_the_wrong_kind() -> None:
    for options in ({"merge": 7}, {"regions": 9}):
        with pytest.raises((ValueError, TypeError, gpuvm.InvalidArgument)):
            scene(**options)
    with pytest.raises((ValueError, TypeError, gpuvm.InvalidArgument)):
        scene().find_gap(1, fit=17)  # type: ignore[arg-type]


def test_a_closed_space_refuses_everything() -> None:
    vm = scene()
    plan = plan_map(vm, va(0, 8, A))
    vm.put()
    for attempt in (
        lambda: vm.sm_map(0, 8),
        lambda: vm.insert(Gpuva(0, 8)),
        plan.apply,
        lambda: vm.bo_obtain(OBJECTS[A]),
    ):
        with pytest.raises(gpuvm.GpuvmError):
            attempt()
