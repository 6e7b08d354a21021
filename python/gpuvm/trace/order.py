"""What comes before what: jobs by their queues, by sync objects, and by what the program waited for.

A job is an accepted EXEC or VM_BIND. The EXECs of a channel are a queue, and so are a client's binds; a queue
does its jobs one after the other. A job waits for the fences that were in its sync objects when it was
submitted. And the program itself waits: after a wait that came to an end, whatever it submits comes behind
what it waited for. A VM_BIND without RUN_ASYNC is such a wait too, for itself and the binds before it; it
waits for no EXEC.

Every queue has a number, every job one in its queue. A *clock* says for each queue up to which job all are
done: ``{queue: number}``. Jobs, fences and the program have clocks, and to wait is to join them.
"""

from __future__ import annotations

import json
from array import array
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from gpuvm.errors import CheckFailed
from gpuvm.sync.syncobj_table import (
    FD_TO_HANDLE_IMPORT_SYNC_FILE,
    HANDLE_TO_FD_EXPORT_SYNC_FILE,
    QUERY_LAST_SUBMITTED,
    WAIT_ALL,
    WAIT_AVAILABLE,
)
from gpuvm.trace.call_numbers import NAMES, NUMBERS
from gpuvm.trace.syncobj_slot import NO_CLOCK, Clock, Slot, joined

if TYPE_CHECKING:
    from gpuvm.trace.trace import Trace

BINDS: Final = 0
"""The channel that stands for a client's queue of binds."""
_UNTOLD: Final = -1
"""The channel of EXECs of which the trace does not tell any; they count as one queue."""

_WAITS: Final = ("syncobj_wait", "syncobj_timeline_wait", "syncobj_query", "gem_cpu_prep")
_ABOUT: Final = (
    "close",
    "channel_free",
    "exec",
    "vm_bind",
    "syncobj_create",
    "syncobj_reset",
    "syncobj_signal",
    "syncobj_timeline_signal",
    "syncobj_transfer",
    "syncobj_handle_to_fd",
    "syncobj_fd_to_handle",
    *_WAITS,
)

_WAITED, _SIGNALLED, _NAMED, _SOURCE = range(4)
"""Roles of the table `syncs`."""

Args: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class OrderStatistics:
    """How much there was to put in order."""

    jobs: int
    queues: int
    waits: int
    """Calls after which the program knew more jobs to be done than before."""


class Order:
    """The order of a trace's jobs.

    One pass over the calls that have to do with it. A million jobs take some ten seconds; a question costs
    O(log jobs).

    Args:
        trace: open; it is not needed afterwards.

    Attributes:
        tells_waits: whether the trace has calls that wait. Recorders of other programs leave them out; then
            nobody knows what the program waited for.
    """

    def __init__(self, trace: Trace) -> None:
        self.tells_waits = _any_call(trace, _WAITS)
        self._queues: dict[tuple[int, int], int] = {}
        self._calls = array("q")  # of each job, ascending
        self._queue = array("q")
        self._number = array("q")
        self._before: list[Clock] = []  # what each job waits for, its own queue aside
        self._length: list[int] = []  # jobs of each queue
        self._clock: list[Clock] = []  # of the last job of each queue
        self._done: list[int] = []  # of each queue, as the program knows
        self._known: list[tuple[array[int], array[int]]] = []  # after which call it knew how many
        self._slots: defaultdict[int, Slot] = defaultdict(Slot)
        self._sync_files: dict[int, Clock] = {}
        self._execs: defaultdict[int, dict[int, array[int]]] = defaultdict(dict)  # by client and queue
        self._objects: _Objects | None = None
        self._read(trace)

    # -- questions

    def before(self, first: int, second: int) -> bool:
        """Whether the job of call ``first`` is surely done when what call ``second`` asks for takes effect.

        ``first`` has to be a job's call; ``second`` may be any.

        Raises:
            KeyError: ``first`` is no job.
        """
        job = self._job(first)
        if job is None:
            raise KeyError(first)
        queue, number = self._queue[job], self._number[job]
        calls, known = self._known[queue]
        at = bisect_left(calls, second)
        if at and known[at - 1] >= number:
            return True
        later = self._job(second)
        if later is None:
            return False
        if self._queue[later] == queue:
            return number < self._number[later]
        return self._before[later].get(queue, 0) >= number

    def _job(self, call: int) -> int | None:
        at = bisect_left(self._calls, call)
        return at if at < len(self._calls) and self._calls[at] == call else None

    # -- one pass

    def _read(self, trace: Trace) -> None:
        marks = ", ".join("?" * len(_ABOUT))
        calls = trace.db.execute(
            f"SELECT c.id, c.client, c.nr, c.args, j.channel FROM calls c LEFT JOIN jobs j ON j.call = c.id "
            f"WHERE c.ret = 0 AND c.nr IN ({marks}) ORDER BY c.id",
            [NUMBERS[name] for name in _ABOUT],
        )
        syncs = _Syncs(trace)
        for call, client, nr, text, channel in calls:
            named, name = syncs.of(call), NAMES[nr]
            if name == "exec":
                self._submitted(call, client, _UNTOLD if channel is None else channel, named)
            elif name == "vm_bind":
                self._submitted(call, client, BINDS, named)
                if channel is None:
                    self._drained(call, [(client, BINDS)])
            else:
                args: Args = json.loads(text) if text else {}
                self._other(trace, call, client, name, args, named)

    def _submitted(self, call: int, client: int, channel: int, syncs: Iterable[_Sync]) -> None:
        queue = self._queue_of(client, channel)
        waits = self._clock[queue]
        signals = []
        for role, syncobj, timeline, point in syncs:
            if syncobj is None:
                continue
            if role == _WAITED:
                waits = joined(waits, self._slots[syncobj].find(point if timeline else 0), self._done)
            else:
                signals.append((syncobj, point if timeline else 0))
        number = self._length[queue] = self._length[queue] + 1
        if channel != BINDS:
            self._execs[client].setdefault(queue, array("q")).append(len(self._calls))
        self._calls.append(call)
        self._queue.append(queue)
        self._number.append(number)
        self._before.append(waits)
        self._clock[queue] = waits
        if signals:
            fence = {**waits, queue: number}
            for syncobj, point in signals:
                self._slots[syncobj].put(fence, point, self._done)

    def _queue_of(self, client: int, channel: int) -> int:
        queue = self._queues.setdefault((client, channel), len(self._queues))
        if queue == len(self._length):
            self._length.append(0)
            self._clock.append(NO_CLOCK)
            self._done.append(0)
            self._known.append((array("q"), array("q")))
        return queue

    def _other(
        self, trace: Trace, call: int, client: int, name: str, args: Args, syncs: Sequence[_Sync]
    ) -> None:
        named = [
            (syncobj, point) for role, syncobj, _, point in syncs if role == _NAMED and syncobj is not None
        ]
        match name:
            case "syncobj_wait" | "syncobj_timeline_wait":
                flags = args.get("flags", 0)
                if not flags & WAIT_AVAILABLE and (flags & WAIT_ALL or len(named) == 1):
                    self._waited(call, named)
            case "syncobj_query" if not args.get("flags", 0) & QUERY_LAST_SUBMITTED:
                reached = zip(named, args.get("points") or (), strict=False)
                self._waited(call, [(syncobj, point) for (syncobj, _), point in reached if point])
            case "gem_cpu_prep":
                self._prepared(trace, call, client, args)
            case "channel_free":
                self._drained(call, [(client, args.get("channel", 0))])
            case "close":
                self._drained(call, [queue for queue in self._queues if queue[0] == client])
            case "syncobj_create" if args.get("flags", 0):
                self._signalled([(syncobj, 0) for syncobj, _ in named])
            case "syncobj_reset":
                for syncobj, _ in named:
                    self._slots[syncobj] = Slot()
            case "syncobj_signal":
                self._signalled([(syncobj, 0) for syncobj, _ in named])
            case "syncobj_timeline_signal":
                self._signalled(named)
            case "syncobj_transfer":
                self._transferred(syncs)
            case "syncobj_handle_to_fd" if args.get("flags", 0) & HANDLE_TO_FD_EXPORT_SYNC_FILE:
                for syncobj, point in named:
                    self._sync_files[args.get("fd", -1)] = self._slots[syncobj].find(point)
            case "syncobj_fd_to_handle" if args.get("flags", 0) & FD_TO_HANDLE_IMPORT_SYNC_FILE:
                fence = self._sync_files.get(args.get("fd", -1), NO_CLOCK)
                for syncobj, point in named:
                    self._slots[syncobj].put(fence, point, self._done)
            case _:
                pass

    def _signalled(self, named: Iterable[tuple[int, int]]) -> None:
        for syncobj, point in named:
            self._slots[syncobj].put(NO_CLOCK, point, self._done)

    def _transferred(self, syncs: Sequence[_Sync]) -> None:
        ends = {role: (syncobj, point) for role, syncobj, _, point in syncs if syncobj is not None}
        if _SOURCE in ends and _NAMED in ends:
            source, at = ends[_SOURCE]
            target, point = ends[_NAMED]
            self._slots[target].put(self._slots[source].find(at), point, self._done)

    def _waited(self, call: int, named: Iterable[tuple[int, int]]) -> None:
        for syncobj, point in named:
            self._knows(call, self._slots[syncobj].find(point))

    def _drained(self, call: int, queues: Iterable[tuple[int, int]]) -> None:
        for key in queues:
            if key in self._queues:
                queue = self._queues[key]
                self._knows(call, {**self._clock[queue], queue: self._length[queue]})

    def _prepared(self, trace: Trace, call: int, client: int, args: Args) -> None:
        """Of an object: all EXECs are done that were submitted where it was mapped."""
        if self._objects is None:
            self._objects = _Objects(trace)
        for user, born, died in self._objects.lives(client, args.get("handle", 0), call):
            for queue, jobs in self._execs[user].items():
                at = bisect_left(jobs, died, key=self._calls.__getitem__) - 1
                if at >= 0 and self._calls[jobs[at]] > born:
                    job = jobs[at]
                    self._knows(call, {**self._before[job], queue: self._number[job]})

    def _knows(self, call: int, clock: Clock) -> None:
        for queue, number in clock.items():
            if number > self._done[queue]:
                self._done[queue] = number
                calls, known = self._known[queue]
                calls.append(call)
                known.append(number)

    # -- looking at it

    def statistics(self) -> OrderStatistics:
        """Counts."""
        return OrderStatistics(len(self._calls), len(self._length), sum(len(k[0]) for k in self._known))

    def check(self) -> None:
        """Verify it. Raises CheckFailed: jobs out of order, or more known of a queue than it has."""
        problems = []
        if any(self._calls[at] >= self._calls[at + 1] for at in range(len(self._calls) - 1)):
            problems.append("the jobs are not in the order of their calls")
        for (client, channel), queue in self._queues.items():
            calls, known = self._known[queue]
            if sorted(calls) != [*calls] or sorted(set(known)) != [*known]:
                problems.append(f"client {client} channel {channel}: {[*zip(calls, known, strict=True)]}")
            if self._done[queue] > self._length[queue]:
                problems.append(
                    f"client {client} channel {channel}: {self._done[queue]} done of {self._length[queue]}"
                )
        if problems:
            raise CheckFailed("Order: " + "; ".join(problems))


_Sync: TypeAlias = tuple[int, int | None, int, int]
"""Role, syncobj, timeline and point."""


class _Syncs:
    """The rows of `syncs`, call by call, in ascending order."""

    def __init__(self, trace: Trace) -> None:
        rows = trace.db.execute("SELECT call, role, syncobj, timeline, point FROM syncs ORDER BY call, i")
        self._groups = groupby(rows, itemgetter(0))
        self._next = next(self._groups, None)

    def of(self, call: int) -> list[_Sync]:
        """Those of a call, which comes after the ones that were asked for before."""
        while self._next is not None and self._next[0] < call:
            self._next = next(self._groups, None)
        if self._next is None or self._next[0] != call:
            return []
        return [row[1:] for row in self._next[1]]


class _Objects:
    """Where objects are mapped, by the handles that they had."""

    def __init__(self, trace: Trace) -> None:
        self._handles: defaultdict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
        for client, handle, born, object_ in trace.db.execute(
            "SELECT client, handle, born, object FROM handles ORDER BY born"
        ):
            self._handles[client, handle].append((born, object_))
        self._lives: defaultdict[int, list[tuple[int, int, int]]] = defaultdict(list)
        for object_, *life in trace.db.execute(
            "SELECT object, client, min(born), max(ifnull(died, 1 << 62)) FROM mappings "
            "WHERE object NOTNULL GROUP BY object, client"
        ):
            self._lives[object_].append((life[0], life[1], life[2]))

    def lives(self, client: int, handle: int, call: int) -> list[tuple[int, int, int]]:
        """In which clients' spaces the object was that ``call`` means, and from which call to which."""
        had = self._handles.get((client, handle), [])
        at = bisect_left(had, (call,))
        return self._lives.get(had[at - 1][1], []) if at else []


def _any_call(trace: Trace, names: Sequence[str]) -> bool:
    marks = ", ".join("?" * len(names))
    query = f"SELECT 1 FROM calls WHERE nr IN ({marks}) LIMIT 1"
    return trace.db.execute(query, [NUMBERS[name] for name in names]).fetchone() is not None
