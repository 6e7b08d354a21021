"""Fences, sync objects, locks: what happens when, and who waits for it.

- ``fence``, ``container``: fences, arrays, chains
- ``syncobj``, ``syncobj_wait``, ``syncobj_table``: sync objects, waiting for several, serving them by handle
- ``sync_file``, ``eventfd``, ``descriptor``: fences and sync objects as file descriptors
- ``mutex``, ``ww_mutex``, ``ww_acquire``, ``resv``: locks, locks taken many at a time, reservations
- ``lockdep``, ``lock_order``, ``lock_report``: the validator of locks
- ``unraisable``: what callbacks raise
- ``task``: how a thread sleeps, is woken and tells the time
"""

from gpuvm.sync.container import FenceArray, FenceChain, find_seqno, merge, unwrap
from gpuvm.sync.fence import Fence, fence_context_alloc, stub_fence
from gpuvm.sync.mutex import Mutex
from gpuvm.sync.resv import Resv, Usage
from gpuvm.sync.syncobj import SyncObj
from gpuvm.sync.syncobj_table import SyncObjTable
from gpuvm.sync.ww_acquire import AcquireContext, WwClass, reservation_ww_class
from gpuvm.sync.ww_mutex import WwMutex

__all__ = [
    "AcquireContext",
    "Fence",
    "FenceArray",
    "FenceChain",
    "Mutex",
    "Resv",
    "SyncObj",
    "SyncObjTable",
    "Usage",
    "WwClass",
    "WwMutex",
    "fence_context_alloc",
    "find_seqno",
    "merge",
    "reservation_ww_class",
    "stub_fence",
    "unwrap",
]
