"""What a report says of an address, for each thing that can be wrong with it."""

from __future__ import annotations

import dataclasses
import json
import threading
from typing import Any

import pytest

from fault_scene import KERNEL, Client, map_at, scene, sparse_at, unmap_at, unsparse_at
from gpuvm.mem.aperture import Domain
from gpuvm.mmu.translation import Access, Fault, FaultType
from gpuvm.nouveau.bind import OpCode
from gpuvm.nouveau.engine.fault import EngineFault
from gpuvm.nouveau.fault import REACH, SHOWN, Cause, FaultReport, Neighbour
from gpuvm.nouveau.uapi.dialects import SERIES
from gpuvm.nouveau.uapi.requests import VmBindOp
from gpuvm.va import Region

PAGE = 0x1000
BIG = 0x10000
MIB = 1 << 20
AT = 0x4000_0000


def engine_fault(addr: int, reason: FaultType = FaultType.PTE, access: Access = Access.READ) -> EngineFault:
    return EngineFault("copy", 0xC5B5, 0x300, Fault(addr, reason, "SPT", 0, access))


def name_of(one: Neighbour | None) -> str | None:
    return None if one is None or one.object is None else one.object.name


def test_use_after_unmap() -> None:
    with scene() as client:
        handle = client.new("vertices")
        client.bind(map_at(AT, MIB, handle, 0))
        client.bind(map_at(AT + 2 * MIB, BIG, handle), unmap_at(AT, MIB), run_async=True)
        report = client.fault("write", AT + 0x3000, b"1234")
        assert (report.cause, report.addr, report.access) == (
            Cause.USE_AFTER_UNMAP, AT + 0x3000, Access.WRITE,
        )  # fmt: skip
        assert (report.client, report.channel, report.engine, report.class_, report.method) == (
            "unit", 1, "copy", 0xC5B5, 0x300,
        )  # fmt: skip
        last, mapped = report.last, report.mapped
        assert last is not None
        assert mapped is not None
        assert (last.call, last.index, last.op, last.run_async, last.run) == (2, 1, OpCode.UNMAP, True, True)
        assert (mapped.call, mapped.index, mapped.handle) == (1, 0, handle)
        assert report.time >= last.time >= mapped.time
        assert report.object is not None
        assert (report.object.name, report.object.handle, report.object.size) == ("vertices", handle, MIB)
        assert report.here is None
        assert (report.after, report.before) != (None, None)


def test_use_after_unmap_of_what_was_closed() -> None:
    with scene() as client:
        handle = client.new("gone")
        client.bind(map_at(AT, BIG, handle))
        client.bind(unmap_at(AT, BIG))
        client.handles.close(handle)
        report = client.fault("read", AT, 4)
        assert (report.cause, report.object) == (Cause.USE_AFTER_UNMAP, None)
        assert report.mapped is not None
        assert report.mapped.handle == handle


def test_use_after_an_unmap_whose_map_was_forgotten() -> None:
    with scene(kept=1) as client:
        client.bind(map_at(AT, BIG, client.new("old")))
        client.bind(unmap_at(AT, BIG))
        report = client.fault("read", AT, 4)
        assert (report.cause, report.mapped, report.oldest) == (Cause.USE_AFTER_UNMAP, None, 2)


def unmapped_by(client: Client) -> tuple[int, int] | None:
    """Call and operation that a report of ``AT`` blames."""
    report = client.report(engine_fault(AT))
    assert (report.cause is Cause.USE_AFTER_UNMAP) == (report.unmapped is not None)
    return None if report.unmapped is None else (report.unmapped.call, report.unmapped.index)


def test_who_unmaps_a_hole_later_is_not_to_blame() -> None:
    with scene() as client:
        client.bind(map_at(AT, BIG, client.new("one")))
        client.bind(unmap_at(AT + MIB, BIG), unmap_at(AT, BIG))
        client.bind(unmap_at(AT, BIG))
        assert unmapped_by(client) == (2, 1)


def test_who_uncovers_a_sparse_region_is_not_to_blame_but_who_drops_it() -> None:
    with scene() as client:
        client.bind(sparse_at(AT, MIB), map_at(AT, BIG, client.new("tile")))
        client.bind(unmap_at(AT, BIG))
        client.bind(unsparse_at(AT, MIB), unmap_at(AT, BIG))
        assert unmapped_by(client) == (3, 0)


def test_who_unmapped_what_is_in_no_bind_that_is_known() -> None:
    with scene(kept=3) as client:
        client.bind(map_at(AT, BIG, client.new("one")))
        for _ in range(3):
            client.bind(unmap_at(AT, BIG))
        assert unmapped_by(client) == (2, 0)


def test_a_new_region_of_the_series_says_nothing_of_what_was_unmapped() -> None:
    with scene(dialect=SERIES) as client:
        reserve, free = VmBindOp(0, 0, 0, AT, 0, MIB), VmBindOp(1, 0, 0, AT, 0, MIB)
        client.history.note(0, [reserve, VmBindOp(2, 0, client.new("one"), AT, 0, BIG)], False)
        client.history.note(0, [free], False)
        client.history.note(0, [reserve], False)
        client.history.ran(3)
        assert unmapped_by(client) == (2, 0)


def test_a_hole_in_a_sparse_region_that_is_not_bound_yet() -> None:
    with scene() as client:
        client.bind(sparse_at(AT, MIB), run_async=True, run=False)
        client.bind(unmap_at(AT, BIG), run=False)
        assert unmapped_by(client) is None
        assert client.report(engine_fault(AT)).cause is Cause.MAPPED_MEANWHILE


def test_unmapping_a_hole_is_no_use_after_unmap() -> None:
    with scene() as client:
        client.bind(unmap_at(AT, BIG))
        report = client.fault("read", AT, 4)
        assert report.cause is Cause.NEVER_MAPPED
        assert report.last is not None


def test_a_sparse_region_that_was_dropped() -> None:
    with scene() as client:
        client.bind(sparse_at(AT, MIB))
        client.space.write(AT, b"vanishes")
        client.bind(unsparse_at(AT, MIB))
        report = client.fault("read", AT + PAGE, 4)
        assert (report.cause, report.region, report.object) == (Cause.USE_AFTER_UNMAP, None, None)
        assert report.mapped is not None
        assert report.mapped.sparse


@pytest.mark.parametrize("past", [0, 1, 0x40, PAGE, BIG])
def test_out_of_bounds_past_the_end(past: int) -> None:
    with scene() as client:
        client.bind(map_at(AT, 8 * PAGE, client.new("short", 8 * PAGE)))
        client.bind(map_at(AT + (16 << 20), BIG, client.new("far")))
        report = client.fault("read", AT + 8 * PAGE + past, 4)
        assert report.cause is Cause.OUT_OF_BOUNDS
        assert report.missed == report.before
        assert (name_of(report.before), report.before.distance if report.before else None) == ("short", past)
        assert report.object is not None
        assert report.object.name == "short"


def test_out_of_bounds_of_a_copy_that_began_inside() -> None:
    """The report is about the first byte that was refused, not about where the copy began."""
    with scene() as client:
        client.bind(map_at(AT, BIG, client.new("from")), map_at(AT + MIB, 2 * BIG, client.new("to")))
        report = client.fault("copy", AT + MIB, AT, 2 * BIG)
        assert (report.addr, report.access) == (AT + BIG, Access.READ)
        assert (report.cause, name_of(report.missed)) == (Cause.OUT_OF_BOUNDS, "from")


def test_out_of_bounds_before_the_start() -> None:
    with scene() as client:
        client.bind(map_at(AT, BIG, client.new("late")))
        report = client.fault("read", AT - 8, 4)
        assert (report.cause, report.missed, report.before) == (Cause.OUT_OF_BOUNDS, report.after, None)
        assert report.after is not None
        assert report.after.distance == 8


@pytest.mark.parametrize(("size", "distance", "near"), [
    (PAGE, REACH, True), (PAGE, REACH + PAGE, False), (MIB, MIB, True), (MIB, MIB + PAGE, False),
])  # fmt: skip
def test_how_near_counts(size: int, distance: int, near: bool) -> None:
    with scene() as client:
        client.bind(map_at(AT, size, client.new("one", MIB)))
        report = client.fault("read", AT + size + distance, 4)
        assert report.cause is (Cause.OUT_OF_BOUNDS if near else Cause.NEVER_MAPPED)
        assert (report.missed is not None) == near
        assert name_of(report.before) == "one"


def test_evicted() -> None:
    with scene() as client:
        handle = client.new("texture")
        client.bind(map_at(AT, MIB, handle, 0, 0))
        client.w.evict(client.obj(handle))
        report = client.fault("read", AT + BIG, 64)
        assert report.cause is Cause.EVICTED
        assert report.here is not None
        assert (report.here.addr, report.here.invalidated, report.here.distance) == (AT, True, 0)
        assert report.object == report.here.object
        assert report.object is not None
        assert (report.object.domain, report.object.swapped) == (Domain.GART, False)
        assert client.vm is not None
        client.vm.validate_all()
        assert client.space.read(AT + BIG, 64)


def test_not_bound_yet() -> None:
    with scene() as client:
        client.bind(map_at(AT, MIB, client.new("late")), run_async=True, run=False)
        report = client.report(engine_fault(AT + PAGE))
        assert report.cause is Cause.NOT_BOUND_YET
        assert report.last is not None
        assert not report.last.run
        client.history.ran(1)
        assert client.report(engine_fault(AT + PAGE)).cause is Cause.MAPPED_MEANWHILE


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        (FaultType.RO_VIOLATION, Cause.READ_ONLY),
        (FaultType.ATOMIC_VIOLATION, Cause.NO_ATOMICS),
        (FaultType.PRIV_VIOLATION, Cause.PRIVILEGED),
    ],
)
def test_what_the_page_forbids(reason: FaultType, cause: Cause) -> None:
    with scene() as client:
        client.bind(map_at(AT, MIB, client.new("shaders")))
        report = client.report(engine_fault(AT, reason, Access.WRITE))
        assert (report.cause, name_of(report.here)) == (cause, "shaders")
        assert report.object is not None


def test_the_kernels_area() -> None:
    with scene() as client:
        client.bind(map_at(KERNEL[0] - BIG, BIG, client.new("below")))
        report = client.fault("read", KERNEL[0] + BIG, 4)
        assert report.cause is Cause.KERNEL_AREA
        assert report.here is not None
        assert (report.here.addr, report.here.range, report.here.kernel) == (*KERNEL, True)
        assert (name_of(report.before), report.object) == ("below", None)


def test_beside_the_kernels_area() -> None:
    """It is told, but no access is taken to be meant for it."""
    with scene() as client:
        report = client.fault("read", KERNEL[0] - 8, 4)
        assert (report.cause, report.before) == (Cause.NEVER_MAPPED, None)
        assert report.after is not None
        assert (report.after.kernel, report.after.distance) == (True, 8)


@pytest.mark.parametrize("addr", [1 << 40, (1 << 47) + PAGE, (1 << 49) - 8, 1 << 49, (1 << 64) - 8])
def test_outside(addr: int) -> None:
    with scene() as client:
        client.bind(map_at((1 << 40) - BIG, BIG, client.new("last")))
        report = client.report(engine_fault(addr, FaultType.VA_LIMIT_VIOLATION))
        assert (report.cause, report.here, report.after) == (Cause.OUTSIDE, None, None)
        assert report.before is not None
        assert (name_of(report.before), report.before.distance) == ("last", addr - (1 << 40))


def test_the_region_around() -> None:
    with scene() as client:
        client.bind(sparse_at(AT, MIB))
        client.bind(map_at(AT + BIG, BIG, client.new("tile")))
        client.w.evict(client.obj(1))
        report = client.report(engine_fault(AT + BIG))
        assert report.region == Region(AT, MIB, sparse=True)


def test_the_series_has_regions_that_are_not_sparse() -> None:
    with scene(dialect=SERIES) as client:
        client.history.note(0, [VmBindOp(0, 0, 0, AT, 0, MIB)], False)
        client.history.ran(1)
        report = client.report(engine_fault(AT))
        assert report.cause is Cause.NEVER_MAPPED  # an ALLOC reserves, it maps nothing


def test_histories_are_cut() -> None:
    with scene() as client:
        handle = client.new("busy")
        client.bind(map_at(AT, BIG, handle))
        for _ in range(2 * SHOWN):
            client.bind(unmap_at(AT, BIG))
        report = client.fault("read", AT, 4)
        assert [touch.call for touch in report.history] == list(range(2 * SHOWN + 1, SHOWN + 1, -1))
        assert report.mapped is not None
        assert report.mapped.call == 1


def test_the_kind_and_the_closed_handle_of_a_neighbour() -> None:
    with scene() as client:
        handle = client.new("image")
        twice = client.handles.create(client.obj(handle))
        client.bind(map_at(AT, MIB, handle, 0, 0xDB))
        report = client.fault("read", AT + MIB, 4)
        assert report.before is not None
        assert report.before.kind == 0xDB
        assert report.object is not None
        assert (report.object.handle, report.object.shared) == (handle, True)
        client.handles.close(handle)
        found = client.fault("read", AT + MIB, 4).object
        assert found is not None
        assert (found.handle, found.shared) == (twice, False)
        client.handles.close(twice)
        found = client.fault("read", AT + MIB, 4).object
        assert found is not None
        assert found.handle == 0


def test_a_method_that_was_refused() -> None:
    with scene() as client:
        report = client.report(EngineFault("host", 0xC46F, 0x1C, None, "SEMAPHORE_ILLEGAL"))
        assert (report.cause, report.error, report.addr) == (Cause.METHOD_REFUSED, "SEMAPHORE_ILLEGAL", None)
        assert str(report) == 'method 001c of class c46f on channel 1 of "unit", host: SEMAPHORE_ILLEGAL'


def test_a_client_without_an_address_space() -> None:
    with scene() as client:
        client.vm = None
        report = client.report(engine_fault(AT))
        assert (report.cause, report.before, report.after) == (Cause.NEVER_MAPPED, None, None)


def test_a_space_that_was_just_closed() -> None:
    with scene() as client:
        vm = client.vm
        assert vm is not None
        client.w.vms.remove(vm)
        vm.close()
        report = client.report(engine_fault(AT))
        assert (report.here, report.before, report.after, report.region) == (None, None, None, None)
        vm.backend.close()


def test_it_takes_no_lock() -> None:
    """It is made while somebody else holds all there are."""
    with scene() as client:
        handle = client.new("one")
        client.bind(map_at(AT, BIG, handle))
        assert client.vm is not None
        reports: list[FaultReport] = []
        obj = client.obj(handle)
        reporter = threading.Thread(
            target=lambda: reports.append(client.report(engine_fault(AT + BIG, FaultType.PTE)))
        )
        with client.vm.lock, client.w.device.names.lock, obj.resv:
            reporter.start()
            reporter.join(60)
        assert [report.cause for report in reports] == [Cause.OUT_OF_BOUNDS]


def test_one_line() -> None:
    with scene() as client:
        report = client.fault("read", AT, 4)
        assert str(report) == ('READ of 0x40000000 by channel 1 of "unit", copy: PDE, never mapped')


def test_as_json() -> None:
    with scene() as client:
        client.bind(sparse_at(AT, MIB), map_at(AT, BIG, client.new("tile")))
        client.w.evict(client.obj(1))
        report = client.report(engine_fault(AT))
        document: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(report)))
        assert document["addr"] == AT
        assert document["cause"] == "evicted and not validated"
        assert document["here"]["object"] == {
            "name": "tile", "handle": 1, "size": MIB, "domain": 4, "swapped": False, "shared": False,
        }  # fmt: skip
        assert document["region"] == {"addr": AT, "range": MIB, "sparse": True}
        assert [one["call"] for one in document["history"]] == [1, 1]
        assert set(document) == {field.name for field in dataclasses.fields(FaultReport)}


def test_neighbours_against_all_mappings() -> None:
    """The nearest on each side, wherever the address is: looked for in the list of all."""
    with scene() as client:
        handle = client.new("pieces")
        starts = [AT + gap * PAGE for gap in (0, 1, 3, 9, 40, 41, 100)]
        client.bind(*(map_at(start, PAGE, handle, place * PAGE) for place, start in enumerate(starts)))
        for addr in range(AT - 2 * PAGE, AT + 110 * PAGE, PAGE // 2):
            _check_neighbours(client, starts, addr)


def _check_neighbours(client: Client, starts: list[int], addr: int) -> None:
    report = client.report(engine_fault(addr))
    here = [start for start in starts if start <= addr < start + PAGE]
    at = here[0] if here else addr
    before = max((start for start in starts if start + PAGE <= at), default=None)
    after = min((start for start in starts if start > at), default=KERNEL[0])
    found = [one.addr if one is not None else None for one in (report.before, report.here, report.after)]
    assert found == [before, here[0] if here else None, after]
