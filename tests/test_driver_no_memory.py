"""Out of memory, or of threads, in any call: nothing is left of it, and it can be tried again."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress

import pytest

from driver_failures import SOURCES
from driver_world import (
    BIG,
    GART,
    HUGE,
    KERNEL,
    MIB,
    NO_SHARE,
    PAGE,
    VRAM,
    Program,
    device_of,
    map_op,
    sparse_op,
    unmap_op,
)
from gpuvm.errors import OutOfMemory
from gpuvm.nouveau.client import Client
from gpuvm.nouveau.device import Device
from gpuvm.sync import task
from suite import scaled

AT, REGION = HUGE, (16 * HUGE, HUGE)
CALLS: dict[str, Callable[[Client], object]] = {
    "vm_init": lambda client: client.vm_init(*KERNEL),
    "channel_alloc": lambda client: client.channel_alloc(),
    "gem_new": lambda client: client.gem_new(MIB, VRAM),
    "private gem_new": lambda client: client.gem_new(MIB, VRAM | NO_SHARE),
    "export": lambda client: os.close(client.prime_handle_to_fd(1)),
}


def left(device: Device) -> tuple[int, ...]:
    found = device.mem.statistics()
    used = (manager.used for manager in found.managers)
    return (found.objects, found.instance_memory, len(device.clients), *used)


@pytest.mark.parametrize("source", SOURCES)
def test_every_allocation(source: str) -> None:
    with device_of() as device:
        client = device.open()
        for name, call in CALLS.items():
            before = left(device)
            for number in range(100):
                with SOURCES[source](number):
                    try:
                        call(client)
                    except OutOfMemory:
                        pass
                    else:
                        break
                assert (name, left(device)) == (name, before)
            assert number < 99
        opening(device, source)


def opening(device: Device, source: str) -> None:
    before = left(device)
    for number in range(100):
        with SOURCES[source](number):
            try:
                device.open()
            except OutOfMemory:
                assert left(device) == before
            else:
                return


@pytest.mark.parametrize("name", ["vm_init", "channel_alloc"])
def test_no_more_threads(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    start, room = task.start, [0]

    def start_some(name: str, target: Callable[[], None]) -> task.Thread:
        room[0] -= 1
        if room[0] < 0:
            raise RuntimeError("can't start new thread")
        return start(name, target)

    monkeypatch.setattr(task, "start", start_some)
    with device_of() as device:
        client = device.open()
        before = threading.active_count()
        for some in range(10):
            room[0] = some
            try:
                CALLS[name](client)
            except OutOfMemory:
                assert threading.active_count() == before
            else:
                break
        assert 0 < some < 9
        room[0] = 100


@pytest.mark.parametrize("source", SOURCES)
def test_closing(source: str) -> None:
    """It may have to be called again."""
    with device_of() as device:
        for number in range(0, 100, scaled(7, 1)):
            program = Program(device)
            bos = [program.bo(HUGE, domain) for domain in (VRAM, GART)]
            program.bind(*(map_op(AT + at * HUGE, HUGE, bo.handle) for at, bo in enumerate(bos)))
            program.bind(unmap_op(AT + PAGE, BIG), sparse_op(*REGION))
            program.evict(bos[0])
            with SOURCES[source](number), suppress(OutOfMemory):
                program.client.close()
                break
            program.client.close()
            assert program.client.released.signalled
            assert left(device)[:3] == (0, 0, 0)
