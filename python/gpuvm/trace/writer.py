"""Writer: what happens to a device, as rows of one trace, while it happens."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Final

from gpuvm.errors import CheckFailed, GpuvmError
from gpuvm.trace import recorded
from gpuvm.trace.batches import Batch, Rows, Table
from gpuvm.trace.books import Handles, ObjectBook, SyncobjBook
from gpuvm.trace.call_numbers import CLOSE, NUMBERS
from gpuvm.trace.call_rows import args_of, op_row, syncs_of
from gpuvm.trace.database import complete, signed
from gpuvm.trace.job_rows import JobBook
from gpuvm.trace.spaces import Space, SpaceBook
from gpuvm.trace.totals import Totals

if TYPE_CHECKING:
    from gpuvm.trace.recorded import Record

_MOST_WAITING: Final = 4096
"""Calls after which rows are handed to SQLite, committed or not."""
_PAGE_WORK: Final = ("entries_written", "entries_cleared", "tables_made", "tables_freed")


@dataclass(slots=True)
class _Client:
    """One open of the device. ``used``: a VM_INIT is too late for it."""

    id: int
    number: int
    handles: Handles = field(default_factory=Handles)
    space: Space | None = None
    used: bool = False


@dataclass(frozen=True, slots=True)
class WriterStatistics:
    """What was given to a writer so far."""

    calls: int
    bind_ops: int
    ops: int
    mappings: int
    doubts: int
    waiting: int
    """Rows and changes that are not yet SQLite's."""


class Writer:
    """Writes one trace. Rows collect until ``commit``, which makes them lasting, all of a call's at once.

    Calls are given in the order in which they took effect, with ascending ``line``. Every accepted bind is
    made by a manager of the client's own, which tells what happened. Times are nanoseconds from the
    recording's beginning, ``None`` where nobody knows. Cost: some 20 us a call, and 10 us an op.

    Locking: one thread.

    Args:
        db: from `database.create` or `database.create_temporary`.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db: Final = db
        self._objects: Final = ObjectBook()
        self._syncobjs: Final = SyncobjBook()
        self._totals: Final = Totals()
        self._spaces: Final = SpaceBook(self._objects, self._totals)
        self._jobs: Final = JobBook(self._totals)
        self._clients: Final[dict[int, _Client]] = {}
        self._client_ids: Final[set[int]] = set()
        self._spare_ids: Final = count(1)
        client = ("number", "name", "pid", "program", "opened", "closed", "kernel_addr", "kernel_size")
        self._client_rows: Final = Batch("clients", "id", *client)
        self._calls: Final = Rows("calls", "id", "t", "took", "client", "nr", "ret", "args")
        op = ("code", "flags", "handle", "addr", "range", "bo_offset")
        self._bind_ops: Final = Rows("bind_ops", "call", "i", *op)
        self._pushes: Final = Rows("pushes", "call", "i", "va", "va_len", "flags")
        sync = ("role", "handle", "timeline", "point", "syncobj")
        self._syncs: Final = Rows("syncs", "call", "i", *sync)
        self._page_work: Final = Rows("page_work", "call", "written", "cleared", "made", "freed")
        access = ("t", "took", "client", "channel", "engine", "code", "addr", "range")
        self._accesses: Final = Rows("accesses", "call", "id", *access)
        move = ("t", "took", "object", "size", "source", "target", "evicted")
        self._moves: Final = Batch("moves", "id", *move)
        where = ("t", "client", "channel", "call", "addr", "access", "reason", "cause", "engine")
        self._faults: Final = Rows("faults", "id", *where, "unmapped", "mapped", "report")
        self._page_totals: Final = [0, 0, 0, 0]
        self._doubts: Final = Rows("doubts", "call", "why")
        self._unplaced: Final[dict[int, list[int]]] = {}
        """By offset: moves of objects whose GEM_NEW has not been told."""
        self._last = 0
        db.execute("BEGIN")

    # -- the recording

    def device(self, chip: str, chipset: int, vram: int, gart: int) -> None:
        """Whose calls they are; sizes in bytes."""
        self._db.execute("INSERT INTO device VALUES (?, ?, ?, ?)", (chip, chipset, vram, gart))

    def about(self, key: str, value: object) -> None:
        """Something about the recording, instead of what the key had."""
        self._db.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (key, value))

    # -- clients and their calls

    def opened(
        self, number: int, t: int | None, name: str | None, pid: int | None, program: str | None
    ) -> None:
        """The device was opened; an open that had the number before is over."""
        id = number
        while id in self._client_ids:
            id = next(self._spare_ids)
        self._client_ids.add(id)
        self._clients[number] = _Client(id, number)
        row = [signed(id), signed(number), name, pid, program, t, None, None, None]
        self._client_rows.add(signed(id), row)

    def call(self, record: Record, took: int | None = None, *, map_handle: int | None = None) -> int:
        """A call took effect, or was refused.

        Args:
            took: how long it lasted.
            map_handle: what GEM_NEW answered, by which ``moved`` tells the object.

        Returns:
            Its number, ``record.line``.

        Raises:
            ValueError: its number is not above the last one.
        """
        number = record.line
        if number <= self._last:
            raise ValueError(f"call {number} comes after call {self._last}; calls are told in their order")
        self._last = number
        client = self._client(record)
        nr = NUMBERS[record.call]
        row = (number, signed(record.t), took, signed(client.id), nr, record.ret, args_of(record))
        self._calls.add(row)
        self._totals.call(number, row[3], nr, record.ret, took or 0)
        if record.ret == 0:
            self._accepted(number, client, record, map_handle)
        self._arrays(number, client, record)
        if nr == CLOSE:
            self._close(number, client, record.t)
        elif isinstance(record, recorded.SyncobjDestroy) and record.ret == 0:
            self._syncobjs.destroyed(number, client.handles, record.handle)
        if len(self._calls) >= _MOST_WAITING:
            self._write()
        return number

    def _client(self, record: Record) -> _Client:
        """Whose call it is. A VM_INIT that was accepted too late for its open is a new one's."""
        client = self._clients.get(record.client)
        if isinstance(record, recorded.VmInit) and record.ret == 0 and client is not None and client.used:
            self._close(record.line, client, record.t)
            client = None
        if client is None:
            self.opened(record.client, None, None, None, None)
            client = self._clients[record.client]
        return client

    def _accepted(self, number: int, client: _Client, record: Record, map_handle: int | None) -> None:
        handles = client.handles
        match record:
            case recorded.VmBind():
                self._bind(number, client, record)
                if record.flags & recorded.BIND_RUN_ASYNC:
                    self._jobs.job(number, signed(client.id), 0)
            case recorded.Submission():
                if record.channel is not None:
                    self._jobs.job(number, signed(client.id), record.channel)
            case recorded.GemNew():
                client.used = True
                thing = self._objects.made(number, signed(client.id), handles, record)
                if map_handle is not None:
                    self._objects.at(map_handle, thing)
                    for move in self._unplaced.pop(map_handle, ()):
                        self._moves.change(move, "object", number)
            case recorded.GemImport():
                self._objects.imported(number, signed(client.id), handles, record)
            case recorded.GemClose():
                self._objects.closed(number, handles, record.handle)
            case recorded.GemExport():
                self._objects.exported(handles, record)
            case recorded.VmInit():
                self._init(number, client, record)
            case recorded.ChannelAlloc():
                client.used = True
            case _:
                self._syncobjs.note(number, handles, record)

    def _init(self, number: int, client: _Client, record: recorded.VmInit) -> None:
        client.used = True
        id = signed(client.id)
        self._client_rows.change(id, "kernel_addr", signed(record.kernel_addr))
        self._client_rows.change(id, "kernel_size", signed(record.kernel_size))
        try:
            client.space = Space(self._spaces, id, record)
        except GpuvmError as error:
            self._doubt(number, str(error))

    def _bind(self, number: int, client: _Client, record: recorded.VmBind) -> None:
        if client.space is None:
            self._doubt(number, "the client has no address space: its VM_INIT is not in the trace")
        elif record.ops:
            why = client.space.bind(number, client.handles, record)
            if why is not None:
                self._doubt(number, why)

    def _doubt(self, number: int, why: str) -> None:
        self._doubts.add((number, why))

    def _arrays(self, number: int, client: _Client, record: Record) -> None:
        """What a call has lists of."""
        if isinstance(record, recorded.VmBind):
            for i, op in enumerate(record.ops):
                self._bind_ops.add((number, i, *op_row(op)))
        elif isinstance(record, recorded.Submission):
            for i, push in enumerate(record.pushes):
                self._pushes.add((number, i, signed(push.va), signed(push.va_len), push.flags))
        for i, sync in enumerate(syncs_of(record)):
            role, handle, timeline, point = sync
            found = self._syncobjs.find(client.handles, sync)
            self._syncs.add((number, i, role, handle, timeline, signed(point), found))

    def _close(self, number: int, client: _Client, t: int) -> None:
        """All that it had goes with the call."""
        id = signed(client.id)
        self._objects.close_all(number, client.handles)
        self._syncobjs.close_all(number, client.handles)
        if client.space is not None:
            client.space.close(number)
        self._client_rows.change(id, "closed", signed(t))
        del self._clients[client.number]

    # -- what becomes of them

    def queued(self, call: int | None, context: int, seqno: int, timeline: str, t: int) -> None:
        """A fence was made: for the job of ``call``, or for something that is no job."""
        self._jobs.queued(call, context, seqno, timeline, t)

    def started(self, context: int, seqno: int, t: int) -> None:
        """The engine, or the page table, was touched for its job."""
        self._jobs.started(context, seqno, t)

    def done(self, context: int, seqno: int, t: int, error: int) -> None:
        """It was signalled, with an errno or 0."""
        self._jobs.done(context, seqno, t, error)

    def page_work(self, call: int, written: int, cleared: int, made: int, freed: int) -> None:
        """What the call did to page tables: entries, and tables."""
        self._page_work.add((call, written, cleared, made, freed))
        work = self._page_totals
        work[0] += written
        work[1] += cleared
        work[2] += made
        work[3] += freed

    def accessed(
        self,
        t: int,
        took: int | None,
        client: int,
        channel: int,
        call: int | None,
        engine: str,
        code: int,
        addr: int,
        range: int,
    ) -> None:
        """An engine touched memory: ``code`` 0 reads, 1 writes, 2 fetches a push buffer, 3 is atomic."""
        where = signed(addr), signed(range)
        id = self._accesses.total + 1
        self._accesses.add((call or 0, id, t, took, self._id_of(client), channel, engine, code, *where))

    def moved(
        self,
        t: int,
        took: int | None,
        map_handle: int,
        size: int,
        source: str | None,
        target: str | None,
        evicted: bool,
    ) -> None:
        """An object's bytes went from ``source`` to ``target``: vram, gart, cpu; None: nowhere."""
        thing = self._objects.by_offset(map_handle)
        known = thing is not None and (thing.users > 0 or target is None)
        object = thing.id if thing is not None and known else None
        id = self._moves.total + 1
        self._moves.add(id, [id, t, took, object, size, source, target, int(evicted)])
        if object is None:
            self._unplaced.setdefault(map_handle, []).append(id)

    def faulted(
        self,
        t: int,
        client: int,
        channel: int,
        call: int | None,
        addr: int | None,
        access: str | None,
        reason: str | None,
        cause: str,
        engine: str,
        unmapped: int | None,
        mapped: int | None,
        report: str,
    ) -> None:
        """An access led nowhere, and killed its channel; ``report`` is JSON."""
        where = None if addr is None else signed(addr)
        row = (t, self._id_of(client), channel, call, where, access, reason, cause, engine)
        self._faults.add((self._faults.total + 1, *row, unmapped, mapped, report))

    def _id_of(self, number: int) -> int:
        client = self._clients.get(number)
        return signed(number if client is None else client.id)

    # -- itself

    def commit(self) -> None:
        """Make all that was told lasting, and visible to readers. Raises sqlite3.Error."""
        self._write()
        self._db.execute("COMMIT")
        self._db.execute("BEGIN")

    def _write(self) -> None:
        for batch in self._batches():
            batch.write(self._db)
        self._spaces.tell_totals()
        for what, done in zip(_PAGE_WORK, self._page_totals, strict=True):
            self._totals.put(what, done)
        self._totals.write(self._db)

    def _batches(self) -> tuple[Table, ...]:
        return (
            *(self._client_rows, self._calls, self._objects.objects, self._objects.handles),
            *(self._bind_ops, self._spaces.mappings, self._spaces.regions, self._spaces.ops),
            *(self._pushes, self._syncobjs.syncobjs, self._syncs, *self._jobs.batches()),
            *(self._accesses, self._moves, self._page_work, self._faults, self._doubts),
        )

    def finish(self, *, whole: bool = True) -> None:
        """The recording ended, in order if it is ``whole``: write all, make indexes, leave one file alone.

        A reader that is at it keeps the journal there until the last one goes. The connection stays open.

        Raises:
            sqlite3.Error: the disk is full, ...
        """
        self.about("whole", int(whole))
        self._write()
        self._db.execute("COMMIT")
        complete(self._db)

    def check(self) -> None:
        """Verify the books against each other.

        Raises:
            CheckFailed: with the state.
        """
        for number, client in self._clients.items():
            handles = client.handles
            if handles.objects.keys() != handles.given.keys():
                raise CheckFailed(f"client {number}: handles {handles.objects.keys() ^ handles.given.keys()}")
            unused = [handle for handle, thing in handles.objects.items() if thing.users < 1]
            if unused:
                raise CheckFailed(f"client {number}: handles {unused} of objects without users")

    def statistics(self) -> WriterStatistics:
        """Counts, of now."""
        spaces = self._spaces
        totals = (self._calls, self._bind_ops, spaces.ops, spaces.mappings, self._doubts)
        calls, bind_ops, ops, mappings, doubts = (rows.total for rows in totals)
        waiting = sum(map(len, self._batches()))
        return WriterStatistics(calls, bind_ops, ops, mappings, doubts, waiting)
