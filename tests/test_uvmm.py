"""Binds, from the call to the page table's words."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest

from gpuvm.errors import Busy, InvalidArgument, NoSpace, PermissionDenied
from gpuvm.mem import Domain, Extent
from gpuvm.mem.gem import GemObject
from gpuvm.mmu.formats import PteFlags
from gpuvm.mmu.page_table import PageTable
from gpuvm.mmu.translation import Fault, Translation
from gpuvm.nouveau.bind import BindOp, OpCode
from gpuvm.nouveau.vm import Uvmm
from uvmm_world import (
    ANYWHERE,
    BACKENDS,
    BIG,
    HUGE,
    MIB,
    PAGE,
    RANGE,
    Recorder,
    World,
    finish,
    map_op,
    map_sparse,
    mapped,
    prepared,
    state,
    unmap_op,
    unmap_sparse,
    uvma,
    world,
)

every_backend = pytest.mark.parametrize("backend", BACKENDS)


@every_backend
class TestBinding:
    def test_what_is_mapped_leads_to_the_objects_memory(self, backend: str) -> None:
        with world() as w:
            vm, bo = w.space(backend), w.bo("a", 3 * MIB)
            vm.bind([map_op(HUGE, 3 * MIB, bo)])
            assert w.shows(vm, HUGE, bo, 0, 3 * MIB)
            assert w.read(vm, HUGE - PAGE) is None
            assert w.read(vm, HUGE + 3 * MIB) is None
            vm.bind([unmap_op(HUGE, 3 * MIB)])
            assert w.read(vm, HUGE) is None
            assert len(vm) == 0

    def test_offsets(self, backend: str) -> None:
        with world() as w:
            vm, bo = w.space(backend), w.bo("a", MIB)
            vm.bind([map_op(7 * PAGE, 5 * PAGE, bo, 3 * PAGE), map_op(BIG, BIG, bo, 2 * BIG)])
            assert w.shows(vm, 7 * PAGE, bo, 3 * PAGE, 5 * PAGE)
            assert w.shows(vm, BIG, bo, 2 * BIG, BIG)

    def test_one_object_twice_and_in_two_spaces(self, backend: str) -> None:
        with world() as w:
            first, second, bo = w.space(backend), w.space(backend), w.bo("a", BIG)
            first.bind([map_op(0, BIG, bo), map_op(HUGE, BIG, bo)])
            second.bind([map_op(BIG, BIG, bo)])
            assert w.shows(first, HUGE, bo, 0, BIG)
            assert w.shows(second, BIG, bo, 0, BIG)
            assert set(bo.vms) == {first, second}
            first.bind([unmap_op(0, RANGE)])
            assert set(bo.vms) == {second}

    def test_what_the_gpu_writes_the_client_sees(self, backend: str) -> None:
        with world() as w:
            vm, bo = w.space(backend), w.bo("a", BIG, Domain.GART)
            vm.bind([map_op(0, BIG, bo)])
            found = vm.backend.translate(PAGE + 5)
            assert isinstance(found, Translation)
            w.device.memory(found.aperture).view[found.address] = 77
            assert bo.view[PAGE + 5] == 77

    def test_several_operations_in_order(self, backend: str) -> None:
        with world() as w:
            vm = w.space(backend)
            a, b, c = (w.bo(name, 6 * BIG) for name in "abc")
            vm.bind(
                [
                    map_op(0, BIG, a),
                    map_op(BIG, 2 * BIG, b),
                    map_op(3 * BIG, 3 * BIG, c),
                    unmap_op(BIG, 4 * BIG),
                ]
            )
            assert mapped(vm) == [(0, BIG, a, 0), (5 * BIG, 6 * BIG, c, 2 * BIG)]
            assert w.shows(vm, 5 * BIG, c, 2 * BIG, BIG)
            assert w.read(vm, BIG) is None

    def test_mapping_and_unmapping_in_one_call(self, backend: str) -> None:
        with world() as w:
            vm, a, b = w.space(backend), w.bo("a", BIG), w.bo("b", BIG)
            vm.bind([map_op(0, BIG, a), unmap_op(0, BIG), map_op(0, BIG, b), map_op(4 * PAGE, PAGE, a)])
            assert w.shows(vm, 0, b, 0, 4 * PAGE)
            assert w.shows(vm, 4 * PAGE, a, 0, PAGE)
            assert w.shows(vm, 5 * PAGE, b, 5 * PAGE, 11 * PAGE)

    def test_private_objects(self, backend: str) -> None:
        with world() as w:
            vm = w.space(backend)
            bo = w.bo("a", BIG, of=vm)
            vm.bind([map_op(0, BIG, bo)])
            assert vm.extobjs == []
            assert w.shows(vm, 0, bo, 0, BIG)

    def test_nothing_at_all(self, backend: str) -> None:
        with world() as w:
            vm = w.space(backend)
            vm.bind([])
            vm.bind([unmap_op(0, RANGE)])
            assert vm.statistics().bind_ops == 1

    def test_close_leaves_nothing(self, backend: str) -> None:
        with world() as w:
            vm = w.space(backend, kernel_node=(HUGE, HUGE))
            bo = w.bo("a", BIG)
            vm.bind([map_op(addr, BIG, bo) for addr in (0, 2 * HUGE, RANGE - BIG)])
            with pytest.raises(Busy):
                vm.backend.close()
            vm.close()
            vm.backend.close()
            with pytest.raises(InvalidArgument, match="closed"):
                vm.close()
            w.vms.clear()


class TestWords:
    def word(self, vm: Uvmm, addr: int) -> int:
        found = vm.backend.translate(addr)
        assert isinstance(found, Translation)
        return found.word

    @pytest.mark.parametrize(
        ("backend", "shift"), [("gp100", 12), ("gp100", 16), ("gp100", 21), ("x86_64", 21)]
    )
    def test_in_the_gpus_own_format(self, backend: str, shift: int) -> None:
        with world() as w:
            vm, bo = w.space(backend), w.bo("a", 1 << shift, Domain.VRAM, align=1 << shift)
            vm.bind([map_op(HUGE, 1 << shift, bo)])
            assert isinstance(vm.backend, PageTable)
            format = vm.backend.format
            aperture, addr, _ = bo.extents[0]
            assert self.word(vm, HUGE) == format.pte(format.level_of(shift), aperture, addr)

    def test_system_memory_is_in_small_pages_and_volatile(self) -> None:
        with world() as w:
            vm, bo = w.space(), w.bo("a", HUGE, Domain.GART)
            vm.bind([map_op(0, HUGE, bo)])
            addr = bo.extents[0].addr
            assert self.word(vm, 0) == 1 | 2 << 1 | 1 << 3 | addr >> 4
            assert vm.statistics().backend.mapped == {21: 0, 16: 0, 12: 512}

    def test_a_kind_is_in_the_words_and_stays_with_what_is_left(self) -> None:
        with world() as w:
            vm, bo = w.space(), w.bo("a", 2 * HUGE, Domain.VRAM, align=HUGE)
            vm.bind([map_op(0, 2 * HUGE, bo, kind=KIND)])
            vm.bind([unmap_op(BIG, PAGE)])
            for addr in (0, BIG + PAGE, 2 * BIG, HUGE):
                assert self.word(vm, addr) >> 56 == KIND
            assert [va.kind for va in (uvma(vm, 0), uvma(vm, HUGE))] == [KIND, KIND]
            assert w.read(vm, BIG) is None

    def test_another_kind_of_the_same_bytes(self) -> None:
        with world() as w:
            vm, bo = w.space(recorded=True), w.bo("a", BIG, Domain.VRAM)
            vm.bind([map_op(0, BIG, bo)])
            recorder = vm.backend
            assert isinstance(recorder, Recorder)
            recorder.calls.clear()
            vm.bind([map_op(0, BIG, bo, kind=KIND)])
            assert [call[0] for call in recorder.calls] == ["unmap", "map"]
            assert self.word(vm, 0) >> 56 == KIND
            recorder.calls.clear()
            vm.bind([map_op(0, BIG, bo, kind=KIND)])
            assert [call[0] for call in recorder.calls] == ["map"]


KIND = 0xFE
"""Of gp100, uncompressed."""
COMPRESSED = 0x0C
"""Of tu102."""


class TestRefusing:
    """Every reason, and that nothing changed."""

    def refuse(
        self, vm: Uvmm, error: type[Exception], *ops: BindOp, index: int = 0, match: str | None = None
    ) -> None:
        before = state(vm)
        with pytest.raises(error, match=match) as caught:
            vm.bind(ops)
        assert getattr(caught.value, "request", None) == index
        assert state(vm) == before
        vm.check()

    @pytest.mark.parametrize("op", OpCode)
    @pytest.mark.parametrize("sparse", [False, True])
    @pytest.mark.parametrize(
        ("addr", "range_"),
        [
            (1, PAGE),
            (0, 1),
            (0, 0),
            (RANGE, PAGE),
            (RANGE - PAGE, 2 * PAGE),
            (1 << 64, PAGE),
            (HUGE, PAGE),
            (-PAGE, PAGE),
        ],
    )
    def test_ranges(self, op: OpCode, sparse: bool, addr: int, range_: int) -> None:
        with world() as w:
            vm, bo = w.space(kernel_node=(HUGE, HUGE)), w.bo("a", BIG)
            self.refuse(
                vm, InvalidArgument, map_op(0, PAGE, bo), BindOp(op, addr, range_, bo, sparse=sparse), index=1
            )

    @pytest.mark.parametrize(
        ("offset", "range_"), [(1, PAGE), (BIG, PAGE), (BIG - PAGE, 2 * PAGE), (0, BIG + PAGE), (-PAGE, PAGE)]
    )
    def test_parts_of_the_object(self, offset: int, range_: int) -> None:
        with world() as w:
            vm, bo = w.space(), w.bo("a", BIG)
            self.refuse(vm, InvalidArgument, map_op(0, range_, bo, offset))

    def test_maps_of_nothing_or_of_strangers(self) -> None:
        with world() as w, world() as other:
            vm, theirs = w.space(), other.bo("theirs", BIG)
            self.refuse(vm, InvalidArgument, BindOp(OpCode.MAP, 0, PAGE))
            self.refuse(vm, InvalidArgument, map_op(0, PAGE, theirs))

    def test_another_spaces_private_object(self) -> None:
        with world() as w:
            vm, owner = w.space(), w.space()
            self.refuse(vm, PermissionDenied, map_op(0, PAGE, w.bo("a", PAGE, of=owner)))

    def test_unknown_operations(self) -> None:
        with world() as w:
            self.refuse(w.space(), InvalidArgument, BindOp(2, 0, PAGE))  # type: ignore[arg-type]

    @pytest.mark.parametrize("kind", [-1, 256, 0xFF])
    def test_kinds_that_there_are_not(self, kind: int) -> None:
        with world() as w:
            self.refuse(w.space(), InvalidArgument, map_op(0, BIG, w.bo("a", BIG), kind=kind), match="kind")

    def test_kinds_that_a_page_cannot_have(self) -> None:
        with world() as w:
            vm, bo, system = (
                w.space("tu102"),
                w.bo("a", BIG, Domain.VRAM, align=BIG),
                w.bo("b", BIG, Domain.GART),
            )
            self.refuse(vm, InvalidArgument, map_op(0, BIG, system, kind=COMPRESSED), match="compressed")
            self.refuse(vm, InvalidArgument, map_op(PAGE, PAGE, bo, kind=COMPRESSED), match="compressed")
            vm.bind([map_op(0, BIG, bo, kind=COMPRESSED)])
            self.refuse(vm, InvalidArgument, unmap_op(0, PAGE), match="compressed")

    def test_objects_that_the_gpu_cannot_reach(self) -> None:
        with world() as w:
            self.refuse(w.space(), InvalidArgument, map_op(0, BIG, w.bo("a", BIG, Domain.CPU)), match="reach")

    def test_objects_too_large_for_the_memory(self) -> None:
        with world() as w:
            vm, bo = w.space(), w.device.create(64 * MIB, ANYWHERE)
            before = state(vm)
            with pytest.raises(NoSpace):
                vm.bind([map_op(0, BIG, bo)])
            assert state(vm) == before

    def test_the_last_of_many(self) -> None:
        with world() as w:
            vm, a, b = w.space(), w.bo("a", HUGE), w.bo("b", HUGE)
            vm.bind([map_op(0, HUGE, a), map_op(HUGE, HUGE, a), map_sparse(8 * HUGE, HUGE)])
            self.refuse(
                vm,
                NoSpace,
                map_op(PAGE, PAGE, b),
                unmap_op(3 * PAGE, 2 * BIG),
                map_op(HUGE + BIG, BIG, a),
                map_sparse(16 * HUGE, 3 * PAGE),
                map_op(BIG, HUGE, b),
                unmap_sparse(8 * HUGE, HUGE),
                map_op(16 * HUGE - PAGE, 2 * PAGE, b),
                index=6,
            )

    def test_a_space_wider_than_its_backend(self) -> None:
        w = World()
        with pytest.raises(InvalidArgument, match="range"):
            Uvmm("wide", device=w.device, backend=w.backend("host", "narrow"), range=2 * RANGE)


class TestItself:
    def test_statistics(self) -> None:
        with world() as w:
            vm, bo = w.space(), w.bo("a", HUGE, Domain.VRAM, align=HUGE)
            vm.bind([map_op(0, HUGE, bo), unmap_op(HUGE, PAGE)])
            vm.bind([unmap_op(0, PAGE)])
            now = vm.statistics()
            assert (now.name, now.mappings, now.binds, now.bind_ops, now.pending) == (vm.name, 1, 2, 3, 0)
            assert now.backend.mapped == {21: 0, 16: 31, 12: 15}
            assert now.backend.references == 46

    def test_an_unmapped_object_can_go(self) -> None:
        with world() as w:
            vm = w.space()
            bo: GemObject | None = w.device.create(BIG, ANYWHERE)
            gone = weakref.ref(bo)
            vm.bind([map_op(0, BIG, bo)])  # type: ignore[arg-type]
            bo = None
            gc.collect()
            assert gone() is not None
            vm.bind([unmap_op(0, BIG)])
            gc.collect()
            assert gone() is None
            assert w.device.statistics().objects == 0

    def test_check_sees_entries_that_should_not_be_there(self) -> None:
        with world() as w:
            vm, bo = w.space(), w.bo("a", BIG, Domain.VRAM)
            vm.bind([map_op(0, BIG, bo)])
            aperture, addr, _ = bo.extents[0]
            vm.backend.map(0, PAGE * 16, 16, Extent(aperture, addr, BIG), 0, PteFlags.READ_ONLY)
            with pytest.raises(AssertionError, match="it should be"):
                vm.check()
            vm.backend.map(0, BIG, 16, Extent(aperture, addr, BIG))
            vm.backend.get(0, PAGE, 12)
            with pytest.raises(AssertionError, match="referenced"):
                vm.check()
            vm.backend.put(0, PAGE, 12)
            vm.backend.unmap(0, BIG, 16)
            with pytest.raises(AssertionError, match="mapped"):
                vm.check()
            vm.backend.map(0, BIG, 16, Extent(aperture, addr, BIG))

    def test_close_waits_for_nobody(self) -> None:
        with world() as w:
            vm, bo = w.space(), w.bo("a", BIG)
            bind = prepared(vm, map_op(0, BIG, bo))
            with pytest.raises(Busy, match="clean up"):
                vm.close()
            finish(bind)
            assert isinstance(vm.backend.translate(BIG), Fault)


@pytest.mark.parametrize(
    ("argument", "message"), [("device", "None; pass a Device"), ("backend", "None; pass a PageTable")]
)
def test_a_space_needs_both(argument: str, message: str) -> None:
    with world() as w:
        arguments: dict[str, Any] = {"device": w.device, "backend": w.backend("host", "some"), argument: None}
        with pytest.raises(InvalidArgument, match=message):
            Uvmm("half", **arguments)


def test_what_is_no_operation() -> None:
    with world() as w:
        vm, none = w.space("host"), 5
        operations: Any = [unmap_op(0, PAGE), none]
        with pytest.raises(InvalidArgument, match=r"5 is none; pass BindOp") as caught:
            vm.bind(operations)
        assert caught.value.request == 1
        vm.check()
