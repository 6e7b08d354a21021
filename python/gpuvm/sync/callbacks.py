"""Running the callbacks of signalled fences: in order, each once, whatever they do.

A callback that signals another fence leaves that one's callbacks to the call that runs it. So the stack does
not grow along fences each of which is signalled by a callback of the one before.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar

from gpuvm.sync.unraisable import report

F = TypeVar("F", bound=Callable[..., object])


class Signalled(Protocol):
    """A fence that is signalled."""

    _callbacks: dict[int, Callable[[Any], object]]


class Repeatable:
    """A callback that does no harm if it is called twice, and is if it was stopped: others wait for it."""

    __slots__ = ()
    repeatable: Final = True


def repeatable(method: F) -> F:
    """Have a method be such a callback."""
    method.repeatable = True  # type: ignore[attr-defined]
    return method


class _Running:
    """What one thread runs."""

    __slots__ = ("due", "fence")

    def __init__(self) -> None:
        self.fence: Signalled | None = None
        """Whose callbacks run."""
        self.due: deque[Signalled] = deque()
        """Whose are next."""


class _Thread(threading.local):
    def __init__(self) -> None:
        self.running = _Running()


_thread = _Thread()


def run_callbacks(fence: Signalled) -> None:
    """Run the callbacks of ``fence``, or if a callback calls this, have them run after what is due before.

    Raises:
        BaseException: what is no ``Exception``, such as ``KeyboardInterrupt``, came in a callback or between
            two. The others have run.
    """
    running = _thread.running
    due = running.due
    if running.fence is not None:
        due.append(fence)
        return
    running.fence = fence
    try:
        _run(running)
    except BaseException:
        _run(running)  # somebody ends the program; those who wait still must not hang
        raise
    finally:
        running.fence = None
    if due:  # a finalizer signalled something in the last moment
        run_callbacks(due.popleft())


def run_due() -> None:
    """Run what this thread has still to run, before it sleeps in a callback, maybe for just that."""
    running = _thread.running
    if running.fence is not None:
        _run(running)


def _run(running: _Running) -> None:
    stopped: BaseException | None = None
    fence = running.fence
    while fence is not None:
        callbacks = fence._callbacks
        for ticket in [*callbacks]:
            try:
                callback = callbacks[ticket]
                del callbacks[ticket]  # not pop: after a call Python may handle Ctrl-C
            except KeyError:
                continue  # taken back in the meantime
            try:
                try:
                    callback(fence)
                except Exception as error:
                    report(error, f"callback {callback!r} of {fence!r}")
            except BaseException as error:
                stopped = error
                if getattr(callback, "repeatable", None) is True:
                    callback(fence)
        if not running.due:
            break
        fence = running.fence = running.due[0]
        del running.due[0]
    if stopped is not None:
        raise stopped
