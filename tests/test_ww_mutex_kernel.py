"""`WwMutex`: nobody deadlocks. The groups have the kernel's cases (kernel/locking/test-ww_mutex.c)."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from functools import partial
from random import Random

import pytest

from contention import (
    LOCKS,
    Check,
    Rendezvous,
    all_free,
    both_classes,
    crossing,
    in_real_threads,
    lock_all,
    mutexes,
    watch,
)
from gpuvm.errors import AlreadyLocked, Contended, LockdepError
from gpuvm.sync import lockdep, task
from gpuvm.sync.ww_acquire import AcquireContext, WwClass
from gpuvm.sync.ww_mutex import WwMutex
from gpuvm.testing import Interleaving, Pct, RandomWalk, explore, replay, sample
from suite import scaled


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
            run.step_lines(*LOCKS)
            a, b = mutexes(ww_class, "ab")
            run.spawn(crossing([a, b], ww_class))
            run.spawn(crossing([b, a], ww_class))
            return lambda: all_free(a, b)

        explore(scenario, preemptions=2, limit=scaled(200, 8000))
        sample(scenario, range(scaled(80, 2000)), lambda seed: Pct(seed, depth=4, steps=200))


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
    @pytest.mark.parametrize("line_by_line", [False, True], ids=["offered", "line-by-line"])
    def test_controlled(self, ww_class: WwClass, kind: str, line_by_line: bool) -> None:
        def scenario(seed: int) -> Callable[[Interleaving], Check]:
            def threads(run: Interleaving) -> Check:
                dice = Random(seed)
                locks = mutexes(ww_class, "abcde")
                if line_by_line:
                    run.step_lines(*LOCKS)
                else:
                    watch(run, locks)
                kinds = ["inorder", "reorder", "one"] * 2 if kind == "all" else [kind] * 5
                for each in kinds:
                    run.spawn(self.works(each, ww_class, locks, dice))
                return lambda: all_free(*locks)

            return threads

        for seed in range(scaled(6, 100) if line_by_line else scaled(20, 500)):
            strategy = Pct(seed, depth=4, steps=300) if seed % 2 else RandomWalk(seed)
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
