"""Bulk arrays to shapes and back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

import gpuvm
from shapes import MapShape, OpShape, RemapShape, UnmapShape, Va

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAP, UNMAP = 0, 1
SPARSE = 0x100
KIND_UNIT = int(gpuvm.GpuvaFlags.USERBITS)
"""A kind in the request's low flag bits is kept in the mapping's flags, from the first driver bit on."""

Array: TypeAlias = "NDArray[np.void]"
Row: TypeAlias = tuple[int, int, int, int, int, int]


def map_row(addr: int, size: int, handle: int = 0, offset: int = 0, flags: int = 0) -> Row:
    return (MAP, flags, handle, addr, offset, size)


def unmap_row(addr: int, size: int, flags: int = 0) -> Row:
    return (UNMAP, flags, 0, addr, 0, size)


def bind_array(rows: Iterable[Row]) -> Array:
    """Rows of (op, flags, handle, addr, bo_offset, range) as an array of the uAPI's structs."""
    full = [(op, flags, handle, 0, addr, offset, size) for op, flags, handle, addr, offset, size in rows]
    return np.array(full, dtype=gpuvm.VM_BIND_OP)


def emitted(ops: Array) -> list[OpShape]:
    """The ops of a bulk bind, in the shapes that single plans have."""
    return [_shape(row) for row in ops]


def _shape(row: Any) -> OpShape:
    fields = ("addr", "range", "handle", "bo_offset", "flags")
    addr, size, bo, offset, flags = (int(row[name]) for name in fields)
    whole = Va(addr, size, bo, offset, flags)
    match int(row["op"]):
        case 0:
            return MapShape(whole)
        case 1:
            prev, behind = int(row["prev_range"]), int(row["next_range"])
            cut = size - behind
            return RemapShape(
                whole,
                Va(addr, prev, bo, offset, flags) if prev else None,
                Va(addr + cut, behind, bo, (offset + cut) % (1 << 64), flags) if behind else None,
                bool(row["keep"]),
            )
        case 2:
            return UnmapShape(whole, bool(row["keep"]))
        case other:
            raise AssertionError(f"op {other} cannot come out of a bind")


def array_shape(mappings: Array) -> list[Va]:
    fields = ("addr", "range", "handle", "bo_offset", "flags")
    return [Va(*(int(row[name]) for name in fields)) for row in mappings]
