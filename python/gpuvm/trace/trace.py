"""Trace: the reader of recordings, of both forms."""

from __future__ import annotations

import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from enum import Enum, auto
from itertools import groupby
from operator import itemgetter
from types import MappingProxyType, TracebackType
from typing import Any, Final, NamedTuple, Self

from gpuvm.trace.call_rows import SyncRow, Told, record_of
from gpuvm.trace.database import create_temporary, damaged, open_database, register_functions
from gpuvm.trace.database import unsigned as u64
from gpuvm.trace.errors import TraceError
from gpuvm.trace.jsonl import read_records
from gpuvm.trace.recorded import BindOp, Push, Record
from gpuvm.trace.source import Source, display_name, watched
from gpuvm.trace.stream import is_sqlite

_CHUNK: Final = 2000
_TOLD: Final = 20
"""Calls whose rows are fetched at a time."""


class Form(Enum):
    """How a trace is stored."""

    SQLITE = auto()
    JSON_LINES = auto()


class TraceClient(NamedTuple):
    """An open of the device, as the table `clients` has it; its number and addresses are unsigned."""

    id: int
    number: int
    name: str | None
    pid: int | None
    program: str | None
    opened: int | None
    closed: int | None
    kernel_addr: int | None
    kernel_size: int | None


@dataclass(frozen=True, slots=True)
class TraceStatistics:
    """How much is in a trace."""

    calls: int
    bind_ops: int
    ops: int
    mappings: int
    objects: int
    clients: int
    jobs: int
    bytes: int
    """Of the tables and indexes."""


class Trace:
    """A trace: tables to ask with SQL, and records to make again. Close it.

    Locking: the thread that opened it.

    Attributes:
        name: the file, as messages show it.
        form: as it is stored. JSON Lines are read into a database of their own when they are opened.
        db: SQLite's connection, read-only; rows are tuples. SQL has ``addr(x)``, ``size(x)`` and
            ``errno_name(x)``.
        about: the table of that name.
        whole: the recording ended in order; False: it goes on, or was killed.
    """

    def __init__(self, name: str, form: Form, db: sqlite3.Connection) -> None:
        self.name: Final = name
        self.form: Final = form
        self.db: Final = db
        about = dict(db.execute("SELECT key, value FROM about"))
        self.about: Final[Mapping[str, Any]] = MappingProxyType(about)
        self.whole: Final = bool(about.get("whole"))

    @classmethod
    def open(cls, path: str, *, progress: Callable[[int, int], None] = lambda *_: None) -> Trace:
        """Open either form, told apart by the first bytes.

        Args:
            path: ``-`` is standard input.
            progress: told bytes and lines that were read of JSON Lines, now and then.

        Raises:
            TraceError: it cannot be used; why, and what to do.
        """
        if not is_sqlite(path):
            return cls._import(path, progress)
        if path != "-":
            return cls._of(display_name(path), Form.SQLITE, open_database(path))
        with tempfile.NamedTemporaryFile(prefix="gpuvm-") as copy:
            shutil.copyfileobj(sys.stdin.buffer, copy)
            copy.flush()
            return cls._of(display_name(path), Form.SQLITE, open_database(copy.name))

    @classmethod
    def _import(cls, path: str, progress: Callable[[int, int], None]) -> Trace:
        from gpuvm.trace.writer import Writer  # it takes the manager and locks along: as long as all else

        db = create_temporary()
        with Source(path) as source:
            writer = Writer(db)
            writer.about("source", source.name)
            for record in read_records(source.name, watched(source, progress)):
                writer.call(record)
        writer.finish()
        db.execute("PRAGMA query_only = ON")
        register_functions(db)
        return cls._of(source.name, Form.JSON_LINES, db)

    @classmethod
    def _of(cls, name: str, form: Form, db: sqlite3.Connection) -> Trace:
        try:
            return cls(name, form, db)
        except sqlite3.Error as error:
            db.close()
            raise damaged(name, error) from None

    # -- looking

    def records(
        self, *, first: int = 1, last: int | None = None, client: int | None = None
    ) -> Iterator[Record]:
        """The calls as records, in their order; ``Record.line`` is the call's number.

        Args:
            first, last: numbers of calls, both included; None: to the end.
            client: of this one alone, by its recorded number.

        Raises:
            TraceError: the file is damaged.
        """
        end = self.last_call() if last is None else last
        try:
            numbers = dict(self.db.execute("SELECT id, number FROM clients"))
            which = [id for id, number in numbers.items() if client is None or u64(number) == client]
            wanted = "" if client is None else f" AND client IN ({', '.join(map(str, which))})"
            after = first - 1
            while after < end:
                calls = self.db.execute(
                    "SELECT id, t, client, nr, ret, args FROM calls WHERE id > ? AND id <= ?"
                    f"{wanted} ORDER BY id LIMIT {_CHUNK}",
                    (after, end),
                ).fetchall()
                if not calls:
                    return
                told = _Rows(self.db, calls[0][0], calls[-1][0])
                for id, t, owner, nr, ret, args in calls:
                    yield self._record(id, t, numbers.get(owner), nr, ret, args, told)
                after = calls[-1][0]
        except sqlite3.Error as error:
            raise damaged(self.name, error) from None

    def _record(
        self, id: int, t: int, client: int | None, nr: int, ret: int, args: str | None, told: _Rows
    ) -> Record:
        try:
            if client is None:
                raise ValueError("of no client")
            return record_of(id, t, u64(client), nr, ret, args, told.of(id))
        except (LookupError, TypeError, ValueError):
            why = f"damaged: the rows of call {id} are none that gpuvm writes; copy it again, or record again"
            raise TraceError(self.name, why) from None

    def call(self, number: int) -> Record:
        """One call. Raises TraceError: there is none of this number, and which there are."""
        for record in self.records(first=number, last=number):
            return record
        last = self.last_call()
        raise TraceError(self.name, f"there is no call {number}; the last one is {last}")

    def last_call(self) -> int:
        """The number of the last call, 0 if there is none."""
        return self._one("SELECT max(id) FROM calls") or 0

    def clients(self) -> list[TraceClient]:
        """All opens of the device, in their order."""
        rows = self.db.execute(f"SELECT {', '.join(TraceClient._fields)} FROM clients ORDER BY id").fetchall()
        return [
            TraceClient(row[0], u64(row[1]), *row[2:7], *(at and u64(at) for at in row[7:])) for row in rows
        ]

    def clients_of(self, number: int) -> list[TraceClient]:
        """Those with this recorded number. Raises TraceError: there is none, and which there are."""
        clients = self.clients()
        found = [client for client in clients if client.number == number]
        if not found:
            known = ", ".join(str(client.number) for client in clients[:_TOLD])
            more = ", ..." if len(clients) > _TOLD else ""
            raise TraceError(self.name, f"there is no client {number}; clients: {known or 'none'}{more}")
        return found

    def _one(self, query: str) -> Any:
        try:
            return self.db.execute(query).fetchone()[0]
        except sqlite3.Error as error:
            raise damaged(self.name, error) from None

    # -- itself

    def check(self) -> None:
        """Verify the tables against each other. O(n).

        Raises:
            CheckFailed: with the first row that is wrong.
            TraceError: the file is damaged.
        """
        from gpuvm.trace.trace_check import check_tables

        check_tables(self.name, self.db)

    def statistics(self) -> TraceStatistics:
        """Counts; O(n)."""
        tables = ("calls", "bind_ops", "ops", "mappings", "objects", "clients", "jobs")
        counts = {table: self._one(f"SELECT count(*) FROM {table}") for table in tables}
        return TraceStatistics(**counts, bytes=self._one("PRAGMA page_count") * self._one("PRAGMA page_size"))

    def close(self) -> None:
        """The connection too."""
        self.db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Rows:
    """What calls from ``first`` to ``last`` have in tables of their own."""

    def __init__(self, db: sqlite3.Connection, first: int, last: int) -> None:
        def rows(columns: str, table: str) -> dict[int, list[tuple[Any, ...]]]:
            query = f"SELECT call, {columns} FROM {table} WHERE call BETWEEN ? AND ? ORDER BY call, i"
            with closing(db.execute(query, (first, last))) as found:
                return {call: list(group) for call, group in groupby(found, key=itemgetter(0))}

        self._ops: Final = rows("code, flags, handle, addr, bo_offset, range", "bind_ops")
        self._pushes: Final = rows("va, va_len, flags", "pushes")
        self._syncs: Final = rows("role, handle, timeline, point", "syncs")
        made = "handle, size, domain, align, tile_mode, tile_flags"
        query = f"SELECT id, {made} FROM objects JOIN handles ON handles.born = id WHERE id BETWEEN ? AND ?"
        self._objects: Final = {id: rest for id, *rest in db.execute(query, (first, last))}
        query = "SELECT call, channel FROM jobs WHERE call BETWEEN ? AND ?"
        self._channels: Final = dict(db.execute(query, (first, last)))

    def of(self, call: int) -> Told:
        """Those of one call."""
        ops = [
            BindOp(code, flags, handle, 0, u64(addr), u64(offset), u64(size))
            for _, code, flags, handle, addr, offset, size in self._ops.get(call, ())
        ]
        pushes = [Push(u64(va), u64(size), flags) for _, va, size, flags in self._pushes.get(call, ())]
        syncs = [
            SyncRow(role, handle, kind, u64(at)) for _, role, handle, kind, at in self._syncs.get(call, ())
        ]
        made = self._objects.get(call)
        told = None if made is None else (made[0], u64(made[1] or 0), *made[2:])
        return Told(syncs, tuple(ops), tuple(pushes), told, self._channels.get(call))
