"""Programs of the driver: a client, what it has mapped, channels, and what the GPU sees at its addresses."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

import pushbuf
from gpuvm.nouveau.channel import Channel
from gpuvm.nouveau.client import Client
from gpuvm.nouveau.device import Device
from gpuvm.nouveau.sync import Sync
from gpuvm.nouveau.uapi.dialects import CURRENT, Dialect
from gpuvm.nouveau.uapi.requests import Push, VmBindOp
from gpuvm.sync.fence import Fence, fence_context_alloc
from gpuvm.sync.syncobj import SyncObj
from page_table_reader import walk
from uvmm_world import state as state_of_space

PAGE = 0x1000
BIG = 0x10000
HUGE = 0x200000
MIB = 1 << 20

CPU, VRAM, GART, NO_SHARE = 1, 2, 4, 0x20
MAP, UNMAP = 0, 1
SPARSE = 1 << 8
BINARY, TIMELINE = 0, 1

KERNEL = (1 << 39, 1 << 39)
"""What VM_INIT leaves to the kernel: address and size."""
SCRATCH = 1 << 41
"""Where a program has its push buffers, and what copies for looking lead to."""
SCRATCH_SIZE = 256 << 10
PATIENCE = 60.0
"""Seconds after which a test gives up."""
NEVER = (1 << 63) - 1


def map_op(addr: int, range_: int, handle: int, offset: int = 0, kind: int = 0) -> VmBindOp:
    return VmBindOp(MAP, kind, handle, addr, offset, range_)


def unmap_op(addr: int, range_: int) -> VmBindOp:
    return VmBindOp(UNMAP, 0, 0, addr, 0, range_)


def sparse_op(addr: int, range_: int) -> VmBindOp:
    return VmBindOp(MAP, SPARSE, 0, addr, 0, range_)


def drop_op(addr: int, range_: int) -> VmBindOp:
    return VmBindOp(UNMAP, SPARSE, 0, addr, 0, range_)


@dataclass(frozen=True)
class Bo:
    """An object of a program; the first 8 bytes of each page say which it is."""

    handle: int
    size: int
    tag: int

    def tag_at(self, offset: int) -> int:
        return self.tag + offset // PAGE


class Program:
    """One client with an address space, a scratch area and a channel."""

    tags = 0

    def __init__(self, device: Device, *, channel: bool = True, **options: Any) -> None:
        self.device = device
        self.client: Client = device.open(**options)
        self.client.vm_init(*KERNEL)
        self.scratch = self.client.gem_new(SCRATCH_SIZE, GART | NO_SHARE).handle
        self.client.vm_bind([map_op(SCRATCH, SCRATCH_SIZE, self.scratch)])
        self.used = 0
        if channel:
            self.channel: Channel = self.client.channel_alloc()

    # -- objects

    def bo(self, size: int = BIG, domain: int = VRAM) -> Bo:
        """A new one, with its tags."""
        handle = self.client.gem_new(size, domain).handle
        Program.tags += 1
        bo = Bo(handle, size, Program.tags << 32)
        self.words(bo)[:, 0] = np.arange(size // PAGE, dtype=np.uint64) + np.uint64(bo.tag)
        return bo

    def words(self, bo: Bo) -> Any:
        """Its words of 8 bytes, a row for each page. Not to be kept."""
        return self.client.view(bo.handle).view(np.uint64).reshape(-1, PAGE // 8)

    def evict(self, *bos: Bo) -> None:
        """As memory pressure does: to the next place, and from there on."""
        for bo in bos:
            obj = self.client.handles.lookup(bo.handle)
            with obj.resv:
                self.device.mem.evict(obj)

    # -- binding

    def bind(self, *ops: VmBindOp, **options: Any) -> None:
        self.client.vm_bind(ops, **options)

    def bind_behind(self, held: Held, *ops: VmBindOp) -> Fence:
        """Asynchronous, and waiting; the fence of the job."""
        return self.bind_async(*ops, waits=[held.sync])

    def bind_async(self, *ops: VmBindOp, waits: Sequence[Sync] = ()) -> Fence:
        with self.out() as (sync, done):
            self.client.vm_bind(ops, waits, [sync], run_async=True)
        return done[0]

    # -- sync objects

    def held(self) -> Held:
        """A sync object with a fence that the test signals."""
        return Held(self)

    @contextmanager
    def out(self) -> Iterator[tuple[Sync, list[Fence]]]:
        """A sync object for a submission; afterwards the list has its fence."""
        handle = self.client.syncobjs.create(0)
        found: list[Fence] = []
        try:
            yield Sync(BINARY, handle), found
            found.append(self.client.syncobjs.find_fence(handle, 0, 0))
        finally:
            self.client.syncobjs.destroy(handle)

    # -- executing

    def push(self, words: pushbuf.Push) -> Push:
        """Put it where the GPU finds it; in the first half of the scratch area, over and over."""
        data = np.frombuffer(bytes(words), np.uint8)
        if self.used + len(data) > SCRATCH_SIZE // 2:
            self.used = 0
        at = self.used
        self.used += -(-len(data) // 64) * 64
        assert self.used <= SCRATCH_SIZE // 2
        self.client.view(self.scratch)[at : at + len(data)] = data
        return Push(SCRATCH + at, len(data))

    def exec(
        self,
        *words: pushbuf.Push,
        waits: Sequence[Sync] = (),
        signals: Sequence[Sync] = (),
        channel: Channel | None = None,
    ) -> Fence:
        """Its fence, once it is submitted."""
        used = self.channel if channel is None else channel
        with self.out() as (sync, done):
            self.client.exec(used.id, [self.push(push) for push in words], waits, [sync, *signals])
        return done[0]

    def run(self, *words: pushbuf.Push, channel: Channel | None = None) -> int:
        """Execute, and the errno of what came of it."""
        return ended(self.exec(*words, channel=channel))

    def copy(self, dst: int, src: int, size: int) -> None:
        assert self.run(pushbuf.Push().copy(dst, src, size)) == 0

    def look(self, addr: int, size: int = 8) -> bytes:
        """What the GPU reads there: copied to the second half of the scratch area."""
        half = SCRATCH_SIZE // 2
        assert size <= half
        self.copy(SCRATCH + half, addr, size)
        return self.client.view(self.scratch)[half : half + size].tobytes()

    def tags_at(self, pages: Iterable[int]) -> dict[int, int]:
        """What the GPU reads first in each of these pages; one push."""
        half, words, pages = SCRATCH_SIZE // 2, pushbuf.Push(), list(pages)
        for index, addr in enumerate(pages):
            words.copy(SCRATCH + half + 8 * index, addr, 8)
        assert self.run(words) == 0
        found = self.client.view(self.scratch)[half : half + 8 * len(pages)].view(np.uint64)
        return dict(zip(pages, found.tolist(), strict=True))

    def shows(self, addr: int, bo: Bo, offset: int = 0, range_: int = 0) -> bool:
        """Whether the GPU reads the object's pages there."""
        pages = range(0, range_ or bo.size - offset, PAGE)
        return self.tags_at(addr + at for at in pages) == {addr + at: bo.tag_at(offset + at) for at in pages}

    def entry(self, addr: int) -> str:
        """As ``entry_of``."""
        return entry_of(self.client, addr)

    def entries(self, start: int, end: int) -> str:
        """The first letters of what the words say, a letter for each page: "ssvvi"."""
        return "".join(self.entry(addr)[0] for addr in range(start, end, PAGE))


class Held:
    """A fence that holds submissions back until the test lets go."""

    def __init__(self, *programs: Program) -> None:
        self.fence = Fence(fence_context_alloc(), 1, driver="test", timeline="held")
        self.syncobj = SyncObj(self.fence)
        self.syncs = [Sync(BINARY, program.client.syncobjs.insert(self.syncobj)) for program in programs]

    @property
    def sync(self) -> Sync:
        return self.syncs[0]

    def let_go(self, error: int = 0) -> None:
        if not self.fence.signalled:
            if error:
                self.fence.set_error(error)
            self.fence.signal()


def entry_of(client: Client, addr: int) -> str:
    """What the page-table words say of an address: "valid", "sparse" or "invalid"."""
    words = client.device.mem.instance_memory.view.view(np.uint64)
    found = walk(words, client.page_table.root, addr)[1]
    return found if isinstance(found, str) else "valid"


def ended(fence: Fence) -> int:
    """The errno of a fence, once it is signalled; 0 if all was well."""
    assert fence.wait(PATIENCE), f"{fence!r} is not signalled after {PATIENCE} s"
    return fence.error or 0


# -- devices


@contextmanager
def device_of(*, vram: int = 64 * MIB, gart: int = 64 * MIB, **options: Any) -> Iterator[Device]:
    """A device in which everything is right in the end, and nothing is left; nothing went wrong unseen."""
    unraisable: list[Any] = []
    hook, sys.unraisablehook = sys.unraisablehook, unraisable.append
    try:
        device = Device(vram=vram, gart=gart, **options)
        yield device
        settle(device)
        device.check()
        device.close()
        nothing_is_left(device)
    finally:
        sys.unraisablehook = hook
    assert [repr(each.exc_value) for each in unraisable] == []


@contextmanager
def program_of(*, dialect: Dialect = CURRENT, **options: Any) -> Iterator[Program]:
    """The only one on its device."""
    with device_of(**options) as device:
        yield Program(device, dialect=dialect)


def settle(device: Device) -> None:
    """Everything that was submitted is done and cleaned up."""
    for client in device.clients:
        client.settle()


def nothing_is_left(device: Device) -> None:
    """Of a device that was closed."""
    left = device.mem.statistics()
    assert device.clients == ()
    assert (left.objects, left.dying, left.instance_memory) == (0, 0, 0)
    assert {manager.domain.name: manager.used for manager in left.managers} == {
        manager.domain.name: 0 for manager in left.managers
    }
    assert device.semaphores.statistics().waiting == 0


# -- all that can be seen


class HasClient(Protocol):
    client: Client


def state(program: HasClient) -> dict[str, Any]:
    """Equal before and after what must have no effect. Of fences, those that are not signalled."""
    client = program.client
    vm, table = client.vm, client.page_table
    assert vm is not None
    statistics = client.statistics()
    found = state_of_space(vm)
    memory = client.device.mem.instance_memory.view
    sizes = [level.table_bytes for level in table.format.levels]
    found["words"] = [memory[one.addr : one.addr + sizes[one.level]].tobytes() for one in table.tables()]
    found["handles"] = [(handle, id(obj), obj.domain) for handle, obj in client.handles.items()]
    objects = [obj for _, obj in client.handles.items()]
    found["fences"] = [unsignalled(resv) for resv in (vm.resv, *(obj.resv for obj in objects))]
    found["syncobjs"] = syncobjs_of(client)
    found["binds"] = statistics.binds
    found["history"] = client.history.statistics()
    found["channels"] = [(one.id, one.killed, one.jobs, one.scheduler.queued) for one in statistics.channels]
    return found


def unsignalled(resv: Any) -> list[tuple[Fence, Any]]:
    with resv:
        return [(fence, usage) for fence, usage in resv.entries() if not fence.signalled]


def syncobjs_of(client: Client) -> list[tuple[int, Fence | None, int, int]]:
    found = []
    for handle in range(1, 64):
        syncobj = client.syncobjs.find(handle)
        if syncobj is not None:
            found.append((handle, syncobj.head, syncobj.payload, syncobj.last_submitted))
    return found
