"""Words of Hopper's page tables, bit by bit, against published ones and those made by hand."""

from __future__ import annotations

import pytest

from gpuvm.errors import InvalidArgument
from gpuvm.mem import Aperture
from gpuvm.mmu.formats import GH100, GP100
from gpuvm.mmu.formats.format import NO_FLAGS, PteFlags, State

READ_ONLY, PRIVILEGED, VOLATILE, NO_ATOMICS = PteFlags
VRAM, PEER, COHERENT, NON_COHERENT = Aperture
PD4, PD3, PD2, PD1, PD0, LPT, SPT = range(7)
GENERIC = 6


# Words that NVIDIA publishes: entry_test_hopper in kernel-open/nvidia-uvm/uvm_page_tree_test.c of its open
# kernel modules. Those that we write have access counters disabled.


@pytest.mark.parametrize(
    ("word", "flags"), [(0x999999999968D, VOLATILE), (0x9999999999685, NO_FLAGS)], ids=["uncached", "cached"]
)
def test_pages_of_nvidia(word: int, flags: PteFlags) -> None:
    assert GH100.pte(SPT, COHERENT, 0x9999999999000, GENERIC, flags) == word


@pytest.mark.parametrize(
    ("word", "aperture", "address", "flags"),
    [
        (0x9999999999605, COHERENT, 0x9999999999000, NO_FLAGS),
        (0x9999999999645, COHERENT, 0x9999999999000, NO_ATOMICS),
        (0x9999999999665, COHERENT, 0x9999999999000, READ_ONLY | NO_ATOMICS),
        (0xBBBBBBB661, VRAM, 0xBBBBBBB000, READ_ONLY | NO_ATOMICS),
        (0x200000BBBBBBB663, PEER, 0xBBBBBBB000, READ_ONLY | NO_ATOMICS),
    ],
)
def test_pages_with_access_counters_of_nvidia(
    word: int, aperture: Aperture, address: int, flags: PteFlags
) -> None:
    entry = GH100.decode(SPT, (word,))
    assert (entry.state, entry.aperture, entry.address) == (State.PAGE, aperture, address)
    assert (entry.kind, entry.flags) == (GENERIC, flags)


def test_number_of_another_gpu() -> None:
    assert dict(GH100.decode(SPT, (0x200000BBBBBBB663,)).fields)["PEER_ID"] == 1


@pytest.mark.parametrize("level", [PD4, PD3, PD2, PD1])
@pytest.mark.parametrize("ats", [0, 0x10], ids=["ats", "no ats"])
def test_pointers_of_nvidia(level: int, ats: int) -> None:
    entry = GH100.decode(level, (0xBBBBBBB00A | ats,))
    assert (entry.state, entry.table, entry.table_in_vram) == (State.TABLE, 0xBBBBBBB000, True)
    entry = GH100.decode(level, (0x999999999900C | ats,))
    assert (entry.state, entry.table, entry.table_in_vram) == (State.TABLE, 0x9999999999000, False)


@pytest.mark.parametrize("ats", [0, 0x10], ids=["ats", "no ats"])
def test_pairs_of_nvidia(ats: int) -> None:
    entry = GH100.decode(PD0, (0x999999999990C | ats, 0xBBBBBBB00A | ats))
    assert (entry.table, entry.table_in_vram) == (0x9999999999900, False)
    assert (entry.small, entry.small_in_vram) == (0xBBBBBBB000, True)
    entry = GH100.decode(PD0, (0xBBBBBBBB0A | ats, 0x999999999900C | ats))
    assert (entry.table, entry.table_in_vram) == (0xBBBBBBBB00, True)
    assert (entry.small, entry.small_in_vram) == (0x9999999999000, False)


def test_nothing_of_nvidia() -> None:
    """Unmapped, sparse, and a directory entry that forbids asking the CPU's tables."""
    assert [level.invalid_word for level in GH100.levels] == [0, 0, 0, 0, 0, 0x18, 0]
    assert [level.sparse_word for level in GH100.levels] == [0x8] * 7
    assert GH100.decode(PD3, (0x10,)).state is State.INVALID


# By hand, from NV_MMU_VER3_* of dev_mmu.h and what nouveau's vmmgh100.c writes.


def test_pages_by_hand() -> None:
    assert GH100.pte(SPT, VRAM, 0) == 0x81
    assert GH100.pte(SPT, VRAM, 0x1000) == 0x1081
    assert GH100.pte(SPT, NON_COHERENT, 0x1000) == 0x1087
    assert GH100.pte(LPT, VRAM, 0x1_0000, GENERIC) == 0x1_0681
    assert GH100.pte(PD0, VRAM, 0x20_0000, 0x8) == 0x20_0881
    assert GH100.pte(PD1, VRAM, 0x2000_0000, GENERIC) == 0x2000_0681


@pytest.mark.parametrize(
    ("flags", "pcf"),
    [
        (NO_FLAGS, 0x10),
        (VOLATILE, 0x11),
        (PRIVILEGED, 0x12),
        (PRIVILEGED | VOLATILE, 0x13),
        (READ_ONLY, 0x14),
        (READ_ONLY | VOLATILE, 0x15),
        (PRIVILEGED | READ_ONLY, 0x16),
        (NO_ATOMICS, 0x18),
        (PRIVILEGED | NO_ATOMICS, 0x1A),
        (READ_ONLY | NO_ATOMICS, 0x1C),
        (PRIVILEGED | READ_ONLY | NO_ATOMICS | VOLATILE, 0x1F),
    ],
)
def test_permission_and_cache_flags(flags: PteFlags, pcf: int) -> None:
    word = GH100.pte(SPT, VRAM, 0, 0, flags)
    assert word == 1 | pcf << 3
    entry = GH100.decode(SPT, (word,))
    assert dict(entry.fields)["PCF"] == pcf
    assert entry.flags == flags


def test_pointers_by_hand() -> None:
    above, low, high = GH100.levels[PD4].pointer, GH100.levels[PD0].pointer, GH100.levels[PD0].small
    assert above is not None
    assert low is not None
    assert high is not None
    assert above.encode(0x1234_5000) == 0x1234_5012
    assert low.encode(0x1234_5700) == 0x1234_5712
    assert high.encode(0x1234_5000) == 0x1234_5012
    for pointer, wrong in ((above, 0x800), (high, 0x100), (low, 0x80), (above, 1 << 52)):
        with pytest.raises(InvalidArgument, match="table address"):
            pointer.encode(wrong)


@pytest.mark.parametrize(
    ("level", "words", "state"),
    [
        (PD4, (0x8,), State.SPARSE),
        (PD4, (0x18,), State.SPARSE),  # without the CPU's tables
        (PD4, (0x28,), State.INVALID),  # no such code
        (PD4, (0x1,), State.INVALID),
        (PD1, (0x1,), State.PAGE),
        (PD1, (0x12,), State.TABLE),
        (PD1, (0x8,), State.SPARSE),
        (PD0, (0x8, 0), State.SPARSE),
        (PD0, (0x8, 0x1012), State.TABLE),
        (PD0, (0, 0x8), State.INVALID),
        (PD0, (0x1, 0x1012), State.PAGE),
        (LPT, (0x8,), State.SPARSE),
        (LPT, (0x18,), State.STOP),
        (LPT, (0x10,), State.INVALID),  # "mapping nowhere"
        (LPT, (0x48,), State.INVALID),  # no such code
        (SPT, (0x8,), State.SPARSE),
        (SPT, (0x10,), State.INVALID),
        (SPT, (0x18,), State.INVALID),
    ],
)
def test_states(level: int, words: tuple[int, ...], state: State) -> None:
    assert GH100.decode(level, words).state is state


def test_is_as_documented() -> None:
    assert [(x.name, x.shift, x.bits, x.entry_bytes, x.table_bytes) for x in GH100.levels] == [
        ("PD4", 56, 1, 8, 0x1000),
        ("PD3", 47, 9, 8, 0x1000),
        ("PD2", 38, 9, 8, 0x1000),
        ("PD1", 29, 9, 8, 0x1000),
        ("PD0", 21, 8, 16, 0x1000),
        ("LPT", 16, 5, 8, 0x100),
        ("SPT", 12, 9, 8, 0x1000),
    ]
    assert (GH100.va_bits, GH100.page_shifts, GH100.paired) == (57, (29, 21, 16, 12), True)


def test_it_differs_from_gp100_in_more_than_a_level() -> None:
    """Neither format takes the other's pages for its own."""
    assert GH100.decode(SPT, (GP100.pte(5, VRAM, 0x1000),)).address != 0x1000
    assert GP100.decode(5, (GH100.pte(SPT, VRAM, 0x1000),)).address != 0x1000
