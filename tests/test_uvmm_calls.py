"""Whole calls of several operations, next to a dictionary of pages: all or none, wherever they fail."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from driver_failures import core_refuses
from gpuvm.errors import (
    AlreadyMapped,
    GpuvmError,
    InvalidArgument,
    NoSpace,
    NotFound,
    OutOfMemory,
    PermissionDenied,
)
from gpuvm.mem import Domain, faults
from gpuvm.mem.gem import GemObject
from gpuvm.nouveau.bind import BindOp, OpCode
from gpuvm.nouveau.vm import Uvmm
from suite import scaled
from uvmm_world import (
    BIG,
    HUGE,
    MIB,
    PAGE,
    Model,
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

END = 4 * HUGE
BOS = (
    (2 * HUGE, Domain.VRAM, HUGE, True),
    (HUGE + BIG, Domain.VRAM, HUGE, False),
    (HUGE, Domain.GART, PAGE, True),
    (3 * BIG, Domain.VRAM | Domain.GART, BIG, False),
)
"""Size, domains, alignment, and whether private to the space."""


class Space:
    """A space with objects, and what the pages of it should show."""

    def __init__(self, w: World, *, recorded: bool = False) -> None:
        self.w, self.vm, self.model = w, w.space(recorded=recorded), Model()
        self.bos = [
            w.bo(str(index), size, domains, self.vm if private else None, align=align)
            for index, (size, domains, align, private) in enumerate(BOS)
        ]

    def expect(self, ops: list[BindOp]) -> tuple[type[GpuvmError], int] | None:
        """What is wrong with a call, by looking at each page; if nothing is, the model has carried it out."""
        model, dropped = Model(), set[tuple[int, int]]()
        model.pages, model.regions = dict(self.model.pages), set(self.model.regions)
        for index, op in enumerate(ops):
            error = refusal(model, dropped, op)
            if error is not None:
                return error, index
            if op.sparse and op.op is OpCode.UNMAP:
                dropped.add((op.addr, op.range))
                model.apply(unmap_op(op.addr, op.range))
            else:
                model.apply(op)
        model.regions -= dropped
        self.model = model
        return None

    def check(self) -> None:
        self.model.check(self.w, self.vm, range(0, END, PAGE))
        self.vm.check()
        self.vm.backend.check()

    def looks(self) -> tuple[object, ...]:
        """All that two spaces have in common that were bound alike."""
        vm, number = self.vm, {bo: index for index, bo in enumerate(self.bos)}
        mappings = [(va.addr, va.range, number[va.obj], va.offset, va.flags) for va in vm]
        pages = [[run[:3] for run in uvma(vm, va.addr).pages] for va in vm]
        statistics = vm.statistics()
        runs = [(run.va, run.range, run.state, run.kind, run.flags) for run in vm.backend.runs(0, END)]
        return mappings, pages, runs, statistics.kept, statistics.backend.references, statistics.bind_ops


def refusal(model: Model, dropped: set[tuple[int, int]], op: BindOp) -> type[GpuvmError] | None:
    """The error of one operation."""
    key = op.addr, op.range
    touched = [(addr, end) for addr, end in spans(model.regions) if addr < op.end and op.addr < end]
    inside = any(op.addr <= page < op.end for page in model.pages)
    if op.shows is not None:
        if any(addr < op.end and op.addr < end for addr, end in spans(dropped)):
            return InvalidArgument
        across = any(not (addr <= op.addr and op.end <= end) for addr, end in touched)
        return NoSpace if across else None
    if op.op is OpCode.MAP:
        again = key in model.regions and not inside
        return AlreadyMapped if again else NoSpace if touched or inside else None
    lost = op.sparse and (key not in model.regions or key in dropped)
    return NotFound if lost else None


def spans(ranges: set[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    return ((addr, addr + range_) for addr, range_ in ranges)


@st.composite
def operations(draw: st.DrawFn) -> tuple[object, ...]:
    """One that needs an object's number instead of an object."""
    unit = draw(st.sampled_from((PAGE, BIG, BIG, HUGE)))
    first = draw(st.integers(0, END // unit - 1))
    what = draw(st.sampled_from(("map", "map", "map", "unmap", "make", "drop")))
    most = END // unit - first
    if what in ("make", "drop"):
        return what, draw(st.sampled_from((0, HUGE, 2 * HUGE))), draw(st.sampled_from((BIG, HUGE, 2 * HUGE)))
    range_ = draw(st.integers(1, min(most, 20))) * unit
    if what == "unmap":
        return what, first * unit, range_
    number = draw(st.integers(0, len(BOS) - 1))
    size = BOS[number][0]
    range_ = min(range_, size)
    slack = (size - range_) // PAGE
    offset = draw(st.sampled_from((0, min(first * unit, slack * PAGE), draw(st.integers(0, slack)) * PAGE)))
    return what, first * unit, range_, number, offset, draw(st.sampled_from((0, 0, 0, 0xFE)))


def made(space: Space, operation: tuple[object, ...]) -> BindOp:
    what, addr, range_, *more = operation
    assert isinstance(addr, int)
    assert isinstance(range_, int)
    if what == "map":
        number, offset, kind = more
        assert isinstance(number, int)
        assert isinstance(offset, int)
        assert isinstance(kind, int)
        return map_op(addr, range_, space.bos[number], offset, kind)
    make = {"unmap": unmap_op, "make": map_sparse, "drop": unmap_sparse}[str(what)]
    return make(addr, range_)


calls = st.lists(st.lists(operations(), min_size=1, max_size=6), min_size=1, max_size=6)


@settings(max_examples=scaled(30, 600), deadline=None)
@given(calls)
def test_calls_next_to_a_dictionary(drawn: list[list[tuple[object, ...]]]) -> None:
    """Written by the core, and call by call through another backend."""
    with world() as w:
        both = Space(w), Space(w, recorded=True)
        for operations_ in drawn:
            for space in both:
                ops = [made(space, operation) for operation in operations_]
                before, expected = state(space.vm), space.expect(ops)
                note(f"{ops} {expected}")
                refused = None
                try:
                    space.vm.bind(ops)
                except GpuvmError as error:
                    refused = type(error), error.request
                assert refused == expected
                assert refused is None or state(space.vm) == before
                space.check()
            assert both[0].looks() == both[1].looks()


@settings(max_examples=scaled(6, 200), deadline=None)
@given(calls, st.booleans())
def test_every_allocation_of_a_call_fails(drawn: list[list[tuple[object, ...]]], recorded: bool) -> None:
    """Of the last one, whose operations nobody refuses; what the others left is as before each time."""
    with world() as w:
        space = Space(w, recorded=recorded)
        for operations_ in drawn:
            accepted: list[BindOp] = []
            for operation in operations_:
                kept = space.model
                attempt = [*accepted, made(space, operation)]
                if space.expect(attempt) is None:
                    accepted = attempt
                space.model = kept
            with locked(space.vm, *accepted):
                fails(space.vm, accepted)
            assert space.expect(accepted) is None
            space.vm.bind(accepted)
            space.check()


def fails(vm: Uvmm, ops: list[BindOp]) -> None:
    """Prepare ``ops`` with each allocation refused in turn, until none is; abort that."""
    before = state(vm)
    for source in (core_refuses, faults.refuse_allocation):
        for number in count():
            with source(number):
                try:
                    bind = vm.prepare(ops)
                except OutOfMemory:
                    assert state(vm) == before
                else:
                    bind.abort()
                    break
        assert state(vm) == before


class TestWhatWentAndMayComeBack:
    """Between prepare and commit."""

    def test_mappings_are_the_same_objects_again(self) -> None:
        with world() as w:
            vm, bo = w.space(), w.bo("a", HUGE)
            vm.bind([map_op(0, HUGE, bo)])
            va, (vm_bo,) = uvma(vm, 0), vm.vm_bos()
            pages, references = va.pages, vm_bo.refcount
            with locked(vm, unmap_op(BIG, PAGE)):
                bind = vm.prepare([unmap_op(BIG, PAGE), map_op(0, HUGE, bo)])
                assert [va.vm is vm, va in list(vm_bo)] == [False, False]
                vm.check()
                bind.abort()
            assert uvma(vm, 0) is va
            assert [va.vm is vm, va in list(vm_bo)] == [True, True]
            assert (va.pages, vm_bo.refcount) == (pages, references)

    def test_a_mapping_that_went_for_good_has_no_pages(self) -> None:
        with world() as w:
            vm, bo = w.space(), w.bo("a", HUGE)
            vm.bind([map_op(0, HUGE, bo)])
            va = uvma(vm, 0)
            vm.bind([unmap_op(0, BIG)])
            assert (va.pages, va.vm, va.obj) == ([], None, bo)

    def test_undoing_needs_room_for_leaves_only(self) -> None:
        """Thousands of neighbours go back without a promise for each."""
        number = 4096
        with world() as w:
            vm, bo = w.space(), w.bo("a", BIG)
            vm.bind([map_op(at * PAGE, PAGE, bo, at % 16 * PAGE) for at in range(0, 2 * number, 2)])
            before = state(vm)
            op = unmap_op(PAGE, (2 * number - 3) * PAGE)
            with locked(vm, op):
                bind = vm.prepare([op])
                assert len(vm) == 2
                assert vm.statistics().preallocated < number // 16
                bind.abort()
            assert state(vm) == before
            vm.check()

    def test_several_binds_go_back_one_after_the_other(self) -> None:
        with world() as w:
            vm, bos = w.space(), [w.bo(name, HUGE) for name in "ab"]
            vm.bind([map_op(0, HUGE, bos[0])])
            ops = [map_op(BIG, BIG, bos[1]), unmap_op(BIG + PAGE, PAGE), map_op(0, HUGE, bos[0])]
            with locked(vm, *ops):
                states, binds = [], []
                for op in ops:
                    states.append(state(vm))
                    binds.append(vm.prepare([op]))
                while binds:
                    binds.pop().abort()
                    assert state(vm) == states.pop()

    def test_objects_stay_until_their_entries_are_gone(self) -> None:
        """Also one that came and went in the same call."""
        with world() as w:
            vm = w.space()
            bo = w.device.create(BIG, Domain.VRAM)
            bind = prepared(vm, map_op(0, BIG, bo), unmap_op(0, BIG))
            del bo
            assert (vm.vm_bos(), w.device.statistics().objects) == ([], 1)
            finish(bind)
            del bind
            assert w.device.statistics().objects == 0


class TestRehearsal:
    """What prepare would say if the objects had memory."""

    def test_changes_nothing(self) -> None:
        with world() as w:
            vm, bo, away = w.space(), w.bo("a", HUGE), w.bo("away", HUGE, Domain.CPU)
            vm.bind([map_op(0, HUGE, bo), map_sparse(2 * HUGE, HUGE)])
            before = state(vm)
            good = [map_op(BIG, BIG, away), unmap_op(0, 2 * BIG), map_op(BIG, PAGE, away, PAGE)]
            with locked(vm, *good):
                vm.rehearse([*good, unmap_sparse(2 * HUGE, HUGE), map_sparse(4 * HUGE, HUGE)])
                assert state(vm) == before
                with pytest.raises(InvalidArgument, match="reach"):
                    vm.prepare(good)
                refused = [*good, map_op(3 * HUGE - PAGE, 2 * PAGE, away)]
                with pytest.raises(NoSpace) as caught:
                    vm.rehearse(refused)
            assert (caught.value.request, state(vm)) == (3, before)
            assert set(away.vms) == set()


class TestRefused:
    @pytest.mark.parametrize("number", [0, 3])
    def test_a_kind_before_what_comes_after_it(self, number: int) -> None:
        """Kinds are looked up last, and yet the first operation that is wrong is the one that is named."""
        with world() as w:
            vm, bo = w.space(), w.bo("a", BIG)
            before = state(vm)
            good = [map_op(at * BIG, BIG, bo) for at in range(number)]
            ops = [*good, map_op(HUGE, BIG, bo, kind=0xFF), unmap_sparse(0, HUGE)]
            with pytest.raises(InvalidArgument, match="kind") as caught:
                vm.bind(ops)
            assert caught.value.request == number
            assert state(vm) == before
            assert set(bo.vms) == set()

    @pytest.mark.parametrize(
        ("op", "match"),
        [
            (BindOp(OpCode.UNMAP, -PAGE, PAGE), "address"),
            (BindOp(OpCode.UNMAP, 0, 1 << 64), "address"),
            (BindOp(OpCode.UNMAP, PAGE // 2, PAGE), "multiple"),
            (BindOp(OpCode.UNMAP, 0, 0), "empty"),
            (BindOp(OpCode.UNMAP, (1 << 64) - PAGE, PAGE), "2\\*\\*64"),
            (BindOp(OpCode.MAP, 0, PAGE), "object"),
            ((OpCode.UNMAP, 0, PAGE), "none"),
            ("UNMAP", "none"),
            (BindOp("UNMAP", 0, PAGE), "MAP and UNMAP"),  # type: ignore[arg-type]
        ],
        ids=str,
    )
    def test_what_is_no_operation(self, op: BindOp, match: str) -> None:
        with world() as w:
            vm, bo = w.space(), w.bo("a", PAGE)
            before = state(vm)
            with pytest.raises(InvalidArgument, match=match) as caught:
                vm.bind([map_op(0, PAGE, bo), op])
            assert (caught.value.request, state(vm)) == (1, before)

    def test_each_reservation_is_locked_once(self) -> None:
        with world() as w:
            vm, external = w.space(), w.bo("external", MIB)
            private = [w.bo(name, MIB, of=vm) for name in "ab"]
            ops = [map_op(at, PAGE, bo) for at, bo in ((0, external), (BIG, private[0]), (HUGE, external))]
            vm.bind([*ops, map_op(2 * HUGE, PAGE, private[1])])
            with locked(vm, *ops, unmap_op(0, END)) as exec:
                assert list(exec) == [vm.resv_obj, external]

    def test_an_object_of_another_space(self) -> None:
        with world() as w:
            vm = w.space()
            bo: GemObject = w.bo("a", BIG, of=w.space())
            with pytest.raises(PermissionDenied):
                vm.bind([map_op(0, BIG, bo)])
