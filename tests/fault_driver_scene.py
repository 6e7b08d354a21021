"""A device, a client and what it takes to have a channel execute something."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

import pushbuf
from gpuvm.nouveau.channel import Channel
from gpuvm.nouveau.client import Client
from gpuvm.nouveau.device import Device
from gpuvm.nouveau.fault import FaultReport
from gpuvm.nouveau.sync import Sync
from gpuvm.nouveau.uapi.requests import Push, VmBindOp
from gpuvm.sync.fence import Fence

MIB = 1 << 20
PUSHES = 0x10_0000_0000
"""Where each client's push buffers are."""
VRAM, GART, NO_SHARE = 2, 4, 0x20
PATIENCE = 60.0
"""Seconds after which a test gives up."""


class Driven:
    """One client and its first channel."""

    def __init__(self, device: Device, **options: Any) -> None:
        self.device = device
        self.client: Client = device.open(**options)
        self.client.vm_init(1 << 39, 1 << 39)
        self.pushes = self.new(MIB, GART)
        self.bind(VmBindOp(0, 0, self.pushes, PUSHES, 0, MIB))
        self.channel: Channel = self.client.channel_alloc()
        self._free = 0

    def new(self, size: int, domain: int = VRAM) -> int:
        return self.client.gem_new(size, domain).handle

    def bind(self, *ops: VmBindOp, **options: Any) -> None:
        self.client.vm_bind(ops, **options)

    def map(self, addr: int, size: int, domain: int = VRAM, offset: int = 0) -> int:
        """A new object of ``size`` there; its handle."""
        handle = self.new(size, domain)
        self.bind(VmBindOp(0, 0, handle, addr, offset, size))
        return handle

    def view(self, handle: int) -> Any:
        return self.client.view(handle)

    def push(self, words: pushbuf.Push) -> Push:
        """Where the words are now."""
        data = np.frombuffer(bytes(words), np.uint8)
        at = self._free
        self._free += -(-len(data) // 64) * 64
        self.view(self.pushes)[at : at + len(data)] = data
        return Push(PUSHES + at, len(data))

    def evict(self, handle: int) -> None:
        """As if others needed the memory; drivers do not choose that."""
        obj = self.client.handles.lookup(handle)
        with obj.resv:
            self.device.mem.evict(obj)

    def exec(self, words: pushbuf.Push, channel: Channel | None = None) -> Fence:
        """The fence of what was submitted."""
        return self.exec_at(self.push(words), channel)

    def exec_at(self, push: Push, channel: Channel | None = None, waits: tuple[Sync, ...] = ()) -> Fence:
        syncobj = self.client.syncobjs.create(0)
        used = self.channel if channel is None else channel
        self.client.exec(used.id, [push], waits, [Sync(0, syncobj)])
        fence = self.client.syncobjs.find_fence(syncobj, 0, 0)
        self.client.syncobjs.destroy(syncobj)
        return fence

    def run(self, words: pushbuf.Push, channel: Channel | None = None) -> int:
        """Execute it; the errno of its fence, 0 if all was well."""
        return ended(self.exec(words, channel))

    def copy(self, dst: int, src: int, size: int) -> int:
        return self.run(pushbuf.Push().copy(dst, src, size))

    @property
    def report(self) -> FaultReport:
        """The only one so far."""
        (report,) = self.device.faults
        return report


def ended(fence: Fence) -> int:
    """The errno of a fence, once it is signalled."""
    assert fence.wait(PATIENCE)
    return fence.error or 0


@contextmanager
def driven(vram: int = 64 * MIB, gart: int = 64 * MIB, **options: Any) -> Iterator[Driven]:
    with Device(vram=vram, gart=gart) as device:
        scene = Driven(device, **options)
        yield scene
        scene.client.close()
