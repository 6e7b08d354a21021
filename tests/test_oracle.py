"""Random requests against the page model, for every merge policy, in three styles that must agree.

Each step asks the model what must come out, and the library three times: as a list applied at once, as steps
of a driver with its own mappings, and (maps and unmaps) as a bulk bind. Ops, state, errors and invariants are
compared after every step. A failure names the seed and the step.
"""

from __future__ import annotations

import errno
from random import Random

import pytest

import gpuvm
from arrays import KIND_UNIT, Row, array_shape, bind_array, emitted, map_row, unmap_row
from drivers import Driver, DriverVa
from gpuvm import GpuvaManager, Merge, Plan, Regions
from layouts import LARGE, LAYOUTS, Layout
from page_model import PageModel
from shapes import Objects, OpShape, op_shapes, space_shape
from streams import Request, requests
from suite import scaled

STEPS = scaled(250, 10_000)
LARGE_STEPS = scaled(200, 2000)


def region_modes(layout: Layout) -> list[Regions]:
    return list(Regions) if layout.regions else [Regions.OFF]


def policies(mode: Regions) -> list[Merge]:
    return [merge for merge in Merge if (merge, mode) != (Merge.WITHIN_REGION, Regions.OFF)]


CASES = [
    (layout, mode, merge) for layout in LAYOUTS for mode in region_modes(layout) for merge in policies(mode)
]


def expected_errno(model: PageModel, request: Request) -> int:
    pages = request.pages
    if request.kind != "prefetch" and model.kernel.intersection(pages):
        return errno.EINVAL
    return model.placing_error(pages) if request.kind == "map" else 0


def expected_ops(model: PageModel, request: Request) -> list[OpShape]:
    match request.kind:
        case "map":
            return model.map_ops(request.pages, request.bo, request.offset, request.flags)
        case "unmap":
            return model.unmap_ops(request.pages)
        case "prefetch":
            return model.prefetch_ops(request.pages)
        case _:
            return model.madvise_ops(request.pages)


def expected_contents(model: PageModel, request: Request) -> dict[int, tuple[int, int, int]]:
    match request.kind:
        case "map":
            return model.after_map(model.request(request.pages, request.bo, request.offset, request.flags))
        case "unmap":
            return model.after_unmap(request.pages)
        case _:
            return model.contents()


def backing(contents: dict[int, tuple[int, int, int]]) -> dict[int, tuple[int, int, int]]:
    """Contents without the offsets of pages that have no object, where they mean nothing."""
    return {page: (bo, offset if bo else 0, flags) for page, (bo, offset, flags) in contents.items()}


class Trio:
    """The same space driven in three styles, and the model beside them."""

    def __init__(self, layout: Layout, merge: Merge, mode: Regions, batch: int = 5) -> None:
        self.batch = batch
        self.model = layout.model(merge, mode)
        self.grid = self.model.grid
        self.objects = Objects(3)
        self.listed, self.stepped, self.bulk = (layout.space(merge, mode) for _ in range(3))
        self.pending: list[Row] = []
        self.pending_ops: list[OpShape] = []

    def ask(self, vm: GpuvaManager, request: Request) -> Plan:
        addr, size = self.grid.bytes(request.first, request.last)
        match request.kind:
            case "map":
                return vm.sm_map(addr, size, self.objects[request.bo], request.offset, request.flags)
            case "unmap":
                return vm.sm_unmap(addr, size)
            case "prefetch":
                return vm.prefetch(addr, size)
            case _:
                return vm.madvise(addr, size)

    def row(self, request: Request) -> Row:
        addr, size = self.grid.bytes(request.first, request.last)
        if request.kind == "map":
            return map_row(addr, size, request.bo, request.offset, request.flags // KIND_UNIT)
        return unmap_row(addr, size)

    def refused(self, request: Request, code: int) -> None:
        for vm in (self.listed, self.stepped):
            with pytest.raises(gpuvm.GpuvmError) as caught:
                self.ask(vm, request)
            assert caught.value.errno == code
        if request.kind in ("map", "unmap"):
            with pytest.raises(gpuvm.GpuvmError) as caught:
                self.bulk.bind(bind_array([*self.pending, self.row(request)]), self.objects.handles())
            assert (caught.value.errno, caught.value.request) == (code, len(self.pending))

    def accepted(self, request: Request) -> None:
        want = expected_ops(self.model, request)
        contents = backing(expected_contents(self.model, request))
        self.model.play(want)
        assert backing(self.model.contents()) == contents, "the ops of the model do not do what was asked"
        self._list_style(request, want)
        self._step_style(request, want)
        self._bulk_style(request, want)

    def _list_style(self, request: Request, want: list[OpShape]) -> None:
        plan = self.ask(self.listed, request)
        assert op_shapes(plan, self.objects.label) == want
        plan.apply()
        self.listed.check()

    def _step_style(self, request: Request, want: list[OpShape]) -> None:
        plan = self.ask(self.stepped, request)
        assert op_shapes(plan, self.objects.label) == want
        if request.kind == "prefetch":
            return
        driver = Driver(self.stepped)
        plan.step(driver)
        assert driver.seen == list(plan)
        assert all(va.vm is self.stepped for va in driver.used)
        self.stepped.check()

    def _bulk_style(self, request: Request, want: list[OpShape]) -> None:
        if request.kind in ("map", "unmap"):
            self.pending.append(self.row(request))
            self.pending_ops += want
        if request.kind == "madvise" or len(self.pending) >= self.batch:
            self.flush()
        if request.kind == "madvise":
            self.ask(self.bulk, request).apply()
        self.bulk.check()

    def flush(self) -> None:
        ops = self.bulk.bind(bind_array(self.pending), self.objects.handles())
        assert emitted(ops) == self.pending_ops
        self.pending, self.pending_ops = [], []

    def same_state(self) -> None:
        want = self.model.vas()
        assert space_shape(self.listed, self.objects.label) == want
        assert space_shape(self.stepped, self.objects.label) == want
        assert all(isinstance(va, DriverVa) for va in self.stepped if not va.kernel)
        if not self.pending:
            assert space_shape(self.bulk, self.objects.label) == want
            assert array_shape(self.bulk.to_array()) == want


def drive(trio: Trio, seed: int, steps: int, compare_every: int, longest: int) -> None:
    step, request, before = 0, None, trio.model.vas()
    try:
        for step, request in enumerate(requests(Random(seed), trio.model, steps, longest=longest)):
            before = trio.model.vas()
            code = expected_errno(trio.model, request)
            if code:
                trio.refused(request, code)
            else:
                trio.accepted(request)
            if step % compare_every == 0:
                trio.same_state()
        trio.flush()
        trio.same_state()
    except BaseException:
        print(f"seed {seed}, step {step}, {request}, before it: {before}")
        raise


def name(value: object) -> str:
    return str(getattr(value, "name", value))


@pytest.mark.parametrize(("layout", "mode", "merge"), CASES, ids=name)
def test_random_requests(layout: Layout, mode: Regions, merge: Merge) -> None:
    drive(Trio(layout, merge, mode), seed=1000 * merge + mode, steps=STEPS, compare_every=1, longest=12)


@pytest.mark.parametrize(
    ("mode", "merge"), [(mode, merge) for mode in Regions for merge in policies(mode)], ids=name
)
def test_random_requests_over_many_leaves(mode: Regions, merge: Merge) -> None:
    """A tree of several levels: leaves and inner nodes split, empty and merge."""
    trio = Trio(LARGE, merge, mode, batch=150)
    for seed, longest in enumerate((3, 40, 3, 800, 3)):
        drive(trio, seed, LARGE_STEPS, compare_every=50, longest=longest)


def test_the_full_suite_asks_at_least_200_000_times() -> None:
    assert 10_000 * len(CASES) >= 200_000
    assert {merge for _, _, merge in CASES} == set(Merge)
