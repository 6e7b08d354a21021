"""Drivers for `Plan.step`: mappings of their own, allocated before the plan is carried out."""

from __future__ import annotations

import gpuvm
from gpuvm import Gpuva, GpuVm
from shapes import Op

WORST_CASE = 4
"""New mappings of one plan: two pieces (of one remap or of two) and a map, or with madvise two maps."""


class DriverVa(Gpuva):
    """A mapping with room for a driver's own data."""

    serial: int = -1
    pte_kind: str = ""


class Driver:
    """Carries ops out with preallocated mappings, links the new before it unlinks the old."""

    def __init__(self, vm: GpuVm, link: bool = True) -> None:
        self.vm = vm
        self.link = link
        self.free = [DriverVa() for _ in range(WORST_CASE)]
        self.used: list[DriverVa] = []
        self.seen: list[Op] = []

    def sm_step_map(self, op: gpuvm.Map) -> None:
        self.seen.append(op)
        va = self._take()
        self.vm.map(op, va)
        self._link(va)

    def sm_step_remap(self, op: gpuvm.Remap) -> None:
        self.seen.append(op)
        prev = None if op.prev is None else self._take()
        following = None if op.next is None else self._take()
        self.vm.remap(op, prev, following)
        for piece in (prev, following):
            if piece is not None:
                self._link(piece)
        op.unmap.va.unlink()

    def sm_step_unmap(self, op: gpuvm.Unmap) -> None:
        self.seen.append(op)
        self.vm.unmap(op)
        op.va.unlink()

    def _take(self) -> DriverVa:
        va = self.free.pop()
        va.serial = len(self.used)
        self.used.append(va)
        return va

    def _link(self, va: DriverVa) -> None:
        if self.link and va.obj is not None:
            vm_bo = self.vm.bo_obtain(va.obj)
            va.link(vm_bo)
            vm_bo.put()
