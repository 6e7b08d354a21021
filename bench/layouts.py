"""The records of a bulk bind, as NumPy dtypes.

They repeat ``gpuvm.VM_BIND_OP``, ``BIND_OP`` and ``MAPPING`` so that the rivals can be tried without gpuvm;
the self-check refuses to go on when they differ from gpuvm's own.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Records: TypeAlias = NDArray[np.void]
U64s: TypeAlias = NDArray[np.uint64]

OP_MAP = 0
OP_UNMAP = 1

KIND_MAP = 0
KIND_REMAP = 1
KIND_UNMAP = 2

# A request's flags hold the PTE kind in their low byte; a mapping's flags hold it above two fixed bits.
PTE_KIND_MASK = 0xFF
PTE_KIND_SHIFT = 2

VM_BIND_OP: np.dtype[Any] = np.dtype(
    [
        ("op", "<u4"),
        ("flags", "<u4"),
        ("handle", "<u4"),
        ("pad", "<u4"),
        ("addr", "<u8"),
        ("bo_offset", "<u8"),
        ("range", "<u8"),
    ]
)

BIND_OP: np.dtype[Any] = np.dtype(
    [
        ("op", "u1"),
        ("keep", "u1"),
        ("pad", "<u2"),
        ("request", "<u4"),
        ("handle", "<u4"),
        ("flags", "<u4"),
        ("addr", "<u8"),
        ("bo_offset", "<u8"),
        ("range", "<u8"),
        ("prev_range", "<u8"),
        ("next_range", "<u8"),
    ]
)

MAPPING: np.dtype[Any] = np.dtype(
    [
        ("addr", "<u8"),
        ("range", "<u8"),
        ("bo_offset", "<u8"),
        ("handle", "<u4"),
        ("flags", "<u4"),
    ]
)
