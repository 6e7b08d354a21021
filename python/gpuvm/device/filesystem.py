"""The files of a GPU: what ``/dev`` and ``/sys`` have where one is. Data."""

from __future__ import annotations

import struct
from typing import Final

from gpuvm.device.tree import MAJOR, Directory, Entry, File, Link, Node, NodeName
from gpuvm.nouveau.chipset import Chip
from gpuvm.nouveau.fdinfo import PCI_SLOT
from gpuvm.nouveau.getparam import PCI_VENDOR

_DRIVER: Final = "nouveau"
_CLASS: Final = 0x030000
"""A display controller, VGA compatible."""
_BARS: Final = (
    (0xFB000000, 16 << 20, 0x40200),
    (0xE0000000, 256 << 20, 0x14220C),
    (0xF0000000, 32 << 20, 0x14220C),
)
"""Address, bytes and flags of its memory on the bus. Nobody can map them."""
_BUS: Final = "pci" + PCI_SLOT.rpartition(":")[0]
"""The root of the bus that it sits on, which has no other slot."""
_DEVICE: Final = f"devices/{_BUS}/{PCI_SLOT}"
_DRM_NODES: Final = {NodeName.CARD: "card", NodeName.RENDER: "render"}


def files(chip: Chip) -> Directory:
    """What is laid over the root of the file system: one GPU, and no other.

    Source: ``drivers/pci/pci-sysfs.c``, ``drm_sysfs.c``; libdrm's ``drmGetDevices2``.
    """
    return Directory({"dev": Directory({"dri": _dri()}), "sys": _sys(chip)})


def _dri() -> Directory:
    by_path = {f"pci-{PCI_SLOT}-{kind}": Link(f"../{name.value}") for name, kind in _DRM_NODES.items()}
    nodes: dict[str, Entry] = {name.value: Node(name) for name in _DRM_NODES}
    return Directory({**nodes, "by-path": Directory({**by_path})}, alone=True)


def _sys(chip: Chip) -> Directory:
    drm = {name.value: Link(f"../../{_DEVICE}/drm/{name.value}") for name in _DRM_NODES}
    char = {f"{MAJOR}:{name.minor}": Link(f"../../{_DEVICE}/drm/{name.value}") for name in _DRM_NODES}
    version = File(b"drm 1.1.0 20060810\n")
    driver = _fixed(
        {
            PCI_SLOT: Link(f"../../../../{_DEVICE}"),
            **{name: File(b"", 0o200) for name in ("bind", "new_id", "remove_id", "uevent", "unbind")},
        }
    )
    return _fixed(
        {
            "bus": _fixed(
                {
                    "pci": _fixed(
                        {
                            "devices": _fixed({PCI_SLOT: Link(f"../../../{_DEVICE}")}),
                            "drivers": _fixed({_DRIVER: driver}),
                        }
                    )
                }
            ),
            "class": _fixed({"drm": Directory({**drm, "version": version}, alone=True, fixed=True)}),
            "dev": _fixed({"char": Directory({**char}, fixed=True, hidden=f"{MAJOR}:")}),
            "kernel": Directory(
                {"debug": Directory({"sync": Directory({"sw_sync": Node(NodeName.SW_SYNC)})})}
            ),
            "devices": _fixed({_BUS: _fixed({"uevent": File(b"", 0o644), PCI_SLOT: _pci(chip)})}),
        }
    )


def _fixed(entries: dict[str, Entry]) -> Directory:
    return Directory(entries, fixed=True)


def _pci(chip: Chip) -> Directory:
    """The device on its bus, as ``/sys/bus/pci/devices`` leads to it."""
    vendor, device, revision = PCI_VENDOR, chip.device_id, chip.revision
    ids = f"v{vendor:08X}d{device:08X}sv{vendor:08X}sd{device:08X}"
    modalias = f"pci:{ids}bc{_CLASS >> 16:02X}sc{_CLASS >> 8 & 0xFF:02X}i{_CLASS & 0xFF:02X}"
    uevent = (
        f"DRIVER={_DRIVER}\nPCI_CLASS={_CLASS:X}\nPCI_ID={vendor:X}:{device:04X}\n"
        f"PCI_SUBSYS_ID={vendor:X}:{device:04X}\nPCI_SLOT_NAME={PCI_SLOT}\nMODALIAS={modalias}\n"
    )
    values = {
        "vendor": f"{vendor:#06x}",
        "device": f"{device:#06x}",
        "subsystem_vendor": f"{vendor:#06x}",
        "subsystem_device": f"{device:#06x}",
        "revision": f"{revision:#04x}",
        "class": f"{_CLASS:#08x}",
        "modalias": modalias,
        "irq": "0",
        "enable": "1",
        "boot_vga": "0",
        "numa_node": "-1",
        "current_link_speed": "8.0 GT/s PCIe",
        "max_link_speed": "8.0 GT/s PCIe",
        "current_link_width": "16",
        "max_link_width": "16",
    }
    return Directory(
        {
            **{name: File(f"{value}\n".encode()) for name, value in values.items()},
            "uevent": File(uevent.encode(), 0o644),
            "config": File(_config(chip), 0o644),
            "resource": File(_resource().encode()),
            "subsystem": Link("../../../bus/pci"),
            "driver": Link(f"../../../bus/pci/drivers/{_DRIVER}"),
            "drm": Directory({name.value: _minor(name) for name in _DRM_NODES}),
        },
        alone=True,
        fixed=True,
    )


def _minor(name: NodeName) -> Directory:
    """A node, as ``/sys/class/drm`` leads to it."""
    number = f"{MAJOR}:{name.minor}\n"
    uevent = f"MAJOR={MAJOR}\nMINOR={name.minor}\nDEVNAME=dri/{name.value}\nDEVTYPE=drm_minor\n"
    return Directory(
        {
            "dev": File(number.encode()),
            "uevent": File(uevent.encode(), 0o644),
            "device": Link(f"../../../{PCI_SLOT}"),
            "subsystem": Link("../../../../../class/drm"),
        }
    )


def _config(chip: Chip) -> bytes:
    """Its configuration space: the header, and no capability.

    Source: PCI Local Bus Specification 3.0, 6.1.
    """
    command, status = 0x0007, 0x0000
    low = [address | (8 if flags & 0x2000 else 0) for address, _, flags in _BARS]
    bars = [low[0], low[1] | 4, 0, low[2] | 4, 0, 0]
    class_code = _CLASS.to_bytes(3, "little")
    return struct.pack(
        "<4HB3s4B6II2HIB7xBB2B",
        PCI_VENDOR,
        chip.device_id,
        command,
        status,
        chip.revision,
        class_code,
        *(0, 0, 0, 0),
        *bars,
        0,
        PCI_VENDOR,
        chip.device_id,
        0,
        0,
        *(0, 1, 0, 0),
    ).ljust(256, b"\0")


def _resource() -> str:
    """First and last address and flags, of each resource that a device can have."""
    bar0, bar1, bar3 = ((address, address + size - 1, flags) for address, size, flags in _BARS)
    none = (0, 0, 0)
    lines = [bar0, bar1, none, bar3, *([none] * 9)]
    return "".join(f"{first:#018x} {last:#018x} {flags:#018x}\n" for first, last, flags in lines)
