"""Comparing an address space with what its backend shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from gpuvm.errors import CheckFailed
from gpuvm.mem import Extent
from gpuvm.mmu.translation import RunState
from gpuvm.nouveau.uvma import Uvma
from gpuvm.va import Region

if TYPE_CHECKING:
    from gpuvm.nouveau.vm import Uvmm


class Shown(NamedTuple):
    """What ``[start, end)`` has to show."""

    start: int
    end: int
    state: RunState
    extent: Extent | None = None
    """The memory behind it, if it is valid."""
    kind: int = 0


def check_contents(vm: Uvmm) -> None:
    """See ``Uvmm.check``.

    Raises:
        CheckFailed: with the first difference.
    """
    _check_counts(vm)
    if vm.pending:
        return
    for shown in _shown(vm):
        _check_shown(vm, shown)


def _check_counts(vm: Uvmm) -> None:
    """References, pages and sparse ranges, all in all."""
    references, mapped = Counter[str](), Counter[int]()
    for va in _mappings(vm):
        for run in va.pages:
            references["mappings"] += run.range >> run.shift
            if not va.invalidated:
                mapped[run.shift] += run.range >> run.shift
    references["pending"] = sum(bind.references for bind in vm.pending)
    regions = vm.region_list()
    dropping = {region for region, _ in vm.dropping(vm.start, vm.range)}
    if not dropping <= set(regions):
        raise CheckFailed(f"{vm!r}: regions {regions}, being dropped {dropping}")
    backend = vm.backend.statistics()
    if backend.references != references.total():
        raise CheckFailed(f"{vm!r}: {backend.references} page slots referenced, {dict(references)} known")
    if backend.sparse_bytes != sum(region.range for region in regions if region.sparse):
        raise CheckFailed(f"{vm!r}: {backend.sparse_bytes:#x} bytes sparse, regions {regions}")
    if not vm.pending and Counter(backend.mapped) != mapped:
        raise CheckFailed(f"{vm!r}: pages mapped by shift {backend.mapped}, of mappings {dict(mapped)}")


def _shown(vm: Uvmm) -> Iterator[Shown]:
    """What has to show, from the first address to the last."""
    regions = [region for region in vm.region_list() if region.sparse]
    end = vm.start
    for va in _mappings(vm):
        if not va.invalidated:
            yield from _unmapped(end, va.addr, regions)
            yield from _mapped(va)
            end = va.end
    yield from _unmapped(end, vm.end, regions)


def _mapped(va: Uvma) -> Iterator[Shown]:
    """The object's memory, found from its extents alone."""
    addr, offset = va.addr, va.offset
    for aperture, first, length in va.obj.extents:
        skipped = min(offset, length)
        offset -= skipped
        part = min(length - skipped, va.end - addr)
        if part:
            yield Shown(addr, addr + part, RunState.VALID, Extent(aperture, first + skipped, part), va.kind)
        addr += part
    if addr != va.end:
        raise CheckFailed(f"{va!r} is mapped, and its object has no memory from {addr:#x} on")


def _unmapped(start: int, end: int, regions: list[Region]) -> Iterator[Shown]:
    """Sparse in sparse regions, a hole elsewhere."""
    for region in regions:
        first, last = max(start, region.addr), min(end, region.end)
        if first < last:
            if start < first:
                yield Shown(start, first, RunState.INVALID)
            yield Shown(first, last, RunState.SPARSE)
            start = last
    if start < end:
        yield Shown(start, end, RunState.INVALID)


def _check_shown(vm: Uvmm, shown: Shown) -> None:
    for run in vm.backend.runs(shown.start, shown.end - shown.start):
        good = run.state is shown.state
        if good and shown.extent is not None:
            aperture, first, _ = shown.extent
            address = first + run.va - shown.start
            expected = aperture, address, shown.kind, vm.entries.flags(aperture)
            good = (run.aperture, run.address, run.kind, run.flags) == expected
        if not good:
            raise CheckFailed(f"{vm!r}: {vm.backend.name} shows {run}, it should be {shown}")


def _mappings(vm: Uvmm) -> Iterator[Uvma]:
    for va in vm:
        if isinstance(va, Uvma) and (va.pages or va.invalidated):
            yield va
