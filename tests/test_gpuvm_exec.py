"""GpuVm's protocol, the locking: what each call locks, and that nothing of it is lost by beginning again."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from gpuvm import Exec, ExecFlags, GpuVm, GpuVmFlags
from gpuvm.errors import (
    AlreadyLocked,
    Interrupted,
    InvalidArgument,
    OutOfMemory,
)
from gpuvm.exec import Lockable
from gpuvm.sync import task
from gpuvm.sync.resv import Resv, Usage, refuse_reservation
from gpuvm.sync.ww_acquire import AcquireContext, reservation_ww_class
from gpuvm.testing import Interleaving, sample
from interleaved import pause, pending_fence
from protocol import (
    PAGE,
    RESV_PROTECTED,
    SIZE,
    Bo,
    Userptr,
    bind,
    bind_all,
    both_protections,
    evict,
    external,
    locked,
    private,
    slots,
    space,
)
from suite import scaled

NO_FLAGS = ExecFlags(0)
IGNORE = ExecFlags.IGNORE_DUPLICATES
INTERRUPTIBLE = ExecFlags.INTERRUPTIBLE_WAIT


def with_vm(vm: GpuVm, prepare: Callable[[Exec], None]) -> Callable[[Exec], None]:
    """After the VM's reservation, as the protection of the lists may need."""

    def both(exec: Exec) -> None:
        vm.prepare_vm(exec, 0)
        prepare(exec)

    return both


class Telltale(Resv):
    """Calls ``told`` each time an ``Exec`` has locked it."""

    told: Callable[[], None] | None = None

    def lock(self, ticket: AcquireContext | None = None, interruptible: bool = False) -> None:
        super().lock(ticket, interruptible)
        if ticket is not None and self.told is not None:
            self.told()


class TestPrepareVm:
    def test_it_locks_the_reservation_of_the_vm(self) -> None:
        vm = space()
        bind_all(vm, *external("a", "b"))
        assert locked(lambda exec: vm.prepare_vm(exec, 3)) == {vm.resv: 3}

    def test_without_fences_it_only_locks(self) -> None:
        vm = space()
        assert locked(lambda exec: vm.prepare_vm(exec, 0)) == {vm.resv: 0}

    def test_with_a_fence_there_is_none_too_many(self) -> None:
        vm = space()
        with Exec() as exec:
            for attempt in exec.until_all_locked():
                with attempt:
                    vm.prepare_vm(exec, 1)
            vm.resv.add_fence(pending_fence(), Usage.BOOKKEEP)
            with pytest.raises(InvalidArgument):
                vm.resv.add_fence(pending_fence(), Usage.BOOKKEEP)


class TestPrepareObjects:
    @both_protections
    def test_it_locks_external_objects_in_the_order_of_their_list(self, flags: GpuVmFlags) -> None:
        vm = space(flags)
        (mine,), (one, two) = private(vm, "mine"), external("one", "two")
        bind_all(vm, two, mine, Userptr(), None, one)
        prepare = with_vm(vm, lambda exec: vm.prepare_objects(exec, 2))
        assert list(locked(prepare).items()) == [(vm.resv, 0), (two.resv, 2), (one.resv, 2)]

    def test_own_locks_need_no_reservation(self) -> None:
        vm = space()
        one, two = external("one", "two")
        bind_all(vm, one, two)
        assert locked(lambda exec: vm.prepare_objects(exec, 0)) == {one.resv: 0, two.resv: 0}

    @both_protections
    def test_two_that_share_a_reservation(self, flags: GpuVmFlags) -> None:
        vm = space(flags)
        one = Bo("one")
        bind_all(vm, one, Bo("twin", one.resv))
        prepare = with_vm(vm, lambda exec: vm.prepare_objects(exec, 1))
        assert locked(prepare, IGNORE) == {vm.resv: 0, one.resv: 1}
        with pytest.raises(AlreadyLocked):
            locked(prepare, NO_FLAGS)
        assert not vm.resv.locked
        assert not one.resv.locked

    def test_objects_flagged_as_evicted_are_listed(self) -> None:
        vm = space(RESV_PROTECTED)
        one, two, three = bind_all(vm, *external("one", "two", "three"))
        for vm_bo in (three, one):
            evict(vm_bo)
        assert vm.evicted == []
        locked(with_vm(vm, lambda exec: vm.prepare_objects(exec, 0)))
        assert vm.evicted == [one, three]
        locked(with_vm(vm, lambda exec: vm.prepare_objects(exec, 0)))
        assert vm.evicted == [one, three]
        assert not two.on_evicted


class TestListsThatChangeMeanwhile:
    """Own locks: the list of external objects may change while it is walked."""

    def walk(self, vm: GpuVm, first: Bo, meddle: Callable[[], None]) -> list[Lockable]:
        """What ``prepare_objects`` locks if somebody meddles once it has locked ``first``."""
        assert isinstance(first.resv, Telltale)
        first.resv.told = meddle
        with Exec(IGNORE) as exec:
            for attempt in exec.until_all_locked():
                with attempt:
                    vm.prepare_objects(exec, 0)
            return list(exec)

    def test_what_is_added_is_locked_too(self) -> None:
        vm = space()
        first, late = Bo("first", Telltale()), Bo("late")
        bind(vm, 0, first)
        with late.resv:
            added = vm.bo_obtain(late)
        assert self.walk(vm, first, lambda: vm.bo_extobj_add(added)) == [first, late]

    def test_what_goes_is_not_locked(self) -> None:
        vm = space()
        first, middle, last = Bo("first", Telltale()), *external("middle", "last")
        bind_all(vm, first, middle, last)
        assert self.walk(vm, first, lambda: vm.sm_unmap(PAGE, PAGE).apply()) == [first, last]

    def test_what_was_walked_already_may_go(self) -> None:
        vm = space()
        before, first, last = Bo("before"), Bo("first", Telltale()), Bo("last")
        bind_all(vm, before, first, last)
        assert self.walk(vm, first, lambda: vm.sm_unmap(0, 2 * PAGE).apply()) == [before, first, last]

    def test_what_comes_back_is_met_again(self) -> None:
        vm = space()
        first, last = Bo("first", Telltale()), Bo("last")
        bind_all(vm, first, last)

        def come_back() -> None:
            vm.sm_unmap(0, PAGE).apply()
            vm.bo_extobj_add(vm.bo_obtain(first))

        assert self.walk(vm, first, come_back) == [first, last]

    def test_one_that_ends_while_its_lock_is_waited_for(self) -> None:
        """It is locked for nothing, and the others as if it had never been."""
        waited = 0

        def scenario(run: Interleaving) -> Callable[[], None]:
            vm = space()
            doomed, other = external("doomed", "other")
            ending, living = bind_all(vm, doomed, other)
            got: list[list[Lockable]] = []

            def unmap() -> None:
                with doomed.resv:
                    pause(2)
                    vm.sm_unmap(0, PAGE).apply()

            def submit() -> None:
                with vm.exec_lock() as exec:
                    got.append(list(exec))
                    assert vm.extobjs in ([ending, living], [living])
                    assert vm.evicted == []

            run.spawn(unmap)
            run.spawn(submit)

            def check() -> None:
                nonlocal waited
                assert not ending.alive
                assert vm.extobjs == [living]
                (objs,) = got
                assert objs in ([vm.resv_obj, doomed, other], [vm.resv_obj, other])
                waited += doomed.resv.statistics().contended > 0 and doomed in objs
                vm.check()

            return check

        sample(scenario, range(scaled(60, 2000)))
        assert waited > 5


class TestPrepareRange:
    def test_it_locks_what_is_mapped_there(self) -> None:
        vm = space()
        a, b, c, d = external("a", "b", "c", "d")
        bind_all(vm, a, b, c, d)
        prepare: Callable[[Exec], None] = lambda exec: vm.prepare_range(exec, 2 * PAGE - 1, 2, 4)  # noqa: E731
        assert locked(prepare) == {b.resv: 4, c.resv: 4}

    def test_each_reservation_once_and_nothing_without_object(self) -> None:
        vm = space()
        (one,), (mine, yours) = external("one"), private(vm, "mine", "yours")
        bind_all(vm, one, None, mine, Userptr(), yours, one)
        assert list(locked(lambda exec: vm.prepare_range(exec, 0, SIZE, 0), NO_FLAGS)) == [one.resv, vm.resv]

    def test_private_objects_after_the_vm_are_duplicates(self) -> None:
        vm = space()
        bind_all(vm, *private(vm, "mine"))
        prepare = with_vm(vm, lambda exec: vm.prepare_range(exec, 0, SIZE, 1))
        assert locked(prepare) == {vm.resv: 1}
        with pytest.raises(AlreadyLocked):
            locked(prepare, NO_FLAGS)

    def test_an_empty_range_is_refused(self) -> None:
        vm = space()
        for addr, range_ in ((0, 0), (8, 1 << 64)):
            with pytest.raises(InvalidArgument):
                locked(lambda exec: vm.prepare_range(exec, addr, range_, 0))  # noqa: B023 (called at once)


Form = Callable[..., AbstractContextManager[Exec]]
FORMS: dict[str, Callable[[GpuVm, list[Bo]], Form]] = {
    "all": lambda vm, objs: vm.exec_lock,
    "array": lambda vm, objs: lambda *args, **named: vm.exec_lock_array(objs, *args, **named),
    "range": lambda vm, objs: lambda *args, **named: vm.exec_lock_range(0, SIZE, *args, **named),
}
every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())


class TestExecLock:
    @both_protections
    def test_it_locks_the_vm_and_external_objects(self, flags: GpuVmFlags) -> None:
        vm = space(flags)
        (mine,), (one, two) = private(vm, "mine"), external("one", "two")
        bind_all(vm, mine, one, two)
        with vm.exec_lock(2) as exec:
            assert slots(exec) == {vm.resv: 2, one.resv: 2, two.resv: 2}
            assert exec.holds(mine)
            assert next(iter(exec)) is vm.resv_obj
        assert not any(resv.locked for resv in (vm.resv, one.resv, two.resv))

    def test_an_empty_space(self) -> None:
        vm = space()
        with vm.exec_lock(1) as exec:
            assert slots(exec) == {vm.resv: 1}
        with vm.exec_lock_range(0, SIZE) as exec:
            assert slots(exec) == {}

    def test_extra_locks_more_in_each_pass(self) -> None:
        vm = space()
        one, more = external("one", "more")
        bind_all(vm, one)
        passes = []

        def extra(exec: Exec) -> None:
            passes.append(len(exec))
            exec.prepare_obj(more, 5)

        with reservation_ww_class.inject_deadlocks(1, 0.5), vm.exec_lock(1, extra=extra) as exec:
            assert exec.statistics().attempts > len(passes) >= 1, "contended before extra came"
            assert slots(exec) == {more.resv: 5, vm.resv: 1, one.resv: 1}

    def test_an_error_of_extra_unlocks_all(self) -> None:
        vm = space()
        (one,) = external("one")
        bind_all(vm, one)

        def extra(exec: Exec) -> None:
            assert exec.holds(one)
            raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"), vm.exec_lock(extra=extra):
            pytest.fail("the block must not run")
        assert not vm.resv.locked
        assert not one.resv.locked

    def test_an_error_in_the_block_is_the_callers(self) -> None:
        vm = space()
        with pytest.raises(ZeroDivisionError), vm.exec_lock():
            _ = 1 // 0
        assert not vm.resv.locked

    def test_array_locks_objects_not_mapped_yet(self) -> None:
        vm = space()
        (mine,), (one, new, newer) = private(vm, "mine"), external("one", "new", "newer")
        bind_all(vm, one)
        with vm.exec_lock_array((obj for obj in (new, one, mine, newer)), 3) as exec:
            assert slots(exec) == dict.fromkeys([vm.resv, one.resv, new.resv, newer.resv], 3)
        with vm.exec_lock_array([one], flags=ExecFlags.INTERRUPTIBLE_WAIT) as exec:  # duplicates are fine
            assert list(exec) == [vm.resv_obj, one]

    def test_range_locks_the_vm_only_for_private_objects(self) -> None:
        vm = space()
        (mine,), (one, two) = private(vm, "mine"), external("one", "two")
        bind_all(vm, one, mine, two)
        with vm.exec_lock_range(0, PAGE, 1) as exec:
            assert slots(exec) == {one.resv: 1}
        with vm.exec_lock_range(0, 2 * PAGE, 1) as exec:
            assert slots(exec) == {one.resv: 1, vm.resv: 1}

    @every_form
    def test_shared_reservations(self, form: Callable[[GpuVm, list[Bo]], Form]) -> None:
        vm = space()
        one = Bo("one")
        twins = [one, Bo("twin", one.resv)]
        bind_all(vm, *twins)
        with form(vm, twins)(1) as exec:
            assert exec.holds(twins[1])
            assert one.resv.statistics().reserved == 1
        assert not one.resv.locked

    @every_form
    @both_protections
    def test_injected_contention_changes_nothing(
        self, flags: GpuVmFlags, form: Callable[[GpuVm, list[Bo]], Form]
    ) -> None:
        vm = space(flags)
        (mine,), shared, extra = private(vm, "mine"), external(*"abcdef"), external("x", "y")
        vm_bos = bind_all(vm, mine, *shared, None)
        evict(vm_bos[3])
        lock = form(vm, extra)
        with lock(2) as exec:
            expected, listed = slots(exec), vm.evicted
        attempts = set()
        for seed in range(scaled(100, 2000)):
            with reservation_ww_class.inject_deadlocks(seed, 0.2), lock(2) as exec:
                assert slots(exec) == expected, seed
                assert vm.evicted == listed, seed
                attempts.add(exec.statistics().attempts)
        assert len(attempts) > 3

    @every_form
    @pytest.mark.parametrize("number", range(4))
    def test_no_memory_for_slots_locks_nothing(
        self, number: int, form: Callable[[GpuVm, list[Bo]], Form]
    ) -> None:
        vm = space()
        (mine,), shared = private(vm, "mine"), external("a", "b", "c")
        bind_all(vm, mine, *shared)
        with refuse_reservation(number), pytest.raises(OutOfMemory), form(vm, shared)(1):
            pytest.fail("the block must not run")
        assert not any(obj.resv.locked for obj in (mine, *shared))

    @every_form
    def test_an_interrupted_wait_locks_nothing(self, form: Callable[[GpuVm, list[Bo]], Form]) -> None:
        interrupted = 0

        def scenario(run: Interleaving) -> Callable[[], None]:
            vm = space()
            one, two = external("one", "two")
            bind_all(vm, one, two)
            submitters: list[task.Task] = []

            def hold() -> None:
                with two.resv:
                    pause(3)
                    for submitter in submitters:
                        submitter.interrupt()
                    pause(3)

            def submit() -> bool:
                submitters.append(task.current())
                try:
                    with form(vm, [one, two])(1, flags=IGNORE | INTERRUPTIBLE) as exec:
                        assert exec.holds(two)
                except Interrupted:
                    return True
                return False

            run.spawn(hold)
            submitter = run.spawn(submit)

            def check() -> None:
                nonlocal interrupted
                interrupted += submitter.result
                assert not any(resv.locked for resv in (vm.resv, one.resv, two.resv))

            return check

        sample(scenario, range(scaled(40, 1000)))
        assert interrupted > 2
