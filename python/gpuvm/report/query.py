"""One SQL query to a trace, and what it finds as text, JSON or CSV."""

from __future__ import annotations

import csv
import json
import math
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from importlib import resources
from itertools import chain, islice
from types import TracebackType
from typing import Any, Final, Self, TextIO, TypeAlias

from gpuvm.trace.database import unsigned
from gpuvm.trace.errors import TraceError
from gpuvm.trace.trace import Trace

_READS: Final = frozenset(
    [sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE]
)
_REFUSED: Final = (sqlite3.SQLITE_AUTH, sqlite3.SQLITE_READONLY)
_STEPS: Final = 20_000
"""Of SQLite's machine, between two looks whether the user pressed Ctrl-C: a millisecond or less."""
_MEASURED: Final = 1000
"""Rows that a column's width is made for; what is longer later sticks out."""
_WIDEST: Final = 80
_IN_HEX: Final = re.compile(r"(\w+_)?addr|va|va_len|range|bo_offset", re.IGNORECASE)
_UNKNOWN: Final = re.compile(r"no such (table|column|function): (?:\w+\.)?(\w+)")

Row: TypeAlias = tuple[Any, ...]


class Query:
    """Carried out while it is iterated; close it.

    Args:
        trace: nothing of it, and no other file, can be changed.
        text: one SELECT.

    Attributes:
        columns: their names.

    Raises:
        TraceError: what is wrong with the text, and what there is instead; also while rows come.
        KeyboardInterrupt: a signal came while SQLite was at work.
    """

    def __init__(self, trace: Trace, text: str) -> None:
        self._trace: Final = trace
        self._tables: Final = _tables(trace.db)
        trace.db.set_authorizer(
            lambda action, *_: sqlite3.SQLITE_OK if action in _READS else sqlite3.SQLITE_DENY
        )
        # Python carries signal handlers out in here, and SQLite stops when one of them raises.
        trace.db.set_progress_handler(lambda: 0, _STEPS)
        self._cursor: Final = trace.db.cursor()
        try:
            self._cursor.execute(text)
        except (sqlite3.Error, sqlite3.Warning) as error:
            self.close()
            raise self._explained(error) from None
        if self._cursor.description is None:
            self.close()
            raise TraceError(
                trace.name, "the query is empty; SELECT something, or leave it out to see the tables"
            )
        self.columns: Final = [column[0] for column in self._cursor.description]

    def __iter__(self) -> Iterator[Row]:
        try:
            yield from self._cursor
        except sqlite3.Error as error:
            raise self._explained(error) from None

    def _explained(self, error: Exception) -> BaseException:
        message = str(error)
        if message == "interrupted":
            return KeyboardInterrupt()
        if "one statement" in message:
            message = "one SELECT at a time"
        elif getattr(error, "sqlite_errorcode", 0) in _REFUSED or "transaction" in message:
            message = "a trace is only read, with SELECT; `sqlite3` changes a copy of it"
        elif match := _UNKNOWN.match(message):
            message = f"{message}; {self._instead(match[1], match[2])}"
        return TraceError(self._trace.name, f"query: {message}")

    def _instead(self, what: str, name: str) -> str:
        if what == "function":
            return "besides SQLite's there are addr(x), size(x), errno_name(x)"
        tables = self._tables
        if what == "table":
            return f"{_close(name, tables)}tables are {', '.join(tables)}"
        having = [
            f"{table}.{column}" for table, columns in tables.items() for column in columns if column == name
        ]
        if having:
            return f"there is {', '.join(having)}"
        known = sorted({column for columns in tables.values() for column in columns})
        return f"{_close(name, known)}without a query, the tables and their columns are printed"

    def close(self) -> None:
        """The trace may be written again by who else may, and read."""
        self._trace.db.set_authorizer(None)
        self._trace.db.set_progress_handler(None, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _close(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name.lower(), [*known], 1)
    return f"is {close[0]} meant? " if close else ""


def _tables(db: sqlite3.Connection) -> dict[str, list[str]]:
    """The columns of all tables."""
    names = [name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type IN ('table', 'view')")]
    return {name: [row[1] for row in db.execute(f"PRAGMA table_xinfo({name})")] for name in sorted(names)}


def schema_text() -> str:
    """The tables, with what their columns are."""
    return resources.files("gpuvm.trace").joinpath("schema.sql").read_text()


# -- what comes out


def write_table(query: Query, out: TextIO) -> None:
    """Columns side by side, numbers to the right; addresses and ranges in hexadecimal."""
    in_hex = [bool(_IN_HEX.fullmatch(name)) for name in query.columns]
    rows = (
        [_text(value, hexadecimal) for value, hexadecimal in zip(row, in_hex, strict=True)] for row in query
    )
    first = [*islice(rows, _MEASURED)]
    widths = [
        min(_WIDEST, max(map(len, column)))
        for column in zip(query.columns, *([text for text, _ in row] for row in first), strict=True)
    ]
    right = [any(number for _, number in column) for column in zip(*first, strict=True)] or [False] * len(
        widths
    )
    out.write(_line(query.columns, widths, right))
    out.write(_line(["-" * width for width in widths], widths, right))
    for row in chain(first, rows):
        out.write(_line([text for text, _ in row], widths, right))


def _text(value: Any, hexadecimal: bool) -> tuple[str, bool]:
    """How a value is printed, and whether it is a number."""
    match value:
        case None:
            return "-", False
        case int():
            return f"{unsigned(value):#x}" if hexadecimal else str(value), True
        case float():
            return f"{value:.6g}", True
        case bytes():
            return value.hex(), False
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in str(value)), False


def _line(texts: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    cells = zip(texts, widths, right, strict=True)
    return (
        "  ".join(
            text.rjust(width) if to_right else text.ljust(width) for text, width, to_right in cells
        ).rstrip()
        + "\n"
    )


def write_json(query: Query, out: TextIO) -> None:
    """An object a row, one a line; what is no text is in hexadecimal, and infinity null: JSON has none."""
    for row in query:
        values = [value.hex() if isinstance(value, bytes) else value for value in row]
        values = [None if isinstance(value, float) and math.isinf(value) else value for value in values]
        out.write(json.dumps(dict(zip(query.columns, values, strict=True)), separators=(",", ":")) + "\n")


def write_csv(query: Query, out: TextIO) -> None:
    """A line of names, then one a row; NULL is empty."""
    lines = csv.writer(out, lineterminator="\n")
    lines.writerow(query.columns)
    lines.writerows(query)
