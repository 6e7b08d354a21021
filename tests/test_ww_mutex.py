"""`WwMutex` and its tickets: counts, misuse, interrupts, contention that is injected."""

from __future__ import annotations

import pytest

from actors import actors
from contenders import contenders, finish
from contention import (
    LOCKS,
    WAIT_DIE,
    Check,
    Rendezvous,
    all_free,
    both_classes,
    crossing,
    lock_all,
    mutexes,
    watch,
)
from gpuvm.errors import CheckFailed, Contended, Interrupted, InvalidArgument, LockdepError
from gpuvm.sync import task
from gpuvm.sync.mutex import LockStatistics
from gpuvm.sync.ww_acquire import AcquireContext, WwClass
from gpuvm.sync.ww_mutex import WwMutex
from gpuvm.testing import Interleaving, Pct, explore, sample
from suite import scaled


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
            run.step_lines(*LOCKS, task)
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

            run.spawn(hand_over)
            sleeper = run.spawn(perhaps)
            run.spawn(third)
            run.spawn(sleeper.task.interrupt)

            def nothing_lost() -> None:
                all_free(a, b)
                assert len(ends) == 1
                assert sleeper.task.interrupted == (ends != ["Interrupted"])

            return nothing_lost

        explore(scenario, preemptions=1, limit=scaled(80, 4000))
        sample(scenario, range(scaled(50, 3000)), lambda seed: Pct(seed, depth=4, steps=250))
        sample(scenario, range(scaled(40, 2000)))


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
