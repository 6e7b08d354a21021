"""`WwMutex`: who waits and who gives way, by the rules of both classes."""

from __future__ import annotations

import errno

import pytest

from actors import Actor
from contenders import contenders, finish
from contention import WAIT_DIE, WOUND_WAIT, both_classes, mutexes
from gpuvm.errors import Contended
from gpuvm.sync import lockdep
from gpuvm.sync.ww_acquire import AcquireContext, WwClass
from gpuvm.sync.ww_mutex import WwMutex


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
    lock._token = None
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
