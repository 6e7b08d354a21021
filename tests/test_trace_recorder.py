"""The recorder: what a program's calls were about, in an order in which they can be made again."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gpuvm.nouveau import Client
from gpuvm.nouveau.uapi import numbers
from gpuvm.sync import task
from gpuvm.trace import frames
from gpuvm.trace.call_numbers import NUMBERS
from gpuvm.trace.told import TOLD
from gpuvm.trace.told_calls import Made, record_of
from recorder_world import FOREVER, KERNEL, PAGE, SPARSE, World, gem_new, vm_bind, vm_init


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.close()


def test_a_programs_calls_are_told_as_the_examples_are(world: World) -> None:
    client = world.open()
    vm_init(world, client)
    handle = gem_new(world, client)
    vm_bind(world, client, (0, SPARSE, 0, 1 << 32, 0, 1 << 30), (0, 6, handle, 1 << 32, PAGE, 0x10000))
    lines = world.lines()
    times = [line.pop("t") for line in lines]
    assert times == sorted(times)
    assert lines == [
        {"client": 1, "call": "vm_init", "kernel_addr": KERNEL, "kernel_size": KERNEL, "ret": 0},
        {
            "client": 1,
            "call": "gem_new",
            "domain": 2,
            "size": 1 << 20,
            "align": PAGE,
            "tile_mode": 0,
            "tile_flags": 0,
            "handle": handle,
            "ret": 0,
        },
        {
            "client": 1,
            "call": "vm_bind",
            "flags": 0,
            "waits": [],
            "signals": [],
            "ops": [
                {"op": "map", "flags": 256, "handle": 0, "addr": 1 << 32, "bo_offset": 0, "range": 1 << 30},
                {
                    "op": "map",
                    "flags": 6,
                    "handle": handle,
                    "addr": 1 << 32,
                    "bo_offset": PAGE,
                    "range": 0x10000,
                },
            ],
            "ret": 0,
        },
    ]
    client.close()


def sync(world: World, client: Client) -> None:
    """All about sync objects and channels."""
    channel = world.call(client, numbers.CHANNEL_ALLOC, "IIiII64sI", 0, 0, 0, 0, 0, b"", 0)[2]  # type: ignore[arg-type]
    done, other = (world.call(client, numbers.SYNCOBJ_CREATE, "II", 0, 0)[0] for _ in range(2))
    signal = world.array("IIQ", 1, done, 7)
    wait = world.array("IIQ", 0, other, 0)
    handles, points = world.array("I", done), world.array("Q", 7)
    one = world.array("I", other)
    world.call(client, numbers.SYNCOBJ_SIGNAL, "QII", one, 1, 0)
    world.call(client, numbers.EXEC, "IIIIQQQ", channel, 0, 1, 1, wait, signal, 0)
    world.call(client, numbers.SYNCOBJ_TIMELINE_WAIT, "QQqIIIIQ", handles, points, FOREVER, 1, 2, 0, 0, 0)
    world.call(client, numbers.SYNCOBJ_QUERY, "QQII", handles, world.array("Q", 0), 1, 0)
    world.call(client, numbers.SYNCOBJ_TIMELINE_SIGNAL, "QQII", handles, world.array("Q", 9), 1, 0)
    world.call(client, numbers.SYNCOBJ_TRANSFER, "IIQQII", done, other, 9, 0, 0, 0)
    world.call(client, numbers.SYNCOBJ_WAIT, "QqIIIIQ", one, 0, 1, 0, 0, 0, 0)
    world.call(client, numbers.SYNCOBJ_RESET, "QII", one, 1, 0)
    world.call(client, numbers.SYNCOBJ_WAIT, "QqIIIIQ", one, 0, 1, 2, 0, 0, 0, ret=-errno.ETIME)
    world.call(client, numbers.SYNCOBJ_DESTROY, "II", done, 0)
    world.call(client, numbers.SYNCOBJ_DESTROY, "II", done, 0, ret=-errno.EINVAL)
    world.call(client, numbers.CHANNEL_FREE, "i", channel)


def test_what_was_recorded_is_replayed_without_a_difference(world: World) -> None:
    client = world.open()
    world.call(client, numbers.GETPARAM, "QQ", 11, 0)
    world.call(client, numbers.GETPARAM, "QQ", 99, 0, ret=-errno.EINVAL)
    world.call(client, numbers.GET_CAP, "QQ", 0x13, 0)
    world.call(client, numbers.GET_CAP, "QQ", 0x99, 0, ret=-errno.EOPNOTSUPP)
    vm_bind(world, client, (0, 0, 1, 0, 0, PAGE), ret=-errno.ENOSYS)
    vm_init(world, client)
    handle = gem_new(world, client)
    vm_bind(world, client, (0, SPARSE, 0, 1 << 32, 0, 1 << 30), (0, 0, handle, 1 << 32, 0, 0x10000))
    vm_bind(world, client, (0, 0, 77, 1 << 32, 0, PAGE), ret=-errno.ENOENT)
    vm_bind(world, client, (1, 0, 0, (1 << 32) + PAGE, 0, PAGE))
    sync(world, client)
    world.call(client, numbers.GEM_INFO, "IIQQQII", handle, 0, 0, 0, 0, 0, 0)
    world.call(client, numbers.GEM_CPU_PREP, "II", handle, 0)
    world.call(client, numbers.GEM_CPU_FINI, "I", handle)
    world.call(client, numbers.GEM_CLOSE, "II", handle, 0)
    client.close()
    replay = world.replay()
    assert replay.differences == []
    assert sum(one.not_made for one in replay.calls.values()) == 0
    assert replay.calls["vm_bind"].made == 4
    assert world.lines()[-1]["call"] == "close"


def test_files_have_numbers_of_their_own(world: World) -> None:
    """Two programs know one file by different numbers; the trace has one for it."""
    giver, taker = world.open(), world.open()
    vm_init(world, giver)
    vm_init(world, taker)
    first, second = gem_new(world, giver), gem_new(world, giver, 2 << 20)
    fds = [world.call(giver, numbers.PRIME_HANDLE_TO_FD, "IIi", one, 2, 0)[2] for one in (first, second)]
    copy = os.dup(fds[1])
    taken = world.call(taker, numbers.PRIME_FD_TO_HANDLE, "IIi", 0, 0, copy)[0]
    world.call(taker, numbers.GEM_INFO, "IIQQQII", taken, 0, 0, 0, 0, 0, 0)
    told = [line["fd"] for line in world.lines() if line["call"].startswith("prime")]
    assert told == [0, 1, 1]
    for fd in (*fds, copy):
        os.close(fd)
    giver.close()
    taker.close()
    assert world.replay().differences == []


def test_a_wait_stands_behind_what_it_waited_for(world: World) -> None:
    """The signal's thread may be slow to tell that it has signalled."""
    client = world.open()
    handle = world.call(client, numbers.SYNCOBJ_CREATE, "II", 0, 0)[0]
    array = world.array("I", handle)
    wait = task.start(
        "waits",
        lambda: void(world.call(client, numbers.SYNCOBJ_WAIT, "QqIIIIQ", array, FOREVER, 1, 2, 0, 0, 0)),
    )
    place = world.spool.place()  # a signal begins, and the wait ends before it does
    world.call(client, numbers.SYNCOBJ_SIGNAL, "QII", array, 1, 0)
    wait.join()
    assert [one["call"] for one in world.lines()] == ["syncobj_create"]
    world.spool.tell_at(place, frames.NOTHING)
    world.call(client, numbers.GETPARAM, "QQ", 11, 0)
    calls = [one["call"] for one in world.lines()]
    assert calls == ["syncobj_create", "syncobj_signal", "syncobj_wait", "getparam"]
    client.close()


def void(_: object) -> None:
    pass


def test_what_a_trace_has_no_words_for_is_left_out(world: World) -> None:
    client = world.open()
    vm_init(world, client)
    vm_bind(world, client, (2, 0, 0, 0, 0, PAGE), ret=-errno.EINVAL)
    assert world.recorder.statistics().calls == 2
    assert [line["call"] for line in world.lines()] == ["vm_init"]
    client.close()


def test_all_calls_are_told() -> None:
    from gpuvm.nouveau.uapi.calls import CALLS

    assert {ioctl.number for ioctl in CALLS} == TOLD.keys()
    for number in TOLD:
        refused = record_of(number, (1, 0, 1, -errno.EFAULT), Made(0, 0, [], [], None))
        assert NUMBERS[refused.call] == number


def test_the_program_changes_its_memory_meanwhile(world: World) -> None:
    """What is told is what the driver copied."""
    client = world.open()
    vm_init(world, client)
    handle = gem_new(world, client)
    op = ctypes.create_string_buffer(struct.pack("<IIIIQQQ", 0, 0, handle, 0, 1 << 32, 0, PAGE))
    bind: Callable[..., None] = client.vm_bind

    def changed(*args: Any, **named: Any) -> None:
        ctypes.memset(op, 0xFF, len(op))
        bind(*args, **named)

    client.vm_bind = changed  # type: ignore[method-assign]
    world.call(client, numbers.VM_BIND, "IIIIQQQ", 1, 0, 0, 0, 0, 0, ctypes.addressof(op))
    assert world.lines()[-1]["ops"][0]["addr"] == 1 << 32
    client.close()
