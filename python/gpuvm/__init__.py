"""Linux's GPU virtual-memory stack in user space.

General layout, each floor importing only those below it:

- ``_core`` (Rust), ``errors``: range tree, split and merge, bulk binds; errors with errno
- ``va``: the address-space manager (the kernel's drm_gpuvm)
- ``trace``: recorded streams of a driver's calls, and their replay
- ``report``: what people look at: tables, pictures, explanations
- ``cli``: one thin file a verb

Everything public is here.
"""

from typing import TYPE_CHECKING

from gpuvm.errors import (
    AlreadyMapped,
    Busy,
    CheckFailed,
    GpuvmError,
    InvalidArgument,
    NoSpace,
    NotFound,
    OutOfMemory,
    StalePlan,
)
from gpuvm.va import (
    Driver,
    Fit,
    Gpuva,
    GpuvaFlags,
    GpuVm,
    GpuVmFlags,
    Map,
    Merge,
    Op,
    Plan,
    Prefetch,
    Region,
    Regions,
    Remap,
    Statistics,
    Unmap,
    VmBo,
)

if TYPE_CHECKING:
    from gpuvm.va.arrays import BIND_OP, MAPPING, VM_BIND_OP

__all__ = [
    "BIND_OP",
    "MAPPING",
    "VM_BIND_OP",
    "AlreadyMapped",
    "Busy",
    "CheckFailed",
    "Driver",
    "Fit",
    "GpuVm",
    "GpuVmFlags",
    "Gpuva",
    "GpuvaFlags",
    "GpuvmError",
    "InvalidArgument",
    "Map",
    "Merge",
    "NoSpace",
    "NotFound",
    "Op",
    "OutOfMemory",
    "Plan",
    "Prefetch",
    "Region",
    "Regions",
    "Remap",
    "StalePlan",
    "Statistics",
    "Unmap",
    "VmBo",
]


def __getattr__(name: str) -> object:
    """The array layouts, which need NumPy: its import takes longer than that of all the rest."""
    if name in ("BIND_OP", "MAPPING", "VM_BIND_OP"):
        from gpuvm.va import arrays

        layout: object = getattr(arrays, name)
        globals()[name] = layout
        return layout
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
