"""`PageTable`: the five calls, and the words that they leave in VRAM, bit by bit."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from gpuvm.errors import InvalidArgument, NotSupported
from gpuvm.mem import Aperture, Extent
from gpuvm.mmu.formats.format import Format, PteFlags
from gpuvm.mmu.formats.gh100 import GH100
from gpuvm.mmu.formats.gp100 import GP100
from gpuvm.mmu.formats.x86_64 import X86_64
from gpuvm.mmu.page_table import PageTable
from gpuvm.mmu.translation import Fault, Run, RunState, Sparse, Translation
from gpuvm.mmu.walk import translate
from page_table_reader import walk
from page_table_scene import GIB, KIB, MIB, Scene, vram
from placed import make_device
from table_memory import ArrayMemory

FORMATS = pytest.mark.parametrize("format", [GP100, GH100, X86_64], ids=lambda format: format.name)

VA = 0x1_2345_6000
"""PD3 0, PD2 0, PD1 9, PD0 0x1A, LPT 5, SPT 0x56."""
INVALID_64K = 0x20


def test_an_empty_space_is_a_root_of_zeros() -> None:
    scene = Scene()
    assert scene.memory.used == {scene.tables.root: 4096}
    assert scene.shown() == []
    scene.end()


def test_a_small_page_word_by_word() -> None:
    scene = Scene()
    scene.tables.get(VA, 4 * KIB, 12)
    for above, below in (("PD3", "PD2"), ("PD2", "PD1"), ("PD1", "PD0")):
        # Bits 2:1 are the aperture, 1 is VRAM; the address begins at bit 8 as a page number.
        assert scene.entry(above, VA) == scene.at(below, VA) >> 4 | 0b010
    assert scene.entry("PD0", VA) == 0, "no table of big pages"
    assert scene.high(VA) == scene.at("SPT", VA) >> 4 | 0b010
    assert scene.entry("SPT", VA) == 0
    scene.tables.map(VA, 4 * KIB, 12, vram(0x89ABC000, 4 * KIB))
    assert scene.entry("SPT", VA) == 0x089ABC01
    assert scene.word(scene.at("SPT", VA) + 0x57 * 8) == 0, "its neighbour"
    scene.tables.unmap(VA, 4 * KIB, 12)
    assert scene.entry("SPT", VA) == 0
    scene.tables.put(VA, 4 * KIB, 12)
    scene.end()


def test_big_pages_word_by_word() -> None:
    scene = Scene()
    scene.get_map(VA & -0x10000, 128 * KIB, 16, 0x5_4320_0000 & 0xFFFFFFFF)
    assert scene.entry("PD0", VA) == scene.at("LPT", VA) >> 4 | 0b010
    assert scene.at("LPT", VA) % 0x100 == 0
    assert scene.high(VA) == 0, "no table of small pages"
    words = [scene.word(scene.at("LPT", VA) + index * 8) for index in range(32)]
    assert words == [INVALID_64K] * 5 + [0x04320001, 0x04321001] + [INVALID_64K] * 25
    scene.unmap_put(VA & -0x10000, 128 * KIB, 16)
    scene.end()


def test_huge_pages_word_by_word() -> None:
    scene = Scene()
    scene.get_map(6 * MIB, 4 * MIB, 21, 0x1_0000_0000)
    table = scene.at("PD0", 0)
    words = np.frombuffer(scene.memory.view[table : table + 12 * 8].tobytes(), np.uint64)
    assert words.tolist() == [0] * 6 + [0x10000001, 0, 0x10020001, 0] + [0, 0]
    assert scene.tables.statistics().tables["LPT"] == scene.tables.statistics().tables["SPT"] == 0
    scene.unmap_put(6 * MIB, 4 * MIB, 21)
    scene.end()


@pytest.mark.parametrize(
    ("aperture", "kind", "flags", "word"),
    [
        (Aperture.VRAM, 0, PteFlags(0), 0x0765_4301),
        (Aperture.SYSTEM_COHERENT, 0, PteFlags(0), 0x0765_4305),
        (Aperture.SYSTEM_NON_COHERENT, 0, PteFlags.READ_ONLY, 0x0765_4347),
        (Aperture.VRAM, 0, PteFlags.PRIVILEGED | PteFlags.VOLATILE, 0x0765_4329),
        (Aperture.VRAM, 0, PteFlags.NO_ATOMICS, 0x0765_4381),
        (Aperture.VRAM, 0xFE, PteFlags(0), 0xFE00_0000_0765_4301),
    ],
)
def test_what_a_page_can_be(aperture: Aperture, kind: int, flags: PteFlags, word: int) -> None:
    scene = Scene()
    scene.tables.get(0, 8 * KIB, 12)
    scene.tables.map(0, 8 * KIB, 12, Extent(aperture, 0x7654_3000, 8 * KIB), kind, flags)
    assert scene.entry("SPT", 0) == word
    assert scene.entry("SPT", 4 * KIB) == word + 0x100
    where = scene.tables.translate(0x1234)
    assert isinstance(where, Translation)
    found = (where.aperture, where.address, where.shift, where.kind, where.flags, where.word)
    assert found == (aperture, 0x7654_4234, 12, kind, flags, word + 0x100)
    assert scene.shown() == [Run(0, 8 * KIB, RunState.VALID, aperture, 0x7654_3000, kind, flags)]


def test_a_larger_page_covers_the_smaller_ones() -> None:
    """And uncovers them, as they are by then."""
    scene = Scene()
    scene.get_map(0, 2 * MIB, 12, 1 * GIB)
    scene.get_map(0, 2 * MIB, 16, 2 * GIB)
    scene.get_map(0, 2 * MIB, 21, 3 * GIB)
    assert scene.look(0x12345) == 3 * GIB + 0x12345
    scene.tables.unmap(0x10000, 64 * KIB, 16)
    scene.tables.unmap(0x11000, 4 * KIB, 12)
    assert scene.look(0x12345) == 3 * GIB + 0x12345
    scene.tables.unmap(0, 2 * MIB, 21)
    assert [scene.look(va) for va in (0xF000, 0x10000, 0x11000, 0x12345)] == [
        2 * GIB + 0xF000,
        1 * GIB + 0x10000,
        "Fault",
        1 * GIB + 0x12345,
    ]
    assert scene.entry("LPT", 0x10000) == 0, "the reader is sent to the small pages"
    scene.tables.check()


def test_a_small_page_alone_sends_readers_to_its_64k_only() -> None:
    scene = Scene()
    scene.get_map(0x20000, 64 * KIB, 16, 1 * GIB)
    scene.get_map(0x31000, 4 * KIB, 12, 2 * GIB)
    words = [scene.word(scene.at("LPT", 0) + index * 8) for index in range(5)]
    assert words == [INVALID_64K, INVALID_64K, 0x04000001, 0, INVALID_64K]
    scene.unmap_put(0x31000, 4 * KIB, 12)
    words = [scene.word(scene.at("LPT", 0) + index * 8) for index in range(5)]
    assert words == [INVALID_64K, INVALID_64K, 0x04000001, INVALID_64K, INVALID_64K]
    assert scene.high(0) == 0
    scene.unmap_put(0x20000, 64 * KIB, 16)
    scene.end()


def test_a_new_table_of_big_pages_knows_of_small_ones() -> None:
    """It sends readers on from its first moment."""
    scene = Scene()
    scene.get_map(0x31000, 4 * KIB, 12, 1 * GIB)
    scene.tables.get(0, 64 * KIB, 16)
    words = [scene.word(scene.at("LPT", 0) + index * 8) for index in range(5)]
    assert words == [INVALID_64K, INVALID_64K, INVALID_64K, 0, INVALID_64K]
    assert scene.look(0x31000) == 1 * GIB


@FORMATS
def test_every_format_and_page_size(format: Format) -> None:
    """Over the borders of tables; the core, the slow walk and (for gp100) a third reader agree."""
    for shift in format.page_shifts:
        scene = Scene(format)
        size = 3 << shift
        addr = (1 << 39) - (2 << shift)
        target = 3 << shift
        scene.get_map(addr, size, shift, target)
        scene.tables.check()
        assert scene.shown() == [Run(addr, size, RunState.VALID, Aperture.VRAM, target, 0, PteFlags(0))]
        for va in (addr - 1, addr, addr + size // 2 + 5, addr + size - 1, addr + size):
            found = scene.tables.translate(va)
            assert found == translate(format, scene.memory.view, scene.tables.root, va)
            assert isinstance(found, Translation) == (addr <= va < addr + size)
            if format is GP100:
                words = scene.memory.view.view(np.uint64)
                there = found.address if isinstance(found, Translation) else "invalid"
                assert walk(words, scene.tables.root, va)[1] == there
        scene.unmap_put(addr, size, shift)
        scene.end()


@FORMATS
def test_nothing_at_all(format: Format) -> None:
    tables = Scene(format).tables
    assert list(tables.runs(0, tables.range)) == [
        Run(0, tables.range, RunState.INVALID, Aperture.VRAM, 0, 0, PteFlags(0))
    ]
    assert isinstance(tables.translate(tables.range - 1), Fault)
    assert isinstance(tables.translate(tables.range), Fault)
    assert isinstance(tables.translate(-1), Fault)


def test_mapping_again_replaces_pages() -> None:
    scene = Scene()
    scene.get_map(0, 1 * MIB, 12, 1 * GIB)
    scene.tables.map(0x3000, 0x2000, 12, vram(2 * GIB, 0x2000))
    assert [(run.va, run.range, run.address) for run in scene.shown()] == [
        (0, 0x3000, 1 * GIB),
        (0x3000, 0x2000, 2 * GIB),
        (0x5000, 0xFB000, 1 * GIB + 0x5000),
    ]
    assert scene.tables.statistics().mapped[12] == 256


def test_unmapping_what_is_not_mapped_changes_nothing() -> None:
    scene = Scene()
    scene.tables.get(0, 64 * KIB, 12)
    before = scene.picture()
    scene.tables.unmap(0, 64 * KIB, 12)
    assert scene.picture() == before


def test_runs_of_part_of_a_page_and_in_many_arrays() -> None:
    scene = Scene()
    pages = 3000
    scene.tables.get(0, pages * 4096, 12)
    for page in range(0, pages, 2):
        scene.tables.map(page * 4096, 4096, 12, vram(page * 8192, 4096))
    runs = list(scene.tables.runs(0x123, pages * 4096 - 0x223))
    assert len(runs) == pages
    assert runs[0] == Run(0x123, 4096 - 0x123, RunState.VALID, Aperture.VRAM, 0x123, 0, PteFlags(0))
    assert sum(run.range for run in runs) == pages * 4096 - 0x223
    for run, following in pairwise(runs):
        assert run.va + run.range == following.va
    arrays = list(map(len, scene.tables.run_arrays(0, pages * 4096)))
    assert len(arrays) > 1
    assert sum(arrays) == pages


def test_statistics_count_entries() -> None:
    scene = Scene()
    scene.get_map(0, 2 * MIB, 12, 1 * GIB)
    scene.get_map(2 * MIB, 2 * MIB, 21, 1 * GIB)
    scene.tables.unmap(0, 1 * MIB, 12)
    statistics = scene.tables.statistics()
    assert statistics.mapped == {21: 1, 16: 0, 12: 256}
    assert statistics.references == 513
    assert (statistics.written_pages, statistics.written_clears) == (513, 256)
    assert statistics.tables == {"PD3": 1, "PD2": 1, "PD1": 1, "PD0": 1, "LPT": 0, "SPT": 1}
    assert statistics.table_bytes == statistics.memory_bytes == 5 * 4096
    assert statistics.used == 4 + 1 + 256
    assert statistics.waste == 5 * 4096 - 3 * 8 - 2 * 16 - 256 * 8
    assert statistics.core_bytes > 512


def test_an_entry_counts_once_whatever_is_below_it() -> None:
    scene = Scene()
    for shift in (12, 16):
        scene.tables.get(0, 512 * MIB, shift)
    scene.get_map(0, 512 * MIB, 21, 1 * GIB)
    scene.tables.sparse(0, 512 * MIB, True)
    tables = scene.tables.tables()
    assert [table.used for table in tables if table.level == 3] == [256]
    assert scene.tables.statistics().waste == 3 * (4096 - 8) + 256 * 256 + 256 * 4096


@pytest.mark.parametrize("flags", [0x10, -1, PteFlags(0x80)])
def test_flags_that_are_none_are_refused(flags: PteFlags) -> None:
    scene = Scene()
    scene.tables.get(0, 4096, 12)
    with pytest.raises(InvalidArgument, match="flags"):
        scene.tables.map(0, 4096, 12, vram(0, 4096), 0, flags)
    assert scene.look(0) == "Fault"


@pytest.mark.parametrize(
    ("addr", "size", "shift"),
    [
        (0, 0, 12),
        (0, 2048, 12),
        (1, 4096, 12),
        (4096, 64 * KIB, 16),
        (0, 4096, 16),
        (0, 4096, 13),
        (0, 4096, 0),
        (0, 4096, 1 << 40),
        (0, 1 << 29, 29),
        (1 << 49, 4096, 12),
        ((1 << 49) - 4096, 8192, 12),
        (-4096, 4096, 12),
        ((1 << 64) - 4096, 4096, 12),
        ((1 << 64) - 4096, 8192, 12),
        (1 << 64, 4096, 12),
    ],
)
def test_ranges_that_are_refused(addr: int, size: int, shift: int) -> None:
    scene = Scene()
    before = scene.picture()
    for call in (scene.tables.get, scene.tables.put, scene.tables.unmap):
        with pytest.raises(InvalidArgument):
            call(addr, size, shift)
    with pytest.raises(InvalidArgument):
        scene.tables.map(addr, size, shift, vram(0, size))
    if shift == 12:
        for ref in (True, False):
            with pytest.raises(InvalidArgument):
                scene.tables.sparse(addr, size, ref)
    assert scene.picture() == before


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        (vram(0, 4096), 0),
        (vram(0x1800, 8192), 0),
        (vram(1 << 37, 8192), 0),
        (vram((1 << 37) - 4096, 8192), 0),
        (Extent(Aperture.PEER, 0, 8192), 0),
        (vram(0, 8192), 0x1FF),
    ],
)
def test_targets_that_are_refused(target: Extent, kind: int) -> None:
    """Of another length, not aligned, too high from the first or from the second page on, of another GPU."""
    scene = Scene()
    scene.tables.get(0, 8192, 12)
    before = scene.picture()
    with pytest.raises(InvalidArgument):
        scene.tables.map(0, 8192, 12, target, kind)
    assert scene.picture() == before


def test_a_format_without_sparse_entries_says_so() -> None:
    tables = PageTable(X86_64, ArrayMemory())
    for ref in (True, False):
        with pytest.raises(NotSupported):
            tables.sparse(0, 4096, ref)


def test_pointers_that_lead_astray_are_faults() -> None:
    """Whatever the words are: nothing outside VRAM is read."""
    scene = Scene()
    scene.get_map(0, 4096, 12, 1 * GIB)
    place = scene.tables.root
    sound = scene.word(place)
    for word in (0xFFFF_FFFF_FFFF_FF02, sound | 0b100, len(scene.memory.view) >> 4 | 2):
        scene.memory.view[place : place + 8] = np.frombuffer(word.to_bytes(8, "little"), np.uint8)
        assert isinstance(scene.tables.translate(0), Fault)
        assert scene.shown() == []


@pytest.mark.parametrize("seed", range(4))
def test_any_bytes_can_be_read(seed: int) -> None:
    print(f"seed {seed}")
    random = np.random.default_rng(seed)
    memory = ArrayMemory(1 << 16)
    scene = Scene(GP100, memory)
    words = memory.view.view(np.uint64)
    words[:] = random.integers(0, 1 << 64, len(words), np.uint64)
    # Pointers that stay in VRAM, so that walks go deep.
    words[::2] = random.integers(0, 1 << 16, len(words) // 2, np.uint64) >> 4 & ~np.uint64(0xF5) | np.uint64(
        2
    )
    for va in random.integers(0, 1 << 49, 300).tolist():
        found = scene.tables.translate(va)
        assert found == translate(GP100, memory.view, scene.tables.root, va)
        run = next(iter(scene.tables.runs(va, 1)))
        state = {Translation: RunState.VALID, Sparse: RunState.SPARSE, Fault: RunState.INVALID}[type(found)]
        assert run.state is state
        if isinstance(found, Translation):
            assert (run.aperture, run.address, run.kind, run.flags) == (
                found.aperture,
                found.address,
                found.kind,
                found.flags,
            )


@pytest.mark.parametrize(
    ("format", "message"),
    [("gp100", "'gp100'; pass one of gpuvm.mmu.formats"), (GP100, "device.instance_memory")],
)
def test_what_no_page_table_is_made_of(format: Any, message: str) -> None:
    device: Any = make_device()
    with pytest.raises(InvalidArgument, match=message):
        PageTable(format, device)
    assert device.instance_memory.statistics().allocations == 0
