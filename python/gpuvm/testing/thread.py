"""Controlled: a thread that goes on only when it is its turn."""

from __future__ import annotations

import threading
from _thread import allocate_lock
from collections.abc import Callable
from typing import Generic, TypeVar, cast, final

from gpuvm.errors import Busy
from gpuvm.sync import task

T_co = TypeVar("T_co", covariant=True)


@final
class Controlled(Generic[T_co]):
    """A thread of an interleaving; ``spawn`` and ``task.start`` make them.

    Attributes:
        number: what schedules call it; threads count from 0 as they are made.
        name: what reports call it.
        task: what can be interrupted.
        worker: made by ``task.start``; nobody waits for its end.
        ended: it has returned, or was unwound.
    """

    __slots__ = (
        "_result",
        "_target",
        "baton",
        "deadline",
        "ended",
        "held",
        "ident",
        "joiners",
        "name",
        "number",
        "os_thread",
        "task",
        "worker",
    )

    def __init__(self, number: int, name: str, target: Callable[[], T_co] | None, worker: bool) -> None:
        self.number = number
        self.name = name
        self.task = task.Task(name)
        self.worker = worker
        self.ended = False
        self._target = target
        self._result: T_co | None = None
        # What follows is the Interleaving's own.
        self.os_thread: threading.Thread | None = None
        self.ident = 0
        self.baton = allocate_lock()
        """Open for a moment to let the thread go on."""
        self.baton.acquire()
        self.deadline: int | None = None
        """When its sleep ends at the latest."""
        self.held = ""
        """What the validator knew of its locks when it was unwound."""
        self.joiners: list[task.Waiter] = []

    @property
    def result(self) -> T_co:
        """What the function returned.

        Raises:
            Busy: it has not ended.
        """
        if not self.ended:
            raise Busy(f'result: thread "{self.name}" has not ended; call run() or join() first', self)
        return cast(T_co, self._result)

    def join(self) -> None:
        """Sleep until it has ended."""
        if not self.ended:
            waiter = task.Waiter()
            self.joiners.append(waiter)
            waiter.wait()

    def call(self) -> None:
        """Run the function, and forget it and its arguments before the next thread goes on."""
        target, self._target = self._target, None
        if target is not None:
            self._result = target()

    def __repr__(self) -> str:
        return f'thread {self.number} "{self.name}"'
