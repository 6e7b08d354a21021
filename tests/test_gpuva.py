"""`Gpuva` objects: fields, identity, subclasses, and who keeps whom alive."""

from __future__ import annotations

import gc
import weakref

import pytest

import gpuvm
from gpuvm import Gpuva, GpuVm, Merge
from scenes import OBJECTS, A, mapped, scene, va


def test_fields() -> None:
    mine = Gpuva(16, 4, OBJECTS[A], 5, gpuvm.GpuvaFlags.SPARSE)
    assert (mine.addr, mine.range, mine.end, mine.obj, mine.offset) == (16, 4, 20, OBJECTS[A], 5)
    assert mine.sparse
    assert not mine.invalidated
    assert (mine.vm, mine.vm_bo, mine.kernel) == (None, None, False)
    assert "0x10" in repr(mine)


def test_flags_can_be_set() -> None:
    vm = scene(va(0, 8))
    (mine,) = vm
    mine.invalidated = True
    assert mine.flags == gpuvm.GpuvaFlags.INVALIDATED
    mine.flags = gpuvm.GpuvaFlags.SPARSE | 8
    assert (mine.invalidated, mine.sparse, int(mine.flags)) == (False, True, 10)
    assert mapped(vm) == [va(0, 8, flags=10)]


@pytest.mark.parametrize("name", ["addr", "range", "obj", "offset", "end", "vm", "vm_bo", "kernel", "sparse"])
def test_what_the_tree_depends_on_is_read_only(name: str) -> None:
    mine = Gpuva(0, 8)
    with pytest.raises(AttributeError):
        setattr(mine, name, 1)


@pytest.mark.parametrize("bad", [-1, 1 << 64])
@pytest.mark.parametrize("name", ["addr", "range", "offset"])
def test_numbers_beyond_64_bits_are_refused(name: str, bad: int) -> None:
    with pytest.raises(gpuvm.InvalidArgument):
        Gpuva(**{name: bad})


@pytest.mark.parametrize("bad", [-1, 1 << 28, 1 << 64])
def test_flags_have_28_bits(bad: int) -> None:
    with pytest.raises(gpuvm.InvalidArgument):
        Gpuva(0, 8, None, 0, bad)
    with pytest.raises(gpuvm.InvalidArgument):
        scene().sm_map(0, 8, None, 0, bad)


def test_identity_survives_while_in_the_tree() -> None:
    vm = scene()
    vm.sm_map(0, 8, OBJECTS[A]).apply()
    first = vm.find(0, 8)
    assert first is not None
    number, watch = id(first), weakref.ref(first)
    first.invalidated = True
    del first
    gc.collect()
    again = vm.find(0, 8)
    assert again is not None
    assert again.invalidated
    assert watch() is None or (watch() is again and id(again) == number)


def test_a_drivers_own_mapping_lives_as_long_as_it_is_mapped() -> None:
    class Mine(Gpuva):
        pages: int

    vm, mine = scene(), Mine(0, 8)
    mine.pages = 7
    watch = weakref.ref(mine)
    vm.insert(mine)
    del mine
    gc.collect()
    found = vm.find(0, 8)
    assert isinstance(found, Mine)
    assert found.pages == 7
    vm.remove(found)
    del found
    gc.collect()
    assert watch() is None


def test_the_tree_lets_go_of_objects() -> None:
    class Buffer:
        pass

    vm, buffer = scene(), Buffer()
    watch = weakref.ref(buffer)
    vm.sm_map(0, 8, buffer).apply()
    del buffer
    gc.collect()
    assert watch() is not None
    vm.sm_unmap(0, 8).apply()
    gc.collect()
    assert watch() is None


def test_a_space_in_a_cycle_is_collected() -> None:
    class Owner:
        vm: GpuVm

    owner = Owner()
    owner.vm = scene()
    owner.vm.sm_map(0, 8, owner).apply()
    watch = weakref.ref(owner)
    del owner
    gc.collect()
    assert watch() is None


def test_any_object_can_be_mapped_and_is_told_by_identity() -> None:
    one, twin = [1], [1]
    vm = scene(merge=Merge.ALWAYS)
    vm.sm_map(0, 8, one, 0).apply()
    vm.sm_map(8, 8, twin, 8).apply()
    assert [mapping.obj is one for mapping in vm] == [True, False]
