"""A fuzzer of ioctls that knows the structures: handles near those that are open, pointers to arrays that are
nearly right, flags near the known bits; and now and then it forgets what it knows.

Nothing that it asks for lasts: waits are for a time that is past, and nobody waits for what nobody submitted.
Pointers lead into an arena of its own, or to where nothing can be: no answer is written over anything else.
"""

from __future__ import annotations

import os
import random
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gpuvm.nouveau.client import Client
from gpuvm.nouveau.device import Device
from gpuvm.nouveau.uapi import CURRENT, SERIES, Dialect, numbers, structs
from gpuvm.nouveau.uapi.calls import CALLS
from gpuvm.nouveau.uapi.layout import Layout
from gpuvm.nouveau.uapi.numbers import Ioctl
from gpuvm.nouveau.uapi.requests import VmBindOp
from pushbuf import Push
from uapi_program import fields_of, filled
from user_pages import PAGE, Pages

WEIGHTS = {
    numbers.VM_BIND: 14,
    numbers.EXEC: 8,
    numbers.GEM_NEW: 5,
    numbers.GEM_CLOSE: 3,
    numbers.SYNCOBJ_CREATE: 4,
    numbers.SYNCOBJ_DESTROY: 2,
    numbers.SYNCOBJ_SIGNAL: 3,
    numbers.SYNCOBJ_TIMELINE_SIGNAL: 3,
    numbers.SYNCOBJ_WAIT: 3,
    numbers.SYNCOBJ_TIMELINE_WAIT: 3,
    numbers.NVIF: 4,
    numbers.CHANNEL_ALLOC: 4,
    numbers.CHANNEL_FREE: 1,
}
"""How often each is called; the others 2."""

HANDLES = {"handle", "src_handle", "dst_handle"}
POINTERS = {"handles", "points", "wait_ptr", "sig_ptr", "op_ptr", "push_ptr", "name", "date", "desc"}
POINTERS |= {"buffers", "relocs", "push"}
ARRAYS = {"handles": 0, "points": 1, "wait_ptr": 2, "sig_ptr": 3, "op_ptr": 4, "push_ptr": 5, "name": 6}
"""Where in the arena each has its place."""
ARRAY = 512
"""Bytes of a place."""
FIXED = {*POINTERS, "timeout_nsec", "fd"}
"""Fields that are never just any bits."""
DESCRIPTORS = (numbers.PRIME_HANDLE_TO_FD, numbers.SYNCOBJ_HANDLE_TO_FD)
"""Calls that open one, which has to be closed."""
DESCRIPTORS_KEPT = 12
CHANNELS_KEPT = 3
CLIENTS = (CURRENT, CURRENT, SERIES)
PLACES = [page * PAGE for page in (16, 17, 20, 24, 31, 32, 48, 63, 64, 512, 513, 1024)]
PUSHES = 1 << 32
"""Where clients have their push buffers."""
TOP = 1 << 47

MANY = [17, 511, 1 << 16, 1 << 31, 0xFFFFFFFF]
NAMES = ("name_len", "date_len", "desc_len")
CHOICES: dict[str, tuple[Sequence[int], Sequence[int]]] = {
    "pad": ([0], [1, 1 << 31]),
    "count_handles": ([1, 1, 1, 2, 3], [0, *MANY]),
    "op_count": ([1, 1, 1, 2, 3], [0, *MANY]),
    "push_count": ([0, 1, 1, 2], MANY),
    "wait_count": ([0, 0, 0, 1], [2, *MANY]),
    "sig_count": ([0, 0, 1, 2], MANY),
    **dict.fromkeys(NAMES, ([0, 3, 64], [1 << 40])),
    "timeout_nsec": ([0, 1, -1, -(1 << 63)], [0]),
    "deadline_nsec": ([0, 1], [(1 << 64) - 1]),
    "size": ([PAGE, 16 * PAGE, 32 * PAGE, 64 * PAGE], [0, 1, 1 << 40, (1 << 64) - 1]),
    "align": ([0, PAGE, 1 << 16], [3, 1 << 31]),
    "domain": ([1, 2, 2, 4, 4, 6, 8 | 2, 0x20 | 2, 0x20 | 4], [0, 0xFFFFFFFF]),
    "tile_flags": ([0, 8, 6 << 8], [0xDB << 8, 0xFFFF]),
    "param": (range(3, 21), range(24)),
    "capability": ([5, 6, 0x13, 0x14], range(24)),
    "fb_ctxdma_handle": ([0], [0xFFFFFFFF]),
    "tt_ctxdma_handle": ([0, 1], [2, 5, 0x30, 0xFFFFFFFF]),
    "kernel_managed_addr": ([TOP - (1 << 20), 0], [1, 1 << 40]),
    "kernel_managed_size": ([1 << 20, PAGE], [0, 1, (1 << 64) - PAGE]),
}
"""Of a field: values that are often right, and others."""
FLAGS = {
    numbers.PRIME_HANDLE_TO_FD: os.O_CLOEXEC | os.O_RDWR,
    numbers.GEM_CPU_PREP: 5,
    numbers.SYNCOBJ_HANDLE_TO_FD: 3,
    numbers.SYNCOBJ_FD_TO_HANDLE: 3,
    numbers.SYNCOBJ_WAIT: 0xB,
    numbers.SYNCOBJ_TIMELINE_WAIT: 0xF,
    numbers.SYNCOBJ_EVENTFD: 4,
    numbers.SYNCOBJ_TIMELINE_SIGNAL: 0,
    numbers.SYNCOBJ_TRANSFER: 0,
}
"""The bits that a call knows; 1 of the others."""


class Made(NamedTuple):
    """A call that was made."""

    ioctl: Ioctl
    request: int
    result: int
    before: bytes
    """The structure."""
    after: bytes


class Fuzzer:
    """Random calls of a few clients of one device, the same for the same seed."""

    def __init__(self, device: Device, seed: int) -> None:
        self.device = device
        self.rng = random.Random(seed)
        self.arena = Pages(4)
        """Two pages for arrays, one that can only be read, one that is as good as not there."""
        self.arena.protect(2, 1)
        self.arena.forbid(3)
        self.pushes: dict[Client, npt.NDArray[np.uint8]] = {}
        """Where those who have an address space have push buffers."""
        self.clients = [self._open(dialect) for dialect in CLIENTS]
        self.fds: list[int] = []
        self.eventfd = os.eventfd(0, os.EFD_NONBLOCK)
        self.results: Counter[tuple[str, int]] = Counter()
        self.recent: deque[str] = deque(maxlen=30)
        """The last calls, to tell of."""
        self._ioctls = sorted(CALLS, key=lambda ioctl: ioctl.number)
        self._weights = [WEIGHTS.get(ioctl, 2) for ioctl in self._ioctls]

    # -- one call

    def step(self) -> Made:
        """Make a call."""
        rng = self.rng
        client = rng.choice(self.clients)
        (ioctl,) = rng.choices(self._ioctls, self._weights)
        data = self._nvif(client) if ioctl.layout is None else self._structure(client, ioctl, ioctl.layout)
        request = self._request(ioctl, data)
        before = bytes(data)
        self.recent.append(f"{client.name}: {ioctl.name} {request:#x} {before.hex()}")
        mapped = self._mapped(client)
        result = client.ioctl(request, data)
        assert result == 0 or mapped == self._mapped(client)
        self.recent[-1] += f" = {result}"
        self.results[ioctl.name, result] += 1
        self._keep_house(client, ioctl, result, data)
        return Made(ioctl, request, result, before, bytes(data))

    def _mapped(self, client: Client) -> list[tuple[int, int, int, object]]:
        """What its address space shows."""
        if client.vm is None:
            return []
        return [(va.addr, va.range, va.offset, va.obj) for va in client.vm.mappings()]

    def _request(self, ioctl: Ioctl, data: bytearray) -> int:
        """Most often what the structure asks for. It grows if it is to be longer."""
        rng = self.rng
        request = ioctl.request if ioctl.layout is not None else ioctl.request | len(data) << 16
        chance = rng.random()
        if chance < 0.02:
            return ioctl.number
        if chance > 0.05 or ioctl in DESCRIPTORS:
            return request
        if chance < 0.03:
            return request & (1 << 30) - 1 | rng.randrange(4) << 30
        # All fields are whole, or zero: half a pointer might lead somewhere.
        size = rng.randrange(0, len(data) + 16, 8)
        data += rng.randbytes(max(size - len(data), 0))
        return request & ~(0x3FFF << 16) | size << 16

    def _keep_house(self, client: Client, ioctl: Ioctl, result: int, data: bytearray) -> None:
        """Not too many of anything."""
        if result == 0 and ioctl in DESCRIPTORS and ioctl.layout is not None:
            self.fds.append(fields_of(ioctl.layout, data)["fd"])
        while len(self.fds) > DESCRIPTORS_KEPT:
            os.close(self.fds.pop(0))
        for channel in [*client.channels.values()]:
            if len(client.channels) > CHANNELS_KEPT or (channel.killed and self.rng.random() < 0.1):
                client.channel_free(channel.id)

    # -- structures

    def _structure(self, client: Client, ioctl: Ioctl, layout: Layout) -> bytearray:
        rng = self.rng
        fields = {field.name: self._field(client, ioctl, field.name) for field in layout.fields if field.used}
        if ioctl is numbers.VM_BIND and (fields["wait_count"] or fields["sig_count"]):
            fields["flags"] |= rng.random() < 0.9  # RUN_ASYNC, without which there may be no syncs
        data = filled(layout, **fields)
        if rng.random() < 0.03:
            field = rng.choice([field for field in layout.fields if field.name not in FIXED])
            data[field.offset : field.offset + field.size] = rng.randbytes(field.size)
        if ioctl is numbers.SYNCOBJ_TRANSFER:  # or it would wait for seconds
            structs.SYNCOBJ_TRANSFER.put(data, flags=fields_of(layout, data)["flags"] & ~2)
        self._arrays(client, ioctl, fields)
        return data

    def _field(self, client: Client, ioctl: Ioctl, name: str) -> int:
        if name in HANDLES:
            is_syncobj = ioctl.name.startswith("SYNCOBJ")
            return self._syncobj(client) if is_syncobj else self._object(client)
        if name in POINTERS:
            return self._pointer(name)
        if name == "flags":
            return self._flags(ioctl)
        if name == "fd":
            return self.rng.choice([*self.fds, *self.fds, self.eventfd, -1, 1 << 30])
        if name == "channel":
            return self._near([*client.channels]) & 0x7FFFFFFF
        if name.endswith("point"):
            return self._point()
        return self._mostly(*CHOICES.get(name, ([0, 1, 2], [3])))

    def _mostly(self, usual: Sequence[int], unusual: Sequence[int]) -> int:
        return self.rng.choice(usual if self.rng.random() < 0.97 else unusual)

    def _flags(self, ioctl: Ioctl) -> int:
        flags = self.rng.getrandbits(32) & FLAGS.get(ioctl, 1)
        return self._mostly([flags], [flags ^ 1 << self.rng.randrange(32)])

    def _object(self, client: Client) -> int:
        return self._near([*client.handles])

    def _syncobj(self, client: Client) -> int:
        return self._near(range(1, client.syncobjs.statistics().handles + 1))

    def _near(self, there: Sequence[int]) -> int:
        """Most often one of those that are there."""
        others = [0, len(there) + 1, 0xFFFFFFFF]
        return self._mostly(there or others, others)

    def _point(self) -> int:
        return self.rng.choice([0, 0, 1, 2, 3, 5, 8, (1 << 64) - 1])

    def _pointer(self, name: str) -> int:
        """To its own array, most often; to one of something else, in part, or nowhere."""
        arena = self.arena.addr
        own = arena + ARRAYS.get(name, 0) * ARRAY
        others = [arena + place * ARRAY for place in ARRAYS.values()]
        edges = [arena + 2 * PAGE, arena + 3 * PAGE - 12, arena + 3 * PAGE]
        nowhere = [0, 8, TOP - 8, TOP, (1 << 64) - 8]
        return self._mostly([own], [*others, *edges, *nowhere])

    # -- arrays

    def _arrays(self, client: Client, ioctl: Ioctl, fields: dict[str, int]) -> None:
        """Lay out what the structure's pointers lead to, one after the other, so that the last wins."""
        arrays: list[tuple[str, Callable[[], bytes]]] = [
            ("handles", lambda: self._syncobj(client).to_bytes(4, "little")),
            ("points", lambda: self._point().to_bytes(8, "little")),
            ("wait_ptr", lambda: self._sync(client)),
            ("sig_ptr", lambda: self._sync(client)),
            ("op_ptr", lambda: self._op(client)),
            ("push_ptr", lambda: self._push(client)),
        ]
        for name, item in arrays:
            at = fields.get(name, 0) - self.arena.addr
            if 0 <= at < PAGE:
                array = b"".join(item() for _ in range(5))
                self.arena.map[at : at + len(array)] = array

    def _sync(self, client: Client) -> bytes:
        kind = self.rng.choice([0, 1]) if self.rng.random() < 0.95 else self.rng.choice([0x10, 0x21, 2, 15])
        return bytes(
            filled(structs.SYNC, flags=kind, handle=self._syncobj(client), timeline_value=self._point())
        )

    def _op(self, client: Client) -> bytes:
        rng = self.rng
        fields = {
            "op": rng.choice([*client.dialect.meanings]),
            "flags": rng.choice([0, 0, 0, 0, 6, 0x100]),
            "handle": self._object(client),
            "addr": rng.choice(PLACES),
            "bo_offset": rng.choice([0, 0, 0, PAGE]),
            "range": rng.choice([1, 1, 1, 2, 4, 8, 16]) * PAGE,
        }
        wrong = {
            "op": [2, 4, 0xFFFFFFFF],
            "flags": [rng.getrandbits(32)],
            "addr": [1, TOP - PAGE, TOP - (1 << 20), TOP, (1 << 64) - PAGE],
            "bo_offset": [1, 1 << 40, (1 << 64) - PAGE],
            "range": [0, 1, PAGE + 1, 1 << 40, TOP, (1 << 64) - PAGE],
        }
        if rng.random() < 0.03:
            name = rng.choice([*wrong])
            fields[name] = rng.choice(wrong[name])
        return bytes(filled(structs.VM_BIND_OP, **fields))

    def _push(self, client: Client) -> bytes:
        rng = self.rng
        fields = {"va": rng.choice(PLACES), "va_len": rng.choice([0, 4, 64, PAGE, 0x7FFFFF, 0x800000])}
        if client in self.pushes and rng.random() < 0.9:
            push = bytes(self._methods())
            slot = rng.randrange(8) * (PAGE // 8)
            self.pushes[client][slot : slot + len(push)] = np.frombuffer(push, np.uint8)
            fields = {"va": PUSHES + slot, "va_len": len(push)}
        if client.dialect is CURRENT:
            fields["flags"] = self._mostly([0], [1, rng.getrandbits(32)])
        return bytes(filled(client.dialect.push, **fields))

    def _methods(self) -> Push:
        """What engines do with memory that may be there or not, and what they know nothing of."""
        rng, push = self.rng, Push()
        for _ in range(rng.randrange(4)):
            kind = rng.choice(["copy", "fill", "release", "timestamp", "unknown"])
            there, here = rng.choice(PLACES), rng.choice(PLACES)
            if kind == "copy":
                push.copy(there, here, rng.choice([4, 100, PAGE]))
            elif kind == "fill":
                push.fill(there, PAGE, rng.getrandbits(32))
            elif kind == "release":
                push.release(there, 1)
            elif kind == "timestamp":
                push.timestamp(there)
            else:
                push.inc(rng.randrange(8), rng.randrange(0x100, 0x2000, 4), rng.getrandbits(32))
        return push

    # -- NVIF

    def _nvif(self, client: Client) -> bytearray:
        rng = self.rng
        channel = self._near([*client.channels])
        number = rng.randrange(8)
        rest: dict[int, Callable[[], bytearray]] = {
            0: bytearray,
            1: lambda: filled(structs.NVIF_SCLASS, count=16) + bytes(128),
            2: lambda: filled(
                structs.NVIF_NEW, object=number, oclass=rng.choice([0x80, *self.device.chip.classes, 0x1234])
            ),
            3: bytearray,
            4: lambda: filled(structs.NVIF_MTHD) + bytes(structs.NV_DEVICE_INFO.size),
            5: bytearray,
        }
        type_ = rng.choice([1, 2, 2, 2, 3, 4, 4, rng.choice([0, 5])])
        route = 0 if type_ in (3, 4) else rng.choice([0, 0xFF, 0xFF])
        if rng.random() < 0.05:
            route = rng.getrandbits(8)
        parent = number if type_ in (3, 4) else 0
        header = filled(structs.NVIF, type=type_, route=route, token=channel, object=parent, owner=0xFF)
        data = header + rest[type_]()
        if rng.random() < 0.1:
            data[rng.randrange(len(data))] = rng.getrandbits(8)
        return data[: rng.randrange(len(data))] if rng.random() < 0.03 else data

    # -- its end

    def settle(self) -> None:
        """Have all that was submitted done, and verify everything."""
        for client in self.clients:
            client.settle()
        for client in self.clients:
            client.check()
        self.device.check()

    def reopen(self) -> None:
        """Close a client, and open another."""
        place = self.rng.randrange(len(self.clients))
        self.pushes.pop(self.clients[place], None)
        self.clients[place].close()
        self.clients[place] = self._open(CLIENTS[place])

    def _open(self, dialect: Dialect) -> Client:
        """Most have an address space with push buffers; otherwise the first object rules it out for ever."""
        client = self.device.open(dialect=dialect)
        if self.rng.random() < 0.9:
            client.vm_init(TOP - (1 << 20), 1 << 20)
            handle = client.gem_new(PAGE, 4).handle
            show = VmBindOp(0, 0, handle, PUSHES, 0, PAGE)
            reserve = VmBindOp(0, 0, 0, PUSHES, 0, PAGE)
            client.vm_bind([show] if dialect is CURRENT else [reserve, show._replace(op=2)])
            client.channel_alloc()
            self.pushes[client] = client.view(handle)
        return client

    def close(self) -> None:
        for fd in (*self.fds, self.eventfd):
            os.close(fd)
        self.pushes.clear()
        for client in self.clients:
            client.close()
        self.arena.close()
