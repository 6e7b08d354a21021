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

from gpuvm.sync import task
from gpuvm.testing.thread import Controlled

_HERE = os.path.dirname(os.path.abspath(__file__))

MACHINERY: Final = frozenset(
    {
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

    def explain(self, *lines: str) -> None:
        """Put all that is known into the error, once unwinding has told which locks were held."""
        standing = [f"  {thread}{thread.held}, {where}" for thread, where in self.standing]
        text = "\n".join([f"  {self.when}", *standing, *lines])
        if isinstance(self.error, OURS):
            self.error.args = (f"{self.error}\n{text}",)
        else:
            self.error.add_note(text)


OURS: Final = (Deadlock, Livelock, Stuck)
"""Failures of all threads together, not of one."""


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
    return indent("".join(traceback.format_list(entries)), "    ").rstrip()
