"""An address space as JSON values: what the table of ``va.gpuvas`` says, and the regions."""

from __future__ import annotations

from typing import Any

from gpuvm.trace.snapshot import Snapshot, object_number


def space_document(space: Snapshot) -> dict[str, Any]:
    """Mappings as ``[addr, range, object, offset]``, regions as ``[addr, range, sparse]``; bytes."""
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
