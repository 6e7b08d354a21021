"""`Exec`: slots for fences, refused or given, and the object that is locked first after contention."""

from __future__ import annotations

from contextlib import suppress

import pytest

from contention import Obj, objects
from gpuvm.errors import AlreadyLocked, InvalidArgument, OutOfMemory
from gpuvm.exec.exec import Exec, ExecFlags
from gpuvm.sync.fence import Fence, fence_context_alloc, stub_fence
from gpuvm.sync.resv import Usage, refuse_reservation
from loops import IGNORE, contended_once, free, in_loop, lock_two


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
