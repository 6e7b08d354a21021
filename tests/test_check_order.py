"""What comes before what, against a search for paths in a graph of everything that waits."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

import suite
from gpuvm.trace.order import Order
from order_model import OrderModel
from trace_scenes import trace_of
from tracefile import Call

ADDR = 1 << 32
SHARED = 3  # client 1's name for a sync object that client 2 calls 4
HANDLES = {1: (1, 2, 3), 2: (1, 2, 4)}
FILES = (20, 21)


def call(client: int, name: str, **fields: Any) -> Call:
    return {"t": 0, "client": client, "call": name, "ret": 0, **fields}


def bind(client: int, flags: int, **syncs: Any) -> Call:
    op = {"op": "map", "flags": 0, "handle": 1, "addr": ADDR, "bo_offset": 0, "range": 4096}
    return call(client, "vm_bind", flags=flags, ops=[op], **syncs)


def prologue() -> list[Call]:
    calls = []
    for client in (1, 2):
        calls.append(call(client, "vm_init", kernel_addr=1 << 46, kernel_size=1 << 46))
        calls += [call(client, "channel_alloc", channel=channel) for channel in (1, 2)]
        calls += [call(client, "syncobj_create", handle=handle, flags=0) for handle in (1, 2)]
        calls.append(call(client, "gem_new", handle=1, size=4096, domain=4))
        calls.append(bind(client, 0))
    calls.append(call(1, "syncobj_create", handle=SHARED, flags=1))
    calls.append(call(1, "syncobj_handle_to_fd", handle=SHARED, flags=0, point=0, fd=9))
    calls.append(call(2, "syncobj_fd_to_handle", handle=4, flags=0, point=0, fd=9))
    return calls


points = st.integers(0, 5)


@st.composite
def syncs(draw: st.DrawFn, client: int) -> list[dict[str, Any]]:
    found = []
    for _ in range(draw(st.integers(0, 2))):
        point = draw(points)
        kind = {"type": "timeline", "value": point} if point else {"type": "syncobj"}
        found.append({**kind, "handle": draw(st.sampled_from(HANDLES[client]))})
    return found


@st.composite
def calls_of(draw: st.DrawFn) -> Call:
    client = draw(st.sampled_from((1, 2)))
    handle = st.sampled_from(HANDLES[client])
    several = draw(st.lists(handle, min_size=1, max_size=3))
    at = [draw(points) for _ in several]
    match draw(st.integers(0, 15)):
        case 0 | 1 | 2 | 3 | 4:
            channel = draw(st.sampled_from((1, 2)))
            waits, signals = draw(syncs(client)), draw(syncs(client))
            return call(client, "exec", channel=channel, waits=waits, signals=signals, pushes=[])
        case 5 | 6:
            return bind(client, 1, waits=draw(syncs(client)), signals=draw(syncs(client)))
        case 7:
            return bind(client, 0)
        case 8:
            return call(client, "syncobj_wait", handles=several, flags=draw(st.sampled_from((0, 1, 2))))
        case 9:
            flags = draw(st.sampled_from((0, 1, 4, 5)))
            return call(client, "syncobj_timeline_wait", handles=several, points=at, flags=flags)
        case 10:
            return call(client, "syncobj_query", handles=several, points=at, flags=draw(st.integers(0, 1)))
        case 11:
            return call(client, draw(st.sampled_from(("syncobj_reset", "syncobj_signal"))), handles=several)
        case 12:
            return call(client, "syncobj_timeline_signal", handles=several, points=[one or 1 for one in at])
        case 13:
            ends = {"src_handle": several[0], "dst_handle": several[-1]}
            return call(client, "syncobj_transfer", **ends, src_point=at[0], dst_point=draw(points), flags=0)
        case 14:
            name = draw(st.sampled_from(("syncobj_handle_to_fd", "syncobj_fd_to_handle")))
            fd = draw(st.sampled_from(FILES))
            return call(client, name, handle=several[0], flags=1, point=at[0], fd=fd)
        case _:
            name, field = draw(st.sampled_from((("gem_cpu_prep", "handle"), ("channel_free", "channel"))))
            return call(client, name, **{field: 1}, **({"flags": 0} if name == "gem_cpu_prep" else {}))


@settings(max_examples=suite.scaled(60, 5000), deadline=None)
@given(st.lists(calls_of(), max_size=25))
def test_order_is_that_of_paths(drawn: list[Call]) -> None:
    calls = prologue() + drawn
    model = OrderModel(calls)
    with trace_of(*calls) as trace:
        order = Order(trace)
    order.check()
    assert order.statistics().jobs == len(model.jobs)
    for first in model.jobs:
        behind = range(first + 1, len(calls) + 2)
        assert [second for second in behind if order.before(first, second)] == model.after(first), first


def execs_are_known(*waits: Call) -> bool:
    """Whether the program knows after the waits that an EXEC is done, which signals two points."""
    signals = [{"type": "timeline", "handle": 1, "value": 2}, {"type": "syncobj", "handle": 2}]
    calls = [*prologue(), call(1, "exec", channel=1, waits=[], signals=signals, pushes=[]), *waits]
    with trace_of(*calls) as trace:
        return Order(trace).before(len(calls) - len(waits), len(calls) + 1)


def test_which_waits_tell_that_a_job_is_done() -> None:
    def waited(handles: list[int], at: list[int], flags: int, ret: int = 0) -> Call:
        return call(1, "syncobj_timeline_wait", handles=handles, points=at, flags=flags) | {"ret": ret}

    assert not execs_are_known()
    assert execs_are_known(waited([1], [2], 0))
    assert execs_are_known(waited([1], [1], 0))
    assert not execs_are_known(waited([1], [3], 0))  # a point that is not there yet is somebody else's
    assert not execs_are_known(waited([1], [2], 4)), "WAIT_AVAILABLE"
    assert not execs_are_known(waited([1], [2], 0, ret=-62)), "ETIME"
    assert not execs_are_known(waited([1, 3], [2, 0], 0)), "any of them"
    assert execs_are_known(waited([1, 3], [2, 0], 1)), "WAIT_ALL"
    assert execs_are_known(call(1, "syncobj_query", handles=[1], points=[2], flags=0))
    assert not execs_are_known(call(1, "syncobj_query", handles=[1], points=[2], flags=1)), "LAST_SUBMITTED"
    assert not execs_are_known(call(1, "syncobj_query", handles=[1], points=[0], flags=0))
    assert execs_are_known(call(1, "gem_cpu_prep", handle=1, flags=0))
    assert not execs_are_known(call(2, "gem_cpu_prep", handle=1, flags=0))
    assert execs_are_known(call(1, "channel_free", channel=1))
    assert not execs_are_known(call(1, "channel_free", channel=2))
    assert not execs_are_known(bind(1, 0))
