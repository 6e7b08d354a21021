"""The tables of a page: columns of a trace's rows, by clients that are chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from gpuvm.report.page.bundles import Mappings, bundled
from gpuvm.report.page.columns import Numbers, column, halves, rows, unsigned
from gpuvm.trace.errors import TraceError
from gpuvm.trace.trace import Trace

MOST_CALLS: Final = 2_000_000
MOST_MAPPINGS: Final = 250_000
MOST_OPS: Final = 1_000_000
MOST_ACCESSES: Final = 300_000
LONGEST_WORD: Final = 300
_U16: Final = 0xFFFF


class Tables:
    """Columns, made one table after the other: `read` does it.

    Args:
        trace: whose.
        clients: ids of those whose rows are taken, in their order.
    """

    def __init__(self, trace: Trace, clients: Sequence[int]) -> None:
        self._name: Final = trace.name
        self._db: Final = trace.db
        self.ours: Final = f"client IN ({', '.join(map(str, clients))})"
        """As a condition of SQL."""
        self._of_ours: Final = f"call IN (SELECT id FROM calls WHERE {self.ours})"
        self._ids: Final = np.array(clients, dtype=np.int64)
        self._calls = np.zeros(0, dtype=np.int64)
        self._objects = np.zeros(0, dtype=np.int64)
        self.columns: Final[dict[str, Any]] = {}
        self.notes: Final[list[str]] = []
        """What is not as recorded."""
        self._places: Final[dict[str, int]] = {}

    def read(self) -> Mappings:
        """All of them; the mappings as they were recorded, for who makes more of them.

        Raises:
            TraceError: more calls than a page can hold.
        """
        self._put_calls()
        self._put_objects()
        mappings = self._mappings()
        self._put_mappings(mappings)
        self._put_regions()
        self._put_ops()
        self._put_jobs()
        self._put_fences()
        self._put_accesses()
        self._put_moves()
        return mappings

    @property
    def places(self) -> list[str]:
        """Names of memories and timelines that columns refer to."""
        return list(self._places)

    # -- small things

    def _put(self, table: str, **columns: tuple[str, Numbers]) -> None:
        for name, (kind, values) in columns.items():
            growing = kind.endswith("+")
            self.columns[f"{table}.{name}"] = column(values, kind.removesuffix("+"), delta=growing)

    def place(self, calls: Numbers, *, missing: int) -> Numbers:
        """Places of calls by their numbers; -1: not known, which becomes ``missing``."""
        found = np.searchsorted(self._calls, calls)
        return np.where(calls < 0, missing, found)

    def client_of(self, ids: Numbers) -> Numbers:
        """Places of clients by their ids."""
        return np.searchsorted(self._ids, ids)

    def _object_of(self, ids: Numbers) -> Numbers:
        """Places among the objects, -1 for none."""
        if not len(self._objects):
            return np.full(len(ids), -1)
        found = np.minimum(np.searchsorted(self._objects, ids), len(self._objects) - 1)
        return np.where(self._objects[found] == ids, found, -1)

    def _word(self, text: str | None) -> int:
        """A name's place among those that columns refer to; -1: none."""
        return -1 if text is None else self._places.setdefault(text[:LONGEST_WORD], len(self._places))

    # -- tables

    def _put_calls(self) -> None:
        count = self._db.execute("SELECT count(*) FROM calls").fetchone()[0]
        if count > MOST_CALLS:
            raise TraceError(
                self._name,
                f"{count:,} calls are more than a page holds, {MOST_CALLS:,}: `gpuvm trim` cuts a part out",
            )
        ids, t, took, client, nr, ret = rows(
            self._db,
            f"SELECT id, t, coalesce(took, -1), client, nr, ret FROM calls WHERE {self.ours} ORDER BY id",
        )
        self._calls = ids
        self._put(
            "calls",
            id=("f64+", ids),
            t=("f64+", t),
            took=("f64", took),
            client=("u16", self.client_of(client)),
            nr=("i16", nr),
            ret=("i32", ret),
        )

    def _put_objects(self) -> None:
        ids, size, domain = rows(
            self._db,
            "SELECT id, coalesce(size, -1), coalesce(domain, 0) FROM objects WHERE id IN"
            f" (SELECT object FROM handles WHERE {self.ours}) ORDER BY id",
        )
        self._objects = ids
        self._put("objects", id=("f64+", ids), size=("f64", size), domain=("u8", domain & 0xFF))
        client, handle, object_ = rows(
            self._db, f"SELECT client, handle, object FROM handles WHERE {self.ours} ORDER BY object, born"
        )
        self._put(
            "handles",
            client=("u16", self.client_of(client)),
            handle=("u32", handle),
            object=("i32", self._object_of(object_)),
        )

    def _mappings(self) -> Mappings:
        client, addr, size, object_, offset, kind, born, died = rows(
            self._db,
            "SELECT client, addr, range, coalesce(object, -1), bo_offset, pte_kind, born, coalesce(died, -1)"
            f" FROM mappings WHERE {self.ours} ORDER BY born, id",
        )
        return Mappings(
            self.client_of(client),
            addr,
            size,
            self._object_of(object_),
            offset,
            kind,
            self.place(born, missing=0),
            self.place(died, missing=len(self._calls)),
            np.ones(len(addr), dtype=np.int64),
        )

    def _put_mappings(self, mappings: Mappings) -> None:
        shown = bundled(mappings, MOST_MAPPINGS)
        if shown.longest:
            bundles = int((shown.members > 1).sum())
            self.notes.append(
                f"{len(mappings.addr):,} mappings are more than a page holds: of those that lived at most"
                f" {shown.longest:,} calls, neighbours are drawn as one, in {bundles:,} boxes. `gpuvm trim`"
                " cuts out a part of the calls, of which a page shows each."
            )
        self._put(
            "mappings",
            id=("u32+", np.arange(len(shown.addr))),
            client=("u16", shown.client),
            addr=("f64", shown.addr),
            range=("f64", shown.range),
            object=("i32", shown.object),
            offset=("f64", unsigned(shown.offset)),
            kind=("u8", shown.kind & 0xFF),
            born=("u32+", shown.born),
            died=("u32", shown.died),
            members=("u32", shown.members),
        )

    def _put_regions(self) -> None:
        client, addr, size, born, died = rows(
            self._db,
            "SELECT client, addr, range, born, coalesce(died, -1) FROM regions"
            f" WHERE {self.ours} ORDER BY id",
        )
        self._put(
            "regions",
            client=("u16", self.client_of(client)),
            addr=("f64", addr),
            range=("f64", size),
            born=("u32", self.place(born, missing=0)),
            died=("u32", self.place(died, missing=len(self._calls))),
        )

    def _put_ops(self) -> None:
        ours = self._of_ours
        count = self._db.execute(f"SELECT count(*) FROM bind_ops WHERE {ours}").fetchone()[0]
        if count > MOST_OPS:
            ours = "0"
            self.notes.append(
                f"{count:,} ops of VM_BINDs are more than a page holds, {MOST_OPS:,}: it has none."
            )
        call, code, flags, handle, addr, size, offset = rows(
            self._db,
            "SELECT call, code, flags, handle, addr, range, bo_offset FROM bind_ops"
            f" WHERE {ours} ORDER BY call, i",
        )
        of, asked, emitted = rows(self._db, f"SELECT call, asked, code FROM ops WHERE {ours}")
        row = np.searchsorted(call, of) + asked
        answers = {
            name: (
                "u16",
                np.minimum(np.bincount(row[emitted == what], minlength=len(call))[: len(call)], _U16),
            )
            for name, what in (("maps", 0), ("unmaps", 1), ("remaps", 2))
        }
        words = {}
        for name, values in (("addr", addr), ("range", size), ("offset", offset)):
            words[f"{name}_high"], words[f"{name}_low"] = (("u32", half) for half in halves(values))
        self._put(
            "ops",
            call=("u32+", self.place(call, missing=0)),
            code=("u8", code & 0xFF),
            flags=("u32", flags & 0xFFFFFFFF),
            handle=("u32", handle & 0xFFFFFFFF),
            **words,
            **answers,
        )

    def _put_jobs(self) -> None:
        call, client, channel, queued, started, done, error, seqno = rows(
            self._db,
            "SELECT call, client, channel, coalesce(queued, -1), coalesce(started, -1), coalesce(done, -1),"
            f" coalesce(error, 0), coalesce(seqno, -1) FROM jobs WHERE {self.ours} ORDER BY call",
        )
        self._put(
            "jobs",
            call=("u32+", self.place(call, missing=0)),
            client=("u16", self.client_of(client)),
            channel=("u32", channel & 0xFFFFFFFF),
            queued=("f64", queued),
            started=("f64", started),
            done=("f64", done),
            error=("i16", error),
            seqno=("f64", seqno),
        )

    def _put_fences(self) -> None:
        found = self._db.execute(
            "SELECT timeline, made, coalesce(signalled, -1), coalesce(error, 0), coalesce(call, -1)"
            f" FROM other_fences JOIN contexts ON contexts.id = context WHERE call IS NULL OR {self._of_ours}"
            " ORDER BY made"
        ).fetchall()
        columns = list(zip(*found, strict=True)) or [()] * 5
        self._put(
            "fences",
            call=("i32", self.place(np.array(columns[4], dtype=np.int64), missing=-1)),
            timeline=("i32", np.array([self._word(text) for text in columns[0]])),
            made=("f64", np.array(columns[1])),
            signalled=("f64", np.array(columns[2])),
            error=("i16", np.array(columns[3])),
        )

    def _put_accesses(self) -> None:
        count = self._db.execute(f"SELECT count(*) FROM accesses WHERE {self.ours}").fetchone()[0]
        ours = self.ours
        if count > MOST_ACCESSES:
            ours = "0"
            self.notes.append(
                f"{count:,} accesses of engines are more than a page holds, {MOST_ACCESSES:,}: it has none."
            )
        call, code, addr, size, t, took = rows(
            self._db,
            "SELECT call, code, addr, range, t, coalesce(took, -1) FROM accesses"
            f" WHERE {ours} AND call > 0 ORDER BY call, id",
        )
        self._put(
            "accesses",
            call=("u32+", self.place(call, missing=0)),
            code=("u8", code),
            addr=("f64", unsigned(addr)),
            range=("f64", unsigned(size)),
            t=("f64", t),
            took=("f64", took),
        )

    def _put_moves(self) -> None:
        found = self._db.execute(
            "SELECT t, coalesce(took, -1), coalesce(object, -1), size, evicted, source, target FROM moves"
            f" WHERE object IS NULL OR object IN (SELECT object FROM handles WHERE {self.ours})"
            " ORDER BY t, id"
        ).fetchall()
        numbers = np.array([row[:5] for row in found], dtype=np.int64).reshape(len(found), 5)
        t, took, object_, size, evicted = (numbers[:, at] for at in range(5))
        self._put(
            "moves",
            id=("u32+", np.arange(len(found))),
            t=("f64+", t),
            took=("f64", took),
            object=("i32", self._object_of(object_)),
            size=("f64", size),
            evicted=("u8", evicted != 0),
            source=("i16", np.array([self._word(row[5]) for row in found])),
            target=("i16", np.array([self._word(row[6]) for row in found])),
        )
