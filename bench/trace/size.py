"""Bytes a call, in every form."""

from __future__ import annotations

import gzip
import os
import shutil
from dataclasses import dataclass

from bench import targets
from bench.table import ratio_cell, table, verdict_cell
from bench.trace.files import written
from bench.trace.forms import Form, LinesForm, OwnForm, PickleForm, PlainForm


@dataclass(frozen=True)
class Size:
    """A row."""

    title: str
    calls: int
    bytes: int
    limit: float | None = None

    @property
    def per_call(self) -> float:
        return self.bytes / self.calls


def measure(calls: int) -> list[Size]:
    """Each form with the calls alone, and those that can have it with what became of them."""

    def size(title: str, form: type[Form], runtime: bool = False, limit: float | None = None) -> Size:
        return Size(title, calls, os.path.getsize(written(form, calls, runtime)), limit)

    return [
        size("SQLite trace", OwnForm, limit=targets.TRACE_BYTES),
        size("SQLite trace, with jobs, accesses and page-table work", OwnForm, runtime=True),
        size("JSON Lines", LinesForm),
        Size("JSON Lines, gzipped", calls, _gzipped(written(LinesForm, calls, False))),
        size("pickle", PickleForm),
        size("plain sqlite3", PlainForm),
        size("plain sqlite3, with jobs, accesses and page-table work", PlainForm, runtime=True),
    ]


def _gzipped(path: str) -> int:
    packed = f"{path}.gz"
    with open(path, "rb") as source, gzip.open(packed, "wb") as target:
        shutil.copyfileobj(source, target)
    return os.path.getsize(packed)


def markdown(sizes: list[Size]) -> str:
    """The table; ratios are to the first row."""
    own = sizes[0].per_call
    rows = [
        [
            one.title,
            f"{one.per_call:,.0f}",
            ratio_cell(one.per_call, own),
            verdict_cell(one.per_call, one.limit, "bytes"),
        ]
        for one in sizes
    ]
    head = [f"bytes a call, of {sizes[0].calls:,}", "bytes", "/ SQLite trace", "target"]
    return "\n".join(table(head, rows)) + "\n"
