"""Threads with tickets, which lock as the test tells them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from actors import Actor, actors
from gpuvm.sync.ww_acquire import AcquireContext, WwClass
from gpuvm.sync.ww_mutex import WwMutex


class Contender:
    """A thread with a ticket; those made earlier are older."""

    def __init__(self, actor: Actor, ww_class: WwClass) -> None:
        self.actor = actor
        self.ticket: AcquireContext = actor.do(AcquireContext, ww_class).result
        self.locked: list[WwMutex] = []

    def lock(self, *locks: WwMutex, **named: bool) -> str:
        """What came of it: it has all, sleeps, or got an exception."""
        for lock in locks:
            self.locked.append(lock)
            self.actor.do(lock.lock, self.ticket, **named)
            if self.outcome != "has it":
                break
        return self.outcome

    def lock_slow(self, lock: WwMutex) -> str:
        self.locked.append(lock)
        self.actor.do(lock.lock_slow, self.ticket)
        return self.outcome

    @property
    def outcome(self) -> str:
        if self.actor.asleep:
            return "sleeps"
        if self.actor.error is not None:
            return type(self.actor.error).__name__
        return "has it"

    def unlock(self, *locks: WwMutex) -> None:
        for lock in locks:
            assert self.actor.do(lock.unlock).result is None
            lock.check()

    def unlock_all(self) -> None:
        for lock in reversed(self.locked):
            if lock.ticket is self.ticket:
                self.unlock(lock)
        self.locked.clear()

    def end(self) -> None:
        self.unlock_all()
        assert self.actor.do(self.ticket.fini).result is None


@contextmanager
def contenders(ww_class: WwClass, *names: str) -> Iterator[list[Any]]:
    """Threads with tickets, the oldest first; one whose name begins with a dash is an `Actor` without."""
    with actors(*names) as cast:
        yield [
            actor if name.startswith("-") else Contender(actor, ww_class)
            for name, actor in zip(names, cast, strict=True)
        ]


def finish(*cast: Contender) -> None:
    """In this order, each of which must be able to."""
    for each in cast:
        each.end()
