"""Linux's GPU virtual-memory stack in user space.

General layout, each floor importing only those below it:

- ``_core`` (Rust), ``errors``: range tree, split and merge, bulk binds; errors with errno
- ``va``: the address-space manager (the kernel's drm_gpuva_manager)
- ``sync``: fences, sync objects, reservations, the lock validator
- ``sched``: the job scheduler
- ``exec``: locking many objects; ``GpuVm``, the manager with its protocol of locking (drm_exec, drm_gpuvm)
- ``trace``: recorded streams of a driver's calls, and their replay
- ``report``: what people look at: tables, pictures, explanations
- ``testing``: a controlled scheduler of threads, a mock GPU; for tests, of gpuvm and of what is built on it
- ``cli``: one thin file a verb

Everything public is here, but ``gpuvm.testing`` and the validator's switch, ``gpuvm.sync.lockdep``.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from gpuvm.errors import (
    AlreadyLocked,
    AlreadyMapped,
    BadAddress,
    BadFile,
    Busy,
    CheckFailed,
    Contended,
    FileTableFull,
    Gone,
    GpuvmError,
    Interrupted,
    InvalidArgument,
    LockdepError,
    NoDevice,
    NoSpace,
    NotFound,
    NotSupported,
    OutOfMemory,
    PageFault,
    PermissionDenied,
    StalePlan,
    TimedOut,
    TooMany,
    TooManyFiles,
    Unavailable,
    UnknownCall,
)
from gpuvm.va import (
    Driver,
    Fit,
    Gpuva,
    GpuvaFlags,
    GpuvaManager,
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
    from gpuvm.exec import Exec, ExecFlags, GpuVm, Lockable
    from gpuvm.sched import Entity, Job, Policy, Priority, Scheduler, SchedulerBackend, TimeoutStatus
    from gpuvm.sync import (
        AcquireContext,
        Fence,
        FenceArray,
        FenceChain,
        Mutex,
        Resv,
        SyncObj,
        SyncObjTable,
        Usage,
        WwClass,
        WwMutex,
        fence_context_alloc,
        find_seqno,
        merge,
        reservation_ww_class,
        stub_fence,
        unwrap,
    )
    from gpuvm.va.arrays import BIND_OP, MAPPING, VM_BIND_OP

__all__ = [
    "BIND_OP",
    "MAPPING",
    "VM_BIND_OP",
    "AcquireContext",
    "AlreadyLocked",
    "AlreadyMapped",
    "BadAddress",
    "BadFile",
    "Busy",
    "CheckFailed",
    "Contended",
    "Driver",
    "Entity",
    "Exec",
    "ExecFlags",
    "Fence",
    "FenceArray",
    "FenceChain",
    "FileTableFull",
    "Fit",
    "Gone",
    "GpuVm",
    "GpuVmFlags",
    "Gpuva",
    "GpuvaFlags",
    "GpuvaManager",
    "GpuvmError",
    "Interrupted",
    "InvalidArgument",
    "Job",
    "Lockable",
    "LockdepError",
    "Map",
    "Merge",
    "Mutex",
    "NoDevice",
    "NoSpace",
    "NotFound",
    "NotSupported",
    "Op",
    "OutOfMemory",
    "PageFault",
    "PermissionDenied",
    "Plan",
    "Policy",
    "Prefetch",
    "Priority",
    "Region",
    "Regions",
    "Remap",
    "Resv",
    "Scheduler",
    "SchedulerBackend",
    "StalePlan",
    "Statistics",
    "SyncObj",
    "SyncObjTable",
    "TimedOut",
    "TimeoutStatus",
    "TooMany",
    "TooManyFiles",
    "Unavailable",
    "UnknownCall",
    "Unmap",
    "Usage",
    "VmBo",
    "WwClass",
    "WwMutex",
    "fence_context_alloc",
    "find_seqno",
    "merge",
    "reservation_ww_class",
    "stub_fence",
    "unwrap",
]


_LATER = {
    "gpuvm.exec": ("Exec", "ExecFlags", "GpuVm", "Lockable"),
    "gpuvm.sched": ("Entity", "Job", "Policy", "Priority", "Scheduler", "SchedulerBackend", "TimeoutStatus"),
    "gpuvm.va.arrays": ("BIND_OP", "MAPPING", "VM_BIND_OP"),
}
"""What is imported when it is asked for: NumPy, threads and locks would keep the tools waiting.

Whatever is not listed comes from ``gpuvm.sync``.
"""


def __getattr__(name: str) -> object:
    """Import what is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = next((module for module, names in _LATER.items() if name in names), "gpuvm.sync")
    found: object = getattr(import_module(module), name)
    globals()[name] = found
    return found
