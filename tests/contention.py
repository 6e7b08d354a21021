"""What tests of locks fight over, and how: objects, the loop around `Contended`, looks at the locks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Barrier, Thread

import pytest

from gpuvm.errors import Contended
from gpuvm.exec import exec
from gpuvm.sync import mutex, resv, task, ww_mutex
from gpuvm.sync.mutex import Mutex
from gpuvm.sync.resv import Resv
from gpuvm.sync.ww_acquire import AcquireContext, WwClass
from gpuvm.sync.ww_mutex import WwMutex
from gpuvm.testing import Interleaving, Pct, RandomWalk, Strategy

WAIT_DIE = WwClass("wait_die", wait_die=True)
WOUND_WAIT = WwClass("wound_wait", wait_die=False)

Check = Callable[[], None]

LOCKS = (mutex, ww_mutex, resv, exec)
"""For `Interleaving.step_lines`; all at once, as they share their guards."""

both_classes = pytest.mark.parametrize("ww_class", [WAIT_DIE, WOUND_WAIT], ids=lambda each: str(each.name))


class Obj:
    """Something that has a reservation, perhaps another's."""

    def __init__(self, name: str, resv: Resv | None = None) -> None:
        self.name = name
        self.resv = Resv(name) if resv is None else resv

    def __repr__(self) -> str:
        return self.name


def objects(names: str) -> list[Obj]:
    return [Obj(name) for name in names]


def lock_all(ticket: AcquireContext, locks: Sequence[WwMutex]) -> int:
    """Take all, beginning again after `Contended`, as users of ww_mutex must; how often it began again."""
    again = 0
    slow: WwMutex | None = None
    while True:
        taken: list[WwMutex] = []
        try:
            if slow is not None:
                slow.lock_slow(ticket)
                taken.append(slow)
            for lock in locks:
                if lock is not slow:
                    lock.lock(ticket)
                    taken.append(lock)
        except Contended:
            slow = ticket.contending
            for lock in reversed(taken):
                lock.unlock()
            again += 1
        else:
            return again


def mutexes(ww_class: WwClass, names: str) -> list[WwMutex]:
    return [WwMutex(ww_class, name) for name in names]


def all_free(*locks: WwMutex) -> None:
    for lock in locks:
        lock.check()
        assert (lock.locked, lock.statistics().waiting) == (False, 0)


def crossing(locks: Sequence[WwMutex], ww_class: WwClass, rounds: int = 1) -> Callable[[], None]:
    """Take all of them, hold them, let go."""

    def run() -> None:
        for _ in range(rounds):
            with AcquireContext(ww_class) as ticket:
                lock_all(ticket, locks)
                if task.preempt is not None:
                    task.preempt()
                assert ticket.acquired == len(locks)
                assert all(lock.ticket is ticket for lock in locks)
                for lock in locks:
                    lock.unlock()

    return run


class Watched:
    """A strategy that has somebody look before each of its choices."""

    def __init__(self, strategy: Strategy, look: Callable[[], None]) -> None:
        self._strategy = strategy
        self._look = look

    def begin(self) -> None:
        self._strategy.begin()

    def choose(self, ready: Sequence[int], running: int | None) -> int:
        self._look()
        return self._strategy.choose(ready, running)

    def __repr__(self) -> str:
        return repr(self._strategy)


def watch(run: Interleaving, locks: Sequence[Mutex]) -> None:
    """Check all these at each step that has a choice."""

    def look() -> None:
        for lock in locks:
            lock.check()

    run.strategy = Watched(run.strategy, look)


class Rendezvous:
    """Nobody goes on before all have arrived."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._arrived: list[task.Waiter] = []

    def arrive(self) -> None:
        mine = task.Waiter()
        self._arrived.append(mine)
        if len(self._arrived) == self._count:
            for each in self._arrived:
                each.wake()
        mine.wait()


def strategy_of(seed: int) -> Strategy:
    return Pct(seed, depth=5, steps=300) if seed % 2 else RandomWalk(seed)


@contextmanager
def switching_often() -> Iterator[None]:
    """The interpreter changes threads as often as it can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


def in_real_threads(count: int, work: Callable[[int], None]) -> None:
    """Run `work(number)` in so many at once; the first failure is raised here."""
    start, ended = Barrier(count), SimpleQueue[BaseException | None]()

    def run(number: int) -> None:
        start.wait()
        try:
            work(number)
        except BaseException as failure:
            ended.put(failure)
        else:
            ended.put(None)

    with switching_often():
        for number in range(count):
            Thread(target=run, args=(number,), daemon=True).start()
        for _ in range(count):  # who failed may have left locks held, for which others wait
            failure = ended.get()
            if failure is not None:
                raise failure
