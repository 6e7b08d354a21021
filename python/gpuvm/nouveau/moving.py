"""What becomes of mappings when their objects are moved, and how they come back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from gpuvm.exec import Exec, ExecFlags
from gpuvm.va import VmBo

if TYPE_CHECKING:
    from gpuvm.mem.gem import GemObject
    from gpuvm.nouveau.vm import Uvmm


def invalidate(vm: Uvmm, vm_bo: VmBo) -> None:
    """Clear the entries of an object's mappings, which keep their references. Cannot fail.

    Locking: the object's reservation. Source: ``nouveau_uvmm_bo_unmap_all``.
    """
    vm.entries.write(vm._invalidate(vm_bo))
    vm.flush()


def bring_in(vm: Uvmm, exec: Exec, objs: Iterable[GemObject]) -> None:
    """Bring back all of ``objs``, mapped or not. Meanwhile VmBos keep one from pushing out another.

    Mostly all are there, and only their use is noted. Locking: ``exec`` locked them, and its loop goes on.

    Raises:
        GpuvmError: as ``bring_back``; those before the one that failed are back.
    """
    objs = tuple(dict.fromkeys(objs))
    if not vm.has_evicted and vm.device.use_in_place(objs):
        return
    vm_bos: list[VmBo] = []
    try:
        for obj in objs:
            vm_bos.append(vm.bo_obtain(obj))
        for vm_bo in vm_bos:
            bring_back(vm, vm_bo, exec)
    finally:
        for vm_bo in vm_bos:
            vm.bo_put(vm_bo)


def bring_back(vm: Uvmm, vm_bo: VmBo, exec: Exec) -> None:
    """Find memory for an object, and map it again wherever it is invalidated.

    An object that may only lie out of the GPU's reach stays evicted, if it is. Waits for fences can be
    interrupted if those for locks can. Locking: as ``bring_in``.

    Raises:
        GpuvmError: as ``Device.validate``; or there is no memory for tables, or no kind of a mapping in pages
            that fit its new place. All mappings are as they were.

    Source: ``nouveau_uvmm_bo_validate``, ``nouveau_uvmm_bo_map_all``.
    """
    obj: GemObject = vm_bo.obj
    vm.device.validate(obj, exec=exec, interruptible=ExecFlags.INTERRUPTIBLE_WAIT in exec.flags)
    if not vm_bo.evicted or not obj.extents:
        return
    work = vm._bring_back(vm_bo, obj.extents)
    vm.entries.take(work)
    vm.entries.write(work)
    work.commit(vm)
    vm.entries.put(work)
    vm.bo_evict(vm_bo, False)
