"""Trimming: what stays can be replayed, has all that was asked for, and nothing that was not needed."""

from __future__ import annotations

import io
from collections.abc import Set
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driver_traces import READY, binary, channel_alloc, execute, point, replay_of, syncobj
from gpuvm.trace import database
from gpuvm.trace.errors import TraceError
from gpuvm.trace.jsonl import read_records
from gpuvm.trace.recorded import Record, Submission, VmBind
from gpuvm.trace.trace import Form, Trace
from gpuvm.trace.trim import trim, write_json_lines, write_sqlite
from gpuvm.trace.writer import Writer
from random_traces import random_records, renumbered
from suite import scaled
from trace_scenes import records_of_lines, trace_of, trace_of_records
from tracefile import PAGE, SPARSE_BUFFER, Call, bind, call, gem_close, gem_new, op, vm_init

EMITTED = """
SELECT o.call, o.i, o.code, o.keep, m.addr, m.range, m.object, m.bo_offset, p.addr, p.range, n.addr, n.range
FROM ops o JOIN mappings m ON m.id = o.mapping
LEFT JOIN mappings p ON p.id = o.prev LEFT JOIN mappings n ON n.id = o.next
WHERE o.call BETWEEN ? AND ? ORDER BY o.call, o.i
"""
THERE = """
SELECT number, m.addr, m.range, m.bo_offset FROM mappings m JOIN clients ON clients.id = m.client
WHERE m.born < ? AND (m.died IS NULL OR m.died >= ?) ORDER BY 1, 2
"""


def kept(*calls: Call, **which: Any) -> list[int]:
    """Numbers of the calls that stay; they can be replayed."""
    with trace_of(*calls) as trace:
        trimmed = trim(trace, **which)
        check_replay([*trimmed.records()])
        return sorted(trimmed.calls)


def check_replay(records: list[Record]) -> None:
    with replay_of(records) as replay:
        assert replay.differences == []


@settings(max_examples=scaled(10, 1000))
@given(random_records(24), st.data())
def test_what_stays_can_be_replayed(records: list[Record], data: st.DataObject) -> None:
    records = renumbered(records)
    first = data.draw(st.integers(1, len(records)), label="first")
    last = data.draw(st.integers(first, len(records)), label="last")
    client = data.draw(st.sampled_from([None, 1, 2]), label="client")
    asked = {one.line for one in records[first - 1 : last] if client in (None, one.client)}
    with trace_of_records(records) as trace:
        if not asked:
            with pytest.raises(TraceError, match="no call"):
                trim(trace, first=first, last=last, client=client)
            return
        trimmed = trim(trace, first=first, last=last, client=client)
        left = [*trimmed.records()]
        assert asked <= trimmed.calls
        check_records(records, left, asked, trimmed.calls)
        check_replay(left)
        with trace_of_records(left) as small:
            check_same_spaces(trace, small, first, last, client)


def check_records(records: list[Record], left: list[Record], asked: set[int], kept: Set[int]) -> None:
    """They are the same, but for waits of those that were not asked for."""
    whole = [one for one in records if one.line in kept]
    for before, after in zip(whole, left, strict=True):
        if before == after:
            continue
        assert before.line not in asked
        assert isinstance(before, Submission | VmBind)
        assert isinstance(after, Submission | VmBind)
        assert replace(after, waits=before.waits) == before
        assert set(after.waits) <= set(before.waits)


def check_same_spaces(trace: Trace, small: Trace, first: int, last: int, client: int | None) -> None:
    """What is mapped when the first call is made, and what is emitted from then on."""
    clients = {one.client for one in trace.records(first=first, last=last) if client in (None, one.client)}
    there, there_small = (
        [row for row in one.db.execute(THERE, (first, first)) if row[0] in clients] for one in (trace, small)
    )
    assert there_small == there
    calls = {one.line for one in trace.records(first=first, last=last) if one.client in clients}
    emitted, emitted_small = (
        [row for row in one.db.execute(EMITTED, (first, last)) if row[0] in calls] for one in (trace, small)
    )
    assert emitted_small == emitted


def test_what_was_over_goes() -> None:
    over = (gem_new(2), bind(op("map", 32 * PAGE, PAGE, 2)), bind(op("unmap", 32 * PAGE, PAGE)), gem_close(2))
    assert kept(*READY, *over, execute(1, 0), first=9) == [1, 2, 3, 4, 9]


def test_what_is_mapped_stays_with_its_object() -> None:
    closed = (gem_new(2), bind(op("map", 32 * PAGE, PAGE, 2)), gem_close(2))
    assert kept(*READY, *closed, bind(op("unmap", 0, PAGE)), first=8) == [1, 2, 3, 5, 6, 7, 8]


def test_a_bind_that_stays_has_what_took_its_other_mappings_away() -> None:
    calls = (
        vm_init(),
        gem_new(1),
        bind(op("map", 0, PAGE, 1), op("map", 8 * PAGE, 4 * PAGE, 1)),
        bind(op("unmap", 9 * PAGE, PAGE)),  # cuts one of them
        bind(op("unmap", 0, PAGE), op("map", 20 * PAGE, PAGE, 1)),
        bind(op("unmap", 20 * PAGE, PAGE)),
        bind(op("map", 30 * PAGE, PAGE, 1)),
        bind(op("unmap", 30 * PAGE, PAGE)),
        bind(op("map", 8 * PAGE, PAGE, 1)),
    )
    assert kept(*calls, first=9) == [1, 2, 3, 4, 5, 6, 9]


def test_sparse_regions() -> None:
    region = bind(op("map", 0, 16 * PAGE, flags=0x100))
    gone = bind(op("unmap", 0, 16 * PAGE, flags=0x100))
    assert kept(vm_init(), region, gone, region, gone, first=5) == [1, 4, 5]
    assert kept(vm_init(), region, gone, region, call("getparam", param=3), first=5) == [1, 4, 5]


def test_who_waits_needs_who_signals() -> None:
    calls = (
        *READY,
        syncobj(7),
        execute(1, signals=[point(7, 1)]),
        execute(1, signals=[point(7, 2)]),
        execute(1, signals=[point(7, 3)]),
        call("syncobj_timeline_wait", handles=[7], points=[2], flags=0),
    )
    assert kept(*calls, first=9) == [1, 2, 3, 4, 5, 7, 9]


def test_frames_that_wait_for_each_other_end_before_the_first() -> None:
    frames = [execute(1, waits=[point(7, at)] if at else [], signals=[point(7, at + 1)]) for at in range(20)]
    calls = (*READY, syncobj(7), *frames, call("syncobj_timeline_wait", handles=[7], points=[20], flags=0))
    assert kept(*calls, first=len(calls) - 1) == [1, 2, 3, 4, 5, 24, 25, 26]
    with trace_of(*calls) as trace:
        *_, before, asked, _ = trim(trace, first=len(calls) - 1).records()
    assert isinstance(before, Submission)
    assert isinstance(asked, Submission)
    assert before.waits == ()
    assert [one.value for one in asked.waits] == [19]


def test_a_fence_goes_over_files_and_transfers() -> None:
    calls = (
        *READY,
        syncobj(7),
        syncobj(8),
        execute(1, signals=[binary(7)]),
        call("syncobj_transfer", src_handle=7, dst_handle=8, src_point=0, dst_point=3, flags=0),
        call("syncobj_handle_to_fd", handle=8, flags=0, point=0, fd=5),
        vm_init(2),
        call("syncobj_fd_to_handle", client=2, fd=5, flags=0, point=0, handle=3),
        execute(1, signals=[binary(7)]),
        call("syncobj_timeline_wait", client=2, handles=[3], points=[3], flags=0),
    )
    assert kept(*calls, first=13) == [1, 4, 5, 6, 7, 8, 9, 10, 11, 13]


def test_one_client_with_what_it_needs_of_others() -> None:
    calls = (
        *READY,
        gem_new(2),
        vm_init(2),
        call("prime_handle_to_fd", handle=1, flags=0, fd=5),
        call("prime_fd_to_handle", client=2, fd=5, handle=1),
        bind(op("map", 0, PAGE, 1), client=2),
        bind(op("map", 32 * PAGE, PAGE, 2)),
    )
    assert kept(*calls, client=2) == [1, 2, 6, 7, 8, 9]


def test_push_buffers_stay_mapped_while_they_are_read() -> None:
    calls = (
        *READY,
        gem_new(2),
        bind(op("map", 32 * PAGE, PAGE, 2)),
        syncobj(7),
        execute(1, 32 * PAGE, signals=[binary(7)]),
        bind(op("unmap", 32 * PAGE, PAGE)),
        call("syncobj_wait", handles=[7], flags=0),
    )
    assert kept(*calls, first=10) == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]


def test_a_client_that_is_opened_again() -> None:
    calls = (vm_init(), gem_new(1), vm_init(), gem_new(1), bind(op("map", 0, PAGE, 1)))
    assert kept(*calls, first=5) == [3, 4, 5]


def test_too_late_stays_too_late() -> None:
    calls = (gem_new(1), gem_new(2), gem_close(1), gem_close(2), {**vm_init(), "ret": -38})
    assert kept(*calls, first=5) == [1, 3, 5]


def test_no_such_calls() -> None:
    with trace_of(*READY, channel_alloc(2)) as trace:
        with pytest.raises(TraceError, match=r"no call from 6 to the end; the last one of all is 5"):
            trim(trace, first=6)
        with pytest.raises(TraceError, match=r"no call of client 9 from 1 to 3"):
            trim(trace, last=3, client=9)


@pytest.mark.parametrize("first", [20, 41, 70, 110])
def test_an_example(first: int) -> None:
    with Trace.open(str(SPARSE_BUFFER)) as trace:
        trimmed = trim(trace, first=first, last=first + 5)
        check_replay([*trimmed.records()])
        with trace_of_records([*trimmed.records()]) as small:
            check_same_spaces(trace, small, first, first + 5, None)


def test_it_is_smaller() -> None:
    churn = (
        gem_new(2),
        bind(op("map", 32 * PAGE, PAGE, 2)),
        bind(op("unmap", 32 * PAGE, PAGE)),
        gem_close(2),
    )
    calls = [*READY, *churn * 50, execute(1, 0)]
    assert kept(*calls, first=len(calls)) == [1, 2, 3, 4, len(calls)]


def test_a_fault_names_no_call_that_is_left_out(tmp_path: Path) -> None:
    """Who unmapped comes after the EXEC, and does not stay; who had mapped does."""
    calls = [*READY, execute(1, 0), bind(op("unmap", 0, PAGE))]
    with closing(database.create_temporary()) as db:
        writer = Writer(db)
        for record in records_of_lines(*calls):
            writer.call(record)
        writer.faulted(9, 1, 1, 5, 0, "READ", "PTE", "use after unmap", "copy", 6, 3, "{}")
        writer.finish()
        with open(tmp_path / "small", "wb") as file:
            write_sqlite(trim(Trace("whole", Form.SQLITE, db), first=5, last=5), file)
    with Trace.open(str(tmp_path / "small")) as small:
        small.check()
        assert small.db.execute("SELECT call, unmapped, mapped FROM faults").fetchall() == [(5, None, 3)]


def test_json_lines_of_it() -> None:
    with Trace.open(str(SPARSE_BUFFER)) as trace:
        trimmed = trim(trace, first=41, last=50)
        file = io.BytesIO()
        write_json_lines(trimmed, file)
        written = [*read_records("small", enumerate(file.getvalue().decode().splitlines(), 1))]
        assert written == renumbered([*trimmed.records()])
