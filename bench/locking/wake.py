"""Two threads wake each other in turn; a unit is one signal and the other's return from its wait."""

from __future__ import annotations

import threading
from _thread import LockType, allocate_lock

from bench.sampling.contender import Contender, Job
from bench.selfcheck import Disagreement
from gpuvm.sync.fence import Fence, fence_context_alloc


class FencePingPong(Contender):
    """A `Fence` for each turn."""

    def __init__(self) -> None:
        self._pings: list[Fence] = []
        self._pongs: list[Fence] = []

    def jobs(self, units: int) -> list[Job]:
        context = fence_context_alloc(2)
        pings = self._pings = [Fence(context, seqno) for seqno in range(units // 2)]
        pongs = self._pongs = [Fence(context + 1, seqno) for seqno in range(units // 2)]

        def serve() -> None:
            for ping, pong in zip(pings, pongs, strict=True):
                ping.signal()
                pong.wait()

        def reply() -> None:
            for ping, pong in zip(pings, pongs, strict=True):
                ping.wait()
                pong.signal()

        return [serve, reply]

    def check(self) -> int:
        fences = self._pings + self._pongs
        if not all(fence.signalled for fence in fences):
            raise Disagreement("FencePingPong: a fence was not signalled")
        return len(fences)


class EventPingPong(Contender):
    """A `threading.Event` for each turn."""

    def __init__(self) -> None:
        self._pings: list[threading.Event] = []
        self._pongs: list[threading.Event] = []

    def jobs(self, units: int) -> list[Job]:
        pings = self._pings = [threading.Event() for _ in range(units // 2)]
        pongs = self._pongs = [threading.Event() for _ in range(units // 2)]

        def serve() -> None:
            for ping, pong in zip(pings, pongs, strict=True):
                ping.set()
                pong.wait()

        def reply() -> None:
            for ping, pong in zip(pings, pongs, strict=True):
                ping.wait()
                pong.set()

        return [serve, reply]

    def check(self) -> int:
        events = self._pings + self._pongs
        if not all(event.is_set() for event in events):
            raise Disagreement("EventPingPong: an event was not set")
        return len(events)


class LockPingPong(Contender):
    """The floor: two of the interpreter's locks, each released by one thread and taken by the other."""

    def __init__(self) -> None:
        self._turns = 0
        self._ping, self._pong = _taken(), _taken()

    def jobs(self, units: int) -> list[Job]:
        ping, pong, pairs = self._ping, self._pong, units // 2

        def serve() -> None:
            for _ in range(pairs):
                ping.release()
                pong.acquire()

        def reply() -> None:
            for _ in range(pairs):
                ping.acquire()
                pong.release()

        self._turns = 2 * pairs
        return [serve, reply]

    def check(self) -> int:
        if not (self._ping.locked() and self._pong.locked()):
            raise Disagreement("LockPingPong: a signal was not waited for")
        return self._turns


def _taken() -> LockType:
    lock = allocate_lock()
    lock.acquire()
    return lock
