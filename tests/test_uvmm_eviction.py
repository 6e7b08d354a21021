"""Objects that are moved under their mappings: invalidated, brought back, and never more than fits."""

from __future__ import annotations

from random import Random

import pytest

from contention import in_real_threads
from gpuvm.errors import InvalidArgument, NoSpace, OutOfMemory
from gpuvm.mem import Domain, faults
from gpuvm.mem.gem import GemObject
from gpuvm.mem.placement import placement_of
from gpuvm.nouveau.vm import Uvmm
from suite import scaled
from uvmm_world import (
    BIG,
    HUGE,
    MIB,
    MOST,
    PAGE,
    Recorder,
    World,
    locked,
    map_op,
    state,
    unmap_op,
    uvma,
    world,
)

every_backend = pytest.mark.parametrize("backend", MOST)
private_or_not = pytest.mark.parametrize("private", [False, True], ids=["external", "private"])


class Scene:
    """An object of two large pages, mapped whole and once more in part."""

    def __init__(self, w: World, backend: str, private: bool, domains: Domain = Domain.VRAM) -> None:
        self.w, self.vm = w, w.space(backend, recorded=True)
        self.bo = w.bo("a", 2 * HUGE, domains, self.vm if private else None, align=HUGE)
        self.vm.bind([map_op(HUGE, 2 * HUGE, self.bo), map_op(8 * HUGE, BIG, self.bo, PAGE)])
        assert isinstance(self.vm.backend, Recorder)
        self.recorder: Recorder = self.vm.backend
        self.recorder.calls.clear()

    def domain(self) -> Domain:
        return self.bo.domain

    def shown(self) -> bool:
        vm, bo = self.vm, self.bo
        return self.w.shows(vm, HUGE, bo, 0, 2 * HUGE) and self.w.shows(vm, 8 * HUGE, bo, PAGE, BIG)


@every_backend
@private_or_not
class TestOneObject:
    def test_evicted_and_brought_back(self, backend: str, private: bool) -> None:
        with world() as w:
            scene = Scene(w, backend, private)
            w.evict(scene.bo)
            assert scene.domain() is Domain.GART
            assert {call[0] for call in scene.recorder.calls} == {"unmap"}
            assert all(va.invalidated for va in scene.vm)
            assert w.read(scene.vm, HUGE) is None
            (vm_bo,) = scene.vm.evicted
            assert vm_bo.obj is scene.bo
            w.check()
            scene.vm.validate_all()
            assert scene.domain() is Domain.VRAM
            assert scene.vm.evicted == []
            assert scene.shown()

    def test_brought_back_elsewhere(self, backend: str, private: bool) -> None:
        """In other pages: small ones of system memory instead of large ones."""
        with world() as w:
            scene = Scene(w, backend, private, Domain.VRAM | Domain.GART)
            before = scene.vm.statistics().backend.references
            w.evict(scene.bo)
            assert scene.vm.statistics().backend.references == before
            scene.vm.validate_all()
            assert scene.domain() is Domain.GART
            assert scene.shown()
            references = before if backend == "x86_64" else 1024 + 16
            assert scene.vm.statistics().backend.references == references

    def test_what_is_invalidated_is_not_unmapped(self, backend: str, private: bool) -> None:
        with world() as w:
            scene = Scene(w, backend, private)
            w.evict(scene.bo)
            scene.recorder.calls.clear()
            scene.vm.bind([unmap_op(HUGE + PAGE, HUGE), unmap_op(8 * HUGE, BIG)])
            assert scene.recorder.of("map", "unmap") == []
            assert [(va.range, va.invalidated) for va in scene.vm] == [(PAGE, True), (HUGE - PAGE, True)]
            scene.vm.validate_all()
            assert w.shows(scene.vm, HUGE, scene.bo, 0, PAGE)
            assert w.shows(scene.vm, 2 * HUGE + PAGE, scene.bo, HUGE + PAGE, HUGE - PAGE)
            pages = 1 + 511 if backend == "x86_64" else 1 + 15 + 31
            assert scene.vm.statistics().backend.references == pages

    def test_binding_an_evicted_object_brings_all_of_it_back(self, backend: str, private: bool) -> None:
        with world() as w:
            scene = Scene(w, backend, private)
            w.evict(scene.bo)
            scene.vm.bind([map_op(16 * HUGE, PAGE, scene.bo)])
            assert scene.shown()
            assert scene.vm.evicted == []

    def test_binding_over_it(self, backend: str, private: bool) -> None:
        with world() as w:
            scene = Scene(w, backend, private)
            other = w.bo("other", HUGE)
            w.evict(scene.bo)
            scene.vm.bind([map_op(HUGE + BIG, HUGE, other)])
            assert w.read(scene.vm, HUGE) is None
            scene.vm.validate_all()
            assert w.shows(scene.vm, HUGE, scene.bo, 0, BIG)
            assert w.shows(scene.vm, HUGE + BIG, other, 0, HUGE)

    def test_unmapped_while_evicted(self, backend: str, private: bool) -> None:
        with world() as w:
            scene = Scene(w, backend, private)
            w.evict(scene.bo)
            scene.vm.bind([unmap_op(0, 32 * HUGE)])
            assert scene.vm.evicted == []
            assert scene.vm.statistics().backend.references == 0

    def test_out_of_reach_for_good(self, backend: str, private: bool) -> None:
        """Moved to the CPU's side, and allowed nowhere else any more: it stays invalidated."""
        with world() as w:
            scene = Scene(w, backend, private)
            with scene.bo.resv:
                scene.bo.allowed = placement_of(Domain.CPU)
                w.device.validate(scene.bo)
            assert scene.bo.extents == ()
            scene.vm.validate_all()
            assert len(scene.vm.evicted) == 1
            assert w.read(scene.vm, HUGE) is None
            w.check()
            with pytest.raises(InvalidArgument, match="reach"):
                scene.vm.bind([map_op(0, PAGE, scene.bo)])

    def test_no_room_for_tables(self, backend: str, private: bool) -> None:
        """Each allocation on the way back fails in turn; the object stays evicted until it is tried again."""
        with world() as w:
            scene = Scene(w, backend, private)
            for number in range(100):
                w.evict(scene.bo)
                before = state(scene.vm)
                with faults.refuse_allocation(number):
                    try:
                        scene.vm.validate_all()
                    except OutOfMemory:
                        assert state(scene.vm) == before
                        w.check()
                    else:
                        break
            assert 0 < number < 99
            assert scene.shown()


def test_getting_fails_after_the_object_has_moved() -> None:
    """All slots are got, or none; the object is where it is, and comes back with the next validate."""
    with world() as w:
        scene = Scene(w, "gp100", False, Domain.VRAM | Domain.GART)
        scene.vm.bind([map_op(16 * HUGE, HUGE, scene.bo)])
        w.evict(scene.bo)
        before = state(scene.vm)
        scene.recorder.calls.clear()

        def refuse_second(name: str) -> None:
            if name == "get" and scene.recorder.of("get"):
                raise OutOfMemory("planned")

        scene.recorder.before = refuse_second
        with pytest.raises(OutOfMemory, match="planned"):
            scene.vm.validate_all()
        scene.recorder.before = lambda name: None
        assert [call[0] for call in scene.recorder.calls] == ["get", "put"]
        assert state(scene.vm) == before
        scene.vm.validate_all()
        assert scene.shown()


@every_backend
class TestTwoSpaces:
    def test_both_lose_it_and_each_brings_it_back(self, backend: str) -> None:
        with world() as w:
            first, second, bo = w.space(backend), w.space("host"), w.bo("a", HUGE, Domain.VRAM)
            first.bind([map_op(0, HUGE, bo)])
            second.bind([map_op(HUGE, HUGE, bo)])
            w.evict(bo)
            assert w.read(first, 0) is w.read(second, HUGE) is None
            first.validate_all()
            assert w.shows(first, 0, bo, 0, HUGE)
            assert w.read(second, HUGE) is None
            second.validate_all()
            assert w.shows(second, HUGE, bo, 0, HUGE)

    def test_one_evicts_the_others_objects(self, backend: str) -> None:
        """VRAM has room for the objects of one space; they take turns."""
        with world(vram=12 * MIB) as w:
            vms = w.space(backend), w.space("gp100")
            bos: dict[Uvmm, list[GemObject]] = {}
            for number, vm in enumerate(vms):
                own = w.bo(f"own {number}", 4 * MIB, Domain.VRAM, vm)
                external = w.bo(f"external {number}", 4 * MIB, Domain.VRAM)
                bos[vm] = [own, external]
            for vm in vms * 3:
                vm.bind([map_op(index * 4 * MIB, 4 * MIB, bo) for index, bo in enumerate(bos[vm])])
                vm.validate_all()
                for index, bo in enumerate(bos[vm]):
                    assert w.shows(vm, index * 4 * MIB, bo, 0, 4 * MIB)
                w.check()
            assert w.device.statistics().evictions >= 8


@every_backend
class TestTooMuch:
    def test_a_working_set_that_does_not_fit(self, backend: str) -> None:
        with world(vram=12 * MIB) as w:
            vm = w.space(backend)
            bos = [w.bo(str(number), 5 * MIB, Domain.VRAM) for number in range(3)]
            for number, bo in enumerate(bos):
                vm.bind([map_op(8 * MIB * number, 5 * MIB, bo)])
            assert [va.invalidated for va in vm] == [True, False, False]
            with pytest.raises(OutOfMemory):
                vm.validate_all()
            w.check()
            vm.bind([unmap_op(8 * MIB, 5 * MIB)])
            vm.validate_all()
            for number in (0, 2):
                assert w.shows(vm, 8 * MIB * number, bos[number], 0, 5 * MIB)

    def test_some_of_what_is_mapped(self, backend: str) -> None:
        """More is mapped than fits; a job that needs two of three objects can have them."""
        with world(vram=12 * MIB) as w:
            vm = w.space(backend)
            bos = [w.bo(str(number), 5 * MIB, Domain.VRAM) for number in range(3)]
            for number, bo in enumerate(bos):
                vm.bind([map_op(8 * MIB * number, 5 * MIB, bo)])
            for used in ((0, 1), (1, 2), (2, 0), (0, 0)):
                vm.validate_objects(bos[number] for number in used)
                for number in used:
                    assert w.shows(vm, 8 * MIB * number, bos[number], 0, 5 * MIB)
                w.check()
            with pytest.raises(OutOfMemory):
                vm.validate_objects(bos)
            w.check()
            other = w.bo("not mapped", MIB)
            vm.validate_objects([other])
            assert other.extents
            assert not other.vms

    def test_one_call_that_does_not_fit(self, backend: str) -> None:
        with world(vram=12 * MIB) as w:
            vm = w.space(backend)
            own = [w.bo(str(number), 5 * MIB, Domain.VRAM, vm) for number in range(3)]
            before = state(vm)
            with pytest.raises(OutOfMemory):
                vm.bind([map_op(8 * MIB * number, 5 * MIB, bo) for number, bo in enumerate(own)])
            with pytest.raises(NoSpace):
                vm.bind([map_op(0, BIG, w.bo("never", 16 * MIB, Domain.VRAM))])
            assert state(vm) == before
            assert not any(bo.vms for bo in own)

    def test_unmapped_private_objects_make_room(self, backend: str) -> None:
        with world(vram=12 * MIB) as w:
            vm = w.space(backend)
            own = [w.bo(str(number), 8 * MIB, Domain.VRAM, vm) for number in range(2)]
            for bo in own * 2:
                vm.bind([map_op(0, 8 * MIB, bo)])
                assert w.shows(vm, 0, bo, 0, 8 * MIB)
                vm.bind([unmap_op(0, 8 * MIB)])


def test_tables_push_objects_out_of_vram() -> None:
    """What a bind's page tables evict may be mapped in the very space, but not what the bind is about."""
    with world(vram=2 * MIB) as w:
        vm = w.space()
        a, b = w.bo("a", MIB, Domain.VRAM), w.bo("b", MIB - 8 * PAGE, Domain.VRAM)
        vm.bind([map_op(0, MIB, a)])
        vm.bind([map_op(HUGE, b.size, b)])
        full = w.device.statistics().evictions
        for number in range(40):
            vm.bind([map_op(number << 33, PAGE, b)])
            assert w.shows(vm, number << 33, b, 0, PAGE)
            w.check()
        assert w.device.statistics().evictions > full
        assert uvma(vm, PAGE).invalidated


def test_a_prepared_bind_keeps_its_objects() -> None:
    """Its reservations are held: nobody can move what it is about."""
    with world() as w:
        vm, bo = w.space(), w.bo("a", HUGE, Domain.VRAM)
        op = map_op(0, HUGE, bo)
        with locked(vm, op):
            bind = vm.prepare([op])
            assert not bo.resv.trylock()
            bind.abort()
        assert not bo.vms


@pytest.mark.parametrize("backend", ["gp100", "host"])
def test_threads_bind_and_evict(backend: str) -> None:
    """Two spaces over one device, objects shared and private, and a thread that moves them about."""
    turns = scaled(25, 1500)
    with world(vram=8 * MIB, gart=64 * MIB) as w:
        vms = [w.space(backend), w.space("gp100")]
        shared = [w.bo(f"shared {number}", HUGE, Domain.VRAM | Domain.GART) for number in range(3)]
        private = {
            vm: [w.bo(f"{vm.name} {n}", HUGE, Domain.VRAM | Domain.GART, vm) for n in range(2)] for vm in vms
        }

        def binds(vm: Uvmm, dice: Random) -> None:
            for _ in range(turns):
                bo = dice.choice(shared + private[vm])
                slot = dice.randrange(4) * HUGE
                vm.bind([map_op(slot, HUGE, bo) if dice.random() < 0.8 else unmap_op(slot + BIG, BIG)])
                vm.validate_all()

        def moves(dice: Random) -> None:
            for _ in range(2 * turns):
                w.evict(dice.choice(shared + private[vms[0]] + private[vms[1]]))

        def act(number: int) -> None:
            dice = Random(number)
            moves(dice) if number == 2 else binds(vms[number], dice)

        in_real_threads(3, act)
        w.check()
        for vm in vms:
            vm.validate_all()
            for va in vm:
                assert w.shows(vm, va.addr, va.obj, va.offset, va.range)
