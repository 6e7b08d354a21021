"""VM_INIT: making a client's address space."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpuvm.errors import InvalidArgument, OutOfMemory
from gpuvm.mem.placement import PAGE
from gpuvm.nouveau.bind_queue import BindQueue
from gpuvm.nouveau.uapi.dialects import Dialect
from gpuvm.nouveau.vm import VA_BITS, Uvmm
from gpuvm.nouveau.watcher import BindWatch

if TYPE_CHECKING:
    from gpuvm.nouveau.client import Client


def kernel_node(addr: int, size: int, dialect: Dialect) -> tuple[int, int] | None:
    """What the space is to keep free for the kernel, if anything.

    Raises:
        InvalidArgument: not whole pages, or not below 2^47; or nothing, where the dialect wants something.
    """
    end, least = addr + size, 0 if dialect.empty_kernel_area else PAGE
    if (addr | size) % PAGE or addr < 0 or size < least or end > 1 << VA_BITS:
        raise InvalidArgument(
            f"VM_INIT: the kernel's area [{addr:#x}, {end:#x}); pass whole pages below {1 << VA_BITS:#x}"
            f"{', one at least' if least else ''}",
            (addr, size),
            1 << VA_BITS,
        )
    return (addr, size) if size else None


def make_space(client: Client, node: tuple[int, int] | None) -> BindQueue:
    """An address space over the client's page table, and what binds there.

    Raises:
        OutOfMemory: there are no threads for it, or as ``Uvmm``; nothing was made.

    Source: ``nouveau_uvmm_ioctl_vm_init``.
    """
    vm = Uvmm(
        client.name,
        device=client.device.mem,
        backend=client.page_table,
        kernel_node=node,
        regions=client.dialect.regions,
    )
    try:
        watcher = client.device.watcher
        watch = None if watcher is None else BindWatch(watcher, client)
        return BindQueue(vm, client.syncobjs, client.history, watch)
    except RuntimeError as error:
        vm.close()
        raise OutOfMemory(f"VM_INIT: {error}; close clients, or raise `ulimit -u`") from error
