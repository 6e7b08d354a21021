"""`VmBo`: one for each object of a space, counted as the kernel counts, with its mappings in link order."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from random import Random

import pytest

import gpuvm
from gpuvm import Gpuva, GpuVm, VmBo
from scenes import OBJECTS, A, B, apply_map, mapped, ops_of, scene, unmap, va
from suite import scaled

BO = OBJECTS[A]


def linked(vm: GpuVm, addr: int, obj: object = BO) -> tuple[Gpuva, VmBo]:
    """A mapping in the tree, linked, whose link holds the only reference to the vm_bo."""
    mine = Gpuva(addr, 8, obj, addr)
    vm.insert(mine)
    vm_bo = vm.bo_obtain(obj)
    mine.link(vm_bo)
    vm_bo.put()
    return mine, vm_bo


class TestFindingAndMaking:
    def test_create_is_floating(self) -> None:
        vm = scene()
        vm_bo = vm.bo_create(BO)
        assert (vm_bo.vm, vm_bo.obj, vm_bo.refcount, vm_bo.alive, vm_bo.evicted) == (vm, BO, 1, True, False)
        assert (len(vm_bo), list(vm_bo)) == (0, [])
        assert vm_bo, "a vm_bo without mappings is not nothing"
        assert vm.vm_bos() == []
        assert vm.bo_find(BO) is None
        assert vm_bo.put() is True

    def test_obtain_makes_one_and_then_finds_it(self) -> None:
        vm = scene()
        first = vm.bo_obtain(BO)
        assert vm.vm_bos() == [first]
        assert vm.bo_obtain(BO) is first
        assert vm.bo_find(BO) is first
        assert first.refcount == 3
        assert [first.put(), first.put(), first.put()] == [False, False, True]
        assert vm.vm_bos() == []
        assert vm.bo_find(BO) is None

    def test_one_for_each_pair(self) -> None:
        vm, other = scene(), scene()
        pairs = [vm.bo_obtain(BO), vm.bo_obtain(OBJECTS[B]), other.bo_obtain(BO)]
        assert len({id(vm_bo) for vm_bo in pairs}) == 3
        assert vm.vm_bos() == pairs[:2]
        assert other.vm_bos() == pairs[2:]

    def test_prealloc_becomes_the_one(self) -> None:
        vm = scene()
        mine = vm.bo_create(BO)
        assert vm.bo_obtain_prealloc(mine) is mine
        assert mine.refcount == 1
        assert vm.vm_bos() == [mine]

    def test_prealloc_gives_way_to_its_twin(self) -> None:
        vm = scene()
        twin, mine = vm.bo_obtain(BO), vm.bo_create(BO)
        assert vm.bo_obtain_prealloc(mine) is twin
        assert twin.refcount == 2
        assert (mine.alive, mine.refcount) == (False, 0)
        assert vm.vm_bos() == [twin]

    def test_prealloc_of_another_space_is_refused(self) -> None:
        mine = scene().bo_create(BO)
        with pytest.raises(gpuvm.InvalidArgument):
            scene().bo_obtain_prealloc(mine)
        assert mine.refcount == 1

    def test_no_object_no_vm_bo(self) -> None:
        vm = scene()
        for make in (vm.bo_create, vm.bo_obtain):
            with pytest.raises(gpuvm.InvalidArgument):
                make(None)


class TestLinks:
    def test_a_link_takes_a_reference(self) -> None:
        vm = scene()
        mine = Gpuva(0, 8, BO)
        vm.insert(mine)
        vm_bo = vm.bo_obtain(BO)
        mine.link(vm_bo)
        assert (vm_bo.refcount, len(vm_bo), list(vm_bo)) == (2, 1, [mine])
        assert mine.vm_bo is vm_bo
        mine.unlink()
        assert (vm_bo.refcount, list(vm_bo), vm_bo.alive) == (1, [], True)
        vm.check()

    def test_an_unlinked_mapping_has_no_vm_bo(self) -> None:
        vm = scene()
        mine, _ = linked(vm, 0)
        mine.unlink()
        assert mine.vm_bo is None

    def test_the_last_unlink_destroys_it(self) -> None:
        vm = scene()
        mine, vm_bo = linked(vm, 0)
        assert (vm_bo.refcount, vm_bo.alive) == (1, True)
        mine.unlink()
        assert (vm_bo.refcount, vm_bo.alive) == (0, False)
        assert vm.vm_bos() == []
        assert mine.vm is vm
        vm.check()

    def test_a_dead_one_is_replaced_by_a_new_one(self) -> None:
        vm = scene()
        mine, dead = linked(vm, 0)
        mine.unlink()
        fresh = vm.bo_obtain(BO)
        assert fresh is not dead
        assert (dead.alive, fresh.alive) == (False, True)
        for use in (
            dead.get,
            dead.put,
            dead._extobj_add,
            lambda: dead._set_evicted(True, True),
            lambda: mine.link(dead),
        ):
            with pytest.raises(gpuvm.GpuvmError):
                use()
        assert (fresh.refcount, dead.refcount, len(dead)) == (1, 0, 0)
        mine.link(fresh)
        vm.check()

    def test_mappings_are_listed_in_link_order(self) -> None:
        vm = scene()
        mappings = [linked(vm, addr)[0] for addr in (24, 0, 16, 8)]
        (vm_bo,) = vm.vm_bos()
        assert list(vm_bo) == mappings
        mappings[1].unlink()
        assert list(vm_bo) == [mappings[0], *mappings[2:]]
        mappings[1].link(vm_bo)
        assert list(vm_bo) == [mappings[0], *mappings[2:], mappings[1]]
        assert vm_bo.refcount == 4

    def test_unlinking_while_walking(self) -> None:
        vm = scene()
        mappings = [linked(vm, 8 * index)[0] for index in range(50)]
        (vm_bo,) = vm.vm_bos()
        seen = []
        for mapping in vm_bo:
            seen.append(mapping)
            mapping.unlink()
        assert seen == mappings
        assert not vm_bo.alive

    def test_a_mapping_is_linked_once(self) -> None:
        vm = scene()
        mine, vm_bo = linked(vm, 0)
        with pytest.raises(gpuvm.GpuvmError):
            mine.link(vm_bo)
        assert (vm_bo.refcount, len(vm_bo)) == (1, 1)

    def test_objects_must_match(self) -> None:
        vm = scene()
        mine = Gpuva(0, 8, BO)
        vm.insert(mine)
        with pytest.raises(gpuvm.InvalidArgument):
            mine.link(vm.bo_obtain(OBJECTS[B]))
        with pytest.raises(gpuvm.InvalidArgument):
            mine.link(scene().bo_obtain(BO))
        assert mine.vm_bo is None

    def test_without_object_linking_does_nothing(self) -> None:
        vm = scene(va(0, 8))
        (mine,) = vm
        mine.link(vm.bo_obtain(BO))
        assert mine.vm_bo is None
        mine.unlink()

    def test_unlink_of_an_unlinked_one_does_nothing(self) -> None:
        vm = scene(va(0, 8, A))
        (mine,) = vm
        mine.unlink()
        assert mine.vm_bo is None


class TestPlans:
    def test_applying_links(self) -> None:
        vm = scene()
        apply_map(vm, va(0, 8, A))
        (mine,) = vm
        (vm_bo,) = vm.vm_bos()
        assert (mine.vm_bo, vm_bo.refcount, list(vm_bo)) == (vm_bo, 1, [mine])

    def test_the_pieces_of_a_remap_stay_linked(self) -> None:
        vm = scene()
        apply_map(vm, va(0, 8, A))
        (vm_bo,) = vm.vm_bos()
        apply_map(vm, va(2, 4, B))
        prev, middle, behind = vm
        assert list(vm_bo) == [prev, behind]
        assert vm_bo.refcount == 2
        assert middle.vm_bo is vm.vm_bos()[1]
        vm.check()

    def test_the_vm_bo_survives_being_mapped_anew(self) -> None:
        vm = scene()
        apply_map(vm, va(0, 8, A))
        (before,) = vm.vm_bos()
        apply_map(vm, va(0, 8, A))
        assert vm.vm_bos() == [before]
        assert (before.alive, before.refcount) == (True, 1)

    def test_the_last_unmap_destroys_it(self) -> None:
        vm = scene()
        apply_map(vm, va(0, 8, A))
        apply_map(vm, va(16, 24, A))
        (vm_bo,) = vm.vm_bos()
        vm.sm_unmap(0, 20).apply()
        assert vm_bo.refcount == 1
        vm.sm_unmap(0, 100).apply()
        assert not vm_bo.alive
        assert vm.vm_bos() == []

    def test_bo_unmap_names_each_mapping_of_this_space(self) -> None:
        vm, other = scene(), scene()
        for space in (vm, other):
            apply_map(space, va(16, 24, A))
            apply_map(space, va(8, 16, B))
            apply_map(space, va(0, 8, A, 4))
        vm_bo = vm.bo_obtain(BO)
        plan = vm.bo_unmap(vm_bo)
        assert ops_of(plan) == [unmap(va(16, 24, A)), unmap(va(0, 8, A, 4))]
        plan.apply()
        assert mapped(vm) == [va(8, 16, B)]
        assert len(other) == 3
        assert (vm_bo.refcount, len(vm_bo)) == (1, 0)
        assert ops_of(vm.bo_unmap(vm_bo)) == []

    def test_bo_unmap_of_another_space_is_refused(self) -> None:
        vm_bo = scene().bo_obtain(BO)
        with pytest.raises(gpuvm.InvalidArgument):
            scene().bo_unmap(vm_bo)


class TestLists:
    def test_external_objects_are_listed_once_in_order(self) -> None:
        vm = scene()
        one, two = vm.bo_obtain(BO), vm.bo_obtain(OBJECTS[B])
        for vm_bo in (two, one, two):
            vm_bo._extobj_add()
        assert vm.extobjs == [two, one]
        two.put()
        assert vm.extobjs == [one]

    def test_evicted_ones_are_listed_until_they_are_back(self) -> None:
        vm = scene()
        one, two = vm.bo_obtain(BO), vm.bo_obtain(OBJECTS[B])
        for vm_bo in (one, two, one):
            vm_bo._set_evicted(True, True)
            assert vm_bo.evicted
        assert vm.evicted == [one, two]
        one._set_evicted(False, True)
        assert not one.evicted
        assert vm.evicted == [two]
        one._set_evicted(False, True)
        two.put()
        assert vm.evicted == []

    def test_a_flag_alone_leaves_the_list_as_it_is(self) -> None:
        vm = scene()
        vm_bo = vm.bo_obtain(BO)
        vm_bo._list_evicted()
        assert (vm_bo.evicted, vm_bo.on_evicted) == (False, False), "only evicted ones are listed"
        vm_bo._set_evicted(True, listed=False)
        assert (vm_bo.evicted, vm_bo.on_evicted) == (True, False)
        vm_bo._list_evicted()
        vm_bo._list_evicted()
        assert (vm_bo.on_evicted, vm.evicted) == (True, [vm_bo])
        vm_bo._set_evicted(False, listed=False)
        assert (vm_bo.evicted, vm_bo.on_evicted) == (False, True)
        vm_bo._unlist_evicted()
        vm_bo._unlist_evicted()
        assert (vm_bo.on_evicted, vm.evicted) == (False, [])

    def test_a_vm_bo_that_no_list_knows_is_on_none(self) -> None:
        vm = scene()
        floating = vm.bo_create(BO)
        assert (floating.evicted, floating.on_evicted, floating.on_extobjs) == (False, False, False)
        for use in (floating._extobj_add, floating._list_evicted, floating._unlist_evicted):
            with pytest.raises(gpuvm.InvalidArgument, match="bo_create"):
                use()

    def test_the_lists_are_copies(self) -> None:
        vm = scene()
        vm_bo = vm.bo_obtain(BO)
        vm_bo._set_evicted(True, True)
        vm.evicted.clear()
        vm.vm_bos().clear()
        assert (vm.evicted, vm.vm_bos()) == ([vm_bo], [vm_bo])

    def test_a_reference_taken_keeps_it_listed_after_the_last_unmap(self) -> None:
        vm = scene()
        apply_map(vm, va(0, 8, A))
        vm_bo = vm.bo_obtain(BO)
        vm_bo._extobj_add()
        vm.sm_unmap(0, 8).apply()
        assert vm.extobjs == [vm_bo]
        assert vm_bo.put() is True
        assert vm.extobjs == []


def walk(following: Callable[[int], tuple[int, VmBo] | None]) -> Iterator[VmBo]:
    """A list, one by one, as it is when the next one is asked for."""
    place = 0
    while (found := following(place)) is not None:
        assert found[0] > place
        place, vm_bo = found
        yield vm_bo


class TestWalks:
    def test_in_the_order_of_listing(self) -> None:
        vm = scene()
        for obj in (OBJECTS[B], BO):
            vm.bo_obtain(obj)._extobj_add()
        assert list(walk(vm._next_extobj)) == vm.extobjs
        assert list(walk(vm._next_evicted)) == []

    def test_what_goes_is_not_met_and_what_comes_is(self) -> None:
        vm = scene()
        vm_bos = [vm.bo_obtain(obj) for obj in range(6)]
        for vm_bo in vm_bos[:5]:
            vm_bo._set_evicted(True, listed=True)
        met = []
        for vm_bo in walk(vm._next_evicted):
            met.append(vm_bos.index(vm_bo))
            if vm_bo is vm_bos[1]:
                vm_bos[0]._unlist_evicted()
                vm_bo._unlist_evicted()
                vm_bos[2].put()
                vm_bos[5]._set_evicted(True, listed=True)
        assert met == [0, 1, 3, 4, 5]

    def test_one_that_goes_and_comes_back_is_met_again(self) -> None:
        vm = scene()
        one, two = vm.bo_obtain(BO), vm.bo_obtain(OBJECTS[B])
        for vm_bo in (one, two):
            vm_bo._set_evicted(True, listed=True)
        met = []
        for vm_bo in walk(vm._next_evicted):
            met.append(vm_bo)
            if len(met) == 1:
                one._unlist_evicted()
                one._list_evicted()
        assert met == [one, two, one]

    def test_a_list_of_any_length_walked_by_many(self) -> None:
        """Against a dict of places, which only ever grow."""
        random, vm = Random(5), scene()
        vm_bos = [vm.bo_obtain(obj) for obj in range(300)]
        places: dict[VmBo, int] = {}
        walks = [0] * 8
        for vm_bo in vm_bos:
            vm_bo._set_evicted(True, listed=False)
        for _ in range(scaled(6_000, 300_000)):
            vm_bo, walker = random.choice(vm_bos), random.randrange(8)
            match random.randrange(4):
                case 0:
                    vm_bo._list_evicted()
                    if vm_bo not in places:
                        found = vm._next_evicted(max(places.values(), default=walks[walker]))
                        assert found is not None
                        assert found[1] is vm_bo
                        places[vm_bo] = found[0]
                case 1:
                    vm_bo._unlist_evicted()
                    places.pop(vm_bo, None)
                case _:
                    behind = [(place, bo) for bo, place in places.items() if place > walks[walker]]
                    found = vm._next_evicted(walks[walker])
                    assert found == min(behind, default=None, key=lambda pair: pair[0])
                    walks[walker] = 0 if found is None else found[0]
            assert vm.statistics().evicted == len(places)
        assert vm.evicted == sorted(places, key=places.__getitem__)
        assert vm._check() is None


def test_a_vm_bo_keeps_its_object_alive_until_destroyed() -> None:
    class Buffer:
        pass

    vm, buffer = scene(), Buffer()
    watch = weakref.ref(buffer)
    vm_bo = vm.bo_obtain(buffer)
    del buffer
    gc.collect()
    assert watch() is vm_bo.obj
    vm_bo.put()
    del vm_bo
    gc.collect()
    assert watch() is None


def test_a_vm_bo_keeps_its_space_alive() -> None:
    vm_bo = scene(va(0, 8)).bo_obtain(BO)
    gc.collect()
    assert mapped(vm_bo.vm) == [va(0, 8)]


def test_equal_objects_that_are_not_the_same_have_their_own() -> None:
    vm, one, twin = scene(), [1], [1]
    assert vm.bo_obtain(one) is not vm.bo_obtain(twin)
    assert len(vm.vm_bos()) == 2
