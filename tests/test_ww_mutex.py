"""`WwMutex`: who waits and who gives way, by the rules of both classes; and nobody deadlocks.

Groups named after the kernel's have its cases (kernel/locking/test-ww_mutex.c).
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from random import Random
from typing import Any

import pytest

from actors import Actor, actors
from contention import WAIT_DIE, WOUND_WAIT, both_classes, in_real_threads, lock_all, watch
from gpuvm.errors import (
    AlreadyLocked,
    CheckFailed,
    Contended,
    Interrupted,
    InvalidArgument,
    LockdepError,
)
from gpuvm.sync import lockdep, task
from gpuvm.sync.mutex import LockStatistics
from gpuvm.sync.ww_mutex import AcquireContext, WwClass, WwMutex
from gpuvm.testing import Interleaving, Pct, RandomWalk, explore, replay, sample
from linewise import LOCKS, WAITING, guards_that_sleep, linewise
from suite import scaled

Check = Callable[[], None]


def mutexes(ww_class: WwClass, names: str) -> list[WwMutex]:
    return [WwMutex(ww_class, name) for name in names]


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


class TestContext:
    def test_stamps_tell_who_came_first(self) -> None:
        with AcquireContext(WAIT_DIE) as first:
            with pytest.raises(LockdepError):  # one at a time; the second would not know whom to give way to
                AcquireContext(WAIT_DIE)
            assert "stamp" in repr(first)
        with AcquireContext(WAIT_DIE) as second:
            assert first.stamp < second.stamp

    def test_done_is_the_end_of_locking(self) -> None:
        [a] = mutexes(WAIT_DIE, "a")
        with AcquireContext(WAIT_DIE) as ticket:
            ticket.done()
            with pytest.raises(LockdepError, match="done"):
                a.lock(ticket)
        assert not a.locked

    def test_fini_with_locks(self) -> None:
        [a] = mutexes(WAIT_DIE, "a")
        ticket = AcquireContext(WAIT_DIE)
        a.lock(ticket)
        with pytest.raises(InvalidArgument, match=r"fini: .* unlock its locks first"):
            ticket.fini()
        a.unlock()
        ticket.fini()

    def test_counts_what_it_holds(self) -> None:
        a, b = mutexes(WAIT_DIE, "ab")
        with AcquireContext(WAIT_DIE) as ticket:
            a.lock(ticket)
            assert b.trylock(ticket)
            assert (ticket.acquired, a.ticket, b.ticket) == (2, ticket, ticket)
            a.unlock()
            b.unlock()
            assert (ticket.acquired, a.ticket, b.ticket) == (0, None, None)

    def test_lock_slow_only_with_empty_hands(self) -> None:
        a, b = mutexes(WAIT_DIE, "ab")
        with AcquireContext(WAIT_DIE) as ticket:
            a.lock(ticket)
            with pytest.raises(InvalidArgument, match=r"lock_slow: .* unlock everything"):
                b.lock_slow(ticket)
            assert not b.locked
            a.unlock()
            b.lock_slow(ticket)
            b.unlock()

    def test_several_of_a_class_only_under_a_ticket(self) -> None:
        a, b = mutexes(WAIT_DIE, "ab")
        with a, pytest.raises(LockdepError):
            b.lock()
        assert not b.locked

    def test_after_contended_the_contended_one_comes_first(self) -> None:
        with contenders(WAIT_DIE, "old", "young") as [old, young]:
            a, b, c = mutexes(WAIT_DIE, "abc")
            old.lock(a)
            assert young.lock(b, a) == "Contended"
            assert young.ticket.contending is a
            young.unlock(b)
            assert young.lock(c) == "LockdepError"
            assert not c.locked
            old.end()
            assert young.lock_slow(a) == "has it"
            assert young.ticket.contending is None
            assert young.lock(c) == "has it"
            young.end()


class TestStatisticsAndCheck:
    @both_classes
    def test_statistics(self, ww_class: WwClass) -> None:
        with contenders(ww_class, "old", "young") as [old, young]:
            [a] = mutexes(ww_class, "a")
            old.lock(a)
            young.lock(a)
            assert a.statistics() == LockStatistics("a", locked=True, waiting=1, contended=1)
            finish(old, young)
            assert a.statistics() == LockStatistics("a", locked=False, waiting=0, contended=1)

    def test_is_called_like_its_class(self) -> None:
        assert repr(WwMutex(WAIT_DIE)) == "<WwMutex 'wait_die' free>"

    def test_check_finds_a_wrong_order(self) -> None:
        with contenders(WAIT_DIE, "a", "b", "c") as [a, b, c]:
            [x] = mutexes(WAIT_DIE, "x")
            a.lock(x)
            b.lock(x)
            c.lock(x)
            x._queue.reverse()
            with pytest.raises(CheckFailed, match="queue"):
                x.check()
            x._queue.reverse()
            finish(a, b, c)

    def test_check_finds_one_who_should_have_given_way(self) -> None:
        with contenders(WAIT_DIE, "a", "b") as [a, b]:
            [x] = mutexes(WAIT_DIE, "x")
            a.lock(x)
            b.lock(x)
            x.check()
            b.ticket.acquired += 1
            with pytest.raises(CheckFailed, match="queue"):
                x.check()
            b.ticket.acquired -= 1
            finish(a, b)


class TestUnlockByAStranger:
    @both_classes
    def test_free(self, ww_class: WwClass) -> None:
        [a] = mutexes(ww_class, "a")
        with pytest.raises(InvalidArgument, match="unlock"):
            a.unlock()
        a.check()

    @both_classes
    def test_held_without_a_ticket(self, ww_class: WwClass) -> None:
        with actors("holder", "stranger") as [holder, stranger]:
            [a] = mutexes(ww_class, "a")
            holder.do(a.lock)
            assert isinstance(stranger.do(a.unlock).error, InvalidArgument)
            assert a.locked
            a.check()
            assert holder.do(a.unlock).result is None

    @both_classes
    def test_held_with_a_ticket(self, ww_class: WwClass) -> None:
        """Only the validator knows whose a ticket is."""
        with contenders(ww_class, "old", "-") as [old, stranger]:
            [a] = mutexes(ww_class, "a")
            old.lock(a)
            assert isinstance(stranger.do(a.unlock).error, LockdepError)
            assert (a.ticket, old.ticket.acquired) == (old.ticket, 1)
            a.check()
            old.end()


class TestWaitDie:
    """The younger dies, the older waits; whoever holds nothing waits."""

    def test_older_waits_for_a_younger_holder(self) -> None:
        with contenders(WAIT_DIE, "old", "young") as [old, young]:
            a, b = mutexes(WAIT_DIE, "ab")
            young.lock(a)
            assert old.lock(b, a) == "sleeps"
            assert not young.ticket.wounded
            young.end()
            assert old.outcome == "has it"
            old.end()

    def test_younger_dies_of_an_older_holder(self) -> None:
        with contenders(WAIT_DIE, "old", "young") as [old, young]:
            a, b = mutexes(WAIT_DIE, "ab")
            old.lock(a)
            assert young.lock(b, a) == "Contended"
            error = young.actor.error
            assert isinstance(error, Contended)
            assert (error.value, error.errno, young.ticket.contending) == (a, errno.EDEADLK, a)
            assert (b.ticket, young.ticket.acquired) == (young.ticket, 1), "it holds what it held"
            assert a.statistics().waiting == 0
            finish(old, young)

    def test_who_holds_nothing_waits_for_whomever(self) -> None:
        with contenders(WAIT_DIE, "old", "middle", "young") as [old, middle, young]:
            [a] = mutexes(WAIT_DIE, "a")
            old.lock(a)
            assert young.lock(a) == "sleeps"
            assert middle.lock(a) == "sleeps"
            finish(old, middle, young)

    def test_younger_dies_of_an_older_one_who_waits(self) -> None:
        with contenders(WAIT_DIE, "old", "middle", "young") as [old, middle, young]:
            a, b = mutexes(WAIT_DIE, "ab")
            young.lock(a)
            assert old.lock(a) == "sleeps"
            assert middle.lock(b, a) == "Contended"
            finish(young, old, middle)

    def test_younger_who_waits_dies_when_an_older_one_comes(self) -> None:
        with contenders(WAIT_DIE, "old", "middle", "young") as [old, middle, young]:
            a, b = mutexes(WAIT_DIE, "ab")
            young.lock(a)
            assert middle.lock(b, a) == "sleeps"
            assert old.lock(a) == "sleeps"
            assert middle.outcome == "Contended"
            assert middle.ticket.contending is a
            finish(young, old, middle)

    def test_younger_with_empty_hands_stays_when_an_older_one_comes(self) -> None:
        with contenders(WAIT_DIE, "old", "middle", "young") as [old, middle, young]:
            [a] = mutexes(WAIT_DIE, "a")
            young.lock(a)
            assert middle.lock(a) == "sleeps"
            assert old.lock(a) == "sleeps"
            assert middle.outcome == "sleeps"
            finish(young, old, middle)

    def test_younger_dies_when_an_older_one_gets_it_from_somebody_without_a_ticket(self) -> None:
        """In the queue: one without a ticket, then younger ones with locks. Nobody there is older, yet."""
        with contenders(WAIT_DIE, "old", "young", "-") as [old, young, outsider]:
            a, b = mutexes(WAIT_DIE, "ab")
            outsider.do(a.lock)
            assert young.lock(b, a) == "sleeps", "who has no ticket has no age"
            assert old.lock(a) == "sleeps"
            assert young.outcome == "Contended"
            outsider.do(a.unlock)
            finish(old, young)

    def test_nobody_dies_of_somebody_without_a_ticket(self) -> None:
        with contenders(WAIT_DIE, "young", "-1", "-2") as [young, holder, waiter]:
            a, b = mutexes(WAIT_DIE, "ab")
            holder.do(a.lock)
            assert waiter.do(a.lock).asleep
            assert young.lock(b, a) == "sleeps"
            holder.do(a.unlock)
            waiter.do(a.unlock)
            young.end()

    def test_lock_slow_waits_for_the_older_one(self) -> None:
        with contenders(WAIT_DIE, "old", "young") as [old, young]:
            a, b = mutexes(WAIT_DIE, "ab")
            old.lock(a)
            assert young.lock(b, a) == "Contended"
            young.unlock_all()
            assert young.lock_slow(a) == "sleeps"
            old.end()
            assert young.outcome == "has it"
            young.end()

    def test_the_ticket_keeps_its_age(self) -> None:
        """Who gave way once is older than those who came since."""
        with contenders(WAIT_DIE, "old", "retrying", "new") as [old, retrying, new]:
            a, b = mutexes(WAIT_DIE, "ab")
            old.lock(a)
            assert retrying.lock(b, a) == "Contended"
            retrying.unlock_all()
            new.lock(b)
            old.end()
            assert retrying.lock_slow(a) == "has it"
            assert retrying.lock(b) == "sleeps"
            assert new.lock(a) == "Contended"
            finish(new, retrying)


class TestWoundWait:
    """The older wounds, the younger waits; who is wounded gives way where it would wait."""

    def test_older_wounds_a_younger_holder_and_waits(self) -> None:
        with contenders(WOUND_WAIT, "old", "young") as [old, young]:
            a, b, c = mutexes(WOUND_WAIT, "abc")
            young.lock(a)
            assert old.lock(b, a) == "sleeps"
            assert young.ticket.wounded
            assert young.lock(c) == "has it", "wounded ones go on while nothing is in the way"
            assert young.lock(b) == "Contended"
            young.unlock_all()
            assert old.outcome == "has it"
            finish(old, young)

    def test_wounded_one_that_meets_nothing_finishes(self) -> None:
        with contenders(WOUND_WAIT, "old", "young") as [old, young]:
            a, b, c = mutexes(WOUND_WAIT, "abc")
            young.lock(a)
            old.lock(b, a)
            assert young.lock(c) == "has it"
            finish(young, old)

    def test_wounded_one_that_sleeps_is_woken(self) -> None:
        with contenders(WOUND_WAIT, "old", "middle", "young") as [old, middle, young]:
            a, b, c = mutexes(WOUND_WAIT, "abc")
            young.lock(b)
            assert middle.lock(a, b) == "sleeps"
            assert young.ticket.wounded
            assert old.lock(c, a) == "sleeps"
            assert middle.outcome == "Contended"
            assert middle.ticket.contending is b
            assert b.statistics().waiting == 0
            middle.unlock_all()
            assert old.outcome == "has it"
            finish(old, young, middle)

    def test_older_with_empty_hands_wounds_nobody(self) -> None:
        with contenders(WOUND_WAIT, "old", "young") as [old, young]:
            [a] = mutexes(WOUND_WAIT, "a")
            young.lock(a)
            assert old.lock(a) == "sleeps"
            assert not young.ticket.wounded
            finish(young, old)

    def test_younger_waits_for_an_older_holder(self) -> None:
        with contenders(WOUND_WAIT, "old", "young") as [old, young]:
            a, b = mutexes(WOUND_WAIT, "ab")
            old.lock(a)
            assert young.lock(b, a) == "sleeps"
            assert not young.ticket.wounded
            finish(old, young)

    def test_nobody_wounds_somebody_without_a_ticket(self) -> None:
        with contenders(WOUND_WAIT, "old", "-") as [old, outsider]:
            a, b = mutexes(WOUND_WAIT, "ab")
            outsider.do(a.lock)
            assert old.lock(b, a) == "sleeps"
            outsider.do(a.unlock)
            old.end()

    def test_lock_slow_waits_for_a_younger_one_too(self) -> None:
        with contenders(WOUND_WAIT, "old", "young", "youngest") as [old, young, youngest]:
            a, b, c = mutexes(WOUND_WAIT, "abc")
            young.lock(a)
            youngest.lock(c)
            old.lock(b, a)
            assert young.lock(c) == "Contended"
            young.unlock_all()
            assert young.lock_slow(c) == "sleeps"
            finish(old, youngest, young)

    def test_a_wound_heals_once_everything_is_unlocked(self) -> None:
        """It gave way; a younger one that it meets in the next attempt is none of its wound's business."""
        with contenders(WOUND_WAIT, "old", "young", "youngest") as [old, young, youngest]:
            a, b, c = mutexes(WOUND_WAIT, "abc")
            young.lock(a)
            youngest.lock(c)
            old.lock(b, a)
            assert young.lock(c) == "Contended"
            young.unlock_all()
            finish(old, youngest)
            youngest.ticket = youngest.actor.do(AcquireContext, WOUND_WAIT).result
            youngest.lock(a)
            assert young.lock_slow(c) == "has it", "it was free"
            assert young.lock(a) == "sleeps"
            assert youngest.ticket.wounded
            finish(youngest, young)


class TestQueue:
    """Contexts wait in the order of their stamps, before those without that came later."""

    @both_classes
    def test_the_oldest_is_served_first(self, ww_class: WwClass) -> None:
        names = ["a", "b", "c", "d", "e"]
        with contenders(ww_class, *names) as cast:
            [x] = mutexes(ww_class, "x")
            holder, *waiters = cast
            holder.lock(x)
            for place in (2, 0, 3, 1):
                assert waiters[place].lock(x) == "sleeps"
                x.check()
            for leaving, served in zip(cast, waiters, strict=False):
                leaving.end()
                assert x.ticket is served.ticket
            waiters[-1].end()

    @both_classes
    def test_those_without_a_ticket_wait_in_the_order_of_coming(self, ww_class: WwClass) -> None:
        with contenders(ww_class, "old", "young", "-1", "-2", "-3") as [old, young, first, second, third]:
            [x] = mutexes(ww_class, "x")
            first.do(x.lock)
            assert second.do(x.lock).asleep
            assert young.lock(x) == "sleeps"
            assert third.do(x.lock).asleep
            assert old.lock(x) == "sleeps"
            first.do(x.unlock)
            assert second.result is None
            second.do(x.unlock)
            assert old.outcome == "has it"
            assert young.outcome == "sleeps"
            old.end()
            assert young.outcome == "has it"
            young.end()
            assert third.result is None
            third.do(x.unlock)

    @both_classes
    def test_trylock_does_not_wait(self, ww_class: WwClass) -> None:
        with contenders(ww_class, "old", "young", "-") as [old, young, outsider]:
            [x] = mutexes(ww_class, "x")
            young.lock(x)
            assert old.actor.do(x.trylock, old.ticket).result is False
            assert outsider.do(x.trylock).result is False
            assert (old.ticket.acquired, old.ticket.contending) == (0, None)
            young.unlock_all()
            assert old.actor.do(x.trylock, old.ticket).result is True
            old.locked.append(x)
            finish(old, young)


def free_behind_its_back(holder: Actor, lock: WwMutex) -> None:
    """As an unlock does that found nobody in the queue, before it looks there again."""
    lock._holder = None
    lock._token.append(None)
    holder.do(lockdep.release, lock)


class TestOvertaking:
    """Somebody takes it in the moment between its being freed and being passed on: the queue's rules hold."""

    @pytest.mark.parametrize("how", ["lock", "trylock"])
    def test_wait_die_younger_ones_in_the_queue_die(self, how: str) -> None:
        with contenders(WAIT_DIE, "old", "young", "-") as [old, young, outsider]:
            a, b = mutexes(WAIT_DIE, "ab")
            outsider.do(a.lock)
            assert young.lock(b, a) == "sleeps"
            free_behind_its_back(outsider, a)
            old.actor.do(getattr(a, how), old.ticket)
            old.locked.append(a)
            assert (a.ticket, young.outcome) == (old.ticket, "Contended")
            finish(old, young)

    @pytest.mark.parametrize("how", ["lock", "trylock"])
    def test_wound_wait_older_ones_in_the_queue_wound(self, how: str) -> None:
        with contenders(WOUND_WAIT, "old", "young", "-") as [old, young, outsider]:
            a, b = mutexes(WOUND_WAIT, "ab")
            outsider.do(a.lock)
            assert old.lock(b, a) == "sleeps"
            free_behind_its_back(outsider, a)
            young.actor.do(getattr(a, how), young.ticket)
            young.locked.append(a)
            assert young.ticket.wounded
            assert young.lock(b) == "Contended"
            young.unlock_all()
            assert old.outcome == "has it"
            finish(old, young)


class TestInterrupt:
    @both_classes
    def test_leaves_the_queue_and_keeps_what_it_held(self, ww_class: WwClass) -> None:
        with contenders(ww_class, "old", "young") as [old, young]:
            a, b = mutexes(ww_class, "ab")
            young.lock(a)
            assert old.lock(b) == "has it"
            assert old.lock(a, interruptible=True) == "sleeps"
            old.actor.thread.task.interrupt()
            young.actor.do(task.current)
            assert old.outcome == "Interrupted"
            assert isinstance(old.actor.error, Interrupted)
            assert (b.ticket, old.ticket.acquired) == (old.ticket, 1)
            assert (old.ticket.waits_for, old.ticket.contending) == (None, None)
            a.check()
            finish(young, old)

    @both_classes
    def test_lock_slow(self, ww_class: WwClass) -> None:
        with contenders(ww_class, "old", "young") as [old, young]:
            [a] = mutexes(ww_class, "a")
            old.lock(a)
            assert young.actor.do(a.lock_slow, young.ticket, interruptible=True).asleep
            young.actor.thread.task.interrupt()
            old.actor.do(task.current)
            assert young.outcome == "Interrupted"
            assert a.statistics().waiting == 0
            finish(old, young)

    @both_classes
    def test_at_any_line_of_the_hand_over(self, ww_class: WwClass) -> None:
        """Nothing is lost, whoever interrupts, wounds or kills whom at the moment of handing over."""

        def scenario(run: Interleaving) -> Check:
            a, b = mutexes(ww_class, "ab")
            order = Rendezvous(3)
            ends: list[str] = []

            def hand_over() -> None:
                with AcquireContext(ww_class) as ticket:
                    a.lock(ticket)
                    order.arrive()
                    a.unlock()

            def perhaps() -> None:
                with AcquireContext(ww_class) as ticket:
                    b.lock(ticket)
                    order.arrive()
                    try:
                        a.lock(ticket, interruptible=True)
                    except (Interrupted, Contended) as error:
                        ends.append(type(error).__name__)
                    else:
                        a.unlock()
                        ends.append("had it")
                    b.unlock()
                    assert (ticket.acquired, ticket.waits_for, ticket.killed) == (0, None, False)

            def third() -> None:
                with AcquireContext(ww_class) as ticket:
                    order.arrive()
                    lock_all(ticket, [a, b])
                    a.unlock()
                    b.unlock()

            files = LOCKS | WAITING
            run.spawn(linewise(hand_over, files))
            sleeper = run.spawn(linewise(perhaps, files))
            run.spawn(linewise(third, files))
            run.spawn(linewise(sleeper.task.interrupt, files))

            def nothing_lost() -> None:
                all_free(a, b)
                assert len(ends) == 1
                assert sleeper.task.interrupted == (ends != ["Interrupted"])

            return nothing_lost

        with guards_that_sleep(ww_class):
            explore(scenario, preemptions=1, limit=scaled(80, 4000))
            sample(scenario, range(scaled(50, 3000)), lambda seed: Pct(seed, depth=4, steps=250))
            sample(scenario, range(scaled(40, 2000)))


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


def all_free(*locks: WwMutex) -> None:
    for lock in locks:
        lock.check()
        assert (lock.locked, lock.statistics().waiting) == (False, 0)


class TestMutexGroup:
    """Somebody holds it: others get it afterwards, never meanwhile."""

    @both_classes
    @pytest.mark.parametrize("waits", ["lock", "trylock"])
    @pytest.mark.parametrize("holder_has_ticket", [True, False], ids=["held-with-ticket", "held-without"])
    @pytest.mark.parametrize("other_has_ticket", [True, False], ids=["ticket", "no-ticket"])
    def test_excludes(
        self, ww_class: WwClass, waits: str, holder_has_ticket: bool, other_has_ticket: bool
    ) -> None:
        def scenario(run: Interleaving) -> Check:
            [a] = mutexes(ww_class, "a")
            watch(run, [a])
            inside: list[str] = []

            def stay(name: str) -> None:
                assert inside == []
                inside.append(name)
                if task.preempt is not None:
                    task.preempt()
                inside.remove(name)
                a.unlock()

            def hold(ticket: AcquireContext | None) -> None:
                a.lock(ticket)
                stay("holder")

            def other(ticket: AcquireContext | None) -> None:
                if waits == "lock":
                    a.lock(ticket)
                elif not a.trylock(ticket):
                    return
                stay("other")

            run.spawn(ticketed(hold, ww_class, holder_has_ticket))
            run.spawn(ticketed(other, ww_class, other_has_ticket))
            return lambda: all_free(a)

        assert explore(scenario, preemptions=3, limit=10_000).complete


def ticketed(
    work: Callable[[AcquireContext | None], None], ww_class: WwClass, ticket: bool = True
) -> Callable[[], None]:
    def run() -> None:
        if not ticket:
            work(None)
            return
        with AcquireContext(ww_class) as mine:
            work(mine)

    return run


class TestAA:
    """The same lock twice."""

    @both_classes
    @pytest.mark.parametrize("validated", [True, False], ids=["validator", "none"])
    def test_under_one_ticket(self, ww_class: WwClass, validated: bool) -> None:
        if not validated:
            lockdep.disable()
        [a] = mutexes(ww_class, "a")
        with AcquireContext(ww_class) as ticket:
            a.lock(ticket)
            with pytest.raises(AlreadyLocked) as caught:
                a.lock(ticket)
            assert (caught.value.errno, caught.value.value) == (errno.EALREADY, a)
            assert not a.trylock(ticket)
            assert ticket.acquired == 1
            a.check()
            a.unlock()
        all_free(a)

    @both_classes
    @pytest.mark.parametrize("validated", [True, False], ids=["validator", "none"])
    def test_without_one(self, ww_class: WwClass, validated: bool) -> None:
        if not validated:
            lockdep.disable()
        [a] = mutexes(ww_class, "a")
        with a:
            with pytest.raises(LockdepError):
                a.lock()
            assert not a.trylock()
            a.check()
        all_free(a)

    @both_classes
    @pytest.mark.parametrize("validated", [True, False], ids=["validator", "none"])
    def test_without_one_and_then_with_one(self, ww_class: WwClass, validated: bool) -> None:
        """This thread would wait for itself."""
        if not validated:
            lockdep.disable()
        [a] = mutexes(ww_class, "a")
        with AcquireContext(ww_class) as ticket:
            assert a.trylock()
            with pytest.raises(LockdepError):
                a.lock(ticket)
            a.check()
            a.unlock()
        all_free(a)


class TestABBA:
    @both_classes
    def test_without_resolving_one_gives_way(self, ww_class: WwClass) -> None:
        outcomes: set[tuple[str, ...]] = set()

        def scenario(run: Interleaving) -> Check:
            a, b = mutexes(ww_class, "ab")
            watch(run, [a, b])
            met = Rendezvous(2)
            ends: dict[int, str] = {}

            def cross(ticket: AcquireContext | None, first: WwMutex, second: WwMutex) -> None:
                assert ticket is not None
                first.lock(ticket)
                met.arrive()
                try:
                    second.lock(ticket)
                except Contended:
                    ends[ticket.stamp] = "gives way"
                else:
                    ends[ticket.stamp] = "has both"
                    second.unlock()
                first.unlock()

            run.spawn(ticketed(lambda ticket: cross(ticket, a, b), ww_class))
            run.spawn(ticketed(lambda ticket: cross(ticket, b, a), ww_class))

            def look() -> None:
                all_free(a, b)
                outcomes.add(tuple(ends[stamp] for stamp in sorted(ends)))

            return look

        assert explore(scenario, preemptions=3, limit=10_000).complete
        assert outcomes == {("has both", "gives way")}, "the older has both, in every order"

    @both_classes
    def test_resolved_both_have_both(self, ww_class: WwClass) -> None:
        again: list[int] = []

        def scenario(run: Interleaving) -> Check:
            a, b = mutexes(ww_class, "ab")
            watch(run, [a, b])

            def cross(ticket: AcquireContext | None, locks: Sequence[WwMutex]) -> None:
                assert ticket is not None
                again.append(lock_all(ticket, locks))
                assert {lock.ticket for lock in locks} == {ticket}
                for lock in locks:
                    lock.unlock()

            run.spawn(ticketed(lambda ticket: cross(ticket, [a, b]), ww_class))
            run.spawn(ticketed(lambda ticket: cross(ticket, [b, a]), ww_class))
            return lambda: all_free(a, b)

        assert explore(scenario, preemptions=3, limit=10_000).complete
        # The younger one may get the first that the older unlocks, and find that one still holding the other.
        assert max(again) <= 2

    @both_classes
    def test_resolved_between_any_two_lines(self, ww_class: WwClass) -> None:
        def scenario(run: Interleaving) -> Check:
            a, b = mutexes(ww_class, "ab")
            run.spawn(linewise(crossing([a, b], ww_class)))
            run.spawn(linewise(crossing([b, a], ww_class)))
            return lambda: all_free(a, b)

        with guards_that_sleep(ww_class):
            explore(scenario, preemptions=2, limit=scaled(200, 8000))
            sample(scenario, range(scaled(80, 2000)), lambda seed: Pct(seed, depth=4, steps=200))


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


class TestCycle:
    """Everybody holds one and wants the neighbour's."""

    def scenario(self, ww_class: WwClass, size: int) -> Callable[[Interleaving], Check]:
        return lambda run: self.threads(run, ww_class, size)

    def threads(self, run: Interleaving, ww_class: WwClass, size: int) -> Check:
        locks = mutexes(ww_class, "abcdefghij"[:size])
        watch(run, locks)
        met = Rendezvous(size)
        gave_way: dict[int, int] = {}

        def hold(number: int, ticket: AcquireContext | None) -> None:
            assert ticket is not None
            mine, wanted = locks[number], locks[(number + 1) % size]
            mine.lock(ticket)
            met.arrive()
            again = 0
            try:
                wanted.lock(ticket)
            except Contended:
                mine.unlock()
                again = 1
                wanted.lock_slow(ticket)
                wanted.unlock()
                again += lock_all(ticket, [mine, wanted])
            gave_way[ticket.stamp] = again
            mine.unlock()
            wanted.unlock()

        for number in range(size):
            run.spawn(ticketed(partial(hold, number), ww_class))

        def look() -> None:
            all_free(*locks)
            assert gave_way[min(gave_way)] == 0, "the oldest never gives way"
            assert sum(gave_way.values()) >= 1, "somebody has to"

        return look

    @both_classes
    @pytest.mark.parametrize("size", [2, 3])
    def test_small_ones_in_every_order(self, ww_class: WwClass, size: int) -> None:
        limit = scaled(400, 10_000)
        explored = explore(self.scenario(ww_class, size), preemptions=2, limit=limit)
        assert explored.complete or explored.schedules == limit

    @both_classes
    @pytest.mark.parametrize("size", [5, 10])
    def test_large_ones_in_many(self, ww_class: WwClass, size: int) -> None:
        seeds = range(scaled(15, 500))
        sample(self.scenario(ww_class, size), seeds)
        sample(self.scenario(ww_class, size), seeds, lambda seed: Pct(seed, depth=4, steps=30 * size))


class TestStress:
    """Many threads, many locks: all in one order, in any order, one at a time, or all of that at once."""

    def works(self, kind: str, ww_class: WwClass, locks: Sequence[WwMutex], dice: Random) -> Check:
        rounds = 2
        if kind == "inorder":
            return crossing(locks, ww_class, rounds)
        if kind == "reorder":
            return crossing(dice.sample(locks, len(locks)), ww_class, rounds)
        lock = dice.choice(locks)

        def one() -> None:
            for _ in range(rounds):
                with lock:
                    assert lock.ticket is None

        return one

    @both_classes
    @pytest.mark.parametrize("kind", ["inorder", "reorder", "one", "all"])
    @pytest.mark.parametrize("line_by_line", [False, True], ids=["offered", "linewise"])
    def test_controlled(self, ww_class: WwClass, kind: str, line_by_line: bool) -> None:
        def scenario(seed: int) -> Callable[[Interleaving], Check]:
            def threads(run: Interleaving) -> Check:
                dice = Random(seed)
                locks = mutexes(ww_class, "abcde")
                if not line_by_line:
                    watch(run, locks)
                kinds = ["inorder", "reorder", "one"] * 2 if kind == "all" else [kind] * 5
                for each in kinds:
                    work = self.works(each, ww_class, locks, dice)
                    run.spawn(linewise(work) if line_by_line else work)
                return lambda: all_free(*locks)

            return threads

        for seed in range(scaled(6, 100) if line_by_line else scaled(20, 500)):
            strategy = Pct(seed, depth=4, steps=300) if seed % 2 else RandomWalk(seed)
            with guards_that_sleep(ww_class) if line_by_line else nullcontext():
                replay(scenario(seed), strategy)

    @both_classes
    @pytest.mark.parametrize("kind", ["inorder", "reorder", "one", "all"])
    def test_real_threads(self, ww_class: WwClass, kind: str) -> None:
        locks = mutexes(ww_class, "abcdefgh")
        kinds = ["inorder", "reorder", "one"] * 2 if kind == "all" else [kind] * 6
        dice = [Random(number) for number in range(len(kinds))]

        def work(number: int) -> None:
            for _ in range(scaled(30, 3000)):
                self.works(kinds[number], ww_class, locks, dice[number])()

        in_real_threads(len(kinds), work)
        all_free(*locks)


class TestInjection:
    @both_classes
    def test_only_who_holds_another(self, ww_class: WwClass) -> None:
        a, b = mutexes(ww_class, "ab")
        with ww_class.inject_deadlocks(seed=1, rate=1.0), AcquireContext(ww_class) as ticket:
            a.lock(ticket)
            with pytest.raises(Contended):
                b.lock(ticket)
            assert not b.locked
            assert ticket.contending is b
            assert ticket.acquired == 1
            a.unlock()
            b.lock_slow(ticket)
            b.unlock()
            with a:
                pass
        all_free(a, b)

    @both_classes
    def test_a_seed_repeats(self, ww_class: WwClass) -> None:
        def again(seed: int) -> list[int]:
            locks = mutexes(ww_class, "abcdef")
            counts = []
            with ww_class.inject_deadlocks(seed, rate=0.3):
                for _ in range(20):
                    with AcquireContext(ww_class) as ticket:
                        counts.append(lock_all(ticket, locks))
                        assert ticket.acquired == len(locks)
                        for lock in locks:
                            lock.unlock()
            all_free(*locks)
            return counts

        assert again(5) == again(5)
        assert again(5) != again(6)
        assert sum(again(5)) > 0

    @both_classes
    def test_ends_with_its_block(self, ww_class: WwClass) -> None:
        with ww_class.inject_deadlocks(0, 1.0):
            with ww_class.inject_deadlocks(0, 0.0):
                assert ww_class.injection is not None
                assert not ww_class.injection()
            assert ww_class.injection()
        assert ww_class.injection is None

    @both_classes
    def test_together_with_real_contention(self, ww_class: WwClass) -> None:
        def scenario(run: Interleaving) -> Check:
            locks = mutexes(ww_class, "abc")
            watch(run, locks)
            for turn in range(3):
                run.spawn(crossing(locks[turn:] + locks[:turn], ww_class, 2))
            return lambda: all_free(*locks)

        for seed in range(scaled(20, 1000)):
            with ww_class.inject_deadlocks(seed, rate=0.3):
                sample(scenario, [seed])
