"""What becomes of mappings when their objects are moved, and how they come back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from gpuvm.errors import GpuvmError
from gpuvm.exec import Exec
from gpuvm.mmu.pages import Pages, split_into_pages
from gpuvm.nouveau.slots import Slots, SlotSet
from gpuvm.nouveau.uvma import Uvma
from gpuvm.va import VmBo

if TYPE_CHECKING:
    from gpuvm.mem.gem import GemObject
    from gpuvm.nouveau.vm import Uvmm


def invalidate(vm: Uvmm, vm_bo: VmBo) -> None:
    """Clear the entries of an object's mappings, which keep their references. Cannot fail.

    Locking: the object's reservation. Source: ``nouveau_uvmm_bo_unmap_all``.
    """
    for va in vm_bo:
        assert isinstance(va, Uvma)
        if not va.invalidated:
            va.invalidated = True
            for slots in SlotSet(va.pages):
                vm.backend.unmap(*slots)


def bring_in(vm: Uvmm, exec: Exec, objs: Iterable[GemObject]) -> None:
    """Bring back all of ``objs``, mapped or not. Meanwhile VmBos keep one from pushing out another.

    Locking: ``exec`` locked them, and its loop goes on.

    Raises:
        GpuvmError: as ``bring_back``; those before the one that failed are back.
    """
    vm_bos: list[VmBo] = []
    try:
        for obj in dict.fromkeys(objs):
            vm_bos.append(vm.bo_obtain(obj))
        for vm_bo in vm_bos:
            bring_back(vm, vm_bo, exec)
    finally:
        for vm_bo in vm_bos:
            vm.bo_put(vm_bo)


def bring_back(vm: Uvmm, vm_bo: VmBo, exec: Exec) -> None:
    """Find memory for an object, and map it again wherever it is invalidated.

    An object that may only lie out of the GPU's reach stays evicted, if it is. Locking: as ``bring_in``.

    Raises:
        GpuvmError: as ``Device.validate``; or there is no memory for tables, or no kind of a mapping in pages
            that fit its new place. All mappings are as they were.

    Source: ``nouveau_uvmm_bo_validate``, ``nouveau_uvmm_bo_map_all``.
    """
    obj: GemObject = vm_bo.obj
    vm.device.validate(obj, exec=exec)
    if not vm_bo.evicted or not obj.extents:
        return
    fresh: list[tuple[Uvma, list[Pages]]] = []
    for va in vm_bo:
        assert isinstance(va, Uvma)
        if va.invalidated:
            pages = split_into_pages(vm.backend.pages, va.addr, va.range, obj.extents, va.offset)
            for run in pages:
                vm.require_kind(run.shift, run.target, va.kind)
            fresh.append((va, pages))
    _get(vm, [slots for va, pages in fresh for slots in SlotSet(pages) - SlotSet(va.pages)])
    for va, pages in fresh:
        for run in pages:
            vm.write_pages(*run, va.kind)
        old, va.pages = va.pages, pages
        va.invalidated = False
        for slots in SlotSet(old) - SlotSet(pages):
            vm.backend.put(*slots)
    vm.bo_evict(vm_bo, False)


def _get(vm: Uvmm, wanted: Iterable[Slots]) -> None:
    """All references or none."""
    got: list[Slots] = []
    try:
        for slots in wanted:
            vm.backend.get(*slots)
            got.append(slots)
    except GpuvmError:
        for slots in got:
            vm.backend.put(*slots)
        raise
