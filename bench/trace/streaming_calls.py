"""The calls of the tile-streaming program as bytes: for a program that makes them, and for this process."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache
from typing import NamedTuple

from bench.driver.program import FOREVER
from bench.driver.streaming import records
from bench.selfcheck import Disagreement
from gpuvm.nouveau import Client, Device
from gpuvm.nouveau.uapi import Caller, numbers, structs
from gpuvm.nouveau.uapi.layout import Layout
from gpuvm.nouveau.uapi.numbers import Ioctl
from gpuvm.trace import recorded
from gpuvm.trace.recorded import Record, Sync

Make = Callable[[Client, int, int, Caller], int]
Buffer = ctypes.Array[ctypes.c_char]

_HEAD = struct.Struct("<4I")
_ARRAY = struct.Struct("<2I")


class Step(NamedTuple):
    """One ioctl."""

    client: int
    request: int
    structure: bytes
    arrays: Sequence[tuple[int, bytes]]
    """Where in the structure the address of each is to be."""

    def packed(self) -> bytes:
        """As player.c reads it."""
        head = _HEAD.pack(self.client, self.request, len(self.structure), len(self.arrays))
        arrays = [_ARRAY.pack(at, len(data)) + data for at, data in self.arrays]
        return b"".join([head, self.structure, *arrays])


@cache
def steps() -> tuple[Step, ...]:
    """All of them, with the handles that the driver here gives, which are others than when it was recorded.

    The program looked at memory to see that an EXEC was done, which a trace does not tell: here it waits.
    """
    made = []
    with Device(name="bench") as device:
        clients: dict[int, Client] = {}
        handles: dict[tuple[int, int], int] = {}
        for record in records():
            client = clients.get(record.client) or clients.setdefault(record.client, device.open())
            step = _step(_renamed(record, handles))
            structure, _kept = in_memory(step)
            if client.drm_ioctl(step.request, ctypes.addressof(structure), Caller.own()):
                raise Disagreement(f"line {record.line} was refused: {client.last_error}")
            if isinstance(record, recorded.GemNew):
                handles[record.client, record.handle] = structs.GEM_NEW.unpack(structure)[0]
            made.append(step)
            if isinstance(record, recorded.Submission):
                made += [_wait(client, record, sync) for sync in record.signals]
    return tuple(made)


def _wait(client: Client, record: Record, sync: Sync) -> Step:
    fields = 0, FOREVER, 1, 0, 0, 0, 0
    step = _plain(record, numbers.SYNCOBJ_WAIT, *fields)
    step = step._replace(arrays=[(0, sync.handle.to_bytes(4, "little"))])
    structure, _kept = in_memory(step)
    if client.drm_ioctl(step.request, ctypes.addressof(structure), Caller.own()):
        raise Disagreement(f"a wait for line {record.line} was refused: {client.last_error}")
    return step


def _renamed(record: Record, handles: dict[tuple[int, int], int]) -> Record:
    if isinstance(record, recorded.GemClose):
        return replace(record, handle=handles[record.client, record.handle])
    if isinstance(record, recorded.VmBind):
        ops = [op._replace(handle=handles.get((record.client, op.handle), 0)) for op in record.ops]
        return replace(record, ops=tuple(ops))
    return record


def in_memory(step: Step) -> tuple[Buffer, list[Buffer]]:
    """The structure of a call where it can be made, and what that points to, to be kept as long."""
    structure = bytearray(step.structure)
    kept = [ctypes.create_string_buffer(data, len(data)) for _, data in step.arrays]
    for (at, _), buffer in zip(step.arrays, kept, strict=True):
        struct.pack_into("<Q", structure, at, ctypes.addressof(buffer))
    return ctypes.create_string_buffer(bytes(structure), len(structure)), kept


def _step(record: Record) -> Step:
    match record:
        case recorded.VmInit():
            return _plain(record, numbers.VM_INIT, record.kernel_addr, record.kernel_size)
        case recorded.GemNew():
            domain, size, align = record.domain, record.size, record.align
            tiling = record.tile_mode, record.tile_flags
            return _plain(record, numbers.GEM_NEW, 0, domain, size, 0, 0, *tiling, 0, align)
        case recorded.GemClose():
            return _plain(record, numbers.GEM_CLOSE, record.handle, 0)
        case recorded.ChannelAlloc():
            return _plain(record, numbers.CHANNEL_ALLOC, 0, 0, 0, 0, 0, 0)
        case recorded.ChannelFree():
            return _plain(record, numbers.CHANNEL_FREE, record.channel)
        case recorded.SyncobjCreate():
            return _plain(record, numbers.SYNCOBJ_CREATE, 0, record.flags)
        case recorded.SyncobjDestroy():
            return _plain(record, numbers.SYNCOBJ_DESTROY, record.handle, 0)
        case recorded.VmBind():
            ops = [(op.op, op.flags, op.handle, op.addr, op.bo_offset, op.range) for op in record.ops]
            fields = len(ops), record.flags, len(record.waits), len(record.signals), 0, 0, 0
            layout = structs.VM_BIND_OP
            return _with_lists(record, numbers.VM_BIND, fields, record.waits, record.signals, layout, ops)
        case recorded.Submission():
            assert record.channel is not None
            fields = record.channel, len(record.pushes), len(record.waits), len(record.signals), 0, 0, 0
            pushes = structs.EXEC_PUSH, record.pushes
            return _with_lists(record, numbers.EXEC, fields, record.waits, record.signals, *pushes)
    raise AssertionError(f"line {record.line}: a {record.call}, which the program did not make")


def _plain(record: Record, ioctl: Ioctl, *values: int) -> Step:
    assert ioctl.layout is not None
    structure = bytearray(ioctl.size)
    ioctl.layout.pack_into(structure, 0, *values)
    return Step(record.client, ioctl.request, bytes(structure), ())


def _with_lists(
    record: Record,
    ioctl: Ioctl,
    fields: tuple[int, ...],
    waits: Iterable[Sync],
    signals: Iterable[Sync],
    layout: Layout,
    items: Iterable[tuple[int, ...]],
) -> Step:
    """Of VM_BIND and EXEC, whose three pointers are at the same places."""
    lists = (16, structs.SYNC, waits), (24, structs.SYNC, signals), (32, layout, items)
    arrays = [(at, data) for at, kind, rows in lists if (data := _array(kind, rows))]
    return _plain(record, ioctl, *fields)._replace(arrays=arrays)


def _array(layout: Layout, rows: Iterable[tuple[int, ...]]) -> bytes:
    rows = list(rows)
    data = bytearray(layout.size * len(rows))
    for at, row in enumerate(rows):
        layout.pack_into(data, at * layout.size, *row)
    return bytes(data)


class Player:
    """Makes the calls in this process, through ``make``."""

    def __init__(self, device: Device, make: Make) -> None:
        self._make = make
        self.clients = {number: device.open() for number in sorted({step.client for step in steps()})}
        self._kept = [in_memory(step) for step in steps()]
        self._ready = [
            (self.clients[step.client], step.request, ctypes.addressof(structure))
            for step, (structure, _) in zip(steps(), self._kept, strict=True)
        ]

    def play(self) -> None:
        make, caller = self._make, Caller.own()
        for client, request, arg in self._ready:
            if make(client, request, arg, caller):
                raise Disagreement(f"request {request:#x} was refused: {client.last_error}")
