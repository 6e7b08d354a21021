"""Bulk calls of ``GpuvaManager``, over NumPy arrays; documented there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gpuvm.errors import InvalidArgument
from gpuvm.va.arrays import BIND_OP, MAPPING, VM_BIND_OP

if TYPE_CHECKING:
    from gpuvm.va.space import GpuvaManager

BYTES = np.dtype(np.uint8)
"""How arrays cross into the core: NumPy describes a structured buffer anew each time, which takes long."""

WANTED = "pass a one-dimensional array with dtype=gpuvm.VM_BIND_OP"


def bind(vm: GpuvaManager, requests: object, objects: Mapping[int, object]) -> npt.NDArray[np.void]:
    """Apply an array of requests, all or none."""
    if not isinstance(requests, np.ndarray):
        raise TypeError(f"bind: requests is a {type(requests).__name__}; {WANTED}")
    if requests.dtype != VM_BIND_OP or requests.ndim != 1:
        raise TypeError(f"bind: requests is of {requests.dtype} and shape {requests.shape}; {WANTED}")
    # A subclass may do anything in `view`, a plain array does not.
    rows = np.ascontiguousarray(np.asarray(requests)).view(BYTES)
    return np.frombuffer(memoryview(vm._bind(rows, objects)), dtype=BIND_OP)


def find_many(vm: GpuvaManager, addrs: npt.ArrayLike, ranges: npt.ArrayLike) -> npt.NDArray[np.void]:
    """Exact lookups."""
    wanted = _words("addrs", addrs), _words("ranges", ranges)
    if wanted[0].shape != wanted[1].shape or wanted[0].ndim != 1:
        shapes = f"addrs has shape {wanted[0].shape}, ranges {wanted[1].shape}"
        raise ValueError(f"find_many: {shapes}; pass two rows of equal length")
    found = np.empty(len(wanted[0]), dtype=MAPPING)
    vm._find_many(wanted[0], wanted[1], found.view(BYTES))
    return found


def _words(name: str, values: npt.ArrayLike) -> npt.NDArray[np.uint64]:
    """An array of addresses or lengths; what ``find`` would refuse is refused here too."""
    array = np.asarray(values)
    if array.size and array.dtype.kind not in "iu":
        raise TypeError(f"find_many: {name} is of {array.dtype}; pass integers")
    if array.dtype.kind == "i" and array.size and array.min() < 0:
        raise InvalidArgument(
            f"find_many: {name} has {array.min()}, but addresses and lengths are 0 <= n < 2**64",
            value=int(array.min()),
            bound=0,
        )
    return np.require(array, np.uint64, ("C", "A"))


def to_array(vm: GpuvaManager) -> npt.NDArray[np.void]:
    """Every mapping in address order."""
    mappings = np.empty(0, dtype=MAPPING)
    while (count := vm._fill(mappings.view(BYTES))) != len(mappings):
        mappings = np.empty(count, dtype=MAPPING)
    return mappings
