"""The queues of a recorded program: jobs that wait, jobs that run, kept up to date from a trace."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, NamedTuple

_JOB: Final = "j.call, j.client, j.channel, coalesce(j.queued, c.t), j.started, j.done, j.error"
_FROM: Final = "FROM jobs j JOIN calls c ON c.id = j.call"
_NEW: Final = f"SELECT {_JOB} {_FROM} WHERE j.call > ? ORDER BY j.call"
_OPEN: Final = f"SELECT {_JOB} {_FROM} WHERE j.done IS NULL ORDER BY j.call"
_AGAIN: Final = f"""
SELECT {_JOB} FROM json_each(?) one CROSS JOIN jobs j ON j.call = one.value JOIN calls c ON c.id = j.call"""
_DONE: Final = (
    "SELECT client, channel, count(*), sum(error != 0) FROM jobs WHERE done IS NOT NULL GROUP BY 1, 2"
)


@dataclass(frozen=True, slots=True)
class QueueNumbers:
    """One queue of a client: a channel, or that of its binds."""

    client: int
    channel: int
    """0: the queue of binds."""
    queued: int
    """Jobs that have not begun."""
    running: int
    since: int | None
    """When the oldest of these was queued, in ns of the recording; None: there is none."""
    done: int
    failed: int
    """How many of them ended with an error."""


class _Job(NamedTuple):
    call: int
    client: int
    channel: int
    queued: int
    started: int | None
    done: int | None
    error: int | None


class Jobs:
    """Jobs that are not done, and counts of the others. Not thread-safe."""

    def __init__(self) -> None:
        self._open: dict[int, _Job] = {}
        self._done: Counter[tuple[int, int]] = Counter()
        self._failed: Counter[tuple[int, int]] = Counter()

    def advance(self, db: sqlite3.Connection, last_call: int) -> int:
        """Take in jobs of calls after ``last_call``, and what became of open ones; how many rows that were.

        Cost: O(new ones + open ones), but 0, for the beginning, is one look at all.
        """
        rows = [_Job(*row) for row in db.execute(_AGAIN, (json.dumps(list(self._open)),))]
        if last_call:
            rows += [_Job(*row) for row in db.execute(_NEW, (last_call,))]
        else:
            rows = [_Job(*row) for row in db.execute(_OPEN)]
            for client, channel, done, failed in db.execute(_DONE):
                self._done[client, channel], self._failed[client, channel] = done, failed or 0
        for job in rows:
            self._note(job)
        return len(rows)

    def closed(self, client: int) -> None:
        """The client was closed: its queues are gone."""
        for counts in (self._done, self._failed):
            for key in [one for one in counts if one[0] == client]:
                del counts[key]
        self._open = {call: job for call, job in self._open.items() if job.client != client}

    def open_calls(self) -> Collection[int]:
        """The calls whose jobs are not done; follows what comes."""
        return self._open.keys()

    def __len__(self) -> int:
        """Open jobs."""
        return len(self._open)

    def queues(self) -> list[QueueNumbers]:
        """Every queue that had a job, by client and channel."""
        jobs: dict[tuple[int, int], list[_Job]] = {key: [] for key in self._done}
        for job in self._open.values():
            jobs.setdefault((job.client, job.channel), []).append(job)
        return [self._numbers(*key, jobs[key]) for key in sorted(jobs)]

    def _numbers(self, client: int, channel: int, jobs: list[_Job]) -> QueueNumbers:
        running = sum(job.started is not None for job in jobs)
        since = min((job.queued for job in jobs), default=None)
        key = client, channel
        return QueueNumbers(
            client, channel, len(jobs) - running, running, since, self._done[key], self._failed[key]
        )

    def _note(self, job: _Job) -> None:
        if job.done is None:
            self._open[job.call] = job
            return
        self._open.pop(job.call, None)
        self._done[job.client, job.channel] += 1
        self._failed[job.client, job.channel] += bool(job.error)
