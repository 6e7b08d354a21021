"""The ioctls by number."""

from __future__ import annotations

from enum import IntFlag
from typing import Final, NamedTuple

from gpuvm.nouveau.uapi import structs
from gpuvm.nouveau.uapi.layout import Layout

TYPE: Final = 0x64
"""Of all DRM ioctls: "d"."""
COMMAND_BASE: Final = 0x40
"""The first number that belongs to the driver."""

OF_DISPLAYS: Final = frozenset([0x0D, *range(0xA0, 0xB2), *range(0xB5, 0xBF), *range(0xC6, 0xCA), 0xCE, 0xD0])
"""Numbers of SET_CLIENT_CAP and the MODE calls, refused by drivers without displays (DRIVER_MODESET)."""


class Direction(IntFlag):
    """Who reads the structure, as the two highest bits of a request say it."""

    IN = 1
    """``_IOC_WRITE``: the kernel does."""
    OUT = 2
    """``_IOC_READ``: the program does, afterwards."""


class Ioctl(NamedTuple):
    """One ioctl."""

    name: str
    number: int
    direction: Direction
    layout: Layout | None
    """None: of any size."""

    @property
    def size(self) -> int:
        """Bytes of the structure, 0 if it is of any size."""
        return 0 if self.layout is None else self.layout.size

    @property
    def request(self) -> int:
        """What a program passes to ``ioctl``."""
        return self.direction << 30 | self.size << 16 | TYPE << 8 | self.number


def _in(name: str, number: int, layout: Layout) -> Ioctl:
    return Ioctl(name, number, Direction.IN, layout)


def _both(name: str, number: int, layout: Layout | None) -> Ioctl:
    return Ioctl(name, number, Direction.IN | Direction.OUT, layout)


VERSION: Final = _both("VERSION", 0x00, structs.VERSION)
GEM_CLOSE: Final = _in("GEM_CLOSE", 0x09, structs.GEM_CLOSE)
GET_CAP: Final = _both("GET_CAP", 0x0C, structs.GET_CAP)
AUTH_MAGIC: Final = _in("AUTH_MAGIC", 0x11, structs.AUTH)
PRIME_HANDLE_TO_FD: Final = _both("PRIME_HANDLE_TO_FD", 0x2D, structs.PRIME_HANDLE)
PRIME_FD_TO_HANDLE: Final = _both("PRIME_FD_TO_HANDLE", 0x2E, structs.PRIME_HANDLE)
SYNCOBJ_CREATE: Final = _both("SYNCOBJ_CREATE", 0xBF, structs.SYNCOBJ_CREATE)
SYNCOBJ_DESTROY: Final = _both("SYNCOBJ_DESTROY", 0xC0, structs.SYNCOBJ_DESTROY)
SYNCOBJ_HANDLE_TO_FD: Final = _both("SYNCOBJ_HANDLE_TO_FD", 0xC1, structs.SYNCOBJ_HANDLE)
SYNCOBJ_FD_TO_HANDLE: Final = _both("SYNCOBJ_FD_TO_HANDLE", 0xC2, structs.SYNCOBJ_HANDLE)
SYNCOBJ_WAIT: Final = _both("SYNCOBJ_WAIT", 0xC3, structs.SYNCOBJ_WAIT)
SYNCOBJ_RESET: Final = _both("SYNCOBJ_RESET", 0xC4, structs.SYNCOBJ_ARRAY)
SYNCOBJ_SIGNAL: Final = _both("SYNCOBJ_SIGNAL", 0xC5, structs.SYNCOBJ_ARRAY)
SYNCOBJ_TIMELINE_WAIT: Final = _both("SYNCOBJ_TIMELINE_WAIT", 0xCA, structs.SYNCOBJ_TIMELINE_WAIT)
SYNCOBJ_QUERY: Final = _both("SYNCOBJ_QUERY", 0xCB, structs.SYNCOBJ_TIMELINE_ARRAY)
SYNCOBJ_TRANSFER: Final = _both("SYNCOBJ_TRANSFER", 0xCC, structs.SYNCOBJ_TRANSFER)
SYNCOBJ_TIMELINE_SIGNAL: Final = _both("SYNCOBJ_TIMELINE_SIGNAL", 0xCD, structs.SYNCOBJ_TIMELINE_ARRAY)
SYNCOBJ_EVENTFD: Final = _both("SYNCOBJ_EVENTFD", 0xCF, structs.SYNCOBJ_EVENTFD)

GETPARAM: Final = _both("NOUVEAU_GETPARAM", COMMAND_BASE + 0x00, structs.GETPARAM)
CHANNEL_ALLOC: Final = _both("NOUVEAU_CHANNEL_ALLOC", COMMAND_BASE + 0x02, structs.CHANNEL_ALLOC)
CHANNEL_FREE: Final = _in("NOUVEAU_CHANNEL_FREE", COMMAND_BASE + 0x03, structs.CHANNEL_FREE)
NVIF: Final = _both("NOUVEAU_NVIF", COMMAND_BASE + 0x07, None)
VM_INIT: Final = _both("NOUVEAU_VM_INIT", COMMAND_BASE + 0x10, structs.VM_INIT)
VM_BIND: Final = _both("NOUVEAU_VM_BIND", COMMAND_BASE + 0x11, structs.VM_BIND)
EXEC: Final = _both("NOUVEAU_EXEC", COMMAND_BASE + 0x12, structs.EXEC)
GEM_NEW: Final = _both("NOUVEAU_GEM_NEW", COMMAND_BASE + 0x40, structs.GEM_NEW)
GEM_PUSHBUF: Final = _both("NOUVEAU_GEM_PUSHBUF", COMMAND_BASE + 0x41, structs.GEM_PUSHBUF)
GEM_CPU_PREP: Final = _in("NOUVEAU_GEM_CPU_PREP", COMMAND_BASE + 0x42, structs.GEM_CPU_PREP)
GEM_CPU_FINI: Final = _in("NOUVEAU_GEM_CPU_FINI", COMMAND_BASE + 0x43, structs.GEM_CPU_FINI)
GEM_INFO: Final = _both("NOUVEAU_GEM_INFO", COMMAND_BASE + 0x44, structs.GEM_INFO)
