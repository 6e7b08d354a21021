"""What a plan of the address space comes to in references and page-table entries."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from gpuvm.mem import Extent
from gpuvm.mmu.pages import Allowed, Cut, Pages, cut_pages
from gpuvm.nouveau.slots import Slots, SlotSet
from gpuvm.nouveau.uvma import Uvma
from gpuvm.va import Map, Plan, Remap, Unmap


class Write(NamedTuple):
    """One call of the backend in a bind's job."""

    addr: int
    range: int
    shift: int
    target: Extent | None
    """What to map there; None: unmap."""
    kind: int = 0


@dataclass(slots=True)
class PageChange:
    """All that a plan needs of the page table, found out before anything is done."""

    get: list[Slots] = field(default_factory=list)
    """References to take before: slots that none of the mappings that go has."""
    writes: list[Write] = field(default_factory=list)
    """Entries to write when the bind runs, in order."""
    put: list[Slots] = field(default_factory=list)
    """References to drop after: slots that none of the mappings that come has."""
    came: list[Uvma] = field(default_factory=list)
    """Mappings to come, as the plan's operations want them one after the other."""
    gone: list[Uvma] = field(default_factory=list)
    """Mappings to go."""
    kept: int = 0
    """Page slots whose entries are written over without being cleared first."""


def page_change(
    plan: Plan, allowed: Allowed, new: Sequence[Pages] = (), *, kind: int = 0, honour_keep: bool
) -> PageChange:
    """What ``plan`` comes to. Nothing is changed.

    A mapping that goes has its entries cleared, one that is cut those of ``[prev.end, next.addr)``. Of a
    large page that is cut the remains are mapped below in smaller pages first, so they show through when it
    goes. Entries of invalidated mappings are gone already; what is cut off such a one keeps no part of a
    page, only whole ones.

    What an operation says to ``keep``, and has the kind of the request, is not cleared: the request's entries
    are written over those that are there. Where it has pages of other sizes, the old ones are cleared after.

    Args:
        allowed: ``Backend.pages``.
        new: the pages of the requested mapping, if it is a map.
        kind: its kind.
        honour_keep: False: clear always.

    Source: ``op_map_prepare``, ``op_remap``, ``op_unmap`` of ``nouveau_uvmm.c``.
    """
    change = PageChange()
    smaller: list[Pages] = []
    gone: list[Pages] = []
    kept: list[Pages] = []
    for op in plan:
        if isinstance(op, Map):
            change.came.append(_mapping(list(new)))
            continue
        if isinstance(op, Remap):
            va, keep = _own(op.unmap), op.unmap.keep
            cut = _cut(op, va, allowed)
            sides = ((op.prev, cut.before), (op.next, cut.after))
            change.came += (_mapping(pages) for side, pages in sides if side is not None)
        else:
            assert isinstance(op, Unmap)
            va, keep = _own(op), op.keep
            cut = Cut(gone=va.pages)
        change.gone.append(va)
        gone += cut.gone
        smaller += cut.added
        if va.invalidated:
            continue
        change.writes += _maps(cut.added, va.kind)
        if keep and honour_keep and va.kind == kind:
            kept += cut.gone
        else:
            change.writes += _unmaps(SlotSet(cut.gone))
    come, go = SlotSet([*smaller, *new]), SlotSet(gone)
    change.get, change.put = come - go, go - come
    change.writes += _maps(new, kind)
    if kept:
        cleared = SlotSet(kept) - come
        change.writes += _unmaps(cleared)
        change.kept = _count(kept) - _count(cleared)
    return change


def _own(op: Unmap) -> Uvma:
    assert isinstance(op.va, Uvma)
    return op.va


def _mapping(pages: list[Pages]) -> Uvma:
    va = Uvma()
    va.pages = pages
    return va


def _cut(op: Remap, va: Uvma, allowed: Allowed) -> Cut:
    """What becomes of the pages of a mapping that is cut."""
    start = va.addr if op.prev is None else op.prev.end
    end = va.end if op.next is None else op.next.addr
    cut = cut_pages(allowed, va.pages, start, end - start)
    if not va.invalidated:
        return cut
    before = [run for run in cut.before if run not in cut.added]
    after = [run for run in cut.after if run not in cut.added]
    return Cut(before, after, gone=cut.gone)


def _count(pages: Iterable[Pages | Slots]) -> int:
    return sum(run.range >> run.shift for run in pages)


def _maps(pages: Iterable[Pages], kind: int) -> Iterable[Write]:
    return (Write(*run, kind) for run in pages)


def _unmaps(slots: Iterable[Slots]) -> Iterable[Write]:
    return (Write(*run, None) for run in slots)
