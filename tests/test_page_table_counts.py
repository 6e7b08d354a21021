"""`PageTable`: references, what PUT frees, table memory, and calls that fail and leave all as it was."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from gpuvm import _core
from gpuvm.errors import Busy, CheckFailed, InvalidArgument, LockdepError, OutOfMemory
from gpuvm.mem import faults
from gpuvm.mmu.formats.gp100 import GP100
from gpuvm.mmu.page_table import PageTable
from gpuvm.mmu.tables import TablePool
from gpuvm.sync import lockdep
from gpuvm.sync.mutex import Mutex
from page_table_scene import GIB, KIB, MIB, Scene, vram
from table_memory import ArrayMemory

SLOTS = 0xFFFF
"""References that a slot can have."""


def test_tables_stay_while_a_slot_is_referenced() -> None:
    scene = Scene()
    scene.tables.get(0, 16 * KIB, 12)
    scene.tables.get(8 * KIB, 16 * KIB, 12)
    scene.tables.put(0, 16 * KIB, 12)
    assert scene.tables.statistics().references == 4
    assert len(scene.memory.used) == 5
    scene.tables.put(8 * KIB, 16 * KIB, 12)
    assert len(scene.memory.used) == 1
    scene.end()


def test_sizes_are_counted_apart() -> None:
    scene = Scene()
    scene.tables.get(0, 64 * KIB, 16)
    for shift in (12, 21):
        with pytest.raises(InvalidArgument):
            scene.tables.put(0, 1 << shift, shift)
        with pytest.raises(InvalidArgument):
            scene.tables.map(0, 1 << shift, shift, vram(0, 1 << shift))
    scene.tables.put(0, 64 * KIB, 16)
    scene.end()


@pytest.mark.parametrize("hole", [0, 255, 511])
def test_one_slot_without_reference_refuses_the_whole_range(hole: int) -> None:
    scene = Scene()
    for page in range(512):
        if page != hole:
            scene.tables.get(page * 4096, 4096, 12)
    before = scene.picture()
    calls: list[Callable[[], None]] = [
        lambda: scene.tables.put(0, 2 * MIB, 12),
        lambda: scene.tables.map(0, 2 * MIB, 12, vram(GIB, 2 * MIB)),
        lambda: scene.tables.unmap(0, 2 * MIB, 12),
    ]
    for call in calls:
        with pytest.raises(InvalidArgument, match="no reference") as caught:
            call()
        assert caught.value.value == hole * 4096
    assert scene.picture() == before


def test_a_missing_table_refuses_the_whole_range() -> None:
    scene = Scene()
    scene.tables.get(0, 2 * MIB, 12)
    before = scene.picture()
    with pytest.raises(InvalidArgument) as caught:
        scene.tables.put(0, 4 * MIB, 12)
    assert caught.value.value == 2 * MIB
    assert scene.picture() == before


def test_the_last_reference_of_a_mapped_page_is_not_dropped() -> None:
    scene = Scene()
    scene.tables.get(0, 64 * KIB, 12)
    scene.get_map(0x5000, 0x1000, 12, GIB)
    scene.tables.put(0x5000, 0x1000, 12)
    before = scene.picture()
    with pytest.raises(InvalidArgument, match="mapped at 0x5000") as caught:
        scene.tables.put(0, 64 * KIB, 12)
    assert caught.value.value == 0x5000
    assert scene.picture() == before
    scene.tables.unmap(0x5000, 0x1000, 12)
    scene.tables.put(0, 64 * KIB, 12)
    scene.end()


def test_references_do_not_wrap_around() -> None:
    scene = Scene()
    for _ in range(SLOTS):
        scene.tables.get(0x3000, 4096, 12)
    before = scene.picture()
    with pytest.raises(InvalidArgument) as caught:
        scene.tables.get(0, 64 * KIB, 12)
    assert caught.value.value == 0x3000
    assert scene.picture() == before
    for _ in range(SLOTS):
        scene.tables.put(0x3000, 4096, 12)
    scene.end()


def test_tables_come_back_from_the_depth_first_to_the_root_last() -> None:
    scene = Scene()
    spots = [0, 2 * MIB, 512 * MIB, 256 * GIB, 1 << 47]
    for spot in spots:
        scene.tables.get(spot, 4096, 12)
    counts = []
    for spot in reversed(spots):
        scene.tables.put(spot, 4096, 12)
        scene.tables.check()
        counts.append(len(scene.memory.used))
    assert counts == [11, 8, 6, 5, 1]
    scene.end()


def test_big_tables_share_pages_of_memory() -> None:
    scene = Scene()
    scene.tables.get(0, 32 * MIB, 16)
    statistics = scene.tables.statistics()
    assert statistics.tables["LPT"] == 16
    assert len(scene.memory.used) == 4 + 1
    scene.tables.get(32 * MIB, 64 * KIB, 16)
    assert len(scene.memory.used) == 4 + 2
    scene.tables.put(0, 32 * MIB, 16)
    assert len(scene.memory.used) == 4 + 1
    scene.tables.put(32 * MIB, 64 * KIB, 16)
    scene.end()


def test_a_pool_refuses_what_it_did_not_give() -> None:
    pool = TablePool(ArrayMemory(), "tables")
    table = pool.allocate(256)
    for addr, size in ((table + 256, 256), (table, 512), (table + 8, 256), (table + 4096, 256)):
        with pytest.raises(InvalidArgument):
            pool.free(addr, size)
    pool.check()
    pool.free(table, 256)
    with pytest.raises(InvalidArgument):
        pool.free(table, 256)
    assert pool.used == 0


def test_closing_needs_an_empty_space() -> None:
    scene = Scene()
    scene.tables.get(0, 4096, 12)
    with pytest.raises(Busy):
        scene.tables.close()
    scene.tables.put(0, 4096, 12)
    scene.tables.sparse(0, 1 << 47, True)
    with pytest.raises(Busy):
        scene.tables.close()
    scene.tables.sparse(0, 1 << 47, False)
    scene.tables.close()
    with pytest.raises(InvalidArgument, match="closed"):
        scene.tables.get(0, 4096, 12)
    with pytest.raises(InvalidArgument, match="closed"):
        scene.tables.walk(0)
    with pytest.raises(InvalidArgument, match="closed"):
        scene.tables.close()
    assert scene.memory.used == {}


def test_memory_that_cannot_hold_tables_is_refused() -> None:
    frozen = np.zeros(1 << 16, np.uint8)
    frozen.flags.writeable = False
    shifted = np.zeros((1 << 16) + 8, np.uint8)[4:-4]
    for view in (frozen, shifted, np.zeros(1 << 17, np.uint8)[::2]):
        memory = ArrayMemory(view=view)
        memory.allocate = lambda size: 0  # type: ignore[method-assign]
        memory.free = lambda addr, size: None  # type: ignore[method-assign]
        with pytest.raises((InvalidArgument, BufferError)):
            PageTable(GP100, memory)


@pytest.mark.parametrize("addr", [100, 1 << 16, (1 << 64) - 4096])
def test_a_root_must_be_within_vram(addr: int) -> None:
    locks = Mutex("counting"), Mutex("mapping")
    with pytest.raises(InvalidArgument):
        _core.PageTable(np.zeros(1 << 16, np.uint8), GP100.layout(), addr, *locks)


# -- every allocation fails once


def _scene() -> Scene:
    """Some of everything, so that failing calls find neighbours to leave alone."""
    scene = Scene(memory=ArrayMemory(1 << 20))
    scene.get_map(2 * MIB, 128 * KIB, 12, GIB)
    scene.get_map(4 * MIB, 128 * KIB, 16, GIB)
    scene.tables.sparse(8 * MIB, 4 * MIB, True)
    return scene


CALLS: dict[str, Callable[[Scene], None]] = {
    "get small": lambda scene: scene.tables.get(0, 16 * MIB, 12),
    "get big": lambda scene: scene.tables.get(0, 16 * MIB, 16),
    "get huge": lambda scene: scene.tables.get(1 << 40, 16 * MIB, 21),
    "get where tables are": lambda scene: scene.tables.get(2 * MIB, 64 * KIB, 12),
    "sparse": lambda scene: scene.tables.sparse((1 << 30) + 0x3000, (1 << 40) + 0x54000, True),
    "sparse over pages": lambda scene: scene.tables.sparse(0, 8 * MIB, True),
}
CASES = pytest.mark.parametrize("name", CALLS)


@CASES
def test_every_allocation_of_table_memory_may_fail(name: str) -> None:
    untroubled = _scene()
    with faults.count_allocations() as allocations:
        CALLS[name](untroubled)
    scene = _scene()
    for number in range(len(allocations)):
        before = scene.picture()
        with faults.refuse_allocation(number), pytest.raises(OutOfMemory):
            CALLS[name](scene)
        scene.tables.check()
        assert scene.picture() == before
    CALLS[name](scene)
    scene.tables.check()
    assert scene.shown() == untroubled.shown()
    assert scene.tables.statistics().tables == untroubled.tables.statistics().tables


@CASES
def test_every_allocation_of_the_core_may_fail(name: str) -> None:
    scene = _scene()
    refused = 0
    while True:
        before = scene.picture()
        _core.fail_allocation(refused)
        try:
            CALLS[name](scene)
        except OutOfMemory:
            scene.tables.check()
            assert scene.picture() == before
            refused += 1
        else:
            break
        finally:
            _core.fail_allocation(None)
    scene.tables.check()
    assert refused > 0 or name == "get where tables are"


def test_running_out_of_memory_half_way_leaves_nothing_behind() -> None:
    scene = _scene()
    before = scene.picture()
    with pytest.raises(OutOfMemory):
        scene.tables.get(0, 504 * MIB, 12)
    assert scene.picture() == before


@pytest.mark.parametrize("range", [1 << 40, 1 << 49])
def test_more_tables_than_vram_are_refused_at_once(range: int) -> None:
    """Before objects are evicted one by one for tables that cannot be."""
    scene = _scene()
    with faults.count_allocations() as allocations, pytest.raises(OutOfMemory, match="shorter range"):
        scene.tables.get(0, range, 12)
    assert allocations == []


@CASES
def test_no_call_that_allocates_in_a_fence_signalling_section(name: str) -> None:
    scene = _scene()
    before = scene.picture()
    with lockdep.fence_signalling(), pytest.raises(LockdepError, match="fence-signalling"):
        CALLS[name](scene)
    assert scene.picture() == before


def test_calls_of_a_job_are_allowed_in_a_fence_signalling_section() -> None:
    scene = _scene()
    scene.tables.get(0, 16 * MIB, 12)
    with lockdep.fence_signalling():
        scene.tables.map(0, 16 * MIB, 12, vram(GIB, 16 * MIB))
        scene.tables.unmap(0, 16 * MIB, 12)
    _core.fail_allocation(0)
    scene.tables.map(0, 16 * MIB, 12, vram(GIB, 16 * MIB))
    scene.tables.unmap(0, 16 * MIB, 12)
    scene.tables.put(0, 16 * MIB, 12)
    scene.tables.sparse(8 * MIB, 4 * MIB, False)
    _core.fail_allocation(None)
    scene.tables.check()


# -- check() finds what is wrong


@pytest.mark.parametrize("level", ["PD3", "PD2", "PD1", "PD0", "LPT", "SPT"])
def test_a_word_that_is_wrong_is_found(level: str) -> None:
    scene = _scene()
    scene.get_map(2 * MIB, 64 * KIB, 16, GIB)
    scene.tables.check()
    scene.memory.view[scene.at(level, 2 * MIB) + (level == "PD0") * 24] ^= 1
    with pytest.raises(CheckFailed, match=r"in VRAM|high word"):
        scene.tables.check()


@pytest.mark.parametrize("bit", [1, 4, 9, 33, 53, 54])
@pytest.mark.parametrize("level", ["PD0", "LPT"])
def test_a_page_that_cannot_be_is_found(level: str, bit: int) -> None:
    """Pages of VRAM with another aperture, an address between pages, or bits that mean nothing."""
    scene = Scene()
    scene.get_map(2 * MIB, 64 * KIB, 16, GIB)
    scene.get_map(4 * MIB, 2 * MIB, 21, GIB)
    scene.tables.check()
    place = scene.at(level, 2 * MIB) + (level == "PD0") * 32 + bit // 8
    scene.memory.view[place] ^= 1 << bit % 8
    with pytest.raises(CheckFailed, match="no page"):
        scene.tables.check()


def test_bytes_behind_the_entries_are_looked_at_too() -> None:
    scene = _scene()
    scene.memory.view[scene.tables.root + 4 * 8] = 1
    with pytest.raises(CheckFailed, match="behind its entries"):
        scene.tables.check()
