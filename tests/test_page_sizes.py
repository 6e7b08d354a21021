"""The largest page that fits, for every byte; and a hole in large pages, which leaves smaller ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise

import pytest
from hypothesis import given, note
from hypothesis import strategies as st

from gpuvm.errors import InvalidArgument
from gpuvm.mem import Aperture, Extent
from gpuvm.mmu.pages import Pages, cut_pages, split_into_pages

VRAM, SYSTEM = Aperture.VRAM, Aperture.SYSTEM_COHERENT
K4, K64, M2 = 1 << 12, 1 << 16, 1 << 21
GP100 = {21: frozenset({VRAM}), 16: frozenset({VRAM}), 12: frozenset({VRAM, SYSTEM})}
SMALL = {5: frozenset({VRAM}), 3: frozenset({VRAM, SYSTEM}), 1: frozenset({VRAM, SYSTEM})}
"""The same in small, so that every byte can be looked at: pages of 32, 8 and 2 bytes."""
ROOM = 192


def bytes_of(pages: Iterable[Pages]) -> dict[int, tuple[Aperture, int]]:
    """Where each address leads."""
    found: dict[int, tuple[Aperture, int]] = {}
    for run in pages:
        assert run.range == run.target.range
        for byte in range(run.range):
            assert run.addr + byte not in found
            found[run.addr + byte] = (run.target.aperture, run.target.addr + byte)
    return found


def sizes(pages: Iterable[Pages]) -> dict[int, int]:
    """The size of the page that each address lies in."""
    return {run.addr + byte: 1 << run.shift for run in pages for byte in range(run.range)}


def require_sound(pages: list[Pages], allowed: Mapping[int, frozenset[Aperture]]) -> None:
    """In order, apart, aligned in both address spaces, and in memory that may have pages of this size."""
    for before, after in pairwise(pages):
        assert before.end <= after.addr
    for run in pages:
        size = 1 << run.shift
        assert (run.addr % size, run.target.addr % size, run.range % size) == (0, 0, 0)
        assert run.range > 0
        assert run.target.aperture in allowed[run.shift]


def largest(leads: Mapping[int, tuple[Aperture, int]], addr: int) -> int:
    """The largest page that ``addr`` may lie in, found by looking at each byte that would lie in it."""
    for shift, apertures in SMALL.items():
        size = 1 << shift
        page = range(addr & -size, (addr & -size) + size)
        if not all(byte in leads for byte in page):
            continue
        aperture, physical = leads[page[0]]
        straight = all(leads[byte] == (aperture, physical + byte - page[0]) for byte in page)
        if straight and aperture in apertures and physical % size == 0:
            return size
    raise AssertionError(f"no page fits {addr}")


@st.composite
def extents(draw: st.DrawFn) -> list[Extent]:
    """Of one object: often contiguous, often aligned, in different apertures."""
    found: list[Extent] = []
    for _ in range(draw(st.integers(1, 6))):
        aperture = draw(st.sampled_from([VRAM, VRAM, SYSTEM]))
        first = 2 * draw(st.integers(0, 100))
        if draw(st.booleans()) and found:
            first = found[-1].addr + found[-1].range
        elif draw(st.booleans()):
            first &= -32
        length = draw(st.one_of(st.integers(1, 40), st.sampled_from([16, 32, 48, 64])))
        found.append(Extent(aperture, first, 2 * length))
    return found


@st.composite
def mapped(draw: st.DrawFn) -> tuple[int, int, list[Extent], int]:
    """Address, range, extents and offset of a mapping."""
    object_ = draw(extents())
    size = sum(extent.range for extent in object_)
    offset = 2 * draw(st.integers(0, size // 2 - 1))
    range_ = 2 * draw(st.integers(1, (size - offset) // 2))
    addr = draw(st.sampled_from([offset, 2 * draw(st.integers(0, 40)), 32 * draw(st.integers(0, 3))]))
    return addr, range_, object_, offset


class TestChoosing:
    @given(mapped())
    def test_every_byte_has_the_largest_page_that_fits(
        self, mapping: tuple[int, int, list[Extent], int]
    ) -> None:
        addr, range_, object_, offset = mapping
        pages = split_into_pages(SMALL, *mapping)
        note(str(pages))
        require_sound(pages, SMALL)
        whole = [(part.aperture, part.addr + byte) for part in object_ for byte in range(part.range)]
        leads = {addr + byte: whole[offset + byte] for byte in range(range_)}
        assert bytes_of(pages) == leads
        assert sizes(pages) == {byte: largest(leads, byte) for byte in leads}

    @given(mapped())
    def test_neighbours_that_continue_each_other_are_one_item(
        self, mapping: tuple[int, int, list[Extent], int]
    ) -> None:
        pages = split_into_pages(SMALL, *mapping)
        for before, after in pairwise(pages):
            same = before.shift == after.shift and before.target.aperture == after.target.aperture
            assert not (same and before.target.addr + before.range == after.target.addr)

    def test_gp100_large_object(self) -> None:
        pages = split_into_pages(GP100, M2 - K64 - K4, 2 * M2, [Extent(VRAM, M2 - K64 - K4, 2 * M2)], 0)
        assert [(run.addr, run.range, run.shift) for run in pages] == [
            (M2 - K64 - K4, K4, 12),
            (M2 - K64, K64, 16),
            (M2, M2, 21),
            (2 * M2, M2 - 2 * K64, 16),
            (3 * M2 - 2 * K64, K64 - K4, 12),
        ]

    def test_system_memory_has_small_pages_only(self) -> None:
        pages = split_into_pages(GP100, M2, M2, [Extent(SYSTEM, 0, M2)], 0)
        assert pages == [Pages(M2, M2, 12, Extent(SYSTEM, 0, M2))]

    def test_physical_alignment_counts_as_much(self) -> None:
        pages = split_into_pages(GP100, 0, M2, [Extent(VRAM, K64, M2)], 0)
        assert [run.shift for run in pages] == [16]

    def test_extents_that_touch_make_one_large_page(self) -> None:
        halves = [Extent(VRAM, M2, M2 // 2), Extent(VRAM, M2 + M2 // 2, M2 // 2)]
        assert split_into_pages(GP100, 0, M2, halves, 0) == [Pages(0, M2, 21, Extent(VRAM, M2, M2))]

    @pytest.mark.parametrize(
        ("addr", "range_", "offset"),
        [(0, 0, 0), (0, 2 * M2, 0), (0, M2, K4), (0, K4, M2), (1, K4, 0), (0, K4 + 1, 0), (0, K4, 1)],
        ids=["empty", "long", "beyond", "behind", "address", "range", "offset"],
    )
    def test_what_cannot_be_mapped_is_refused(self, addr: int, range_: int, offset: int) -> None:
        with pytest.raises(InvalidArgument, match="pages: "):
            split_into_pages(GP100, addr, range_, [Extent(VRAM, 0, M2)], offset)

    def test_memory_without_pages_is_refused(self) -> None:
        with pytest.raises(InvalidArgument, match="PEER"):
            split_into_pages(GP100, 0, K4, [Extent(Aperture.PEER, 0, K4)], 0)


class TestCutting:
    @given(mapped(), st.integers(0, ROOM), st.integers(1, 60))
    def test_every_byte_outside_the_hole_is_kept(
        self, mapping: tuple[int, int, list[Extent], int], start: int, length: int
    ) -> None:
        pages = split_into_pages(SMALL, *mapping)
        hole = range(2 * start, 2 * start + 2 * length)
        cut = cut_pages(SMALL, pages, hole.start, len(hole))
        note(str(cut))
        was = bytes_of(pages)
        left = {byte: leads for byte, leads in was.items() if byte not in hole}
        assert bytes_of(cut.before + cut.after) == left
        assert all(run.end <= hole.start for run in cut.before)
        assert all(run.addr >= hole.stop for run in cut.after)
        require_sound(cut.before + cut.after, SMALL)
        require_sound(cut.added, SMALL)
        require_sound(cut.gone, SMALL)

        before, after = sizes(pages), sizes(cut.before + cut.after)
        cut_off = set(sizes(cut.gone))
        assert set(was) - set(left) <= cut_off, "what is in the hole goes"
        for byte in left:
            whole = range(byte & -before[byte], (byte & -before[byte]) + before[byte])
            if set(whole) & set(hole):
                assert byte in cut_off
                assert after[byte] == largest(left, byte)
            else:
                assert byte not in cut_off
                assert after[byte] == before[byte]
        assert set(sizes(cut.added)) == cut_off & set(left)
        assert set(cut.added) <= set(cut.before + cut.after)

    def test_a_hole_in_a_large_page(self) -> None:
        pages = [Pages(0, 3 * M2, 21, Extent(VRAM, M2, 3 * M2))]
        cut = cut_pages(GP100, pages, M2 + K64 + K4, K64)
        assert cut.gone == [Pages(M2, M2, 21, Extent(VRAM, 2 * M2, M2))]
        assert [(run.addr, run.range, run.shift) for run in cut.before] == [
            (0, M2, 21),
            (M2, K64, 16),
            (M2 + K64, K4, 12),
        ]
        assert [(run.addr, run.range, run.shift) for run in cut.after] == [
            (M2 + 2 * K64 + K4, 15 * K4, 12),
            (M2 + 3 * K64, M2 - 3 * K64, 16),
            (2 * M2, M2, 21),
        ]
        assert cut.added == [*cut.before[1:], *cut.after[:-1]]

    def test_a_hole_at_the_borders_of_pages_cuts_none(self) -> None:
        pages = [Pages(0, 3 * M2, 21, Extent(VRAM, 0, 3 * M2))]
        cut = cut_pages(GP100, pages, M2, M2)
        assert (cut.added, cut.gone) == ([], [pages[0].part(M2, 2 * M2)])

    def test_a_hole_beside_it_changes_nothing(self) -> None:
        pages = [Pages(M2, M2, 21, Extent(VRAM, 0, M2))]
        assert cut_pages(GP100, pages, 0, M2).after == pages
        assert cut_pages(GP100, pages, 2 * M2, M2).before == pages

    def test_a_hole_finer_than_the_smallest_page_is_refused(self) -> None:
        pages = [Pages(0, M2, 21, Extent(VRAM, 0, M2))]
        with pytest.raises(InvalidArgument, match="no page of VRAM fits"):
            cut_pages(GP100, pages, K4 // 2, K4)
