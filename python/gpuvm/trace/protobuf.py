"""Protocol Buffers' wire format, as far as writing Perfetto's packets needs it.

Ours, and not google's package: what is written has a dozen shapes that never change, and so `gpuvm` needs no
more than NumPy to run. The tests read it back with google's, and Perfetto's own descriptors. Fields go up to
1023; Perfetto's do.

Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from typing import Final

_VARINT: Final = 0
_FIXED64: Final = 1
_DELIMITED: Final = 2
_U64: Final = (1 << 64) - 1

# What is written is small numbers, and times of six bytes: fourteen bits are looked up at once.
_LAST: Final = [
    bytes((low,)) if low < 0x80 else bytes((low & 0x7F | 0x80, low >> 7)) for low in range(1 << 14)
]
_MORE: Final = [bytes((low & 0x7F | 0x80, low >> 7 | 0x80)) for low in range(1 << 14)]


def varint(value: int) -> bytes:
    """Seven bits a byte, lowest first; a negative number is written as its two's complement of 64 bits."""
    if 0 <= value < 0x4000:
        return _LAST[value]
    value &= _U64
    out = b""
    while value >= 0x4000:
        out += _MORE[value & 0x3FFF]
        value >>= 14
    return out + _LAST[value]


_KEYS: Final = [varint(key) for key in range(1 << 13)]
"""By field and wire type: of fields below 1024."""


def number(field: int, value: int) -> bytes:
    """An integer, a bool or an enum."""
    key = _KEYS[field << 3 | _VARINT]
    return key + _LAST[value] if 0 <= value < 0x4000 else key + varint(value)


def fixed64(field: int, value: int) -> bytes:
    """Eight bytes, little-endian."""
    return _KEYS[field << 3 | _FIXED64] + (value & _U64).to_bytes(8, "little")


def message(field: int, *parts: bytes) -> bytes:
    """A message of fields that are encoded already."""
    content = b"".join(parts)
    return _KEYS[field << 3 | _DELIMITED] + varint(len(content)) + content


def text(field: int, value: str) -> bytes:
    """A string; what no UTF-8 has, is escaped."""
    return message(field, value.encode("utf-8", "backslashreplace"))
