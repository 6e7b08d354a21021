"""References to a `VmBo` come and go while somebody steps a plan, which may still be undone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random

import pytest

import gpuvm
from contention import in_real_threads
from drivers import Driver
from gpuvm import GpuVm, GpuVmFlags, Merge, VmBo
from scenes import OBJECTS, A, B, C, apply_map, mapped, plan_map, scene, va
from suite import scaled

BO = OBJECTS[A]
IMMEDIATE = GpuVmFlags.IMMEDIATE_MODE

both_modes = pytest.mark.parametrize("flags", [GpuVmFlags(0), IMMEDIATE], ids=["plain", "immediate"])
both_ends = pytest.mark.parametrize("fails", [False, True], ids=["kept", "undone"])


class Meanwhile(Driver):
    """Somebody does something before and after each operation; perhaps the last thing fails."""

    def __init__(self, vm: GpuVm, before: Callable[[], object], after: Callable[[], object], fails: bool):
        super().__init__(vm)
        self.before, self.after, self.fails = before, after, fails

    def sm_step_map(self, op: gpuvm.Map) -> None:
        self.before()
        super().sm_step_map(op)
        self.after()
        if self.fails:
            raise KeyError("planned")

    def sm_step_remap(self, op: gpuvm.Remap) -> None:
        self.before()
        super().sm_step_remap(op)
        self.after()

    def sm_step_unmap(self, op: gpuvm.Unmap) -> None:
        self.before()
        super().sm_step_unmap(op)
        self.after()


def nothing() -> None:
    pass


def step(
    plan: gpuvm.Plan,
    before: Callable[[], object] = nothing,
    after: Callable[[], object] = nothing,
    fails: bool = False,
) -> None:
    try:
        plan.step(Meanwhile(plan.vm, before, after, fails))
    except KeyError:
        assert fails


def once(action: Callable[[], object]) -> Callable[[], None]:
    left = [action]

    def run() -> None:
        if left:
            left.pop()()

    return run


@both_modes
@both_ends
class TestPutting:
    """A map of C over the only mapping of A."""

    def space(self, flags: GpuVmFlags) -> GpuVm:
        vm = scene(flags=flags)
        apply_map(vm, va(0, 8, A))
        return vm

    def end(self, vm: GpuVm, vm_bo: VmBo, fails: bool) -> None:
        """The caller's reference is gone: the mapping has the only one, if it is there."""
        assert (vm_bo.refcount, len(vm_bo), vm_bo.alive) == (fails, fails, fails)
        assert mapped(vm) == [va(0, 8, A) if fails else va(0, 8, C)]
        assert vm.deferred == ([vm_bo] if vm_bo.zombie else [])
        assert vm_bo.zombie == (not fails and bool(vm.flags & IMMEDIATE))
        vm.check()

    def test_before_its_mapping_goes(self, flags: GpuVmFlags, fails: bool) -> None:
        vm = self.space(flags)
        vm_bo = vm.bo_obtain(BO)
        step(plan_map(vm, va(0, 8, C)), before=once(vm_bo.put), fails=fails)
        self.end(vm, vm_bo, fails)

    def test_after_its_mapping_went(self, flags: GpuVmFlags, fails: bool) -> None:
        vm = self.space(flags)
        vm_bo = vm.bo_obtain(BO)
        step(plan_map(vm, va(0, 8, C)), after=once(vm_bo.put), fails=fails)
        self.end(vm, vm_bo, fails)

    def test_the_reference_of_a_mapping_that_went_cannot_be_put(self, flags: GpuVmFlags, fails: bool) -> None:
        vm = self.space(flags)
        (vm_bo,) = vm.vm_bos()

        def put() -> None:
            vm_bo.get()
            assert not vm_bo.put()
            with pytest.raises(gpuvm.Busy, match="belong to linked mappings"):
                vm_bo.put()

        step(plan_map(vm, va(0, 8, C)), put, put, fails)
        self.end(vm, vm_bo, fails)

    def test_the_last_reference(self, flags: GpuVmFlags, fails: bool) -> None:
        """Of an object that the plan has nothing to do with."""
        vm = self.space(flags)
        vm_bo = vm.bo_obtain(OBJECTS[B])

        def put() -> None:
            assert vm_bo.put()
            assert vm.bo_find(OBJECTS[B]) is None

        step(plan_map(vm, va(0, 8, C)), after=once(put), fails=fails)
        assert not vm_bo.alive
        assert len(vm.vm_bos()) == 1
        vm.check()

    def test_the_last_reference_of_what_is_about_to_be_mapped(self, flags: GpuVmFlags, fails: bool) -> None:
        vm = self.space(flags)
        first = vm.bo_obtain(OBJECTS[C])
        step(plan_map(vm, va(0, 8, C)), before=once(first.put), fails=fails)
        assert not first.alive
        (vm_bo,) = vm.vm_bos()
        assert (vm_bo.obj, vm_bo.refcount) == (OBJECTS[A if fails else C], 1)
        vm.check()

    def test_of_what_has_just_been_mapped(self, flags: GpuVmFlags, fails: bool) -> None:
        """Undoing the step ends it; where nothing may be freed it is kept, since its callers know it."""
        vm = self.space(flags)
        vm_bo = vm.bo_obtain(OBJECTS[C])

        def put() -> None:
            if len(vm_bo):
                assert not vm_bo.put()

        step(plan_map(vm, va(0, 8, C)), after=put, fails=fails)
        assert (vm_bo.alive, vm_bo.refcount) == (not fails, not fails)
        if flags & IMMEDIATE:
            assert (vm_bo in vm.deferred) == vm_bo.zombie == fails
        vm.check()


def test_deferred_puts_while_stepping_take_no_memory() -> None:
    vm = scene(flags=IMMEDIATE)
    apply_map(vm, va(0, 8, A))
    held = [vm.bo_obtain(object()) for _ in range(100)]

    def put() -> None:
        size = vm.statistics().bytes
        gpuvm._core.forbid_allocation(True)
        try:
            for vm_bo in held:
                assert vm_bo.put_deferred()
        finally:
            gpuvm._core.forbid_allocation(False)
        assert vm.statistics().bytes == size

    step(plan_map(vm, va(2, 4, B)), before=once(put))
    assert vm.deferred == held
    vm.check()


def test_links_wait_for_the_end_of_the_step() -> None:
    vm = scene()
    apply_map(vm, va(0, 8, A))
    apply_map(vm, va(8, 16, B))
    (_, other), vm_bo = vm, vm.bo_obtain(OBJECTS[B])

    def links() -> None:
        for use in (other.unlink, lambda: other.link(vm_bo)):
            with pytest.raises(gpuvm.Busy):
                use()

    step(vm.sm_unmap(0, 8), links, links)
    other.unlink()
    vm.check()


class Holders:
    """Callers with references, who get, put and obtain at random; only these count what they hold."""

    def __init__(self, vm: GpuVm, dice: Random) -> None:
        self.vm, self.dice = vm, dice
        self.held: list[VmBo] = []
        self.ended = Counter[bool]()

    def act(self) -> None:
        for _ in range(self.dice.randint(0, 3)):
            match self.dice.randrange(5):
                case 0:
                    self.held.append(self.vm.bo_obtain(OBJECTS[self.dice.randint(1, 3)]))
                case 1 if self.held:
                    self.held.append(self.dice.choice(self.held).get())
                case 2:
                    self.put_what_is_not_held()
                case _ if self.held:
                    self.put(self.held.pop(self.dice.randrange(len(self.held))))

    def put(self, vm_bo: VmBo) -> None:
        deferred = bool(self.vm.flags & IMMEDIATE) and self.dice.random() < 0.5
        last = vm_bo.refcount == 1
        assert (vm_bo.put_deferred() if deferred else vm_bo.put()) is last
        self.ended[last] += 1
        assert vm_bo.alive is not last
        assert vm_bo.zombie is (last and deferred)

    def put_what_is_not_held(self) -> None:
        for vm_bo in self.vm.vm_bos():
            if vm_bo not in self.held:
                with pytest.raises(gpuvm.Busy):
                    vm_bo.put()


@both_modes
@pytest.mark.parametrize("merge", [Merge.NEVER, Merge.ALWAYS], ids=lambda merge: merge.name)
def test_random_references_during_random_steps(flags: GpuVmFlags, merge: Merge) -> None:
    ended, undone = Counter[bool](), 0
    for seed in range(scaled(100, 5000)):
        dice = Random(seed)
        vm = scene(flags=flags, merge=merge)
        holders = Holders(vm, dice)
        for _ in range(12):
            addr, fails = dice.randrange(24), dice.random() < 0.4
            shape = va(addr, addr + dice.randint(1, 12), dice.randint(1, 3), addr)
            plan = plan_map(vm, shape) if dice.random() < 0.8 else vm.sm_unmap(shape.addr, shape.range)
            before = mapped(vm)
            step(plan, holders.act, holders.act, fails)
            if not plan.applied:
                undone += 1
                assert mapped(vm) == before, seed
            links, held = Counter(id(va.obj) for va in vm), Counter(id(vm_bo.obj) for vm_bo in holders.held)
            assert {id(vm_bo.obj): vm_bo.refcount for vm_bo in vm.vm_bos()} == links + held, seed
            assert all(vm_bo.alive for vm_bo in holders.held)
            vm.check()
            if dice.random() < 0.3:
                vm.bo_deferred_cleanup()
        ended += holders.ended
    assert min(*ended.values(), undone) > 20


@both_modes
def test_threads_get_and_put_while_another_steps(flags: GpuVmFlags) -> None:
    vm, turns = scene(flags=flags), scaled(1000, 20_000)
    for number in range(3):
        apply_map(vm, va(8 * number, 8 * number + 8, number + 1))

    def steps(dice: Random) -> None:
        for turn in range(turns):
            addr, bo = dice.randrange(24), dice.randint(1, 3)
            step(plan_map(vm, va(addr, addr + dice.randint(1, 8), bo)), fails=turn % 3 == 0)

    def holds(dice: Random) -> None:
        for _ in range(turns):
            vm_bo = vm.bo_obtain(OBJECTS[dice.randint(1, 3)])
            vm_bo.get()
            vm_bo.put_deferred() if flags & IMMEDIATE else vm_bo.put()
            vm_bo.put()

    in_real_threads(3, lambda number: holds(Random(number)) if number else steps(Random(number)))
    links = Counter(id(mapping.obj) for mapping in vm)
    assert {id(vm_bo.obj): vm_bo.refcount for vm_bo in vm.vm_bos()} == links
    vm.check()
