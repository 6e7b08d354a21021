"""What a program asks before it does anything: VERSION, GET_CAP, GETPARAM."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import TYPE_CHECKING, Final

from gpuvm.errors import InvalidArgument, NotSupported
from gpuvm.mem import Domain
from gpuvm.nouveau.channel import EXEC_PUSH_MAX
from gpuvm.nouveau.uapi.requests import Version
from gpuvm.sync import task

if TYPE_CHECKING:
    from gpuvm.nouveau.device import Device

VERSION: Final = Version(1, 4, 0, "nouveau", "20120801", "nVidia Riva/TNT/GeForce/Quadro/Tesla/Tegra K1+")
CAPABILITIES: Final[Mapping[int, int]] = {0x05: 3, 0x06: 1, 0x13: 1, 0x14: 1}
"""PRIME both ways, monotonic timestamps, sync objects, timelines (``DRM_CAP_*``)."""

PCI_VENDOR: Final = 0x10DE
"""NVIDIA."""
BUS_PCIE: Final = 2


class Param(IntEnum):
    """What can be asked (``NOUVEAU_GETPARAM_*``)."""

    PCI_VENDOR = 3
    PCI_DEVICE = 4
    BUS_TYPE = 5
    FB_SIZE = 8
    AGP_SIZE = 9
    CHIPSET_ID = 11
    VM_VRAM_BASE = 12
    GRAPH_UNITS = 13
    PTIMER_TIME = 14
    HAS_BO_USAGE = 15
    HAS_PAGEFLIP = 16
    EXEC_PUSH_MAX = 17
    VRAM_BAR_SIZE = 18
    VRAM_USED = 19
    HAS_VMA_TILEMODE = 20


_ANSWERS: Final[Mapping[int, Callable[[Device], int]]] = {
    Param.PCI_VENDOR: lambda device: PCI_VENDOR,
    Param.PCI_DEVICE: lambda device: device.chip.device_id,
    Param.BUS_TYPE: lambda device: BUS_PCIE,
    Param.FB_SIZE: lambda device: device.mem.vram.size,
    Param.AGP_SIZE: lambda device: device.mem.gart.size,
    Param.CHIPSET_ID: lambda device: device.chip.chipset,
    Param.VM_VRAM_BASE: lambda device: 0,
    Param.GRAPH_UNITS: lambda device: device.chip.gpcs | device.chip.tpcs << 8,
    Param.PTIMER_TIME: lambda device: task.now(),
    Param.HAS_BO_USAGE: lambda device: 1,
    Param.HAS_PAGEFLIP: lambda device: 1,
    Param.EXEC_PUSH_MAX: lambda device: EXEC_PUSH_MAX,
    Param.VRAM_BAR_SIZE: lambda device: 1 << (device.mem.vram.size - 1).bit_length(),
    Param.VRAM_USED: lambda device: _vram_used(device),
    Param.HAS_VMA_TILEMODE: lambda device: 1,
}


def get_cap(capability: int) -> int:
    """What the driver can do, by ``DRM_CAP_*``.

    Raises:
        NotSupported: all other questions are about displays, which it drives none of.

    Source: ``drm_getcap``.
    """
    if capability not in CAPABILITIES:
        known = ", ".join(map(hex, CAPABILITIES))
        raise NotSupported(f"GET_CAP: capability {capability:#x}; this device knows {known}", capability)
    return CAPABILITIES[capability]


def getparam(device: Device, param: int) -> int:
    """The value.

    Raises:
        InvalidArgument: nobody knows that one.

    Source: ``nouveau_abi16_ioctl_getparam``.
    """
    answer = _ANSWERS.get(param)
    if answer is None:
        known = ", ".join(f"{one:d} {one.name}" for one in Param)
        raise InvalidArgument(f"GETPARAM: param {param}; known are {known}", param, tuple(Param))
    return answer(device)


def _vram_used(device: Device) -> int:
    """Bytes, the driver's own among them."""
    managers = device.mem.statistics().managers
    return next(manager.used for manager in managers if manager.domain is Domain.VRAM)
