"""What tests of GpuVm's protocol lock: objects with a reservation, spaces of both protections, binds."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest

from gpuvm import Exec, ExecFlags, GpuVm, GpuVmFlags, VmBo
from gpuvm.sync import lockdep
from gpuvm.sync.mutex import Mutex
from gpuvm.sync.resv import Resv

OWN_LOCKS = GpuVmFlags(0)
RESV_PROTECTED = GpuVmFlags.RESV_PROTECTED
IMMEDIATE_MODE = GpuVmFlags.IMMEDIATE_MODE

SIZE = 1 << 12
PAGE = 8

Hook = Callable[[VmBo, Exec], None]

both_protections = pytest.mark.parametrize("flags", [OWN_LOCKS, RESV_PROTECTED], ids=["own", "resv"])


class Bo:
    """A buffer object; without ``resv`` it has one of its own."""

    def __init__(self, name: str, resv: Resv | None = None) -> None:
        self.name = name
        self.resv = Resv(name) if resv is None else resv
        self.gpuva_lock = Mutex(f"{name} gpuva lock", lockdep.lock_class("gpuva_lock"))

    def __repr__(self) -> str:
        return self.name


class Userptr:
    """Mapped memory that nobody locks."""


def space(flags: GpuVmFlags = OWN_LOCKS, hook: Hook | None = None, **options: Any) -> GpuVm:
    return GpuVm("vm", range=SIZE, flags=flags, vm_bo_validate=hook, **options)


def external(*names: str) -> list[Bo]:
    return [Bo(name) for name in names]


def private(vm: GpuVm, *names: str) -> list[Bo]:
    return [Bo(name, vm.resv) for name in names]


def bind(vm: GpuVm, addr: int, obj: Any, range_: int = PAGE) -> VmBo:
    """Map it under all locks; the mapping has the only reference of the VmBo."""
    objects = [obj] if hasattr(obj, "resv") else []
    with vm.exec_lock_array(objects), getattr(obj, "gpuva_lock", None) or nullcontext():
        vm_bo = vm.bo_obtain(obj)
        vm.bo_extobj_add(vm_bo)
        vm.sm_map(addr, range_, obj).apply()
        vm_bo.put()
    return vm_bo


def bind_all(vm: GpuVm, *objects: Any) -> list[VmBo]:
    """Side by side from 0 on; None is a mapping without object."""
    vm_bos = []
    for index, obj in enumerate(objects):
        if obj is None:
            vm.sm_map(PAGE * index, PAGE).apply()
        else:
            vm_bos.append(bind(vm, PAGE * index, obj))
    return vm_bos


def evict(vm_bo: VmBo, evicted: bool = True) -> None:
    """As the object's mover does: with the object's reservation, and no other."""
    with vm_bo.obj.resv:
        vm_bo.vm.bo_evict(vm_bo, evicted)


def locked(
    prepare: Callable[[Exec], None], flags: ExecFlags = ExecFlags.IGNORE_DUPLICATES
) -> dict[Resv, int]:
    """What ``prepare`` locks, in order, and how many slots it reserves in each."""
    with Exec(flags) as exec:
        for attempt in exec.until_all_locked():
            with attempt:
                prepare(exec)
        return slots(exec)


def slots(exec: Exec) -> dict[Resv, int]:
    exec.check()
    return {obj.resv: obj.resv.statistics().reserved for obj in exec}
