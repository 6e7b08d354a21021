"""`Mutex`: one holder, first come first served, and how a wait for it may end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event

import pytest

from actors import Actor, actors
from contention import Watched
from gpuvm.errors import CheckFailed, Interrupted, InvalidArgument, LockdepError
from gpuvm.sync import lockdep, task
from gpuvm.sync.mutex import LockStatistics, Mutex
from gpuvm.testing import Interleaving, explore
from suite import scaled


class TestAlone:
    def test_locked_while_held(self) -> None:
        mutex = Mutex("m")
        assert not mutex.locked
        with mutex as entered:
            assert entered is mutex
            assert mutex.locked
            mutex.check()
        assert not mutex.locked
        mutex.check()

    def test_let_go_by_an_exception(self) -> None:
        mutex = Mutex("m")
        with pytest.raises(ZeroDivisionError), mutex:
            raise ZeroDivisionError
        assert not mutex.locked

    def test_trylock(self) -> None:
        mutex = Mutex("m")
        assert mutex.trylock()
        assert lockdep.is_held(mutex)
        assert not mutex.trylock()
        mutex.unlock()
        assert mutex.trylock()
        mutex.unlock()

    def test_interruptible_without_interrupt(self) -> None:
        mutex = Mutex("m")
        mutex.lock(interruptible=True)
        mutex.unlock()

    def test_a_free_one_is_taken_although_an_interrupt_waits(self) -> None:
        with actors("a") as [a]:
            a.thread.task.interrupt()
            mutex = Mutex("m")
            assert a.do(mutex.lock, interruptible=True).result is None
            assert a.thread.task.interrupted
            a.do(mutex.unlock)

    def test_says_what_it_is(self) -> None:
        mutex = Mutex("gpuva")
        assert repr(mutex) == "<Mutex 'gpuva' free>"
        with mutex:
            assert repr(mutex) == "<Mutex 'gpuva' locked>"

    def test_of_one_name_one_class(self) -> None:
        own = lockdep.lock_class("own")
        assert Mutex("m").lock_class is Mutex("m").lock_class is not Mutex("n").lock_class
        assert Mutex("m", own).lock_class is own

    def test_statistics(self) -> None:
        with actors("a", "b") as [a, b]:
            mutex = Mutex("m")
            assert mutex.statistics() == LockStatistics("m", locked=False, waiting=0, contended=0)
            a.do(mutex.lock)
            b.do(mutex.lock)
            assert mutex.statistics() == LockStatistics("m", locked=True, waiting=1, contended=1)
            a.do(mutex.unlock)
            b.do(mutex.unlock)
            assert mutex.statistics() == LockStatistics("m", locked=False, waiting=0, contended=1)

    @pytest.mark.parametrize("validated", [True, False], ids=["validator", "none"])
    def test_not_recursive(self, validated: bool) -> None:
        if not validated:
            lockdep.disable()
        mutex = Mutex("twice")
        with mutex:
            with pytest.raises(LockdepError, match="twice"):
                mutex.lock()
            assert mutex.statistics().waiting == 0
            mutex.check()
        assert not mutex.locked

    def test_order_is_validated_and_nothing_taken(self) -> None:
        a, b = Mutex("a"), Mutex("b")
        with a, b:
            pass
        with b:
            with pytest.raises(LockdepError):
                a.lock()
            assert not a.locked
            assert lockdep.held() == (b,)

    def test_check_finds_one_who_waits_for_nobody(self) -> None:
        with actors("a", "b") as [a, b]:
            mutex = Mutex("m")
            a.do(mutex.lock)
            b.do(mutex.lock)
            holder, mutex._holder = mutex._holder, None
            with pytest.raises(CheckFailed, match="'m' locked"):
                mutex.check()
            mutex._holder = holder
            mutex.check()
            a.do(mutex.unlock)
            b.do(mutex.unlock)


class TestUnlockByAStranger:
    def test_free(self) -> None:
        mutex = Mutex("m")
        with pytest.raises(InvalidArgument, match='unlock: this thread does not hold the mutex "m"'):
            mutex.unlock()
        mutex.check()
        assert not mutex.locked

    @pytest.mark.parametrize("validated", [True, False], ids=["validator", "none"])
    def test_held_by_another(self, validated: bool) -> None:
        if not validated:
            lockdep.disable()
        with actors("holder", "stranger") as [holder, stranger]:
            mutex = Mutex("m")
            holder.do(mutex.lock)
            assert isinstance(stranger.do(mutex.unlock).error, InvalidArgument)
            assert mutex.locked
            mutex.check()
            assert holder.do(mutex.unlock).result is None
            assert not mutex.locked


def waiting(mutex: Mutex, *cast: Actor) -> None:
    """All ask for it, one after another; all sleep."""
    for actor in cast:
        assert actor.do(mutex.lock).asleep


class TestFirstComeFirstServed:
    def test_handed_over_in_the_order_of_asking(self) -> None:
        with actors("a", "b", "c", "d") as [a, b, c, d]:
            mutex = Mutex("m")
            a.do(mutex.lock)
            waiting(mutex, c, b, d)
            for holder, following in ((a, c), (c, b), (b, d)):
                holder.do(mutex.unlock)
                assert not following.asleep
                mutex.check()
            d.do(mutex.unlock)

    def test_who_lets_go_cannot_take_it_back_first(self) -> None:
        with actors("a", "b") as [a, b]:
            mutex = Mutex("m")
            a.do(mutex.lock)
            waiting(mutex, b)

            def again() -> bool:
                mutex.unlock()
                return mutex.trylock()

            assert a.do(again).result is False
            assert a.do(mutex.lock).asleep
            b.do(mutex.unlock)
            a.do(mutex.unlock)

    def test_in_every_order_of_arrival(self) -> None:
        def scenario(run: Interleaving) -> Callable[[], None]:
            mutex = Mutex("m")
            arrived: list[str] = []
            served: list[str] = []

            def note() -> None:
                mutex.check()
                names = [queued.waiter.task.name for queued in mutex._queue]
                arrived.extend(name for name in names if name not in arrived)

            def visit() -> None:
                mutex.lock()
                served.append(task.current().name)
                mutex.unlock()

            run.strategy = Watched(run.strategy, note)
            for _ in range(4):
                run.spawn(visit)

            def in_order() -> None:
                assert [name for name in served if name in arrived] == arrived
                assert len(served) == 4

            return in_order

        explored = explore(scenario, preemptions=2, limit=scaled(400, 20_000))
        assert explored.schedules >= 200


class TestInterrupt:
    def test_leaves_the_queue(self) -> None:
        with actors("a", "b", "c") as [a, b, c]:
            mutex = Mutex("m")
            a.do(mutex.lock)
            assert b.do(mutex.lock, interruptible=True).asleep
            waiting(mutex, c)
            a.do(b.thread.task.interrupt)
            assert isinstance(b.error, Interrupted)
            assert not b.thread.task.interrupted
            assert mutex.statistics().waiting == 1
            mutex.check()
            a.do(mutex.unlock)
            assert not c.asleep
            c.do(mutex.unlock)

    def test_of_one_who_waits_uninterruptibly_is_kept(self) -> None:
        with actors("a", "b") as [a, b]:
            mutex = Mutex("m")
            a.do(mutex.lock)
            waiting(mutex, b)
            a.do(b.thread.task.interrupt)
            assert b.asleep
            a.do(mutex.unlock)
            assert b.result is None
            assert b.thread.task.interrupted
            b.do(mutex.unlock)

    def test_that_came_before(self) -> None:
        with actors("a", "b") as [a, b]:
            mutex = Mutex("m")
            a.do(mutex.lock)
            b.thread.task.interrupt()
            assert isinstance(b.do(mutex.lock, interruptible=True).error, Interrupted)
            a.do(mutex.unlock)


class Torn(task.Threads):
    """Sleeping ends by an exception, as when somebody presses Ctrl-C."""

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        self._meanwhile = meanwhile

    def park(self, waiter: task.Waiter, deadline: int | None) -> None:
        if waiter.task is not self.torn:
            super().park(waiter, deadline)
            return
        self._meanwhile()
        raise KeyboardInterrupt

    torn = task.Task("nobody")


@contextmanager
def torn_out_of_sleep(meanwhile: Callable[[], None]) -> Iterator[None]:
    runtime = Torn(meanwhile)
    runtime.torn = task.current()
    before = task.install(runtime, None)
    try:
        yield
    finally:
        task.install(*before)


class TestTornOutOfSleep:
    def held_elsewhere(self, mutex: Mutex) -> Callable[[], None]:
        """Another thread holds it; the answer has that one let go of it."""
        holds, let_go = Event(), Event()

        def hold() -> None:
            with mutex:
                holds.set()
                let_go.wait()

        holder = task.start("holder", hold)
        holds.wait()

        def release() -> None:
            let_go.set()
            holder.join()

        return release

    def test_leaves_the_queue(self) -> None:
        mutex = Mutex("m")
        release = self.held_elsewhere(mutex)
        with torn_out_of_sleep(lambda: None), pytest.raises(KeyboardInterrupt):
            mutex.lock()
        assert mutex.locked
        assert mutex.statistics().waiting == 0
        assert lockdep.held() == ()
        release()
        mutex.check()
        assert not mutex.locked

    def test_passes_on_what_it_was_given(self) -> None:
        mutex = Mutex("m")
        release = self.held_elsewhere(mutex)
        with torn_out_of_sleep(release), pytest.raises(KeyboardInterrupt):
            mutex.lock()
        mutex.check()
        assert not mutex.locked
        assert lockdep.held() == ()
        with mutex:
            pass
