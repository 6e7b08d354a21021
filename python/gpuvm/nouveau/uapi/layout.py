"""Layout: where the fields of a C structure are."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

T = TypeVar("T", bound=tuple[Any, ...])

_FORMATS: Final = {
    "u8": "B",
    "u16": "H",
    "u32": "I",
    "u64": "Q",
    "s16": "h",
    "s32": "i",
    "s64": "q",
    "char": "s",
    "unused": "x",
}
_FIELD: Final = re.compile(r"(\w+)(?:\[(\d+)\])?")


class Field(NamedTuple):
    """One field of a structure."""

    name: str
    offset: int
    size: int
    """Bytes, as the offset."""
    used: bool
    """False: nobody looks at it."""


class Layout:
    """A structure of the uAPI, little-endian, all its bytes declared.

    Args:
        c_name: what C calls it, without ``struct``.
        declaration: its fields, nearly as C declares them: ``"u32 handle, flags; u64 addr; char name[16]"``.
            Of the type ``unused``, counted in bytes, is what nobody looks at.

    Attributes:
        unpack: ``unpack(buffer, at=0)``: the values there in order, without those that are unused.
        iter_unpack: ``iter_unpack(buffer)``: the same for each of an array of structures.
        pack_into: ``pack_into(buffer, at, *values)``.
    """

    __slots__ = ("_put", "c_name", "fields", "iter_unpack", "pack_into", "size", "unpack")

    def __init__(self, c_name: str, declaration: str) -> None:
        self.c_name: Final = c_name
        self._put: Final[dict[str, tuple[struct.Struct, int]]] = {}
        fields: list[Field] = []
        format, offset = "<", 0
        for group in declaration.split(";"):
            type_name, names = group.split(maxsplit=1)
            for name, length in _FIELD.findall(names):
                value = struct.Struct("<" + length + _FORMATS[type_name])
                self._put[name] = value, offset
                fields.append(Field(name, offset, value.size, type_name != "unused"))
                format += value.format[1:]
                offset += value.size
        whole = struct.Struct(format)
        self.fields: Final = tuple(fields)
        self.size: Final = whole.size
        """Bytes."""
        self.unpack: Final = whole.unpack_from
        self.iter_unpack: Final = whole.iter_unpack
        self.pack_into: Final = whole.pack_into

    def put(self, data: bytearray, **values: int | bytes) -> None:
        """Write the named fields into ``data``, and no others."""
        for name, value in values.items():
            field, offset = self._put[name]
            field.pack_into(data, offset, value)

    def __repr__(self) -> str:
        return f"<Layout of struct {self.c_name}: {self.size} bytes>"


def maker(kind: type[T]) -> Callable[[tuple[Any, ...]], T]:
    """What makes a ``kind`` of a tuple with all its items; faster than ``_make``, which counts them."""
    return partial(tuple.__new__, kind)
