"""`Exec`: every way out of the loop, and every wrong way into it."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from actors import Actor, actors
from contention import Obj, objects
from gpuvm.errors import Contended, Interrupted, InvalidArgument
from gpuvm.exec.exec import Attempt, Exec, ExecFlags, ExecStatistics
from gpuvm.sync import task
from gpuvm.sync.ww_acquire import AcquireContext, reservation_ww_class
from loops import contended_once, free, in_loop, lock, lock_two


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

        def leave() -> None:
            with Exec() as exec, contended_once(exec, b):
                for attempt in exec.until_all_locked():
                    with attempt:
                        try:
                            lock_two(exec, a, b)
                        except Contended:
                            break
                assert list(exec) == [], "nothing is half locked"
                assert exec.is_contended
                with pytest.raises(InvalidArgument, match="claimed"):
                    exec.claimed()

        with pytest.raises(InvalidArgument, match="the loop was left although b"):
            leave()
        assert free(a, b)

    def test_a_pass_that_failed_is_not_the_last(self) -> None:
        a, b = objects("ab")
        failures = iter([Interrupted("once"), None])
        with Exec() as exec:
            for attempt in exec.until_all_locked():
                with suppress(Interrupted), attempt:
                    exec.lock_obj(a)
                    if failure := next(failures):
                        raise failure
                    exec.lock_obj(b)
            assert list(exec) == [a, b]
        assert free(a, b)

    def test_unlocked_by_other_means(self) -> None:
        a, b, c = objects("abc")
        exec = Exec()

        def unlock_one() -> None:
            with exec:
                lock(exec, a, b, c)
                b.resv.unlock()

        with pytest.raises(InvalidArgument, match="b was unlocked by other means"):
            unlock_one()
        assert free(a, b, c)
        with exec:
            lock(exec, a)

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
    @pytest.mark.parametrize("flags", ["1", 1.5])
    def test_flags_that_are_none(self, flags: object) -> None:
        with pytest.raises(ValueError, match="not a valid ExecFlags"):
            Exec(flags)  # type: ignore[arg-type]

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
                with pytest.raises(InvalidArgument, match="Exec: lock inside `with attempt:`"):
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
        with pytest.raises(InvalidArgument, match="lock inside"):
            exec.lock_obj(a)
        with exec:
            with pytest.raises(InvalidArgument, match="lock inside"):
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
