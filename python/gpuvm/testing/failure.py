"""Why a run failed, and what is told of it."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Iterable
from textwrap import indent
from types import FrameType
from typing import Final

from gpuvm.sync import lockdep, task
from gpuvm.sync.lock_report import relative
from gpuvm.sync.mutex import Mutex
from gpuvm.testing.thread import Controlled

_HERE = os.path.dirname(os.path.abspath(__file__))

MACHINERY: Final = frozenset(
    {
        os.path.join(_HERE, "clock.py"),
        os.path.join(_HERE, "interleaving.py"),
        os.path.join(_HERE, "lines.py"),
        os.path.join(_HERE, "thread.py"),
        os.path.abspath(__file__),
        task.__file__,
        threading.__file__,
    }
)
"""Files that start threads and switch between them; they say nothing of where a thread stands."""


class Deadlock(AssertionError):
    """Nobody can go on. The message tells where each thread sleeps and which locks it holds."""


class Livelock(AssertionError):
    """The threads go on and on and do not come to an end."""


class Stuck(AssertionError):
    """A controlled thread really blocks, outside of ``gpuvm.sync.task``, or computes for very long."""


class Failure:
    """The first failure of a run, and where its threads stood then.

    Args:
        error: what is raised in the end.
        when: thread, step, clock.
        left: the threads that had not ended, if it matters where they are.
        sleepers: those of them that were asleep.
    """

    def __init__(
        self,
        error: BaseException,
        when: str,
        left: Iterable[Controlled[object]],
        sleepers: Iterable[Controlled[object]],
    ) -> None:
        self.error = error
        self.when = when
        frames = sys._current_frames()
        asleep = set(sleepers)
        self.standing = [
            (thread, f"{_state(thread, thread in asleep)} at\n{_stack(frames[thread.ident])}")
            for thread in left
        ]

    def explain(self, owners: str, switches: str) -> None:
        """Put all that is known into the error, once the threads have told which locks they hold.

        Args:
            owners: locks of the owner.
            switches: the last ones.
        """
        standing = [f"  {thread}{thread.held}, {where}" for thread, where in self.standing]
        if isinstance(self.error, OURS):
            owner = [f"  the owner{owners}"] if owners else []
            told = "\n".join([str(self.error), f"  {self.when}", *standing, *owner, switches])
            self.error.args = (told,)
        else:
            self.error.add_note(f"  {self.when}\n{switches}")


OURS: Final = (Deadlock, Livelock, Stuck)
"""Failures of all threads together, not of one."""


def locks_of(me: task.Task) -> str:
    """What the calling thread holds, and waits for, which the validator counts as held; "" if it is off."""
    if not lockdep.enabled:
        return ""
    waits = [lock for lock in lockdep.held() if isinstance(lock, Mutex) and me in lock.waiters]
    holds = [lock for lock in lockdep.held() if lock not in waits]
    wants = f", waits for {', '.join(map(repr, waits))}" if waits else ""
    return f", holds {', '.join(map(repr, holds)) or 'no lock'}{wants}"


def _state(thread: Controlled[object], asleep: bool) -> str:
    if not asleep:
        return "could go on"
    return "sleeps" if thread.deadline is None else f"sleeps until {thread.deadline} ns"


def _stack(frame: FrameType) -> str:
    """Without the machinery at both ends."""
    entries = list(traceback.extract_stack(frame))
    while entries and entries[0].filename in MACHINERY:
        del entries[0]
    while entries and entries[-1].filename in MACHINERY:
        del entries[-1]
    for entry in entries:
        entry.filename = relative(entry.filename)
    return indent("".join(traceback.format_list(entries)), "    ").rstrip()
