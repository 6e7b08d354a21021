"""Traces for tests of `gpuvm view`: a small recording of which everything is known, and their pages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from gpuvm.report.page import page
from gpuvm.trace import database
from gpuvm.trace.trace import Trace
from gpuvm.trace.writer import Writer
from trace_scenes import records_of_lines
from tracefile import Call, bind, call, gem_new, op, vm_init

US: Final = 1000
TEXTURE, TARGET, OTHER = 0x1_0000_0000, 0x2_0000_0000, 0x30_0000_0000
SIZE: Final = 0x10_0000
TILE: Final = SIZE // 4
COPY, UNMAP, MISSING = 8, 9, 0x100  # the two calls that the fault is about
EVICTED_AT: Final = 6_500

_PUSHES = [{"va": TARGET, "va_len": 64, "flags": 0}]


def _exec(**fields: Any) -> Call:
    return call("exec", channel=1, waits=[], signals=[], pushes=_PUSHES, **fields)


def calls() -> list[Call]:
    """One a microsecond: client 1 paints, 2 has an address space that it does not use, 3 one mapping."""
    listed = [
        vm_init(1),  # 1
        vm_init(2),
        call("channel_alloc", channel=1),
        gem_new(1, size=SIZE, domain=2),
        gem_new(2, size=SIZE, domain=2),  # 5
        bind(op("map", TEXTURE, SIZE, 1), op("map", TARGET, SIZE, 2)),
        _exec(),
        _exec(),  # COPY
        bind(op("unmap", TEXTURE + TILE, TILE)),  # UNMAP
        bind(op("map", MISSING, SIZE, 99), ret=-2),  # 10
        vm_init(3),
        gem_new(7, client=3, size=SIZE, domain=4),
        bind(op("map", OTHER, SIZE, 7), client=3),
        call("gem_close", handle=1),
        _exec(ret=-19),  # 15
        bind(op("unmap", TARGET, SIZE)),
    ]
    return [{**one, "t": number * US} for number, one in enumerate(listed, 1)]


def write_scene(path: Path, names: Sequence[str] = ("painter", "idle", "other")) -> Path:
    """The scene as `gpuvm record` leaves it, with jobs, moves and a fault; programs have these names."""
    db = database.create(str(path))
    writer = Writer(db)
    writer.device("TU102", 0x162, 8 << 30, 16 << 30)
    writer.about("program", f'["./{names[0]}"]')
    writer.about("begun", "2026-01-02T03:04:05.678+00:00")
    for number, name in enumerate(names, 1):
        writer.opened(number, 0, name, 100 + number, name)
    records = records_of_lines(*calls())
    for record in records:
        offset = {4: 0x1000, 5: 0x2000, 12: 0x3000}.get(record.line)
        writer.call(record, 300, map_handle=offset)
    for number, call_ in ((1, 7), (2, COPY)):
        writer.queued(call_, 10, number, names[0], call_ * US)
        writer.started(10, number, (call_ + 1) * US - 500)
        writer.done(10, number, (call_ + number) * US, 0 if number == 1 else 5)
        writer.accessed((call_ + 1) * US - 500, 400, 1, 1, call_, "copy", 0, TEXTURE, TILE)
    writer.moved(5_500, 100, 0x1000, SIZE, None, "vram", False)
    writer.moved(EVICTED_AT, 100, 0x1000, SIZE, "vram", "gart", True)
    fault = (9_800, 1, 1, COPY, TEXTURE + TILE, "READ", "PTE", "use after unmap", "copy", UNMAP, 6, "{}")
    writer.faulted(*fault)
    writer.finish()
    db.close()
    return path


def write_page(trace: Path | str, out: Path, client: int | None = None) -> Path:
    with Trace.open(str(trace)) as opened:
        out.write_text(page(opened, client=client), encoding="utf-8")
    return out


def many_mappings(count: int, calls: int) -> list[Call]:
    """So many mappings by so many binds: a window of a quarter of them slides through 256 MiB."""
    each = count // calls
    listed = [vm_init(1), gem_new(1, size=1 << 30)]
    place = 0
    alive: list[int] = []
    for _ in range(calls):
        ops = []
        for _ in range(each):
            addr = TEXTURE + place % 4096 * 0x1_0000
            if len(alive) >= 1024:
                ops.append(op("unmap", alive.pop(0), 0x1_0000))
            ops.append(op("map", addr, 0x1_0000, 1, place % 4096 * 0x1_0000))
            alive.append(addr)
            place += 1
        listed.append(bind(*ops))
    return [{**one, "t": number * US} for number, one in enumerate(listed, 1)]
