"""The watcher alone: whom it interrupts, when, and that no interrupt is taken for the next call's."""

from __future__ import annotations

import errno
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from gpuvm.device import interrupts, signals
from gpuvm.device.interrupts import SLOW_TICK, TICK, Serving, Watcher
from gpuvm.device.notify import RESTART, Notification
from gpuvm.device.signals import Signals
from gpuvm.errors import Interrupted
from gpuvm.sync import task
from gpuvm.testing import Interleaving, Pct, RandomWalk, Strategy, explore, sample
from suite import scaled

HERE = sys.modules[__name__]
IDLE = Signals(process=10, tracer=0, threads=3, own=0, shared=0)


def nothing() -> None:
    pass


def a_call(number: int, thread: int = 10) -> Notification:
    return Notification(number, thread, 16, (0, 0, 0, 0, 0, 0), 0)


def one_call_is_interrupted(run: Interleaving) -> Callable[[], None]:
    """One thread serves two calls, which wait; another interrupts the first, perhaps too late."""
    run.step_lines(interrupts, HERE)
    first, second = a_call(1), a_call(2)
    answers: list[tuple[bool, int | None]] = []
    serving: list[Serving] = []

    def serve() -> None:
        serving.append(Serving(nothing))
        for call in (first, second):
            serving[0].call = call
            try:
                task.Waiter().wait(task.now() + 100, interruptible=True)
                came_back_undone = False
            except Interrupted:
                came_back_undone = True
            answers.append((came_back_undone, serving[0].end()))

    def interrupt() -> None:
        if serving:
            serving[0].interrupt(first, -RESTART)

    run.spawn(serve)
    run.spawn(interrupt)

    def check() -> None:
        assert answers[0] in ((True, -RESTART), (False, -RESTART), (False, None))
        assert answers[1] == (False, None)

    return check


@pytest.mark.parametrize("maker", [RandomWalk, lambda seed: Pct(seed, depth=4, steps=100)])
def test_no_interrupt_is_taken_for_the_next_calls(maker: Callable[[int], Strategy]) -> None:
    sample(one_call_is_interrupted, range(scaled(100, 5000)), maker)


def test_no_interrupt_is_taken_for_the_next_calls_in_any_order() -> None:
    assert explore(one_call_is_interrupted, preemptions=scaled(1, 2), limit=20_000).complete


class Callers:
    """Threads under us, what /proc says of them, and what became of their waits. Times are in ns."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.said: dict[int, Signals | None] = {}
        self.gone: set[int] = set()
        self.nudged: list[int] = []
        self.handed_over: Counter[int] = Counter()
        self.may_nudge = True
        self.stopping = False
        self.ended: dict[int, tuple[int, int | None]] = {}
        self.servings: list[Serving] = []
        self.began = 0
        self.watcher = Watcher(lambda id: id not in self.gone, lambda: self.servings)
        monkeypatch.setattr(signals, "read", self.said.get)
        monkeypatch.setattr(signals, "stopping", lambda process: process == 10 and self.stopping)
        monkeypatch.setattr(signals, "nudge", self._nudge)

    def _nudge(self, thread: int) -> bool:
        self.nudged.append(thread)
        return self.may_nudge

    def wait(self, thread: int, duration: int) -> None:
        """One call of ``thread``; its number is the thread's."""
        serving = Serving(lambda: self.handed_over.update([thread]))
        self.servings.append(serving)
        self.said.setdefault(thread, IDLE)
        serving.call = a_call(thread, thread)
        if self.watcher.asleep:
            self.watcher.wake()
        with suppress(Interrupted):
            task.Waiter().wait(task.now() + duration, interruptible=True)
        ending = serving.end()
        self.ended[thread] = task.now() - self.began, ending
        self.servings.remove(serving)


@pytest.fixture
def callers(monkeypatch: pytest.MonkeyPatch) -> Callers:
    return Callers(monkeypatch)


@contextmanager
def played(callers: Callers) -> Iterator[Interleaving]:
    """What is spawned within runs beside the watcher."""
    with Interleaving(0) as run:
        callers.began = task.now()
        task.start("watcher", callers.watcher.run)
        yield run
        run.run()
        callers.watcher.close()


LONG = 10**9
A, B, C = 10, 11, 12  # threads of process 10; A is its first


def test_who_has_nothing_to_handle_waits_to_the_end(callers: Callers) -> None:
    with played(callers) as run:
        run.spawn(callers.wait, A, LONG)
    assert callers.ended == {A: (LONG, None)}
    looks = callers.watcher.statistics().looks
    assert LONG // (2 * SLOW_TICK) < looks < LONG // SLOW_TICK + 40


def test_own_signals_end_a_wait_at_the_second_round(callers: Callers) -> None:
    callers.said[A] = IDLE._replace(own=1)
    with played(callers) as run:
        run.spawn(callers.wait, A, LONG)
    at, ending = callers.ended[A]
    assert ending == -RESTART
    assert at < 3 * TICK
    assert callers.nudged == []


def test_the_only_thread_of_a_process_handles_what_is_for_the_process(callers: Callers) -> None:
    callers.said[A] = IDLE._replace(shared=1, threads=1)
    with played(callers) as run:
        run.spawn(callers.wait, A, LONG)
    assert callers.ended[A][1] == -RESTART
    assert callers.nudged == []


def test_the_first_thread_of_a_process_is_preferred(callers: Callers) -> None:
    for thread in (B, A, C):
        callers.said[thread] = IDLE._replace(shared=1)
    with played(callers) as run:
        for thread in (B, A, C):
            run.spawn(callers.wait, thread, 4 * TICK)
    assert callers.nudged[0] == A
    assert callers.ended[A][1] == -RESTART


def test_a_signal_that_another_thread_handled_meanwhile_ends_no_wait(callers: Callers) -> None:
    def handle_elsewhere() -> None:
        task.Waiter().wait(task.now() + 2 * TICK + 1)
        callers.said[B] = IDLE._replace(shared=2)

    callers.said[B] = IDLE._replace(shared=1)
    with played(callers) as run:
        run.spawn(callers.wait, B, 3 * TICK)
        run.spawn(handle_elsewhere)
    assert callers.ended[B] == (3 * TICK, None)
    assert callers.nudged == []


def test_who_was_nudged_is_not_nudged_again_while_the_call_lasts(callers: Callers) -> None:
    """A wait that no signal ends goes on for long."""

    def insist() -> None:
        serving = Serving(nothing)
        callers.servings.append(serving)
        serving.call = a_call(A, A)
        task.Waiter().wait(task.now() + LONG)
        callers.ended[A] = task.now() - callers.began, serving.end()
        callers.servings.remove(serving)

    callers.said[A] = IDLE._replace(shared=1)
    with played(callers) as run:
        run.spawn(insist)
    assert callers.nudged == [A]
    assert callers.ended[A] == (LONG, -RESTART)  # which is not answered: the call came back done


def test_where_nobody_may_be_nudged_one_after_the_other_gets_eintr(callers: Callers) -> None:
    """The oldest call first. It is repeated, so it is the newest next time."""
    callers.may_nudge = False
    for thread in (B, A, C):
        callers.said[thread] = IDLE._replace(shared=1)
    with played(callers) as run:
        for thread in (B, A, C):
            run.spawn(callers.wait, thread, LONG)
    assert [ending for _, ending in callers.ended.values()] == [-errno.EINTR] * 3
    assert len({at for at, _ in callers.ended.values()}) == 3
    assert callers.watcher.statistics().nudges == 3


def test_a_process_that_stops_is_not_held_up_by_those_that_wait(callers: Callers) -> None:
    callers.stopping = True
    callers.said[30] = Signals(process=30, tracer=0, threads=1, own=0, shared=0)
    with played(callers) as run:
        run.spawn(callers.wait, B, LONG)
        run.spawn(callers.wait, 30, LONG)
    at, ending = callers.ended[B]
    assert ending == -RESTART
    assert at <= 20 * TICK
    assert callers.ended[30] == (LONG, None)


def test_the_wait_of_who_is_gone_ends(callers: Callers) -> None:
    callers.gone.add(A)
    callers.said[B] = None  # gone in the moment that it is looked at: seen a round later
    with played(callers) as run:
        run.spawn(callers.wait, A, LONG)
        run.spawn(callers.wait, B, 8 * TICK)
    assert callers.ended[A][0] < 3 * TICK
    assert callers.ended[B] == (8 * TICK, None)
    assert callers.watcher.statistics().killed == 1


def test_it_sleeps_when_nothing_is_to_be_seen_and_is_woken(callers: Callers) -> None:
    asleep: list[bool] = []

    def come_and_go() -> None:
        for _ in range(3):
            task.Waiter().wait(task.now() + 100 * TICK)
            asleep.append(callers.watcher.asleep)
            callers.said[A] = IDLE._replace(own=1)
            callers.wait(A, LONG)
            assert callers.ended.pop(A)[1] == -RESTART

    with played(callers) as run:
        run.spawn(come_and_go)
    assert asleep == [True] * 3


def test_who_takes_long_is_to_let_others_receive(callers: Callers) -> None:
    with played(callers) as run:
        run.spawn(callers.wait, A, TICK // 2)
        run.spawn(callers.wait, B, 6 * TICK)
    assert callers.handed_over[A] == 0
    assert callers.handed_over[B] >= 1


def test_the_more_calls_last_the_slower_are_the_rounds(callers: Callers) -> None:
    with played(callers) as run:
        for thread in range(200, 300):
            run.spawn(callers.wait, thread, LONG)
    assert callers.watcher.statistics().looks * 25_000 < LONG // 8  # a look takes 25 us
