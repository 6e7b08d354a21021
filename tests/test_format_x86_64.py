"""Page tables of a CPU in long mode, made by hand as in books about operating systems."""

from __future__ import annotations

import struct

import pytest

from gpuvm.errors import InvalidArgument
from gpuvm.mem import Aperture
from gpuvm.mmu.formats import X86_64
from gpuvm.mmu.formats.format import NO_FLAGS, PteFlags, State
from gpuvm.mmu.translation import Fault, FaultType, Result, Translation
from gpuvm.mmu.walk import translate, walk

READ_ONLY, PRIVILEGED, VOLATILE, NO_ATOMICS = PteFlags
VRAM, PEER, COHERENT, NON_COHERENT = Aperture
PML4, PDPT, PD, PT = range(4)


class Memory:
    """Physical memory with entries written at addresses; CR3 is 0x1000."""

    def __init__(self, *words: tuple[int, int]) -> None:
        self.bytes = bytearray(0x10000)
        for where, word in words:
            struct.pack_into("<Q", self.bytes, where, word)

    def __getitem__(self, addr: int) -> Result:
        return translate(X86_64, self.bytes, 0x1000, addr)


def where(result: Result) -> tuple[int, int]:
    assert isinstance(result, Translation)
    return result.address, result.shift


def test_is_as_documented() -> None:
    assert [(x.name, x.shift, x.bits, x.entry_bytes, x.table_bytes) for x in X86_64.levels] == [
        ("PML4", 39, 9, 8, 4096),
        ("PDPT", 30, 9, 8, 4096),
        ("PD", 21, 9, 8, 4096),
        ("PT", 12, 9, 8, 4096),
    ]
    assert (X86_64.va_bits, X86_64.page_shifts, X86_64.paired) == (48, (30, 21, 12), False)
    assert not any(level.sparse.matches(word) for level in X86_64.levels for word in (0, 8, 2**64 - 1))


def test_the_first_tables_of_a_boot_loader() -> None:
    """Identity-mapped first 2 MiB in 4 KiB pages: one table of each level, entries "present, writable"."""
    memory = Memory(
        (0x1000, 0x2003),
        (0x2000, 0x3003),
        (0x3000, 0x4003),
        *((0x4000 + 8 * n, n << 12 | 3) for n in range(512)),
    )
    for addr in (0, 0x1000, 0xB8000, 0x1F_FFFF):
        assert where(memory[addr]) == (addr, 12)
    found = memory[0xB8123]
    assert found == Translation(0xB8123, VRAM, 0xB8123, 12, 0, PRIVILEGED, "PT", 0xB8003)
    assert (found.page_va, found.page_address) == (0xB8000, 0xB8000)
    assert memory[0x20_0000] == Fault(0x20_0000, FaultType.PDE, "PD", 0)
    assert memory[1 << 39] == Fault(1 << 39, FaultType.PDE, "PML4", 0)


def test_large_and_huge_pages() -> None:
    memory = Memory(
        (0x1000, 0x2007),
        (0x2000, 0x3007),
        (0x2008, 0x4000_0087),  # 1 GiB
        (0x3000, 0x83),  # 2 MiB, not for user code
        (0x3008, 0xC020_0087),
        (0x3010, 0x4007),
        (0x4FF8, 0x7777_7007),
    )
    assert where(memory[0x1F_FFFF]) == (0x1F_FFFF, 21)
    assert where(memory[0x20_1234]) == (0xC020_1234, 21)
    assert where(memory[0x5F_F123]) == (0x7777_7123, 12)
    assert where(memory[0x4000_0000]) == (0x4000_0000, 30)
    assert where(memory[0x7FFF_FFFF]) == (0x7FFF_FFFF, 30)
    steps = walk(X86_64, memory.bytes, 0x1000, 0x5F_F123)
    assert [(s.entry.level.name, s.table, s.index, s.entry.words[0]) for s in steps] == [
        ("PML4", 0x1000, 0, 0x2007),
        ("PDPT", 0x2000, 0, 0x3007),
        ("PD", 0x3000, 2, 0x4007),
        ("PT", 0x4000, 511, 0x7777_7007),
    ]


def test_the_upper_half() -> None:
    """The last page that a recursive mapping in PML4's last entry shows is PML4 itself."""
    memory = Memory((0x1FF8, 0x1003))
    addr = 0xFFFF_FFFF_FFFF_F000 & (1 << 48) - 1
    assert where(memory[addr | 0xFF8]) == (0x1FF8, 12)
    assert memory[1 << 48] == Fault(1 << 48, FaultType.VA_LIMIT_VIOLATION, None, 0)


@pytest.mark.parametrize("level", [PML4, PDPT, PD, PT])
@pytest.mark.parametrize(("bit", "flag"), [(2, READ_ONLY), (4, PRIVILEGED)])
def test_every_entry_on_the_way_has_a_say(level: int, bit: int, flag: PteFlags) -> None:
    words = [0x2007, 0x3007, 0x4007, 0x5007]
    words[level] &= ~bit
    memory = Memory(*zip((0x1000, 0x2000, 0x3000, 0x4000), words, strict=True))
    found = memory[0]
    assert isinstance(found, Translation)
    assert found.flags == flag


def test_entries_of_linux() -> None:
    """The kernel's direct mapping, global, accessed, dirty and not executable; and a user's page."""
    entry = X86_64.decode(PD, (0x8000_0000_0000_01E3,))
    assert (entry.state, entry.address, entry.flags) == (State.PAGE, 0, PRIVILEGED)
    assert dict(entry.fields) == {
        **{"P": 1, "RW": 1, "US": 0, "PWT": 0, "PCD": 0, "A": 1, "D": 1, "G": 1, "PS": 1, "PAT": 0},
        **{"ADDRESS": 0, "APERTURE": 0, "NX": 1},
    }
    entry = X86_64.decode(PT, (0x8000_0001_2345_6867,))
    assert (entry.state, entry.address, entry.flags) == (State.PAGE, 0x1_2345_6000, NO_FLAGS)
    assert dict(entry.fields)["D"] == 1
    entry = X86_64.decode(PD, (0x8000_0001_23E0_1083,))
    assert (entry.address, dict(entry.fields)["PAT"]) == (0x1_23E0_0000, 1)


def test_the_same_bit_is_page_size_above_and_pat_below() -> None:
    assert X86_64.decode(PML4, (0x2087,)).state is State.INVALID
    assert X86_64.decode(PDPT, (0x4000_0087,)).state is State.PAGE
    assert X86_64.decode(PT, (0x2087,)).address == 0x2000
    assert dict(X86_64.decode(PT, (0x2087,)).fields)["PAT"] == 1


def test_what_is_written() -> None:
    assert X86_64.pte(PT, VRAM, 0x1000) == 0x1007
    assert X86_64.pte(PD, VRAM, 0x20_0000) == 0x20_0087
    assert X86_64.pte(PDPT, VRAM, 0x4000_0000) == 0x4000_0087
    assert X86_64.pte(PT, VRAM, 0x1000, 0, READ_ONLY) == 0x1005
    assert X86_64.pte(PT, VRAM, 0x1000, 0, PRIVILEGED) == 0x1003
    assert X86_64.pte(PT, VRAM, 0x1000, 0, VOLATILE) == 0x1017
    assert X86_64.pte(PT, NON_COHERENT, 0x1000) == 0x0030_0000_0000_1007
    pointer = X86_64.levels[PML4].pointer
    assert pointer is not None
    assert pointer.encode(0x2000) == 0x2007
    with pytest.raises(InvalidArgument, match="no pages of shift 16"):
        X86_64.level_of(16)


def test_tables_outside_vram_are_not_followed() -> None:
    memory = Memory((0x1000, 0x0010_0000_0000_2007), (0x1008, 0xFFFF_F007), (0x2000, 0x83))
    assert memory[0] == Fault(0, FaultType.UNSUPPORTED_APERTURE, "PML4", 0x0010_0000_0000_2007)
    assert memory[1 << 39] == Fault(1 << 39, FaultType.PDE, "PML4", 0xFFFF_F007)
