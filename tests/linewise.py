"""Threads that can be interrupted between any two lines of the locks, not only where these offer it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, ParamSpec, TypeVar
from unittest.mock import patch

from gpuvm.exec import exec
from gpuvm.sync import mutex, resv, task, ww_mutex
from gpuvm.sync.ww_mutex import WwClass, reservation_ww_class

P = ParamSpec("P")
R = TypeVar("R")

LOCKS = frozenset(str(module.__file__) for module in (mutex, ww_mutex, resv, exec))
WAITING = frozenset({task.__file__})


def linewise(function: Callable[P, R], files: frozenset[str] = LOCKS) -> Callable[P, R]:
    """To be run under `guards_that_sleep`."""

    def trace(frame: FrameType, event: str, _arg: Any) -> Any:
        code = frame.f_code
        machinery = code.co_qualname.startswith("Threads.")  # the scheduler calls this, and is not to be torn
        return between_lines if code.co_filename in files and not machinery else None

    def between_lines(_frame: FrameType, event: str, _arg: Any) -> Any:
        if event == "line" and task.preempt is not None:
            task.preempt()
        return between_lines

    def run(*args: P.args, **named: P.kwargs) -> R:
        sys.settrace(trace)
        try:
            return function(*args, **named)
        finally:
            sys.settrace(None)

    run.__name__ = getattr(function, "__name__", "thread")
    return run


class SleepingGuard:
    """In the place of a raw guard: whoever has it can be interrupted, and whoever wants it sleeps."""

    def __init__(self) -> None:
        self._held = False
        self._sleepers: list[task.Waiter] = []

    def __enter__(self) -> None:
        while True:
            mine = task.Waiter()
            if not self._held:
                self._held = True
                return
            self._sleepers.append(mine)
            mine.wait()

    def __exit__(self, *_: object) -> None:
        self._held = False
        if self._sleepers:
            self._sleepers.pop(0).wake()


@contextmanager
def guards_that_sleep(*ww_classes: WwClass) -> Iterator[None]:
    """Locks made in the block have such guards: mutexes, reservations, and locks of these classes."""
    with patch.object(mutex, "_queues", SleepingGuard()):
        classes = [*ww_classes, reservation_ww_class]
        before = [each.guard for each in classes]
        for each in classes:
            each.guard = SleepingGuard()  # type: ignore[assignment]
        try:
            yield
        finally:
            for each, guard in zip(classes, before, strict=True):
                each.guard = guard
