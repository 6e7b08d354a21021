"""`PageTable`: sparse ranges, in the largest entries that fit."""

from __future__ import annotations

import pytest

from gpuvm.errors import AlreadyMapped, NotFound
from gpuvm.mem import Aperture
from gpuvm.mmu.formats.format import Format, PteFlags
from gpuvm.mmu.formats.gh100 import GH100
from gpuvm.mmu.formats.gp100 import GP100
from gpuvm.mmu.translation import Run, RunState, Sparse
from page_table_scene import GIB, KIB, MIB, Scene

SPARSE, INVALID_64K = 0x08, 0x20
"""Words: bit 3 without bit 0; bit 5 without bit 0."""

FORMATS = pytest.mark.parametrize("format", [GP100, GH100], ids=lambda format: format.name)


def sparse_run(va: int, range: int) -> Run:
    return Run(va, range, RunState.SPARSE, Aperture.VRAM, 0, 0, PteFlags(0))


@pytest.mark.parametrize(
    ("addr", "size", "entries", "tables"),
    [
        (0, 4 * KIB, {12: 1}, 5),
        (0, 64 * KIB, {16: 1}, 5),
        (0, 2 * MIB, {21: 1}, 4),
        (0, 512 * MIB, {29: 1}, 3),
        (0, 256 * GIB, {38: 1}, 2),
        (0, 1 << 47, {47: 1}, 1),
        (0, 1 << 49, {47: 4}, 1),
        (60 * KIB, 8 * KIB, {12: 2}, 5),
        (60 * KIB, 72 * KIB, {12: 2, 16: 1}, 6),
        (60 * KIB, 2 * MIB, {12: 16, 16: 31}, 7),
        (2 * MIB - 4 * KIB, 2 * MIB + 8 * KIB, {12: 2, 21: 1}, 6),
        (256 * GIB - 4 * KIB, (1 << 47) + 4 * KIB, {12: 1, 38: 512}, 6),
    ],
)
def test_pieces(addr: int, size: int, entries: dict[int, int], tables: int) -> None:
    """Tables are for ragged edges only."""
    scene = Scene()
    scene.tables.sparse(addr, size, True)
    scene.tables.check()
    statistics = scene.tables.statistics()
    assert {shift: count for shift, count in statistics.sparse.items() if count} == entries
    assert sum(statistics.tables.values()) == tables
    assert statistics.sparse_bytes == size
    assert scene.shown() == [sparse_run(addr, size)]
    assert isinstance(scene.tables.translate(addr + size - 1), Sparse)
    scene.tables.sparse(addr, size, False)
    assert scene.shown() == []
    scene.end()


@FORMATS
def test_largest_entries_of_every_format(format: Format) -> None:
    for level in format.levels:
        scene = Scene(format)
        size = 1 << level.shift
        scene.tables.sparse(size, size, True)
        scene.tables.check()
        assert scene.tables.statistics().sparse[level.shift] == 1
        assert scene.shown() == [sparse_run(size, size)]
        scene.tables.sparse(size, size, False)
        scene.end()


def test_words() -> None:
    scene = Scene()
    scene.tables.sparse(0xF000, 0x22000, True)
    assert scene.entry("PD0", 0) == scene.at("LPT", 0) >> 4 | 2
    assert [scene.entry("LPT", index << 16) for index in range(4)] == [0, SPARSE, SPARSE, 0]
    assert [scene.entry("SPT", va) for va in (0xE000, 0xF000, 0x10000, 0x30000, 0x31000)] == [
        0,
        SPARSE,
        SPARSE,
        SPARSE,
        0,
    ]
    scene.tables.sparse(0xF000, 0x22000, False)
    scene.end()


def test_an_unmapped_page_of_a_sparse_range_reads_zeros_again() -> None:
    """Vectors of nouveau in pages: S = [16, 32); unmap [18, 20); map [18, 20); unmap it: it is sparse."""
    scene = Scene()
    scene.tables.sparse(16 * 4096, 16 * 4096, True)
    scene.get_map(18 * 4096, 2 * 4096, 12, GIB)
    assert scene.entry("LPT", 0x10000) == 0
    assert [run.state for run in scene.shown()] == [RunState.SPARSE, RunState.VALID, RunState.SPARSE]
    assert scene.entry("SPT", 17 * 4096) == SPARSE
    scene.tables.unmap(18 * 4096, 2 * 4096, 12)
    assert scene.entry("SPT", 18 * 4096) == SPARSE
    scene.tables.put(18 * 4096, 2 * 4096, 12)
    assert scene.entry("LPT", 0x10000) == SPARSE
    assert scene.shown() == [sparse_run(16 * 4096, 16 * 4096)]
    scene.tables.sparse(16 * 4096, 16 * 4096, False)
    scene.end()


@pytest.mark.parametrize("shift", [12, 16, 21])
def test_pages_within_a_huge_sparse_range(shift: int) -> None:
    """New tables are sparse all over, level by level, from the moment that they can be seen."""
    scene = Scene()
    scene.tables.sparse(0, 1 << 47, True)
    addr, size = (1 << 46) + (3 << shift), 1 << shift
    scene.get_map(addr, size, shift, GIB)
    scene.tables.check()
    behind = addr + size
    assert scene.shown() == [
        sparse_run(0, addr),
        Run(addr, size, RunState.VALID, Aperture.VRAM, GIB, 0, PteFlags(0)),
        sparse_run(behind, (1 << 47) - behind),
    ]
    scene.unmap_put(addr, size, shift)
    assert scene.shown() == [sparse_run(0, 1 << 47)]
    scene.tables.sparse(0, 1 << 47, False)
    scene.end()


def test_a_range_over_pages_shows_between_them_only() -> None:
    scene = Scene()
    for index, shift in enumerate((12, 16, 21)):
        scene.get_map((2 * index + 1) * 2 * MIB, 1 << shift, shift, GIB)
    mapped = scene.shown()
    scene.tables.sparse(0, 512 * MIB, True)
    scene.tables.check()
    assert [run for run in scene.shown() if run.state is RunState.VALID] == mapped
    assert sum(run.range for run in scene.shown()) == 512 * MIB
    scene.tables.sparse(0, 512 * MIB, False)
    scene.tables.check()
    assert scene.shown() == mapped
    assert scene.entry("LPT", 6 * MIB + 0x10000) == INVALID_64K


def test_ending_a_range_under_pages() -> None:
    """Its 64 KiB pieces lie over small pages, whose neighbours are holes then."""
    scene = Scene()
    scene.tables.sparse(0, 128 * KIB, True)
    scene.get_map(0x4000, 0x2000, 12, GIB)
    scene.get_map(0x10000, 0x10000, 16, GIB)
    mapped = [run for run in scene.shown() if run.state is RunState.VALID]
    scene.tables.sparse(0, 128 * KIB, False)
    scene.tables.check()
    assert scene.shown() == mapped
    assert scene.entry("SPT", 0) == 0
    scene.unmap_put(0x4000, 0x2000, 12)
    scene.unmap_put(0x10000, 0x10000, 16)
    scene.end()


@pytest.mark.parametrize(("addr", "size"), [(0, 1), (1, 2), (3, 1), (0, 4), (1, 1), (2, 5), (0, 9)])
def test_ranges_do_not_overlap(addr: int, size: int) -> None:
    scene = Scene()
    scene.tables.sparse(0, 4 * 4096, True)
    before = scene.picture()
    with pytest.raises(AlreadyMapped) as caught:
        scene.tables.sparse(addr * 4096, size * 4096, True)
    assert caught.value.bound == (0, 4 * 4096)
    assert scene.picture() == before


def test_only_the_very_range_can_be_ended() -> None:
    scene = Scene()
    scene.tables.sparse(4096, 8 * 4096, True)
    before = scene.picture()
    for addr, size in ((0, 9), (1, 4), (1, 9), (2, 7), (20, 1)):
        with pytest.raises(NotFound):
            scene.tables.sparse(addr * 4096, size * 4096, False)
    assert scene.picture() == before
    scene.tables.sparse(4096, 8 * 4096, False)
    with pytest.raises(NotFound):
        scene.tables.sparse(4096, 8 * 4096, False)
    scene.end()


def test_neighbours_in_one_table() -> None:
    scene = Scene()
    ranges = [(index * 3 * 4096, (1 + index % 3) * 4096) for index in range(200)]
    for addr, size in ranges:
        scene.tables.sparse(addr, size, True)
    scene.tables.check()
    assert scene.tables.sparse_ranges() == ranges
    for addr, size in ranges[::2] + ranges[1::2]:
        scene.tables.sparse(addr, size, False)
        scene.tables.check()
    scene.end()
