"""Recordings for the tests of `gpuvm top`, written by the writer that records, with times that we choose."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gpuvm.trace import database
from gpuvm.trace.jsonl import read_records
from gpuvm.trace.writer import Writer
from tracefile import Call, bind, gem_close, gem_new, op, text_of, vm_init

MS = 1_000_000
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
SIZE = 64 * KIB
BEGUN = "2026-03-01T12:00:00.000000+00:00"

REPORT: dict[str, Any] = {
    "chip": "TU102",
    "client": "game",
    "channel": 1,
    "engine": "copy",
    "class_": 0xC5B5,
    "method": 0x300,
    "error": "",
    "addr": 0x1_0001_0000,
    "access": "READ",
    "reason": "PTE",
    "level": "LPT",
    "word": 0x20,
    "time": 5_000_000_000,
    "cause": "NEVER_MAPPED",
    "before": None,
    "here": None,
    "after": None,
    "region": None,
    "history": [],
    "unmapped": None,
    "mapped": None,
    "oldest": 1,
    "object": None,
}


class Recording:
    """A recording that goes on as its methods are called; ``ms`` is its clock, in milliseconds."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.ms = 0
        self.calls = 0
        self._seqno = 0
        self._places: dict[tuple[int, int], str] = {}
        self._db = database.create(self.path)
        self.writer = Writer(self._db)
        self.writer.about("begun", BEGUN)
        self.writer.device("TU102", 0x162, 8 * GIB, 64 * GIB)
        self.writer.commit()

    def opened(self, client: int, name: str) -> None:
        self.writer.opened(client, self.ms * MS, f"{name} ({1000 + client})", 1000 + client, name)
        self.call(vm_init(client=client))

    def call(self, call: Call, took: int = 20_000, **more: Any) -> int:
        self.calls += 1
        (record,) = read_records("scene", [(self.calls, text_of({**call, "t": self.ms * MS}))])
        return self.writer.call(record, took, **more)

    def closed(self, client: int) -> None:
        self.call({"client": client, "call": "close", "ret": 0})

    def object(self, handle: int, client: int = 1, size: int = SIZE) -> None:
        """Made, and placed in VRAM."""
        map_handle = (client << 40) + handle * MIB
        self.call(gem_new(handle, client, size), map_handle=map_handle)
        self.writer.moved(self.ms * MS, None, map_handle, size, None, "vram", False)
        self._places[client, handle] = "vram"

    def evict(self, handle: int, client: int = 1, size: int = SIZE) -> None:
        map_handle = (client << 40) + handle * MIB
        self.writer.moved(self.ms * MS, 5000, map_handle, size, "vram", "gart", True)
        self._places[client, handle] = "gart"

    def map(self, addr: int, handle: int, client: int = 1, size: int = SIZE) -> int:
        call = self.call(bind(op("map", addr, size, handle), client=client))
        self.writer.page_work(call, 16, 0, 1, 0)
        return call

    def unmap(self, addr: int, client: int = 1, size: int = SIZE) -> int:
        call = self.call(bind(op("unmap", addr, size), client=client))
        self.writer.page_work(call, 0, 16, 0, 1)
        return call

    def sparse(self, addr: int, client: int = 1, size: int = MIB, *, code: str = "map") -> int:
        return self.call(bind(op(code, addr, size, flags=0x100), client=client))

    def close_handle(self, handle: int, client: int = 1, size: int = SIZE) -> None:
        """And its object goes, if nothing else holds it."""
        self.call(gem_close(handle, client))
        place = self._places.pop((client, handle), None)
        if place is not None:
            self.writer.moved(self.ms * MS, None, (client << 40) + handle * MIB, size, place, None, False)

    def exec(self, channel: int = 1, client: int = 1) -> int:
        """Its job is queued; returns what `start` and `end` take."""
        pushes = [{"va": 0x10000, "va_len": 64, "flags": 0}]
        call = {
            "client": client,
            "call": "exec",
            "channel": channel,
            "waits": [],
            "signals": [],
            "pushes": pushes,
        }
        number = self.call({**call, "ret": 0})
        self._seqno += 1
        self.writer.queued(number, 100 * client + channel, self._seqno, f"channel {channel}", self.ms * MS)
        return self._seqno

    def start(self, job: int, channel: int = 1, client: int = 1) -> None:
        self.writer.started(100 * client + channel, job, self.ms * MS)

    def end(self, job: int, channel: int = 1, client: int = 1, error: int = 0) -> None:
        self.writer.done(100 * client + channel, job, self.ms * MS, error)

    def fault(self, addr: int, client: int = 1, channel: int = 1) -> None:
        where = (client, channel, self.calls, addr, "READ", "PTE", "NEVER_MAPPED", "copy", None, None)
        self.writer.faulted(self.ms * MS, *where, json.dumps({**REPORT, "addr": addr}))

    def commit(self) -> None:
        self.writer.commit()

    def finish(self) -> None:
        self.writer.finish()
        self._db.close()


def rendering(path: Path, frames: int = 200, fault_at: int = 0) -> Recording:
    """A game that binds a tile and draws each frame, and a browser with a few mappings; committed."""
    scene = Recording(path)
    scene.opened(1, "game")
    scene.ms += 120
    scene.opened(2, "browser")
    for handle in range(1, 4):
        scene.object(handle, 2, 4 * MIB)
        scene.map(0x4000_0000 + handle * 16 * MIB, handle, 2, 4 * MIB)
    scene.sparse(0x8000_0000, 1, 16 * MIB)
    for frame in range(1, frames + 1):
        scene.ms += 30 + frame * 7 % 13 * (frame // 40 % 3)
        scene.object(frame)
        scene.map(0x1_0000_0000 + frame * 3 * SIZE, frame)
        job = scene.exec(1 + frame % 2)
        if frame <= frames - 3:
            scene.start(job, 1 + frame % 2)
            scene.ms += 2
            scene.end(job, 1 + frame % 2)
        if frame > 20 and frame % 2:
            scene.unmap(0x1_0000_0000 + (frame - 20) * 3 * SIZE)
            scene.close_handle(frame - 20)
        if frame % 60 == 0:
            scene.evict(frame)
        if frame == fault_at:
            scene.fault(0x1_0000_0000 + frame * 3 * SIZE + SIZE)
    scene.start(job - 2, 1 + (frames - 2) % 2)
    scene.call({"client": 2, "call": "gem_info", "handle": 77, "ret": -2})
    scene.commit()
    return scene
