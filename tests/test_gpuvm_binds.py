"""What GpuVm locks for a bind, next to what the bind then touches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest

from gpuvm import Exec, ExecFlags, Map, Merge, Plan, Remap, Unmap
from gpuvm.errors import (
    AlreadyLocked,
    InvalidArgument,
)
from protocol import (
    PAGE,
    SIZE,
    Userptr,
    bind_all,
    external,
    locked,
    private,
    space,
)
from suite import scaled


class TestLockingForBinds:
    """What ``sm_map_exec_lock`` and ``sm_unmap_exec_lock`` lock, next to what the plan then touches."""

    def touched(self, plan: Plan) -> Iterator[Any]:
        for op in plan:
            match op:
                case Map():
                    yield op.obj
                case Unmap():
                    yield op.va.obj
                case Remap():
                    yield op.unmap.va.obj

    def test_the_new_object_gets_slots_and_the_old_ones_are_locked(self) -> None:
        vm = space()
        a, b, c, new = external("a", "b", "c", "new")
        bind_all(vm, a, b, c)
        prepare: Callable[[Exec], None] = lambda exec: vm.sm_map_exec_lock(exec, 2, 4, PAGE, new)  # noqa: E731
        assert list(locked(prepare).items()) == [(new.resv, 2), (a.resv, 0), (b.resv, 0)]

    def test_mapping_over_itself(self) -> None:
        vm = space()
        (a,) = external("a")
        bind_all(vm, a)
        prepare: Callable[[Exec], None] = lambda exec: vm.sm_map_exec_lock(exec, 2, 4, PAGE, a, 4)  # noqa: E731
        assert locked(prepare) == {a.resv: 2}
        with pytest.raises(AlreadyLocked):
            locked(prepare, ExecFlags(0))

    def test_unmapping(self) -> None:
        vm = space()
        (mine,), (a, b) = private(vm, "mine"), external("a", "b")
        bind_all(vm, a, mine, Userptr(), None, b)
        assert locked(lambda exec: vm.sm_unmap_exec_lock(exec, 1, 4 * PAGE - 1)) == {a.resv: 0, vm.resv: 0}

    def test_what_sm_map_would_refuse_is_refused(self) -> None:
        vm = space(kernel_node=(0, PAGE))
        (a,) = external("a")
        for addr, range_ in ((0, PAGE), (PAGE, 0), (SIZE, PAGE), (SIZE - 1, 2)):
            calls: list[Callable[[Exec], None]] = [
                lambda exec: vm.sm_map_exec_lock(exec, 1, addr, range_, a),  # noqa: B023
                lambda exec: vm.sm_unmap_exec_lock(exec, addr, range_),  # noqa: B023
            ]
            for call in calls:
                with pytest.raises(InvalidArgument):
                    locked(call)
                assert not a.resv.locked

    @pytest.mark.parametrize("merge", [Merge.NEVER, Merge.ALWAYS])
    @pytest.mark.parametrize("seed", range(scaled(30, 1000)))
    def test_all_that_the_plan_touches_and_no_more(self, merge: Merge, seed: int) -> None:
        dice = Random(seed)
        vm = space(merge=merge)
        objects = [*external(*"abcd"), *private(vm, "mine"), Userptr(), None]
        for _ in range(20):
            addr, range_ = dice.randrange(200), dice.randrange(1, 40)
            obj, offset = dice.choice(objects), addr
            plan = vm.sm_map(addr, range_, obj, offset)
            got = locked(lambda exec: vm.sm_map_exec_lock(exec, 1, addr, range_, obj, offset))  # noqa: B023
            touched = {getattr(each, "resv", None) for each in [*self.touched(plan), obj]} - {None}
            assert set(got) == touched
            assert {resv for resv, number in got.items() if number} == {getattr(obj, "resv", None)} - {None}
            plan.apply()
            plan = vm.sm_unmap(addr + 1, range_)
            got = locked(lambda exec: vm.sm_unmap_exec_lock(exec, addr + 1, range_))  # noqa: B023
            assert set(got) == {getattr(each, "resv", None) for each in self.touched(plan)} - {None}
            if dice.random() < 0.5:
                plan.apply()
