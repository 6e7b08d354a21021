"""What becomes of calls: jobs, accesses, moves, page-table work, faults, totals; and what `check` finds."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest

from driver_traces import channel_alloc, execute, syncobj
from gpuvm.errors import CheckFailed
from gpuvm.trace import database
from gpuvm.trace.recorded import Record
from gpuvm.trace.trace import Form, Trace
from gpuvm.trace.writer import Writer
from trace_scenes import records_of_lines
from tracefile import PAGE, bind, call, gem_close, gem_new, op, vm_init

VRAM_PLACE = 0x10_0000_0000
LINES = (
    vm_init(),
    gem_new(1),
    bind(op("map", 0, 4 * PAGE, 1)),
    channel_alloc(1),
    execute(1, 0),
    {**bind(op("map", PAGE, PAGE, 1)), "flags": 1},
    bind(op("unmap", 0, PAGE)),
    syncobj(1),
    execute(1, 0, signals=[{"type": "syncobj", "handle": 1, "value": 0}]),
    execute(1, 0, ret=-19),
)


class Scene:
    """A writer, and the database that it writes."""

    def __init__(self) -> None:
        self.db = database.create_temporary()
        self.writer = Writer(self.db)

    def calls(self, *lines: dict[str, Any]) -> list[Record]:
        records = records_of_lines(*lines)
        for record in records:
            self.writer.call(record, took=1000)
        return records

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        self.writer.check()
        self.writer.commit()
        return self.db.execute(query).fetchall()

    def trace(self) -> Trace:
        self.writer.finish()
        return Trace("scene", Form.SQLITE, self.db)


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    scene.db.close()


def test_a_job_from_its_queue_to_its_fence(scene: Scene) -> None:
    scene.calls(*LINES)
    writer = scene.writer
    writer.queued(5, 20, 1, "channel 1", 500)
    writer.queued(6, 21, 1, "binds", 600)
    writer.started(20, 1, 550)
    query = "SELECT call, queued, started, done, error FROM jobs"
    assert scene.rows(query) == [(5, 500, 550, None, None), (6, 600, None, None, None), (9, *[None] * 4)]
    writer.done(21, 1, 900, 110)
    writer.done(20, 1, 700, 0)
    assert scene.rows(query) == [(5, 500, 550, 700, 0), (6, 600, None, 900, 110), (9, *[None] * 4)]
    assert scene.rows("SELECT * FROM fences WHERE call = 5") == [(20, 1, "channel 1", 5, 500, 700, 0)]
    assert scene.rows("SELECT what, value, call FROM totals WHERE what GLOB '*jobs' OR what < 'f'") == [
        ("bind_ops", 3, None),
        ("ended_jobs", 2, None),
        ("failed_jobs", 1, None),
    ]
    scene.trace().check()


def test_a_fence_may_be_told_late(scene: Scene) -> None:
    """Its start and its end may be there before it is known whose it is."""
    scene.calls(*LINES)
    scene.writer.started(20, 1, 550)
    scene.writer.done(20, 1, 700, 0)
    scene.writer.commit()
    scene.writer.queued(5, 20, 1, "channel 1", 500)
    assert scene.rows("SELECT call, queued, waited, took, error FROM jobs WHERE call = 5") == [
        (5, 500, 50, 200, 0)
    ]
    scene.trace().check()


def test_a_bind_that_is_waited_for_has_a_fence_and_no_job(scene: Scene) -> None:
    scene.calls(*LINES)
    scene.writer.queued(7, 21, 1, "binds", 100)
    scene.writer.queued(None, 22, 1, "moves", 100)
    scene.writer.started(21, 1, 120)
    scene.writer.done(21, 1, 130, 0)
    assert scene.rows("SELECT * FROM fences") == [
        (21, 1, "binds", 7, 100, 130, 0),
        (22, 1, "moves", None, 100, None, None),
    ]
    scene.trace().check()


def test_a_move_is_of_the_object_that_had_the_place_then(scene: Scene) -> None:
    """Its first move may be told before the call that makes it, and places are used again."""
    writer = scene.writer
    first, second, closed = records_of_lines(gem_new(1), gem_close(1), gem_new(1))
    writer.moved(1, 2, VRAM_PLACE, PAGE, None, "vram", False)
    writer.call(first, map_handle=VRAM_PLACE)
    writer.moved(3, 2, VRAM_PLACE, PAGE, "vram", "gart", True)
    writer.call(second)
    writer.moved(5, 2, VRAM_PLACE, PAGE, "gart", None, False)
    writer.commit()
    writer.moved(7, 2, VRAM_PLACE, PAGE, None, "vram", False)
    writer.call(closed, map_handle=VRAM_PLACE)
    writer.moved(9, None, 77, PAGE, "vram", "gart", True)
    assert scene.rows("SELECT id, t, object, source, target, evicted FROM moves") == [
        (1, 1, 1, None, "vram", 0),
        (2, 3, 1, "vram", "gart", 1),
        (3, 5, 1, "gart", None, 0),
        (4, 7, 3, None, "vram", 0),
        (5, 9, None, "vram", "gart", 1),
    ]


def test_accesses_page_work_and_faults(scene: Scene) -> None:
    writer = scene.writer
    writer.device("TU102", 0x162, 1 << 33, 1 << 33)
    writer.opened(1, 5, "app (9)", 9, "app")
    scene.calls(*LINES)
    writer.accessed(10, 2, 1, 1, 5, "copy", 1, 2**64 - PAGE, PAGE)
    writer.accessed(11, None, 1, 1, None, "host", 2, 0, 16)
    writer.page_work(3, 4, 0, 3, 0)
    writer.page_work(7, 0, 1, 0, 2)
    writer.faulted(12, 1, 1, 5, 0x7000, "READ", "PTE", "use after unmap", "copy", 7, 3, "{}")
    writer.faulted(13, 1, 1, None, None, None, None, "timed out", "host", None, None, "{}")
    assert scene.rows("SELECT call, id, access, engine, printf('%x', addr) FROM accesses") == [
        (0, 2, "fetch", "host", "0"),
        (5, 1, "write", "copy", "fffffffffffff000"),
    ]
    assert scene.rows("SELECT id, call, addr, cause, unmapped, mapped FROM faults") == [
        (1, 5, 0x7000, "use after unmap", 7, 3),
        (2, None, None, "timed out", None, None),
    ]
    assert scene.rows("SELECT what, value FROM totals WHERE what GLOB 'entries*' OR what GLOB 'tables*'") == [
        ("entries_cleared", 1),
        ("entries_written", 4),
        ("tables_freed", 2),
        ("tables_made", 3),
    ]
    assert scene.rows("SELECT * FROM device") == [("TU102", 0x162, 1 << 33, 1 << 33)]
    (client,) = scene.trace().clients()
    assert (client.name, client.pid, client.program, client.opened, client.closed) == (
        *("app (9)", 9, "app", 5),
        None,
    )


def test_totals_are_those_of_all_that_is_committed(scene: Scene) -> None:
    scene.calls(*LINES[:7])
    assert scene.rows("SELECT call, ret, calls, took, first FROM call_totals WHERE nr = 81") == [
        ("vm_bind", 0, 3, 3000, 3)
    ]
    query = "SELECT what, value, call FROM totals WHERE what GLOB 'mapp*'"
    assert scene.rows(query) == [("mapped_bytes", 4 * PAGE, 3), ("mappings", 3, 6)]
    scene.writer.call(records_of_lines(*LINES[:7], call("close"))[-1])
    assert scene.rows(query) == [("mapped_bytes", 4 * PAGE, 3), ("mappings", 3, 6)]
    scene.trace().check()


# -- what `check` finds

DAMAGE = {
    "UPDATE calls SET client = 9 WHERE id = 2": "a call of no client: (2, 9)",
    "UPDATE calls SET nr = 200 WHERE id = 4": "a call that has no name: (4, 200)",
    "DELETE FROM calls WHERE id = 8": "a row of syncs whose call is missing: (8,)",
    "UPDATE bind_ops SET i = 1 WHERE call = 3": "bind_ops that are not numbered from 0 on: (3, 1, 1)",
    "UPDATE ops SET mapping = 99 WHERE call = 3": "an op of a mapping that is not there, or not",
    "UPDATE ops SET asked = 5 WHERE call = 3": "an op that was not asked for: (3, 0, 5)",
    "UPDATE ops SET prev = NULL, next = NULL WHERE code = 2": "a remap without pieces, or",
    "UPDATE mappings SET died = 1 WHERE id = 4": "a mapping that died before it was born",
    "UPDATE mappings SET addr = 0 WHERE id = 3": "mappings of client 1: 3 and 2 overlap at 0x0 after call 6",
    "UPDATE mappings SET object = 6 WHERE id = 4": "a mapping of an object that was not there then: (4, 6)",
    "UPDATE objects SET died = 5": "a mapping of an object that was not there then",
    "UPDATE handles SET object = 77": "a handle of an object that was not there then: (2, 77)",
    "INSERT INTO handles VALUES (3, 1, 1, 2, NULL)": "handle 1 of client 1 names two objects at call 3",
    "UPDATE syncs SET syncobj = 99": "a call about a sync object that was not there then",
    "UPDATE jobs SET call = 10 WHERE call = 9": "a job of a call that was no accepted EXEC or VM_BIND: (10,)",
    "UPDATE jobs SET queued = 5, took = -1": "a job that was done before it was queued",
    "UPDATE jobs SET context = 1, seqno = 1": "one fence of two jobs: (1, 1)",
    "UPDATE pushes SET call = 3 WHERE call = 5": "a push buffer of a call that is no EXEC: (3, 0)",
    "INSERT INTO faults VALUES (1, 0, 1, 1, 5, 0, '', '', '', '', 99, 0, '')": "a fault that names a call",
    "UPDATE totals SET value = 8 WHERE what = 'map'": "map is 8 in totals, and there are 2",
    "UPDATE call_totals SET calls = 4 WHERE nr = 82 AND ret = 0": "call_totals and calls differ in (1, 82, 0",
}


@pytest.mark.parametrize(("change", "found"), DAMAGE.items(), ids=DAMAGE)
def test_check_names_the_row_that_is_wrong(scene: Scene, change: str, found: str) -> None:
    scene.calls(*LINES)
    trace = scene.trace()
    trace.check()
    assert scene.db.execute(change).rowcount > 0
    with pytest.raises(CheckFailed, match=re.escape(found)):
        trace.check()


def test_rows_of_one_call_are_in_one_commit(scene: Scene, tmp_path: Any) -> None:
    """Even where many calls are handed to SQLite before they are made lasting."""
    path = tmp_path / "app.gpuvm"
    db = database.create(str(path))
    writer = Writer(db)
    for record in records_of_lines(*LINES[:3], *[call("getparam", param=1)] * 5000):
        writer.call(record)
    with sqlite3.connect(path) as reader:
        assert reader.execute("SELECT count(*) FROM calls").fetchone() == (0,)
        writer.commit()
        assert reader.execute("SELECT count(*) FROM calls").fetchone() == (5003,)
    reader.close()
    db.close()
