"""Drivers for `Plan.step`: mappings of their own, allocated before the plan is carried out."""

from __future__ import annotations

import gpuvm
from gpuvm import Gpuva, GpuvaManager
from shapes import Op

WORST_CASE = 4
"""New mappings of one plan: two pieces (of one remap or of two) and a map, or with madvise two maps."""


class DriverVa(Gpuva):
    """A mapping with room for a driver's own data."""

    serial: int = -1
    pte_kind: str = ""


class Driver:
    """Carries ops out with preallocated mappings; linking is part of carrying out."""

    def __init__(self, vm: GpuvaManager) -> None:
        self.vm = vm
        self.free = [DriverVa() for _ in range(WORST_CASE)]
        self.used: list[DriverVa] = []
        self.seen: list[Op] = []

    def sm_step_map(self, op: gpuvm.Map) -> None:
        self.seen.append(op)
        self.vm.map(op, self.take())

    def sm_step_remap(self, op: gpuvm.Remap) -> None:
        self.seen.append(op)
        self.vm.remap(op, op.prev and self.take(), op.next and self.take())

    def sm_step_unmap(self, op: gpuvm.Unmap) -> None:
        self.seen.append(op)
        self.vm.unmap(op)

    def take(self) -> DriverVa:
        va = self.free.pop()
        va.serial = len(self.used)
        self.used.append(va)
        return va
