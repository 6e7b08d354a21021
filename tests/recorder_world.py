"""A device whose calls are recorded, in this process: as lines of JSON, or in a database."""

from __future__ import annotations

import ctypes
import io
import json
import os
import struct
from typing import Any

from gpuvm.nouveau import Client, Device
from gpuvm.nouveau.uapi import numbers
from gpuvm.nouveau.uapi.caller import Caller
from gpuvm.nouveau.uapi.numbers import Ioctl
from gpuvm.sync import task
from gpuvm.trace import database
from gpuvm.trace.driver_replay import DriverReplay
from gpuvm.trace.frames import Order
from gpuvm.trace.jsonl import read_records
from gpuvm.trace.line_writer import LineWriter
from gpuvm.trace.recorder import Recorder
from gpuvm.trace.spool import Spool, SpoolReader
from gpuvm.trace.telling import Telling
from gpuvm.trace.trace import Form, Trace
from gpuvm.trace.writer import Writer

KERNEL = 1 << 46
PAGE = 0x1000
SPARSE = 0x100
FOREVER = (1 << 63) - 1


class World:
    """A device, whose calls are recorded."""

    def __init__(self, vram: int = 64 << 20) -> None:
        self.spool = Spool(lambda: True, 1 << 20)
        self.recorder = Recorder(self.spool)
        self.device = Device(vram=vram, gart=64 << 20, watcher=self.recorder)
        self.file = io.StringIO()
        self._reader = SpoolReader(os.dup(self.spool.fd))
        self._db = database.create_temporary()
        self._writer = Writer(self._db)
        lines, rows = (Telling(target, task.now()) for target in (LineWriter(self.file), self._writer))
        self._orders = Order(lines.take), Order(rows.take)
        self.kept: list[Any] = []

    def open(self) -> Client:
        return self.device.open()

    def call(
        self,
        client: Client,
        ioctl: Ioctl,
        format: str,
        *values: int,
        ret: int = 0,
        direction: int | None = None,
    ) -> tuple[int, ...]:
        """Make a call; its structure after it."""
        buffer = ctypes.create_string_buffer(struct.pack(f"<{format}", *values))
        direction = ioctl.direction if direction is None else direction
        request = direction << 30 | struct.calcsize(f"<{format}") << 16 | 0x6400 | ioctl.number
        got = self.recorder.make(client, request, ctypes.addressof(buffer), Caller.own())
        assert got == ret, client.last_error
        return struct.unpack_from(f"<{format}", buffer)

    def array(self, format: str, *values: int) -> int:
        """The address of an array."""
        self.kept.append(ctypes.create_string_buffer(struct.pack(f"<{format}", *values)))
        return ctypes.addressof(self.kept[-1])

    def text(self) -> list[str]:
        """The lines of all that was told."""
        self.spool.check()
        self._read()
        return self.file.getvalue().splitlines()

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text()]

    def replay(self) -> DriverReplay:
        lines = enumerate(self.text(), 1)
        records = list(read_records("recorded", lines))
        with DriverReplay("recorded", records) as replay:
            replay.run(records).check()
        return replay

    def _read(self) -> None:
        for frame in self._reader.frames():
            for order in self._orders:
                order.add(frame)

    def trace(self) -> Trace:
        """The database of all that was told, which is all."""
        self._read()
        assert not any(order.missing for order in self._orders)
        self._writer.check()
        self._writer.finish()
        database.register_functions(self._db)
        trace = Trace("recorded", Form.SQLITE, self._db)
        trace.check()
        return trace

    def close(self) -> None:
        self.device.close()
        self.spool.close()


def vm_init(world: World, client: Client) -> None:
    world.call(client, numbers.VM_INIT, "QQ", KERNEL, KERNEL)


def gem_new(world: World, client: Client, size: int = 1 << 20) -> int:
    return world.call(client, numbers.GEM_NEW, "IIQQQIIII", 0, 2, size, 0, 0, 0, 0, 0, PAGE)[0]


def vm_bind(world: World, client: Client, *ops: tuple[int, int, int, int, int, int], ret: int = 0) -> None:
    words = [
        word for op, flags, handle, addr, at, size in ops for word in (op, flags, handle, 0, addr, at, size)
    ]
    at = world.array("IIIIQQQ" * len(ops), *words)
    world.call(client, numbers.VM_BIND, "IIIIQQQ", len(ops), 0, 0, 0, 0, 0, at, ret=ret)


def vm_bind_async(
    world: World, client: Client, signal: int, *ops: tuple[int, int, int, int, int, int]
) -> None:
    """The same as a job that signals a sync object."""
    words = [
        word for op, flags, handle, addr, at, size in ops for word in (op, flags, handle, 0, addr, at, size)
    ]
    at, signals = world.array("IIIIQQQ" * len(ops), *words), world.array("IIQ", 0, signal, 0)
    world.call(client, numbers.VM_BIND, "IIIIQQQ", len(ops), 1, 0, 1, 0, signals, at)


def channel_alloc(world: World, client: Client) -> int:
    return world.call(client, numbers.CHANNEL_ALLOC, "IIiII64sI", 0, 0, 0, 0, 0, b"", 0)[2]  # type: ignore[arg-type]


def exec(world: World, client: Client, channel: int, *pushes: tuple[int, int], ret: int = 0) -> None:
    """Pushes, as addresses and bytes; without sync objects."""
    words = [word for va, size in pushes for word in (va, size, 0)]
    at = world.array("QII" * len(pushes), *words)
    world.call(client, numbers.EXEC, "IIIIQQQ", channel, len(pushes), 0, 0, 0, 0, at, ret=ret)
