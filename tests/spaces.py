"""An address space that notes who of its objects is evicted."""

from __future__ import annotations

from gpuvm import GpuVm, GpuVmFlags, VmBo
from gpuvm.mem.aperture import Domain
from gpuvm.mem.gem import GemObject
from gpuvm.mem.placement import PAGE


class Space(GpuVm):
    """Notes who is evicted."""

    def __init__(self, flags: GpuVmFlags, r_obj: GemObject | None = None) -> None:
        super().__init__("vm", range=64 * PAGE, flags=flags, r_obj=r_obj)
        self.noted: list[tuple[GemObject, Domain]] = []

    def show(self, obj: GemObject, addr: int) -> None:
        with obj.resv, obj.gpuva_lock:
            vm_bo = self.bo_obtain(obj)
            self.bo_extobj_add(vm_bo)
            self.sm_map(addr, obj.size, obj).apply()
            vm_bo.put()

    def bo_evict(self, vm_bo: VmBo, evict: bool) -> None:
        super().bo_evict(vm_bo, evict)
        self.noted.append((vm_bo.obj, vm_bo.obj.domain))
