"""Short ways to set a scene and to write down what is expected, as the tables of the reference do.

`va(0, 4, A, 2)` is `[0,4)` of object A from offset 2 on; `B` is another object, 0 is none.
"""

from __future__ import annotations

from typing import Any

from gpuvm import Gpuva, GpuVm, Merge, Plan, Regions
from shapes import MapShape, Objects, OpShape, RemapShape, UnmapShape, Va, op_shapes, space_shape

OBJECTS = Objects(6)
A, B, C = 1, 2, 3
SIZE = 1 << 20


def va(start: int, end: int, bo: int = 0, offset: int = 0, flags: int = 0) -> Va:
    return Va(start, end - start, bo, offset, flags)


def scene(*vas: Va, **options: Any) -> GpuVm:
    """A space that holds exactly these mappings, not linked to anything."""
    if options.get("merge") is Merge.WITHIN_REGION:
        options = {"regions": Regions.SPARSE} | options
    vm = GpuVm("scene", **{"range": SIZE} | options)
    for shape in vas:
        vm.insert(gpuva(shape))
    return vm


def gpuva(shape: Va) -> Gpuva:
    return Gpuva(shape.addr, shape.range, OBJECTS[shape.bo], shape.offset, shape.flags)


def plan_map(vm: GpuVm, shape: Va) -> Plan:
    return vm.sm_map(shape.addr, shape.range, OBJECTS[shape.bo], shape.offset, shape.flags)


def apply_map(vm: GpuVm, shape: Va) -> None:
    plan_map(vm, shape).apply()


def ops_of(plan: Plan) -> list[OpShape]:
    return op_shapes(plan, OBJECTS.label)


def mapped(vm: GpuVm) -> list[Va]:
    return space_shape(vm, OBJECTS.label)


def unmap(shape: Va, keep: bool = False) -> OpShape:
    return UnmapShape(shape, keep)


def kept(shape: Va) -> OpShape:
    return UnmapShape(shape, keep=True)


def remap(whole: Va, prev: Va | None = None, behind: Va | None = None, keep: bool = False) -> OpShape:
    return RemapShape(whole, prev, behind, keep)


def new(shape: Va) -> OpShape:
    return MapShape(shape)
