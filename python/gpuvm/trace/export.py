"""A trace's tables as one JSON document, and as CSV.

Both have every table and view of schema.sql with all of its columns, in its order, rows by their keys.
Numbers of 64 bits are unsigned again. What is not known is ``null``, and in CSV an empty field.
"""

from __future__ import annotations

import csv
import json
import sqlite3
from collections.abc import Callable, Iterator
from typing import Final, TextIO

from gpuvm.trace.database import unsigned
from gpuvm.trace.trace import Trace

Value = int | float | str | None
Told = Callable[[str, int], None]
"""Is told now and then how many rows of a table are written."""

_ADDRESSES: Final = frozenset({"addr", "va", "kernel_addr"})
_U64: Final = _ADDRESSES | {"range", "bo_offset", "va_len", "kernel_size", "size", "point", "seqno"}
_JSON: Final = frozenset({"args", "report"})
"""Columns whose text is JSON."""
_ROWS_BETWEEN_LOOKS: Final = 10_000

_string: Final = json.JSONEncoder().encode


def _say_nothing(table: str, done: int) -> None:
    pass


def tables(trace: Trace) -> list[str]:
    """What can be exported, in the schema's order."""
    rows = trace.db.execute("SELECT name FROM sqlite_schema WHERE type IN ('table', 'view') ORDER BY rowid")
    return [name for (name,) in rows if not name.startswith("sqlite_")]


# -- JSON


def write_json(trace: Trace, out: TextIO, progress: Told = _say_nothing) -> None:
    """One object: ``schema`` (the version), ``about``, and each table as an array of objects, one a line.

    JSON in the trace (``calls.args``, ``faults.report``, ``about.program``) is JSON here too. Costs 3 to
    6 us a row, and no memory that grows with the trace.

    Raises:
        OSError: from ``out``. sqlite3.Error: the trace is damaged.
    """
    (version,) = trace.db.execute("PRAGMA user_version").fetchone()
    about = {key: _about(key, value) for key, value in trace.db.execute("SELECT key, value FROM about")}
    out.write(f'{{"schema":{version},\n"about":{_object(about)}')
    for table in tables(trace):
        if table == "about":
            continue
        out.write(f',\n"{table}":[')
        separator = "\n"
        for row in _json_rows(trace, table, progress):
            out.write(separator + row)
            separator = ",\n"
        out.write("]")
    out.write("}\n")


def _about(key: str, value: Value) -> str:
    return str(value) if key == "program" and value is not None else _json_value(value)


def _object(fields: dict[str, str]) -> str:
    return "{" + ",".join(f"{_string(key)}:{value}" for key, value in fields.items()) + "}"


def _json_rows(trace: Trace, table: str, progress: Told) -> Iterator[str]:
    columns, rows = _select(trace, table, progress)
    template = _object(dict.fromkeys(columns, "%s"))
    shown = [_of_json(column) for column in columns]
    for row in rows:
        yield template % tuple([show(value) for show, value in zip(shown, row, strict=True)])


def _of_json(column: str) -> Callable[[Value], str]:
    if column in _U64:
        return _json_u64
    return _json_json if column in _JSON else _json_value


def _json_value(value: Value) -> str:
    if value is None:
        return "null"
    return _string(value) if isinstance(value, str) else str(value)


def _json_u64(value: Value) -> str:
    return str(unsigned(value)) if isinstance(value, int) else _json_value(value)


def _json_json(value: Value) -> str:
    return "null" if value is None else str(value)


# -- CSV


def write_csv(trace: Trace, table: str, out: TextIO, progress: Told = _say_nothing) -> None:
    """A table with a line of names on top; addresses in hexadecimal, all other numbers decimal.

    Args:
        out: opened with ``newline=""``; lines end as the format wants it.

    Raises:
        OSError: from ``out``. sqlite3.Error: the trace is damaged.

    Source: RFC 4180.
    """
    columns, rows = _select(trace, table, progress)
    writer = csv.writer(out)
    writer.writerow(columns)
    shown = [_of_csv(column) for column in columns]
    for row in rows:
        writer.writerow([show(value) for show, value in zip(shown, row, strict=True)])


def _of_csv(column: str) -> Callable[[Value], Value]:
    if column in _ADDRESSES:
        return _csv_address
    return _csv_u64 if column in _U64 else _as_it_is


def _as_it_is(value: Value) -> Value:
    return value


def _csv_u64(value: Value) -> Value:
    return unsigned(value) if isinstance(value, int) else value


def _csv_address(value: Value) -> Value:
    return f"{unsigned(value):#x}" if isinstance(value, int) else value


# -- both


def _select(trace: Trace, table: str, progress: Told) -> tuple[list[str], Iterator[tuple[Value, ...]]]:
    # Without rowid or with: the order of the key is the order in the file.
    cursor = trace.db.execute(f'SELECT * FROM "{table}"')
    columns = [name for name, *_ in cursor.description]
    return columns, _watched(cursor, table, progress)


def _watched(cursor: sqlite3.Cursor, table: str, progress: Told) -> Iterator[tuple[Value, ...]]:
    for done, row in enumerate(cursor):
        if done % _ROWS_BETWEEN_LOOKS == 0:
            progress(table, done)
        yield row
