"""What a recorded program is doing: numbers of a moment, read from a trace while it is written.

Each look reads what came since the last one, and again the rows of what was not finished then. The first one
reads all.
"""

from __future__ import annotations

import json
import sqlite3
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from gpuvm.errors import CheckFailed, GpuvmError
from gpuvm.report.top.calls import CallNumbers, Calls
from gpuvm.report.top.jobs import Jobs, QueueNumbers
from gpuvm.report.top.memory import Memory, MemoryNumbers, PageTables, TableNumbers
from gpuvm.report.top.rates import SLOT
from gpuvm.report.top.spaces import SpaceNumbers, Spaces
from gpuvm.trace.database import damaged
from gpuvm.trace.errors import TraceError
from gpuvm.trace.trace import Form, Trace

FAULTS_KEPT: Final = 100
_CLIENT: Final = "id, name, pid, program, opened, closed, kernel_addr, kernel_size"
_NEW_CLIENTS: Final = f"SELECT {_CLIENT} FROM clients WHERE id > ? ORDER BY id"
_OPEN_CLIENTS: Final = f"""
SELECT {", ".join(f"c.{name}" for name in _CLIENT.split(", "))}
FROM json_each(?) one CROSS JOIN clients c ON c.id = one.value"""
_FAULTS: Final = """
SELECT id, t, client, channel, call, addr, access, cause, engine FROM faults WHERE id > ? ORDER BY id"""


@dataclass(frozen=True, slots=True)
class ClientNumbers:
    """One open of the device. Times in ns of the recording."""

    id: int
    name: str
    opened: int | None
    closed: int | None
    space: SpaceNumbers
    tables: TableNumbers
    calls: tuple[CallNumbers, ...]
    """The most frequent first."""
    binds_per_second: int
    """VM_BINDs that were accepted."""
    ops_per_second: int
    """What the manager emitted for them."""
    binds: tuple[int, ...]
    """The same over time, see `gpuvm.report.top.rates.Rates.columns`."""


class Fault(NamedTuple):
    """One fault; `gpuvm.report.fault_document` has all of its report."""

    id: int
    t: int
    client: int
    channel: int
    call: int | None
    addr: int | None
    access: str | None
    cause: str
    engine: str


@dataclass(frozen=True, slots=True)
class Moment:
    """A recorded program at ``now``, in ns of the recording. Sizes in bytes."""

    now: int
    whole: bool
    """The recording has ended in order."""
    last_call: int
    """Its number; 0: there was none."""
    last_call_at: int
    """When it ended."""
    chip: str | None
    vram: int | None
    gart: int | None
    memory: MemoryNumbers | None
    """None: it was not recorded."""
    clients: tuple[ClientNumbers, ...]
    queues: tuple[QueueNumbers, ...] | None
    """None: they were not recorded."""
    faults: tuple[Fault, ...]
    """The newest first, at most ``FAULTS_KEPT``."""
    faults_total: int

    def among(self, text: str) -> Moment:
        """The same with those clients alone whose number is ``text`` or whose name has it."""
        clients = tuple(
            one for one in self.clients if text == str(one.id) or text.lower() in one.name.lower()
        )
        chosen = {one.id for one in clients}
        queues = self.queues and tuple(one for one in self.queues if one.client in chosen)
        faults = tuple(one for one in self.faults if one.client in chosen)
        total = self.faults_total if len(chosen) == len(self.clients) else len(faults)
        return replace(self, clients=clients, queues=queues, faults=faults, faults_total=total)


@dataclass(frozen=True, slots=True)
class WatchStatistics:
    """What a `Watch` holds, and what its last look cost."""

    looks: int
    rows: int
    """Read by the last look, without those of calls, which are summed up in the trace."""
    mappings: int
    open_jobs: int


class _Open(NamedTuple):
    name: str
    opened: int | None
    closed: int | None


class Watch:
    """Follows one trace, opened anew for each look: an open one stays at its moment. Not thread-safe.

    Cost of a look: O(rows since the last one + open jobs + sparse regions + counts of the last minute).
    """

    def __init__(self) -> None:
        self._last_call = 0
        self._last_client = -(1 << 63)
        self._last_fault = 0
        self._opens: dict[int, _Open] = {}
        self._faults: deque[Fault] = deque(maxlen=FAULTS_KEPT)
        self._faults_total = 0
        self._calls, self._spaces, self._jobs = Calls(), Spaces(), Jobs()
        self._memory, self._tables = Memory(), PageTables()
        self._looks = self._rows = 0

    def look(self, trace: Trace, now: int | None = None) -> Moment:
        """Read what is new. ``now`` in ns of the recording; None, or one before the last call: that moment.

        Raises:
            TraceError: the tables contradict each other, or the file is damaged.
        """
        with _reading(trace):
            self._advance(trace)
            return self._moment(trace, now)

    def check(self, trace: Trace) -> None:
        """What was followed is what a first look sees. Takes a look itself. Raises CheckFailed."""
        fresh = Watch()
        with _reading(trace):
            self._advance(trace)
            fresh._advance(trace)
            ours, theirs = self._moment(trace, None), fresh._moment(trace, None)
        self._spaces.check()
        for name in Moment.__slots__:
            if getattr(ours, name) != getattr(theirs, name):
                raise CheckFailed(
                    f"{name}: followed {getattr(ours, name)}, at first sight {getattr(theirs, name)}"
                )

    def statistics(self) -> WatchStatistics:
        """Counts."""
        return WatchStatistics(self._looks, self._rows, len(self._spaces), len(self._jobs))

    # -- what is new

    def _advance(self, trace: Trace) -> None:
        db, last = trace.db, self._last_call
        self._looks += 1
        closed = self._follow_clients(db)
        self._rows = self._spaces.advance(db, last)
        if _has_runtime(trace):
            self._rows += self._jobs.advance(db, last)
            self._rows += self._tables.advance(db, last, self._jobs.open_calls())
            self._rows += self._memory.advance(db)
        self._calls.advance(db, last)
        self._follow_faults(db)
        for client in closed:
            self._spaces.closed(client)
            self._jobs.closed(client)
        (newest,) = db.execute("SELECT coalesce(max(id), 0) FROM calls").fetchone()
        self._last_call = newest

    def _follow_clients(self, db: sqlite3.Connection) -> list[int]:
        """Those that were closed meanwhile."""
        still_open = [client for client, known in self._opens.items() if known.closed is None]
        rows = db.execute(_OPEN_CLIENTS, (json.dumps(still_open),)).fetchall()
        rows += db.execute(_NEW_CLIENTS, (self._last_client,)).fetchall()
        for client, name, pid, program, opened, closed, kernel_addr, kernel_size in rows:
            shown = name or (f"{program} ({pid})" if program else f"client {client}")
            self._opens[client] = _Open(shown, opened, closed)
            self._last_client = max(self._last_client, client)
            if kernel_addr is not None and kernel_size:
                self._spaces.made(client, kernel_addr, kernel_size)
        return [row[0] for row in rows if row[5] is not None]

    def _follow_faults(self, db: sqlite3.Connection) -> None:
        for row in db.execute(_FAULTS, (self._last_fault,)):
            self._faults.appendleft(Fault(*row))
            self._last_fault = row[0]
            self._faults_total += 1

    # -- as numbers

    def _moment(self, trace: Trace, now: int | None) -> Moment:
        device = trace.db.execute("SELECT chip, vram, gart FROM device").fetchone() or (None, None, None)
        last_at = self._calls.last_at
        end = (last_at // SLOT + 1) * SLOT  # so that the last call is of the last whole tenth
        moment = end if now is None or trace.whole else max(now, last_at)
        recorded = _has_runtime(trace)
        return Moment(
            now=moment,
            whole=trace.whole,
            last_call=self._last_call,
            last_call_at=last_at,
            chip=device[0],
            vram=device[1],
            gart=device[2],
            memory=self._memory.numbers() if recorded else None,
            clients=tuple(self._client(client, moment) for client in self._opens),
            queues=tuple(self._jobs.queues()) if recorded else None,
            faults=tuple(self._faults),
            faults_total=self._faults_total,
        )

    def _client(self, client: int, now: int) -> ClientNumbers:
        known = self._opens[client]
        return ClientNumbers(
            id=client,
            name=known.name,
            opened=known.opened,
            closed=known.closed,
            space=self._spaces.numbers(client),
            tables=self._tables.numbers(client),
            calls=self._calls.numbers(client, now),
            binds_per_second=self._calls.binds_per_second(client, now),
            ops_per_second=self._calls.ops_per_second(client, now),
            binds=self._calls.binds(client, now),
        )


def _has_runtime(trace: Trace) -> bool:
    """Whether more than calls was recorded; JSON Lines have nothing else."""
    return trace.form is Form.SQLITE


@contextmanager
def _reading(trace: Trace) -> Iterator[None]:
    """What a broken file leads to is the file's fault."""
    try:
        yield
    except sqlite3.Error as error:
        raise damaged(trace.name, error) from None
    except (GpuvmError, TypeError, ValueError, OverflowError) as error:  # text where a number belongs, say
        raise TraceError(trace.name, f"its tables contradict each other: {error}") from None
