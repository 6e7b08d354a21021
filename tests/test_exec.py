"""`Exec`: the loop that locks many objects, and every way through and out of it."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import ParamSpec

import pytest

from actors import Actor, actors
from contention import Obj, objects
from gpuvm.errors import (
    AlreadyLocked,
    CheckFailed,
    Contended,
    Interrupted,
    InvalidArgument,
    OutOfMemory,
)
from gpuvm.exec.exec import Attempt, Exec, ExecFlags, ExecStatistics
from gpuvm.sync import lockdep, task
from gpuvm.sync.fence import Fence, fence_context_alloc, stub_fence
from gpuvm.sync.resv import Resv, Usage, refuse_reservation
from gpuvm.sync.ww_mutex import AcquireContext, reservation_ww_class

IGNORE = ExecFlags.IGNORE_DUPLICATES
P = ParamSpec("P")


def free(*objs: Obj) -> bool:
    for obj in objs:
        obj.resv.check()
    return not any(obj.resv.locked for obj in objs)


def lock(exec: Exec, *objs: Obj) -> None:
    """The whole loop."""
    for attempt in exec.until_all_locked():
        with attempt:
            for obj in objs:
                exec.lock_obj(obj)


def in_loop(exec: Exec, function: Callable[P, object], *args: P.args, **named: P.kwargs) -> None:
    for attempt in exec.until_all_locked():
        with attempt:
            function(*args, **named)


def lock_two(exec: Exec, first: Obj, second: Obj) -> None:
    exec.lock_obj(first)
    exec.lock_obj(second)


@contextmanager
def contended_once(exec: Exec, *objs: Obj) -> Iterator[None]:
    """Who holds something and locks the first of these that comes gets `Contended`, once."""
    left = [True]

    def injection() -> bool:
        ticket = exec._ticket
        hit = bool(left) and ticket is not None and any(obj.resv.ticket is ticket for obj in objs)
        if hit:
            left.clear()
        return hit

    reservation_ww_class.injection = injection
    try:
        yield
    finally:
        reservation_ww_class.injection = None


class TestKernelCases:
    """drivers/gpu/drm/tests/drm_exec_test.c, by its names."""

    def test_sanitycheck(self) -> None:
        with Exec() as exec:
            assert len(exec) == 0
            exec.check()

    def test_lock(self) -> None:
        [a] = objects("a")
        with Exec(ExecFlags.INTERRUPTIBLE_WAIT) as exec:
            for attempt in exec.until_all_locked():
                with attempt:
                    exec.lock_obj(a)
            assert a.resv.locked
        assert free(a)

    def test_lock_unlock(self) -> None:
        [a] = objects("a")
        with Exec(ExecFlags.INTERRUPTIBLE_WAIT) as exec:
            for attempt in exec.until_all_locked():
                with attempt:
                    exec.lock_obj(a)
                    exec.unlock_obj(a)
                    assert free(a)
                    exec.lock_obj(a)
        assert free(a)

    def test_duplicates(self) -> None:
        [a] = objects("a")
        with Exec(IGNORE) as exec:
            for attempt in exec.until_all_locked():
                with attempt:
                    exec.lock_obj(a)
                    exec.lock_obj(a)
            assert list(exec) == [a]
            exec.unlock_obj(a)
            assert free(a)
        assert free(a)

    def test_prepare(self) -> None:
        [a] = objects("a")
        with Exec(ExecFlags.INTERRUPTIBLE_WAIT) as exec:
            for attempt in exec.until_all_locked():
                with attempt:
                    exec.prepare_obj(a, 1)
            a.resv.add_fence(stub_fence(), Usage.WRITE)
        assert free(a)

    def test_prepare_array(self) -> None:
        a, b = objects("ab")
        with Exec(ExecFlags.INTERRUPTIBLE_WAIT) as exec:
            for attempt in exec.until_all_locked():
                with attempt:
                    exec.prepare_array([a, b], 1)
            for obj in exec:
                obj.resv.add_fence(stub_fence(), Usage.WRITE)
        assert free(a, b)

    def test_multiple_loops(self) -> None:
        exec = Exec(ExecFlags.INTERRUPTIBLE_WAIT)
        for _ in range(2):
            with exec:
                for attempt in exec.until_all_locked():
                    with attempt:
                        break
            exec.check()


class TestLocking:
    def test_everything_is_held_after_the_loop(self) -> None:
        objs = objects("cab")
        with Exec() as exec:
            lock(exec, *objs)
            assert lockdep.held()[1:] == tuple(obj.resv for obj in objs)
            assert all(exec.holds(obj) for obj in objs)
            exec.check()
        assert free(*objs)
        assert not exec.holds(objs[0])

    def test_unlocked_last_first(self, monkeypatch: pytest.MonkeyPatch) -> None:
        objs = objects("abc")
        order: list[str] = []
        unlock = Resv.unlock

        def note(resv: Resv) -> None:
            order.append(resv.name)
            unlock(resv)

        monkeypatch.setattr(Resv, "unlock", note)
        with Exec() as exec:
            lock(exec, *objs)
        assert order == ["c", "b", "a"]

    def test_iteration(self) -> None:
        objs = objects("bca")
        with Exec() as exec:
            lock(exec, *objs)
            assert list(exec) == objs
            assert list(reversed(exec)) == objs[::-1]
            assert len(exec) == 3
            for obj in exec:
                exec.unlock_obj(obj)
            assert list(exec) == []
            assert exec, "one that has locked nothing is not nothing"

    def test_nothing_at_all(self) -> None:
        with Exec() as exec:
            for attempt in exec.until_all_locked():
                with attempt:
                    exec.prepare_array([], 1)
            assert exec.statistics() == ExecStatistics(locked=0, attempts=1, contended=0)

    def test_statistics_are_of_the_last_block(self) -> None:
        a, b = objects("ab")
        exec = Exec()
        with exec, contended_once(exec, b):
            lock(exec, a, b)
            assert exec.statistics() == ExecStatistics(locked=2, attempts=2, contended=1)
        assert exec.statistics() == ExecStatistics(locked=0, attempts=2, contended=1)
        with exec:
            lock(exec, a)
            assert exec.statistics() == ExecStatistics(locked=1, attempts=1, contended=0)
            assert repr(exec) == "<Exec 1 locked, attempt 1>"

    def test_check_finds_what_was_unlocked_elsewhere(self) -> None:
        [a] = objects("a")
        with Exec() as exec:
            lock(exec, a)
            a.resv.unlock()
            with pytest.raises(CheckFailed, match="tracked"):
                exec.check()
            exec._objects.clear()


class TestUnlockObj:
    def test_one_that_is_not_locked(self) -> None:
        a, b = objects("ab")
        with Exec() as exec:
            lock(exec, a)
            with pytest.raises(InvalidArgument, match="unlock_obj: b is none of the 1 locked objects"):
                exec.unlock_obj(b)
            assert list(exec) == [a]

    def test_one_that_shares_its_reservation(self) -> None:
        [a] = objects("a")
        twin = Obj("twin", a.resv)
        with Exec() as exec:
            lock(exec, a)
            assert exec.holds(twin)
            with pytest.raises(InvalidArgument):
                exec.unlock_obj(twin)

    def test_in_any_order(self) -> None:
        a, b, c = objects("abc")
        with Exec() as exec:
            lock(exec, a, b, c)
            exec.unlock_obj(b)
            assert list(exec) == [a, c]
            exec.check()
            exec.unlock_obj(a)
            assert list(exec) == [c]
        assert free(a, b, c)


class TestDuplicates:
    def test_the_same_object(self) -> None:
        [a] = objects("a")
        with Exec() as exec:
            for attempt in exec.until_all_locked():
                with attempt:
                    exec.lock_obj(a)
                    with pytest.raises(AlreadyLocked) as caught:
                        exec.lock_obj(a)
                    assert caught.value.errno == errno.EALREADY
            assert list(exec) == [a]

    def test_another_object_with_the_same_reservation(self) -> None:
        [a] = objects("a")
        twin = Obj("twin", a.resv)
        with pytest.raises(AlreadyLocked), Exec() as exec:
            lock(exec, a, twin)
        assert free(a)

    def test_ignored(self) -> None:
        a, b = objects("ab")
        twin = Obj("twin", a.resv)
        with Exec(IGNORE) as exec:
            lock(exec, a, b, twin, a, b)
            assert list(exec) == [a, b], "one for each reservation"
            exec.check()
        assert free(a, b)

    def test_ignored_ones_get_their_slots(self) -> None:
        [a] = objects("a")
        twin = Obj("twin", a.resv)
        with Exec(IGNORE) as exec:
            for attempt in exec.until_all_locked():
                with attempt:
                    exec.lock_obj(a)
                    exec.prepare_obj(twin, 2)
            assert a.resv.statistics().reserved == 2

    def test_array_with_duplicates(self) -> None:
        a, b = objects("ab")
        with Exec(IGNORE) as exec:
            for attempt in exec.until_all_locked():
                with attempt:
                    exec.prepare_array([a, b, a], 1)
            assert list(exec) == [a, b]


class TestRefusedReservation:
    """Only what the failing call locked is unlocked."""

    def test_of_one_object(self) -> None:
        a, b = objects("ab")

        def both(exec: Exec) -> None:
            exec.prepare_obj(a, 1)
            exec.prepare_obj(b, 1)

        with Exec() as exec, refuse_reservation(1):
            with pytest.raises(OutOfMemory):
                in_loop(exec, both, exec)
            assert list(exec) == [a]
            exec.check()
            assert free(b)
        assert free(a, b)

    def test_within_an_array(self) -> None:
        objs = objects("abcd")
        with Exec() as exec, refuse_reservation(2):
            with pytest.raises(OutOfMemory):
                in_loop(exec, exec.prepare_array, objs, 1)
            assert list(exec) == objs[:2]
            exec.check()
        assert free(*objs)

    def test_of_a_duplicate(self) -> None:
        """The kernel unlocks the first owner here."""
        [a] = objects("a")
        twin = Obj("twin", a.resv)
        with Exec(IGNORE) as exec, refuse_reservation(1):
            for attempt in exec.until_all_locked():
                with attempt:
                    exec.prepare_obj(a, 1)
                    with pytest.raises(OutOfMemory):
                        exec.prepare_obj(twin, 1)
            assert list(exec) == [a]
            exec.check()

    def test_and_tried_again_in_the_same_pass(self) -> None:
        [a] = objects("a")
        with Exec() as exec, refuse_reservation(0):
            for attempt in exec.until_all_locked():
                with attempt:
                    with suppress(OutOfMemory):
                        exec.prepare_obj(a, 1)
                    assert free(a)
                    exec.prepare_obj(a, 1)
            assert list(exec) == [a]

    def test_too_few_slots(self) -> None:
        [a] = objects("a")
        with Exec() as exec:
            for attempt in exec.until_all_locked():
                with attempt, pytest.raises(InvalidArgument, match="reserve_fences"):
                    exec.prepare_obj(a, 0)
            assert free(a)

    def test_of_the_prelocked_one(self) -> None:
        a, b = objects("ab")
        with Exec() as exec, contended_once(exec, b):
            for attempt in exec.until_all_locked():
                with attempt:
                    if exec.statistics().attempts == 1:
                        exec.lock_obj(a)
                    else:
                        assert list(exec) == [b]
                    with refuse_reservation(0), suppress(OutOfMemory):
                        exec.prepare_obj(b, 1)
            assert list(exec) == []
        assert free(a, b)


class TestPrelocked:
    """The contended object is locked first in the next pass, and is there when it is asked for."""

    def test_asked_for_again(self) -> None:
        a, b = objects("ab")
        seen: list[list[object]] = []
        with Exec() as exec, contended_once(exec, b):
            for attempt in exec.until_all_locked():
                with attempt:
                    seen.append(list(exec))
                    exec.lock_obj(a)
                    exec.lock_obj(b)
                    with pytest.raises(AlreadyLocked):
                        exec.lock_obj(b)
            assert seen == [[], [b]]
            assert list(exec) == [b, a]
            exec.check()

    def test_asked_for_first(self) -> None:
        a, b = objects("ab")
        with Exec() as exec, contended_once(exec, b):
            for attempt in exec.until_all_locked():
                with attempt:
                    for obj in (a, b) if exec.statistics().attempts == 1 else (b, a):
                        exec.lock_obj(obj)
            assert list(exec) == [b, a]
            exec.check()

    def test_never_asked_for(self) -> None:
        a, b = objects("ab")
        with Exec() as exec, contended_once(exec, b):
            for attempt in exec.until_all_locked():
                with attempt:
                    exec.lock_obj(a)
                    if exec.statistics().attempts == 1:
                        exec.lock_obj(b)
            assert list(exec) == [b, a], "it stays locked to the end"
            exec.check()
        assert free(a, b)

    def test_nothing_is_asked_for(self) -> None:
        """The kernel loops for ever here."""
        a, b = objects("ab")
        with Exec() as exec, contended_once(exec, b):
            for attempt in exec.until_all_locked():
                with attempt:
                    exec.prepare_array([a, b] if exec.statistics().attempts == 1 else [], 1)
            assert list(exec) == [b]
            assert exec.statistics().attempts == 2

    @pytest.mark.parametrize("flags", [ExecFlags(0), IGNORE])
    def test_asked_for_by_another_object_that_shares_the_reservation(self, flags: ExecFlags) -> None:
        """As if nothing had been locked before: it is the other object that is locked."""
        a, b = objects("ab")
        twin = Obj("twin", b.resv)
        with Exec(flags) as exec, contended_once(exec, b):
            for attempt in exec.until_all_locked():
                with attempt:
                    exec.lock_obj(a)
                    exec.prepare_obj(b if exec.statistics().attempts == 1 else twin, 1)
                    assert exec.holds(b)
            assert list(exec) == [twin, a]
            exec.check()
            twin.resv.add_fence(stub_fence(), Usage.READ)
            exec.unlock_obj(twin)
        assert free(a, b)

    def test_is_already_locked_the_second_time(self) -> None:
        a, b = objects("ab")
        twin = Obj("twin", b.resv)
        with Exec() as exec, contended_once(exec, b):
            for attempt in exec.until_all_locked():
                with attempt:
                    exec.lock_obj(a)
                    exec.lock_obj(twin)
                    with pytest.raises(AlreadyLocked):
                        exec.lock_obj(b)

    def test_unlocked_unasked_and_locked_again(self) -> None:
        a, b = objects("ab")
        with Exec() as exec, contended_once(exec, b):
            for attempt in exec.until_all_locked():
                with attempt:
                    if exec.statistics().attempts == 2:
                        exec.unlock_obj(b)
                    exec.lock_obj(a)
                    exec.lock_obj(b)
            assert list(exec) == [a, b]
            exec.check()

    def test_is_contended_in_between(self) -> None:
        a, b = objects("ab")
        told: list[bool] = []
        with Exec() as exec, contended_once(exec, b):
            for attempt in exec.until_all_locked():
                with attempt:
                    try:
                        lock_two(exec, a, b)
                    finally:
                        told.append(exec.is_contended)
            assert told == [True, False]
            assert not exec.is_contended


class TestLeavingTheLoop:
    def test_break(self) -> None:
        a, b = objects("ab")
        with Exec() as exec:
            for attempt in exec.until_all_locked():
                with attempt:
                    exec.lock_obj(a)
                    break
            assert list(exec) == [a], "what is locked stays so to the end of the block"
            with pytest.raises(InvalidArgument, match="inside `with attempt:`"):
                exec.lock_obj(b)
        assert free(a, b)

    def test_return(self) -> None:
        [a] = objects("a")
        exec = Exec()

        def leave() -> str:
            with exec:
                for attempt in exec.until_all_locked():
                    with attempt:
                        exec.lock_obj(a)
                        return "left"
            return "ran through"

        assert leave() == "left"
        assert free(a)
        exec.check()

    @pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, GeneratorExit, StopIteration])
    def test_exception(self, error: type[BaseException]) -> None:
        a, b = objects("ab")
        exec = Exec()

        def fail() -> None:
            lock_two(exec, a, b)
            raise error

        with pytest.raises(error), exec:
            in_loop(exec, fail)
        assert free(a, b)
        exec.check()

    def test_exception_after_contention_in_the_same_pass(self) -> None:
        a, b = objects("ab")
        exec = Exec()

        def fail() -> None:
            with suppress(Contended):
                lock_two(exec, a, b)
            raise ZeroDivisionError

        with exec, contended_once(exec, b):
            with pytest.raises(ZeroDivisionError):
                in_loop(exec, fail)
            assert list(exec) == [a], "as after any exception"
        assert free(a, b)

    def test_exception_beside_an_object_that_fails_to_be_locked(self) -> None:
        a = Obj("a")
        exec = Exec()
        with pytest.raises(AttributeError), exec:
            in_loop(exec, exec.prepare_array, [a, object()], 1)  # type: ignore[list-item]
        assert free(a)

    def test_swallowed_contended(self) -> None:
        """The pass was contended all the same, and what it did not lock is locked by the next."""
        a, b, c = objects("abc")
        refused: list[BaseException] = []
        with Exec() as exec, contended_once(exec, b):
            for attempt in exec.until_all_locked():
                with attempt:
                    with suppress(Contended):
                        lock_two(exec, a, b)
                    try:
                        exec.lock_obj(c)
                    except Contended as error:
                        refused.append(error)
            assert list(exec) == [b, a, c]
            assert exec.statistics() == ExecStatistics(locked=3, attempts=2, contended=1)
        assert ["let Contended reach" in str(error) for error in refused] == [True]

    def test_swallowed_contended_and_break(self) -> None:
        a, b = objects("ab")
        with Exec() as exec, contended_once(exec, b):
            for attempt in exec.until_all_locked():
                with attempt:
                    try:
                        lock_two(exec, a, b)
                    except Contended:
                        break
            assert list(exec) == [], "nothing is half locked"
            assert exec.is_contended
        assert free(a, b)

    def test_someone_elses_contended(self) -> None:
        """It says nothing of this loop."""
        [a] = objects("a")
        exec = Exec()

        def fail() -> None:
            exec.lock_obj(a)
            raise Contended("elsewhere")

        with pytest.raises(Contended, match="elsewhere"), exec:
            in_loop(exec, fail)
        assert free(a)
        assert exec.statistics().contended == 0

    def test_continue(self) -> None:
        a, b = objects("ab")
        with Exec() as exec, contended_once(exec, b):
            for attempt in exec.until_all_locked():
                with attempt:
                    lock_two(exec, a, b)
                    continue
            assert len(exec) == 2

    def test_nested_loops(self) -> None:
        objs = objects("abcdef")
        with Exec() as exec, contended_once(exec, objs[4]):
            for attempt in exec.until_all_locked():
                with attempt:
                    for pair in (objs[:2], objs[2:4], objs[4:]):
                        for obj in pair:
                            exec.lock_obj(obj)
            assert list(exec) == [objs[4], *objs[:4], objs[5]]


class TestWrongUse:
    def test_loop_outside_of_the_block(self) -> None:
        with pytest.raises(InvalidArgument, match="until_all_locked: use it within its `with` block"):
            next(Exec().until_all_locked())

    def test_second_loop_in_a_block(self) -> None:
        [a] = objects("a")
        with Exec() as exec:
            lock(exec, a)
            with pytest.raises(InvalidArgument, match="until_all_locked: it has been used"):
                next(exec.until_all_locked())
            assert list(exec) == [a]

    def test_forgotten_with_attempt(self) -> None:
        [a] = objects("a")
        with Exec() as exec:
            for _ in exec.until_all_locked():
                with pytest.raises(InvalidArgument, match="lock_obj: lock inside `with attempt:`"):
                    exec.lock_obj(a)
                break
        assert free(a)

    def test_pass_that_was_never_entered(self) -> None:
        with Exec() as exec:
            passes = exec.until_all_locked()
            next(passes)
            with pytest.raises(InvalidArgument, match="put what the loop does in `with attempt:`"):
                next(passes)

    def test_lock_outside_of_the_loop(self) -> None:
        [a] = objects("a")
        exec = Exec()
        with pytest.raises(InvalidArgument, match="lock_obj"):
            exec.lock_obj(a)
        with exec:
            with pytest.raises(InvalidArgument, match="lock_obj"):
                exec.lock_obj(a)
            with pytest.raises(InvalidArgument):
                exec.prepare_obj(a, 1)
        with pytest.raises(InvalidArgument):
            exec.prepare_array([a], 1)
        assert free(a)

    def test_lock_after_the_loop(self) -> None:
        a, b = objects("ab")
        with Exec() as exec:
            lock(exec, a)
            with pytest.raises(InvalidArgument, match="inside `with attempt:`"):
                exec.lock_obj(b)
            assert list(exec) == [a]

    def test_lock_between_passes(self) -> None:
        """Its Contended would leave the loop."""
        a, b = objects("ab")
        with Exec() as exec:
            for attempt in exec.until_all_locked():
                with attempt:
                    exec.lock_obj(a)
                with pytest.raises(InvalidArgument, match="inside `with attempt:`"):
                    exec.lock_obj(b)

    def test_attempt_entered_twice(self) -> None:
        """If the first were contended the second would not have its objects."""
        [a] = objects("a")
        with Exec() as exec:
            for attempt in exec.until_all_locked():
                with attempt:
                    exec.lock_obj(a)
                with pytest.raises(InvalidArgument, match="entered before"), attempt:
                    pass
        assert free(a)

    def test_attempt_entered_after_its_loop(self) -> None:
        attempts: list[Attempt] = []
        with Exec() as exec:
            for attempt in exec.until_all_locked():
                attempts.append(attempt)
                break
            with pytest.raises(InvalidArgument, match="its loop is over"), attempts[0]:
                pass
        exec.check()

    def test_block_within_itself(self) -> None:
        exec = Exec()
        with exec:
            with pytest.raises(InvalidArgument, match="with Exec: it is in use"), exec:
                pass
            exec.check()

    def test_two_in_one_thread(self) -> None:
        [a] = objects("a")
        with Exec() as exec:
            lock(exec, a)
            with pytest.raises(AssertionError), Exec():
                pass
        assert free(a)


class TestReused:
    def test_block_after_block(self) -> None:
        objs = objects("abc")
        exec = Exec()
        for _ in range(3):
            with exec:
                lock(exec, *objs)
                assert list(exec) == objs
                exec.check()
            assert free(*objs)

    def test_after_contention_that_was_given_up(self) -> None:
        a, b = objects("ab")
        exec = Exec()
        with exec, contended_once(exec, b):
            for attempt in exec.until_all_locked():
                with attempt:
                    try:
                        lock_two(exec, a, b)
                    except Contended:
                        break
        with exec:
            assert not exec.is_contended
            lock(exec, a)
            assert list(exec) == [a]

    def test_each_block_has_its_own_age(self) -> None:
        exec = Exec()
        stamps: list[int] = []
        for _ in range(2):
            with exec:
                assert exec._ticket is not None
                stamps.append(exec._ticket.stamp)
        assert stamps[0] < stamps[1]


class TestFences:
    def test_slots_are_gone_with_the_block(self) -> None:
        [a] = objects("a")
        fence = Fence(fence_context_alloc(), 1)
        with Exec() as exec:
            for attempt in exec.until_all_locked():
                with attempt:
                    exec.prepare_obj(a, 3)
            assert a.resv.statistics().reserved == 3
            a.resv.add_fence(fence, Usage.WRITE)
        assert a.resv.statistics().reserved == 0
        assert a.resv.fences(Usage.WRITE) == [fence]
        fence.signal()


def whole_loop(exec: Exec, *objs: Obj) -> list[object]:
    with exec:
        lock(exec, *objs)
        return list(exec)


class TestInterruptible:
    """Another thread holds b, without a ticket, so that nobody dies of it."""

    @contextmanager
    def held(self, obj: Obj) -> Iterator[tuple[Actor, Actor]]:
        with actors("holder", "sleeper") as [holder, sleeper]:
            holder.do(obj.resv.lock)
            yield holder, sleeper

    def test_leaves_earlier_ones_locked_until_the_block_ends(self) -> None:
        a, b = objects("ab")
        held_then: list[list[object]] = []

        def run() -> None:
            with Exec(ExecFlags.INTERRUPTIBLE_WAIT) as exec:
                try:
                    lock(exec, a, b)
                except Interrupted:
                    held_then.append(list(exec))
                    exec.check()
                    raise

        with self.held(b) as (holder, sleeper):
            assert sleeper.do(run).asleep
            sleeper.thread.task.interrupt()
            holder.do(task.current)
            assert isinstance(sleeper.error, Interrupted)
            assert sleeper.error.errno == errno.EINTR
            assert held_then == [[a]]
            assert not a.resv.locked
            holder.do(b.resv.unlock)
        assert free(a, b)

    def test_not_without_the_flag(self) -> None:
        a, b = objects("ab")
        with self.held(b) as (holder, sleeper):
            assert sleeper.do(whole_loop, Exec(), a, b).asleep
            sleeper.thread.task.interrupt()
            holder.do(task.current)
            assert sleeper.asleep
            holder.do(b.resv.unlock)
            assert sleeper.result == [a, b]
            assert sleeper.thread.task.interrupted

    def test_while_the_contended_lock_is_taken(self) -> None:
        """Nothing is held then; the loop may go on and take it in the next pass."""
        a, b = objects("ab")
        passes: list[str] = []

        def run() -> list[object]:
            with Exec(ExecFlags.INTERRUPTIBLE_WAIT) as exec:
                for attempt in exec.until_all_locked():
                    passes.append("pass")
                    try:
                        with attempt:
                            lock_two(exec, a, b)
                    except Interrupted:
                        exec.check()
                        passes.append(f"interrupted with {list(exec)}")
                return list(exec)

        with actors("old", "young") as [old, young]:
            ticket: AcquireContext = old.do(AcquireContext, reservation_ww_class).result
            old.do(b.resv.lock, ticket)
            assert young.do(run).asleep
            young.thread.task.interrupt()
            old.do(task.current)
            assert young.asleep
            assert passes == ["pass", "pass", "interrupted with []", "pass"]
            old.do(b.resv.unlock)
            assert young.result == [b, a]
            old.do(ticket.fini)
        assert free(a, b)
