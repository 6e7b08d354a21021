"""Trimming: a part of a trace, with what it needs of the rest, as a trace that can be replayed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, Final

from gpuvm.trace import database
from gpuvm.trace.errors import TraceError
from gpuvm.trace.json_line import line_of
from gpuvm.trace.needs import Needs
from gpuvm.trace.recorded import Record, Submission, VmBind
from gpuvm.trace.trace import Form, Trace
from gpuvm.trace.writer import Writer

_ABOUT: Final = ("gpuvm", "program", "begun", "status", "source")


@dataclass(frozen=True, slots=True)
class Trimmed:
    """What stays of a trace."""

    trace: Trace
    asked: int
    """How many of the calls were asked for; the others are what these need."""
    calls: frozenset[int]
    waits: Mapping[int, frozenset[int]]
    """Of submissions that were not asked for, which of their waits are left out, as who signalled is."""

    def records(self) -> Iterator[Record]:
        """The calls, in their order."""
        for record in self.trace.records(first=min(self.calls), last=max(self.calls)):
            if record.line in self.calls:
                yield self._without(record, self.waits.get(record.line, frozenset()))

    def _without(self, record: Record, over: frozenset[int]) -> Record:
        if not over or not isinstance(record, VmBind | Submission):
            return record
        return replace(record, waits=tuple([one for i, one in enumerate(record.waits) if i not in over]))


def trim(
    trace: Trace,
    *,
    first: int = 1,
    last: int | None = None,
    client: int | None = None,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Trimmed:
    """Calls ``first`` to ``last``, and those before them without which they could not be made as they were.

    These made the objects, handles, channels, sync objects and mappings that are there when the first of them
    is made, as far as they are used or mapped; or put in the fences that are waited for; or are the ends of
    what is kept. Where the calls of a client need calls of others, these are kept, too.

    No call is changed but for one thing. A program's frames wait for each other from its beginning; so calls
    that were not asked for wait for what is kept anyway, and for nothing else.

    Cost: O(calls + ops) up to the last.

    Args:
        progress: told after each call that was read, its number twice.

    Raises:
        TraceError: there is no such call.
    """
    end = trace.last_call() if last is None else last
    needs = Needs(trace)
    asked: set[int] = set()
    clients: set[int] = set()
    roots: dict[int, list[int]] = {}
    before: dict[int, None] = {}
    for record in trace.records(last=end):
        if record.line >= first and not asked and not roots:
            roots = {one: [*needs.living(one)] for one in before}
        before[record.client] = None
        needs.feed(record)
        progress(record.line, record.line)
        if record.line >= first and client in (None, record.client):
            asked.add(record.line)
            clients.add(record.client)
    if not asked:
        whose = "" if client is None else f" of client {client}"
        to = "the end" if last is None else f"{last}"
        message = f"no call{whose} from {first} to {to}; the last one of all is {trace.last_call()}"
        raise TraceError(trace.name, message)
    doubts = {call for (call,) in trace.db.execute("SELECT call FROM doubts WHERE call <= ?", (end,))}
    mapped = {call for one in clients for call in roots.get(one, ())}
    signalled = {who for call in asked for who in needs.waits(call) if who is not None}
    kept = needs.all_of(asked | doubts | mapped | signalled, end)
    over = {
        call: frozenset([i for i, who in enumerate(needs.waits(call)) if who is not None and who not in kept])
        for call in kept - asked
    }
    return Trimmed(trace, len(asked), frozenset(kept), {call: waits for call, waits in over.items() if waits})


# -- writing it


def write_json_lines(trimmed: Trimmed, file: BinaryIO) -> None:
    """As JSON Lines. The calls get new numbers, from 1 on.

    Raises:
        TraceError: JSON Lines have no words for one of the calls.
    """
    for record in trimmed.records():
        line = line_of(record)
        if line is None:
            message = f"call {record.line} has an op that JSON Lines have no word for; write SQLite instead"
            raise TraceError(trimmed.trace.name, message)
        file.write(line.encode() + b"\n")


def write_sqlite(trimmed: Trimmed, file: BinaryIO) -> None:
    """As SQLite. The calls keep their numbers, and what was recorded of how they were carried out.

    Cost: the file is in memory at once.
    """
    with closing(database.create_temporary()) as db:
        writer = Writer(db)
        _write(trimmed, writer)
        writer.finish(whole=trimmed.trace.whole)
        file.write(db.serialize())


def _write(trimmed: Trimmed, writer: Writer) -> None:
    source = trimmed.trace
    for key in _ABOUT:
        if key in source.about:
            writer.about(key, source.about[key])
    writer.about("trimmed", f"{len(trimmed.calls)} of {_one(source, 'SELECT count(*) FROM calls')} calls")
    if source.form is Form.SQLITE:
        _write_opens(trimmed, writer)
    took = dict(source.db.execute("SELECT id, took FROM calls WHERE took IS NOT NULL"))
    _write_moves(trimmed, writer)
    for record in trimmed.records():
        # Nobody knows its offset any more; its number is one.
        writer.call(record, took.get(record.line), map_handle=record.line)
    _write_fences(trimmed, writer)
    _write_work(trimmed, writer)


def _write_moves(trimmed: Trimmed, writer: Writer) -> None:
    """Those of objects that are kept, while its calls were made."""
    span = "SELECT min(t), max(t + coalesce(took, 0)) FROM calls WHERE id BETWEEN ? AND ?"
    ends = trimmed.trace.db.execute(span, (min(trimmed.calls), max(trimmed.calls))).fetchone()
    moves = (
        "SELECT object, t, took, size, source, target, evicted FROM moves WHERE t BETWEEN ? AND ? ORDER BY id"
    )
    for object, t, took, *rest in _rows(trimmed, moves, ends):
        writer.moved(t, took, object, *rest)


def _write_opens(trimmed: Trimmed, writer: Writer) -> None:
    source = trimmed.trace
    for device in source.db.execute("SELECT chip, chipset, vram, gart FROM device"):
        writer.device(*device)
    own = {id for call, id in source.db.execute("SELECT id, client FROM calls") if call in trimmed.calls}
    for one in source.clients():
        if one.id in own:
            writer.opened(one.number, one.opened, one.name, one.pid, one.program)


def _write_fences(trimmed: Trimmed, writer: Writer) -> None:
    query = """
        SELECT f.call, f.context, f.seqno, timeline, made, j.started, signalled, f.error
        FROM fences f LEFT JOIN jobs j ON j.call = f.call AND j.context = f.context AND j.seqno = f.seqno
        WHERE made IS NOT NULL
    """
    for call, context, seqno, timeline, made, started, signalled, error in _rows(trimmed, query):
        writer.queued(call, context, seqno, timeline, made)
        if started is not None:
            writer.started(context, seqno, started)
        if signalled is not None:
            writer.done(context, seqno, signalled, error or 0)


def _write_work(trimmed: Trimmed, writer: Writer) -> None:
    for row in _rows(trimmed, "SELECT call, written, cleared, made, freed FROM page_work"):
        writer.page_work(*row)
    accesses = "SELECT call, t, took, client, channel, engine, code, addr, range FROM accesses ORDER BY id"
    for call, t, took, client, channel, engine, code, addr, size in _rows(trimmed, accesses):
        where = database.unsigned(addr), database.unsigned(size)
        writer.accessed(t, took, client, channel, call, engine, code, *where)
    faults = (
        "SELECT call, t, client, channel, addr, access, reason, cause, engine, unmapped, mapped, report"
        " FROM faults ORDER BY id"
    )
    for call, t, client, channel, addr, *rest in _rows(trimmed, faults):
        rest[4:6] = (bind if bind in trimmed.calls else None for bind in rest[4:6])
        writer.faulted(t, client, channel, call, None if addr is None else database.unsigned(addr), *rest)


def _rows(trimmed: Trimmed, query: str, values: tuple[int, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Rows of calls, or of what these made, that are kept; the first column says which."""
    return (row for row in trimmed.trace.db.execute(query, values) if row[0] in trimmed.calls)


def _one(trace: Trace, query: str) -> Any:
    return trace.db.execute(query).fetchone()[0]
