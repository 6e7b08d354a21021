"""The table a kernel prints in debugfs (``gpuvas``), so that the two can be diffed.

Format: drm_debugfs_gpuva_info() of drivers/gpu/drm/drm_debugfs.c. The kernel prints the object's pointer,
we the number it has in the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from gpuvm.trace.snapshot import Snapshot, object_number
from gpuvm.va import GpuvaManager

_COLUMNS = ("start", "range", "end", "object", "object offset")
_RULE = "-" * 109


def gpuvas_lines(vm: GpuvaManager, number_of: Callable[[object], int]) -> Iterator[str]:
    """The table line by line, mappings in address order, the kernel's node in the head only.

    Args:
        number_of: what to print as ``object``; 0 for a mapping without one.
    """
    yield f"DRM GPU VA space ({vm.name}) {_interval(vm.start, vm.end)}"
    node = vm.kernel_node
    yield f"Kernel reserved node {_interval(node.addr, node.end) if node else _interval(0, 0)}"
    yield ""
    yield " VAs | " + " | ".join(column.ljust(18) for column in _COLUMNS).rstrip()
    yield _RULE
    for va in vm.mappings():
        if not va.kernel:
            numbers = (va.addr, va.range, va.end, number_of(va.obj), va.offset)
            yield "     | " + " | ".join(f"0x{number:016x}" for number in numbers)


def _interval(start: int, end: int) -> str:
    return f"[0x{start:016x};0x{end:016x}]"


def space_document(space: Snapshot) -> dict[str, Any]:
    """The same as JSON values, with regions; mappings as ``[addr, range, object, offset]``."""
    vm = space.vm
    node = vm.kernel_node
    return {
        "file": space.name,
        "line": space.line,
        "client": space.client,
        "space": [vm.start, vm.range],
        "kernel_node": [node.addr, node.range] if node else None,
        "regions": [[one.addr, one.range, one.sparse] for one in vm.region_list()],
        "mappings": [
            [va.addr, va.range, object_number(va.obj), va.offset] for va in vm.mappings() if not va.kernel
        ],
    }
