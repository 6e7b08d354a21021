"""The driver's calls in two ways: typed, and as the bytes that a program passes to ioctl(2).

The bytes are made here, from the layouts and codes of the document, by nothing of the driver's.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Sequence
from typing import Any

from gpuvm.errors import GpuvmError
from gpuvm.nouveau.client import Client
from gpuvm.nouveau.sync import Sync
from gpuvm.nouveau.uapi.requests import Push, VmBindOp

CODES = {
    "vm_init": 0xC0106450,
    "vm_bind": 0xC0286451,
    "exec": 0xC0286452,
    "gem_new": 0xC0306480,
    "gem_pushbuf": 0xC0406481,
    "gem_cpu_prep": 0x40086482,
    "gem_cpu_fini": 0x40046483,
    "gem_info": 0xC0286484,
    "getparam": 0xC0106440,
    "channel_alloc": 0xC0586442,
    "channel_free": 0x40046443,
}
RUN_ASYNC = 1
U32, U64 = (1 << 32) - 1, (1 << 64) - 1


class Array:
    """An array in this process's memory."""

    def __init__(self, format: str, items: Sequence[Sequence[int]]) -> None:
        data = b"".join(struct.pack(format, *item) for item in items)
        self.bytes = ctypes.create_string_buffer(data, max(len(data), 1))
        self.count = len(items)
        self.addr = ctypes.addressof(self.bytes) if items else 0


class Calls:
    """Of one client. Each call gives 0, or minus an errno; ``answer`` is what it answered besides."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.answer: Any = None


class Typed(Calls):
    """By the typed methods."""

    def _call(self, call: Callable[..., Any], *args: Any, **options: Any) -> int:
        try:
            self.answer = call(*args, **options)
        except GpuvmError as error:
            return -error.code
        return 0

    def vm_init(self, addr: int, size: int) -> int:
        return self._call(self.client.vm_init, addr, size)

    def vm_bind(
        self,
        ops: Sequence[VmBindOp],
        waits: Sequence[Sync] = (),
        signals: Sequence[Sync] = (),
        *,
        run_async: bool = False,
    ) -> int:
        return self._call(self.client.vm_bind, ops, waits, signals, run_async=run_async)

    def exec(
        self,
        channel: int,
        pushes: Sequence[Push] = (),
        waits: Sequence[Sync] = (),
        signals: Sequence[Sync] = (),
    ) -> int:
        return self._call(self.client.exec, channel, pushes, waits, signals)

    def gem_new(self, size: int, domain: int, align: int = 0, tile_mode: int = 0, tile_flags: int = 0) -> int:
        return self._call(
            self.client.gem_new, size, domain, align=align, tile_mode=tile_mode, tile_flags=tile_flags
        )

    def gem_info(self, handle: int) -> int:
        return self._call(self.client.gem_info, handle)

    def gem_pushbuf(self) -> int:
        return self._call(self.client.gem_pushbuf)

    def gem_cpu_prep(self, handle: int, flags: int) -> int:
        return self._call(self.client.gem_cpu_prep, handle, flags)

    def gem_cpu_fini(self, handle: int) -> int:
        return self._call(self.client.gem_cpu_fini, handle)

    def getparam(self, param: int) -> int:
        return self._call(self.client.getparam, param)

    def channel_alloc(self) -> int:
        result = self._call(self.client.channel_alloc)
        self.answer = self.answer.id if not result else None
        return result

    def channel_free(self, channel: int) -> int:
        return self._call(self.client.channel_free, channel)


class Raw(Calls):
    """As bytes."""

    def ioctl(self, name: str, format: str, *fields: int) -> tuple[int, tuple[int, ...]]:
        """What came back, and the structure after it."""
        buffer = bytearray(struct.pack(format, *fields))
        assert len(buffer) == CODES[name] >> 16 & 0x3FFF
        result = self.client.ioctl(CODES[name], buffer)
        return result, struct.unpack(format, buffer)

    def vm_init(self, addr: int, size: int) -> int:
        return self.ioctl("vm_init", "<QQ", addr & U64, size & U64)[0]

    def vm_bind(
        self,
        ops: Sequence[VmBindOp],
        waits: Sequence[Sync] = (),
        signals: Sequence[Sync] = (),
        *,
        run_async: bool = False,
    ) -> int:
        uops = Array("<IIIIQQQ", [(op.op, op.flags, op.handle, 0, *map(_u64, op[3:])) for op in ops])
        ins, outs = Array("<IIQ", waits), Array("<IIQ", signals)
        counts = (uops.count, RUN_ASYNC * run_async, ins.count, outs.count)
        return self.ioctl("vm_bind", "<IIIIQQQ", *counts, ins.addr, outs.addr, uops.addr)[0]

    def exec(
        self,
        channel: int,
        pushes: Sequence[Push] = (),
        waits: Sequence[Sync] = (),
        signals: Sequence[Sync] = (),
    ) -> int:
        array = Array("<QII", pushes)
        ins, outs = Array("<IIQ", waits), Array("<IIQ", signals)
        counts = (channel & U32, array.count, ins.count, outs.count)
        return self.ioctl("exec", "<IIIIQQQ", *counts, ins.addr, outs.addr, array.addr)[0]

    def gem_new(self, size: int, domain: int, align: int = 0, tile_mode: int = 0, tile_flags: int = 0) -> int:
        result, fields = self.ioctl(
            "gem_new", "<IIQQQIIII", 0, domain, size, 0, 0, tile_mode, tile_flags, 0, align
        )
        self.answer = fields[:7]
        return result

    def gem_info(self, handle: int) -> int:
        result, self.answer = self.ioctl("gem_info", "<IIQQQII", handle, 0, 0, 0xDEAD, 0, 0, 0)
        return result

    def gem_pushbuf(self) -> int:
        return self.ioctl("gem_pushbuf", "<64x")[0]

    def gem_cpu_prep(self, handle: int, flags: int) -> int:
        return self.ioctl("gem_cpu_prep", "<II", handle, flags)[0]

    def gem_cpu_fini(self, handle: int) -> int:
        return self.ioctl("gem_cpu_fini", "<I", handle)[0]

    def getparam(self, param: int) -> int:
        result, fields = self.ioctl("getparam", "<QQ", param, 0)
        self.answer = fields[1]
        return result

    def channel_alloc(self) -> int:
        result, fields = self.ioctl("channel_alloc", "<IIiII16II", *[0] * 22)
        self.answer = fields[2]
        return result

    def channel_free(self, channel: int) -> int:
        return self.ioctl("channel_free", "<i", channel)[0]


WAYS = (Typed, Raw)


def _u64(number: int) -> int:
    return number & U64
