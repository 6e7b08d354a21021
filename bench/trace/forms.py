"""What one would write without a trace format of one's own: tables as they come, lines of JSON, pickles."""

from __future__ import annotations

import json
import pickle
import sqlite3
from collections.abc import Iterator
from typing import Any, Protocol

from gpuvm.trace import database
from gpuvm.trace.json_line import line_of
from gpuvm.trace.jsonl import read_records
from gpuvm.trace.recorded import Record, VmBind
from gpuvm.trace.source import Source
from gpuvm.trace.trace import Trace
from gpuvm.trace.writer import Writer


class Form(Protocol):
    """Something that calls are written to, and that gives them again."""

    writer: Any
    """As gpuvm.trace.writer.Writer."""

    def __init__(self, path: str) -> None: ...

    def close(self) -> None:
        """All is in the file."""

    @staticmethod
    def read(path: str) -> Iterator[Any]:
        """The calls, one by one; those that are records have all that they were written with."""


class OwnForm:
    """The SQLite trace."""

    def __init__(self, path: str) -> None:
        self._db = database.create(path)
        self.writer = Writer(self._db)

    def close(self) -> None:
        self.writer.finish()
        self._db.close()

    @staticmethod
    def read(path: str) -> Iterator[Record]:
        with Trace.open(path) as trace:
            yield from trace.records()


class _Calls:
    """A writer to which calls alone are told."""

    def about(self, key: str, value: object) -> None:
        """Nothing of them."""

    def commit(self) -> None:
        """All goes to the file by itself."""


class LinesForm(_Calls):
    """JSON Lines."""

    def __init__(self, path: str) -> None:
        self.writer = self
        self._file = open(path, "w", encoding="utf-8")  # noqa: SIM115 - closed by close()

    def call(self, record: Record, took: int | None) -> None:
        self._file.write(f"{line_of(record)}\n")

    def close(self) -> None:
        self._file.close()

    @staticmethod
    def read(path: str) -> Iterator[Record]:
        with Source(path) as source:
            yield from read_records(source.name, source)


class PickleForm(_Calls):
    """A pickle after the other."""

    def __init__(self, path: str) -> None:
        self.writer = self
        self._file = open(path, "wb")  # noqa: SIM115 - closed by close()

    def call(self, record: Record, took: int | None) -> None:
        pickle.dump(record, self._file, pickle.HIGHEST_PROTOCOL)

    def close(self) -> None:
        self._file.close()

    @staticmethod
    def read(path: str) -> Iterator[Record]:
        with open(path, "rb") as file:
            while file.peek(1):
                yield pickle.load(file)


class PlainForm:
    """SQLite without a thought: an INSERT a row, names as text, arguments as JSON, all in one transaction.

    It follows no objects and no mappings.
    """

    def __init__(self, path: str) -> None:
        self.writer = self
        self._db = sqlite3.connect(path)
        self._insert = self._db.execute
        self._insert(
            "CREATE TABLE calls (id INTEGER PRIMARY KEY, t, took, client, call TEXT, args TEXT, ret)"
        )
        self._insert("CREATE TABLE ops (call, op, flags, handle, addr, bo_offset, range)")
        self._insert("CREATE TABLE events (what TEXT, t, call, details TEXT)")

    def opened(self, number: int, t: int, name: str, pid: int, program: str) -> None:
        self._event("opened", t, None, number, name, pid, program)

    def call(self, record: Record, took: int | None) -> None:
        told = json.loads(line_of(record) or "{}")
        ops = told.pop("ops", ())
        head = (record.line, told.pop("t"), took, told.pop("client"), told.pop("call"))
        ret = told.pop("ret")
        self._insert("INSERT INTO calls VALUES (?, ?, ?, ?, ?, ?, ?)", (*head, json.dumps(told), ret))
        if isinstance(record, VmBind):
            for op in ops:
                self._insert("INSERT INTO ops VALUES (?, ?, ?, ?, ?, ?, ?)", (record.line, *op.values()))

    def queued(self, call: int, context: int, seqno: int, timeline: str, t: int) -> None:
        self._event("queued", t, call, context, seqno, timeline)

    def started(self, context: int, seqno: int, t: int) -> None:
        self._event("started", t, None, context, seqno)

    def done(self, context: int, seqno: int, t: int, error: int) -> None:
        self._event("done", t, None, context, seqno, error)

    def accessed(self, t: int, took: int, client: int, channel: int, call: int, *what: int | str) -> None:
        self._event("accessed", t, call, took, client, channel, *what)

    def page_work(self, call: int, *counts: int) -> None:
        self._event("page_work", None, call, *counts)

    def _event(self, what: str, t: int | None, call: int | None, *details: int | str) -> None:
        self._insert("INSERT INTO events VALUES (?, ?, ?, ?)", (what, t, call, json.dumps(details)))

    def commit(self) -> None:
        self._db.commit()

    def close(self) -> None:
        self._db.commit()
        self._db.close()

    @staticmethod
    def read(path: str) -> Iterator[tuple[Any, ...]]:
        """Each call and its arguments as an object; whoever wants records has to make them."""
        db = sqlite3.connect(path)
        ops = db.execute("SELECT call, op, flags, handle, addr, bo_offset, range FROM ops ORDER BY rowid")
        op = next(ops, None)
        for call in db.execute("SELECT id, t, took, client, call, args, ret FROM calls ORDER BY id"):
            own = []
            while op is not None and op[0] == call[0]:
                own.append(op[1:])
                op = next(ops, None)
            yield (*call[:5], json.loads(call[5]), call[6], own)
        db.close()
