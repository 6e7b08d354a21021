"""A trace as one of Perfetto's: its own tracks of jobs, fences and Vulkan memory, and slices for the calls.

| in the trace | in Perfetto |
|---|---|
| calls | slices of the process's thread, calls at the same time beside it; instants in JSON Lines |
| jobs | ``drm_sched_job``, ``drm_run_job``, ``drm_sched_process_job``: a ring a channel or queue of binds |
| fences | ``dma_fence_init``, ``_emit`` (its job was started), ``_signaled`` |
| waits for sync objects | ``dma_fence_wait_start`` and ``_end``, for the fence that ended the wait |
| objects, mappings | ``vulkan_memory_event``: made, bound, unbound, destroyed; even types may be in VRAM |
| mapped bytes, VRAM | counters |
| moves, faults | slices of "moves of objects", evictions named so; instants of "faults" |

The events of jobs are those of kernels before 6.17, since every Perfetto draws them. Times stay ns since the
recording began, as BOOTTIME; which wall-clock time that was is told. A client whose process is not known is a
process of its own, with a number that no process can have.

Source: Perfetto's src/trace_processor/importers/ftrace/drm_tracker.cc and proto/gpu_event_parser.cc draw it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import BinaryIO, Final

from gpuvm.trace.call_numbers import NUMBERS
from gpuvm.trace.database import errno_name, unsigned
from gpuvm.trace.perfetto_jobs import write_fences, write_jobs, write_waits
from gpuvm.trace.perfetto_memory import write_mappings, write_moves, write_objects
from gpuvm.trace.perfetto_packets import Address, Note, Packets
from gpuvm.trace.trace import Trace

_NO_PROCESS: Final = 1 << 22
"""Linux's PID_MAX_LIMIT; from here on numbers are ours."""
_CALLS_BETWEEN_LOOKS: Final = 10_000


@dataclass(slots=True)
class _Lane:
    """A thread's track, on which one call comes after the other."""

    track: int
    tid: int
    free: int = 0


@dataclass(slots=True)
class _Process:
    """One that opened the device, once or more."""

    pid: int
    name: str
    track: int
    lanes: list[_Lane] = field(default_factory=list)
    faults: int = 0


def write_perfetto(trace: Trace, out: BinaryIO, progress: Callable[[int], None] = lambda done: None) -> int:
    """Write ``trace`` to ``out``; returns the number of packets.

    Args:
        progress: is told now and then how many calls are written.

    Raises:
        OSError: from ``out``. sqlite3.Error: the trace is damaged.
    """
    packets = Packets(out)
    _write_clocks(trace, packets)
    processes = _Processes(trace.db, packets)
    _write_calls(trace.db, packets, processes, progress)
    write_jobs(trace.db, packets, processes.tid)
    write_fences(trace.db, packets)
    write_waits(trace.db, packets, processes.tid)
    write_objects(trace.db, packets, processes.pid)
    write_mappings(trace.db, packets, processes.pid, processes.counter)
    write_moves(trace.db, packets)
    _write_faults(trace.db, packets, processes)
    packets.finish()
    return packets.written


def _write_clocks(trace: Trace, packets: Packets) -> None:
    with suppress(ValueError):  # nobody knows when it began
        begun = datetime.fromisoformat(str(trace.about.get("begun"))).replace(tzinfo=UTC)
        packets.clocks(0, round((begun - datetime.fromtimestamp(0, UTC)).total_seconds() * 1e9))


class _Processes:
    """Whose call is whose, and on which thread it is drawn."""

    def __init__(self, db: sqlite3.Connection, packets: Packets) -> None:
        self._packets = packets
        self._next_number = _NO_PROCESS
        self._of_pid: dict[int, _Process] = {}
        self._of_client: dict[int, _Process] = {}
        self._aside: dict[int, int] = {}
        rows = db.execute("SELECT id, number, pid, program FROM clients ORDER BY id").fetchall()
        for client, number, pid, program in rows:
            self._of_client[client] = self._process(pid, program or f"client {unsigned(number)}")

    def _process(self, pid: int | None, name: str) -> _Process:
        if pid is None:
            pid = self._number()
        known = self._of_pid.get(pid)
        if known is None:
            known = self._of_pid[pid] = _Process(pid, name, self._packets.process(pid, name))
        return known

    def _number(self) -> int:
        self._next_number += 1
        return self._next_number

    def of(self, client: int) -> _Process:
        """The process of a client."""
        known = self._of_client.get(client)
        if known is None:
            known = self._of_client[client] = self._process(None, f"client {unsigned(client)}")
        return known

    def pid(self, client: int) -> int:
        """And its number."""
        return self.of(client).pid

    def counter(self, client: int, name: str) -> int:
        """A new counter of bytes of that process."""
        return self._packets.bytes_counter(self.of(client).track, name)

    def lane(self, client: int, call: int, begin: int, end: int) -> _Lane:
        """Where there is room for the call; begins must ascend."""
        process = self.of(client)
        for lane in process.lanes:
            if lane.free <= begin:
                break
        else:
            lane = self._new_lane(process)
        lane.free = end
        if lane is not process.lanes[0]:
            self._aside[call] = lane.tid
        return lane

    def _new_lane(self, process: _Process) -> _Lane:
        if not process.lanes:
            tid, name = process.pid, process.name
        else:
            tid, name = self._number(), f"{process.name}, at the same time"
        process.lanes.append(_Lane(self._packets.thread(process.pid, tid, name), tid))
        return process.lanes[-1]

    def tid(self, client: int, call: int) -> int:
        """The thread on which a call is drawn."""
        return self._aside.get(call) or self.of(client).pid


_CALLS: Final = f"""
SELECT id, calls.t, calls.took, calls.client, call, ret,
    CASE nr WHEN {NUMBERS["vm_bind"]} THEN (SELECT count(*) FROM bind_ops WHERE bind_ops.call = calls.id) END,
    CASE nr WHEN {NUMBERS["exec"]} THEN (SELECT count(*) FROM pushes WHERE pushes.call = calls.id) END,
    (SELECT channel FROM jobs WHERE jobs.call = calls.id)
FROM calls ORDER BY calls.t, id"""


def _write_calls(
    db: sqlite3.Connection, packets: Packets, processes: _Processes, progress: Callable[[int], None]
) -> None:
    rows = db.execute(_CALLS)
    for done, (call, begin, took, client, name, ret, ops, pushes, channel) in enumerate(rows):
        notes: list[Note] = [("call", call), ("client", client)]
        notes += (("bind ops", ops), ("push buffers", pushes), ("channel", channel))
        if ret:
            notes.append(("error", errno_name(ret)))
        end = begin + (took or 0)
        lane = processes.lane(client, call, begin, end)
        title = (name or "unknown call").upper()
        if took is None:
            packets.instant(lane.track, begin, title, notes)
        else:
            packets.slice(lane.track, begin, end, title, notes)
        if done % _CALLS_BETWEEN_LOOKS == 0:
            progress(done)


_FAULTS: Final = """
SELECT t, client, channel, call, addr, access, reason, cause, engine, unmapped, mapped
FROM faults ORDER BY t"""


def _write_faults(db: sqlite3.Connection, packets: Packets, processes: _Processes) -> None:
    for time, client, channel, call, addr, access, reason, cause, engine, unmapped, mapped in db.execute(
        _FAULTS
    ):
        process = processes.of(client)
        process.faults = process.faults or packets.track(process.track, "faults")
        notes: list[Note] = [
            ("address", None if addr is None else Address(unsigned(addr))),
            ("access", access),
            ("reason", reason),
            ("engine", engine),
            ("client", client),
            ("channel", channel),
            ("call", call),
            ("unmapped by call", unmapped),
            ("mapped by call", mapped),
        ]
        packets.instant(process.faults, time, cause, notes)
