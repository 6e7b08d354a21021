"""Everything that can be seen of a space, as one value: equal before and after what must have no effect."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from gpuvm import GpuVm

STORAGE = {"bytes", "tree_height", "tree_leaves", "tree_fill"}
"""How the core stores it may differ (room reserved for a request that was then refused)."""


def snapshot(vm: GpuVm) -> dict[str, Any]:
    return {
        "mappings": [
            (va.addr, va.range, id(va.obj), va.offset, int(va.flags), va.kernel, va.vm is vm, id(va.vm_bo))
            for va in vm
        ],
        "vm_bos": [
            (id(bo), id(bo.obj), bo.refcount, bo.evicted, bo.alive, [(va.addr, va.range) for va in bo])
            for bo in vm.vm_bos()
        ],
        "extobjs": [id(bo.obj) for bo in vm.extobjs],
        "evicted": [id(bo.obj) for bo in vm.evicted],
        "deferred": [id(bo.obj) for bo in vm.deferred],
        "regions": vm.region_list(),
        "generation": vm.generation,
        "refcount": vm.refcount,
        "bulk": vm.to_array().tolist(),
        "statistics": {name: value for name, value in asdict(vm.statistics()).items() if name not in STORAGE},
    }
