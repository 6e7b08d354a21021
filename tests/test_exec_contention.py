"""Many lock many: everybody finishes, holds all it wanted when it commits, and gives way only so often.

How often: a context gives way only to older ones, and only for something that these ask for. With wait-die
it dies of an older one that holds what it wants, or waits for that; it goes on once that lock was let go,
which the older one does not ask for again in the same pass. With wound-wait it is wounded by an older one
that holds something already and waits for what it holds; one wait wounds it once. So there is at most one
contention for each lock that an older context asks for in a pass, less the first with wound-wait. The
oldest never gives way. The k-th oldest then needs at most (m+1)**k passes, or m**k, if everybody locks at
most m. In practice few.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from contention import WAIT_DIE, WOUND_WAIT, Check, Obj, all_free, lock_all, objects, strategy_of, watch
from gpuvm.errors import OutOfMemory
from gpuvm.exec.exec import Exec, ExecFlags
from gpuvm.sync import lockdep, task
from gpuvm.sync.fence import Fence, fence_context_alloc
from gpuvm.sync.resv import Resv, Usage, refuse_reservation
from gpuvm.sync.ww_acquire import AcquireContext, WwClass, reservation_ww_class
from gpuvm.sync.ww_mutex import WwMutex
from gpuvm.testing import Interleaving, replay
from suite import scaled


@dataclass(eq=False)
class Entry:
    """One context, from its beginning to its commit."""

    stamp: int
    locks: int
    older: list[Entry]
    again: int = 0


@dataclass
class Ledger:
    """Who locks what, and who was there before."""

    wait_die: bool
    holders: dict[WwMutex, int] = field(default_factory=dict)
    alive: list[Entry] = field(default_factory=list)
    ended: list[Entry] = field(default_factory=list)

    def begin(self, ticket: AcquireContext, locks: int) -> Entry:
        entry = Entry(ticket.stamp, locks, [each for each in self.alive if each.stamp < ticket.stamp])
        self.alive.append(entry)
        return entry

    def commit(self, entry: Entry, ticket: AcquireContext, locks: Sequence[WwMutex], again: int) -> None:
        """All are ours, and nobody else's, for as long as we like."""
        assert ticket.acquired == len(locks)
        for lock in locks:
            assert lock.ticket is ticket
            assert self.holders.setdefault(lock, ticket.stamp) == ticket.stamp
        if task.preempt is not None:
            task.preempt()
        for lock in locks:
            assert self.holders.pop(lock) == ticket.stamp
        entry.again = again

    def end(self, entry: Entry) -> None:
        """It has unlocked everything."""
        self.alive.remove(entry)
        self.ended.append(entry)

    def must_be_fair(self, threads: Sequence[Sequence[object]]) -> None:
        assert len(self.ended) == sum(map(len, threads)), "everybody finished"
        assert self.alive == []
        first = 0 if self.wait_die else 1
        for entry in self.ended:
            asked = sum((older.again + 1) * max(older.locks - first, 0) for older in entry.older)
            assert entry.again <= asked, f"gave way {entry.again} times to those who asked {asked} times"
            ahead = all_ahead(entry)
            most = max((older.locks for older in ahead), default=0)
            base = most + 1 if self.wait_die else max(most, 1)
            assert entry.again + 1 <= base ** len(ahead)


def all_ahead(entry: Entry) -> set[Entry]:
    """Those older, and those older than these were when they began."""
    ahead: set[Entry] = set()
    left = [entry]
    while left:
        new = set(left.pop().older) - ahead
        ahead |= new
        left += new
    return ahead


def by_ww_mutex(ww_class: WwClass, threads: Sequence[Sequence[Sequence[int]]], count: int, seed: int) -> None:
    def scenario(run: Interleaving) -> Check:
        locks = [WwMutex(ww_class, f"lock {number}") for number in range(count)]
        ledger = Ledger(ww_class.wait_die)
        watch(run, locks)

        def work(wanted: Sequence[Sequence[int]]) -> None:
            for numbers in wanted:
                mine = [locks[number] for number in numbers]
                with AcquireContext(ww_class) as ticket:
                    entry = ledger.begin(ticket, len(mine))
                    again = lock_all(ticket, mine)
                    ledger.commit(entry, ticket, mine, again)
                    for lock in mine:
                        lock.unlock()
                ledger.end(entry)
            lockdep.check_nothing_held("work")

        for wanted in threads:
            run.spawn(work, wanted)

        def finish() -> None:
            all_free(*locks)
            ledger.must_be_fair(threads)

        return finish

    replay(scenario, strategy_of(seed))


def by_exec(threads: Sequence[Sequence[Sequence[int]]], count: int, seed: int) -> None:
    """Of three objects each two share a reservation; a fence is published in all."""

    def scenario(run: Interleaving) -> Check:
        resvs = [Resv(f"resv {number}") for number in range(count * 2 // 3 + 1)]
        objs = [Obj(f"object {number}", resvs[number * 2 // 3]) for number in range(count)]
        ledger = Ledger(wait_die=True)
        watch(run, resvs)

        def work(wanted: Sequence[Sequence[int]]) -> None:
            exec, context = Exec(ExecFlags.IGNORE_DUPLICATES), fence_context_alloc()
            for seqno, numbers in enumerate(wanted):
                mine = [objs[number] for number in numbers]
                fence = Fence(context, seqno)
                with exec:
                    assert exec._ticket is not None
                    entry = ledger.begin(exec._ticket, len({obj.resv for obj in mine}))
                    for attempt in exec.until_all_locked():
                        with attempt:
                            exec.prepare_array(mine, num_fences=1)
                    exec.check()
                    assert {obj.resv for obj in exec} == {obj.resv for obj in mine}
                    assert all(exec.holds(obj) for obj in mine)
                    held = [obj.resv for obj in exec]
                    ledger.commit(entry, exec._ticket, held, exec.statistics().contended)
                    for obj in exec:
                        obj.resv.add_fence(fence, Usage.WRITE)
                ledger.end(entry)
                assert all(fence in obj.resv.fences(Usage.WRITE) for obj in mine)
                fence.signal()
            lockdep.check_nothing_held("work")

        for wanted in threads:
            run.spawn(work, wanted)

        def finish() -> None:
            all_free(*resvs)
            ledger.must_be_fair(threads)

        return finish

    replay(scenario, strategy_of(seed))


MOST = scaled(6, 9)


wanted_by_threads = st.integers(2, MOST).flatmap(
    lambda count: st.tuples(
        st.lists(
            st.lists(
                st.lists(st.integers(0, count - 1), unique=True, max_size=count),
                min_size=1,
                max_size=3,
            ),
            min_size=2,
            max_size=scaled(5, 8),
        ),
        st.just(count),
    )
)


seeds = st.integers(0, 2**32 - 1)


class TestEverybodyFinishes:
    """Any threads, any overlapping sets in any order, any interleaving."""

    @example(case=([[[0, 1]], [[1, 0]]], 2), seed=1)
    @example(case=([[[0, 1, 2]], [[1, 2, 0]], [[2, 0, 1]]], 3), seed=3)
    @given(case=wanted_by_threads, seed=seeds)
    def test_wait_die(self, case: tuple[list[list[list[int]]], int], seed: int) -> None:
        by_ww_mutex(WAIT_DIE, *case, seed)

    @example(case=([[[0, 1]], [[1, 0]]], 2), seed=1)
    @example(case=([[[0, 1, 2]], [[1, 2, 0]], [[2, 0, 1]]], 3), seed=3)
    @given(case=wanted_by_threads, seed=seeds)
    def test_wound_wait(self, case: tuple[list[list[list[int]]], int], seed: int) -> None:
        by_ww_mutex(WOUND_WAIT, *case, seed)

    @given(case=wanted_by_threads, seed=seeds)
    def test_exec(self, case: tuple[list[list[list[int]]], int], seed: int) -> None:
        by_exec(*case, seed)

    @pytest.mark.parametrize("seed", range(scaled(3, 40)))
    def test_many_objects(self, seed: int) -> None:
        dice = Random(seed)
        threads = [[dice.sample(range(32), 10) for _ in range(2)] for _ in range(8)]
        by_ww_mutex(WAIT_DIE, threads, 32, seed)
        by_ww_mutex(WOUND_WAIT, threads, 32, seed)
        by_exec(threads, 32, seed)


class TestInjected:
    """Contention where there is none, by seed."""

    def outcome(self, objs: Sequence[Obj], order: Sequence[int]) -> tuple[set[object], set[Resv], int]:
        with Exec(ExecFlags.IGNORE_DUPLICATES) as exec:
            for attempt in exec.until_all_locked():
                with attempt:
                    for number in order:
                        exec.prepare_obj(objs[number], 1)
            exec.check()
            assert all(resv.statistics().reserved >= 1 for resv in {obj.resv for obj in exec})
            return set(exec), {obj.resv for obj in exec}, exec.statistics().contended

    def test_the_outcome_is_the_same(self) -> None:
        resvs = [Resv(f"resv {number}") for number in range(6)]
        objs = [Obj(f"object {number}", resvs[number % 6]) for number in range(10)]
        contended = 0
        for seed in range(scaled(300, 10_000)):
            dice = Random(seed)
            order = [dice.randrange(len(objs)) for _ in range(dice.randrange(12))]
            without = self.outcome(objs, order)
            with reservation_ww_class.inject_deadlocks(seed, rate=0.4):
                got = self.outcome(objs, order)
            assert (got[:2], without[2]) == (without[:2], 0), f"seed {seed}, order {order}"
            contended += got[2]
            all_free(*resvs)
        assert contended > 0

    def test_with_reservations_refused(self) -> None:
        objs = objects("abcdef")
        failed = 0
        for seed in range(scaled(300, 10_000)):
            order = list(range(len(objs)))
            Random(seed).shuffle(order)
            with reservation_ww_class.inject_deadlocks(seed, rate=0.3), refuse_reservation(seed % 12):
                try:
                    self.outcome(objs, order)
                except OutOfMemory:
                    failed += 1
            all_free(*(obj.resv for obj in objs))
        assert 0 < failed < scaled(300, 10_000)

    @given(case=wanted_by_threads, seed=seeds)
    def test_beside_real_contention(self, case: tuple[list[list[list[int]]], int], seed: int) -> None:
        """Injected ones are nobody's fault, so only the end is checked."""
        threads, count = case

        def scenario(run: Interleaving) -> Check:
            objs = [Obj(f"object {number}") for number in range(count)]
            watch(run, [obj.resv for obj in objs])

            def work(wanted: Sequence[Sequence[int]]) -> None:
                for numbers in wanted:
                    mine = [objs[number] for number in numbers]
                    with Exec() as exec:
                        for attempt in exec.until_all_locked():
                            with attempt:
                                exec.prepare_array(mine, 1)
                        assert set(exec) == set(mine)
                        exec.check()

            for wanted in threads:
                run.spawn(work, wanted)
            return lambda: all_free(*(obj.resv for obj in objs))

        with reservation_ww_class.inject_deadlocks(seed, rate=0.2):
            replay(scenario, strategy_of(seed))
