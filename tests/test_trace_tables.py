"""What a writer makes of calls: ops, mappings, objects, handles, sync objects, and what dies with what."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driver_traces import binary, channel_alloc, execute, point, syncobj
from gpuvm.trace.jsonl import read_records
from gpuvm.trace.replay import Replay
from gpuvm.trace.source import Source
from gpuvm.trace.trace import Trace
from mapped_pages import ACTIONS, Action, Played, assert_pages, pages_after
from suite import scaled
from trace_scenes import records_of_lines, trace_of, trace_of_records
from tracefile import PAGE, SPARSE_BUFFER, STREAMING, bind, call, gem_close, gem_new, op, records_in, vm_init

SPARSE = 0x100


def rows(trace: Trace, query: str) -> list[tuple[Any, ...]]:
    trace.check()
    return trace.db.execute(query).fetchall()


# -- ops and mappings, against a dictionary of pages and the replays


@settings(max_examples=scaled(20, 400))
@given(st.lists(ACTIONS, min_size=4, max_size=scaled(20, 60)))
def test_every_page_at_every_call(actions: list[Action]) -> None:
    with Played() as played:
        for action in actions:
            played.do(action)
        with trace_of_records(played.records) as trace:
            assert_pages(trace, played.records)
            assert pages_after(trace, len(played.records)) == played.pages()
            trace.check()


def test_every_page_of_an_example() -> None:
    records = records_in(SPARSE_BUFFER)
    with trace_of_records(records) as trace:
        assert_pages(trace, records)


@pytest.mark.parametrize("path", [SPARSE_BUFFER, STREAMING], ids=lambda path: path.name)
def test_ops_are_those_of_a_replay(path: Any) -> None:
    with Source(str(path)) as source:
        records = list(islice(read_records(source.name, source), scaled(500, 10_855)))
    replay = Replay(path.name).run(records)
    with trace_of_records(records) as trace:
        for client in replay.clients.values():
            query = (
                "SELECT op, count(*) FROM ops JOIN calls ON calls.id = ops.call WHERE client = ? GROUP BY op"
            )
            counts = Counter(dict(trace.db.execute(query, (client.number,))))
            assert counts == Counter(client.ops)
            query = (
                "SELECT addr, range, handles.handle, bo_offset FROM mappings "
                "JOIN handles ON handles.object = mappings.object "
                "WHERE mappings.client = ? AND mappings.died IS NULL ORDER BY addr"
            )
            assert [[*row] for row in trace.db.execute(query, (client.number,))] == client.mappings()
        trace.check()


def test_a_remap_leaves_two_pieces() -> None:
    trace = trace_of(
        vm_init(),
        gem_new(1),
        bind(op("map", 0x10000, 4 * PAGE, 1, 0x2000, flags=6)),
        bind(op("map", 0x11000, PAGE, 1, 0x8000)),
    )
    assert rows(trace, "SELECT call, i, asked, op, keep, mapping, prev, next FROM ops") == [
        (3, 0, 0, "map", 0, 1, None, None),
        (4, 0, 0, "remap", 0, 1, 2, 3),
        (4, 1, 0, "map", 0, 4, None, None),
    ]
    query = "SELECT id, addr, range, object, bo_offset, pte_kind, born, died FROM mappings"
    assert rows(trace, query) == [
        (1, 0x10000, 4 * PAGE, 2, 0x2000, 6, 3, 4),
        (2, 0x10000, PAGE, 2, 0x2000, 6, 4, None),
        (3, 0x12000, 2 * PAGE, 2, 0x4000, 6, 4, None),
        (4, 0x11000, PAGE, 2, 0x8000, 0, 4, None),
    ]


def test_keep_is_told() -> None:
    trace = trace_of(vm_init(), gem_new(1), bind(op("map", 0, 2 * PAGE, 1)), bind(op("map", 0, 2 * PAGE, 1)))
    assert rows(trace, "SELECT op, keep FROM ops WHERE call = 4") == [("unmap", 1), ("map", 0)]


def test_flags_that_nouveau_overlooks_do_nothing() -> None:
    """They are in `bind_ops` as they came."""
    trace = trace_of(
        vm_init(),
        gem_new(1),
        bind(op("map", 0, 2 * PAGE, 1, flags=0xFFFF_FE06)),
        bind(op("unmap", 0, PAGE, flags=0xFFFF_FEFF)),
    )
    assert rows(trace, "SELECT flags FROM bind_ops") == [(0xFFFF_FE06,), (0xFFFF_FEFF,)]
    assert rows(trace, "SELECT pte_kind, born, died FROM mappings") == [(6, 3, 4), (6, 4, None)]
    assert not rows(trace, "SELECT * FROM doubts")


def test_sparse_regions_come_and_go() -> None:
    region = (0x100000, 16 * PAGE)
    trace = trace_of(
        vm_init(),
        gem_new(1),
        bind(op("map", *region, flags=SPARSE)),
        bind(op("map", 0x101000, PAGE, 1)),
        bind(op("unmap", *region, flags=SPARSE)),
        bind(op("map", *region, flags=SPARSE), op("unmap", *region, flags=SPARSE)),
    )
    assert rows(trace, "SELECT id, addr, range, born, died FROM regions") == [
        (1, *region, 3, 5),
        (2, *region, 6, 6),
    ]
    assert rows(trace, "SELECT call, op FROM ops") == [(4, "map"), (5, "unmap")]
    assert rows(trace, "SELECT born, died FROM mappings") == [(4, 5)]


# -- refused calls, and such as cannot be followed


def test_a_refused_call_is_told_and_does_nothing() -> None:
    refused = bind(op("map", 0, PAGE, 1), op("unmap", 2**64 - PAGE, 2 * PAGE, 2**32 - 1), ret=-22)
    trace = trace_of(vm_init(), gem_new(1), refused, gem_new(0, ret=-12))
    assert rows(trace, "SELECT call, ret FROM calls WHERE id >= 3") == [("vm_bind", -22), ("gem_new", -12)]
    assert rows(trace, "SELECT i, op, addr(addr), handle FROM bind_ops") == [
        (0, "map", "0x0", 1),
        (1, "unmap", "0xfffffffffffff000", 2**32 - 1),
    ]
    assert rows(trace, "SELECT count(*) FROM ops") == [(0,)]
    assert rows(trace, "SELECT id FROM objects") == [(2,)]


def test_what_cannot_be_followed_is_a_doubt() -> None:
    trace = trace_of(
        gem_new(1),
        bind(op("map", 0, PAGE, 1)),
        vm_init(2),
        bind(op("map", 0, PAGE, 9), client=2),
        vm_init(3, kernel_addr=2**63, kernel_size=2**63),
    )
    (early, unknown, kernel) = rows(trace, "SELECT call, why FROM doubts")
    assert early == (2, "the client has no address space: its VM_INIT is not in the trace")
    assert unknown[0] == 4
    assert "op 0, map [0x0, 0x1000) to handle 9 at 0x0, is refused" in unknown[1]
    assert kernel[0] == 5
    assert rows(trace, "SELECT count(*) FROM mappings") == [(0,)]


# -- objects, handles and files


def test_an_object_lives_as_long_as_it_is_mapped() -> None:
    trace = trace_of(
        vm_init(),
        gem_new(1),
        bind(op("map", 0, PAGE, 1)),
        gem_close(1),
        gem_new(1),
        bind(op("unmap", 0, PAGE)),
    )
    assert rows(trace, "SELECT id, born, died FROM objects") == [(2, 2, 6), (5, 5, None)]
    assert rows(trace, "SELECT born, handle, object, died FROM handles") == [(2, 1, 2, 4), (5, 1, 5, None)]


def test_clients_share_an_object_by_a_file() -> None:
    trace = trace_of(
        vm_init(1),
        vm_init(2),
        gem_new(4, client=1),
        call("prime_handle_to_fd", client=1, handle=4, flags=0, fd=7),
        call("prime_fd_to_handle", client=2, handle=1, fd=7),
        call("prime_fd_to_handle", client=2, handle=1, fd=7),
        bind(op("map", 0, PAGE, 1), client=2),
        gem_close(4, client=1),
        gem_close(1, client=2),
        call("close", client=2),
        call("prime_fd_to_handle", client=1, handle=9, fd=7),
        call("prime_fd_to_handle", client=1, handle=10, fd=8),
    )
    assert rows(trace, "SELECT born, client, handle, object, died FROM handles") == [
        (3, 1, 4, 3, 8),
        (5, 2, 1, 3, 9),
        (11, 1, 9, 3, None),
        (12, 1, 10, 12, None),
    ]
    assert rows(trace, "SELECT id, size, died FROM objects") == [(3, 1 << 20, None), (12, None, None)]
    assert rows(trace, "SELECT object, born, died FROM mappings") == [(3, 7, 10)]


def test_syncobjs_and_what_calls_are_about() -> None:
    trace = trace_of(
        syncobj(1),
        call("syncobj_handle_to_fd", handle=1, flags=0, point=0, fd=3),
        call("syncobj_fd_to_handle", client=2, fd=3, flags=0, point=0, handle=5),
        call("syncobj_handle_to_fd", handle=1, flags=1, point=2, fd=3),
        call("syncobj_fd_to_handle", client=2, fd=3, flags=0, point=0, handle=6),
        vm_init(2),
        channel_alloc(1, 2),
        execute(1, client=2, waits=[point(5, 9)], signals=[binary(6), binary(77)]),
        call("syncobj_transfer", client=2, src_handle=5, dst_handle=6, src_point=9, dst_point=0, flags=0),
        call("syncobj_destroy", handle=1),
        call("close", client=2),
        call("syncobj_wait", handles=[1], flags=0, ret=-2),
    )
    assert rows(trace, "SELECT id, died FROM syncobjs") == [(1, 11), (5, 11)]
    assert rows(trace, "SELECT call, role, handle, syncobj, timeline, point FROM syncs WHERE call > 7") == [
        (8, 0, 5, 1, 1, 9),
        (8, 1, 6, 5, 0, 0),
        (8, 1, 77, None, 0, 0),
        (9, 3, 5, 1, 1, 9),
        (9, 2, 6, 5, 0, 0),
        (10, 2, 1, 1, 0, 0),
        (12, 2, 1, None, 0, 0),
    ]


# -- clients


def test_a_client_takes_all_with_it() -> None:
    trace = trace_of(
        vm_init(),
        gem_new(1),
        syncobj(1),
        bind(op("map", 0, PAGE, 1), op("map", 1 << 20, 1 << 20, flags=SPARSE)),
        call("close"),
    )
    for table in ("objects", "handles", "syncobjs", "mappings", "regions"):
        assert rows(trace, f"SELECT died FROM {table}") == [(5,)], table
    assert rows(trace, "SELECT number, opened, closed FROM clients") == [(1, None, 7)]


def test_a_number_that_is_opened_twice_is_two_clients() -> None:
    lines = [
        vm_init(),
        gem_new(1),
        bind(op("map", 0, PAGE, 1)),
        vm_init(),
        gem_new(1),
        bind(op("map", 0, PAGE, 1)),
        call("close"),
        call("getparam", param=1),
        vm_init(2),
    ]
    trace = trace_of(*lines)
    assert rows(trace, "SELECT id, number FROM clients") == [(1, 1), (2, 1), (3, 1), (4, 2)]
    assert rows(trace, "SELECT client, object, born, died FROM mappings") == [(1, 2, 3, 4), (2, 5, 6, 7)]
    assert list(trace.records()) == records_of_lines(*lines)
    assert [one.line for one in trace.records(client=1)] == [*range(1, 9)]
    assert [(one.id, one.number) for one in trace.clients()] == [(1, 1), (2, 1), (3, 1), (4, 2)]


# -- jobs


def test_jobs_are_accepted_execs_and_asynchronous_binds() -> None:
    trace = trace_of(
        vm_init(),
        channel_alloc(3),
        execute(3, 0x1000),
        execute(3, 0x1000, ret=-19),
        {**bind(op("unmap", 0, PAGE)), "flags": 1},
        bind(op("unmap", 0, PAGE)),
        call("exec"),
    )
    assert rows(trace, "SELECT call, client, channel, queued FROM jobs") == [(3, 1, 3, None), (5, 1, 0, None)]
    assert rows(trace, "SELECT call, va, va_len FROM pushes") == [(3, 0x1000, 16), (4, 0x1000, 16)]
