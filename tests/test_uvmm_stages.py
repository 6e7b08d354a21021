"""Prepare, run, cleanup: what each does, what it does not, and in which orders they may come."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from random import Random

import pytest

from gpuvm import _core
from gpuvm.errors import Busy, InvalidArgument, LockdepError
from gpuvm.mem import Domain, faults
from gpuvm.mem.gem import GemObject
from gpuvm.nouveau.bind import Bind, BindOp, Stage
from gpuvm.nouveau.vm import Uvmm
from gpuvm.sync import lockdep
from gpuvm.sync.lock_order import FENCE
from suite import scaled
from uvmm_world import (
    BIG,
    HUGE,
    MIB,
    MOST,
    PAGE,
    SPARSE,
    Model,
    Recorder,
    World,
    finish,
    locked,
    map_op,
    map_sparse,
    mapped,
    prepared,
    state,
    unmap_op,
    unmap_sparse,
    world,
)

every_backend = pytest.mark.parametrize("backend", MOST)


class Scene:
    """A space with something of everything, and a bind that changes all of it."""

    def __init__(self, w: World, backend: str) -> None:
        self.w, self.vm = w, w.space(backend, recorded=True)
        self.a, self.b = w.bo("a", 2 * HUGE, Domain.VRAM, align=HUGE), w.bo("b", HUGE, Domain.GART)
        self.region = 8 * HUGE, HUGE
        sparse = backend in SPARSE
        setup = [map_op(HUGE, 2 * HUGE, self.a), map_op(4 * HUGE, BIG, self.b)]
        self.vm.bind([*setup, *([map_sparse(*self.region)] if sparse else [])])
        self.ops = [
            map_op(HUGE + PAGE, BIG, self.b),
            unmap_op(2 * HUGE, PAGE),
            map_op(4 * HUGE, BIG, self.a),
            unmap_op(4 * HUGE, PAGE),
            *([map_op(9 * HUGE - BIG, BIG, self.b), unmap_sparse(*self.region)] if sparse else []),
            *([map_sparse(10 * HUGE, BIG)] if sparse else []),
        ]
        assert isinstance(self.vm.backend, Recorder)
        self.recorder: Recorder = self.vm.backend
        self.recorder.calls.clear()

    def called(self) -> set[str]:
        names = {call[0] for call in self.recorder.calls}
        self.recorder.calls.clear()
        return names


@every_backend
class TestWhatEachDoes:
    def test_prepare_writes_no_entries(self, backend: str) -> None:
        with world() as w:
            scene = Scene(w, backend)
            pages = range(0, 12 * HUGE, BIG)
            before = w.read_pages(scene.vm, pages)
            bind = prepared(scene.vm, *scene.ops)
            assert scene.called() <= {"get", "sparse"}
            after = w.read_pages(scene.vm, pages)
            assert {page for page in before if before[page] != after[page]} <= {10 * HUGE}
            finish(bind)

    def test_run_allocates_nothing_and_takes_the_mapping_lock_only(self, backend: str) -> None:
        with world() as w:
            scene = Scene(w, backend)
            bind = prepared(scene.vm, *scene.ops)
            scene.called()
            core = scene.vm.statistics().bytes
            with lockdep.fence_signalling(), faults.count_allocations() as allocations:
                bind.run()
            assert scene.called() == {"map", "unmap"}
            assert (allocations, scene.vm.statistics().bytes) == ([], core)
            with scene.vm.lock:
                bind.cleanup()

    def test_cleanup_only_drops(self, backend: str) -> None:
        with world() as w:
            scene = Scene(w, backend)
            bind = prepared(scene.vm, *scene.ops)
            bind.run()
            scene.called()
            with scene.vm.lock, faults.count_allocations() as allocations:
                bind.cleanup()
            assert scene.called() <= {"put", "sparse"}
            assert allocations == []

    def test_aborting_leaves_all_as_it_was(self, backend: str) -> None:
        with world() as w:
            scene = Scene(w, backend)
            before = state(scene.vm)
            with locked(scene.vm, *scene.ops):
                for length in range(len(scene.ops) + 1):
                    bind = scene.vm.prepare(scene.ops[:length])
                    bind.abort()
                    assert bind.stage is Stage.ABORTED
                    assert state(scene.vm) == before
            assert set(scene.b.vms) == {scene.vm}
            finish(prepared(scene.vm, *scene.ops))

    def test_an_object_lives_until_its_entries_are_gone(self, backend: str) -> None:
        with world() as w:
            vm = w.space(backend)
            vm.bind([map_op(0, BIG, w.device.create(BIG, Domain.VRAM))])
            bind = prepared(vm, unmap_op(0, BIG))
            assert (len(vm), vm.vm_bos(), w.device.statistics().objects) == (0, [], 1 + len(w.tags))
            bind.run()
            assert w.device.statistics().objects == 1 + len(w.tags)
            with vm.lock:
                bind.cleanup()
            assert w.device.statistics().objects == len(w.tags)


def test_the_locks_of_a_run() -> None:
    """The validator knows every lock that was taken in the section: none but the backend's."""
    with world() as w:
        scene = Scene(w, "gp100")
        bind = prepared(scene.vm, *scene.ops)
        lockdep.reset()
        with lockdep.fence_signalling():
            bind.run()
        assert {taken.name for taken in FENCE.after} == {"vmm_map"}
        with scene.vm.lock:
            bind.cleanup()


class TestOrder:
    def bind(self, w: World) -> tuple[Uvmm, Bind]:
        vm = w.space()
        op = map_op(0, BIG, w.bo("a", BIG))
        with locked(vm, op):
            bind = vm.prepare([op])
            for step in (bind.run, bind.cleanup):
                with pytest.raises(InvalidArgument, match="prepared"):
                    step()
            bind.commit()
        return vm, bind

    def test_each_step_comes_once_and_in_order(self) -> None:
        with world() as w:
            vm, bind = self.bind(w)
            steps: list[tuple[Callable[[], None], Stage]] = [
                (bind.run, Stage.RUN),
                (bind.cleanup, Stage.CLEANED_UP),
            ]
            with vm.lock:
                for step, stage in steps:
                    for other in {bind.commit, bind.abort, bind.run, bind.cleanup} - {step}:
                        with pytest.raises(InvalidArgument, match="comes once"):
                            other()
                    step()
                    assert bind.stage is stage
            assert not vm.pending

    def test_reservations_are_asked_for(self) -> None:
        with world() as w:
            vm, bo = w.space(), w.bo("a", BIG)
            vm.bind([map_op(0, BIG, bo)])
            with vm.lock:
                for op in (map_op(HUGE, BIG, bo), unmap_op(0, PAGE)):
                    before = state(vm)
                    with pytest.raises(LockdepError):
                        vm.prepare([op])
                    assert state(vm) == before
            with pytest.raises(LockdepError):
                vm.prepare([])

    def test_an_object_is_mapped_elsewhere_while_its_unmapping_is_pending(self) -> None:
        with world() as w:
            vm, bo = w.space(), w.bo("a", BIG)
            vm.bind([map_op(0, BIG, bo)])
            first = prepared(vm, unmap_op(0, BIG))
            second = prepared(vm, map_op(HUGE, BIG, bo))
            with pytest.raises(Busy):
                vm.close()
            for bind in (first, second):
                finish(bind)
            assert mapped(vm) == [(HUGE, HUGE + BIG, bo, 0)]


class TestOnTopOfEachOther:
    def test_only_the_last_one_prepared_can_be_aborted(self) -> None:
        """The one below would put mappings back where others are by now."""
        with world() as w:
            vm, a, b = w.space(), w.bo("a", BIG), w.bo("b", BIG)
            vm.bind([map_op(HUGE, BIG, b)])
            ops = [map_op(0, BIG, a), map_op(PAGE, PAGE, b)]
            with locked(vm, *ops):
                start = state(vm)
                first = vm.prepare(ops[:1])
                between = state(vm)
                second = vm.prepare(ops[1:])
                both = state(vm)
                with pytest.raises(InvalidArgument, match="on top"):
                    first.abort()
                assert (state(vm), first.stage) == (both, Stage.PREPARED)
                second.abort()
                assert state(vm) == between
                first.abort()
                assert state(vm) == start

    def test_nor_one_below_a_committed_one(self) -> None:
        with world() as w:
            vm, a, b = w.space(), w.bo("a", BIG), w.bo("b", BIG)
            ops = [map_op(0, BIG, a), map_op(PAGE, PAGE, b)]
            with locked(vm, *ops):
                first, second = (vm.prepare([op]) for op in ops)
                second.commit()
                with pytest.raises(InvalidArgument, match="on top"):
                    first.abort()
                first.commit()
            finish(first)
            finish(second)
            assert w.shows(vm, PAGE, b, 0, PAGE)

    def test_a_call_of_its_own_does_not_overtake_them(self) -> None:
        """Entries that it wrote now would be cleared by the bind that came before."""
        with world() as w:
            vm, a, b = w.space(), w.bo("a", BIG), w.bo("b", BIG)
            vm.bind([map_op(0, BIG, a)])
            pending = prepared(vm, unmap_op(0, BIG))
            before = state(vm)
            with pytest.raises(Busy):
                vm.bind([map_op(0, BIG, b)])
            assert state(vm) == before
            finish(pending)
            vm.bind([map_op(0, BIG, b)])
            assert w.shows(vm, 0, b, 0, BIG)


class TestPipelines:
    """Several binds are prepared before the first has run; they run in order, and are cleaned up in any."""

    def random_op(self, dice: Random, bos: list[GemObject]) -> BindOp:
        unit = dice.choice((PAGE, BIG, HUGE))
        addr = dice.randrange(0, 4 * HUGE, unit)
        range_ = min(dice.randint(1, 20) * unit, 4 * HUGE - addr)
        if dice.random() < 0.3:
            return unmap_op(addr, range_)
        bo = dice.choice(bos)
        range_ = min(range_, bo.size)
        return map_op(addr, range_, bo, dice.randrange(0, bo.size - range_ + 1, PAGE) if unit == PAGE else 0)

    @pytest.mark.parametrize("backend", MOST)
    @pytest.mark.parametrize("seed", range(scaled(3, 200)))
    def test_random_binds(self, backend: str, seed: int) -> None:
        dice = Random(seed)
        with world() as w:
            vm = w.space(backend)
            bos = [
                w.bo(name, dice.randint(1, 3) * HUGE + BIG, domain, align=HUGE)
                for name, domain in BOS.items()
            ]
            model = Model()
            for _ in range(6):
                binds = []
                for _ in range(dice.randint(1, 5)):
                    ops = [self.random_op(dice, bos) for _ in range(dice.randint(1, 4))]
                    if dice.random() < 0.2:
                        with locked(vm, *ops):
                            vm.prepare(ops).abort()
                        continue
                    binds.append(prepared(vm, *ops))
                    model.apply(*ops)
                    vm.check()
                for bind in binds:
                    with lockdep.fence_signalling():
                        bind.run()
                model.check(w, vm, range(0, 4 * HUGE, BIG // 2))
                for bind in dice.sample(binds, len(binds)):
                    with vm.lock:
                        bind.cleanup()
                    vm.check()
                vm.backend.check()
                model.check(w, vm, range(0, 4 * HUGE, BIG // 2))

    @pytest.mark.parametrize("order", list(permutations(range(3))))
    def test_cleaning_up_in_any_order(self, order: tuple[int, ...]) -> None:
        with world() as w:
            vm, a, b = w.space(), w.bo("a", HUGE, Domain.VRAM, align=HUGE), w.bo("b", HUGE, Domain.GART)
            vm.bind([map_op(0, HUGE, a)])
            binds = [prepared(vm, op) for op in (map_op(BIG, BIG, b), unmap_op(0, HUGE), map_op(0, HUGE, a))]
            for bind in binds:
                bind.run()
            for number in order:
                with vm.lock:
                    binds[number].cleanup()
            assert w.shows(vm, 0, a, 0, HUGE)
            assert vm.statistics().backend.references == 1


BOS = {"vram": Domain.VRAM, "gart": Domain.GART, "also vram": Domain.VRAM}
assert 3 * (3 * HUGE + BIG) < 32 * MIB


def test_a_bind_that_was_refused_frees_what_it_was_promised() -> None:
    with world() as w:
        vm, bo = w.space(), w.bo("a", HUGE)
        vm.bind([map_op(0, HUGE, bo)])
        with locked(vm, unmap_op(0, HUGE)):
            bind = vm.prepare([unmap_op(PAGE, PAGE), unmap_op(BIG, PAGE)])
            assert vm.statistics().preallocated == 2
            bind.abort()
            assert vm.statistics().preallocated == 0
            bind = vm.prepare([unmap_op(PAGE, PAGE)])
            bind.commit()
            assert vm.statistics().preallocated == 0
        finish(bind)
        _core.fail_allocation(None)
