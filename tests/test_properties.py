"""The whole interface of a space in any order that Hypothesis can think of, against the models.

The space is 40 bytes wide and lies at either end of 64 bits. After every rule everything visible is compared
and `check()` called.
"""

from __future__ import annotations

import errno
import gc
from collections.abc import Callable
from dataclasses import replace

import hypothesis.strategies as st
import pytest
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import gpuvm
from arrays import KIND_UNIT, array_shape, bind_array, emitted, map_row, unmap_row
from drivers import Driver
from gpuvm import Fit, Gpuva, GpuVmFlags, Merge, Plan, Regions, VmBo
from layouts import TOP, Layout, even
from link_model import LinkModel
from shapes import MapShape, Objects, OpShape, UnmapShape, Va, op_shapes, space_shape, va_shape

WIDTH = 40
OBJECTS = Objects(3)
HANDLES = OBJECTS.handles()

FIRST_MARK = 1 << 12
"""Mappings that were removed but are still linked get flags of their own, so that no other looks the same."""

cells = st.integers(0, WIDTH - 1)
lengths = st.integers(1, 14)
objects = st.integers(0, len(OBJECTS))
real_objects = st.integers(1, len(OBJECTS))
kinds = st.sampled_from([0, 0, 0, 1])
styles = st.sampled_from(["apply", "step", "bind"])
shifts = st.sampled_from([0, 0, 0, 3])


class Manager(RuleBasedStateMachine):
    """A space and what it must be."""

    @initialize(
        top=st.booleans(),
        merge=st.sampled_from(Merge),
        regions=st.sampled_from(Regions),
        kernel=st.sampled_from([None, (0, 3), (20, 22), (37, 40)]),
        flags=st.sampled_from([GpuVmFlags(0), GpuVmFlags.IMMEDIATE_MODE]),
    )
    def make(
        self, top: bool, merge: Merge, regions: Regions, kernel: tuple[int, int] | None, flags: GpuVmFlags
    ) -> None:
        if merge is Merge.WITHIN_REGION and regions is Regions.OFF:
            regions = Regions.SPARSE
        self.start = TOP - WIDTH if top else 0
        spans = ((3, 12), (12, 20), (24, 36))
        layout = Layout("any order", even(self.start, 1, WIDTH), kernel, spans)
        self.vm = layout.space(merge, regions, flags)
        self.model = layout.model(merge, regions)
        self.links = LinkModel()
        self.loose: list[tuple[Gpuva, Va]] = []
        self.known: dict[int, Gpuva] = {}
        self.marks: list[Va] = []
        self.plans: list[tuple[Plan, int]] = []

    # Requests.

    def request(self, cell: int, length: int) -> tuple[list[int], int, int]:
        """Cells, address and length, cut at the end of the space."""
        length = min(length, WIDTH - cell)
        return list(range(cell, cell + length)), self.start + cell, length

    def refusal(self, pages: list[int], placing: bool) -> int:
        if self.model.kernel.intersection(pages):
            return errno.EINVAL
        return self.model.placing_error(pages) if placing else 0

    def carry_out(
        self, style: str, plan: Callable[[], Plan], row: Callable[[], object], want: list[OpShape]
    ) -> None:
        if style == "bind":
            ops = self.vm.bind(bind_array([row()]), HANDLES)  # type: ignore[list-item]
            assert self.without_handles(emitted(ops)) == self.without_handles(want)
        else:
            made = plan()
            assert op_shapes(made, OBJECTS.label) == want
            made.apply() if style == "apply" else made.step(Driver(self.vm))
        self.model.play(want)
        self.links.play(want)

    @staticmethod
    def without_handles(ops: list[OpShape]) -> list[str]:
        """An object that was never bound has no handle yet; who it is shows in the state."""
        return [type(op).__name__ + str((op.va.addr, op.va.range, op.va.flags)) for op in ops]

    @rule(cell=cells, length=lengths, bo=objects, shift=shifts, kind=kinds, style=styles)
    def map(self, cell: int, length: int, bo: int, shift: int, kind: int, style: str) -> None:
        pages, addr, size = self.request(cell, length)
        offset, flags = cell + shift, kind * KIND_UNIT
        code = self.refusal(pages, placing=True)
        if code:
            with pytest.raises(gpuvm.GpuvmError) as caught:
                self.vm.sm_map(addr, size, OBJECTS[bo], offset, flags)
            assert caught.value.errno == code
            return
        want = self.model.map_ops(pages, bo, offset, flags)
        self.carry_out(
            style,
            lambda: self.vm.sm_map(addr, size, OBJECTS[bo], offset, flags),
            lambda: map_row(addr, size, bo, offset, kind),
            want,
        )

    @rule(cell=cells, length=lengths, style=styles)
    def unmap(self, cell: int, length: int, style: str) -> None:
        pages, addr, size = self.request(cell, length)
        if self.refusal(pages, placing=False):
            with pytest.raises(gpuvm.InvalidArgument):
                self.vm.sm_unmap(addr, size)
            return
        want = self.model.unmap_ops(pages)
        self.carry_out(style, lambda: self.vm.sm_unmap(addr, size), lambda: unmap_row(addr, size), want)

    @rule(cell=cells, length=lengths, style=st.sampled_from(["apply", "step"]))
    def advise(self, cell: int, length: int, style: str) -> None:
        pages, addr, size = self.request(cell, length)
        if self.refusal(pages, placing=False):
            with pytest.raises(gpuvm.InvalidArgument):
                self.vm.madvise(addr, size)
            return
        want = self.model.madvise_ops(pages)
        self.carry_out(style, lambda: self.vm.madvise(addr, size), lambda: None, want)

    @rule(cell=cells, length=lengths)
    def prefetch(self, cell: int, length: int) -> None:
        pages, addr, size = self.request(cell, length)
        assert op_shapes(self.vm.prefetch(addr, size), OBJECTS.label) == self.model.prefetch_ops(pages)

    @rule(cell=cells, length=lengths, bo=objects)
    def insert(self, cell: int, length: int, bo: int) -> None:
        pages, addr, size = self.request(cell, length)
        overlaps = bool(self.model.owners(pages))
        codes = {self.refusal(pages, placing=True), errno.EEXIST if overlaps else 0}
        mine = Gpuva(addr, size, OBJECTS[bo], cell)
        if codes == {0}:
            self.vm.insert(mine)
            self.model.play([MapShape(Va(addr, size, bo, cell))])
            self.known[addr] = mine
        else:
            with pytest.raises(gpuvm.GpuvmError) as caught:
                self.vm.insert(mine)
            assert caught.value.errno in codes
            assert mine.vm is None

    # Single mappings.

    def pick(self, cell: int) -> tuple[Gpuva, Va] | None:
        """The mapping at or after a cell, if any."""
        found = self.vm.find_first(self.start + cell, WIDTH - cell)
        return None if found is None or found.kernel else (found, va_shape(found, OBJECTS.label))

    @rule(cell=cells)
    def remove(self, cell: int) -> None:
        if picked := self.pick(cell):
            mapping, shape = picked
            self.vm.remove(mapping)
            self.model.play([UnmapShape(shape)])
            assert mapping.vm is None
            if self.links.is_linked(shape):
                mark = replace(shape, flags=FIRST_MARK + len(self.marks))
                self.marks.append(mark)
                mapping.flags = mark.flags
                self.links.rename(shape, mark)
                self.loose.append((mapping, mark))

    @rule(cell=cells)
    def toggle_link(self, cell: int) -> None:
        picked = self.pick(cell)
        if picked is None:
            return
        mapping, shape = picked
        if self.links.is_linked(shape):
            mapping.unlink()
            self.links.unlink(shape)
        elif shape.bo:
            vm_bo = self.vm.bo_obtain(mapping.obj)
            mapping.link(vm_bo)
            vm_bo.put()
            self.links.link(shape)

    @precondition(lambda self: self.loose)
    @rule()
    def unlink_a_removed_one(self) -> None:
        mapping, shape = self.loose.pop(0)
        mapping.unlink()
        self.links.unlink(shape)
        assert mapping.vm_bo is None

    @rule(cell=cells)
    def remember(self, cell: int) -> None:
        if picked := self.pick(cell):
            self.known[picked[1].addr] = picked[0]

    @rule()
    def collect_garbage(self) -> None:
        gc.collect(0)

    # Objects.

    @rule(bo=real_objects)
    def hold(self, bo: int) -> None:
        live = bo in self.links.live()
        found = self.vm.bo_find(OBJECTS[bo])
        assert (found is not None) == live
        if found is None:
            made = self.vm.bo_create(OBJECTS[bo])
            assert self.vm.bo_obtain_prealloc(made) is made
        self.links.hold(bo)

    @rule(bo=real_objects)
    def drop(self, bo: int) -> None:
        if self.links.held.get(bo):
            vm_bo = self.vm_bo(bo)
            self.links.drop(bo)
            assert vm_bo.put() is (bo not in self.links.live())

    @rule(bo=real_objects, evicted=st.booleans(), external=st.booleans())
    def mark(self, bo: int, evicted: bool, external: bool) -> None:
        if bo in self.links.live():
            if external:
                self.vm_bo(bo)._extobj_add()
                self.links.add_external(bo)
            self.vm_bo(bo)._set_evicted(evicted, True)
            self.links.evict(bo, evicted)

    def vm_bo(self, bo: int) -> VmBo:
        return next(vm_bo for vm_bo in self.vm.vm_bos() if vm_bo.obj is OBJECTS[bo])

    @rule()
    def clean_up(self) -> None:
        waiting = len(self.vm.deferred)
        assert self.vm.bo_deferred_cleanup() == waiting

    @rule(bo=real_objects)
    def unmap_object(self, bo: int) -> None:
        if bo in self.links.live():
            want: list[OpShape] = [
                UnmapShape(shape) for shape in self.links.linked.get(bo, []) if shape not in self.marks
            ]
            plan = self.vm.bo_unmap(self.vm_bo(bo))
            assert op_shapes(plan, OBJECTS.label) == want
            plan.apply()
            self.model.play(want)
            self.links.play(want)

    # Plans that wait.

    @rule(cell=cells, length=lengths)
    def keep_a_plan(self, cell: int, length: int) -> None:
        pages, addr, size = self.request(cell, length)
        if not self.refusal(pages, placing=False):
            self.plans.append((self.vm.sm_unmap(addr, size), self.vm.generation))

    @precondition(lambda self: self.plans)
    @rule()
    def apply_an_old_plan(self) -> None:
        plan, generation = self.plans.pop(0)
        assert plan.stale == (self.vm.generation != generation)
        if plan.stale:
            with pytest.raises(gpuvm.StalePlan):
                plan.apply()
            return
        ops = op_shapes(plan, OBJECTS.label)
        plan.apply()
        self.model.play(ops)
        self.links.play(ops)

    # Looking.

    @rule(cell=cells, length=lengths)
    def find(self, cell: int, length: int) -> None:
        _, addr, size = self.request(cell, length)
        vas = [va_shape(va, OBJECTS.label) for va in self.vm]
        overlapping = [va for va in vas if va.addr < addr + size and addr < va.end]
        first, exact = self.vm.find_first(addr, size), self.vm.find(addr, size)
        assert (first and va_shape(first, OBJECTS.label)) == next(iter(overlapping), None)
        assert (exact and exact.addr) == next(
            (va.addr for va in vas if (va.addr, va.range) == (addr, size)), None
        )
        assert self.vm.interval_empty(addr, size) is not bool(overlapping)
        assert [va_shape(va, OBJECTS.label) for va in self.vm.mappings(addr, size)] == overlapping
        neighbours = self.model.vas()
        before, behind = self.vm.find_prev(addr), self.vm.find_next(addr)
        assert (before and before.addr) == next((va.addr for va in neighbours if va.end == addr), None)
        assert (behind and behind.addr) == next((va.addr for va in neighbours if va.addr == addr), None)

    @rule(
        size=st.integers(1, WIDTH),
        align=st.sampled_from([1, 2, 4, 16]),
        fit=st.sampled_from(Fit),
        limits=st.none() | st.tuples(cells, lengths),
    )
    def find_a_gap(self, size: int, align: int, fit: Fit, limits: tuple[int, int] | None) -> None:
        _, low, width = self.request(*limits) if limits else self.request(0, WIDTH)
        places = [
            addr
            for addr in range(low, low + width - size + 1)
            if addr % align == 0 and self.vm.interval_empty(addr, size)
        ]
        if not places:
            with pytest.raises(gpuvm.NoSpace):
                self.vm.find_gap(size, align=align, fit=fit, start=low, end=low + width)
            return
        found = self.vm.find_gap(size, align=align, fit=fit, start=low, end=low + width)
        assert found in places
        assert fit is not Fit.LOWEST or found == min(places)
        assert fit is not Fit.HIGHEST or found == max(places)

    @rule(keep=st.booleans())
    def walk_and_cut(self, keep: bool) -> None:
        """Replace each mapping by two pieces, or take it out, while walking over it."""
        expected = self.model.vas()
        walked = []
        for mapping in self.vm:
            if mapping.kernel:
                continue
            shape = va_shape(mapping, OBJECTS.label)
            walked.append(shape)
            if keep and shape.range > 2:
                ops = op_shapes(plan := self.vm.sm_unmap(shape.addr + 1, 1), OBJECTS.label)
            elif not keep:
                ops = op_shapes(plan := self.vm.sm_unmap(shape.addr, shape.range), OBJECTS.label)
            else:
                continue
            plan.apply()
            self.model.play(ops)
            self.links.play(ops)
        assert walked == expected

    # What must hold at any time.

    @invariant()
    def sound(self) -> None:
        self.vm.check()
        assert GpuVmFlags.IMMEDIATE_MODE in self.vm.flags or self.vm.deferred == []

    @invariant()
    def mappings_are_as_modelled(self) -> None:
        want = self.model.vas()
        assert space_shape(self.vm, OBJECTS.label) == want
        assert [(va.addr, va.range) for va in array_shape(self.vm.to_array())] == [
            (va.addr, va.range) for va in want
        ]
        numbers = self.vm.statistics()
        free = WIDTH - len(self.model.cells) - len(self.model.kernel)
        assert (numbers.mappings, numbers.mapped_bytes, numbers.free_bytes) == (
            len(want),
            len(self.model.cells),
            free,
        )
        assert len(self.vm) == len(want)

    @invariant()
    def objects_are_as_modelled(self) -> None:
        vm_bos = {OBJECTS.label(vm_bo.obj): vm_bo for vm_bo in self.vm.vm_bos()}
        assert set(vm_bos) == self.links.live()
        for bo, vm_bo in vm_bos.items():
            assert [va_shape(va, OBJECTS.label) for va in vm_bo] == self.links.linked.get(bo, [])
            assert vm_bo.refcount == self.links.references(bo)
            assert all(va.vm_bo is vm_bo for va in vm_bo)
            assert vm_bo.evicted == (bo in self.links.evicted)
        assert [OBJECTS.label(vm_bo.obj) for vm_bo in self.vm.evicted] == self.links.evicted
        assert [OBJECTS.label(vm_bo.obj) for vm_bo in self.vm.extobjs] == self.links.external

    @invariant()
    def identities_are_stable(self) -> None:
        """A mapping object that was seen is the same as long as it is mapped."""
        for addr, mapping in list(self.known.items()):
            if mapping.vm is None:
                del self.known[addr]
            else:
                assert self.vm.find(mapping.addr, mapping.range) is mapping


TestManager = Manager.TestCase
