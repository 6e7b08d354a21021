"""The TLB: hits and misses, what flushes drop, and that it shows the past until then."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuvm.errors import CheckFailed, InvalidArgument
from gpuvm.mem import Aperture
from gpuvm.mmu.formats import GP100, PteFlags
from gpuvm.mmu.tlb import Tlb
from gpuvm.mmu.translation import Access, Fault, FaultType, Result, Sparse, Translation, permitted
from gpuvm.mmu.walk import translate
from hand_tables import ROOT, HandTables
from suite import scaled

PD0, LPT, SPT = 3, 4, 5
SHIFTS = {PD0: 21, LPT: 16, SPT: 12}


class Tables:
    """Page tables that are changed without telling anybody, and how often they were asked."""

    def __init__(self) -> None:
        self.hand = HandTables(GP100)
        self.asked = 0

    def translate(self, addr: int) -> Result:
        self.asked += 1
        return translate(GP100, self.hand.vram, ROOT, addr)

    def map(self, level: int, va: int, address: int, flags: PteFlags = PteFlags(0)) -> None:  # noqa: B008
        self.hand.put(level, va, GP100.pte(level, Aperture.VRAM, address, 0, flags))


def address(found: Result) -> int:
    assert isinstance(found, Translation)
    return found.address


def counts(tlb: Tlb) -> tuple[int, int, int]:
    tlb.check()
    statistics = tlb.statistics()
    return statistics.hits, statistics.misses, statistics.entries


def test_one_walk_for_a_page_whatever_its_size() -> None:
    tables = Tables()
    tlb = Tlb(tables)
    for level, va in ((SPT, 0), (LPT, 1 << 20), (PD0, 1 << 21)):
        size = 1 << SHIFTS[level]
        tables.map(level, va, 8 * size)
        before = counts(tlb)
        for offset in (0, 1, size // 2, size - 1):
            assert address(tlb.translate(va + offset)) == 8 * size + offset
            assert tlb.translate(va + offset) == tables.translate(va + offset)
        assert [after - old for after, old in zip(counts(tlb), before, strict=True)] == [7, 1, 1]
        assert isinstance(tlb.translate(va + size), Fault)


def test_stale_until_flushed() -> None:
    tables = Tables()
    tlb = Tlb(tables)
    tables.map(SPT, 0x1000, 0x5000)
    assert address(tlb.translate(0x1123)) == 0x5123
    tables.hand.put(SPT, 0x1000, 0)
    assert address(tlb.translate(0x1456)) == 0x5456
    assert [entry.va for entry in tlb.stale()] == [0x1123]
    assert tlb.invalidate(0x1000, 0x1000) == 1
    assert isinstance(tlb.translate(0x1456), Fault)
    assert tlb.stale() == ()
    # What replaces a page is seen late, what comes where nothing was is seen at once: faults are not kept.
    tables.map(SPT, 0x1000, 0x6000)
    assert address(tlb.translate(0x1000)) == 0x6000
    tables.map(SPT, 0x1000, 0x7000)
    assert address(tlb.translate(0x1000)) == 0x6000
    tlb.invalidate_all()
    assert address(tlb.translate(0x1000)) == 0x7000


def test_stale_permissions() -> None:
    tables = Tables()
    tlb = Tlb(tables)
    tables.map(SPT, 0, 0)
    assert permitted(tlb.translate(0), Access.WRITE) is None
    tables.map(SPT, 0, 0, PteFlags.READ_ONLY)
    assert permitted(tlb.translate(0), Access.WRITE) is None
    tlb.invalidate(0, 1)
    refused = permitted(tlb.translate(0), Access.WRITE)
    assert refused is not None
    assert refused.reason is FaultType.RO_VIOLATION


def test_sparse_is_kept_too() -> None:
    tables = Tables()
    tlb = Tlb(tables)
    tables.hand.put(LPT, 0, 8)
    assert tlb.translate(0x123) == Sparse(0x123, 16, "LPT", 8)
    assert tlb.translate(0xFFFF) == Sparse(0xFFFF, 16, "LPT", 8)
    tables.map(LPT, 0, 0x10000)
    assert isinstance(tlb.translate(0x123), Sparse)
    assert counts(tlb) == (2, 1, 1)
    assert tlb.invalidate(0x8000, 0x1000) == 1
    assert address(tlb.translate(0x123)) == 0x10123


def test_flushes_are_counted() -> None:
    tables = Tables()
    tlb = Tlb(tables)
    for number in range(8):
        tables.map(SPT, number << 12, number << 12)
        tlb.translate(number << 12)
    assert tlb.invalidate(0x1FFF, 2) == 2
    assert tlb.invalidate(0x1000, 0x2000) == 0
    assert tlb.invalidate(1 << 40, 1 << 40) == 0
    assert tlb.invalidate_all() == 6
    assert tlb.invalidate_all() == 0
    statistics = tlb.statistics()
    assert (statistics.flushes, statistics.useless_flushes, statistics.dropped) == (5, 3, 8)
    assert (statistics.entries, statistics.evictions) == (0, 0)


def test_a_page_that_only_reaches_into_the_range_is_dropped() -> None:
    tables = Tables()
    tlb = Tlb(tables)
    tables.map(PD0, 0, 0)
    for flushed in ((0x1F_FFFF, 1), (0, 1), (0x1000, 0x1000), (0, 1 << 49)):
        tlb.translate(0x12_3456)
        assert tlb.invalidate(0x20_0000, 1 << 40) == 0
        assert tlb.invalidate(*flushed) == 1


def test_long_ranges_end_where_they_end() -> None:
    tables = Tables()
    tlb = Tlb(tables)
    for number in (0, 1, 8, 9):
        tables.map(SPT, number << 12, 0)
        tlb.translate(number << 12)
    assert tlb.invalidate(0x1000, 0x7000) == 1
    assert tlb.invalidate(0x1000, 0x7001) == 1
    assert tlb.statistics().entries == 2


def test_the_smallest_of_several_pages_answers() -> None:
    tables = Tables()
    tlb = Tlb(tables)
    tables.map(SPT, 0x1000, 0x8000)
    tlb.translate(0x1000)
    tables.map(LPT, 0, 0x10000)
    tlb.translate(0x2000)
    assert address(tlb.translate(0x1123)) == 0x8123
    assert [entry.shift for entry in tlb.stale()] == [12]
    tlb.invalidate(0x1000, 0x1000)
    assert address(tlb.translate(0x1123)) == 0x11123


def test_the_page_used_longest_ago_makes_room() -> None:
    tables = Tables()
    tlb = Tlb(tables, entries=2)
    for number in range(3):
        tables.map(SPT, number << 12, number << 12)
    for addr in (0, 0x1000, 0x800, 0x2000):
        tlb.translate(addr)
    assert counts(tlb) == (1, 3, 2)
    assert tlb.statistics().evictions == 1
    asked = tables.asked
    tlb.translate(0)
    tlb.translate(0x2000)
    assert tables.asked == asked
    tlb.translate(0x1000)
    assert tables.asked == asked + 1


def test_one_tlb_behind_another() -> None:
    tables = Tables()
    tables.map(SPT, 0, 0x5000)
    second = Tlb(tables)
    first = Tlb(second, entries=1)
    first.translate(0)
    first.invalidate_all()
    first.translate(1)
    assert (counts(first), counts(second), tables.asked) == ((0, 2, 1), (1, 1, 1), 1)


@pytest.mark.parametrize("entries", [0, -1])
def test_a_tlb_needs_an_entry(entries: int) -> None:
    with pytest.raises(InvalidArgument, match="it needs one at least"):
        Tlb(Tables(), entries=entries)


@pytest.mark.parametrize("bounds", [(0, 0), (0x1000, -1), (-1, 2)])
def test_flushing_nothing_is_a_mistake(bounds: tuple[int, int]) -> None:
    tlb = Tlb(Tables())
    with pytest.raises(InvalidArgument, match="invalidate"):
        tlb.invalidate(*bounds)
    assert tlb.statistics().flushes == 0


def test_check_finds_damage() -> None:
    tables = Tables()
    tables.map(SPT, 0, 0x5000)
    tlb = Tlb(tables)
    tlb.translate(0)
    tlb._entries[12, 7] = tlb._entries[12, 0]
    with pytest.raises(CheckFailed, match="page 0x7 of shift 12 is kept for"):
        tlb.check()
    del tlb._entries[12, 7]
    tlb.check()
    tlb._shifts[16] = 1
    with pytest.raises(CheckFailed, match="counted as"):
        tlb.check()
    del tlb._shifts[16]
    tlb._dropped = 1
    with pytest.raises(CheckFailed, match="contradict"):
        tlb.check()


STEP = st.tuples(
    st.sampled_from(["map", "unmap", "look", "look", "look", "flush", "flush all"]),
    st.sampled_from([PD0, LPT, SPT]),
    st.integers(0, 40),
)


@settings(max_examples=scaled(100, 2000))
@given(steps=st.lists(STEP, max_size=60), entries=st.integers(1, 6))
def test_against_a_dictionary(steps: list[tuple[str, int, int]], entries: int) -> None:
    """A second cache, made the simple way, sees the same; after a flush of all, what the tables hold."""
    tables = Tables()
    tlb = Tlb(tables, entries=entries)
    kept: list[Translation] = []
    physical = 0
    for what, level, number in steps:
        va, size = number << SHIFTS[level], 1 << SHIFTS[level]
        if what in ("map", "unmap"):
            # Directory entries that are pages lose their pointers; no tables below them are used again.
            if level == PD0 and any(tables.hand.get(PD0, va)):
                continue
            if level != PD0 and tables.hand.get(PD0, va)[0] & 1:
                continue
            physical += 1
            tables.map(level, va, physical << 21)
            if what == "unmap" and level != PD0:
                tables.hand.put(level, va, 0)
        elif what == "look":
            found = tlb.translate(va)
            hits = [page for page in kept if page.page_va <= va < page.page_va + (1 << page.shift)]
            hit = min(hits, key=lambda page: page.shift, default=None)
            if hit is not None:
                assert address(found) == hit.page_address + va % (1 << hit.shift)
                kept.remove(hit)
                kept.append(hit)
            else:
                assert found == tables.translate(va)
                if isinstance(found, Translation):
                    kept = [*kept, found][-entries:]
        elif what == "flush":
            gone = [
                page for page in kept if page.page_va < va + size and page.page_va + (1 << page.shift) > va
            ]
            assert tlb.invalidate(va, size) == len(gone)
            kept = [page for page in kept if page not in gone]
        else:
            assert tlb.invalidate_all() == len(kept)
            kept = []
        tlb.check()
    tlb.invalidate_all()
    for number in range(41):
        assert tlb.translate(number << 16) == tables.translate(number << 16)
