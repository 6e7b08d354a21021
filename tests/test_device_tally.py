"""The books of a run: calls, refusals, what was lacking, what was left. Nothing is lost between threads."""

from __future__ import annotations

import ctypes
import errno
import struct
from collections.abc import Iterator

import pytest

from gpuvm.device.lacks import KEPT, TOLD, Lacks, UnknownIoctl
from gpuvm.device.tally import LEFT_KEPT, Left, Tally
from gpuvm.errors import CheckFailed
from gpuvm.mem import Domain
from gpuvm.nouveau import Client, Device, VmBindOp
from gpuvm.nouveau.uapi import numbers
from gpuvm.nouveau.uapi.caller import Caller
from gpuvm.sync import task
from suite import scaled

OWN = Caller.own()
GETPARAM = numbers.GETPARAM.request


@pytest.fixture
def device() -> Iterator[Device]:
    with Device(vram=64 << 20, gart=64 << 20) as device:
        yield device


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def tally(told: list[str]) -> Tally:
    return Tally(Client.drm_ioctl, told.append)


def structure(format: str, *values: int) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(struct.pack(format, *values), struct.calcsize(format))


def door(tally: Tally, client: Client, request: int, data: ctypes.Array[ctypes.c_char]) -> int:
    return tally.door(client, 3, request, ctypes.addressof(data), OWN)


def test_calls_of_all_threads_are_counted(device: Device, tally: Tally) -> None:
    client, rounds = device.open(), scaled(500, 20_000)

    def ask() -> None:
        chipset, unknown = structure("<QQ", 11, 0), structure("<QQ", 99, 0)
        for _ in range(rounds):
            assert door(tally, client, GETPARAM, chipset) == 0
            assert door(tally, client, GETPARAM, unknown) == -errno.EINVAL

    threads = [task.start(f"asks {number}", ask) for number in range(4)]
    for thread in threads:
        thread.join()
    counts = tally.statistics()
    assert counts.calls == {"GETPARAM": 8 * rounds}
    (refusal,) = counts.refusals
    assert (refusal.call, refusal.errno, refusal.times) == ("GETPARAM", errno.EINVAL, 4 * rounds)
    assert refusal.first.startswith("GETPARAM: param 99;")
    assert counts.lacks.params == {99: 4 * rounds}


def test_an_unknown_call_is_told_once(device: Device, tally: Tally, told: list[str]) -> None:
    client, data = device.open(), structure("<5I", 1, 2, 3, 4, 0x55667788)
    request = 3 << 30 | 20 << 16 | 0x649E
    for _ in range(3):
        assert door(tally, client, request, data) == -errno.EINVAL
    assert len(told) == 1
    assert told[0].startswith(
        "unknown ioctl 0xc014649e on descriptor 3: type 'd', number 0x9e, 20 bytes at 0x"
    )
    assert told[0].endswith(": 01000000 02000000 03000000 04000000 88776655")
    assert tally.statistics().lacks.ioctls == {UnknownIoctl(request): 3}
    assert tally.statistics().calls == {}


@pytest.mark.parametrize(("size", "told_bytes"), [(0, ": none"), (1000, f"{'00' * 4} and 744 more")])
def test_structures_of_any_size_are_told(
    device: Device, tally: Tally, told: list[str], size: int, told_bytes: str
) -> None:
    data = ctypes.create_string_buffer(1000)
    door(tally, device.open(), 3 << 30 | size << 16 | 0x019E, data)
    assert told[0].endswith(told_bytes)
    assert "type 0x1," in told[0]


def test_what_is_left_is_counted_before_it_is_gone(device: Device, tally: Tally) -> None:
    client = device.open(name="forgetful")
    tally.opened()
    client.vm_init(1 << 46, 1 << 46)
    handle = client.gem_new(1 << 20, Domain.GART).handle
    client.vm_bind([VmBindOp(0, 0, handle, 1 << 32, 0, 65536), VmBindOp(0, 0x100, 0, 1 << 33, 0, 1 << 30)])
    client.syncobjs.create(0)
    client.channel_alloc()
    tally.closing(client)
    client.close()
    tally.closed(client)
    counts = tally.statistics()
    assert counts.left == (Left("forgetful", 1, 1 << 20, 1, 1, 1, 1),)
    assert (counts.opens, counts.closed, counts.binds, counts.bind_ops) == (1, 1, 1, 2)
    assert counts.work.channels == 1
    tally.check()


def test_who_leaves_nothing_is_not_told(device: Device, tally: Tally) -> None:
    with device.open() as client:
        tally.opened()
        tally.closing(client)
    assert tally.statistics().left == ()
    tally.closed(client)
    tally.closed(client)
    with pytest.raises(CheckFailed, match="1 opens, 2 of them closed"):
        tally.check()


def test_books_do_not_grow_without_end(device: Device, tally: Tally) -> None:
    with device.open() as client:
        client.syncobjs.create(0)
        for _ in range(LEFT_KEPT + 5):
            tally.closing(client)
    counts = tally.statistics()
    assert (len(counts.left), counts.left_more) == (LEFT_KEPT, 5)
    lacks = Lacks()
    for number in range(KEPT + 5):
        lacks.path(b"/dev/nvidia%d" % number)
    lacks.path(b"/dev/nvidia0")
    asked = lacks.statistics()
    assert (len(asked.paths), asked.paths[b"/dev/nvidia0"], asked.others) == (KEPT, 2, 5)


def test_whatever_a_program_tries_it_is_told_in_few_lines() -> None:
    """And kept in little memory: there are 2^64 parameters."""
    lacks = Lacks()
    said = [lacks.ioctl(3, 0x64FF | number << 16, 0, OWN) for number in range(2 * KEPT)]
    lines = [line for line in said if line is not None]
    assert (len(lines), lines[-1]) == (TOLD + 1, "more unknown ioctls are only counted")
    asked = bytearray(16)
    there = ctypes.addressof(ctypes.c_char.from_buffer(asked))
    for number in range(2 * KEPT):
        struct.pack_into("<Q", asked, 0, 1000 + number)
        lacks.refused(numbers.GETPARAM.number, GETPARAM, errno.EINVAL, there, OWN)
    counts = lacks.statistics()
    assert (len(counts.ioctls), len(counts.params), counts.others) == (KEPT, KEPT, 2 * KEPT)


@pytest.mark.parametrize(
    ("data", "field", "expected"),
    [
        (
            structure("<BB4xBBQQB6xBQQIi", 0, 2, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0x1234),
            "nvif_classes",
            {0x1234: 1},
        ),
        (structure("<BB4xBBQQBB6x", 0, 4, 0, 0, 0, 0, 0, 7), "nvif_methods", {(4, 7): 1}),
        (structure("<BB4xBBQQ", 0, 9, 0, 0, 0, 0), "nvif_methods", {(9, 0): 1}),
    ],
)
def test_what_nvif_lacks_is_told(
    device: Device,
    tally: Tally,
    data: ctypes.Array[ctypes.c_char],
    field: str,
    expected: dict[object, int],
) -> None:
    request = 3 << 30 | len(data) << 16 | 0x6447
    assert door(tally, device.open(), request, data) == -errno.EINVAL
    assert getattr(tally.statistics().lacks, field) == expected
