"""Locks while nobody watches: the core takes them and lets them go, and all is as with the validator."""

from __future__ import annotations

import gc
import random
import sys
import weakref
from collections.abc import Callable, Iterator
from functools import partial

import pytest

import test_exec_loop
import test_mutex
import test_resv
from contention import WAIT_DIE, WOUND_WAIT, Obj, lock_all, mutexes, objects
from gpuvm.errors import AlreadyLocked, InvalidArgument, LockdepError
from gpuvm.exec import Exec, ExecFlags
from gpuvm.sync import lockdep, task
from gpuvm.sync.mutex import Mutex, Queued
from gpuvm.sync.ww_acquire import AcquireContext, WwClass, reservation_ww_class
from gpuvm.sync.ww_mutex import WwMutex
from suite import scaled


@pytest.fixture(autouse=True)
def lock_validator() -> Iterator[None]:
    """Off."""
    lockdep.disable()
    yield
    gc.collect()


class TestAlone(test_mutex.TestAlone):
    """But for what only the validator finds."""

    test_trylock = None  # type: ignore[assignment]
    test_order_is_validated_and_nothing_taken = None  # type: ignore[assignment]


class TestSlots(test_resv.TestSlots):
    """Likewise."""

    test_changes_need_the_lock = None  # type: ignore[assignment]


class TestLeavingTheLoop(test_exec_loop.TestLeavingTheLoop):
    """All of it."""


def in_threads(*targets: Callable[[], None]) -> None:
    """At once, changing over as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [task.start(f"thread {number}", target) for number, target in enumerate(targets)]
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)


class TestMutex:
    def test_one_at_a_time(self) -> None:
        mutex, counts = Mutex("m"), {"n": 0}
        times = scaled(300, 3000)

        def count() -> None:
            for turn in range(times):
                if turn % 2:
                    with mutex:
                        counts["n"] = (lambda before: before + 1)(counts["n"])
                else:
                    mutex.lock()
                    counts["n"] = (lambda before: before + 1)(counts["n"])
                    mutex.unlock()

        in_threads(count, count, count)
        mutex.check()
        assert counts["n"] == 3 * times

    def test_by_whom_it_is_held(self) -> None:
        mutex = Mutex("m")
        seen: list[bool] = []
        with mutex as entered:
            assert entered is mutex
            assert mutex.held_here
            task.start("stranger", lambda: seen.append(mutex.held_here)).join()
            with pytest.raises(LockdepError, match="already"):
                mutex.lock()
        assert seen == [False]
        with pytest.raises(InvalidArgument, match="does not hold"):
            mutex.unlock()

    def test_a_stranger_does_not_unlock_it(self) -> None:
        mutex, errors = Mutex("m"), list[Exception]()

        def stranger() -> None:
            try:
                mutex.unlock()
            except InvalidArgument as error:
                errors.append(error)

        with mutex:
            task.start("stranger", stranger).join()
            assert mutex.locked
        assert len(errors) == 1

    def test_the_validator_comes_and_goes_meanwhile(self) -> None:
        mutex = Mutex("m")
        with mutex:
            lockdep.enable()
        mutex.check()
        with mutex:
            lockdep.disable()
        mutex.check()
        assert not mutex.locked


class TestWwMutex:
    @pytest.mark.parametrize("ww_class", [WAIT_DIE, WOUND_WAIT], ids=["wait_die", "wound_wait"])
    def test_many_in_any_order(self, ww_class: WwClass) -> None:
        locks = mutexes(ww_class, "abcde")
        held: dict[WwMutex, int] = dict.fromkeys(locks, 0)
        times = scaled(60, 600)

        def fight(seed: int) -> None:
            dice = random.Random(seed)
            for _ in range(times):
                mine = dice.sample(locks, 3)
                with AcquireContext(ww_class) as ticket:
                    lock_all(ticket, mine)
                    assert ticket.acquired == 3
                    for lock in mine:
                        assert lock.ticket is ticket
                        held[lock] = (lambda before: before + 1)(held[lock])
                    for lock in mine:
                        lock.unlock()

        in_threads(*(partial(fight, seed) for seed in range(3)))
        assert sum(held.values()) == 3 * 3 * times
        for lock in locks:
            lock.check()
            assert not lock.locked

    def test_whoever_joined_the_queue_in_the_moment_it_was_freed_gives_way(self) -> None:
        [lock] = mutexes(WAIT_DIE, "a")
        with AcquireContext(WAIT_DIE) as old, AcquireContext(WAIT_DIE) as young:
            young.acquired = 1
            young.waits_for = lock
            queued = Queued(young)
            lock._queue.append(queued)
            lock.lock(old)
            assert (young.killed, queued.waiter.woken, lock._queue) == (True, True, [])
            lock.unlock()
            young.acquired, young.waits_for, young.killed = 0, None, False

    def test_by_the_same_ticket_twice(self) -> None:
        [lock] = mutexes(WAIT_DIE, "a")
        with AcquireContext(WAIT_DIE) as ticket:
            lock.lock(ticket)
            with pytest.raises(AlreadyLocked):
                lock.lock(ticket)
            with pytest.raises(InvalidArgument, match="must hold nothing"):
                ticket.fini()
            lock.unlock()
        assert (ticket.acquired, lock.ticket) == (0, None)

    def test_with_and_without_a_ticket(self) -> None:
        [lock] = mutexes(WAIT_DIE, "a")
        with lock, AcquireContext(WAIT_DIE) as ticket:
            assert (lock.ticket, lock.held_here) == (None, True)
            with pytest.raises(LockdepError, match="without a ticket"):
                lock.lock(ticket)
        assert not lock.locked

    def test_another_class(self) -> None:
        """It is seen where it would matter."""
        [lock] = mutexes(WAIT_DIE, "a")
        with AcquireContext(WAIT_DIE) as ticket, AcquireContext(WOUND_WAIT) as other:
            lock.lock(ticket)
            with pytest.raises(InvalidArgument, match="another class"):
                lock.lock(other)
            lock.unlock()

    def test_what_is_held_by_what_it_holds_is_collected(self) -> None:
        """A ticket that is forgotten with its lock."""
        ticket = AcquireContext(WAIT_DIE)
        [lock] = mutexes(WAIT_DIE, "a")
        lock.lock(ticket)
        ticket.contending = lock
        gone = weakref.ref(ticket)
        del ticket, lock
        gc.collect()
        assert gone() is None


class TestExec:
    def test_objects_that_share_a_reservation(self) -> None:
        a = Obj("a")
        twin = Obj("twin", a.resv)
        with Exec(ExecFlags.IGNORE_DUPLICATES) as exec:
            for attempt in exec.until_all_locked():
                with attempt:
                    exec.prepare_array([a, twin], 2)
            assert list(exec) == [a]
            assert a.resv.statistics().reserved == 2
        with Exec() as exec:
            for attempt in exec.until_all_locked():
                with attempt:
                    exec.lock_obj(a)
                    with pytest.raises(AlreadyLocked):
                        exec.lock_obj(twin)
        assert (a.resv.locked, a.resv.statistics().reserved) == (False, 0)

    def test_two_that_want_each_others(self) -> None:
        shared, rounds = objects("abcd"), scaled(60, 600)

        def work(seed: int) -> None:
            dice = random.Random(seed)
            for _ in range(rounds):
                mine = dice.sample(shared, 3)
                with Exec(ExecFlags.INTERRUPTIBLE_WAIT) as exec:
                    for attempt in exec.until_all_locked():
                        with attempt:
                            exec.lock_array(mine)
                    exec.check()
                    assert len(exec) == 3

        in_threads(partial(work, 1), partial(work, 2), partial(work, 3))
        for obj in shared:
            obj.resv.check()
            assert not obj.resv.locked

    def test_an_injected_deadlock_is_seen(self) -> None:
        a, b = objects("ab")
        passes = 0
        with reservation_ww_class.inject_deadlocks(0, 1), Exec() as exec:
            for attempt in exec.until_all_locked():
                with attempt:
                    passes += 1
                    if passes == 3:
                        break
                    exec.lock_array([a, b])
        assert (passes, a.resv.locked, b.resv.locked) == (3, False, False)
