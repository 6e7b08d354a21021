"""Traces of tests: from a few calls, and from calls that a driver really made."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from gpuvm.trace import database
from gpuvm.trace.jsonl import read_records
from gpuvm.trace.recorded import Record
from gpuvm.trace.trace import Form, Trace
from gpuvm.trace.writer import Writer
from tracefile import Call, text_of


def records_of_lines(*lines: Call | str) -> list[Record]:
    """Records of JSON objects, or of text in JSON Lines."""
    text = "".join(one if isinstance(one, str) else text_of(one) for one in lines)
    return list(read_records("trace", enumerate(text.splitlines(), 1)))


def trace_of(*lines: Call | str) -> Trace:
    """The trace of JSON objects or text, read as JSON Lines are; ``Record.line`` counts from 1."""
    return trace_of_records(records_of_lines(*lines))


def trace_of_records(records: Iterable[Record]) -> Trace:
    db = database.create_temporary()
    writer = Writer(db)
    for record in records:
        writer.call(record)
        writer.check()
    writer.finish()
    database.register_functions(db)
    return Trace("trace", Form.JSON_LINES, db)


def write_sqlite(path: Path, records: Iterable[Record], *, whole: bool = True) -> str:
    """A file as `gpuvm record` leaves it; not ``whole``: as a killed one does."""
    db = database.create(str(path))
    writer = Writer(db)
    for record in records:
        writer.call(record)
    if whole:
        writer.finish()
    else:
        writer.commit()
    db.close()
    return str(path)
