"""A recorded trace is what the driver did: mappings, jobs, accesses, moves, table work, faults."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuvm.nouveau import VM_BIND_OP_MAP, VmBindOp
from gpuvm.nouveau.engine.push_buffer import PushBuffer
from gpuvm.nouveau.uapi import numbers
from gpuvm.trace.trace import Trace
from recorder_world import (
    FOREVER,
    PAGE,
    SPARSE,
    World,
    channel_alloc,
    exec,
    gem_new,
    vm_bind,
    vm_bind_async,
    vm_init,
)

BASE = 1 << 32
PUSHES = 1 << 40
TILE = 0x10000


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.close()


def rows(trace: Trace, query: str) -> list[Any]:
    return trace.db.execute(query).fetchall()


ops = st.tuples(
    st.sampled_from([(0, 0), (0, 0), (1, 0), (0, SPARSE)]),
    st.integers(0, 30),
    st.integers(1, 8),
    st.integers(0, 7),
)


@settings(max_examples=25)
@given(st.lists(st.tuples(st.booleans(), st.lists(ops, max_size=4)), max_size=12))
def test_the_mappings_are_the_drivers(calls: list[tuple[bool, list[Any]]]) -> None:
    """After any binds, waited for or not, accepted or refused; and what was written to page tables."""
    with closing(World()) as world:
        bind_and_compare(world, calls)


def bind_and_compare(world: World, calls: list[tuple[bool, list[Any]]]) -> None:
    client = world.open()
    vm_init(world, client)
    handle = gem_new(world, client)
    syncobj = world.call(client, numbers.SYNCOBJ_CREATE, "II", 0, 0)[0]
    before = client.page_table.work()
    for run_async, asked in calls:
        told = [
            (op, flags, handle if (op, flags) == (0, 0) else 0, BASE + at * PAGE, offset * PAGE, size * PAGE)
            for (op, flags), at, size, offset in asked
        ]
        try:
            if run_async:
                vm_bind_async(world, client, syncobj, *told)
            else:
                vm_bind(world, client, *told)
        except AssertionError:
            assert client.last_error  # refused
    client.settle()
    there = [] if client.vm is None else [(va.addr, va.range, va.offset) for va in client.vm if not va.kernel]
    work = client.page_table.work().since(before)
    trace = world.trace()
    left = "SELECT addr, range, bo_offset FROM mappings WHERE died IS NULL ORDER BY addr"
    assert rows(trace, left) == sorted(there)
    sums = "SELECT total(written), total(cleared), total(made), total(freed) FROM page_work"
    assert rows(trace, sums) == [(*work,)]
    assert rows(trace, "SELECT * FROM doubts") == []


def test_jobs_begin_and_end_in_order(world: World) -> None:
    client = world.open()
    vm_init(world, client)
    channel = channel_alloc(world, client)
    handle = gem_new(world, client)
    syncobj = world.call(client, numbers.SYNCOBJ_CREATE, "II", 0, 0)[0]
    vm_bind(world, client, (0, 0, handle, PUSHES, 0, TILE))
    for number in range(8):
        vm_bind_async(world, client, syncobj, (number % 2, 0, handle, BASE, 0, TILE))
        exec(world, client, channel, (PUSHES, 64))
    array = world.array("I", syncobj)
    world.call(client, numbers.SYNCOBJ_WAIT, "QqIIIIQ", array, FOREVER, 1, 0, 0, 0, 0)
    client.settle()
    trace = world.trace()
    jobs = rows(trace, "SELECT call, channel, queued, started, done, error FROM jobs ORDER BY call")
    assert [job[1] for job in jobs] == [0, channel] * 8
    assert all(queued <= started <= done and not error for *_, queued, started, done, error in jobs)
    times = rows(trace, "SELECT t, took FROM calls WHERE took IS NOT NULL")
    assert all(t >= 0 and took > 0 for t, took in times)
    fetches = rows(trace, "SELECT call, addr, range, access FROM accesses ORDER BY id")
    executed = [job[0] for job in jobs if job[1]]
    assert fetches == [(call, PUSHES, 64, "fetch") for call in executed]


def test_what_engines_did_belongs_to_its_exec(world: World) -> None:
    client = world.open()
    vm_init(world, client)
    channel = channel_alloc(world, client)
    handle = gem_new(world, client)
    vm_bind(world, client, (0, 0, handle, PUSHES, 0, TILE), (0, 0, handle, BASE, TILE, 4 * TILE))
    view = client.handles.lookup(handle).view
    for at, push in enumerate((PushBuffer().copy(BASE + TILE, BASE, TILE), PushBuffer().fill(BASE, 64, 1))):
        data = bytes(push)
        view[at * PAGE : at * PAGE + len(data)] = memoryview(data)
        exec(world, client, channel, (PUSHES + at * PAGE, len(data)))
    client.settle()
    trace = world.trace()
    first, second = (call for (call,) in rows(trace, "SELECT id FROM calls WHERE call = 'exec' ORDER BY id"))
    found = rows(trace, "SELECT call, engine, access, addr, range FROM accesses WHERE code < 2 ORDER BY id")
    assert found == [
        (first, "copy", "read", BASE, TILE),
        (first, "copy", "write", BASE + TILE, TILE),
        (second, "copy", "write", BASE, 64),
    ]


def test_a_fault_names_its_calls(world: World) -> None:
    client = world.open()
    vm_init(world, client)
    channel = channel_alloc(world, client)
    handle = gem_new(world, client)
    vm_bind(world, client, (0, 0, handle, PUSHES, 0, TILE))
    vm_bind(world, client, (0, 0, handle, BASE, 0, TILE))
    vm_bind(world, client, (1, 0, 0, BASE, 0, TILE))
    data = bytes(PushBuffer().copy(PUSHES + PAGE, BASE, 64))
    client.handles.lookup(handle).view[: len(data)] = memoryview(data)
    exec(world, client, channel, (PUSHES, len(data)))
    client.settle()
    exec(world, client, channel, (PUSHES, len(data)), ret=-errno.ENODEV)
    trace = world.trace()
    calls = dict(
        rows(trace, "SELECT row_number() OVER (PARTITION BY call ORDER BY id) || call, id FROM calls")
    )
    (fault,) = rows(trace, "SELECT call, addr, access, cause, engine, mapped, unmapped, report FROM faults")
    *known, report = fault
    mapped, unmapped = calls["2vm_bind"], calls["3vm_bind"]
    assert known == [calls["1exec"], BASE, "READ", "use after unmap", "copy", mapped, unmapped]
    assert json.loads(report)["cause"] == "USE_AFTER_UNMAP"
    (job,) = rows(trace, "SELECT error FROM jobs WHERE channel")
    assert job == (errno.ENODEV,)


def test_moves_are_of_objects() -> None:
    with closing(World(vram=16 << 20)) as world:
        move_and_compare(world)


def move_and_compare(world: World) -> None:
    client = world.open()
    vm_init(world, client)
    handles = [gem_new(world, client, 6 << 20) for _ in range(3)]
    for number, handle in enumerate(handles):
        vm_bind(world, client, (0, 0, handle, BASE + (number << 30), 0, 6 << 20))
    counted = world.device.mem.statistics()
    client.close()
    trace = world.trace()
    moves = rows(trace, "SELECT object, size, source, target, evicted FROM moves")
    made = [call for (call,) in rows(trace, "SELECT id FROM objects")]
    assert {move[0] for move in moves} == {*made}
    assert sum(evicted for *_, evicted in moves) == counted.evictions > 0
    assert sum(move[3] is None for move in moves) <= len(handles)


def test_a_handle_that_is_not_answered_means_nothing(world: World) -> None:
    """A request that only writes: what the program left in the field is no handle of the new object."""
    client = world.open()
    vm_init(world, client)
    handle = gem_new(world, client)
    made = handle, 2, PAGE, 0, 0, 0, 0, 0, PAGE
    assert world.call(client, numbers.GEM_NEW, "IIQQQIIII", *made, direction=1) == made
    vm_bind(world, client, (0, 0, handle, BASE, 0, TILE))
    trace = world.trace()
    assert rows(trace, "SELECT id, size FROM objects") == [(2, 1 << 20), (3, PAGE)]
    assert rows(trace, "SELECT object FROM mappings") == [(2,)]


def test_calls_that_are_not_made_as_ioctls_hold_nothing_up(world: World) -> None:
    """A library's own calls are not in the trace; what is done for them is, and belongs to none that are."""
    client = world.open()
    vm_init(world, client)
    handle = client.gem_new(1 << 20, 2).handle
    vm_bind(world, client, (0, 0, handle, BASE, 0, TILE))
    client.vm_bind([VmBindOp(VM_BIND_OP_MAP, 0, handle, BASE + TILE, 0, TILE)], run_async=True)
    vm_bind(world, client, (0, 0, handle, BASE + (1 << 30), 0, TILE))
    client.settle()
    trace = world.trace()
    assert [call for (call,) in rows(trace, "SELECT call FROM calls")] == ["vm_init", "vm_bind", "vm_bind"]
    assert [call for (call,) in rows(trace, "SELECT call FROM page_work")] == [2, 3]
    assert rows(trace, "SELECT call, error FROM fences") == [(None, 0)]


def test_an_exception_out_of_a_call_holds_nothing_up(world: World) -> None:
    client = world.open()
    vm_init(world, client)
    handle = gem_new(world, client)
    close = client.gem_close

    def interrupted(handle: int) -> None:
        close(handle)
        raise KeyboardInterrupt

    client.gem_close = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        world.call(client, numbers.GEM_CLOSE, "II", handle, 0)
    world.call(client, numbers.GETPARAM, "QQ", 11, 0)
    assert [line["call"] for line in world.lines()] == ["vm_init", "gem_new", "getparam"]
