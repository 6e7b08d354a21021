"""fdinfo: its format by the rules of drm-usage-stats, its numbers against the objects.

The rules are written anew from the document, as a monitoring tool has them.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass

import pytest

import pushbuf
from fault_driver_scene import GART, MIB, NO_SHARE, PUSHES, VRAM, driven, ended
from gpuvm.nouveau.client import Client
from gpuvm.nouveau.device import Device
from gpuvm.nouveau.fdinfo import ENGINES
from gpuvm.nouveau.uapi.requests import VmBindOp
from gpuvm.sync.fence import Fence, fence_context_alloc
from gpuvm.sync.resv import Usage

UNSIGNED = r"\d+"
KEY = r"[^\s:]+"
SIZE = rf"{UNSIGNED}( KiB| MiB)?"
RULES = {
    r"drm-driver": r"\S.*",
    r"drm-client-id": UNSIGNED,
    r"drm-pdev": r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]",
    r"drm-client-name": r"\S.*",
    rf"drm-engine-{KEY}": rf"{UNSIGNED} ns",
    rf"drm-(total|shared|resident|purgeable|active)-{KEY}": SIZE,
}
"""Keys that we use, and what their values look like."""

UNITS = {"": 1, " KiB": 1 << 10, " MiB": 1 << 20}


@dataclass
class Memory:
    total: int
    shared: int = 0
    active: int = 0
    resident: int = 0


def pairs(text: str) -> dict[str, str]:
    """Keys and values, as a monitoring tool reads them; each line against the rules."""
    found: dict[str, str] = {}
    assert text.endswith("\n")
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        assert colon
        assert key not in found, "each key comes once"
        found[key] = value.strip(" \t")
        values = [rule for name, rule in RULES.items() if re.fullmatch(name, key)]
        assert len(values) == 1, f"no rule for {key}"
        assert re.fullmatch(values[0], found[key]), line
    return found


def size(value: str) -> int:
    number, unit = re.fullmatch(rf"({UNSIGNED})({'|'.join(UNITS)})", value).groups()  # type: ignore[union-attr] # it has passed the rules
    return int(number) * UNITS[unit]


def memory(client: Client, region: str = "vram") -> Memory:
    found = pairs(client.fdinfo())
    parts = ("total", "shared", "active", "resident")
    return Memory(*(size(found[f"drm-{part}-{region}"]) for part in parts))


def busy(client: Client) -> dict[str, int]:
    found = pairs(client.fdinfo())
    return {engine: int(found[f"drm-engine-{engine}"].removesuffix(" ns")) for engine in ENGINES}


def alone() -> tuple[Device, Client]:
    """A client with an address space and nothing else."""
    device = Device(vram=64 * MIB, gart=64 * MIB)
    client = device.open(name="unit test")
    client.vm_init(1 << 39, 1 << 39)
    return device, client


# -- its format


def test_all_keys_are_there_and_no_other() -> None:
    device, client = alone()
    with device:
        regions = ("vram", "gart")
        parts = ("total", "shared", "active", "resident", "purgeable")
        assert list(pairs(client.fdinfo())) == [
            "drm-driver",
            "drm-client-id",
            "drm-pdev",
            "drm-client-name",
            *(f"drm-engine-{engine}" for engine in ENGINES),
            *(f"drm-{part}-{region}" for region in regions for part in parts),
        ]
        found = pairs(client.fdinfo())
        assert (found["drm-driver"], found["drm-client-name"]) == ("nouveau", "unit test")


def test_clients_are_told_apart() -> None:
    with Device(vram=MIB, gart=MIB) as device:
        clients = [device.open() for _ in range(5)]
        ids = [pairs(client.fdinfo())["drm-client-id"] for client in clients]
        assert len(set(ids)) == 5
        slots = {pairs(client.fdinfo())["drm-pdev"] for client in clients}
        assert len(slots) == 1, "ids are unique on the device, which pdev names"


def test_the_rules_have_teeth() -> None:
    for wrong in ("drm-total-vram:\t1 GiB\n", "drm-total-vram:\t1KiB\n", "drm-x:\t1\n", "no colon\n"):
        with pytest.raises(AssertionError):
            pairs(wrong)


@pytest.mark.parametrize(
    ("bytes_", "text"),
    [(0, "0"), (4096, "4 KiB"), (MIB, "1 MiB"), (MIB + 4096, "1028 KiB"), (3 * MIB, "3 MiB")],
)
def test_units(bytes_: int, text: str) -> None:
    """The largest that leaves no remainder, as ``drm_fdinfo_print_size`` has it."""
    device, client = alone()
    with device:
        if bytes_:
            client.gem_new(bytes_, VRAM)
        assert pairs(client.fdinfo())["drm-total-vram"] == text


# -- memory


def test_objects_count_where_they_are() -> None:
    device, client = alone()
    with device:
        assert memory(client) == memory(client, "gart") == Memory(0)
        handle = client.gem_new(MIB, VRAM | GART).handle
        assert memory(client) == Memory(MIB)  # it lies nowhere, and would rather be there
        client.vm_bind([VmBindOp(0, 0, handle, MIB, 0, MIB)])
        assert memory(client) == Memory(MIB, resident=MIB)
        obj = client.handles.lookup(handle)
        with obj.resv:
            device.mem.evict(obj)
        assert memory(client) == Memory(0)
        assert memory(client, "gart") == Memory(MIB, resident=MIB)
        with obj.resv:
            device.mem.evict(obj)
        del obj
        assert memory(client, "gart") == Memory(0)
        assert memory(client) == Memory(MIB)  # on the CPU's side: of no region, and not resident
        client.vm_bind([VmBindOp(1, 0, 0, MIB, 0, MIB)])
        client.gem_close(handle)
        assert memory(client) == Memory(0)


def test_objects_of_gart() -> None:
    device, client = alone()
    with device:
        client.gem_new(MIB, GART)
        assert (memory(client), memory(client, "gart")) == (Memory(0), Memory(MIB))


def test_an_object_counts_once_however_many_handles_it_has() -> None:
    device, client = alone()
    with device:
        handle = client.gem_new(MIB, VRAM).handle
        client.handles.create(client.handles.lookup(handle))
        assert memory(client) == Memory(MIB, shared=MIB)


def test_what_is_exported_is_shared() -> None:
    device, client = alone()
    with device, device.open() as other:
        other.vm_init(1 << 39, 1 << 39)
        handle = client.gem_new(MIB, VRAM).handle
        client.gem_new(2 * MIB, VRAM)
        assert memory(client) == Memory(3 * MIB)
        fd = client.prime_handle_to_fd(handle)
        assert memory(client) == Memory(3 * MIB, shared=MIB)
        imported = other.prime_fd_to_handle(fd)
        os.close(fd)
        assert memory(client) == Memory(3 * MIB, shared=MIB)
        assert memory(other) == Memory(MIB, shared=MIB)
        client.gem_close(handle)
        assert memory(client) == Memory(2 * MIB)
        assert memory(other).total == MIB
        other.gem_close(imported)
        assert memory(other) == Memory(0)


def test_private_objects_are_never_shared() -> None:
    device, client = alone()
    with device:
        client.gem_new(MIB, VRAM | NO_SHARE)
        assert memory(client) == Memory(MIB)


@pytest.mark.parametrize(
    ("usage", "active"),
    [(Usage.KERNEL, True), (Usage.WRITE, True), (Usage.READ, True), (Usage.BOOKKEEP, False)],
)
def test_what_a_fence_makes_active(usage: Usage, active: bool) -> None:
    """Any up to READ, as in ``drm_show_memory_stats``; a bind, which is BOOKKEEP, does not."""
    device, client = alone()
    with device:
        handle = client.gem_new(MIB, VRAM).handle
        client.gem_new(MIB, VRAM)
        fence = Fence(fence_context_alloc(), 1)
        resv = client.handles.lookup(handle).resv
        with resv:
            resv.reserve_fences(1)
            resv.add_fence(fence, usage)
        assert memory(client).active == (MIB if active else 0)
        fence.signal()
        assert memory(client).active == 0
        del resv


def test_active_while_an_exec_uses_the_space() -> None:
    """Its fence is in the reservation of the space, which private objects share, and in all external ones."""
    with driven() as it:
        private = it.client.gem_new(MIB, VRAM | NO_SHARE).handle
        it.bind(VmBindOp(0, 0, private, 32 * MIB, 0, MIB))
        external = it.map(64 * MIB, 2 * MIB)
        it.new(4 * MIB)  # neither private nor mapped
        sem = it.map(96 * MIB, 1 << 16, GART)
        assert memory(it.client).active == 0
        fence = it.exec(pushbuf.Push().acquire(96 * MIB, 1))
        assert memory(it.client).active == 3 * MIB
        assert memory(it.client).total == 7 * MIB
        it.view(sem)[0] = 1
        assert ended(fence) == 0
        assert memory(it.client).active == 0
        assert external


# -- engines


def test_engines_work_for_those_who_send_something() -> None:
    with driven() as it:
        it.map(32 * MIB, MIB)
        idle = it.device.open()
        before = busy(it.client)
        assert not any(before.values())
        assert it.copy(32 * MIB, PUSHES, 1 << 16) == 0
        after = busy(it.client)
        assert after["copy"] > 0
        assert not any(after[engine] for engine in ENGINES if engine != "copy")
        assert not any(busy(idle).values())


def test_what_freed_channels_did_still_counts() -> None:
    with driven() as it:
        it.map(32 * MIB, MIB)
        for _ in range(2):
            channel = it.client.channel_alloc()
            assert it.run(pushbuf.Push().copy(32 * MIB, PUSHES, 1 << 16), channel) == 0
            before = busy(it.client)["copy"]
            it.client.channel_free(channel.id)
            assert busy(it.client)["copy"] == before > 0


def test_each_engine_counts_for_itself() -> None:
    with driven() as it:
        sem = it.map(32 * MIB, 1 << 16, GART)
        assert it.run(pushbuf.Push().timestamp(32 * MIB)) == 0
        assert [engine for engine, time in busy(it.client).items() if time] == ["3d"]
        assert it.view(sem)[8:16].any()


def test_waiting_is_no_work() -> None:
    """Neither a channel's at a semaphore, nor that of one whose push did nothing else."""
    with driven() as it:
        sem = it.map(32 * MIB, 1 << 16, GART)
        fence = it.exec(pushbuf.Push().acquire(32 * MIB, 1))
        it.view(sem)[0] = 1
        assert ended(fence) == 0
        assert not any(busy(it.client).values())


def test_counting_is_not_changed_by_looking() -> None:
    with driven() as it:
        it.map(32 * MIB, MIB)
        lines = Counter(it.client.fdinfo().splitlines())
        assert lines == Counter(it.client.fdinfo().splitlines())
        it.device.check()
