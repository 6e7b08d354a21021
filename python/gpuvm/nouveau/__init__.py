"""The nouveau driver: a device, its clients, their address spaces and channels.

The driver:

- ``device``, ``client``, ``gem``, ``open_file``: what is opened, and the calls
- ``channels``, ``channel``, ``ring``, ``exec_job``: EXEC, from the call to the engines
- ``vm_init``, ``bind_queue``, ``bind_job``, ``cleanup``: VM_INIT; VM_BIND, up to its cleanup
- ``submit``, ``sync``: what both wait for and signal
- ``chipset``, ``getparam``: what the device says of itself
- ``fault``, ``history``, ``fdinfo``, ``gpuvas``: what it tells of its clients
- ``uapi``: all of it as bytes
- ``engine``: what executes push buffers

The address space:

- ``vm``: ``Uvmm``, the address space
- ``bind``: what a bind call asks for, and its three stages
- ``entries``: references and entries, told to the page table
- ``uvma``: a mapping and its pages
- ``moving``: what becomes of mappings when their objects are moved
- ``contents``: whether the page table shows what is mapped

Locks, outermost first: the client's mutex; the VM's lock; reservations; the scheduler's. What fences wait
for, that is jobs and rings, takes none of the first three.
"""

from gpuvm.nouveau.bind import Bind, BindOp, OpCode, Stage
from gpuvm.nouveau.channel import Channel
from gpuvm.nouveau.client import Client
from gpuvm.nouveau.device import Device
from gpuvm.nouveau.engine.push_buffer import PushBuffer
from gpuvm.nouveau.fault import FaultReport
from gpuvm.nouveau.gem import GEM_DOMAIN_NO_SHARE
from gpuvm.nouveau.statistics import UvmmStatistics
from gpuvm.nouveau.sync import SYNC_SYNCOBJ, SYNC_TIMELINE, Sync
from gpuvm.nouveau.uapi.dialects import (
    CURRENT,
    SERIES,
    VM_BIND_OP_MAP,
    VM_BIND_OP_UNMAP,
    VM_BIND_SPARSE,
    Dialect,
)
from gpuvm.nouveau.uapi.requests import GemInfo, Push, VmBindOp
from gpuvm.nouveau.uvma import Uvma
from gpuvm.nouveau.vm import Uvmm

__all__ = [
    "CURRENT",
    "GEM_DOMAIN_NO_SHARE",
    "SERIES",
    "SYNC_SYNCOBJ",
    "SYNC_TIMELINE",
    "VM_BIND_OP_MAP",
    "VM_BIND_OP_UNMAP",
    "VM_BIND_SPARSE",
    "Bind",
    "BindOp",
    "Channel",
    "Client",
    "Device",
    "Dialect",
    "FaultReport",
    "GemInfo",
    "OpCode",
    "Push",
    "PushBuffer",
    "Stage",
    "Sync",
    "Uvma",
    "Uvmm",
    "UvmmStatistics",
    "VmBindOp",
]
