"""Plans: immutable, applied once and whole, refused when the space has changed since."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence

import pytest

import gpuvm
from drivers import Driver, DriverVa
from gpuvm import Gpuva, GpuVm, Map, Prefetch, Remap, Unmap
from scenes import OBJECTS, A, B, apply_map, mapped, new, ops_of, plan_map, remap, scene, unmap, va


def test_asking_changes_nothing() -> None:
    vm = scene(va(0, 8, A))
    generation = vm.generation
    for plan in (plan_map(vm, va(2, 4, B)), vm.sm_unmap(2, 2), vm.prefetch(2, 2), vm.madvise(2, 2)):
        assert not plan.applied
        assert not plan.stale
    assert mapped(vm) == [va(0, 8, A)]
    assert vm.generation == generation


def test_a_plan_is_a_sequence() -> None:
    plan = plan_map(scene(va(0, 8, A)), va(2, 4, B))
    assert isinstance(plan, Sequence)
    assert len(plan) == 2
    assert [plan[0], plan[-1]] == list(plan)
    assert plan[0] in plan
    with pytest.raises(IndexError):
        plan[2]


def test_ops_match_by_position_and_by_name() -> None:
    vm = scene(va(0, 8, A))
    (old,) = vm
    first, last = plan_map(vm, va(2, 4, B, 7, flags=4))
    match first:
        case Remap(Map(0, 2, prev_obj, 0), Map(addr=4, end=8, offset=4) as behind, Unmap(removed, False)):
            assert prev_obj is behind.obj is OBJECTS[A]
            assert removed is old
        case _:
            pytest.fail(f"{first}")
    match last:
        case Map(2, 2, obj, 7, flags=4):
            assert obj is OBJECTS[B]
        case _:
            pytest.fail(f"{last}")
    assert [op.kind for op in (first, last, *vm.prefetch(0, 1), *vm.sm_unmap(0, 8))] == [
        "remap",
        "map",
        "prefetch",
        "unmap",
    ]
    for op in (*vm.prefetch(0, 1), *vm.sm_unmap(0, 8)):
        assert isinstance(op, Prefetch | Unmap)
        assert op.va is old


def test_ops_compare_by_value() -> None:
    vm = scene(va(0, 8, A), va(8, 12, A))
    requests = [va(2, 4, B), va(2, 4, B, 1), va(2, 4, A), va(2, 5, B), va(1, 4, B), va(2, 4, B, flags=4)]
    for one, twin in zip(plan_map(vm, requests[0]), plan_map(vm, requests[0]), strict=True):
        assert one == twin
        assert one is not twin
        assert hash(one) == hash(twin)
    assert all(plan_map(vm, requests[0])[1] != plan_map(vm, other)[1] for other in requests[1:])
    remaps = [vm.sm_unmap(addr, size)[0] for addr, size in ((2, 2), (2, 3), (1, 3), (8, 1))]
    assert all(remaps[0] != other for other in remaps[1:])
    assert plan_map(vm, va(0, 8, A))[0] != vm.sm_unmap(0, 8)[0], "one keeps, the other does not"
    assert vm.prefetch(0, 1)[0] == vm.prefetch(1, 2)[0] != vm.prefetch(8, 1)[0]
    assert vm.prefetch(0, 1)[0] != vm.sm_unmap(0, 8)[0]


@pytest.mark.parametrize("name", ["addr", "range", "obj", "offset", "flags", "unheard_of"])
def test_ops_cannot_be_changed(name: str) -> None:
    (op,) = plan_map(scene(), va(0, 8, A))
    with pytest.raises(AttributeError):
        setattr(op, name, 1)


def test_a_plan_cannot_be_changed() -> None:
    plan = plan_map(scene(), va(0, 8, A))
    with pytest.raises((TypeError, AttributeError)):
        plan[0] = None  # type: ignore[index]
    with pytest.raises(AttributeError):
        plan.applied = True  # type: ignore[misc]


def test_ops_still_tell_the_story_afterwards() -> None:
    vm = scene(va(0, 8, A))
    plan = plan_map(vm, va(2, 4, B))
    before = ops_of(plan)
    plan.apply()
    assert ops_of(plan) == before == [remap(va(0, 8, A), va(0, 2, A), va(4, 8, A, 4)), new(va(2, 4, B))]


def test_a_removed_mapping_is_out_of_the_space() -> None:
    vm = scene(va(0, 8, A))
    (old,) = vm
    vm.sm_unmap(0, 8).apply()
    assert (old.vm, old.addr, old.range, old.obj) == (None, 0, 8, OBJECTS[A])


def test_a_plan_is_applied_once() -> None:
    plan = plan_map(scene(), va(0, 8, A))
    plan.apply()
    assert plan.applied
    with pytest.raises(gpuvm.StalePlan) as caught:
        plan.apply()
    assert caught.value.errno == errno.ESTALE
    with pytest.raises(gpuvm.StalePlan):
        plan.step(Driver(plan.vm))


CHANGES: dict[str, Callable[[GpuVm], None]] = {
    "map": lambda vm: apply_map(vm, va(50, 60, B)),
    "unmap": lambda vm: vm.sm_unmap(0, 8).apply(),
    "insert": lambda vm: vm.insert(Gpuva(50, 10)),
    "remove": lambda vm: vm.remove(next(iter(vm))),
    "remove and insert again": lambda vm: _again(vm),
}


def _again(vm: GpuVm) -> None:
    (only,) = vm
    vm.remove(only)
    vm.insert(only)


@pytest.mark.parametrize("change", CHANGES)
def test_a_stale_plan_is_refused(change: str) -> None:
    vm = scene(va(0, 8, A))
    plans = [plan_map(vm, va(2, 4, B)), vm.sm_unmap(2, 2)]
    CHANGES[change](vm)
    after = mapped(vm)
    for plan in plans:
        assert plan.stale
        with pytest.raises(gpuvm.StalePlan):
            plan.apply()
        with pytest.raises(gpuvm.StalePlan):
            plan.step(Driver(vm))
        assert not plan.applied
    assert mapped(vm) == after
    vm.check()


def test_looking_does_not_make_a_plan_stale() -> None:
    vm = scene(va(0, 8, A))
    plan = plan_map(vm, va(2, 4, B))
    vm.find(0, 8)
    vm.find_gap(4)
    list(vm)
    vm.check()
    vm.statistics()
    vm.sm_unmap(0, 4)
    assert not plan.stale
    plan.apply()


def test_an_empty_plan_can_be_applied() -> None:
    vm = scene()
    plan = vm.sm_unmap(0, 8)
    assert list(plan) == []
    plan.apply()
    assert plan.applied


def test_the_driver_sees_the_ops_in_order_and_its_own_mappings_go_in() -> None:
    vm = scene(va(0, 4, A), va(4, 6, A, 9), va(6, 12, A, 6))
    plan, driver = plan_map(vm, va(2, 8, B)), Driver(vm)
    plan.step(driver)
    assert driver.seen == list(plan)
    assert [op.kind for op in driver.seen] == ["remap", "unmap", "remap", "map"]
    assert list(vm) == sorted(driver.used, key=lambda mapping: mapping.addr)
    assert mapped(vm) == [va(0, 2, A), va(2, 8, B), va(8, 12, A, 8)]
    assert plan.applied


def test_ops_are_carried_out_only_inside_their_own_step() -> None:
    vm = scene(va(0, 8, A), va(8, 12, A))
    cut, gone, made = plan_map(vm, va(4, 12, B))
    assert isinstance(cut, Remap)
    assert isinstance(gone, Unmap)
    assert isinstance(made, Map)
    attempts: list[Callable[[], None]] = [
        lambda: vm.remap(cut, DriverVa(), None),
        lambda: vm.unmap(gone),
        lambda: vm.map(made, DriverVa()),
    ]
    for attempt in attempts:
        with pytest.raises(gpuvm.GpuvmError):
            attempt()
    assert mapped(vm) == [va(0, 8, A), va(8, 12, A)]


class Forgetful(Driver):
    """Does not carry out its map steps."""

    def sm_step_map(self, op: Map) -> None:
        self.seen.append(op)


class Repeating(Driver):
    """Carries out an unmap twice."""

    def sm_step_unmap(self, op: Unmap) -> None:
        super().sm_step_unmap(op)
        self.vm.unmap(op)


class Mixing(Driver):
    """Gives a piece that the op has not, or none where it has one."""

    def sm_step_remap(self, op: Remap) -> None:
        self.vm.remap(op, self.take() if op.prev is None else None, None if op.next else self.take())


class Reusing(Driver):
    """Hands in a mapping that is in a tree already."""

    def sm_step_map(self, op: Map) -> None:
        self.vm.map(op, next(iter(self.vm)))


class Meddling(Driver):
    """Changes the space behind the plan's back."""

    def sm_step_map(self, op: Map) -> None:
        super().sm_step_map(op)
        self.vm.insert(Gpuva(100, 4))


@pytest.mark.parametrize("driver", [Forgetful, Repeating, Mixing, Reusing])
def test_a_driver_that_breaks_the_contract_is_rolled_back(driver: type[Driver]) -> None:
    vm = scene(va(0, 4, A), va(4, 6, A), va(6, 12, A, 6))
    before, same = list(vm), mapped(vm)
    plan = plan_map(vm, va(2, 8, B))
    with pytest.raises(gpuvm.GpuvmError):
        plan.step(driver(vm))
    assert mapped(vm) == same
    assert list(vm) == before
    assert not plan.applied
    vm.check()


def test_a_driver_that_meddles_leaves_a_consistent_space() -> None:
    vm = scene(va(0, 4, A))
    plan = plan_map(vm, va(2, 8, B))
    try:
        plan.step(Meddling(vm))
    except gpuvm.GpuvmError:
        assert mapped(vm) == [va(0, 4, A)]
    else:
        assert mapped(vm) == [va(0, 2, A), va(2, 8, B), va(100, 104)]
    vm.check()


def test_objects_without_the_three_steps_are_no_driver() -> None:
    vm = scene()
    with pytest.raises(gpuvm.InvalidArgument, match="sm_step_map"):
        plan_map(vm, va(0, 8, A)).step(object())
    assert mapped(vm) == []


def test_a_plan_keeps_its_space_alive() -> None:
    plan = plan_map(scene(), va(0, 8, A))
    plan.apply()
    assert mapped(plan.vm) == [va(0, 8, A)]


def test_unmap_of_a_range_emits_in_order() -> None:
    vm = scene(va(0, 4, A), va(4, 6, A), va(6, 12, A, 6))
    assert ops_of(vm.sm_unmap(2, 6)) == [
        remap(va(0, 4, A), va(0, 2, A)),
        unmap(va(4, 6, A)),
        remap(va(6, 12, A, 6), None, va(8, 12, A, 8)),
    ]
