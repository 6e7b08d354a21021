"""Traces that are replayed into real memory, and a look at the bytes there."""

from __future__ import annotations

from gpuvm.mmu.translation import Translation
from gpuvm.trace.jsonl import read_records
from gpuvm.trace.memory_replay import MemoryClient, MemoryReplay
from gpuvm.trace.recorded import Record
from tracefile import Call, call, text_of

VRAM, GART, NO_SHARE = 2, 4, 0x20
"""Domains of a gem_new."""


def records_of(*calls: Call) -> list[Record]:
    return list(read_records("trace", enumerate(text_of(*calls).splitlines(), 1)))


def execution(*vas: int, client: int = 1) -> Call:
    return call("exec", client=client, pushes=[{"va": va, "va_len": 16} for va in vas])


def shown(replay: MemoryReplay, client: MemoryClient, addr: int) -> tuple[Translation, int]:
    """Where an address leads, and the byte there."""
    assert client.page_table is not None
    found = client.page_table.translate(addr)
    assert isinstance(found, Translation)
    return found, int(replay.device.memory(found.aperture).view[found.address])
