"""Sizes and addresses as text."""

from __future__ import annotations

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def size_text(size: int) -> str:
    """Bytes in the largest binary unit that is not below 1, three digits at most after it: ``1.5 MiB``."""
    power = max(size.bit_length() - 1, 0) // 10
    if power == 0:
        return f"{size} B"
    value = size / (1 << 10 * power)
    digits = f"{value:.0f}" if value >= 999.5 else f"{value:.3g}"
    return f"{digits} {_UNITS[power]}"


def hex_text(addr: int) -> str:
    """An address, long ones with ``_`` every four digits: ``0x40_0001_0000``."""
    return f"{addr:#x}" if addr < 1 << 20 else f"{addr:#_x}"
