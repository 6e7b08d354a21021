"""Reads the history of an address from the tables of a trace."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Final

from gpuvm.report.history import Event, Facts, History, Job, Kind, Mapping
from gpuvm.trace.call_numbers import NUMBERS
from gpuvm.trace.database import signed, unsigned
from gpuvm.trace.replay import SPACE_RANGE

if TYPE_CHECKING:
    import sqlite3

_PAGE: Final = 0x1000
_NEIGHBOURS: Final = 2
"""Mappings told on each side."""
_LAST: Final = 1 << 32
"""Where a call's other events stand among those of its operations."""
_NEVER: Final = (1 << 63) - 1
_MAPPING: Final = "id, addr, range, object, bo_offset, pte_kind, born, died"


def clients_with(db: sqlite3.Connection, addr: int) -> list[int]:
    """Ids of the clients that ever had something at ``addr``, or met a fault in its page."""
    addr = signed(addr)
    page = addr - addr % _PAGE
    found = db.execute(
        "SELECT client FROM mappings WHERE addr <= :addr AND :addr - addr < range "
        "UNION SELECT client FROM regions WHERE addr <= :addr AND :addr - addr < range "
        "UNION SELECT client FROM faults WHERE addr >= :page AND addr < :page + :size ORDER BY 1",
        {"addr": addr, "page": page, "size": _PAGE},
    )
    return [row[0] for row in found]


def history_of(db: sqlite3.Connection, client: int, addr: int, at: int | None = None) -> History:
    """All of it. ``client`` is the id of one; ``at`` a call's number.

    Costs one look at each row of the tables that have addresses, and little more.
    """
    return _Collector(db, client, addr).collect(at)


class _Collector:
    """Reads the tables, one subject a method; each event has a key: time, then order."""

    def __init__(self, db: sqlite3.Connection, client: int, addr: int) -> None:
        self._db = db
        self._client = client
        self._unsigned = addr
        self._addr = signed(addr)
        row = db.execute(
            "SELECT number, name, kernel_addr, kernel_size FROM clients WHERE id = ?", (client,)
        ).fetchone()
        self._number, self._name = unsigned(row[0]), row[1]
        self._kernel = (row[2], row[2] + row[3]) if row[3] else None
        self._timed = db.execute("SELECT 1 FROM calls WHERE took IS NOT NULL LIMIT 1").fetchone() is not None
        self._calls: dict[int, tuple[int, str, int]] = {}
        rows = db.execute(
            f"SELECT {_MAPPING} FROM mappings "
            "WHERE client = :client AND addr <= :addr AND :addr - addr < range ORDER BY id",
            {"client": client, "addr": self._addr},
        )
        self._mappings = {row[0]: Mapping(*row) for row in rows}
        self._died: dict[int, list[Mapping]] = {}
        for one in self._mappings.values():
            if one.died is not None:
                self._died.setdefault(one.died, []).append(one)

    def collect(self, at: int | None) -> History:
        """See `history_of`."""
        stretch = self._stretch()
        told = [*self._binds(), *self._regions(), *self._without_effect(), *self._objects()]
        ran = [*self._accesses(), *self._faults(stretch), *self._moves()]
        jobs = self._jobs({event.call for event in ran if event.call is not None})
        told += [*self._queued(jobs), *self._pushes(ran)]
        faults = sorted((e for e in ran if e.kind is Kind.FAULTED), key=lambda e: e.t or 0)
        fault = faults[0] if faults and at is None else None
        if at is None:
            at = self._last_call(fault)
        around = tuple(self._around(at))
        objects = {one.object for one in (*self._mappings.values(), *around)}
        here = next((one for one in self._mappings.values() if one.alive(at)), None)
        return History(
            addr=self._unsigned,
            client=self._number,
            client_name=self._name,
            kernel=self._kernel,
            stretch=stretch,
            at=at,
            fault=fault,
            events=tuple(_in_order(told, ran)),
            jobs=jobs,
            here=here,
            region=self._region(at),
            around=around,
            handles={number: handle for number, handle, _ in self._handles(objects)},
            timed=self._timed,
        )

    # -- what there was

    def _stretch(self) -> tuple[int, int]:
        """Between the nearest edges of anything that was ever there."""
        edges = [0, SPACE_RANGE, *(self._kernel or ())]
        for table in ("mappings", "regions"):
            row = self._db.execute(
                "SELECT max(addr) FILTER (WHERE addr <= :addr), min(addr) FILTER (WHERE addr > :addr), "
                "max(addr + range) FILTER (WHERE addr + range <= :addr), "
                f"min(addr + range) FILTER (WHERE addr + range > :addr) FROM {table} WHERE client = :client",
                {"addr": self._addr, "client": self._client},
            ).fetchone()
            edges += [edge for edge in row if edge is not None]
        below = max(edge for edge in edges if edge <= self._unsigned)
        return below, min((edge for edge in edges if edge > self._unsigned), default=1 << 64)

    def _region(self, at: int) -> tuple[int, int, int] | None:
        row = self._db.execute(
            "SELECT addr, addr + range, born FROM regions WHERE client = :client AND addr <= :addr "
            "AND :addr - addr < range AND born <= :at AND (died IS NULL OR died > :at)",
            {"client": self._client, "addr": self._addr, "at": at},
        ).fetchone()
        return None if row is None else (row[0], row[1], row[2])

    def _around(self, at: int) -> Iterator[Mapping]:
        for side, order in (("addr + range <= :addr", "DESC"), ("addr > :addr", "ASC")):
            rows = self._db.execute(
                f"SELECT {_MAPPING} FROM mappings WHERE client = :client AND {side} AND born <= :at "
                f"AND (died IS NULL OR died > :at) AND addr {'<=' if order == 'DESC' else '>'} :addr "
                f"ORDER BY addr {order} LIMIT {_NEIGHBOURS}",
                {"client": self._client, "addr": self._addr, "at": at},
            )
            found = [Mapping(*row) for row in rows]
            yield from reversed(found) if order == "DESC" else found

    def _handles(self, objects: Iterable[int | None]) -> list[tuple[int, int, int | None]]:
        """Of these objects: object, handle, the call that closed it."""
        wanted = ", ".join(str(number) for number in set(objects) if number is not None)
        return self._db.execute(
            "SELECT object, handle, died FROM handles "
            f"WHERE client = ? AND object IN ({wanted}) ORDER BY born",
            (self._client,),
        ).fetchall()

    def _call(self, number: int) -> tuple[int, str, int]:
        """When it began, its name, what it returned."""
        if number not in self._calls:
            row = self._db.execute("SELECT t, call, ret FROM calls WHERE id = ?", (number,)).fetchone()
            self._calls[number] = (row[0], row[1] or "close", row[2])
        return self._calls[number]

    def _last_call(self, fault: Event | None) -> int:
        """The last before the fault that may have changed the space, or before the close, or of all."""
        if fault is None:
            closed = "SELECT id - 1 FROM calls WHERE nr = -1 AND client = ?"
            row = self._db.execute(
                f"SELECT coalesce(({closed}), max(id)) FROM calls", (self._client,)
            ).fetchone()
        else:
            changing = ", ".join(str(NUMBERS[name]) for name in ("vm_init", "vm_bind", "close"))
            row = self._db.execute(
                f"SELECT id FROM calls WHERE t <= ? AND client = ? AND nr IN ({changing}) "
                "ORDER BY id DESC LIMIT 1",
                (fault.t, self._client),
            ).fetchone()
        return 0 if row is None or row[0] is None else int(row[0])

    def _event(self, kind: Kind, call: int, **facts: object) -> Event:
        t, name, _ = self._call(call)
        return Event(kind, t, call, name, facts)

    # -- what calls did

    def _binds(self) -> Iterator[Event]:
        """From what the manager emitted for the mappings that were here."""
        for call in sorted({one.born for one in self._mappings.values()} | self._died.keys()):
            ops = self._db.execute(
                "SELECT asked, code, mapping, prev, next, keep FROM ops WHERE call = ? ORDER BY i", (call,)
            ).fetchall()
            ours = [op for op in ops if self._mappings.keys() & set(op[2:5])]
            yield from self._of_ops(call, ours)
            gone = {op[2] for op in ours if op[1]}
            for one in self._died.get(call, ()):
                if one.id not in gone:  # nobody asked: the space ended
                    yield self._event(Kind.UNMAPPED, call, **_whole(one), ended=True)

    def _of_ops(self, call: int, ops: Sequence[tuple[Any, ...]]) -> Iterator[Event]:
        for i, (asked, code, mapping, prev, behind, keep) in enumerate(ops):
            one = self._mappings.get(mapping)
            if code == 0 and one is not None:
                yield self._event(Kind.MAPPED, call, op=asked, **_whole(one), **self._work(call))
                continue
            if one is None:
                continue
            pieces = [self._extent(piece) for piece in (prev, behind) if piece is not None]
            stays = next((self._mappings[p] for p in (prev, behind) if p in self._mappings), None)
            if stays is not None:
                if not any(op[2] == stays.id for op in ops[i + 1 :]):  # else it is cut again
                    yield self._event(Kind.CUT, call, op=asked, **_whole(stays), pieces=pieces)
                continue
            later = (op for op in ops[i + 1 :] if op[0] == asked and op[1] == 0 and op[2] in self._mappings)
            kind = Kind.UNMAPPED if next(later, None) is None else Kind.REPLACED
            facts = {**_whole(one), "pieces": pieces, "keep": bool(keep), **self._work(call)}
            yield self._event(kind, call, op=asked, **facts)

    def _extent(self, mapping: int) -> list[int]:
        row = self._db.execute("SELECT addr, addr + range FROM mappings WHERE id = ?", (mapping,)).fetchone()
        return [row[0], row[1]]

    def _work(self, call: int) -> Facts:
        """When its job ran, if it was one of its own, and the entries of page tables."""
        facts: Facts = {}
        row = self._db.execute("SELECT done FROM jobs WHERE call = ?", (call,)).fetchone()
        if row is not None:
            facts |= {"job": True, "done": row[0]}
        row = self._db.execute("SELECT written, cleared FROM page_work WHERE call = ?", (call,)).fetchone()
        return facts if row is None else facts | {"written": row[0], "cleared": row[1]}

    def _regions(self) -> Iterator[Event]:
        rows = self._db.execute(
            "SELECT addr, addr + range, born, died FROM regions "
            "WHERE client = :client AND addr <= :addr AND :addr - addr < range ORDER BY id",
            {"client": self._client, "addr": self._addr},
        ).fetchall()
        for first, end, born, died in rows:
            yield self._event(Kind.REGION_MADE, born, op=self._asked(born, 0, first), first=first, end=end)
            if died is not None:
                asked = self._asked(died, 1, first)
                yield self._event(Kind.REGION_DROPPED, died, op=asked, first=first, end=end)

    def _asked(self, call: int, code: int, first: int) -> int:
        """Which operation made or dropped the region; behind them all: none, for the space ended."""
        row = self._db.execute(
            "SELECT i FROM bind_ops WHERE call = ? AND code = ? AND addr = ? AND flags & 256",
            (call, code, first),
        ).fetchone()
        return _LAST if row is None else int(row[0])

    def _without_effect(self) -> Iterator[Event]:
        """Operations that were refused, or found nothing to unmap."""
        rows = self._db.execute(
            "SELECT o.call, i, o.code, addr, range, ret FROM bind_ops o JOIN calls c ON c.id = o.call "
            "WHERE addr <= :addr AND (range < 0 OR :addr - addr < range) AND client = :client "
            "AND (ret < 0 OR (o.code = 1 AND flags & 256 = 0))",
            {"addr": self._addr, "client": self._client},
        ).fetchall()
        for call, i, code, addr, size, ret in rows:
            first = unsigned(addr)
            facts: Facts = {"op": i, "map": code == 0, "first": first, "end": first + unsigned(size)}
            if ret < 0:
                yield self._event(Kind.REFUSED, call, **facts, ret=ret)
            elif not self._had(call, i):
                yield self._event(Kind.IDLE, call, **facts)

    def _had(self, call: int, asked: int) -> bool:
        rows = self._db.execute(
            "SELECT mapping FROM ops WHERE call = ? AND asked = ? AND code > 0", (call, asked)
        )
        return any(row[0] in self._mappings for row in rows)

    def _objects(self) -> Iterator[Event]:
        """Who made what was mapped here, and who closed its handle meanwhile."""
        spans: dict[int, list[Mapping]] = {}
        for one in self._mappings.values():
            if one.object is not None:
                spans.setdefault(one.object, []).append(one)
        for number in spans:
            size, domain = self._db.execute(
                "SELECT size, domain FROM objects WHERE id = ?", (number,)
            ).fetchone()
            owner = self._db.execute("SELECT client FROM calls WHERE id = ?", (number,)).fetchone()[0]
            other = {} if owner == self._client else {"client": self._number_of(owner)}
            yield self._event(Kind.MADE, number, object=number, size=size, domain=domain, **other)
        for number, handle, died in self._handles(spans):
            if died is not None and any(one.alive(died) for one in spans[number]):
                yield self._event(Kind.CLOSED, died, object=number, handle=handle)

    def _number_of(self, client: int) -> int:
        row = self._db.execute("SELECT number FROM clients WHERE id = ?", (client,)).fetchone()
        return int(row[0])

    # -- what engines did

    def _accesses(self) -> list[Event]:
        rows = self._db.execute(
            "SELECT nullif(call, 0), channel, engine, access, count(*), min(t), max(t) FROM accesses "
            "WHERE client = :client AND addr <= :addr AND :addr - addr < range "
            "GROUP BY call, channel, engine, code",
            {"client": self._client, "addr": self._addr},
        )
        return [
            Event(
                Kind.TOUCHED,
                first,
                call,
                "exec",
                {"channel": channel, "engine": engine, "access": access, "times": times, "last": last},
            )
            for call, channel, engine, access, times, first, last in rows
        ]

    def _faults(self, stretch: tuple[int, int]) -> list[Event]:
        """Those in the stretch; where nothing ever was, in the page."""
        page = self._addr - self._addr % _PAGE
        # As SQLite has numbers, so up to the last byte: behind it there may be none.
        first, last = (stretch[0], stretch[1] - 1) if self._mappings else (page, page + _PAGE - 1)
        rows = self._db.execute(
            "SELECT t, call, channel, addr, access, cause, engine, unmapped, mapped FROM faults "
            "WHERE client = ? AND addr BETWEEN ? AND ? ORDER BY t",
            (self._client, first, last),
        )
        names = ("channel", "addr", "access", "cause", "engine", "unmapped", "mapped")
        return [
            Event(
                Kind.FAULTED, t, call, "exec", dict(zip(names, (channel, unsigned(addr), *rest), strict=True))
            )
            for t, call, channel, addr, *rest in rows
        ]

    def _moves(self) -> list[Event]:
        """Of objects, while they were mapped here."""
        spans: dict[int, list[tuple[int, int]]] = {}
        for one in self._mappings.values():
            if one.object is not None:
                died = _NEVER if one.died is None else self._call(one.died)[0]
                spans.setdefault(one.object, []).append((self._call(one.born)[0], died))
        rows = self._db.execute(
            "SELECT t, object, source, target, evicted FROM moves "
            f"WHERE object IN ({', '.join(map(str, spans))}) ORDER BY id"
        )
        names = ("object", "source", "target", "evicted")
        return [
            Event(Kind.MOVED, row[0], None, "driver", dict(zip(names, row[1:], strict=True)))
            for row in rows
            if _within(row[0], spans[row[1]])
        ]

    def _jobs(self, calls: Iterable[int]) -> dict[int, Job]:
        found = {}
        for call in sorted(calls):
            row = self._db.execute(
                "SELECT call, channel, queued, started, done FROM jobs WHERE call = ?", (call,)
            ).fetchone()
            if row is not None:
                found[call] = Job(*row)
        return found

    def _queued(self, jobs: dict[int, Job]) -> Iterator[Event]:
        for job in jobs.values():
            yield self._event(Kind.QUEUED, job.call, channel=job.channel)

    def _pushes(self, ran: Sequence[Event]) -> Iterator[Event]:
        fetched = {event.call for event in ran if event.facts.get("access") == "fetch"}
        rows = self._db.execute(
            "SELECT p.call, va, va_len, channel FROM pushes p JOIN jobs j ON j.call = p.call "
            "WHERE va <= :addr AND :addr - va < va_len AND client = :client",
            {"addr": self._addr, "client": self._client},
        ).fetchall()
        for call, va, length, channel in rows:
            if call not in fetched:
                first = unsigned(va)
                yield self._event(Kind.PUSH, call, channel=channel, first=first, end=first + length)


def _within(t: int, spans: Sequence[tuple[int, int]]) -> bool:
    """Whether a moment is in one of them; they are in order, and no two have one in common."""
    at = bisect_right(spans, (t, _NEVER))
    return at > 0 and t <= spans[at - 1][1]


def _whole(one: Mapping) -> Facts:
    return {"object": one.object, "offset": one.offset, "first": one.addr, "end": one.end}


def _in_order(told: Iterable[Event], ran: Iterable[Event]) -> list[Event]:
    """By time; calls among themselves in their order, whatever their clocks say."""
    keyed: list[tuple[int, int, Event]] = []
    latest = 0
    for i, event in enumerate(
        sorted(told, key=lambda event: (event.call or 0, event.facts.get("op", _LAST)))
    ):
        latest = max(latest, event.t or 0)
        keyed.append((latest, i, event))
    keyed += [(event.t or 0, len(keyed) + i, event) for i, event in enumerate(ran)]
    keyed.sort(key=lambda one: one[:2])
    events = [event for _, _, event in keyed]
    # An EXEC that comes here before anything else happens need not be told twice.
    behind = [event.call for event in events[1:]]
    return [
        event
        for event, call in zip_longest(events, behind)
        if event.kind is not Kind.QUEUED or event.call != call
    ]
