"""NVIF: objects that a program names to the driver itself, as far as today's driver still has them.

Once this was the way to all of the driver. Now it is there for programs that ask what the device is, and make
objects of engines on their channels. Those do nothing here: pushes name the classes that they mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from gpuvm.errors import AlreadyMapped, CheckFailed, InvalidArgument
from gpuvm.nouveau.uapi.structs import (
    NV_DEVICE_INFO,
    NVIF,
    NVIF_MTHD,
    NVIF_NEW,
    NVIF_SCLASS,
    NVIF_SCLASS_OCLASS,
)

if TYPE_CHECKING:
    from gpuvm.nouveau.client import Client

SCLASS: Final = 0x01
"""Which classes a channel has."""
NEW: Final = 0x02
DEL: Final = 0x03
MTHD: Final = 0x04
"""Call a method of an object."""

ROUTE_NVIF: Final = 0x00
"""What is not on a channel."""
ROUTE_HIDDEN: Final = 0xFF
"""The channel that the token names."""

NV_DEVICE: Final = 0x80
"""The class of the device."""
NV_DEVICE_V0_INFO: Final = 0x00
"""The one method that is left."""
NV_DEVICE_INFO_V0_PCIE: Final = 0x03
NO_VERSION: Final = -1
"""Of the classes of engines, whose objects are made without arguments."""


class NvifObject(NamedTuple):
    """One object."""

    class_: int
    channel: int | None
    """The id of the channel that it was made on; None: the device."""


@dataclass(frozen=True, slots=True)
class NvifStatistics:
    """A snapshot of one client's objects."""

    devices: int
    engine_objects: int


class NvifObjects:
    """The objects of one client, by the numbers that it gave them. Any thread may call anything.

    Source: ``nouveau_abi16_obj_new``, ``nouveau_abi16_obj_del``.
    """

    __slots__ = ("_objects",)

    def __init__(self) -> None:
        self._objects: Final[dict[int, NvifObject]] = {}

    def find(self, number: int) -> NvifObject | None:
        """The object with that number, None if there is none."""
        return self._objects.get(number)

    def new(self, number: int, obj: NvifObject) -> None:
        """Have an object. It stays when its channel goes.

        Raises:
            AlreadyMapped: the number is taken.
        """
        if self._objects.setdefault(number, obj) is not obj:
            raise AlreadyMapped(f"NVIF NEW: object {number:#x} is there already; delete it first", number)

    def delete(self, number: int) -> None:
        """Have it no more; there need not be any."""
        self._objects.pop(number, None)

    def check(self) -> None:
        """Verify that what is on a channel is no device, and the other way round.

        Raises:
            CheckFailed: with the state.
        """
        for number, obj in list(self._objects.items()):
            if (obj.class_ == NV_DEVICE) is not (obj.channel is None):
                raise CheckFailed(f"NVIF object {number:#x} is {obj}")

    def statistics(self) -> NvifStatistics:
        """How many there are."""
        objects = list(self._objects.values())
        devices = sum(obj.channel is None for obj in objects)
        return NvifStatistics(devices, len(objects) - devices)


def nvif(client: Client, data: bytearray) -> None:
    """``DRM_NOUVEAU_NVIF``: ``data`` is a header and what its type takes, and becomes the answer.

    Raises:
        InvalidArgument: too short or too long, no such version, type, route, channel, class or method.
        AlreadyMapped: NEW: the number is taken.

        ``data`` is as before then.

    Source: ``nouveau_abi16_ioctl``.
    """
    _check_size(data, NVIF.size)
    version, type_, _owner, route, token, number = NVIF.unpack(data)
    if version or route not in (ROUTE_NVIF, ROUTE_HIDDEN):
        raise InvalidArgument(f"NVIF: version {version}, route {route:#x}; pass 0, and 0 or 0xff", route)
    if type_ == SCLASS:
        _sclass(client, data, route, token)
    elif type_ == NEW:
        _new(client, data, route, token, number)
    elif type_ == DEL:
        _del(client, data, route, number)
    elif type_ == MTHD:
        _method(client, data, route, number)
    else:
        raise InvalidArgument(f"NVIF: type {type_}; this driver knows {SCLASS} to {MTHD}", type_)


def _sclass(client: Client, data: bytearray, route: int, token: int) -> None:
    """The classes that may be made on a channel, as many as there is room for, and how many there are."""
    begin = NVIF.size + NVIF_SCLASS.size
    _check_size(data, begin)
    version, room = NVIF_SCLASS.unpack(data, NVIF.size)
    if route == ROUTE_NVIF:
        raise InvalidArgument(f"NVIF SCLASS: route {route:#x}; only of channels, 0xff", route)
    if len(data) != begin + room * NVIF_SCLASS_OCLASS.size:
        raise InvalidArgument(f"NVIF SCLASS: {len(data)} bytes are not those of {room} classes", len(data))
    _channel(client, token)
    classes = client.device.chip.classes
    for at, class_ in zip(range(begin, len(data), NVIF_SCLASS_OCLASS.size), classes, strict=False):
        NVIF_SCLASS_OCLASS.pack_into(data, at, class_, NO_VERSION, NO_VERSION)
    NVIF_SCLASS.pack_into(data, NVIF.size, version, len(classes))


def _new(client: Client, data: bytearray, route: int, token: int, parent: int) -> None:
    """An object: the device, or one of an engine."""
    _check_size(data, NVIF.size + NVIF_NEW.size)
    version, _route, _token, number, _handle, class_ = NVIF_NEW.unpack(data, NVIF.size)
    if version:
        raise InvalidArgument(f"NVIF NEW: version {version}; pass 0", version, 0)
    if route == ROUTE_NVIF:
        if parent or class_ != NV_DEVICE:
            raise InvalidArgument(
                f"NVIF NEW: class {class_:#x} in object {parent:#x}; without a channel only the device "
                f"can be made, {NV_DEVICE:#x} in object 0",
                class_,
                NV_DEVICE,
            )
        client.objects.new(number, NvifObject(class_, None))
        return
    channel = _channel(client, token)
    if client.objects.find(number) is None and class_ not in client.device.chip.classes:
        known = ", ".join(f"{one:#x}" for one in client.device.chip.classes)
        raise InvalidArgument(f"NVIF NEW: class {class_:#x}; {client.device.chip.name} has {known}", class_)
    client.objects.new(number, NvifObject(class_, channel))


def _del(client: Client, data: bytearray, route: int, number: int) -> None:
    if route != ROUTE_NVIF or len(data) != NVIF.size:
        raise InvalidArgument(f"NVIF DEL: route {route:#x}, {len(data)} bytes; pass 0 and {NVIF.size}", route)
    client.objects.delete(number)


def _method(client: Client, data: bytearray, route: int, number: int) -> None:
    """What the device is."""
    begin = NVIF.size + NVIF_MTHD.size
    _check_size(data, begin)
    _version, method = NVIF_MTHD.unpack(data, NVIF.size)
    obj = client.objects.find(number)
    if route != ROUTE_NVIF or obj is None or obj.channel is not None:
        raise InvalidArgument(f"NVIF MTHD: object {number:#x} by route {route:#x}; pass a device, 0", number)
    if method != NV_DEVICE_V0_INFO or len(data) != begin + NV_DEVICE_INFO.size or data[begin]:
        raise InvalidArgument(
            f"NVIF MTHD: method {method}, {len(data)} bytes; a device has only {NV_DEVICE_V0_INFO}, INFO, of "
            f"version 0, {begin + NV_DEVICE_INFO.size} bytes in all",
            method,
        )
    chip, ram = client.device.chip, client.device.mem.vram.size
    NV_DEVICE_INFO.pack_into(
        data,
        begin,
        0,
        NV_DEVICE_INFO_V0_PCIE,
        chip.chipset,
        chip.revision,
        chip.family,
        ram,
        ram,
        chip.name.encode(),
        chip.board.encode(),
    )


def _channel(client: Client, token: int) -> int:
    """The channel that a token names by its low 32 bits."""
    channel = token & 0xFFFFFFFF
    if channel not in client.channels:
        raise InvalidArgument(f"NVIF: token {token:#x}: there is no channel {channel}", token)
    return channel


def _check_size(data: bytearray, size: int) -> None:
    if len(data) < size:
        raise InvalidArgument(f"NVIF: {len(data)} bytes; pass {size} or more", len(data), size)
