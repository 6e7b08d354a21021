"""The slow walk, over tables made by hand and over random ones, against a dictionary."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuvm.errors import InvalidArgument
from gpuvm.mem import Aperture
from gpuvm.mmu.formats import FORMATS, GH100, GP100, Format, PteFlags, State
from gpuvm.mmu.translation import Fault, FaultType, Result, Sparse, Translation
from gpuvm.mmu.walk import conclude, translate, walk
from hand_tables import PUT, ROOT, HandTables, Model, Put, at
from suite import scaled

VRAM, PEER, COHERENT, NON_COHERENT = Aperture
PD3, PD2, PD1, PD0, LPT, SPT = range(6)
PAIRED = [format for format in FORMATS.values() if format.paired]


def names(format: Format, tables: HandTables, addr: int) -> list[str]:
    return [step.entry.level.name for step in walk(format, tables.vram, ROOT, addr)]


def look(tables: HandTables, addr: int) -> Result:
    return translate(tables.format, tables.vram, ROOT, addr)


def reason(found: Result) -> tuple[FaultType, str | None, int]:
    assert isinstance(found, Fault)
    return found.reason, found.level, found.word


def test_a_small_page_step_by_step() -> None:
    tables = HandTables(GP100)
    va = 1 << 47 | 2 << 38 | 3 << 29 | 4 << 21 | 5 << 12
    word = GP100.pte(SPT, COHERENT, 0x7_F000, 0, PteFlags.READ_ONLY)
    tables.put(SPT, va, word)
    steps = walk(GP100, tables.vram, ROOT, va | 0x123)
    assert [(s.number, s.entry.level.name, s.table, s.index) for s in steps] == [
        (PD3, "PD3", 0x1000, 1),
        (PD2, "PD2", 0x2000, 2),
        (PD1, "PD1", 0x3000, 3),
        (PD0, "PD0", 0x4000, 4),
        (SPT, "SPT", 0x5000, 5),
    ]
    assert [s.entry.words for s in steps] == [(0x202,), (0x302,), (0x402,), (0, 0x502), (word,)]
    found = look(tables, va | 0x123)
    assert found == Translation(va | 0x123, COHERENT, 0x7_F123, 12, 0, PteFlags.READ_ONLY, "SPT", word)
    assert found == conclude(va | 0x123, steps)


@pytest.mark.parametrize("format", PAIRED, ids=lambda f: f.name)
def test_big_pages_hide_small_ones_and_leave_the_rest_to_them(format: Format) -> None:
    tables, big, small = HandTables(format), len(format.levels) - 2, len(format.levels) - 1
    for number in range(64):
        tables.put(small, number << 12, format.pte(small, VRAM, number << 12))
    tables.put(big, 1 << 16, format.pte(big, VRAM, 0x50000))
    tables.put(big, 2 << 16, 0)
    assert names(format, tables, 0x5000)[-2:] == ["LPT", "SPT"]
    assert names(format, tables, 0x15000)[-2:] == ["PD0", "LPT"]
    found = [look(tables, addr) for addr in (0x5000, 0x15000, 0x25000)]
    assert [(f.address, f.shift) for f in found if isinstance(f, Translation)] == [
        (0x5000, 12),
        (0x55000, 16),
        (0x25000, 12),
    ]
    # "No small pages", and sparse, hide them too.
    tables.put(big, 2 << 16, format.levels[big].invalid_word)
    assert reason(look(tables, 0x25000)) == (FaultType.PTE, "LPT", format.levels[big].invalid_word)
    tables.put(big, 2 << 16, 8)
    assert look(tables, 0x25000) == Sparse(0x25000, 16, "LPT", 8)
    # A page in the directory hides both.
    tables.put(big - 1, 0, format.pte(big - 1, VRAM, 0x20_0000))
    assert look(tables, 0x5000) == Translation(
        *(0x5000, VRAM, 0x20_5000, 21, 0, PteFlags(0), "PD0", format.pte(big - 1, VRAM, 0x20_0000))
    )


@pytest.mark.parametrize("format", PAIRED, ids=lambda f: f.name)
def test_without_a_table_of_small_pages(format: Format) -> None:
    tables, big = HandTables(format), len(format.levels) - 2
    tables.put(big, 0, 0)
    assert names(format, tables, 0)[-1] == "LPT"
    assert reason(look(tables, 0)) == (FaultType.PTE, "LPT", 0)


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
def test_each_level_can_end_the_walk(format: Format) -> None:
    for number, level in enumerate(format.levels):
        tables = HandTables(format)
        tables.put(number, 0, 0)
        found = look(tables, 0)
        kind = FaultType.PDE if level.pointer else FaultType.PTE
        assert reason(found) == (kind, level.name, 0)
        if level.sparse_word is not None:
            tables.put(number, 0, level.sparse_word)
            assert look(tables, 0x123) == Sparse(0x123, level.shift, level.name, level.sparse_word)
        for aperture in level.pages:
            word = format.pte(number, aperture, 1 << level.shift)
            tables.put(number, 0, word)
            expected = (1 << level.shift) + 0x123
            assert look(tables, 0x123) == Translation(
                0x123, aperture, expected, level.shift, 0, PteFlags(0), level.name, word
            )


# Pointers that lead elsewhere.


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
def test_tables_beyond_vram(format: Format) -> None:
    """A table must lie in VRAM as a whole, or its entries are not read."""
    for number, level in enumerate(format.levels):
        for pointer, half in ((level.pointer, 0), (level.small, 1)):
            if pointer is None:
                continue
            tables = HandTables(format, 0x10000)
            for address in (0x10000, pointer.mask << pointer.shift):
                word = pointer.encode(address)
                tables.put(number, 0, word, half)
                assert reason(look(tables, 0)) == (FaultType.PDE, level.name, word)
            below = format.levels[number + 1 if half == 0 else -1]
            tables.put(number, 0, pointer.encode(0x10000 - below.table_bytes), half)
            assert len(walk(format, tables.vram, ROOT, 0)) == number + 2


@pytest.mark.parametrize("format", PAIRED, ids=lambda f: f.name)
@pytest.mark.parametrize("aperture", [2, 3])
def test_tables_in_system_memory(format: Format, aperture: int) -> None:
    for number, level in enumerate(format.levels):
        for pointer, half in ((level.pointer, 0), (level.small, 1)):
            if pointer is not None:
                tables = HandTables(format)
                word = pointer.encode(0x8000) & ~6 | aperture << 1
                tables.put(number, 0, word, half)
                assert reason(look(tables, 0)) == (FaultType.UNSUPPORTED_APERTURE, level.name, word)


@pytest.mark.parametrize("format", PAIRED, ids=lambda f: f.name)
def test_one_of_two_pointers_leads_elsewhere(format: Format) -> None:
    fork, big, small = (len(format.levels) - n for n in (3, 2, 1))
    tables = HandTables(format)
    tables.put(small, 0, format.pte(small, VRAM, 0x3000))
    tables.put(big, 0x10000, format.pte(big, VRAM, 0x40000))
    low, high = tables.get(fork, 0)
    # The big one counts first, even if the small one is good.
    tables.put(fork, 0, low | 4)
    assert reason(look(tables, 0)) == (FaultType.UNSUPPORTED_APERTURE, "PD0", low | 4)
    # The small one counts when it is followed.
    tables.put(fork, 0, low)
    tables.put(fork, 0, high | 4, half=1)
    assert reason(look(tables, 0)) == (FaultType.UNSUPPORTED_APERTURE, "PD0", high | 4)
    assert names(format, tables, 0)[-1] == "LPT"
    assert isinstance(look(tables, 0x10000), Translation)


def test_tables_that_point_to_themselves() -> None:
    """There are only so many levels."""
    tables = HandTables(GP100)
    for index in range(512):
        struct.pack_into("<Q", tables.vram, ROOT + 8 * index, ROOT >> 4 | 2)
    # PD0 is the same table with entries of 16 bytes, of which both pointers lead back.
    steps = walk(GP100, tables.vram, ROOT, 0x12345678)
    assert [s.entry.level.name for s in steps] == ["PD3", "PD2", "PD1", "PD0", "LPT", "SPT"]
    assert reason(look(tables, 0x12345678)) == (FaultType.PTE, "SPT", ROOT >> 4 | 2)


# Arguments.


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
def test_addresses_that_are_too_long(format: Format) -> None:
    vram = bytearray(0x10000)
    for addr in (1 << format.va_bits, 1 << 63, (1 << 64) - 1, -1):
        assert walk(format, vram, ROOT, addr) == ()
        assert translate(format, vram, ROOT, addr) == Fault(addr, FaultType.VA_LIMIT_VIOLATION, None, 0)
    assert len(walk(format, vram, ROOT, (1 << format.va_bits) - 1)) == 1


@pytest.mark.parametrize("root", [-0x1000, 0xF001, 0x10000, 1 << 60])
def test_roots_outside_vram(root: int) -> None:
    with pytest.raises(InvalidArgument, match="root table"):
        walk(GP100, bytearray(0x10000), root, 0)


def test_any_bytes_will_do() -> None:
    tables = HandTables(GH100)
    tables.put(3, 0x2000_0000, GH100.pte(3, VRAM, 0x4000_0000, 6))
    views = tables.vram, bytes(tables.vram), memoryview(tables.vram), np.frombuffer(tables.vram, np.uint8)
    found = {translate(GH100, view, ROOT, 0x2FFF_FFFF) for view in views}
    assert found == {
        Translation(0x2FFF_FFFF, VRAM, 0x4FFF_FFFF, 29, 6, PteFlags(0), "PD1", 0x4000_0681),
    }


# Random tables against a dictionary.


def simple(found: Result) -> tuple[State, int, int]:
    if isinstance(found, Translation):
        return State.PAGE, found.address, found.shift
    if isinstance(found, Sparse):
        return State.SPARSE, 0, found.shift
    return State.INVALID, 0, 0


def test_the_model_says_what_hand_tables_hold() -> None:
    model = Model(GP100, [])
    model.put(SPT, 0x3000, State.PAGE, 0x7000)
    model.put(LPT, 0x10000, State.STOP, 0)
    assert model.tables.get(SPT, 0x3000) == (0x701,)
    assert model.tables.vram[at(GP100.levels[LPT], model.tables.table(LPT, 0), 0x10000)] == 0x20
    assert model.translate(0x3123) == (State.PAGE, 0x7123, 12)


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
@settings(max_examples=scaled(60, 2000))
@given(puts=st.lists(PUT, max_size=30), seed=st.integers(0, 2**32))
def test_walk_is_the_dictionary(format: Format, puts: list[Put], seed: int) -> None:
    model = Model(format, puts)
    for addr in model.addresses(seed):
        assert simple(look(model.tables, addr)) == model.translate(addr)
