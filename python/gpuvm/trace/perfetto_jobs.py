"""Jobs, their fences and who waits for them, as the kernel's own events."""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import Final, NamedTuple

from gpuvm.trace.call_numbers import NUMBERS
from gpuvm.trace.database import unsigned
from gpuvm.trace.perfetto_packets import Ftrace, Packets, fence_event, job_done_event, job_event

_DRIVER: Final = "nouveau"
_HARDWARE: Final = 0
"""The thread of what no thread does."""

_QUEUED, _STARTED, _DONE = range(3)

TidOf = Callable[[int, int], int]
"""The thread on which a client's call is drawn."""

_JOBS: Final = f"""
SELECT queued AS time, {_QUEUED} AS step, jobs.call, jobs.client, channel, calls.t, calls.took
FROM jobs JOIN calls ON calls.id = jobs.call WHERE queued IS NOT NULL
UNION ALL SELECT started, {_STARTED}, call, client, channel, NULL, NULL FROM jobs WHERE started IS NOT NULL
UNION ALL SELECT max(done, started), {_DONE}, call, client, channel, NULL, NULL FROM jobs
WHERE started IS NOT NULL AND done IS NOT NULL
ORDER BY time, step"""


class _Ring:
    """A channel, or a client's queue of binds, as the kernel's scheduler sees it."""

    __slots__ = ("name", "queued", "running")

    def __init__(self, client: int, channel: int) -> None:
        queue = f"channel {channel}" if channel else "binds"
        self.name = f"client {unsigned(client)} {queue}"
        self.queued = 0
        self.running = 0


def write_jobs(db: sqlite3.Connection, packets: Packets, tid_of: TidOf) -> None:
    """``drm_sched_job`` when queued, ``drm_run_job`` when started, ``drm_sched_process_job`` when done."""
    rings: dict[tuple[int, int], _Ring] = {}
    for time, step, call, client, channel, begin, took in db.execute(_JOBS):
        ring = rings.setdefault((client, channel), _Ring(client, channel))
        if step == _QUEUED:
            tid, at = tid_of(client, call), _inside(time, begin, took)
            packets.ftrace(
                at, tid, Ftrace.DRM_SCHED_JOB, job_event(call, ring.name, ring.queued, ring.running)
            )
            ring.queued += 1
        elif step == _STARTED:
            ring.queued, ring.running = max(ring.queued - 1, 0), ring.running + 1
            said = job_event(call, ring.name, ring.queued, ring.running)
            packets.ftrace(time, _HARDWARE, Ftrace.DRM_RUN_JOB, said)
        else:
            ring.running -= 1
            packets.ftrace(time, _HARDWARE, Ftrace.DRM_SCHED_PROCESS_JOB, job_done_event(call))


def _inside(time: int, begin: int, took: int | None) -> int:
    """Not at the ends of the call, where Perfetto could take it to be before or after it."""
    return time if took is None or took < 2 else min(max(time, begin + 1), begin + took - 1)


_FENCES: Final = """
SELECT queued AS time, 0 AS step, context, seqno, timeline FROM jobs JOIN contexts ON contexts.id = context
WHERE queued IS NOT NULL
UNION ALL SELECT started, 1, context, seqno, timeline FROM jobs JOIN contexts ON contexts.id = context
WHERE started IS NOT NULL
UNION ALL SELECT done, 2, context, seqno, timeline FROM jobs JOIN contexts ON contexts.id = context
WHERE done IS NOT NULL
UNION ALL SELECT made, 0, context, seqno, timeline FROM other_fences JOIN contexts ON contexts.id = context
UNION ALL SELECT signalled, 2, context, seqno, timeline FROM other_fences
JOIN contexts ON contexts.id = context WHERE signalled IS NOT NULL
ORDER BY time, context, seqno, step"""
_FENCE_EVENTS: Final = (Ftrace.DMA_FENCE_INIT, Ftrace.DMA_FENCE_EMIT, Ftrace.DMA_FENCE_SIGNALED)


def write_fences(db: sqlite3.Connection, packets: Packets) -> None:
    """``dma_fence_init`` of each, ``dma_fence_emit`` when its job was started, ``dma_fence_signaled``."""
    for time, step, context, seqno, timeline in db.execute(_FENCES):
        said = fence_event(context, _DRIVER, seqno, timeline)
        packets.ftrace(time, _HARDWARE, _FENCE_EVENTS[step], said)


# -- waits

_KEPT: Final = 64
"""Points of a timeline that a wait is looked for in; more are hardly ever on the way."""
_WAIT_ALL: Final = 1

_SIGNALS: Final = """
SELECT jobs.call, syncobj, point, context, seqno, contexts.timeline, done
FROM jobs JOIN syncs ON syncs.call = jobs.call AND role = 1 JOIN contexts ON contexts.id = context
WHERE syncobj IS NOT NULL ORDER BY jobs.call"""
_WAITS: Final = f"""
SELECT calls.id, calls.t, calls.took, calls.client, coalesce(json_extract(args, '$.flags'), 0) & {_WAIT_ALL},
    syncobj, point
FROM calls JOIN syncs ON syncs.call = calls.id AND role = 2
WHERE nr IN ({NUMBERS["syncobj_wait"]}, {NUMBERS["syncobj_timeline_wait"]}) AND calls.took > 2
ORDER BY calls.id, i"""


class _Signal(NamedTuple):
    """That a job was told to signal a sync object."""

    call: int
    syncobj: int
    point: int
    context: int
    seqno: int
    timeline: str
    done: int | None


def write_waits(db: sqlite3.Connection, packets: Packets, tid_of: TidOf) -> None:
    """``dma_fence_wait_start`` and ``_end`` in each call that waited for a job's fence.

    Of several it is the fence that ended the wait: the last one to be signalled, or the first if any would
    do.
    """
    signals = _Signals(db)
    for call, rows in groupby(db.execute(_WAITS), key=itemgetter(0)):
        signals.read_until(call)
        waits = list(rows)
        _, begin, took, client, every, _, _ = waits[0]
        found = [signal for wait in waits if (signal := signals.of(*wait[5:])) is not None]
        fences = [fence for fence in found if fence.done is None or fence.done > begin]
        if not fences:
            continue
        fence = (max if every else min)(fences, key=_when_done)
        said = fence_event(fence.context, _DRIVER, fence.seqno, fence.timeline)
        tid = tid_of(client, call)
        packets.ftrace(begin + 1, tid, Ftrace.DMA_FENCE_WAIT_START, said)
        packets.ftrace(begin + took - 1, tid, Ftrace.DMA_FENCE_WAIT_END, said)


def _when_done(fence: _Signal) -> float:
    return float("inf") if fence.done is None else fence.done


class _Signals:
    """What sync objects were to be signalled with, as of a call."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._rows: Iterator[_Signal] = map(_Signal._make, db.execute(_SIGNALS))
        self._next = next(self._rows, None)
        self._of: dict[int, deque[_Signal]] = {}

    def read_until(self, call: int) -> None:
        while self._next is not None and self._next.call < call:
            kept = self._of.setdefault(self._next.syncobj, deque(maxlen=_KEPT))
            if not self._next.point:
                kept.clear()
            kept.append(self._next)
            self._next = next(self._rows, None)

    def of(self, syncobj: int | None, point: int) -> _Signal | None:
        """The first whose point is reached by it."""
        kept = self._of.get(syncobj, ()) if syncobj is not None else ()
        return next((signal for signal in kept if signal.point >= point), None)
