"""Columns: a table's numbers, small enough to stand in a page."""

from __future__ import annotations

import base64
import sqlite3
import zlib
from collections.abc import Sequence
from itertools import chain
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[Any]

_TYPES: Final[dict[str, np.dtype[Any]]] = {
    "u8": np.dtype("<u1"),
    "u16": np.dtype("<u2"),
    "i16": np.dtype("<i2"),
    "u32": np.dtype("<u4"),
    "i32": np.dtype("<i4"),
    "f64": np.dtype("<f8"),
}
_LEVEL: Final = 5


def rows(db: sqlite3.Connection, query: str, arguments: Sequence[int] = ()) -> list[Numbers]:
    """A query's columns, whole numbers all, none of them NULL. O(n)."""
    cursor = db.execute(query, arguments)
    table = np.fromiter(chain.from_iterable(cursor), dtype=np.int64).reshape(-1, len(cursor.description))
    return [np.ascontiguousarray(table[:, at]) for at in range(table.shape[1])]


def unsigned(values: Numbers) -> Numbers:
    """Numbers that SQLite holds as signed ones, as they were; exact up to 2^53."""
    return values.view(np.uint64).astype(np.float64)


def halves(values: Numbers) -> tuple[Numbers, Numbers]:
    """The high and the low 32 bits of numbers of which each bit counts."""
    plain = values.view(np.uint64)
    return plain >> np.uint64(32), plain & np.uint64(0xFFFFFFFF)


def column(values: Numbers, kind: str, *, delta: bool = False) -> dict[str, Any]:
    """A column as `viewer/src/data.ts` reads it: bytes by significance, compressed, in base64.

    Args:
        values: what fits in the type.
        kind: u8, u16, i16, u32, i32 or f64.
        delta: differences compress better; for what grows. Whole numbers only, below 2^53.
    """
    typed = np.asarray(values).astype(_TYPES[kind])
    if delta and len(typed):
        typed = np.diff(typed, prepend=typed.dtype.type(0))
    apart = np.ascontiguousarray(typed).view(np.uint8).reshape(-1, typed.dtype.itemsize).T.tobytes()
    data = base64.b64encode(zlib.compress(apart, _LEVEL)).decode()
    return {"type": kind, "delta": delta, "data": data}
