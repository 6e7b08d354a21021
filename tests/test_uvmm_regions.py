"""The original series' regions: every mapping lies in one, ALLOC makes them and FREE drops them."""

from __future__ import annotations

from random import Random

import pytest

from gpuvm.errors import AlreadyMapped, Busy, GpuvmError, InvalidArgument, NoSpace, NotFound, OutOfMemory
from gpuvm.mem import Domain, faults
from gpuvm.mem.gem import GemObject
from gpuvm.mmu.translation import RunState
from gpuvm.nouveau.bind import BindOp, OpCode, Stage
from gpuvm.nouveau.vm import Uvmm
from gpuvm.va import Region, Regions
from suite import scaled
from uvmm_world import (
    BIG,
    HUGE,
    MOST_SPARSE,
    PAGE,
    RANGE,
    Model,
    Modelled,
    World,
    finish,
    locked,
    map_op,
    map_sparse,
    prepared,
    state,
    unmap_op,
    unmap_sparse,
    world,
)

every_backend = pytest.mark.parametrize("backend", MOST_SPARSE)
sparse_or_not = pytest.mark.parametrize("sparse", [False, True], ids=["plain", "sparse"])
WINDOW = (0, 8 * HUGE)
REGION = (2 * HUGE, HUGE)


def alloc(addr: int, range_: int, *, sparse: bool = False) -> BindOp:
    return BindOp(OpCode.ALLOC, addr, range_, sparse=sparse)


def free(addr: int, range_: int) -> BindOp:
    return BindOp(OpCode.FREE, addr, range_)


class Scene(Modelled):
    """A region, and an object mapped at its beginning and at its end."""

    def __init__(self, w: World, backend: str, sparse: bool) -> None:
        super().__init__(w, w.space(backend, regions=Regions.REQUIRED), WINDOW, HUGE // 2)
        self.bo: GemObject = w.bo("a", HUGE, align=HUGE)
        self.region = Region(*REGION, sparse)
        self.bind(alloc(*REGION, sparse=sparse))
        self.bind(map_op(2 * HUGE, BIG, self.bo), map_op(3 * HUGE - PAGE, PAGE, self.bo))


@every_backend
@sparse_or_not
class TestOperations:
    def test_what_is_not_mapped(self, backend: str, sparse: bool) -> None:
        with world() as w:
            scene = Scene(w, backend, sparse)
            assert w.read(scene.vm, 2 * HUGE + BIG) == (0 if sparse else None)
            assert scene.vm.region_list() == [scene.region]
            sparse_bytes = scene.vm.statistics().backend.sparse_bytes
            assert sparse_bytes == (HUGE if sparse else 0)

    @pytest.mark.parametrize(
        ("addr", "range_"),
        [(0, PAGE), (2 * HUGE - PAGE, 2 * PAGE), (3 * HUGE - PAGE, 2 * PAGE), (2 * HUGE - PAGE, HUGE)],
        ids=["in none", "over its beginning", "over its end", "over all of it"],
    )
    def test_a_map_that_is_in_no_region(self, backend: str, sparse: bool, addr: int, range_: int) -> None:
        with world() as w:
            scene = Scene(w, backend, sparse)
            scene.refuse(InvalidArgument, map_op(addr, range_, scene.bo))

    def test_nor_over_two_neighbours(self, backend: str, sparse: bool) -> None:
        with world() as w:
            scene = Scene(w, backend, sparse)
            scene.bind(alloc(3 * HUGE, HUGE))
            op = map_op(3 * HUGE - PAGE, 2 * PAGE, scene.bo)
            scene.refuse(InvalidArgument, alloc(0, PAGE), op, index=1)

    def test_unmaps_may_cross_regions_and_holes(self, backend: str, sparse: bool) -> None:
        with world() as w:
            scene = Scene(w, backend, sparse)
            scene.bind(alloc(4 * HUGE, HUGE), map_op(4 * HUGE, BIG, scene.bo))
            scene.bind(unmap_op(2 * HUGE + PAGE, 4 * HUGE))
            assert [va.end for va in scene.vm] == [2 * HUGE + PAGE]

    def test_pieces_stay_in_their_region(self, backend: str, sparse: bool) -> None:
        """Bug 45 of the series: remainders forgot their region, and left holes where it was sparse."""
        with world() as w:
            scene = Scene(w, backend, sparse)
            scene.bind(unmap_op(2 * HUGE + 4 * PAGE, PAGE))
            scene.bind(unmap_op(2 * HUGE, 4 * PAGE), unmap_op(2 * HUGE + 5 * PAGE, 11 * PAGE))
            assert w.read(scene.vm, 2 * HUGE + 7 * PAGE) == (0 if sparse else None)
            scene.bind(map_op(2 * HUGE, BIG, scene.bo))

    def test_free_unmaps_what_is_in_it(self, backend: str, sparse: bool) -> None:
        with world() as w:
            scene = Scene(w, backend, sparse)
            scene.bind(free(*REGION))
            assert (len(scene.vm), scene.vm.region_list()) == (0, [])
            scene.refuse(InvalidArgument, map_op(2 * HUGE, BIG, scene.bo))
            scene.bind(alloc(*REGION, sparse=not sparse), map_op(2 * HUGE, BIG, scene.bo))

    @pytest.mark.parametrize(
        ("addr", "range_"),
        [(0, PAGE), (2 * HUGE, HUGE - PAGE), (2 * HUGE + PAGE, HUGE - PAGE), (HUGE, 2 * HUGE)],
    )
    def test_free_of_what_is_no_region(self, backend: str, sparse: bool, addr: int, range_: int) -> None:
        """Bug 36 of the series: it was accepted."""
        with world() as w:
            scene = Scene(w, backend, sparse)
            scene.refuse(NotFound, unmap_op(2 * HUGE, BIG), free(addr, range_), index=1)

    @pytest.mark.parametrize(
        ("addr", "range_"),
        [(0, 8 * HUGE), (2 * HUGE - PAGE, 2 * PAGE), (2 * HUGE + BIG, BIG), (2 * HUGE, HUGE - PAGE)],
    )
    def test_regions_do_not_overlap(self, backend: str, sparse: bool, addr: int, range_: int) -> None:
        with world() as w:
            scene = Scene(w, backend, sparse)
            scene.refuse(NoSpace, alloc(addr, range_))

    def test_the_same_region_again(self, backend: str, sparse: bool) -> None:
        with world() as w:
            scene = Scene(w, backend, sparse)
            scene.refuse(NoSpace, alloc(*REGION))
            scene.refuse(AlreadyMapped, unmap_op(*REGION), alloc(*REGION, sparse=sparse), index=1)

    def test_the_others_words_for_it(self, backend: str, sparse: bool) -> None:
        with world() as w:
            scene = Scene(w, backend, sparse)
            scene.refuse(InvalidArgument, map_sparse(5 * HUGE, HUGE))
            scene.refuse(InvalidArgument, unmap_sparse(*REGION))
            vm = w.space(backend)
            for op in (alloc(0, HUGE, sparse=sparse), free(0, HUGE)):
                with pytest.raises(InvalidArgument, match="MAP and UNMAP"):
                    vm.bind([op])

    def test_all_in_one_call(self, backend: str, sparse: bool) -> None:
        with world() as w:
            scene = Scene(w, backend, sparse)
            scene.bind(
                alloc(5 * HUGE, 2 * HUGE, sparse=sparse),
                map_op(5 * HUGE, HUGE, scene.bo),
                free(*REGION),
                unmap_op(5 * HUGE + BIG, BIG),
                free(5 * HUGE, 2 * HUGE),
                alloc(0, PAGE),
            )
            assert scene.vm.region_list() == [Region(0, PAGE)]


@every_backend
@sparse_or_not
class TestDropping:
    """Bug 44 of the series: a region was gone at once, and what it had was taken from its successor later."""

    def test_it_stays_until_cleanup(self, backend: str, sparse: bool) -> None:
        with world() as w:
            scene = Scene(w, backend, sparse)
            vm, bo = scene.vm, scene.bo
            bind = prepared(vm, free(*REGION))
            assert list(vm.dropping(2 * HUGE, PAGE)) == [(scene.region, bind)]
            refused = (
                (map_op(2 * HUGE, PAGE, bo), Busy),
                (alloc(2 * HUGE, PAGE), NoSpace),
                (alloc(*REGION), AlreadyMapped),
                (free(*REGION), NotFound),
            )
            for op, error in refused:
                with locked(vm, op), pytest.raises(error):
                    vm.prepare([op])
            bind.run()
            shown = [run.state for run in vm.backend.runs(*REGION)]
            assert shown == [RunState.SPARSE if sparse else RunState.INVALID]
            with vm.lock:
                bind.cleanup()
            assert vm.region_list() == []
            assert not list(vm.dropping(0, RANGE))
            vm.bind([alloc(*REGION), map_op(2 * HUGE, BIG, bo)])

    def test_nobody_maps_there_in_the_same_call(self, backend: str, sparse: bool) -> None:
        with world() as w:
            scene = Scene(w, backend, sparse)
            for op, error in (
                (map_op(2 * HUGE, PAGE, scene.bo), InvalidArgument),
                (alloc(2 * HUGE, PAGE), NoSpace),
                (alloc(*REGION), AlreadyMapped),
                (free(*REGION), NotFound),
            ):
                scene.refuse(error, free(*REGION), op, index=1)

    def test_aborting(self, backend: str, sparse: bool) -> None:
        """Bug 39 of the series: undoing an ALLOC followed a pointer that it had none of."""
        with world() as w:
            scene = Scene(w, backend, sparse)
            before = state(scene.vm)
            ops = free(*REGION), alloc(5 * HUGE, HUGE, sparse=sparse), map_op(5 * HUGE, BIG, scene.bo)
            with locked(scene.vm, *ops):
                for length in range(len(ops) + 1):
                    bind = scene.vm.prepare(ops[:length])
                    bind.abort()
                    assert bind.stage is Stage.ABORTED
                    assert state(scene.vm) == before
            finish(prepared(scene.vm, *ops))

    def test_every_allocation_fails(self, backend: str, sparse: bool) -> None:
        with world() as w:
            scene = Scene(w, backend, sparse)
            ops = (
                free(*REGION),
                alloc(1 << 39, HUGE + PAGE, sparse=sparse),
                map_op(1 << 39, HUGE, scene.bo),
            )
            before = state(scene.vm)
            for number in range(100):
                with faults.refuse_allocation(number):
                    try:
                        scene.vm.bind(ops)
                    except OutOfMemory:
                        assert state(scene.vm) == before
                    else:
                        break
            assert number > 0
            assert scene.vm.region_list() == [Region(1 << 39, HUGE + PAGE, sparse)]


def test_only_two_rules() -> None:
    with world() as w, pytest.raises(InvalidArgument, match="REQUIRED"):
        Uvmm("none", device=w.device, backend=w.space().backend, regions=Regions.OFF)


def test_closing_drops_them() -> None:
    """What `world` checks: nothing is referenced or sparse afterwards."""
    with world() as w:
        scene = Scene(w, "gp100", sparse=True)
        scene.bind(alloc(0, HUGE), alloc(6 * HUGE, 2 * HUGE, sparse=True), map_op(0, BIG, scene.bo))


class Oracle:
    """Which of random operations are refused, by looking at each page."""

    def __init__(self) -> None:
        self.model = Model()
        self.regions: dict[tuple[int, int], bool] = {}

    def refuses(self, op: BindOp) -> type[GpuvmError] | None:
        key, inside = (op.addr, op.range), [addr for addr in self.model.pages if op.addr <= addr < op.end]
        touched = [(addr, end) for addr, end in self.spans() if addr < op.end and op.addr < end]
        if op.op is OpCode.MAP:
            return (
                None if any(addr <= op.addr and op.end <= end for addr, end in touched) else InvalidArgument
            )
        if op.op is OpCode.ALLOC and touched:
            return AlreadyMapped if key in self.regions and not inside else NoSpace
        return NotFound if op.op is OpCode.FREE and key not in self.regions else None

    def spans(self) -> list[tuple[int, int]]:
        return [(addr, addr + range_) for addr, range_ in self.regions]

    def apply(self, op: BindOp) -> None:
        if op.op is OpCode.ALLOC:
            self.regions[op.addr, op.range] = op.sparse
        elif op.op is OpCode.FREE:
            del self.regions[op.addr, op.range]
        self.model.apply(op)


@every_backend
@pytest.mark.parametrize("seed", range(scaled(4, 200)))
def test_random_operations(backend: str, seed: int) -> None:
    dice = Random(seed)
    with world() as w:
        vm = w.space(backend, regions=Regions.REQUIRED)
        bos = [w.bo(name, 4 * HUGE, Domain.VRAM, align=HUGE) for name in "ab"]
        oracle = Oracle()
        for _ in range(60):
            unit = dice.choice((PAGE, BIG, HUGE, HUGE))
            addr = dice.randrange(0, 8 * HUGE, unit)
            range_ = min(dice.randint(1, 4) * unit, 8 * HUGE - addr)
            if oracle.regions and dice.random() < 0.3:
                addr, range_ = dice.choice(list(oracle.regions))
            code = dice.choice(list(OpCode))
            bo = dice.choice(bos) if code is OpCode.MAP else None
            op = BindOp(
                code, addr, min(range_, 4 * HUGE), bo, sparse=code is OpCode.ALLOC and dice.random() < 0.5
            )
            refused = oracle.refuses(op)
            if refused is None:
                vm.bind([op])
                oracle.apply(op)
            else:
                with pytest.raises(refused):
                    vm.bind([op])
            oracle.model.check(w, vm, range(0, 8 * HUGE, BIG))
            vm.check()
            assert {(r.addr, r.range): r.sparse for r in vm.region_list()} == oracle.regions
