"""The table that a kernel prints of an address space in debugfs (``gpuvas``), so that both can be diffed.

Source: ``drm_debugfs_gpuva_info``. The kernel prints the object's pointer, we a number of the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from gpuvm.va.space import GpuvaManager

_COLUMNS = ("start", "range", "end", "object", "object offset")
_RULE = "-" * 109


def gpuvas_lines(vm: GpuvaManager, number_of: Callable[[object], int]) -> Iterator[str]:
    """The table line by line, mappings in address order, the kernel's node in the head only.

    Locking: the VM's lock, or the table may show some mappings of before a change and some of after.

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
