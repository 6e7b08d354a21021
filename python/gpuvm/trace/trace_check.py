"""Verifies the tables of a trace against each other."""

from __future__ import annotations

import sqlite3
from bisect import bisect_left
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import Final

from gpuvm.errors import CheckFailed
from gpuvm.trace.call_numbers import NUMBERS
from gpuvm.trace.database import damaged

_BIND: Final = NUMBERS["vm_bind"]
_EXEC: Final = NUMBERS["exec"]

_ROWS: Final = (
    ("a call of no client", "SELECT id, client FROM calls WHERE client NOT IN (SELECT id FROM clients)"),
    ("a call that has no name", "SELECT id, nr FROM calls WHERE call IS NULL"),
    (
        "an op that no VM_BIND asked for",
        f"SELECT b.call, i FROM bind_ops AS b JOIN calls ON calls.id = b.call WHERE nr != {_BIND}",
    ),
    (
        "an op emitted by a call that was no accepted VM_BIND",
        f"SELECT o.call, i FROM ops AS o JOIN calls ON calls.id = o.call WHERE nr != {_BIND} OR ret",
    ),
    (
        "an op that was not asked for",
        "SELECT call, i, asked FROM ops WHERE NOT EXISTS "
        "(SELECT 1 FROM bind_ops WHERE bind_ops.call = ops.call AND bind_ops.i = asked)",
    ),
    (
        "an op of a mapping that is not there, or not from then",
        "SELECT call, i, mapping FROM ops LEFT JOIN mappings ON mappings.id = mapping "
        "WHERE call IS NOT iif(code = 0, born, died)",
    ),
    (
        "a remap without pieces, or with a piece that is not from then",
        "SELECT call, i FROM ops LEFT JOIN mappings AS p ON p.id = prev "
        "LEFT JOIN mappings AS n ON n.id = next WHERE (code = 2) != (prev IS NOT NULL OR next IS NOT NULL) "
        "OR (prev IS NOT NULL AND p.born IS NOT call) OR (next IS NOT NULL AND n.born IS NOT call)",
    ),
    (
        "a mapping that died before it was born, or is empty",
        "SELECT id, born, died FROM mappings WHERE died < born OR range <= 0",
    ),
    (
        "a mapping of an object that was not there then",
        "SELECT mappings.id, object FROM mappings LEFT JOIN objects ON objects.id = object "
        "WHERE object IS NOT NULL AND (objects.id IS NULL OR objects.id > mappings.born "
        "OR objects.died < mappings.died OR (objects.died IS NOT NULL AND mappings.died IS NULL))",
    ),
    (
        "a handle of an object that was not there then",
        "SELECT handles.born, object FROM handles LEFT JOIN objects ON objects.id = object "
        "WHERE objects.id IS NULL OR objects.id > handles.born OR handles.died < handles.born "
        "OR objects.died < handles.died OR (objects.died IS NOT NULL AND handles.died IS NULL)",
    ),
    (
        "a region that died before it was born, or is empty",
        "SELECT id, born, died FROM regions WHERE died < born OR range <= 0",
    ),
    (
        "a push buffer of a call that is no EXEC",
        f"SELECT p.call, i FROM pushes AS p JOIN calls ON calls.id = p.call WHERE nr != {_EXEC}",
    ),
    (
        "a call about a sync object that was not there then",
        "SELECT call, i, syncobj FROM syncs LEFT JOIN syncobjs ON syncobjs.id = syncobj "
        "WHERE syncobj IS NOT NULL AND (syncobjs.id IS NULL OR syncobjs.id > call OR died < call)",
    ),
    (
        "a job of a call that was no accepted EXEC or VM_BIND",
        f"SELECT j.call FROM jobs AS j LEFT JOIN calls ON calls.id = j.call WHERE ret IS NOT 0 "
        f"OR nr NOT IN ({_BIND}, {_EXEC})",
    ),
    ("a job that was done before it was queued", "SELECT call, waited, took FROM jobs WHERE took < 0"),
    (
        "one fence of two jobs",
        "SELECT context, seqno FROM jobs WHERE context IS NOT NULL "
        "GROUP BY context, seqno HAVING count(*) > 1",
    ),
    (
        "a fault that names a call that is missing",
        "SELECT id, call, unmapped, mapped FROM faults WHERE call NOT IN (SELECT id FROM calls) "
        "OR unmapped NOT IN (SELECT id FROM calls) OR mapped NOT IN (SELECT id FROM calls)",
    ),
)
"""What must not be there, and the rows that are."""

_IN_CALLS: Final = ("bind_ops", "ops", "pushes", "syncs", "page_work", "doubts")


def check_tables(name: str, db: sqlite3.Connection) -> None:
    """As `Trace.check`."""
    try:
        for wrong, query in _queries():
            row = db.execute(f"{query} LIMIT 1").fetchone()
            if row is not None:
                raise CheckFailed(f"{name}: {wrong}: {row}")
        for table in ("mappings", "regions"):
            for client, spans in _spans(db, table):
                _no_overlap(f"{name}: {table} of client {client}", spans)
        _no_reuse(name, db)
        _totals(name, db)
    except sqlite3.Error as error:
        raise damaged(name, error) from None


def _queries() -> Iterator[tuple[str, str]]:
    for table in _IN_CALLS:
        query = f"SELECT call FROM {table} WHERE NOT EXISTS (SELECT 1 FROM calls WHERE id = {table}.call)"
        yield f"a row of {table} whose call is missing", query
    for table in ("bind_ops", "ops", "pushes", "syncs"):
        yield (
            f"{table} that are not numbered from 0 on",
            f"SELECT call, count(*), max(i) FROM {table} GROUP BY call HAVING max(i) != count(*) - 1",
        )
    yield from _ROWS


_Span = tuple[int, int, int, int | None, int]
"""Address, range, born, died, id."""


def _spans(db: sqlite3.Connection, table: str) -> Iterator[tuple[int, list[_Span]]]:
    rows = db.execute(f"SELECT client, addr, range, born, died, id FROM {table} ORDER BY client")
    for client, group in groupby(rows, key=itemgetter(0)):
        yield client, [row[1:] for row in group]


def _no_overlap(what: str, spans: list[_Span]) -> None:
    """No two of them at one address at one time; what is born and dies with one call is at none."""
    lasting = [span for span in spans if span[2] != span[3]]
    events = [(born, 1, addr, size, id) for addr, size, born, _, id in lasting]
    events += [(died, 0, addr, size, id) for addr, size, _, died, id in lasting if died is not None]
    events.sort()
    here: list[tuple[int, int, int]] = []
    for call, begins, addr, size, id in events:
        at = bisect_left(here, (addr, 0, 0))
        if not begins:
            del here[at]
            continue
        for other in here[max(at - 1, 0) : at + 1]:
            if other[0] < addr + size and addr < other[1]:
                raise CheckFailed(f"{what}: {id} and {other[2]} overlap at {addr:#x} after call {call}")
        here.insert(at, (addr, addr + size, id))


def _no_reuse(name: str, db: sqlite3.Connection) -> None:
    """No number of a client names two objects at one time."""
    rows = db.execute("SELECT client, handle, born, died FROM handles ORDER BY client, handle, born")
    last: tuple[int, int, int, int | None] | None = None
    for row in rows:
        if last is not None and last[:2] == row[:2] and (last[3] is None or last[3] > row[2]):
            raise CheckFailed(
                f"{name}: handle {row[1]} of client {row[0]} names two objects at call {row[2]}"
            )
        last = row


_COUNTED: Final = {
    "bind_ops": f"SELECT count(*) FROM bind_ops JOIN calls ON calls.id = bind_ops.call WHERE nr = {_BIND} "
    "AND ret = 0 AND bind_ops.call NOT IN (SELECT call FROM doubts)",
    "map": "SELECT count(*) FROM ops WHERE code = 0",
    "unmap": "SELECT count(*) FROM ops WHERE code = 1",
    "remap": "SELECT count(*) FROM ops WHERE code = 2",
    "waited": "SELECT max(waited) FROM jobs",
    "ran": "SELECT max(took - waited) FROM jobs",
    "ended_jobs": "SELECT count(took) FROM jobs",
    "failed_jobs": "SELECT count(*) FROM jobs WHERE error",
    "entries_written": "SELECT sum(written) FROM page_work",
    "entries_cleared": "SELECT sum(cleared) FROM page_work",
    "tables_made": "SELECT sum(made) FROM page_work",
    "tables_freed": "SELECT sum(freed) FROM page_work",
}


def _totals(name: str, db: sqlite3.Connection) -> None:
    """What is counted is there."""
    counts = dict(db.execute("SELECT what, value FROM totals"))
    for what, query in _COUNTED.items():
        found = db.execute(query).fetchone()[0] or 0
        if counts.get(what, 0) != found:
            raise CheckFailed(f"{name}: {what} is {counts.get(what, 0)} in totals, and there are {found}")
    query = "SELECT client, nr, ret, calls, took, first FROM call_totals"
    found = (
        "SELECT client, nr, ret, count(*), ifnull(sum(took), 0), min(id) FROM calls GROUP BY client, nr, ret"
    )
    wrong = (
        db.execute(f"{query} EXCEPT {found}").fetchone() or db.execute(f"{found} EXCEPT {query}").fetchone()
    )
    if wrong is not None:
        raise CheckFailed(f"{name}: call_totals and calls differ in {wrong}")
