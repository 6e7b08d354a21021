"""NVIF as bytes: what a program finds out about the device, and objects on channels."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest

from gpuvm.errors import CheckFailed
from gpuvm.nouveau.chipset import CHIPS
from gpuvm.nouveau.client import Client
from gpuvm.nouveau.device import Device
from gpuvm.nouveau.uapi import NvifObjects, NvifStatistics, numbers, structs
from gpuvm.nouveau.uapi.nvif import NvifObject
from uapi_program import fields_of, filled

HIDDEN, ANY = 0xFF, 0xFF
SCLASS, NEW, DEL, MTHD = 1, 2, 3, 4
DEVICE = 0xABCDEF0123456789
"""The address of something in the program, as it names its objects."""


@pytest.fixture(params=[0x162, 0x172])
def client(request: pytest.FixtureRequest) -> Iterator[Client]:
    with (
        Device(chipset=request.param, vram=16 << 20, gart=16 << 20) as device,
        device.open() as client,
    ):
        client.vm_init(1 << 39, 1 << 39)
        yield client
        client.check()


def nvif(client: Client, rest: bytes | bytearray = b"", **header: int) -> tuple[int, bytearray]:
    """The result, and what came back behind the header."""
    data = filled(structs.NVIF, **header) + rest
    request = numbers.NVIF.request | len(data) << 16
    return client.ioctl(request, data), data[structs.NVIF.size :]


def new_device(client: Client, number: int = DEVICE) -> int:
    arguments = bytearray(8) + b"\xff" * 8
    new = filled(structs.NVIF_NEW, object=number, token=number, oclass=0x80)
    return nvif(client, new + arguments, type=NEW, owner=ANY)[0]


def new_object(client: Client, channel: int, class_: int, number: int) -> int:
    new = filled(structs.NVIF_NEW, object=number, token=number, route=0, handle=number, oclass=class_)
    return nvif(client, new, type=NEW, owner=ANY, route=HIDDEN, token=channel)[0]


def delete(client: Client, number: int) -> int:
    return nvif(client, type=DEL, owner=ANY, object=number)[0]


def test_what_the_device_is(client: Client) -> None:
    assert new_device(client) == 0
    method = filled(structs.NVIF_MTHD, method=0) + bytes(structs.NV_DEVICE_INFO.size)
    result, answer = nvif(client, method, type=MTHD, owner=ANY, object=DEVICE)
    assert result == 0
    assert len(answer) == 136 - 24
    info = fields_of(structs.NV_DEVICE_INFO, answer[8:])
    chip = client.device.chip
    assert info == {
        "version": 0,
        "platform": 3,
        "chipset": chip.chipset,
        "revision": 0xA1,
        "family": {0x162: 0x0C, 0x172: 0x0D}[chip.chipset],
        "ram_size": 16 << 20,
        "ram_user": 16 << 20,
        "chip": {0x162: b"TU102", 0x172: b"GA102"}[chip.chipset].ljust(16, b"\0"),
        "name": chip.board.encode().ljust(64, b"\0"),
    }
    assert delete(client, DEVICE) == 0
    assert nvif(client, method, type=MTHD, object=DEVICE)[0] == -errno.EINVAL


def test_the_names_of_chips() -> None:
    """Two do not have the number that they tell."""
    names = {number: chip.name for number, chip in CHIPS.items()}
    turing = {0x162: "TU102", 0x164: "TU104", 0x166: "TU106", 0x167: "TU117", 0x168: "TU116"}
    ampere = {0x172: "GA102", 0x174: "GA104", 0x176: "GA106", 0x177: "GA107"}
    assert names == turing | ampere


@pytest.mark.parametrize("room", [0, 1, 6, 16, 255])
def test_classes_of_a_channel(client: Client, room: int) -> None:
    channel = client.channel_alloc().id
    sclass = filled(structs.NVIF_SCLASS, count=room) + b"\xaa" * (8 * room)
    result, answer = nvif(client, sclass, type=SCLASS, owner=ANY, route=HIDDEN, token=channel)
    assert result == 0
    turing = [0xC46F, 0xA140, 0xC5B5, 0x902D, 0xC597, 0xC5C0]
    ampere = [0xC56F, 0xA140, 0xC6B5, 0xC7B5, 0x902D, 0xC797, 0xC7C0]
    classes = {0x162: turing, 0x172: ampere}[client.device.chip.chipset]
    assert fields_of(structs.NVIF_SCLASS, answer) == {"version": 0, "count": len(classes)}
    shown = min(room, len(classes))
    listed = list(structs.NVIF_SCLASS_OCLASS.iter_unpack(answer[8 : 8 + 8 * shown]))
    assert listed == [(class_, -1, -1) for class_ in classes[:room]]
    assert answer[8 + 8 * shown :] == b"\xaa" * (8 * (room - shown))


def test_objects_on_a_channel(client: Client) -> None:
    channel = client.channel_alloc().id
    for number, class_ in enumerate(client.device.chip.classes, 1):
        assert new_object(client, channel, class_, number) == 0
        assert new_object(client, channel, class_, number) == -errno.EEXIST
    count = len(client.device.chip.classes)
    assert client.objects.statistics() == NvifStatistics(devices=0, engine_objects=count)
    for class_ in (0x80, 0, -1, 0xC46F ^ 1):
        assert new_object(client, channel, class_, 99) == -errno.EINVAL
    assert new_object(client, channel + 1, 0xA140, 99) == -errno.EINVAL
    client.channel_free(channel)
    client.check()
    assert new_object(client, channel, 0xA140, 99) == -errno.EINVAL
    for number in (*range(1, count + 1), 1, 99):
        assert delete(client, number) == 0
    assert client.objects.statistics() == NvifStatistics(0, 0)


def test_a_channel_by_the_low_half_of_its_token(client: Client) -> None:
    channel = client.channel_alloc().id
    assert new_object(client, 1 << 32 | channel, 0xA140, 5) == 0


def test_a_device_is_no_engine(client: Client) -> None:
    channel = client.channel_alloc().id
    assert new_object(client, channel, 0xA140, 5) == 0
    method = filled(structs.NVIF_MTHD, method=0) + bytes(structs.NV_DEVICE_INFO.size)
    assert nvif(client, method, type=MTHD, object=5)[0] == -errno.EINVAL
    assert new_device(client) == 0
    assert new_device(client) == -errno.EEXIST
    assert new_device(client, 5) == -errno.EEXIST
    assert nvif(client, method, type=MTHD, object=DEVICE)[0] == 0


def test_mistakes(client: Client) -> None:
    channel = client.channel_alloc().id
    assert new_device(client) == 0
    info = bytes(structs.NV_DEVICE_INFO.size)
    method = bytes(structs.NVIF_MTHD.size) + info
    sclass = filled(structs.NVIF_SCLASS, count=2) + bytes(16)
    new = filled(structs.NVIF_NEW, object=7, oclass=0x80)
    refused: list[tuple[bytes | bytearray, dict[str, int]]] = [
        *((b"", {"type": type_}) for type_ in (0, 5, 6, 12, 13, 0xFF)),
        (b"", {"type": DEL, "version": 1}),
        (b"", {"type": DEL, "route": 1}),
        (b"", {"type": DEL, "route": HIDDEN}),
        (b"x", {"type": DEL}),
        (method[:-1], {"type": MTHD, "object": DEVICE}),
        (method + b"x", {"type": MTHD, "object": DEVICE}),
        (b"\0\1" + method[2:], {"type": MTHD, "object": DEVICE}),
        (method[:8] + b"\1" + info[1:], {"type": MTHD, "object": DEVICE}),
        (method, {"type": MTHD, "object": DEVICE, "route": HIDDEN}),
        (method[:7], {"type": MTHD, "object": DEVICE}),
        (sclass, {"type": SCLASS, "token": channel}),
        (sclass, {"type": SCLASS, "route": HIDDEN, "token": channel + 1}),
        (sclass + b"x", {"type": SCLASS, "route": HIDDEN, "token": channel}),
        (sclass[:7], {"type": SCLASS, "route": HIDDEN, "token": channel}),
        (new[:-1], {"type": NEW}),
        (new, {"type": NEW, "object": DEVICE}),
        (b"\1" + new[1:], {"type": NEW}),
        (filled(structs.NVIF_NEW, object=7, oclass=0xA140), {"type": NEW}),
        (new, {"type": NEW, "route": HIDDEN, "token": channel}),
    ]
    for rest, header in refused:
        assert nvif(client, rest, **header) == (-errno.EINVAL, bytearray(rest)), (header, rest)
    assert client.objects.statistics() == NvifStatistics(devices=1, engine_objects=0)


@pytest.mark.parametrize("size", range(24))
def test_less_than_a_header(client: Client, size: int) -> None:
    data = bytearray(filled(structs.NVIF, type=DEL)[:size])
    assert client.ioctl(numbers.NVIF.request | size << 16, data) == -errno.EINVAL


@pytest.mark.parametrize("direction", range(4))
def test_it_reads_and_answers_whatever_the_direction(client: Client, direction: int) -> None:
    """``nouveau_drm_ioctl`` looks at its number alone; libdrm's helpers say only one of the two."""
    assert new_device(client) == 0
    data = filled(structs.NVIF, type=MTHD, object=DEVICE) + bytes(8 + structs.NV_DEVICE_INFO.size)
    request = numbers.NVIF.request & (1 << 30) - 1 | len(data) << 16 | direction << 30
    assert client.ioctl(request, data) == 0
    chipset = fields_of(structs.NV_DEVICE_INFO, data[32:])["chipset"]
    assert chipset == client.device.chip.chipset


def test_a_number_alone_takes_all_of_the_buffer(client: Client) -> None:
    assert client.ioctl(numbers.NVIF.number, filled(structs.NVIF, type=DEL)) == 0


def test_check_finds_what_cannot_be() -> None:
    objects = NvifObjects()
    objects.new(1, NvifObject(0x80, None))
    objects.new(2, NvifObject(0xA140, 1))
    objects.check()
    objects.new(3, NvifObject(0xA140, None))
    with pytest.raises(CheckFailed, match="0x3"):
        objects.check()
