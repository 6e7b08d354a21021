"""The life of a `GpuVm`: references, closing, the context manager."""

from __future__ import annotations

import errno

import pytest

import gpuvm
from gpuvm import GpuVm
from scenes import OBJECTS, SIZE, A, mapped, scene, va


def test_counting() -> None:
    vm = scene()
    assert vm.refcount == 1
    assert vm.get() is vm
    assert vm.refcount == 2
    assert vm.put() is False
    assert vm.put() is True


def test_mappings_and_vm_bos_hold_references() -> None:
    vm = scene(va(0, 8), va(8, 16, A))
    assert vm.refcount == 3
    vm_bo = vm.bo_obtain(OBJECTS[A])
    assert vm.refcount == 4
    vm.sm_unmap(0, 16).apply()
    assert vm.refcount == 2
    with pytest.raises(gpuvm.Busy, match="VmBo"):
        vm.put()
    vm_bo.put()
    assert vm.refcount == 1
    assert vm.put() is True


def test_a_dead_space_cannot_be_put_again() -> None:
    vm = scene()
    vm.put()
    with pytest.raises(gpuvm.GpuvmError):
        vm.put()
    with pytest.raises(gpuvm.GpuvmError):
        vm.get()


def test_closing_a_space_that_holds_mappings_lists_them() -> None:
    vm = scene(va(0x1000, 0x3000, A), va(0x8000, 0x9000))
    with pytest.raises(gpuvm.Busy, match=r"0x1000[\s\S]*0x8000") as caught:
        vm.put()
    assert caught.value.errno == errno.EBUSY
    assert vm.refcount == 3
    assert mapped(vm) == [va(0x1000, 0x3000, A), va(0x8000, 0x9000)]
    vm.sm_unmap(0, SIZE).apply()
    assert vm.put() is True


def test_only_the_last_reference_cares() -> None:
    vm = scene(va(0, 8))
    vm.get()
    assert vm.put() is False


def test_the_kernel_node_does_not_keep_it_open() -> None:
    assert GpuVm("closed", range=100, kernel_node=(0, 10)).put() is True


def test_context_manager() -> None:
    with scene() as vm:
        assert vm.refcount == 1
    with pytest.raises(gpuvm.GpuvmError):
        vm.put()


def test_leaving_a_context_with_mappings_is_an_error() -> None:
    with pytest.raises(gpuvm.Busy), scene(va(0, 8)):
        pass


def test_an_error_inside_is_not_hidden() -> None:
    with pytest.raises(KeyError), scene(va(0, 8)):
        raise KeyError("the caller's own")
