"""Chips: what a program asks about the GPU that it runs on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from gpuvm.errors import InvalidArgument
from gpuvm.mmu.formats import TU102, Format
from gpuvm.nouveau.engine import AMPERE, TURING, Classes


class Family(IntEnum):
    """A generation of GPUs, by the number that the driver tells it by (``NV_DEVICE_INFO_V0_*``)."""

    TURING = 0x0C
    AMPERE = 0x0D


@dataclass(frozen=True, slots=True)
class Chip:
    """One chip, and the board that it is said to be on. Data.

    Source: NVIDIA's class headers and PCI ids, ``nvkm/engine/device/base.c``.
    """

    chipset: int
    """What the chip says of itself (``NV_PMC_BOOT_0``)."""
    name: str
    board: str
    """What the shops call it."""
    device_id: int
    """Of PCI, at vendor 0x10de."""
    family: Family
    revision: int
    gpcs: int
    """Graphics processing clusters."""
    tpcs: int
    """Texture processing clusters in all of them: pairs of multiprocessors."""
    classes: tuple[int, ...]
    """What can be made on a channel, in the order in which the driver lists it: host, inline-to-memory, copy
    engine, 2D, 3D, compute."""
    engines: Classes
    """Of these, what executes a channel's methods."""
    format: Format
    """Of its page tables."""


_CLASSES: Final[Mapping[Family, tuple[int, ...]]] = {
    Family.TURING: (0xC46F, 0xA140, 0xC5B5, 0x902D, 0xC597, 0xC5C0),
    Family.AMPERE: (0xC56F, 0xA140, 0xC6B5, 0xC7B5, 0x902D, 0xC797, 0xC7C0),
}
_ENGINES: Final[Mapping[Family, Classes]] = {Family.TURING: TURING, Family.AMPERE: AMPERE}


def _chip(chipset: int, name: str, board: str, device_id: int, gpcs: int, tpcs: int) -> Chip:
    """All else follows from the number."""
    family = Family.TURING if chipset < 0x170 else Family.AMPERE
    classes, engines = _CLASSES[family], _ENGINES[family]
    return Chip(chipset, name, board, device_id, family, 0xA1, gpcs, tpcs, classes, engines, TU102)


CHIPS: Final[Mapping[int, Chip]] = {
    chip.chipset: chip
    for chip in (
        _chip(0x162, "TU102", "NVIDIA GeForce RTX 2080 Ti", 0x1E04, 6, 34),
        _chip(0x164, "TU104", "NVIDIA GeForce RTX 2080", 0x1E87, 6, 23),
        _chip(0x166, "TU106", "NVIDIA GeForce RTX 2060", 0x1F08, 3, 15),
        _chip(0x167, "TU117", "NVIDIA GeForce GTX 1650", 0x1F82, 2, 7),
        _chip(0x168, "TU116", "NVIDIA GeForce GTX 1660 Ti", 0x2182, 3, 12),
        _chip(0x172, "GA102", "NVIDIA GeForce RTX 3090", 0x2204, 7, 41),
        _chip(0x174, "GA104", "NVIDIA GeForce RTX 3070", 0x2484, 6, 23),
        _chip(0x176, "GA106", "NVIDIA GeForce RTX 3060", 0x2503, 3, 14),
        _chip(0x177, "GA107", "NVIDIA GeForce RTX 3050", 0x2582, 2, 10),
    )
}
"""By number: Turing (TU1xx) and Ampere (GA10x)."""


def chip_of(chipset: int) -> Chip:
    """The chip with this number.

    Raises:
        InvalidArgument: none that is known.
    """
    chip = CHIPS.get(chipset)
    if chip is None:
        known = ", ".join(f"{number:#x} {one.name}" for number, one in CHIPS.items())
        raise InvalidArgument(f"chipset {chipset!r}; pass one of {known}", chipset, tuple(CHIPS))
    return chip
