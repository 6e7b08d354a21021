"""The client that is measured, with an address space, and how its calls are told as bytes."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable

from gpuvm.mem import Domain
from gpuvm.nouveau import SYNC_SYNCOBJ, VM_BIND_OP_MAP, Client, Device, Sync, VmBindOp
from gpuvm.nouveau.uapi.layout import Layout
from gpuvm.nouveau.uapi.numbers import Ioctl

KERNEL = (1 << 46, 1 << 46)
FOREVER = (1 << 63) - 1
HANDLE = Layout("__u32", "u32 handle")
"""What SYNCOBJ_WAIT takes an array of."""


class Program:
    """A device and its one client."""

    def __init__(self, vram: int) -> None:
        self.device = Device(vram=vram, gart=16 << 20, name="bench")
        self.client: Client = self.device.open()
        self.client.vm_init(*KERNEL)

    def new(self, addr: int, size: int, domain: Domain = Domain.VRAM) -> int:
        """The handle of an object that is mapped at `addr`."""
        handle = self.client.gem_new(size, domain).handle
        self.client.vm_bind([VmBindOp(VM_BIND_OP_MAP, 0, handle, addr, 0, size)])
        return handle

    def signal(self) -> tuple[int, list[Sync]]:
        """A sync object, and the list for a submission that signals it."""
        handle = self.client.syncobjs.create(0)
        return handle, [Sync(SYNC_SYNCOBJ, handle)]

    def close(self) -> None:
        self.client.close()
        self.device.close()


class Array:
    """Structures in the program's memory."""

    def __init__(self, layout: Layout, items: Iterable[tuple[int, ...]]) -> None:
        rows = list(items)
        self.count = len(rows)
        self._bytes = bytearray(max(layout.size * self.count, 1))
        for at, row in enumerate(rows):
            layout.pack_into(self._bytes, at * layout.size, *row)
        self._pinned = ctypes.c_char.from_buffer(self._bytes)
        self.addr = ctypes.addressof(self._pinned)


def ioctl(client: Client, call: Ioctl, *values: int) -> Callable[[], int]:
    """Makes the same call again and again, by the bytes of its structure."""
    assert call.layout is not None
    buffer, do, request = bytearray(call.size), client.ioctl, call.request
    call.layout.pack_into(buffer, 0, *values)
    return lambda: do(request, buffer)
