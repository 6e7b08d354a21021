"""What the tests of the lock validator lock, and threads that do so one after another."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from gpuvm.errors import LockdepError
from gpuvm.sync import lockdep, task
from gpuvm.sync.lockdep import LockClass, lock_class
from gpuvm.sync.mutex import Mutex


@dataclass(eq=False)
class Bare:
    """A lock of which only the validator knows; nobody can wait for it."""

    name: str
    lock_class: LockClass


@dataclass(frozen=True)
class Point:
    context: int
    seqno: int = 1

    @property
    def contexts(self) -> tuple[int, ...]:
        return (self.context,)


def bare(name: str, of: str = "", *, reservation: bool = False) -> Bare:
    return Bare(name, LockClass(of or name, reservation=True) if reservation else lock_class(of or name))


def nested(*locks: Mutex) -> None:
    """Take them in this order, and let go of all."""
    with ExitStack() as stack:
        for lock in locks:
            stack.enter_context(lock)


def in_thread(name: str, function: Callable[..., None], *args: object) -> LockdepError | None:
    """Run it to its end in a thread of its own; what the validator said."""
    said: list[LockdepError] = []

    def run() -> None:
        try:
            function(*args)
        except LockdepError as error:
            said.append(error)
        lockdep.check_nothing_held(name)
        lockdep.check()

    task.start(name, run).join()
    return said[0] if said else None


def report_of(name: str, function: Callable[..., None], *args: object) -> str:
    error = in_thread(name, function, *args)
    assert error is not None
    return str(error)
