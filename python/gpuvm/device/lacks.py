"""Lacks: what programs asked the device for and it does not have: ioctls, parameters, classes, paths."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from gpuvm.errors import GpuvmError
from gpuvm.nouveau.uapi import nvif, structs
from gpuvm.nouveau.uapi.numbers import GET_CAP, GETPARAM, NVIF, OF_DISPLAYS
from gpuvm.sync import lockdep
from gpuvm.sync.mutex import Mutex

if TYPE_CHECKING:
    from gpuvm.nouveau.uapi.caller import Caller

SHOWN_BYTES: Final = 256
"""Of the structure of an unknown call."""
KEPT: Final = 256
"""Kinds of calls, parameters, paths and so on: of each list the first ones, whatever a program tries."""
TOLD: Final = 32
"""Unknown calls that are told when they come."""

_Kind = TypeVar("_Kind")


@dataclass(frozen=True, slots=True, order=True)
class UnknownIoctl:
    """A kind of call on the node that the driver does not have."""

    request: int
    """As passed to ``ioctl(2)``."""

    @property
    def type(self) -> int:
        """Which subsystem's; DRM's is ``numbers.TYPE``."""
        return self.request >> 8 & 0xFF

    @property
    def number(self) -> int:
        """Within the type."""
        return self.request & 0xFF

    @property
    def size(self) -> int:
        """Bytes of its structure, as the program says."""
        return self.request >> 16 & 0x3FFF


@dataclass(frozen=True, slots=True)
class LacksStatistics:
    """What was asked for in vain so far, and how often."""

    ioctls: Mapping[UnknownIoctl, int]
    displays: Mapping[UnknownIoctl, int]
    """Calls about displays, which are answered: there are none."""
    params: Mapping[int, int]
    """Of GETPARAM."""
    capabilities: Mapping[int, int]
    """Of GET_CAP."""
    nvif_classes: Mapping[int, int]
    """That objects were to be made of."""
    nvif_methods: Mapping[tuple[int, int], int]
    """By type of the NVIF call, and method."""
    paths: Mapping[bytes, int]
    """Of devices, that are not there."""
    others: int
    """Times that something was asked for that is in no list, since that has ``KEPT`` kinds already."""


class Lacks:
    """Counters. Locking: any thread, nothing held."""

    def __init__(self) -> None:
        self._mutex: Final = Mutex("lacks", lockdep.lock_class("lacks"))
        self._ioctls: Final[Counter[UnknownIoctl]] = Counter()
        self._displays: Final[Counter[UnknownIoctl]] = Counter()
        self._params: Final[Counter[int]] = Counter()
        self._capabilities: Final[Counter[int]] = Counter()
        self._classes: Final[Counter[int]] = Counter()
        self._methods: Final[Counter[tuple[int, int]]] = Counter()
        self._paths: Final[Counter[bytes]] = Counter()
        self._others = 0

    def _count(self, list: Counter[_Kind], kind: _Kind) -> None:
        """Locking: the lacks'."""
        if kind in list or len(list) < KEPT:
            list[kind] += 1
        else:
            self._others += 1

    def ioctl(self, fd: int, request: int, arg: int, caller: Caller) -> str | None:
        """A call that the driver does not have; what to say of it, if it is the first of its kind."""
        call = UnknownIoctl(request)
        with self._mutex:
            known = len(self._ioctls)
            self._count(self._ioctls, call)
            if len(self._ioctls) == known or known > TOLD:
                return None
        if known == TOLD:
            return "more unknown ioctls are only counted"
        return f"unknown ioctl {request:#x} on descriptor {fd}: {_described(call, arg, caller)}"

    def refused(self, number: int, request: int, error: int, arg: int, caller: Caller) -> None:
        """The driver refused a call that it has. What was missing is read from its structure."""
        if number in OF_DISPLAYS:
            with self._mutex:
                self._count(self._displays, UnknownIoctl(request))
        if (number, error) not in _MAY_LACK:
            return
        size = min(request >> 16 & 0x3FFF, SHOWN_BYTES)
        try:
            data = bytearray(caller.memory.read(arg, size)).ljust(SHOWN_BYTES, b"\0")
        except GpuvmError:
            return
        with self._mutex:
            if number == GETPARAM.number:
                self._count(self._params, structs.GETPARAM.unpack(data)[0])
            elif number == GET_CAP.number:
                self._count(self._capabilities, structs.GET_CAP.unpack(data)[0])
            else:
                self._nvif(data)

    def _nvif(self, data: bytearray) -> None:
        type_ = structs.NVIF.unpack(data)[1]
        at = structs.NVIF.size
        if type_ == nvif.NEW:
            self._count(self._classes, structs.NVIF_NEW.unpack(data, at)[5])
        else:
            method = structs.NVIF_MTHD.unpack(data, at)[1] if type_ == nvif.MTHD else 0
            self._count(self._methods, (type_, method))

    def path(self, path: bytes) -> None:
        """A device's path that was looked for and is not there."""
        with self._mutex:
            self._count(self._paths, path)

    def statistics(self) -> LacksStatistics:
        """Counts, of now."""
        with self._mutex:
            return LacksStatistics(
                dict(self._ioctls),
                dict(self._displays),
                dict(self._params),
                dict(self._capabilities),
                dict(self._classes),
                dict(self._methods),
                dict(self._paths),
                self._others,
            )


_MAY_LACK: Final = frozenset(
    [
        (GETPARAM.number, errno.EINVAL),
        (GET_CAP.number, errno.EOPNOTSUPP),
        (GET_CAP.number, errno.EINVAL),
        (NVIF.number, errno.EINVAL),
    ]
)


def _described(call: UnknownIoctl, arg: int, caller: Caller) -> str:
    """Type, number, size and the structure's bytes."""
    kind = f"'{chr(call.type)}'" if 0x20 < call.type < 0x7F else f"{call.type:#x}"
    try:
        data = bytes(caller.memory.read(arg, min(call.size, SHOWN_BYTES))).hex(" ", -4) or "none"
    except GpuvmError as error:
        data = str(error)
    more = "" if call.size <= SHOWN_BYTES else f" and {call.size - SHOWN_BYTES} more"
    return f"type {kind}, number {call.number:#04x}, {call.size} bytes at {arg:#x}: {data}{more}"
