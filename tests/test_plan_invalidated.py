"""Plans and INVALIDATED: who evicts has not the VM's lock, so the flag changes while others plan."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from threading import Event

import pytest

import gpuvm
from contention import in_real_threads
from drivers import Driver
from gpuvm import Gpuva, GpuvaFlags, GpuVm, Map, Merge, Plan
from scenes import OBJECTS, A, B, C, apply_map, gpuva, mapped, ops_of, plan_map, scene, va
from shapes import Op, Va
from suite import scaled

GONE = int(GpuvaFlags.INVALIDATED)
NEVER, ALWAYS = Merge.NEVER, Merge.ALWAYS


def at(vm: GpuVm, addr: int) -> Gpuva:
    found = vm.find_first(addr, 1)
    assert found is not None
    return found


def toggle(vm: GpuVm, addr: int) -> None:
    mapping = at(vm, addr)
    mapping.invalidated = not mapping.invalidated


SCENE = (va(0, 8, A), va(8, 16, B), va(16, 24, C))
INDEPENDENT: dict[str, Callable[[GpuVm], Plan]] = {
    "elsewhere": lambda vm: vm.sm_unmap(0, 4),
    "beside it": lambda vm: vm.sm_unmap(16, 8),
    "the whole": lambda vm: vm.sm_unmap(8, 8),
    "in its place": lambda vm: plan_map(vm, va(8, 16, C)),
    "its like in its place": lambda vm: plan_map(vm, va(8, 16, B)),
    "prefetch": lambda vm: vm.prefetch(8, 8),
    "advice": lambda vm: vm.madvise(8, 4),
}
DEPENDENT: dict[str, tuple[Callable[[GpuVm], Plan], list[int]]] = {
    "front": (lambda vm: vm.sm_unmap(0, 12), [12]),
    "back": (lambda vm: vm.sm_unmap(12, 10), [8]),
    "middle": (lambda vm: plan_map(vm, va(10, 12, A)), [8, 12]),
    "keeping": (lambda vm: plan_map(vm, va(8, 12, B)), [12]),
}
"""With where the remainders begin."""


class TestOneMapping:
    """Three mappings, of which plans cut, drop or leave alone the one at 8."""

    @pytest.mark.parametrize("name", INDEPENDENT)
    @pytest.mark.parametrize("looked", [False, True], ids=["unseen", "looked at"])
    @pytest.mark.parametrize("stepped", [False, True], ids=["apply", "step"])
    def test_plans_that_do_not_depend_on_its_flags(self, name: str, looked: bool, stepped: bool) -> None:
        vm = scene(*SCENE)
        generation, plan = vm.generation, INDEPENDENT[name](vm)
        if looked:
            list(plan)
        mapping = at(vm, 8)
        mapping.invalidated = True
        assert (plan.stale, vm.generation) == (False, generation)
        assert ops_of(plan) == ops_of(INDEPENDENT[name](vm))
        if stepped and name != "prefetch":
            plan.step(Driver(vm))
        else:
            plan.apply()
        assert mapping.invalidated
        vm.check()

    @pytest.mark.parametrize("name", DEPENDENT)
    @pytest.mark.parametrize("looked", [False, True], ids=["unseen", "looked at"])
    def test_plans_that_cut_it(self, name: str, looked: bool) -> None:
        vm = scene(*SCENE)
        plan_it, remainders = DEPENDENT[name]
        plan = plan_it(vm)
        if looked:
            list(plan)
        at(vm, 8).invalidated = True
        assert plan.stale
        assert "stale" in repr(plan)
        for use in (plan.apply, lambda: plan.step(Driver(vm))):
            with pytest.raises(gpuvm.StalePlan, match="INVALIDATED"):
                use()
        if not looked:
            with pytest.raises(gpuvm.StalePlan):
                list(plan)
        plan_it(vm).apply()
        assert [mapping.addr for mapping in vm if mapping.invalidated] == remainders
        vm.check()

    @pytest.mark.parametrize("name", DEPENDENT)
    def test_and_back_again(self, name: str) -> None:
        vm = scene(*SCENE)
        plan = DEPENDENT[name][0](vm)
        toggle(vm, 8)
        toggle(vm, 8)
        assert not plan.stale
        plan.apply()

    def test_other_flags_make_every_plan_stale(self) -> None:
        vm = scene(*SCENE)
        for flags in (GpuvaFlags.SPARSE, GpuvaFlags.USERBITS, GpuvaFlags.SPARSE | GpuvaFlags.INVALIDATED):
            plan = vm.sm_unmap(0, 4)
            at(vm, 8).flags = flags
            assert plan.stale

    def test_what_was_so_already_changes_nothing(self) -> None:
        vm = scene(*SCENE)
        plan = vm.sm_unmap(8, 4)
        at(vm, 8).invalidated = False
        assert not plan.stale

    def test_a_real_change_is_told_first(self) -> None:
        vm = scene(*SCENE)
        plan = vm.sm_unmap(8, 4)
        toggle(vm, 8)
        vm.sm_unmap(0, 8).apply()
        with pytest.raises(gpuvm.StalePlan, match="generation"):
            plan.apply()


class TestMerging:
    """A request beside or over mappings that look the same, or would but for the flag."""

    @pytest.mark.parametrize("differs", [False, True], ids=["merged", "apart"])
    @pytest.mark.parametrize(
        "request_", [va(8, 16, A, 8), va(4, 12, A, 4), va(2, 6, A, 2)], ids=["behind", "over", "inside"]
    )
    def test_a_comparison_must_still_hold(self, differs: bool, request_: Va) -> None:
        vm = scene(va(0, 8, A, flags=GONE * differs), va(30, 40, A), merge=ALWAYS)
        plan = plan_map(vm, request_)
        toggle(vm, 30)
        assert not plan.stale
        toggle(vm, 0)
        assert plan.stale
        with pytest.raises(gpuvm.StalePlan):
            plan.apply()
        plan_map(vm, request_).apply()
        assert (at(vm, request_.addr).range > request_.range) == differs
        vm.check()

    def test_a_neighbour_in_front_and_one_behind(self) -> None:
        for changed in (0, 16):
            vm = scene(va(0, 8, A), va(16, 24, A, 16), merge=ALWAYS)
            plan = plan_map(vm, va(8, 16, A, 8))
            toggle(vm, changed)
            assert plan.stale

    def test_what_cannot_be_the_same_is_not_compared(self) -> None:
        vm = scene(va(0, 8, B), va(8, 16, A, 9), va(20, 24, A), merge=ALWAYS)
        plan = plan_map(vm, va(8, 16, A, 8))
        for addr in (0, 8, 20):
            toggle(vm, addr)
        assert not plan.stale
        plan.apply()
        assert mapped(vm) == [va(0, 8, B, flags=GONE), va(8, 16, A, 8), va(20, 24, A, flags=GONE)]

    def test_an_eviction_while_the_veto_is_asked(self) -> None:
        def veto(mapping: Gpuva, request: Map) -> bool:
            toggle(vm, 100)
            mapping.invalidated = True
            return True

        vm = scene(va(0, 8, A), va(16, 24, A, 16), va(100, 108, B), merge=ALWAYS, can_merge=veto)
        plan = plan_map(vm, va(8, 16, A, 8))
        assert not plan.stale
        plan.apply()
        assert mapped(vm)[:3] == [va(0, 8, A, flags=GONE), va(8, 16, A, 8), va(16, 24, A, 16, GONE)]


class Evicting(Driver):
    """Somebody evicts while the operations are applied."""

    def __init__(self, vm: GpuVm, evict: Callable[[], None], fails: bool = False) -> None:
        super().__init__(vm)
        self.evict, self.fails = evict, fails

    def sm_step_map(self, op: Map) -> None:
        self.evict()
        super().sm_step_map(op)
        self.evict()
        if self.fails:
            raise KeyError("planned")

    def sm_step_remap(self, op: gpuvm.Remap) -> None:
        self.evict()
        super().sm_step_remap(op)
        self.evict()


class TestWhileStepping:
    @pytest.mark.parametrize("fails", [False, True])
    def test_others_may_be_invalidated(self, fails: bool) -> None:
        vm = scene(va(0, 8, A), va(8, 16, B), va(16, 24, C))
        other, whole = at(vm, 16), at(vm, 8)

        def evict() -> None:
            other.invalidated = True
            whole.invalidated = True

        plan = plan_map(vm, va(4, 16, A))
        if fails:
            with pytest.raises(KeyError):
                plan.step(Evicting(vm, evict, fails))
            assert mapped(vm) == [va(0, 8, A), va(8, 16, B, flags=GONE), va(16, 24, C, flags=GONE)]
            assert not plan.stale
            plan.apply()
        else:
            plan.step(Evicting(vm, evict))
        assert mapped(vm) == [va(0, 4, A), va(4, 16, A), va(16, 24, C, flags=GONE)]
        assert whole.invalidated
        vm.check()

    def test_what_the_step_cuts_or_makes_may_not(self) -> None:
        vm = scene(va(0, 8, A), va(8, 16, B))
        cut, refused = at(vm, 0), list[gpuvm.Busy]()

        def evict() -> None:
            for mapping in (cut, *driver.used):
                if mapping.vm is not None or mapping is cut:
                    with pytest.raises(gpuvm.Busy) as caught:
                        mapping.invalidated = True
                    refused.append(caught.value)

        driver = Evicting(vm, evict)
        plan_map(vm, va(4, 8, C)).step(driver)
        assert len(refused) > 4
        assert not any(mapping.invalidated for mapping in vm)

    def test_other_flags_may_not(self) -> None:
        vm = scene(va(0, 8, A), va(8, 16, B))

        def change() -> None:
            with pytest.raises(gpuvm.Busy):
                at(vm, 8).flags = GpuvaFlags.SPARSE

        plan_map(vm, va(0, 8, C)).step(Evicting(vm, change))


# Random plans, with random evictions in between. What must be is written down a cell at a time.

WIDTH = 32
Cell = tuple[int, int, int]
"""Object, offset minus address, flags."""


def cells_of(vm: GpuVm) -> dict[int, Cell]:
    return {
        cell: (shape.bo, shape.offset - shape.addr, shape.flags)
        for shape in mapped(vm)
        for cell in range(shape.addr, shape.end)
    }


def random_scene(dice: Random, merge: Merge) -> GpuVm:
    vm, addr = scene(merge=merge, range=WIDTH), 0
    while addr < WIDTH:
        end = min(addr + dice.randint(1, 6), WIDTH)
        if dice.random() < 0.8:
            bo = dice.randint(0, 2)
            offset = addr + dice.choice((0, 0, 0, 5)) if bo else 0
            vm.insert(gpuva(va(addr, end, bo, offset, dice.choice((0, 0, GONE)))))
        addr = end
    return vm


def random_request(dice: Random) -> tuple[Callable[[GpuVm], Plan], range, Cell | None]:
    """How to plan it, the cells, and what is there afterwards."""
    addr = dice.randrange(WIDTH)
    end = min(addr + dice.randint(1, 12), WIDTH)
    if dice.random() < 0.3:
        return (lambda vm: vm.sm_unmap(addr, end - addr)), range(addr, end), None
    shape = va(addr, end, dice.randint(1, 2), addr, dice.choice((0, GONE)))
    return (lambda vm: plan_map(vm, shape)), range(addr, end), (shape.bo, 0, shape.flags)


def may_depend(cells: range, wanted: Cell | None, merge: Merge) -> Callable[[Gpuva], bool]:
    """Judged generously: all that are cut, and when merging all that show the same as the request."""

    def judge(mapping: Gpuva) -> bool:
        cut = mapping.addr < cells.start < mapping.end or mapping.addr < cells.stop < mapping.end
        alike = (OBJECTS.label(mapping.obj), mapping.offset - mapping.addr) == (wanted and wanted[:2])
        return cut or (merge is not NEVER and alike)

    return judge


@pytest.mark.parametrize("merge", [NEVER, ALWAYS], ids=lambda merge: merge.name)
def test_random_evictions_between_plan_and_apply(merge: Merge) -> None:
    used = stale = 0
    for seed in range(scaled(1500, 100_000)):
        dice = Random(seed)
        vm = random_scene(dice, merge)
        plan_it, cells, wanted = random_request(dice)
        depends = may_depend(cells, wanted, merge)
        plan = plan_it(vm)
        before = ops_of(plan) if dice.random() < 0.5 else None
        flags = {mapping: mapping.flags for mapping in vm}
        for _ in range(dice.randint(1, 4)):
            if len(vm) > 0:
                mapping = dice.choice(list(vm))
                mapping.invalidated = not mapping.invalidated
        changed = [mapping for mapping in vm if mapping.flags != flags[mapping]]
        if plan.stale:
            stale += 1
            assert any(depends(mapping) for mapping in changed), seed
            with pytest.raises(gpuvm.StalePlan):
                plan.apply()
            plan = plan_it(vm)
        else:
            used += 1
            assert ops_of(plan) == ops_of(plan_it(vm)), f"seed {seed}: {before}"
        expected = cells_of(vm) | ({} if wanted is None else dict.fromkeys(cells, wanted))
        if wanted is None:
            for cell in cells:
                expected.pop(cell, None)
        plan.apply() if dice.random() < 0.5 else plan.step(Driver(vm))
        assert cells_of(vm) == expected, seed
        vm.check()
    assert min(used, stale) > 100


class Fickle(Evicting):
    """Evicts whatever it may, and writes down which cells that were."""

    def __init__(self, vm: GpuVm, dice: Random) -> None:
        super().__init__(vm, self.evict_one, fails=dice.random() < 0.5)
        self.dice = dice
        self.everywhere = list(vm)
        self.changed: list[Gpuva] = []
        self.refused = 0

    def evict_one(self) -> None:
        mapping = self.dice.choice([*self.everywhere, *self.used])
        try:
            mapping.invalidated = not mapping.invalidated
        except gpuvm.Busy:
            self.refused += 1
        else:
            self.changed.append(mapping)

    def sm_step_unmap(self, op: gpuvm.Unmap) -> None:
        self.evict()
        super().sm_step_unmap(op)
        self.evict()


@pytest.mark.parametrize("merge", [NEVER, ALWAYS], ids=lambda merge: merge.name)
def test_random_evictions_while_stepping(merge: Merge) -> None:
    changes = refused = undone = 0
    for seed in range(scaled(1000, 50_000)):
        dice = Random(seed)
        vm = random_scene(dice, merge)
        plan_it, cells, wanted = random_request(dice)
        plan, driver, before = plan_it(vm), Fickle(vm, dice), cells_of(vm)
        places = {mapping: range(mapping.addr, mapping.end) for mapping in vm}
        try:
            plan.step(driver)
        except KeyError:
            undone += 1
            cells, wanted = range(0), None
        expected = dict(before)
        for mapping in driver.changed:
            for cell in places.get(mapping, ()):
                bo, shift, flags = expected[cell]
                expected[cell] = (bo, shift, flags ^ GONE)
        for cell in cells:
            expected.pop(cell, None)
            if wanted is not None:
                expected[cell] = wanted
        assert cells_of(vm) == expected, seed
        vm.check()
        changes += len(driver.changed)
        refused += driver.refused
    assert min(changes, refused, undone) > 100


def test_an_evictor_never_gets_in_the_way_of_a_binder() -> None:
    """Neither of two threads ever has to try again: only an object's lock would keep them apart."""
    vm, turns = scene(range=1 << 16), scaled(3000, 50_000)
    for number in range(64):
        apply_map(vm, va(1024 * number, 1024 * number + 512, A))
    evicted: list[Gpuva] = list(vm)
    done = Event()

    def bind(dice: Random) -> None:
        for turn in range(turns):
            number = dice.randrange(64)
            start = 1024 * number + 512 + dice.randrange(256)
            request = va(start, start + dice.randint(1, 200), dice.choice((B, C)))
            plan = plan_map(vm, request) if dice.random() < 0.7 else vm.sm_unmap(start, request.range)
            ops: list[Op] = list(plan) if dice.random() < 0.3 else []
            assert len(ops) in (0, len(plan))
            plan.step(Driver(vm)) if turn % 2 else plan.apply()

    def evict(dice: Random) -> None:
        while not done.is_set():
            mapping = dice.choice(evicted)
            mapping.invalidated = True
            assert mapping.invalidated
            mapping.invalidated = False

    def work(number: int) -> None:
        if number:
            evict(Random(number))
            return
        try:
            bind(Random(number))
        finally:
            done.set()

    in_real_threads(2, work)
    assert all(mapping.vm is vm and not mapping.invalidated for mapping in evicted)
    vm.check()
