"""Sparse regions: the reference's vectors, what shows in them, and what is refused."""

from __future__ import annotations

import pytest

from gpuvm.errors import AlreadyMapped, Busy, InvalidArgument, NoSpace, NotFound, NotSupported
from gpuvm.mem.gem import GemObject
from gpuvm.mmu.page_table import PageTable
from gpuvm.mmu.translation import RunState
from gpuvm.nouveau.bind import BindOp
from gpuvm.nouveau.vm import Uvmm
from gpuvm.va import Region
from uvmm_world import (
    BIG,
    HUGE,
    MOST_SPARSE,
    PAGE,
    RANGE,
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
    uvma,
    world,
)

every_backend = pytest.mark.parametrize("backend", MOST_SPARSE)
every_size = pytest.mark.parametrize("unit", [PAGE, BIG, HUGE], ids=["4K", "64K", "2M"])


class Scene(Modelled):
    """A sparse region of the units [16, 32)."""

    def __init__(self, w: World, backend: str, unit: int) -> None:
        super().__init__(w, w.space(backend), (14 * unit, 34 * unit), max(PAGE, unit // 4))
        self.unit = unit
        self.bo: GemObject = w.bo("a", 4 * unit, align=unit)
        self.bind(self.at(map_sparse, 16, 32))

    def at(self, make: object, start: int, end: int, *more: object) -> BindOp:
        assert callable(make)
        op = make(start * self.unit, (end - start) * self.unit, *more)
        assert isinstance(op, BindOp)
        return op

    def map(self, start: int, end: int) -> None:
        self.bind(self.at(map_op, start, end, self.bo))

    def unmap(self, start: int, end: int) -> None:
        self.bind(self.at(unmap_op, start, end))

    def drop(self) -> None:
        self.bind(self.at(unmap_sparse, 16, 32))


@every_backend
@every_size
class TestTheReferencesVectors:
    def test_unmapping_nothing(self, backend: str, unit: int) -> None:
        with world() as w:
            scene = Scene(w, backend, unit)
            before = state(scene.vm)
            scene.unmap(18, 20)
            assert {**state(scene.vm), "counts": ()} == {**before, "counts": ()}

    def test_mapping_and_unmapping_inside(self, backend: str, unit: int) -> None:
        with world() as w:
            scene = Scene(w, backend, unit)
            scene.map(18, 20)
            assert w.shows(scene.vm, 18 * unit, scene.bo, 0, 2 * unit)
            scene.unmap(18, 20)
            assert w.read(scene.vm, 18 * unit) == 0

    @pytest.mark.parametrize(("start", "end"), [(30, 34), (14, 18), (15, 17), (31, 33)])
    def test_mapping_over_a_border(self, backend: str, unit: int, start: int, end: int) -> None:
        with world() as w:
            scene = Scene(w, backend, unit)
            scene.refuse(NoSpace, scene.at(map_op, start, end, scene.bo))

    @pytest.mark.parametrize(("start", "end"), [(24, 40), (8, 17), (20, 24), (8, 40)])
    def test_a_region_over_another(self, backend: str, unit: int, start: int, end: int) -> None:
        with world() as w:
            scene = Scene(w, backend, unit)
            scene.refuse(NoSpace, scene.at(map_sparse, start, end))

    def test_the_same_region_again(self, backend: str, unit: int) -> None:
        """EEXIST, unless something is mapped in it: the kernel looks at that first."""
        with world() as w:
            scene = Scene(w, backend, unit)
            scene.refuse(AlreadyMapped, scene.at(map_sparse, 16, 32))
            scene.map(18, 20)
            scene.refuse(NoSpace, scene.at(map_sparse, 16, 32))

    def test_a_region_over_a_mapping(self, backend: str, unit: int) -> None:
        with world() as w:
            scene = Scene(w, backend, unit)
            scene.map(34, 36)
            scene.refuse(NoSpace, scene.at(map_sparse, 35, 40))

    @pytest.mark.parametrize(("start", "end"), [(16, 24), (24, 32), (15, 32), (40, 48)])
    def test_dropping_what_is_no_region(self, backend: str, unit: int, start: int, end: int) -> None:
        with world() as w:
            scene = Scene(w, backend, unit)
            scene.refuse(NotFound, scene.at(unmap_sparse, start, end))

    def test_dropping_unmaps_what_is_in_it(self, backend: str, unit: int) -> None:
        with world() as w:
            scene = Scene(w, backend, unit)
            scene.bind(scene.at(map_op, 18, 20, scene.bo), scene.at(map_op, 28, 32, scene.bo))
            scene.drop()
            assert len(scene.vm) == 0
            assert w.read(scene.vm, 18 * unit) is None
            scene.map(30, 34)

    def test_unmapping_across_borders_is_allowed(self, backend: str, unit: int) -> None:
        with world() as w:
            scene = Scene(w, backend, unit)
            scene.bind(scene.at(map_op, 14, 16, scene.bo), scene.at(map_op, 16, 18, scene.bo, 2 * unit))
            scene.unmap(15, 17)


@every_backend
class TestCutting:
    """panthor's vm_bind_sparse vectors: unmapping and mapping over parts, of pages of all sizes."""

    def test_what_is_cut_shows_zeros(self, backend: str) -> None:
        with world() as w:
            scene = Modelled(w, w.space(backend), (HUGE - BIG, 3 * HUGE + BIG), BIG // 2)
            bo = w.bo("a", 2 * HUGE, align=HUGE)
            scene.bind(map_sparse(HUGE, 2 * HUGE), map_op(HUGE, 2 * HUGE, bo))
            for addr, range_ in (
                (HUGE + PAGE, PAGE),
                (HUGE + BIG, BIG),
                (2 * HUGE - PAGE, 2 * PAGE),
                (HUGE, PAGE),
                (3 * HUGE - 3 * PAGE, 3 * PAGE),
                (2 * HUGE + BIG // 2, HUGE // 2),
            ):
                scene.bind(unmap_op(addr, range_))
                assert w.read(scene.vm, addr) == 0
            scene.bind(map_op(HUGE, 2 * HUGE, bo))
            scene.bind(unmap_sparse(HUGE, 2 * HUGE))

    def test_pieces_of_a_mapping_stay_in_the_region(self, backend: str) -> None:
        """The kernel once lost the region of remainders: unmapping them left holes instead of zeros."""
        with world() as w:
            scene = Modelled(w, w.space(backend), (0, 2 * BIG))
            bo = w.bo("a", BIG)
            scene.bind(map_sparse(0, BIG), map_op(0, BIG, bo))
            scene.bind(unmap_op(4 * PAGE, PAGE))
            scene.bind(unmap_op(0, 4 * PAGE))
            scene.bind(unmap_op(5 * PAGE, 11 * PAGE))
            assert scene.model.expected(w, 0) == w.read(scene.vm, 0) == 0

    def test_unaligned_regions(self, backend: str) -> None:
        with world() as w:
            scene = Modelled(w, w.space(backend), (0, 3 * HUGE), BIG // 2)
            start, range_ = BIG - PAGE, 2 * HUGE + 3 * PAGE
            scene.bind(map_sparse(start, range_))
            bo = w.bo("a", HUGE, align=HUGE)
            scene.bind(map_op(HUGE, HUGE, bo), map_op(start, 2 * PAGE, bo))
            scene.bind(unmap_op(HUGE + PAGE, HUGE // 2))
            scene.bind(map_sparse(start + range_, BIG))
            scene.bind(unmap_sparse(start, range_))
            scene.bind(unmap_op(0, RANGE), unmap_sparse(start + range_, BIG))


def test_a_large_region_needs_no_tables() -> None:
    with world() as w:
        vm = w.space(kernel_node=(RANGE - HUGE, HUGE))
        assert isinstance(vm.backend, PageTable)
        vm.bind([map_sparse(1 << 38, 1 << 38)])
        assert len(vm.backend.tables()) <= 2
        assert vm.statistics().backend.sparse_bytes == 1 << 38
        assert w.read(vm, 3 << 37) == 0


def test_a_format_without_sparse_entries() -> None:
    with world() as w:
        vm, bo = w.space("x86_64"), w.bo("a", BIG)
        before = state(vm)
        with pytest.raises(NotSupported) as caught:
            vm.bind([map_op(0, BIG, bo), map_sparse(HUGE, HUGE)])
        assert caught.value.request == 1
        assert state(vm) == before


@every_backend
class TestDropping:
    """Between a bind that drops a region and its cleanup."""

    REGION = (HUGE, HUGE)

    def region(self, w: World, backend: str) -> tuple[Uvmm, GemObject]:
        vm, bo = w.space(backend), w.bo("a", BIG)
        vm.bind([map_sparse(*self.REGION), map_op(HUGE, BIG, bo)])
        return vm, bo

    def test_the_entries_go_when_it_runs_and_the_region_in_the_end(self, backend: str) -> None:
        with world() as w:
            vm, bo = self.region(w, backend)
            bind = prepared(vm, unmap_sparse(*self.REGION))
            assert len(vm) == 0
            assert w.shows(vm, HUGE, bo, 0, BIG)
            bind.run()
            assert [run.state for run in vm.backend.runs(*self.REGION)] == [RunState.SPARSE]
            assert len(vm.region_list()) == 1
            with vm.lock:
                bind.cleanup()
            assert [run.state for run in vm.backend.runs(*self.REGION)] == [RunState.INVALID]
            assert vm.region_list() == []

    def test_nobody_maps_there_meanwhile(self, backend: str) -> None:
        with world() as w:
            vm, bo = self.region(w, backend)
            bind = prepared(vm, unmap_sparse(*self.REGION))
            (dropped,) = vm.dropping(HUGE + BIG, PAGE)
            assert dropped == (Region(*self.REGION, sparse=True), bind)
            assert not list(vm.dropping(2 * HUGE, HUGE))
            refused = ((map_op(HUGE, PAGE, bo), Busy), (map_sparse(HUGE, PAGE), NoSpace))
            for op, error in (*refused, (unmap_sparse(*self.REGION), NotFound)):
                with locked(vm, op), pytest.raises(error):
                    vm.prepare([op])
            other = prepared(vm, unmap_op(HUGE, HUGE))
            finish(bind)
            finish(other)
            vm.bind([map_sparse(*self.REGION), map_op(HUGE, BIG, bo)])

    def test_nor_does_the_same_call(self, backend: str) -> None:
        with world() as w:
            vm, bo = self.region(w, backend)
            before = state(vm)
            attempts = (
                (map_op(HUGE, PAGE, bo), InvalidArgument),
                (map_sparse(HUGE, PAGE), NoSpace),
                (map_sparse(*self.REGION), AlreadyMapped),
                (unmap_sparse(*self.REGION), NotFound),
            )
            for op, error in attempts:
                with pytest.raises(error):
                    vm.bind([unmap_sparse(*self.REGION), op])
                assert state(vm) == before
            assert w.shows(vm, HUGE, bo, 0, BIG)
            assert uvma(vm, HUGE).obj is bo

    def test_aborting(self, backend: str) -> None:
        with world() as w:
            vm, bo = self.region(w, backend)
            before = state(vm)
            ops = unmap_sparse(*self.REGION), map_sparse(4 * HUGE, BIG), map_op(4 * HUGE, PAGE, bo)
            with locked(vm, *ops):
                bind = vm.prepare(ops)
                assert w.read(vm, 4 * HUGE) == 0
                bind.abort()
            assert state(vm) == before
            vm.bind(ops)
