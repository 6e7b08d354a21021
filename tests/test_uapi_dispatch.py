"""Dispatch: numbers, sizes and directions of requests, structures shorter and longer than today's, errnos."""

from __future__ import annotations

import errno
import os
import random
from array import array
from collections.abc import Iterator

import pytest

from gpuvm.errors import TooMany
from gpuvm.nouveau.client import Client
from gpuvm.nouveau.device import Device
from gpuvm.nouveau.uapi import numbers, structs
from gpuvm.nouveau.uapi.calls import CALLS
from gpuvm.nouveau.uapi.numbers import Direction, Ioctl
from uapi_program import Program, fields_of, filled

IOCTLS = sorted(CALLS, key=lambda ioctl: ioctl.number)
CHIPSET_ID = 11


@pytest.fixture
def client() -> Iterator[Client]:
    with Device(vram=16 << 20, gart=16 << 20) as device, device.open() as client:
        yield client
        client.check()


@pytest.fixture
def program(client: Client) -> Program:
    return Program(client)


def request(ioctl: Ioctl, *, size: int | None = None, direction: int | None = None) -> int:
    code = ioctl.request
    if size is not None:
        code = code & ~(0x3FFF << 16) | size << 16
    if direction is not None:
        code = code & (1 << 30) - 1 | direction << 30
    return code


# -- numbers


def test_numbers_that_nobody_knows(client: Client) -> None:
    known = {ioctl.number for ioctl in IOCTLS}
    for number in set(range(0x100)) - known:
        refused = -errno.EOPNOTSUPP if number in numbers.OF_DISPLAYS else -errno.EINVAL
        data = bytearray(b"\xaa" * 64)
        assert client.ioctl(number, data) == refused
        assert client.ioctl(0xC0406400 | number, data) == refused
        assert data == b"\xaa" * 64


@pytest.mark.parametrize("ioctl", IOCTLS, ids=lambda ioctl: ioctl.name)
def test_another_type_is_no_call_of_ours(client: Client, ioctl: Ioctl) -> None:
    for type_ in {0, ord("W"), ord(">"), numbers.TYPE - 1, numbers.TYPE + 1, 0xFF} - {numbers.TYPE}:
        data = bytearray(b"\xaa" * 128)
        assert client.ioctl(ioctl.request & ~0xFF00 | type_ << 8 | 1 << 30, data) == -errno.ENOTTY
        assert data == b"\xaa" * 128


@pytest.mark.parametrize("code", [numbers.GETPARAM.number, numbers.GETPARAM.request])
def test_a_number_alone_and_a_request(client: Client, code: int) -> None:
    data = filled(structs.GETPARAM, param=CHIPSET_ID)
    assert client.ioctl(code, data) == 0
    assert fields_of(structs.GETPARAM, data) == {"param": CHIPSET_ID, "value": 0x162}


def test_every_kind_of_buffer(client: Client) -> None:
    longs = array("Q", [CHIPSET_ID, 0])
    assert client.ioctl(numbers.GETPARAM.request, longs) == 0
    assert longs.tolist() == [CHIPSET_ID, 0x162]
    around = bytearray(b"\xaa" * 48)
    around[16:32] = filled(structs.GETPARAM, param=CHIPSET_ID)
    assert client.ioctl(numbers.GETPARAM.request, memoryview(around)[16:32]) == 0
    assert around[16:32] == filled(structs.GETPARAM, param=CHIPSET_ID, value=0x162)
    assert around[:16] == around[32:] == b"\xaa" * 16


def test_buffers_that_cannot_be_answered_into(client: Client) -> None:
    """The caller's mistake, not a program's. No call is made then."""
    data = bytes(filled(structs.GEM_NEW, size=4096, domain=2))
    with pytest.raises(TypeError, match="read-only; pass a bytearray"):
        client.ioctl(numbers.GEM_NEW.request, memoryview(data))
    with pytest.raises(TypeError, match="contiguous"):
        client.ioctl(numbers.GEM_NEW.request, memoryview(bytearray(2 * len(data)))[::2])
    assert len(client.handles) == 0
    unknown = memoryview(bytes(filled(structs.GEM_CLOSE, handle=5)))
    assert client.ioctl(numbers.GEM_CLOSE.request, unknown) == -errno.EINVAL


# -- sizes and directions


def test_an_older_structure_is_shorter(program: Program) -> None:
    """Of HANDLE_TO_FD without a point, of WAIT without a deadline."""
    client = program.client
    handle = program.do(numbers.SYNCOBJ_CREATE, flags=1)["handle"]
    data = filled(structs.SYNCOBJ_HANDLE, handle=handle, flags=1)[:16]
    assert client.ioctl(0xC01064C1, data) == 0
    fd = fields_of(structs.SYNCOBJ_HANDLE, data + bytes(8))["fd"]
    assert program.call(numbers.SYNCOBJ_FD_TO_HANDLE, handle=handle, flags=1, fd=-1) == -errno.EINVAL
    back = filled(structs.SYNCOBJ_HANDLE, handle=handle, flags=1, fd=fd)
    assert client.ioctl(0xC01064C2, back[:16]) == 0
    os.close(fd)
    wait = filled(structs.SYNCOBJ_WAIT, handles=program.u32s(handle), count_handles=1, first_signaled=9)[:32]
    assert client.ioctl(0xC02064C3, wait) == 0
    assert fields_of(structs.SYNCOBJ_WAIT, wait + bytes(8))["first_signaled"] == 0


@pytest.mark.parametrize("size", range(17))
def test_what_is_missing_is_zero(client: Client, size: int) -> None:
    data = filled(structs.GETPARAM, param=CHIPSET_ID, value=0xAAAAAAAAAAAAAAAA)
    result = client.ioctl(request(numbers.GETPARAM, size=size), data)
    assert result == (0 if size else -errno.EINVAL)
    value = (0x162).to_bytes(8, "little")[: max(size - 8, 0)]
    assert data[8:] == value + b"\xaa" * (8 - len(value))


def test_a_newer_structure_is_longer(client: Client) -> None:
    data = filled(structs.GETPARAM, param=CHIPSET_ID) + b"new fields"
    assert client.ioctl(request(numbers.GETPARAM, size=len(data)), data) == 0
    assert data == filled(structs.GETPARAM, param=CHIPSET_ID, value=0x162) + b"new fields"


def test_a_buffer_shorter_than_its_request(client: Client) -> None:
    data = filled(structs.GETPARAM, param=CHIPSET_ID)[:10]
    assert client.ioctl(numbers.GETPARAM.request, data) == 0
    assert data[8:] == b"\x62\x01"


@pytest.mark.parametrize("direction", [0, Direction.IN, Direction.OUT])
def test_directions(client: Client, direction: int) -> None:
    """Who asks for less than the call does gets less: libdrm's helpers take the direction from their name."""
    data = filled(structs.GETPARAM, param=CHIPSET_ID, value=5)
    result = client.ioctl(request(numbers.GETPARAM, direction=direction), data)
    if direction == Direction.IN:
        assert result == 0
        assert data == filled(structs.GETPARAM, param=CHIPSET_ID, value=5)
    else:
        assert result == -errno.EINVAL  # it reads a parameter 0, which there is not
        assert data == (
            bytes(16) if direction == Direction.OUT else filled(structs.GETPARAM, param=11, value=5)
        )


@pytest.mark.parametrize("ioctl", [numbers.GEM_CLOSE, numbers.GEM_CPU_PREP, numbers.CHANNEL_FREE])
def test_more_direction_than_a_call_has(client: Client, ioctl: Ioctl) -> None:
    data = bytearray(b"\x07" * ioctl.size)
    both = Direction.IN | Direction.OUT
    expected = -errno.EINVAL if ioctl is numbers.GEM_CLOSE else -errno.ENOENT
    assert client.ioctl(request(ioctl, direction=both), data) == expected
    assert data == b"\x07" * ioctl.size


# -- errnos


def test_a_closed_client(client: Client) -> None:
    with client.device.open() as other:
        pass
    for ioctl in IOCTLS:
        assert other.ioctl(ioctl.request, bytearray(128)) == -errno.EBADF


def test_an_error_is_its_errno(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(param: int) -> int:
        raise TooMany("more than there is")

    monkeypatch.setattr(client, "getparam", refuse)
    assert client.ioctl(numbers.GETPARAM.request, bytearray(16)) == -errno.EOVERFLOW


@pytest.mark.parametrize(
    "error", [OSError(errno.EINVAL, "a bug"), KeyError(3), MemoryError(), AssertionError()]
)
def test_a_bug_is_no_errno(client: Client, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(param: int) -> int:
        raise error

    monkeypatch.setattr(client, "getparam", fail)
    data = filled(structs.GETPARAM, param=CHIPSET_ID)
    with pytest.raises(type(error)):
        client.ioctl(numbers.GETPARAM.request, data)
    assert data == filled(structs.GETPARAM, param=CHIPSET_ID)


@pytest.mark.parametrize("ioctl", IOCTLS, ids=lambda ioctl: ioctl.name)
def test_any_size_of_any_call(client: Client, ioctl: Ioctl) -> None:
    """No structure is too short or too long to be looked at, and nothing is written behind it."""
    rng = random.Random(ioctl.number)
    for size in {*range(9), ioctl.size - 1, ioctl.size + 1, 300} - {-1}:
        for seed in (0, 0xFF, None):
            content = rng.randbytes(size) if seed is None else bytes([seed]) * size
            data = bytearray(content + b"\xaa" * 8)
            assert client.ioctl(request(ioctl, size=size), data) <= 0
            assert data[size:] == b"\xaa" * 8
