"""Traces that are replayed through the driver, and what became of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gpuvm.trace.driver_client import DriverClient
from gpuvm.trace.driver_replay import DriverReplay
from gpuvm.trace.recorded import Record
from memory_traces import records_of
from tracefile import PAGE, Call, bind, call, gem_new, op, vm_init

PATIENCE = 0.02
"""Seconds, for what cannot come."""


@contextmanager
def replayed(*calls: Call, client: int | None = None) -> Iterator[DriverReplay]:
    """The trace after its last call; nothing may be left when it is closed."""
    with replay_of(records_of(*calls), client=client) as replay:
        yield replay


@contextmanager
def replay_of(records: list[Record], client: int | None = None) -> Iterator[DriverReplay]:
    with DriverReplay("trace", records, client=client, patience=PATIENCE) as replay:
        replay.run(records)
        replay.check()
        yield replay


def differences(*calls: Call) -> list[tuple[int, str, str]]:
    """Line, recorded and got of each."""
    with replayed(*calls) as replay:
        assert [one.call for one in replay.differences] == [
            calls[one.line - 1]["call"] for one in replay.differences
        ]
        assert sum(one.differing for one in replay.calls.values()) == len(replay.differences)
        return [(one.line, one.recorded, one.got) for one in replay.differences]


def only(replay: DriverReplay) -> DriverClient:
    (client,) = replay.clients.values()
    return client


def channel_alloc(channel: int, client: int = 1) -> Call:
    return call("channel_alloc", client=client, channel=channel)


def execute(
    channel: int, *vas: int, client: int = 1, size: int = 16, ret: int = 0, **syncs: list[Call]
) -> Call:
    pushes = [{"va": va, "va_len": size, "flags": 0} for va in vas]
    return call("exec", client=client, ret=ret, channel=channel, pushes=pushes, **syncs)


def syncobj(handle: int, client: int = 1, flags: int = 0) -> Call:
    return call("syncobj_create", client=client, handle=handle, flags=flags)


def binary(handle: int) -> Call:
    return {"type": "syncobj", "handle": handle, "value": 0}


def point(handle: int, value: int) -> Call:
    return {"type": "timeline", "handle": handle, "value": value}


READY = (vm_init(), gem_new(1), bind(op("map", 0, 16 * PAGE, 1)), channel_alloc(1))
"""A client with an address space, an object in it, and a channel."""
