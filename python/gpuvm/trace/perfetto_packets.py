"""Perfetto's packets: which fields they have, and what repeats in them.

One packet sequence, on the clock that Perfetto takes for granted (BOOTTIME, ns). A name is written once and
has a number from then on.

Source: Perfetto's protos/perfetto/trace: trace_packet, track_event/*, interned_data, gpu/vulkan_memory_event,
ftrace/{ftrace_event_bundle, gpu_scheduler, dma_fence}.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import BinaryIO, Final, NamedTuple

from gpuvm.trace.protobuf import fixed64, message, number, text

_PACKET: Final = 1
# Fields of a packet.
_FTRACE_EVENTS: Final = 1
_CLOCK_SNAPSHOT: Final = 6
_TIMESTAMP: Final = 8
_SEQUENCE: Final = 10
_TRACK_EVENT: Final = 11
_INTERNED_DATA: Final = 12
_SEQUENCE_FLAGS: Final = 13
_TRACK_DESCRIPTOR: Final = 60
_VULKAN_MEMORY_EVENT: Final = 62

_OUR_SEQUENCE: Final = number(_SEQUENCE, 1)
_STATE_CLEARED: Final = number(_SEQUENCE_FLAGS, 1)
_STATE_NEEDED: Final = number(_SEQUENCE_FLAGS, 2)

_REALTIME: Final = 1
_BOOTTIME: Final = 6

_SLICE_BEGIN: Final = number(9, 1)
_SLICE_END: Final = number(9, 2)
_INSTANT: Final = number(9, 3)
_COUNTER: Final = number(9, 4)
_UNIT_BYTES: Final = number(3, 3)

_EVENTS_OF_BUNDLE: Final = 256
_LOW: Final = 1 << 8


class Interned(IntEnum):
    """The tables of names, by their field in InternedData."""

    EVENT = 2
    NOTE = 3
    FUNCTION = 5


class Ftrace(IntEnum):
    """The kernel's events, by their field in FtraceEvent."""

    DRM_SCHED_JOB = 411
    DRM_RUN_JOB = 412
    DRM_SCHED_PROCESS_JOB = 413
    DMA_FENCE_INIT = 414
    DMA_FENCE_EMIT = 415
    DMA_FENCE_SIGNALED = 416
    DMA_FENCE_WAIT_START = 417
    DMA_FENCE_WAIT_END = 418


class Source(IntEnum):
    """Of a VulkanMemoryEvent."""

    DEVICE_MEMORY = 3
    BUFFER = 4


class Operation(IntEnum):
    """Of a VulkanMemoryEvent."""

    CREATE = 1
    DESTROY = 2
    BIND = 3
    DESTROY_BOUND = 4


HEAPS: Final = 2
"""VRAM, and memory that is never there."""


class VulkanMemory(NamedTuple):
    """What a VulkanMemoryEvent says; sizes in bytes, heaps below ``HEAPS``."""

    source: Source
    operation: Operation
    pid: int
    function: str
    memory: int
    size: int
    heap: int
    address: int | None = None


class Address(int):
    """A number to be shown in hexadecimal."""


Note = tuple[str, int | str | None]
"""What an event tells besides: its name and value; None leaves it out."""


def fence_event(context: int, driver: str, seqno: int, timeline: str) -> bytes:
    """The fields of all events of dma_fence; Perfetto has 32 bits for what the kernel has 64."""
    low = 0xFFFF_FFFF
    return number(1, context & low) + text(2, driver) + number(3, seqno & low) + text(4, timeline)


def job_event(job: int, ring: str, queued: int, running: int) -> bytes:
    """The fields of drm_sched_job and drm_run_job; a job is its own fence and its own id."""
    return number(2, job) + number(3, running) + number(4, job) + number(5, queued) + text(6, ring)


def job_done_event(job: int) -> bytes:
    """The field of drm_sched_process_job."""
    return number(1, job)


class Packets:
    """Writes packets to a file; not for several threads. Costs 2 to 5 us a packet."""

    def __init__(self, out: BinaryIO) -> None:
        self.written = 0
        self._out = out
        self._names: dict[Interned, dict[str, int]] = {table: {} for table in Interned}
        self._notes: dict[Note, bytes] = {}
        self._ends: dict[int, bytes] = {}
        self._memory_owners: dict[int, int] = {}
        self._last_track = 0
        self._events: list[bytes] = []
        self._packet(_STATE_CLEARED)

    def clocks(self, boottime: int, realtime: int) -> None:
        """Which wall-clock time, ns since 1970, a time of the trace was."""
        clocks = ((_BOOTTIME, boottime), (_REALTIME, realtime))
        shown = [message(1, number(1, clock), number(2, time)) for clock, time in clocks]
        self._packet(number(_TIMESTAMP, boottime), message(_CLOCK_SNAPSHOT, *shown))

    def process(self, pid: int, name: str) -> int:
        """A process; returns its track."""
        return self._track(0, message(3, number(1, pid), text(6, name)))

    def thread(self, pid: int, tid: int, name: str) -> int:
        """A thread; what ftrace's events of ``tid`` tell comes into its track too."""
        return self._track(0, message(4, number(1, pid), number(2, tid), text(5, name)))

    def track(self, parent: int, name: str) -> int:
        """A track of slices and instants below another one; 0: of the whole trace."""
        return self._track(parent, text(2, name))

    def bytes_counter(self, parent: int, name: str) -> int:
        """A track of numbers of bytes."""
        return self._track(parent, text(2, name), message(8, _UNIT_BYTES))

    def slice(self, track: int, begin: int, end: int, name: str, notes: Sequence[Note] = ()) -> None:
        """Something that lasted; slices of one track must not overlap."""
        self._event(begin, _SLICE_BEGIN, track, name, notes)
        ending = self._ends.get(track)
        if ending is None:
            ending = self._ends[track] = message(_TRACK_EVENT, _SLICE_END, number(11, track))
        self._packet(number(_TIMESTAMP, end), ending)

    def instant(self, track: int, time: int, name: str, notes: Sequence[Note] = ()) -> None:
        """Something that did not."""
        self._event(time, _INSTANT, track, name, notes)

    def count(self, track: int, time: int, value: int) -> None:
        """What a counter is from now on."""
        event = message(_TRACK_EVENT, _COUNTER, number(11, track), number(30, value))
        self._packet(number(_TIMESTAMP, time), event)

    def vulkan_memory(self, time: int, said: VulkanMemory) -> None:
        """Memory was made, bound or freed."""
        new: list[bytes] = []
        # Perfetto adds up one type's memory of all processes, and draws the sum as each one's own.
        own = HEAPS * self._memory_owners.setdefault(said.pid, len(self._memory_owners))
        fields = [
            number(1, said.source),
            number(2, said.operation),
            number(3, time),
            number(4, said.pid),
            number(6, said.size),
            number(7, self._name(Interned.FUNCTION, said.function, new)),
            fixed64(17, said.memory),
            number(18, own + said.heap),
            number(19, said.heap),
        ]
        if said.address is not None:
            fields.append(fixed64(5, said.address))
        self._packet(number(_TIMESTAMP, time), message(_VULKAN_MEMORY_EVENT, *fields), *_interned(new))

    def ftrace(self, time: int, tid: int, kind: Ftrace, fields: bytes) -> None:
        """An event of the kernel; it is written when there are some more, or at the `finish`."""
        self._events.append(message(2, number(1, time), number(2, tid), message(kind, fields)))
        if len(self._events) >= _EVENTS_OF_BUNDLE:
            self._bundle()

    def finish(self) -> None:
        """Write what was kept."""
        if self._events:
            self._bundle()

    def _bundle(self) -> None:
        self._packet(message(_FTRACE_EVENTS, number(1, 0), *self._events))
        self._events.clear()

    def _event(self, time: int, kind: bytes, track: int, name: str, notes: Sequence[Note]) -> None:
        new: list[bytes] = []
        fields = [kind, number(11, track), number(10, self._name(Interned.EVENT, name, new))]
        for note in notes:
            if note[1] is not None:
                fields.append(self._notes.get(note) or self._note(note, new))
        self._packet(number(_TIMESTAMP, time), message(_TRACK_EVENT, *fields), *_interned(new))

    def _note(self, note: Note, new: list[bytes]) -> bytes:
        key, value = note
        assert value is not None
        encoded = message(4, number(1, self._name(Interned.NOTE, key, new)), _value(value))
        if isinstance(value, int) and value < _LOW:  # clients, channels, counts
            self._notes[note] = encoded
        return encoded

    def _name(self, table: Interned, name: str, new: list[bytes]) -> int:
        """The number of a name; one that had none is told in ``new``."""
        names = self._names[table]
        known = names.get(name)
        if known is None:
            known = names[name] = len(names) + 1
            new.append(message(table, number(1, known), text(2, name)))
        return known

    def _track(self, parent: int, *fields: bytes) -> int:
        self._last_track += 1
        place = number(5, parent) if parent else b""
        self._packet(message(_TRACK_DESCRIPTOR, number(1, self._last_track), place, *fields))
        return self._last_track

    def _packet(self, *fields: bytes) -> None:
        self._out.write(message(_PACKET, _OUR_SEQUENCE, *fields))
        self.written += 1


def _value(value: int | str) -> bytes:
    if isinstance(value, str):
        return text(6, value)
    return number(7, value) if isinstance(value, Address) else number(4, value)


def _interned(new: list[bytes]) -> tuple[bytes, ...]:
    return (message(_INTERNED_DATA, *new), _STATE_NEEDED) if new else (_STATE_NEEDED,)
