"""VM_BIND: ranges are mapped and unmapped, or mapped over with another object; a unit is an operation.

Every 64 KiB of both objects begin with a tag. After the clock has stopped each contender does one round more,
and is asked what shows where.
"""

from __future__ import annotations

import ctypes
import itertools
import mmap
import os
from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.driver.program import Array, Program, ioctl
from bench.sampling.contender import Contender, Job
from bench.selfcheck import Disagreement
from bench.sorted_space import SortedContender
from gpuvm.errors import BadAddress, PageFault
from gpuvm.mem import Aperture, Device
from gpuvm.mmu import AddressSpace, PageTable
from gpuvm.mmu.formats import TU102
from gpuvm.nouveau import VM_BIND_OP_MAP, VM_BIND_OP_UNMAP, BindOp, OpCode, Uvmm, VmBindOp
from gpuvm.nouveau.uapi import numbers, structs
from gpuvm.nouveau.uapi.user_memory import UserMemory

SLOT = 64 << 10
BASE = 1 << 38
AREA = 2 << 20
"""What one table of small pages covers, and one of large ones. The first slot of each stays mapped, so that
tables are there already, as they are in a program that runs."""
OBJECTS = (1, 2)
"""The handles of the two."""


class Range(NamedTuple):
    """One operation: what is mapped from where, or 0: nothing."""

    handle: int
    addr: int
    offset: int


Call = Callable[[], object]


class Binds(Contender):
    """`count` operations a call. What is mapped is unmapped by the next call; `over`: mapped over by it."""

    def __init__(self, count: int, over: bool) -> None:
        self._count = count
        self._size = count * SLOT
        slots = (addr for addr in itertools.count(BASE, SLOT) if addr % AREA)
        self._addrs = list(itertools.islice(slots, count))
        self._areas = range(BASE, self._addrs[-1], AREA)
        self._first, self._second = OBJECTS[0], OBJECTS[1] if over else 0
        self._calls: tuple[Call, Call] | None = None

    def _ranges(self, handle: int) -> list[Range]:
        return [Range(handle, addr, SLOT * number) for number, addr in enumerate(self._addrs)]

    def jobs(self, units: int) -> list[Job]:
        rounds = units // (2 * self._count)
        first, second = self._prepared()

        def job() -> None:
            for _ in range(rounds):
                first()
                second()

        return [job]

    def check(self) -> int:
        for handle, call in zip((self._first, self._second), self._prepared(), strict=True):
            call()
            for number, addr in enumerate(self._addrs):
                found, expected = self._tag(addr), tag(handle, SLOT * number) if handle else 0
                if found != expected:
                    problem = f"slot {number} shows {found:#x}, not {expected:#x}"
                    raise Disagreement(f"{type(self).__name__}: {problem}")
        return 2 * self._count

    def _prepared(self) -> tuple[Call, Call]:
        if self._calls is None:
            first, second = (self._call(self._ranges(handle)) for handle in (self._first, self._second))
            self._calls = first, second
        return self._calls

    @abstractmethod
    def _call(self, ranges: list[Range]) -> Call:
        """What makes one call of these."""

    @abstractmethod
    def _tag(self, addr: int) -> int:
        """What shows there, 0 for nothing."""


def tag(handle: int, offset: int) -> int:
    return handle << 40 | offset


def tags(handle: int, size: int) -> Iterator[tuple[int, bytes]]:
    """Where an object has which bytes."""
    for offset in range(0, size, SLOT):
        yield offset, tag(handle, offset).to_bytes(8, "little")


def write_tags(view: NDArray[np.uint8], handle: int) -> None:
    for offset, data in tags(handle, len(view)):
        view[offset : offset + 8] = np.frombuffer(data, np.uint8)


class TypedBinds(Binds):
    """`Client.vm_bind`."""

    def __init__(self, count: int, over: bool) -> None:
        super().__init__(count, over)
        self._program = Program(64 << 20)
        client = self._program.client
        for handle in OBJECTS:
            assert client.gem_new(self._size, 2).handle == handle
            write_tags(client.view(handle), handle)
        beside = client.gem_new(SLOT, 2).handle
        client.vm_bind([VmBindOp(VM_BIND_OP_MAP, 0, beside, area, 0, SLOT) for area in self._areas])

    def _ops(self, ranges: list[Range]) -> list[VmBindOp]:
        return [
            VmBindOp(VM_BIND_OP_MAP, 0, handle, addr, offset, SLOT)
            if handle
            else VmBindOp(VM_BIND_OP_UNMAP, 0, 0, addr, 0, SLOT)
            for handle, addr, offset in ranges
        ]

    def _call(self, ranges: list[Range]) -> Call:
        vm_bind, ops = self._program.client.vm_bind, self._ops(ranges)
        return lambda: vm_bind(ops)

    def _tag(self, addr: int) -> int:
        return _read(self._program.client.space, addr)

    def close(self) -> None:
        self._program.close()


class IoctlBinds(TypedBinds):
    """The same as bytes."""

    def __init__(self, count: int, over: bool) -> None:
        super().__init__(count, over)
        self._arrays: list[Array] = []

    def _call(self, ranges: list[Range]) -> Call:
        ops = Array(structs.VM_BIND_OP, self._ops(ranges))
        self._arrays.append(ops)
        return _accepted(ioctl(self._program.client, numbers.VM_BIND, ops.count, 0, 0, 0, 0, 0, ops.addr))


def _accepted(call: Callable[[], int]) -> Call:
    result = call()
    if result:
        raise Disagreement(f"VM_BIND: {os.strerror(-result)}")
    return call


class SpaceBinds(Binds):
    """`Uvmm.bind`: the same address space and page tables without a driver: no jobs, fences, handles."""

    def __init__(self, count: int, over: bool) -> None:
        super().__init__(count, over)
        self._device = Device(vram=64 << 20, gart=16 << 20)
        self._tables = PageTable(TU102, self._device.instance_memory)
        self._vm = Uvmm("bench", device=self._device, backend=self._tables)
        self._space = AddressSpace(self._tables, {Aperture.VRAM: self._device.vram})
        self._objects = {handle: self._device.create(self._size) for handle in OBJECTS}
        for handle, obj in self._objects.items():
            write_tags(obj.view, handle)
        beside = self._device.create(SLOT)
        self._vm.bind([BindOp(OpCode.MAP, area, SLOT, beside) for area in self._areas])

    def _call(self, ranges: list[Range]) -> Call:
        ops = [
            BindOp(OpCode.MAP, addr, SLOT, self._objects[handle], offset)
            if handle
            else BindOp(OpCode.UNMAP, addr, SLOT)
            for handle, addr, offset in ranges
        ]
        bind = self._vm.bind
        return lambda: bind(ops)

    def _tag(self, addr: int) -> int:
        return _read(self._space, addr)

    def close(self) -> None:
        self._calls = None
        self._vm.close()
        self._tables.close()
        self._objects.clear()
        self._device.close()


def _read(space: AddressSpace, addr: int) -> int:
    try:
        return int.from_bytes(space.read(addr, 8), "little")
    except PageFault:
        return 0


class ModelBinds(Binds):
    """The books alone: a `SortedDict` of mappings in Python. No page tables, no locks, nothing can fail."""

    def __init__(self, count: int, over: bool) -> None:
        super().__init__(count, over)
        self._space = SortedContender()

    def _call(self, ranges: list[Range]) -> Call:
        map, unmap = self._space.map, self._space.unmap

        def call() -> None:
            for handle, addr, offset in ranges:
                if handle:
                    map(addr, addr + SLOT, offset, handle, 0)
                else:
                    unmap(addr, addr + SLOT)

        return call

    def _tag(self, addr: int) -> int:
        piece = self._space.find_one(addr, addr + SLOT)
        return 0 if piece is None else tag(piece[3], piece[2])


_PROT_NONE, _PROT = 0, mmap.PROT_READ | mmap.PROT_WRITE
_FIXED, _NORESERVE, _POPULATE = 0x10, 0x4000, 0x8000
_SHOWN = mmap.MAP_SHARED | _FIXED | _POPULATE
_NOTHING = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _FIXED | _NORESERVE


class MmapBinds(Binds):
    """What binds are to a CPU: `mmap` of two files, by the machine's kernel. A system call an operation."""

    def __init__(self, count: int, over: bool) -> None:
        super().__init__(count, over)
        libc = ctypes.PyDLL(None, use_errno=True)
        self._mmap = libc.mmap
        self._mmap.restype = ctypes.c_void_p
        self._mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE
        self._room = mmap.mmap(-1, len(self._areas) * AREA, flags=flags)
        self._pinned = ctypes.c_char.from_buffer(self._room)
        self._base = ctypes.addressof(self._pinned)
        self._fds = {handle: self._file(handle) for handle in OBJECTS}

    def _file(self, handle: int) -> int:
        fd = os.memfd_create("bench")
        os.truncate(fd, self._size)
        for offset, data in tags(handle, self._size):
            os.pwrite(fd, data, offset)
        return fd

    def _arguments(self, ranges: list[Range]) -> Iterator[tuple[int, ...]]:
        for handle, addr, offset in ranges:
            at = self._base + addr - BASE
            if handle:
                yield at, SLOT, _PROT, _SHOWN, self._fds[handle], offset
            else:
                yield at, SLOT, _PROT_NONE, _NOTHING, -1, 0

    def _call(self, ranges: list[Range]) -> Call:
        do, calls = self._mmap, list(self._arguments(ranges))

        def call() -> None:
            for arguments in calls:
                do(*arguments)

        return call

    def _tag(self, addr: int) -> int:
        try:
            return int.from_bytes(UserMemory.own().read(self._base + addr - BASE, 8), "little")
        except BadAddress:
            return 0

    def close(self) -> None:
        del self._pinned
        self._room.close()
        for fd in self._fds.values():
            os.close(fd)
