"""Program: a client as a C program uses it: structures as bytes, and addresses of its own arrays."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from gpuvm.nouveau.client import Client
from gpuvm.nouveau.uapi import Caller, structs
from gpuvm.nouveau.uapi.layout import Layout
from gpuvm.nouveau.uapi.numbers import Ioctl


def filled(layout: Layout, **fields: int | bytes) -> bytearray:
    """A structure with these fields, and zeros."""
    data = bytearray(layout.size)
    layout.put(data, **fields)
    return data


def fields_of(layout: Layout, data: bytes | bytearray) -> dict[str, Any]:
    names = [field.name for field in layout.fields if field.used]
    return dict(zip(names, layout.unpack(data), strict=True))


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Nothing can be opened."""
    gc.collect()  # what other tests left is not to be closed inside
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


class Program:
    """Arrays stay where they are for as long as the program is there."""

    def __init__(self, client: Client, caller: Caller | None = None) -> None:
        self.client = client
        self.caller = caller
        self.answer: dict[str, Any] = {}
        """The fields of the last structure, after the call."""
        self._arrays: list[object] = []

    def call(self, ioctl: Ioctl, **fields: int | bytes) -> int:
        """What ``ioctl`` returns for a structure with these fields."""
        assert ioctl.layout is not None
        data = filled(ioctl.layout, **fields)
        result = self.client.ioctl(ioctl.request, data, self.caller)
        self.answer = fields_of(ioctl.layout, data)
        return result

    def do(self, ioctl: Ioctl, **fields: int | bytes) -> dict[str, Any]:
        """The same for a call that has to succeed: its answer."""
        result = self.call(ioctl, **fields)
        assert result == 0, (ioctl.name, fields, result)
        return self.answer

    def buffer(self, data: bytes) -> int:
        """The address of these bytes."""
        array = ctypes.create_string_buffer(data, max(len(data), 1))
        self._arrays.append(array)
        return ctypes.addressof(array)

    def bytes_at(self, addr: int, size: int) -> bytes:
        return ctypes.string_at(addr, size)

    def u32s(self, *numbers: int) -> int:
        return self.buffer(b"".join(number.to_bytes(4, "little") for number in numbers))

    def u64s(self, *numbers: int) -> int:
        return self.buffer(b"".join(number.to_bytes(8, "little") for number in numbers))

    def array(self, layout: Layout, items: Iterable[dict[str, int]]) -> tuple[int, int]:
        """How many there are, and the address."""
        data = [bytes(filled(layout, **item)) for item in items]
        return len(data), self.buffer(b"".join(data))

    def ops(self, *ops: dict[str, int]) -> dict[str, int]:
        """The fields of a VM_BIND for them."""
        count, addr = self.array(structs.VM_BIND_OP, ops)
        return {"op_count": count, "op_ptr": addr}

    def pushes(self, *pushes: dict[str, int]) -> dict[str, int]:
        """The fields of an EXEC for them."""
        count, addr = self.array(self.client.dialect.push, pushes)
        return {"push_count": count, "push_ptr": addr}

    def syncs(self, which: str, *syncs: tuple[int, int, int]) -> dict[str, int]:
        """The fields ``which`` ("wait", "sig") for (flags, handle, point)."""
        names = ("flags", "handle", "timeline_value")
        count, addr = self.array(structs.SYNC, [dict(zip(names, sync, strict=True)) for sync in syncs])
        return {f"{which}_count": count, f"{which}_ptr": addr}
