"""What a verb replays: the lines of a text file, or the records of an SQLite trace."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from gpuvm.trace.errors import TraceError
from gpuvm.trace.jsonl import load_json, read_records
from gpuvm.trace.source import SQLITE_MAGIC

if TYPE_CHECKING:
    from gpuvm.trace.recorded import Record
    from gpuvm.trace.trace import Trace

Lines: TypeAlias = Iterable[tuple[int, str]]


class Stream(NamedTuple):
    """One of ``lines`` and ``records`` is None.

    Attributes:
        name: the file, for messages.
        lines: of a text file: JSON Lines, or requests.
        records: of an SQLite trace.
    """

    name: str
    lines: Lines | None
    records: Iterable[Record] | None

    @property
    def unit(self) -> str:
        """What records are numbered by."""
        return "calls" if self.lines is None else "lines"

    def split(self) -> tuple[Iterable[Record] | None, Lines]:
        """The records, if it is a trace; else None, and the lines of a request file."""
        if self.lines is None:
            return self.records, ()
        is_trace, lines = look_ahead(self.name, self.lines)
        return (read_records(self.name, lines), ()) if is_trace else (None, lines)


def look_ahead(name: str, lines: Lines) -> tuple[bool, Iterator[tuple[int, str]]]:
    """Whether it is a trace, and all the lines."""
    rest = iter(lines)
    seen = []
    for number, text in rest:
        seen.append((number, text))
        if text and not text.isspace():
            break
    first = seen[-1][1].lstrip() if seen else ""
    is_trace = first.startswith(("{", "["))
    if is_trace:
        value = load_json(name, seen[-1][0], first)
        is_trace = type(value) is not dict or "in" not in value
    return is_trace, chain(seen, rest)


def calls_until(trace: Trace, last: int | None) -> Iterator[Record]:
    """The records up to and including call ``last``; all of them for None.

    Raises:
        TraceError: the trace ends earlier, or is damaged.
    """
    end = trace.last_call()
    if last is not None and last > end:
        raise TraceError(trace.name, f"call {last} was asked for, but the last one is {end}")
    return trace.records(last=last)


def is_sqlite(path: str) -> bool:
    """Whether a path's first bytes are an SQLite file's; ``-`` is standard input. False: nobody can look."""
    if path == "-":
        return sys.stdin is not None and sys.stdin.buffer.peek(16).startswith(SQLITE_MAGIC)  # type: ignore[union-attr]
    if not os.path.isfile(path):
        return False
    try:
        with open(path, "rb") as file:
            return file.read(16) == SQLITE_MAGIC
    except OSError:
        return False
