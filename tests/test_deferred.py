"""Immediate mode: a `VmBo` that ends where nothing may be freed is a zombie until somebody cleans up."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import pytest

import gpuvm
from arrays import bind_array, map_row, unmap_row
from drivers import Driver
from gpuvm import Gpuva, GpuVm, GpuVmFlags, Merge, VmBo, _core
from scenes import OBJECTS, A, B, apply_map, mapped, plan_map, scene, va
from snapshot import snapshot
from suite import scaled

BO = OBJECTS[A]
HANDLES = OBJECTS.handles()
DEFERRING = GpuVmFlags.IMMEDIATE_MODE


def immediate(**options: Any) -> GpuVm:
    return scene(flags=DEFERRING, **options)


def one_mapping(vm: GpuVm, obj: object = BO) -> tuple[Gpuva, VmBo]:
    """A linked mapping at 0, which holds the only reference of its VmBo."""
    vm.sm_map(0, 8, obj).apply()
    (mapping,) = vm
    (vm_bo,) = vm.vm_bos()
    return mapping, vm_bo


@contextmanager
def no_allocation(vm: GpuVm) -> Iterator[None]:
    """Neither asked for nor taken."""
    held = vm.statistics().bytes
    _core.forbid_allocation(True)
    _core.fail_allocation(0)
    try:
        yield
    finally:
        _core.fail_allocation(None)
        _core.forbid_allocation(False)
    assert vm.statistics().bytes == held
    vm.check()


class TestPuttingDeferred:
    def test_the_last_reference_leaves_a_zombie(self) -> None:
        vm = immediate()
        vm_bo = vm.bo_obtain(BO)
        vm_bo.get()
        assert (vm_bo.put_deferred(), vm_bo.zombie, vm_bo.alive) == (False, False, True)
        assert (vm_bo.put_deferred(), vm_bo.zombie, vm_bo.alive) == (True, True, False)
        assert (vm_bo.vm, vm_bo.obj, vm_bo.refcount, len(vm_bo), list(vm_bo)) == (vm, BO, 0, 0, [])
        assert (vm.vm_bos(), vm.deferred) == ([], [vm_bo])
        assert "deferred" in repr(vm_bo)
        vm.check()

    def test_it_is_found_no_more_and_the_next_one_is_another(self) -> None:
        vm = immediate()
        zombie = vm.bo_obtain(BO)
        zombie.put_deferred()
        assert vm.bo_find(BO) is None
        fresh = vm.bo_obtain(BO)
        assert fresh is not zombie
        assert (fresh.refcount, fresh.alive, zombie.zombie) == (1, True, True)
        fresh.put_deferred()
        assert vm.deferred == [zombie, fresh]
        vm.check()

    def test_a_preallocated_one_takes_its_place(self) -> None:
        vm = immediate()
        vm.bo_obtain(BO).put_deferred()
        mine = vm.bo_create(BO)
        assert vm.bo_obtain_prealloc(mine) is mine
        assert len(vm.deferred) == 1

    def test_it_is_off_the_lists(self) -> None:
        vm = immediate()
        vm_bo = vm.bo_obtain(BO)
        vm_bo._extobj_add()
        vm_bo._set_evicted(True, listed=True)
        vm_bo.put_deferred()
        assert (vm_bo.on_extobjs, vm_bo.on_evicted, vm_bo.evicted) == (False, False, False)
        assert (vm.extobjs, vm.evicted) == ([], [])
        assert (vm._next_extobj(0), vm._next_evicted(0)) == (None, None)
        vm.check()

    def test_a_zombie_cannot_be_used(self) -> None:
        vm = immediate()
        mapping = Gpuva(0, 8, BO)
        vm.insert(mapping)
        zombie = vm.bo_obtain(BO)
        zombie.put_deferred()
        uses: list[Callable[[], object]] = [
            zombie.get,
            zombie.put,
            zombie.put_deferred,
            zombie._extobj_add,
            lambda: zombie._set_evicted(True, listed=True),
            lambda: mapping.link(zombie),
            lambda: vm.bo_unmap(zombie),
        ]
        for use in uses:
            with pytest.raises(gpuvm.InvalidArgument):
                use()
        assert vm.deferred == [zombie]
        vm.check()

    def test_references_of_linked_mappings_are_theirs(self) -> None:
        vm = immediate()
        _, vm_bo = one_mapping(vm)
        with pytest.raises(gpuvm.Busy, match="put_deferred"):
            vm_bo.put_deferred()
        assert (vm_bo.refcount, vm.deferred) == (1, [])

    def test_a_floating_one_has_nothing_to_defer(self) -> None:
        vm_bo = immediate().bo_create(BO)
        with pytest.raises(gpuvm.InvalidArgument, match="bo_create"):
            vm_bo.put_deferred()
        assert vm_bo.put() is True

    def test_put_frees_at_once(self) -> None:
        vm = immediate()
        vm_bo = vm.bo_obtain(BO)
        assert (vm_bo.put(), vm_bo.zombie, vm.deferred) == (True, False, [])


class TestUnlinking:
    def test_unlink_defer_leaves_a_zombie(self) -> None:
        vm = immediate()
        mapping, vm_bo = one_mapping(vm)
        mapping.unlink_defer()
        assert (mapping.vm, mapping.vm_bo, vm_bo.zombie) == (vm, None, True)
        mapping.unlink_defer()
        assert vm.deferred == [vm_bo]
        vm.check()

    def test_the_mapping_may_be_linked_anew(self) -> None:
        vm = immediate()
        mapping, zombie = one_mapping(vm)
        mapping.unlink_defer()
        fresh = vm.bo_obtain(BO)
        mapping.link(fresh)
        fresh.put()
        assert (mapping.vm_bo, zombie.zombie) == (fresh, True)
        vm.check()

    def test_out_of_the_tree(self) -> None:
        vm = immediate()
        mapping, vm_bo = one_mapping(vm)
        vm.remove(mapping)
        mapping.unlink_defer()
        assert (mapping.vm, vm.deferred) == (None, [vm_bo])
        vm.check()

    def test_unlink_frees_at_once(self) -> None:
        vm = immediate()
        mapping, vm_bo = one_mapping(vm)
        mapping.unlink()
        assert (vm_bo.alive, vm_bo.zombie, vm.deferred) == (False, False, [])

    def test_none_of_it_allocates(self) -> None:
        vm = immediate()
        held = [vm.bo_obtain(object()) for _ in range(300)]
        for index in range(300):
            vm.sm_map(8 * index, 8, object()).apply()
        mappings = list(vm)
        with no_allocation(vm):
            for vm_bo in held:
                vm_bo._extobj_add()
                vm_bo._set_evicted(True, listed=True)
            for vm_bo in held:
                vm_bo.put_deferred()
            for mapping in mappings:
                mapping.unlink_defer()
        assert len(vm.deferred) == 600


CHANGES: dict[str, Callable[[GpuVm], object]] = {
    "unmap": lambda vm: vm.sm_unmap(0, 8).apply(),
    "map over": lambda vm: apply_map(vm, va(0, 8, B)),
    "step": lambda vm: plan_map(vm, va(0, 8, B)).step(Driver(vm)),
    "bo_unmap": lambda vm: vm.bo_unmap(vm.vm_bos()[0]).apply(),
    "step of bo_unmap": lambda vm: vm.bo_unmap(vm.vm_bos()[0]).step(Driver(vm)),
    "bind": lambda vm: vm.bind(bind_array([unmap_row(0, 8)]), HANDLES),
    "bind in its place": lambda vm: vm.bind(bind_array([map_row(0, 8, B)]), HANDLES),
}


class TestChanges:
    """Whatever takes the last mapping away defers; what fails does not."""

    @pytest.mark.parametrize("merge", [Merge.NEVER, Merge.ALWAYS], ids=lambda merge: merge.name)
    @pytest.mark.parametrize("name", CHANGES)
    @pytest.mark.parametrize("known", [False, True], ids=["unknown", "known"])
    def test_it_defers(self, name: str, merge: Merge, known: bool) -> None:
        vm = immediate(merge=merge)
        vm.sm_map(0, 8, BO).apply()
        vm_bo = vm.vm_bos()[0] if known else None
        CHANGES[name](vm)
        assert [bo.obj for bo in vm.deferred] == [BO]
        assert vm_bo in (None, *vm.deferred)
        assert BO not in [bo.obj for bo in vm.vm_bos()]
        vm.check()
        assert (vm.bo_deferred_cleanup(), vm.deferred) == (1, [])
        vm.check()

    def test_many_at_once_keep_the_order_of_their_mappings(self) -> None:
        vm = immediate()
        for index in range(6):
            apply_map(vm, va(8 * index, 8 * index + 8, 6 - index))
        vm.sm_unmap(0, 48).apply()
        assert [OBJECTS.label(bo.obj) for bo in vm.deferred] == [6, 5, 4, 3, 2, 1]

    def test_what_is_mapped_anew_does_not_end(self) -> None:
        vm = immediate()
        _, vm_bo = one_mapping(vm)
        apply_map(vm, va(0, 8, A))
        apply_map(vm, va(2, 4, B))
        assert (vm.vm_bos()[0], vm.deferred) == (vm_bo, [])

    def test_a_held_one_does_not_end(self) -> None:
        vm = immediate()
        one_mapping(vm)
        vm_bo = vm.bo_obtain(BO)
        vm.sm_unmap(0, 8).apply()
        assert (vm_bo.refcount, vm.deferred) == (1, [])
        vm_bo.put_deferred()
        assert vm.deferred == [vm_bo]

    def test_ending_and_coming_back_in_one_array(self) -> None:
        vm = immediate()
        _, first = one_mapping(vm)
        rows = [unmap_row(0, 8), map_row(0, 8, A), unmap_row(0, 8), map_row(8, 8, A)]
        vm.bind(bind_array(rows), HANDLES)
        (fresh,) = vm.vm_bos()
        assert (first.zombie, fresh is first, fresh.refcount) == (True, False, 1)
        assert vm.deferred == [first], "nobody has seen the one that came and went"
        vm.check()

    def test_many_that_end_and_come_back(self) -> None:
        vm, objects = immediate(), {handle: object() for handle in range(1, 201)}
        vm.bind(bind_array([map_row(8 * handle, 8, handle) for handle in objects]), objects)
        vm.vm_bos()
        both = [
            row for handle in objects for row in (unmap_row(8 * handle, 8), map_row(8 * handle, 8, handle))
        ]
        vm.bind(bind_array(both), objects)
        vm.check()
        with no_allocation(vm):
            vm.sm_unmap(0, 8 * 300).apply()
        assert len(vm.deferred) == 400

    @pytest.mark.parametrize("merge", [Merge.NEVER, Merge.ALWAYS], ids=lambda merge: merge.name)
    def test_a_refused_array_leaves_none(self, merge: Merge) -> None:
        vm = immediate(merge=merge)
        one_mapping(vm)
        before = snapshot(vm)
        rows = bind_array([unmap_row(0, 8), map_row(16, 8, B), unmap_row(16, 8), unmap_row(0, 0)])
        with pytest.raises(gpuvm.InvalidArgument):
            vm.bind(rows, HANDLES)
        assert snapshot(vm) == before
        vm.check()

    def test_a_failed_step_leaves_none(self) -> None:
        class Failing(Driver):
            def sm_step_map(self, op: gpuvm.Map) -> None:
                super().sm_step_map(op)
                seen.append(weakref.ref(vm.vm_bos()[-1]))
                raise KeyError("planned")

        vm, seen = immediate(), list[weakref.ref[VmBo]]()
        one_mapping(vm)
        before = snapshot(vm)
        with pytest.raises(KeyError, match="planned"):
            plan_map(vm, va(0, 8, B)).step(Failing(vm))
        assert snapshot(vm) == before
        assert vm.deferred == []
        (new,) = (ref() for ref in seen)
        assert new is None or not (new.alive or new.zombie)
        vm.check()

    def test_no_unlinking_while_a_plan_is_stepped(self) -> None:
        class Putting(Driver):
            def sm_step_unmap(self, op: gpuvm.Unmap) -> None:
                with pytest.raises(gpuvm.Busy):
                    other.unlink_defer()
                vm_bo._set_evicted(True, listed=True)
                super().sm_step_unmap(op)

        vm = immediate()
        apply_map(vm, va(0, 8, A))
        apply_map(vm, va(8, 16, B))
        (_, other), vm_bo = vm, vm.bo_obtain(BO)
        vm.sm_unmap(0, 8).step(Putting(vm))
        assert (vm.evicted, vm.deferred) == ([vm_bo], [])


class TestWithoutTheMode:
    def test_deferring_is_refused(self) -> None:
        vm = scene()
        mapping, vm_bo = one_mapping(vm)
        vm_bo.get()
        before = snapshot(vm)
        for use in (vm_bo.put_deferred, mapping.unlink_defer):
            with pytest.raises(gpuvm.InvalidArgument, match="IMMEDIATE_MODE"):
                use()
        assert snapshot(vm) == before
        assert vm.bo_deferred_cleanup() == 0

    def test_the_last_unmap_frees_at_once(self) -> None:
        vm = scene()
        _, vm_bo = one_mapping(vm)
        vm.sm_unmap(0, 8).apply()
        assert (vm_bo.alive, vm_bo.zombie, vm.deferred) == (False, False, [])


class TestCleaningUp:
    def test_it_lets_go_of_object_and_space(self) -> None:
        class Buffer:
            pass

        vm, buffer = immediate(), Buffer()
        watch = weakref.ref(buffer)
        one_mapping(vm, buffer)
        del buffer
        assert vm.refcount == 3
        vm.sm_unmap(0, 8).apply()
        gc.collect()
        assert (watch() is None, vm.refcount) == (False, 2)
        assert vm.bo_deferred_cleanup() == 1
        gc.collect()
        assert (watch(), vm.refcount) == (None, 1)

    def test_a_zombie_that_somebody_keeps_is_dead_after_it(self) -> None:
        vm = immediate()
        vm_bo = vm.bo_obtain(BO)
        vm_bo.put_deferred()
        assert vm.bo_deferred_cleanup() == 1
        assert (vm_bo.zombie, vm_bo.alive, vm_bo.obj) == (False, False, BO)
        assert "destroyed" in repr(vm_bo)
        assert vm.bo_deferred_cleanup() == 0

    def test_the_space_does_not_close_before(self) -> None:
        vm = immediate()
        vm.bo_obtain(BO).put_deferred()
        with pytest.raises(gpuvm.Busy, match=r"bo1.*deferred.*bo_deferred_cleanup") as caught:
            vm.put()
        assert caught.value.value == 1
        vm.bo_deferred_cleanup()
        assert vm.put() is True

    def test_not_where_nothing_may_be_freed(self) -> None:
        vm = immediate()
        vm.bo_obtain(BO).put_deferred()
        _core.forbid_allocation(True)
        try:
            with pytest.raises(gpuvm.errors.LockdepError, match="bo_deferred_cleanup"):
                vm.bo_deferred_cleanup()
        finally:
            _core.forbid_allocation(False)
        assert len(vm.deferred) == 1

    def test_an_object_that_looks_at_the_space_when_it_ends(self) -> None:
        class Last:
            def __del__(self) -> None:
                vm.check()
                seen.append((len(vm.deferred), vm.bo_obtain(BO).put_deferred()))

        vm, seen = immediate(), list[tuple[int, bool]]()
        for _ in range(3):
            vm.bo_obtain(Last()).put_deferred()
        assert vm.bo_deferred_cleanup() == 3
        assert seen == [(0, True), (1, True), (2, True)]
        assert vm.bo_deferred_cleanup() == 3

    def test_a_forgotten_space_goes_with_its_zombies(self) -> None:
        class Buffer:
            pass

        vm, buffer = immediate(), Buffer()
        watch = weakref.ref(buffer)
        vm.bo_obtain(buffer).put_deferred()
        assert len(vm.deferred) == 1
        del vm, buffer
        gc.collect()
        assert watch() is None

    def test_statistics_count_them(self) -> None:
        vm = immediate()
        kept = vm.bo_obtain(OBJECTS[B])
        kept._extobj_add()
        kept._set_evicted(True, listed=True)
        vm.bo_obtain(BO).put_deferred()
        numbers = vm.statistics()
        assert (numbers.vm_bos, numbers.extobjs, numbers.evicted, numbers.deferred) == (1, 1, 1, 1)


class Model:
    """Objects by number, as plain lists: who holds references, what is linked, which lists they are on."""

    def __init__(self) -> None:
        self.held: dict[int, int] = {}
        self.cells: dict[int, tuple[int, bool]] = {}
        """What is mapped in a cell, and whether it is linked."""
        self.extobjs: list[int] = []
        self.evicted: list[int] = []
        self.flagged: set[int] = set()
        self.deferred: list[int] = []

    def references(self, bo: int) -> int:
        return self.held.get(bo, 0) + sum(cell == (bo, True) for cell in self.cells.values())

    def live(self) -> list[int]:
        return [bo for bo in range(1, len(OBJECTS) + 1) if self.references(bo)]

    def end(self, bo: int, deferred: bool) -> None:
        """After a reference went."""
        if bo and not self.references(bo):
            self.extobjs = [other for other in self.extobjs if other != bo]
            self.evicted = [other for other in self.evicted if other != bo]
            self.flagged.discard(bo)
            if deferred:
                self.deferred.append(bo)

    def put(self, bo: int, deferred: bool) -> None:
        self.held[bo] -= 1
        self.end(bo, deferred)

    def unlink(self, cell: int, deferred: bool) -> None:
        bo, linked = self.cells[cell]
        self.cells[cell] = (bo, False)
        if linked:
            self.end(bo, deferred)

    def change(self, cell: int, bo: int) -> None:
        """Map or unmap one cell; the new mapping is linked before the old one goes."""
        old, linked = self.cells.pop(cell, (0, False))
        if bo:
            self.cells[cell] = (bo, True)
        if linked:
            self.end(old, deferred=True)

    def evict(self, bo: int, evicted: bool, listed: bool) -> None:
        self.flagged = self.flagged | {bo} if evicted else self.flagged - {bo}
        if listed:
            self.list_evicted(bo) if evicted else self.unlist_evicted(bo)

    def list_evicted(self, bo: int) -> None:
        if bo in self.flagged and bo not in self.evicted:
            self.evicted.append(bo)

    def unlist_evicted(self, bo: int) -> None:
        self.evicted = [other for other in self.evicted if other != bo]


CELLS = 10


class Player:
    """Random calls, made of the space and of the model."""

    def __init__(self, seed: int) -> None:
        self.random, self.vm, self.model = Random(seed), immediate(), Model()
        self.external: set[int] = set(range(1, len(OBJECTS) + 1))

    def vm_bo(self, bo: int) -> VmBo:
        return next(vm_bo for vm_bo in self.vm.vm_bos() if vm_bo.obj is OBJECTS[bo])

    def play(self) -> str:
        random, model = self.random, self.model
        bo, cell = random.randint(1, len(OBJECTS)), random.randrange(CELLS)
        live, mapped_cell = bo in model.live(), cell in model.cells
        calls: list[Callable[[int, int], None]] = [self.obtain, self.map, self.map, self.unmap, self.fail]
        if live:
            calls += [self.evict, self.list_evicted, self.unlist_evicted, self.add_external]
        if model.held.get(bo):
            calls += [self.put, self.put, self.put]
        if mapped_cell:
            calls += [self.unlink, self.unlink] if model.cells[cell][1] else [self.link]
        if random.random() < 0.1:
            calls = [self.clean_up]
        call = random.choice(calls)
        call(bo, cell)
        return f"{call.__name__}({bo}, {cell})"

    def obtain(self, bo: int, _: int) -> None:
        self.vm.bo_obtain(OBJECTS[bo])
        self.model.held[bo] = self.model.held.get(bo, 0) + 1

    def put(self, bo: int, _: int) -> None:
        deferred, vm_bo = self.random.random() < 0.7, self.vm_bo(bo)
        last = vm_bo.put_deferred() if deferred else vm_bo.put()
        self.model.put(bo, deferred)
        assert last == (bo not in self.model.live())
        assert vm_bo.zombie == (last and deferred)

    def map(self, bo: int, cell: int) -> None:
        style = self.random.randrange(3)
        if style == 0:
            self.vm.sm_map(8 * cell, 8, OBJECTS[bo]).apply()
        elif style == 1:
            self.vm.sm_map(8 * cell, 8, OBJECTS[bo]).step(Driver(self.vm))
        else:
            self.vm.bind(bind_array([map_row(8 * cell, 8, bo)]), HANDLES)
        self.model.change(cell, bo)

    def unmap(self, _: int, cell: int) -> None:
        self.vm.sm_unmap(8 * cell, 8).apply()
        self.model.change(cell, 0)

    def fail(self, bo: int, cell: int) -> None:
        class Failing(Driver):
            def sm_step_map(self, op: gpuvm.Map) -> None:
                super().sm_step_map(op)
                raise KeyError("planned")

        with pytest.raises(KeyError, match="planned"):
            self.vm.sm_map(8 * cell, 8, OBJECTS[bo]).step(Failing(self.vm))

    def link(self, _: int, cell: int) -> None:
        bo, _ = self.model.cells[cell]
        mapping, vm_bo = self.vm.find(8 * cell, 8), self.vm.bo_obtain(OBJECTS[bo])
        assert mapping is not None
        mapping.link(vm_bo)
        vm_bo.put()
        self.model.cells[cell] = (bo, True)

    def unlink(self, _: int, cell: int) -> None:
        deferred, mapping = self.random.random() < 0.7, self.vm.find(8 * cell, 8)
        assert mapping is not None
        if deferred:
            mapping.unlink_defer()
        else:
            mapping.unlink()
        self.model.unlink(cell, deferred)

    def evict(self, bo: int, _: int) -> None:
        evicted, listed = self.random.random() < 0.5, self.random.random() < 0.5
        self.vm_bo(bo)._set_evicted(evicted, listed)
        self.model.evict(bo, evicted, listed)

    def list_evicted(self, bo: int, _: int) -> None:
        self.vm_bo(bo)._list_evicted()
        self.model.list_evicted(bo)

    def unlist_evicted(self, bo: int, _: int) -> None:
        self.vm_bo(bo)._unlist_evicted()
        self.model.unlist_evicted(bo)

    def add_external(self, bo: int, _: int) -> None:
        self.vm_bo(bo)._extobj_add()
        if bo not in self.model.extobjs:
            self.model.extobjs.append(bo)

    def clean_up(self, *_: int) -> None:
        assert self.vm.bo_deferred_cleanup() == len(self.model.deferred)
        self.model.deferred.clear()

    def compare(self) -> None:
        vm, model = self.vm, self.model
        assert vm._check() is None
        assert {OBJECTS.label(bo.obj): bo.refcount for bo in vm.vm_bos()} == {
            bo: model.references(bo) for bo in model.live()
        }
        assert {OBJECTS.label(bo.obj) for bo in vm.vm_bos() if bo.evicted} == model.flagged
        for objects, want in (
            (vm.extobjs, model.extobjs),
            (vm.evicted, model.evicted),
            (vm.deferred, model.deferred),
        ):
            assert [OBJECTS.label(bo.obj) for bo in objects] == want
        assert {bo for bo in vm.vm_bos() if bo.on_extobjs} == set(vm.extobjs)
        assert {bo for bo in vm.vm_bos() if bo.on_evicted} == set(vm.evicted)
        assert vm.refcount == 1 + len(vm) + len(vm.vm_bos()) + len(vm.deferred)
        assert len(mapped(vm)) == len(model.cells)


@pytest.mark.parametrize("seed", range(scaled(12, 400)))
def test_any_order_of_calls(seed: int) -> None:
    player = Player(seed)
    history = []
    for _ in range(150):
        history.append(player.play())
        try:
            player.compare()
        except AssertionError:
            print(f"seed {seed}:", *history[-12:], sep="\n  ")
            raise
