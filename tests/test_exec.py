"""`Exec`: locking and unlocking objects, the same one twice, block after block."""

from __future__ import annotations

import errno
from contextlib import suppress

import pytest

from contention import Obj, objects
from gpuvm.errors import AlreadyLocked, CheckFailed, Contended, InvalidArgument
from gpuvm.exec.exec import Exec, ExecFlags, ExecStatistics
from gpuvm.sync import lockdep
from gpuvm.sync.fence import stub_fence
from gpuvm.sync.resv import Resv, Usage
from loops import IGNORE, contended_once, free, lock, lock_two


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
        with suppress(InvalidArgument), exec, contended_once(exec, b):
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
