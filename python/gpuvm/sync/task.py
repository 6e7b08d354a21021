"""How a thread sleeps, is woken and tells the time: the one place where gpuvm blocks.

Every lock, fence and worker above sleeps through ``Waiter`` and nothing else. So a test that brings a
``Runtime`` of its own decides which thread goes on at each of these points, and what the clock says.
"""

from __future__ import annotations

import threading
import time
from _thread import LockType, allocate_lock
from collections.abc import Callable
from contextlib import suppress
from math import inf
from typing import Final, Protocol, final

from gpuvm._core import watch_locks
from gpuvm.errors import Interrupted, InvalidArgument

NSEC_PER_SEC: Final = 1_000_000_000
PREEMPTION: Final = 1
"""Which watcher of locks ``preempt`` is, for ``watch_locks``."""


@final
class Task:
    """One thread as the primitives see it (the kernel's ``struct task_struct``)."""

    __slots__ = ("__weakref__", "_interrupted", "_sleeping", "before_sleep", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.before_sleep: Callable[[], None] | None = None
        """Called by the thread itself before it sleeps, to have another do what it should do meanwhile.

        Source: ``wq_worker_sleeping``.
        """
        self._interrupted = False
        self._sleeping: Waiter | None = None

    def interrupt(self) -> None:
        """End the interruptible wait this task is in, or else its next one, with ``Interrupted``.

        Locking: none, any thread. Source: ``send_sig`` and ``signal_pending``.
        """
        self._interrupted = True
        waiter = self._sleeping
        if waiter is not None:
            runtime.unpark(waiter)

    def forget_interrupt(self) -> None:
        """Drop an interrupt that was not delivered: whom it was meant for waits no more.

        Locking: what ``interrupt`` is called under. Source: ``flush_signals``.
        """
        self._interrupted = False

    @property
    def interrupted(self) -> bool:
        """True while an interrupt waits to be delivered."""
        return self._interrupted

    def __repr__(self) -> str:
        return f"<Task {self.name!r}>"


class _Current(threading.local):
    task: Task | None = None


_current = _Current()


def current() -> Task:
    """The calling thread's task, made when it is first asked for."""
    task = _current.task
    if task is None:
        task = _current.task = Task(threading.current_thread().name)
    return task


def adopt(task: Task) -> None:
    """Have the calling thread known as ``task``. For a ``Runtime`` that makes threads."""
    _current.task = task


class Waiter:
    """A place where the thread that made it sleeps once, until somebody wakes it (a wait-queue entry)."""

    __slots__ = ("gate", "task", "woken")

    def __init__(self) -> None:
        self.task = current()
        self.woken = False
        """``wake`` was called."""
        self.gate: LockType = allocate_lock()
        """What the sleeper stands at; held while closed."""
        self.gate.acquire()

    def wait(self, deadline: int | None = None, *, interruptible: bool = False) -> bool:
        """Sleep until ``wake``; False if ``deadline`` (of ``now``, in ns) passed before.

        Raises:
            Interrupted: ``interruptible``, and the task was interrupted before it was woken.
        """
        task = self.task
        if task.before_sleep is not None and not self.woken:
            task.before_sleep()
        if not interruptible:
            runtime.park(self, deadline)
            return self.woken
        task._sleeping = self
        try:
            if not (task._interrupted or self.woken):
                runtime.park(self, deadline)
        finally:
            task._sleeping = None
        if not self.woken and task._interrupted:
            task._interrupted = False
            raise Interrupted("the wait was interrupted; undo what the call did so far, or repeat it")
        return self.woken

    def wake(self) -> None:
        """Let the sleeper go on, or not sleep at all. Any thread, any number of times."""
        self.woken = True
        try:
            runtime.unpark(self)
        except BaseException:  # Ctrl-C; who finds it woken does not wake it again
            runtime.unpark(self)
            raise


class Thread(Protocol):
    """A thread that ``Runtime.start`` made."""

    def join(self) -> None:
        """Wait until it has ended."""


class Runtime(Protocol):
    """What decides how threads run: the machine's own threads, or a test's seeded scheduler."""

    def now(self) -> int:
        """The monotonic clock in ns."""

    def park(self, waiter: Waiter, deadline: int | None) -> None:
        """Put the calling thread to sleep until ``unpark(waiter)``, which may have been, or the deadline."""

    def unpark(self, waiter: Waiter) -> None:
        """Let the sleeper at ``waiter`` go on, or not sleep."""

    def start(self, name: str, target: Callable[[], None]) -> Thread:
        """Run ``target`` in a new thread that does not keep the program alive."""


class Threads:
    """The machine's own threads and clock."""

    now = staticmethod(time.monotonic_ns)
    """``CLOCK_MONOTONIC``."""

    def park(self, waiter: Waiter, deadline: int | None) -> None:
        """Sleep at the waiter's gate."""
        if deadline is None:
            waiter.gate.acquire()
            return
        left = deadline - time.monotonic_ns()
        waiter.gate.acquire(True, min(max(left, 0) / NSEC_PER_SEC, threading.TIMEOUT_MAX))

    def unpark(self, waiter: Waiter) -> None:
        """Open the waiter's gate."""
        with suppress(RuntimeError):  # it may be open: another thread woke it too
            waiter.gate.release()

    def start(self, name: str, target: Callable[[], None]) -> Thread:
        """A daemon thread."""
        thread = threading.Thread(target=target, name=name, daemon=True)
        thread.start()
        return thread


runtime: Runtime = Threads()

preempt: Callable[[], None] | None = None
"""Called, if set, wherever another thread could get in between: before a lock is taken, after one is
released.

Primitives write ``if task.preempt is not None: task.preempt()``.
"""


def install(new: Runtime, preemption: Callable[[], None] | None) -> tuple[Runtime, Callable[[], None] | None]:
    """Make ``new`` the runtime and ``preemption`` the hook; returns the two before. For ``gpuvm.testing``."""
    global runtime, preempt
    before = runtime, preempt
    runtime, preempt = new, preemption
    watch_locks(PREEMPTION, preemption is not None)
    return before


def now() -> int:
    """The monotonic clock in ns, virtual under a test's scheduler (``ktime_get``)."""
    return runtime.now()


def deadline_after(timeout: float | None) -> int | None:
    """The moment ``timeout`` seconds from now, in ns; None, or infinity, for ever.

    Raises:
        InvalidArgument: NaN, which is no time.
    """
    if timeout is None or timeout == inf:
        return None
    if timeout != timeout:
        raise InvalidArgument("timeout: NaN is no time; pass seconds, or None for ever", timeout)
    return runtime.now() + int(max(timeout, 0) * NSEC_PER_SEC)


def start(name: str, target: Callable[[], None]) -> Thread:
    """Run ``target`` in a new thread that does not keep the program alive (``kthread_run``)."""
    return runtime.start(name, target)
