"""What Perfetto draws of a trace: read with its own descriptors, drawn by the rules of its trace processor.

The rules are those of drm_tracker.cc (rings of jobs and timelines of fences are queues, the first is drawn),
of gpu_event_parser.cc (memory of all processes is summed up by its type, and drawn at the one of the event)
and of track events (slices of a track are a stack). test_export_stock.py checks that Perfetto draws the same.
"""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest

pb = pytest.importorskip("perfetto.protos.perfetto.trace.perfetto_trace_pb2", reason="Perfetto's package")

_SEQUENCE_STATE_CLEARED = 1


class Slice(NamedTuple):
    name: str
    begin: int
    end: int | None
    depth: int


@dataclass
class _Track:
    """One row of the picture."""

    slices: list[Slice] = field(default_factory=list)
    open: list[tuple[str, int]] = field(default_factory=list)

    def begin(self, time: int, name: str) -> None:
        self.open.append((name, time))

    def end(self, time: int) -> None:
        name, begin = self.open.pop()
        self.slices.append(Slice(name, begin, time, len(self.open)))


@dataclass
class Drawn:
    """By the names of tracks; threads are called as their processes and themselves."""

    tracks: dict[str, _Track] = field(default_factory=lambda: defaultdict(_Track))
    instants: dict[str, list[tuple[int, str]]] = field(default_factory=lambda: defaultdict(list))
    notes: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)
    counters: dict[str, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))
    memory: list[dict[str, Any]] = field(default_factory=list)
    clocks: list[dict[int, int]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    """Of tracks, as they were described."""

    def slices(self, track: str) -> list[Slice]:
        assert not self.tracks[track].open, f"{track}: {self.tracks[track].open} never end"
        return self.tracks[track].slices


def draw(data: bytes) -> Drawn:
    """Raises AssertionError: a packet that Perfetto would not take."""
    trace = pb.Trace()
    assert trace.ParseFromString(data) == len(data)
    return _Reader(trace).drawn


class _Reader:
    def __init__(self, trace: Any) -> None:
        self.drawn = Drawn()
        self._interned: dict[tuple[str, int], str] = {}
        self._descriptors: dict[int, Any] = {}
        self._names: dict[int, str] = {}
        self._tids: dict[int, str] = {}
        self._pids: dict[int, str] = {}
        self._rings: dict[str, deque[int]] = defaultdict(deque)
        self._busy: dict[int, str] = {}
        self._timelines: dict[int, tuple[str, deque[int]]] = {}
        self._emitting: set[int] = set()
        self._bytes: dict[tuple[str, int], int] = defaultdict(int)
        events: list[tuple[int, Any, Any]] = []
        assert trace.packet[0].sequence_flags == _SEQUENCE_STATE_CLEARED
        for packet in trace.packet:
            self._tokenize(packet, events)
        for time, kind, event in sorted(events, key=lambda one: one[0]):
            kind(time, event)

    def _tokenize(self, packet: Any, events: list[tuple[int, Any, Any]]) -> None:
        """Names and tracks count from where they stand in the file, all else is sorted by its time."""
        assert not [field for field, _ in packet.ListFields() if "unknown" in field.name]
        assert packet.trusted_packet_sequence_id == 1
        for table, names in packet.interned_data.ListFields():
            for one in names:
                name = one.str.decode() if table.name == "function_names" else one.name
                self._interned[table.name, one.iid] = name
        for snapshot in [packet.clock_snapshot] if packet.HasField("clock_snapshot") else []:
            self.drawn.clocks.append({clock.clock_id: clock.timestamp for clock in snapshot.clocks})
        if packet.HasField("track_descriptor"):
            self._describe(packet.track_descriptor)
        elif packet.HasField("track_event"):
            events.append((packet.timestamp, self._track_event, packet.track_event))
        elif packet.HasField("vulkan_memory_event"):
            assert packet.timestamp == packet.vulkan_memory_event.timestamp
            events.append((packet.timestamp, self._memory, packet.vulkan_memory_event))
        for event in packet.ftrace_events.event:
            (kind,) = (
                name for name in event.DESCRIPTOR.fields_by_name if name in _FTRACE and event.HasField(name)
            )
            events.append((event.timestamp, getattr(self, f"_{kind}"), (event.pid, getattr(event, kind))))

    def _describe(self, descriptor: Any) -> None:
        assert descriptor.uuid not in self._descriptors
        self._descriptors[descriptor.uuid] = descriptor
        name = self._name_of(descriptor)
        while name in self.drawn.names:  # Perfetto draws tracks of one name as one
            name += "'"
        self._names[descriptor.uuid] = name
        self.drawn.names.append(name)
        if descriptor.HasField("thread"):
            self._tids[descriptor.thread.tid] = name
        elif descriptor.HasField("process"):
            self._pids[descriptor.process.pid] = name

    def _name_of(self, descriptor: Any) -> str:
        if descriptor.HasField("process"):
            return f"{descriptor.process.process_name} {descriptor.process.pid}"
        if descriptor.HasField("thread"):
            return f"{descriptor.thread.thread_name} {descriptor.thread.pid}/{descriptor.thread.tid}"
        above = f"{self._names[descriptor.parent_uuid]}: " if descriptor.parent_uuid else ""
        return f"{above}{descriptor.name}"

    # -- events of tracks

    def _track_event(self, time: int, event: Any) -> None:
        track = self._names[event.track_uuid]
        counter = self._descriptors[event.track_uuid].HasField("counter")
        assert counter == (event.type == event.TYPE_COUNTER)
        if event.type == event.TYPE_COUNTER:
            self.drawn.counters[track].append((time, event.counter_value))
            return
        if event.type == event.TYPE_SLICE_END:
            self.drawn.tracks[track].end(time)
            return
        name = self._interned["event_names", event.name_iid]
        self.drawn.notes[track, time] = {
            self._interned["debug_annotation_names", note.name_iid]: getattr(note, note.WhichOneof("value"))
            for note in event.debug_annotations
        }
        if event.type == event.TYPE_SLICE_BEGIN:
            self.drawn.tracks[track].begin(time, name)
        else:
            self.drawn.instants[track].append((time, name))

    def _memory(self, time: int, event: Any) -> None:
        source = event.Source.Name(event.source).removeprefix("SOURCE_")
        operation = event.Operation.Name(event.operation).removeprefix("OP_")
        said = {"time": time, "what": f"{source} {operation}", "pid": event.pid, "size": event.memory_size}
        said["memory"] = event.device_memory
        said["function"] = self._interned["function_names", event.caller_iid]
        if event.HasField("memory_address"):
            said["address"] = event.memory_address
        self.drawn.memory.append(said)
        kind = "allocation" if source == "DEVICE_MEMORY" else "bind"
        sign = 1 if operation in ("CREATE", "BIND") else -1
        self._bytes[kind, event.memory_type] += sign * event.memory_size
        name = f"vulkan.mem.device.memory.type.{event.memory_type}.{kind}"
        name = f"{self._pids[event.pid]}: {name}"
        self.drawn.counters[name].append((time, self._bytes[kind, event.memory_type]))

    # -- events of the kernel

    def _drm_sched_job(self, time: int, said: tuple[int, Any]) -> None:
        self.drawn.instants[self._tids[said[0]]].append((time, f"queued {said[1].id}"))

    def _drm_run_job(self, time: int, said: tuple[int, Any]) -> None:
        ring = self._rings[said[1].name]
        ring.append(said[1].id)
        self._busy[said[1].fence] = said[1].name
        if len(ring) == 1:
            self.drawn.tracks[f"sched-{said[1].name}"].begin(time, f"job {ring[0]}")

    def _drm_sched_process_job(self, time: int, said: tuple[int, Any]) -> None:
        name = self._busy.pop(said[1].fence, None)
        if name is None:
            return
        self._rings[name].popleft()
        self.drawn.tracks[f"sched-{name}"].end(time)
        if self._rings[name]:
            self.drawn.tracks[f"sched-{name}"].begin(time, f"job {self._rings[name][0]}")

    def _timeline(self, event: Any) -> tuple[str, deque[int]]:
        name = f"fence-{event.timeline}-{event.context}"
        return self._timelines.setdefault(event.context, (name, deque()))

    def _push(self, time: int, event: Any) -> None:
        name, pending = self._timeline(event)
        pending.append(event.seqno)
        if len(pending) == 1:
            self.drawn.tracks[name].begin(time, f"fence {event.seqno}")

    def _dma_fence_init(self, time: int, said: tuple[int, Any]) -> None:
        if said[1].context not in self._emitting:
            self._push(time, said[1])

    def _dma_fence_emit(self, time: int, said: tuple[int, Any]) -> None:
        if said[1].context not in self._emitting:
            self._emitting.add(said[1].context)
            name, pending = self._timeline(said[1])
            if pending:
                self.drawn.tracks[name].end(time)
                pending.clear()
        self._push(time, said[1])

    def _dma_fence_signaled(self, time: int, said: tuple[int, Any]) -> None:
        name, pending = self._timeline(said[1])
        if not pending or said[1].seqno < pending[0]:
            return
        pending.popleft()
        self.drawn.tracks[name].end(time)
        if pending:
            self.drawn.tracks[name].begin(time, f"fence {pending[0]}")

    def _dma_fence_wait_start(self, time: int, said: tuple[int, Any]) -> None:
        self.drawn.tracks[self._tids[said[0]]].begin(time, f"wait {said[1].context}:{said[1].seqno}")

    def _dma_fence_wait_end(self, time: int, said: tuple[int, Any]) -> None:
        self.drawn.tracks[self._tids[said[0]]].end(time)


_FTRACE = frozenset(
    (
        *("drm_sched_job", "drm_run_job", "drm_sched_process_job", "dma_fence_init", "dma_fence_emit"),
        *("dma_fence_signaled", "dma_fence_wait_start", "dma_fence_wait_end"),
    )
)
