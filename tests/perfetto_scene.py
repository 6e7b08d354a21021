"""A trace whose every time is known, for Perfetto."""

from __future__ import annotations

import io

from gpuvm.trace import database
from gpuvm.trace.perfetto import write_perfetto
from gpuvm.trace.recorded import (
    BIND_RUN_ASYNC,
    DOMAIN_VRAM,
    OP_MAP,
    OP_UNMAP,
    SYNC_SYNCOBJ,
    SYNC_TIMELINE,
    BindOp,
    GemClose,
    GemNew,
    Other,
    Push,
    Submission,
    Sync,
    SyncobjCreate,
    SyncobjTimelineWait,
    SyncobjWait,
    VmBind,
    VmInit,
)
from gpuvm.trace.trace import Form, Trace
from gpuvm.trace.writer import Writer
from perfetto_reader import pb

PAGE = 0x1000
AT = 0x3FFF_0000_0000
PID, OTHER = 4711, 815


def _map(handle: int, pages: int) -> BindOp:
    return BindOp(OP_MAP, 0, handle, 0, AT, 0, pages * PAGE)


def scene() -> Trace:
    """Two clients of one process, one of another; a bind and two EXECs that overlap, and waits for them."""
    db = database.create_temporary()
    writer = Writer(db)
    writer.about("begun", "2026-01-02T03:04:05.5+00:00")
    writer.opened(1, 0, "client 1", PID, "app")
    writer.opened(2, 1, "client 2", PID, "app")
    writer.opened(3, 2, "client 3", OTHER, "other")
    writer.call(VmInit(1, 100, 1, 0, 0, 0), 50)
    writer.call(GemNew(2, 200, 1, 0, 1, 4 * PAGE, DOMAIN_VRAM, 0, 0, 0), 50, map_handle=77)
    writer.call(GemNew(3, 300, 3, 0, 1, PAGE, DOMAIN_VRAM, 0, 0, 0), 50)
    writer.call(SyncobjCreate(4, 400, 1, 0, "syncobj_create", 0, 5), 50)
    done = Sync(SYNC_SYNCOBJ, 5, 0)
    writer.call(VmBind(5, 1000, 1, 0, (_map(1, 4),), BIND_RUN_ASYNC, (), (done,)), 100)
    writer.call(Submission(6, 2000, 1, 0, (Push(AT, 8, 0),), 2, (done,), (Sync(SYNC_TIMELINE, 5, 1),)), 100)
    writer.call(Submission(7, 2050, 1, 0, (), 2, (), (Sync(SYNC_TIMELINE, 5, 2),)), 200)
    writer.call(SyncobjTimelineWait(8, 3000, 1, 0, "syncobj_timeline_wait", (5,), (2,), 1), 5000)
    writer.call(SyncobjWait(9, 8500, 1, -62, "syncobj_wait", (5,), 0), 10)
    writer.call(VmBind(10, 9000, 1, 0, (BindOp(OP_UNMAP, 0, 0, 0, AT, 0, PAGE),), 0, (), ()), 100)
    writer.call(GemClose(11, 9200, 1, 0, 1), 10)
    writer.call(Other(12, 9900, 3, 0, "close"), 20)
    for call, context, queued, started, ended in ((5, 40, 1050, 1100, 2500), (6, 41, 2010, 2600, 5000)):
        writer.queued(call, context, 1, f"timeline {context}", queued)
        writer.started(context, 1, started)
        writer.done(context, 1, ended, 0)
    writer.queued(7, 41, 2, "timeline 41", 2060)
    writer.started(41, 2, 4000)
    writer.done(41, 2, 7000, 19)
    writer.queued(None, 50, 1, "moves", 2100)
    writer.done(50, 1, 2200, 0)
    writer.moved(1000, 20, 77, 4 * PAGE, None, "vram", False)
    writer.moved(1010, 100, 77, 4 * PAGE, "vram", "gart", True)
    writer.faulted(5500, 1, 2, 6, AT + 8, "READ", "PTE", "USE_AFTER_UNMAP", "copy", 10, 5, "{}")
    writer.finish()
    database.register_functions(db)
    return Trace("scene", Form.SQLITE, db)


def written(trace: Trace) -> bytes:
    """As `gpuvm export` writes it."""
    out = io.BytesIO()
    packets = write_perfetto(trace, out)
    data = out.getvalue()
    assert packets == len(pb.Trace.FromString(data).packet)
    return data
