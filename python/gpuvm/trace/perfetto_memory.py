"""Objects, mappings and moves, as Perfetto's events of Vulkan memory and as counters."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from itertools import groupby
from operator import itemgetter
from typing import Final

from gpuvm.trace.database import size, unsigned
from gpuvm.trace.perfetto_packets import Note, Operation, Packets, Source, VulkanMemory
from gpuvm.trace.recorded import DOMAIN_ANY, DOMAIN_VRAM

PidOf = Callable[[int], int]
"""The number of a client's process."""

# A call's effect is drawn at its end.
_OBJECTS: Final = """
SELECT objects.id, size, domain, calls.client, calls.t + coalesce(calls.took, 0), calls.call, 1
FROM objects JOIN calls ON calls.id = objects.id WHERE size IS NOT NULL
UNION ALL SELECT objects.id, size, domain, birth.client, death.t + coalesce(death.took, 0), death.call, 0
FROM objects JOIN calls AS birth ON birth.id = objects.id JOIN calls AS death ON death.id = objects.died
WHERE size IS NOT NULL"""


def write_objects(db: sqlite3.Connection, packets: Packets, pid_of: PidOf) -> None:
    """Device memory that is made, and destroyed; its number is the object's."""
    for memory, bytes_, domain, client, time, call, born in db.execute(_OBJECTS):
        operation = Operation.CREATE if born else Operation.DESTROY
        heap = _heap(domain)
        said = VulkanMemory(
            Source.DEVICE_MEMORY, operation, pid_of(client), call, memory, unsigned(bytes_), heap
        )
        packets.vulkan_memory(time, said)


def _heap(domain: int | None) -> int:
    return 0 if (DOMAIN_ANY if domain is None else domain) & DOMAIN_VRAM else 1


_MAPPINGS: Final = """
SELECT calls.t + coalesce(calls.took, 0) AS time, changes.client AS client, made, addr, range, object,
    domain, calls.call
FROM (
    SELECT born AS call, 1 AS made, client, addr, range, object FROM mappings
    UNION ALL SELECT died, 0, client, addr, range, object FROM mappings WHERE died IS NOT NULL
) AS changes JOIN calls ON calls.id = changes.call LEFT JOIN objects ON objects.id = object
ORDER BY time, changes.client, changes.call, made"""


def write_mappings(
    db: sqlite3.Connection, packets: Packets, pid_of: PidOf, counter: Callable[[int, str], int]
) -> None:
    """Memory that is bound and unbound, and each client's mapped bytes.

    Args:
        counter: makes a client's counter of this name.
    """
    mapped: dict[int, int] = {}
    tracks: dict[int, int] = {}
    for (time, client), changes in groupby(db.execute(_MAPPINGS), key=itemgetter(0, 1)):
        pid = pid_of(client)
        for _, _, made, addr, range, memory, domain, call in changes:
            mapped[client] = mapped.get(client, 0) + (range if made else -range)
            if memory is None:
                continue
            operation = Operation.BIND if made else Operation.DESTROY_BOUND
            heap = _heap(domain)
            said = VulkanMemory(Source.BUFFER, operation, pid, call, memory, range, heap, unsigned(addr))
            packets.vulkan_memory(time, said)
        if client not in tracks:
            tracks[client] = counter(client, f"client {unsigned(client)} mapped")
        packets.count(tracks[client], time, mapped[client])


_MOVES: Final = """
SELECT t, took, object, moves.size, source, target, evicted FROM moves ORDER BY t, moves.id"""


def write_moves(db: sqlite3.Connection, packets: Packets) -> None:
    """Slices of moves, moves at the same time on tracks of the same name, and how much VRAM holds."""
    vram = used = 0
    lanes: list[tuple[int, int]] = []
    for time, took, memory, bytes_, source, target, evicted in db.execute(_MOVES):
        end = time + (took or 0)
        at = next((at for at, (_, free) in enumerate(lanes) if free <= time), len(lanes))
        if at == len(lanes):
            lanes.append((packets.track(0, "moves of objects"), 0))
        lanes[at] = (lanes[at][0], end)
        notes: list[Note] = [("object", memory), ("size", size(bytes_)), ("from", source), ("to", target)]
        packets.slice(lanes[at][0], time, end, _title(source, target, evicted), notes)
        change = bytes_ * ((target == "vram") - (source == "vram"))
        if change:
            vram, used = vram or packets.bytes_counter(0, "VRAM"), used + change
            packets.count(vram, end, used)


def _title(source: str | None, target: str | None, evicted: int) -> str:
    if source is None:
        return f"first use, in {target}"
    if target is None:
        return f"gone from {source}"
    return f"{'evicted' if evicted else 'moved'} from {source} to {target}"
