"""Words of the GPU's page tables, bit by bit, against published ones and those made by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuvm.errors import InvalidArgument
from gpuvm.mem import Aperture
from gpuvm.mmu.formats import FORMATS, GH100, GP100, TU102, X86_64
from gpuvm.mmu.formats.format import NO_FLAGS, Entry, Format, PteFlags, State, bits

READ_ONLY, PRIVILEGED, VOLATILE, NO_ATOMICS = PteFlags
VRAM, PEER, COHERENT, NON_COHERENT = Aperture
PD3, PD2, PD1, PD0, LPT, SPT = range(6)
GPU_FORMATS = (GP100, TU102, GH100)


def every_page() -> list[tuple[Format, int, Aperture]]:
    formats = FORMATS.values()
    return [(f, n, a) for f in formats for n, level in enumerate(f.levels) for a in sorted(level.pages)]


def test_names() -> None:
    assert list(FORMATS) == ["gp100", "tu102", "gh100", "x86_64"]


# Words that NVIDIA publishes: entry_test_pascal in kernel-open/nvidia-uvm/uvm_page_tree_test.c of its open
# kernel modules.


@pytest.mark.parametrize(
    ("word", "aperture", "address", "flags"),
    [
        (0x3999999999990D, COHERENT, 0x399999999999000, VOLATILE),
        (0x39999999999905, COHERENT, 0x399999999999000, NO_FLAGS),
        (0x39999999999985, COHERENT, 0x399999999999000, NO_ATOMICS),
        (0x399999999999C5, COHERENT, 0x399999999999000, READ_ONLY | NO_ATOMICS),
        (0x1BBBBBBC1, VRAM, 0x1BBBBBB000, READ_ONLY | NO_ATOMICS),
    ],
)
def test_gp100_pages_of_nvidia(word: int, aperture: Aperture, address: int, flags: PteFlags) -> None:
    assert GP100.pte(SPT, aperture, address, 0, flags) == word
    entry = GP100.decode(SPT, (word,))
    assert (entry.state, entry.aperture, entry.address) == (State.PAGE, aperture, address)
    assert (entry.kind, entry.flags) == (0, flags)


def test_gp100_page_of_another_gpu() -> None:
    entry = GP100.decode(SPT, (0x1BBBBBBC3,))
    assert (entry.state, entry.aperture, entry.address) == (State.PAGE, PEER, 0x1BBBBBB000)
    # The fourth GPU, whose number is in bits 35:33.
    assert GP100.decode(SPT, (0x1BBBBBBC3 | 3 << 33,)).address == 0x1BBBBBB000


@pytest.mark.parametrize("level", [PD3, PD2, PD1])
def test_gp100_pointers_of_nvidia(level: int) -> None:
    entry = GP100.decode(level, (0x1BBBBBB0A,))
    assert (entry.state, entry.table, entry.table_in_vram) == (State.TABLE, 0x1BBBBBB000, True)
    entry = GP100.decode(level, (0x3999999999990C,))
    assert (entry.state, entry.table, entry.table_in_vram) == (State.TABLE, 0x399999999999000, False)


def test_gp100_pairs_of_nvidia() -> None:
    entry = GP100.decode(PD0, (0x3999999999999C, 0x1BBBBBB0A))
    assert entry.state is State.TABLE
    assert (entry.table, entry.table_in_vram) == (0x399999999999900, False)
    assert (entry.small, entry.small_in_vram) == (0x1BBBBBB000, True)
    entry = GP100.decode(PD0, (0x1BBBBBBBA, 0x3999999999990C))
    assert (entry.table, entry.table_in_vram) == (0x1BBBBBBB00, True)
    assert (entry.small, entry.small_in_vram) == (0x399999999999000, False)


def test_gp100_unmapped_of_nvidia() -> None:
    assert [level.invalid_word for level in GP100.levels] == [0, 0, 0, 0, 0x20, 0]


# By hand, from the field tables of NVIDIA's "Pascal MMU Format Changes" and what nouveau's vmmgp100.c writes.


def test_gp100_pages_by_hand() -> None:
    assert GP100.pte(SPT, VRAM, 0) == 0x1
    assert GP100.pte(SPT, VRAM, 0x1000) == 0x101
    assert GP100.pte(SPT, NON_COHERENT, 0x1000) == 0x107
    assert GP100.pte(SPT, VRAM, 0, 0, PRIVILEGED) == 0x21
    assert GP100.pte(LPT, VRAM, 0x1_0000, 0xFE) == 0xFE00_0000_0000_1001
    assert GP100.pte(PD0, VRAM, 0x20_0000, 0xDB) == 0xDB00_0000_0002_0001
    assert TU102.pte(PD0, VRAM, 0x20_0000, 0x06) == 0x0600_0000_0002_0001
    every = READ_ONLY | PRIVILEGED | VOLATILE | NO_ATOMICS
    assert GP100.pte(SPT, COHERENT, 0x7FFF_F000, 0xFE, every) == 0xFE00_0000_07FF_FFED


def test_gp100_pointers_by_hand() -> None:
    low, high = GP100.levels[PD0].pointer, GP100.levels[PD0].small
    above = GP100.levels[PD3].pointer
    assert above is not None
    assert low is not None
    assert high is not None
    assert above.encode(0x1234_5000) == 0x0123_4502
    assert low.encode(0x1234_5700) == 0x0123_4572
    assert high.encode(0x1234_5000) == 0x0123_4502
    for pointer, wrong in ((above, 0x800), (high, 0x100), (low, 0x80), (above, 1 << 58), (above, -0x1000)):
        with pytest.raises(InvalidArgument, match="table address"):
            pointer.encode(wrong)


@pytest.mark.parametrize(
    ("level", "words", "state"),
    [
        (PD3, (0,), State.INVALID),
        (PD3, (0x8,), State.SPARSE),
        (PD3, (0x1,), State.INVALID),  # "valid should be 0 for all levels"
        (PD3, (0x9,), State.INVALID),
        (PD0, (0, 0), State.INVALID),
        (PD0, (0x8, 0), State.SPARSE),
        (PD0, (0, 0x8), State.INVALID),  # the bit of the big half decides
        (PD0, (0x8, 0x102), State.TABLE),  # never sparse if either pointer is valid
        (PD0, (0xA, 0), State.TABLE),
        (PD0, (0x1, 0x102), State.PAGE),
        (LPT, (0,), State.INVALID),
        (LPT, (0x8,), State.SPARSE),
        (LPT, (0xE,), State.SPARSE),  # of what is not valid, only VOL and PRIVILEGE are looked at
        (LPT, (0x20,), State.STOP),
        (LPT, (0x26,), State.STOP),
        (LPT, (0x28,), State.SPARSE),
        (LPT, (0x29,), State.PAGE),
        (SPT, (0x20,), State.INVALID),
        (SPT, (0x8,), State.SPARSE),
    ],
)
def test_gp100_states(level: int, words: tuple[int, ...], state: State) -> None:
    assert GP100.decode(level, words).state is state


def test_gp100_is_as_documented() -> None:
    assert [(x.name, x.shift, x.bits, x.entry_bytes, x.table_bytes) for x in GP100.levels] == [
        ("PD3", 47, 2, 8, 0x1000),
        ("PD2", 38, 9, 8, 0x1000),
        ("PD1", 29, 9, 8, 0x1000),
        ("PD0", 21, 8, 16, 0x1000),
        ("LPT", 16, 5, 8, 0x100),
        ("SPT", 12, 9, 8, 0x1000),
    ]
    assert (GP100.va_bits, GP100.page_shifts, GP100.paired) == (49, (21, 16, 12), True)
    assert [level.sparse_word for level in GP100.levels] == [8] * 6
    fields = dict(GP100.decode(SPT, (0xFE00_0000_07FF_FFED,)).fields)
    assert fields == {
        "VALID": 1,
        "APERTURE": 2,
        "VOL": 1,
        "PRIVILEGE": 1,
        "READ_ONLY": 1,
        "ATOMIC_DISABLE": 1,
        "ADDRESS": 0x7FFFF,
        "KIND": 0xFE,
    }
    assert dict(GP100.decode(PD0, (0x3999999999999C, 0x1BBBBBB0A)).fields) == {
        "APERTURE_BIG": 2,
        "VOL_BIG": 1,
        "ADDRESS_BIG": 0x3999999999999,
        "APERTURE_SMALL": 1,
        "VOL_SMALL": 1,
        "ADDRESS_SMALL": 0x1BBBBBB,
    }


# Every format.


@pytest.mark.parametrize(("format", "level", "aperture"), every_page())
def test_field_boundaries(format: Format, level: int, aperture: Aperture) -> None:
    """Each address bit has a bit of its own, up to the highest, and none below the page size."""
    shift = format.levels[level].shift
    widths = {"gp100": (37, 37, 58, 58), "gh100": (40, 52, 52, 52), "x86_64": (52, 52, 52, 52)}
    width = widths[format.name.replace("tu102", "gp100")][aperture]
    empty = format.pte(level, aperture, 0)
    words = {format.pte(level, aperture, 1 << bit) ^ empty for bit in range(shift, width)}
    assert len(words) == width - shift
    assert all(word.bit_count() == 1 for word in words)
    for wrong in (1 << shift - 1, 1, 1 << width, -1 << shift, 1 << 64):
        with pytest.raises(InvalidArgument, match="page address"):
            format.pte(level, aperture, wrong)


@pytest.mark.parametrize(("format", "level", "aperture"), every_page())
@given(data=st.data())
def test_round_trip(format: Format, level: int, aperture: Aperture, data: st.DataObject) -> None:
    """What was written is what is read."""
    shift = format.levels[level].shift
    pages = format.address_mask(level, aperture) << format.page.address_shift
    address = data.draw(st.integers(0, pages >> shift)) << shift
    possible = [k for k in range(len(format.kinds.uncompressed)) if format.kinds.has(k)]
    if aperture != VRAM or shift not in format.kinds.compressed_shifts:
        possible = [k for k in possible if not format.kinds.is_compressed(k)]
    kind = data.draw(st.sampled_from(possible))
    flags = PteFlags(data.draw(st.integers(0, 7 if format is X86_64 else 15)))
    word = format.pte(level, aperture, address, kind, flags)
    entry = format.decode(level, (word, 0) if format.levels[level].entry_bytes == 16 else (word,))
    assert entry == Entry(
        format.levels[level],
        entry.words,
        State.PAGE,
        entry.fields,
        aperture=aperture,
        address=address,
        kind=kind,
        flags=flags,
    )
    if address + (1 << shift) <= pages:
        assert format.pte(level, aperture, address + (1 << shift), kind, flags) == word + format.step(level)


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
@given(low=st.integers(0, 2**64 - 1), high=st.integers(0, 2**64 - 1))
def test_any_word_is_an_entry(format: Format, low: int, high: int) -> None:
    for number, level in enumerate(format.levels):
        entry = format.decode(number, (low, high)[: level.entry_bytes // 8])
        if entry.state is State.PAGE:
            assert entry.address % (1 << level.shift) == 0
        for table in (entry.table, entry.small):
            assert table is None or (table >= 0 and entry.state is State.TABLE)


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
def test_what_levels_write_is_what_they_read(format: Format) -> None:
    for number, level in enumerate(format.levels):
        more = (0,) * (level.entry_bytes // 8 - 1)
        invalid = format.decode(number, (level.invalid_word, *more))
        assert invalid.state is (State.STOP if level.name == "LPT" else State.INVALID)
        assert format.decode(number, (0, *more)).state is State.INVALID
        if level.sparse_word is not None:
            assert format.decode(number, (level.sparse_word, *more)).state is State.SPARSE
        for pointer, half in ((level.pointer, 0), (level.small, 1)):
            if pointer is not None:
                words = [0, *more]
                words[half] = pointer.encode(0x12345000)
                entry = format.decode(number, words)
                assert (entry.table, entry.small)[half] == 0x12345000
                assert (entry.table_in_vram, entry.small_in_vram)[half]
                assert entry.flags == NO_FLAGS


@pytest.mark.parametrize("format", GPU_FORMATS, ids=lambda f: f.name)
def test_pages_only_where_they_can_be(format: Format) -> None:
    for number, level in enumerate(format.levels):
        for aperture in set(Aperture) - level.pages:
            with pytest.raises(InvalidArgument, match=f"{level.name}: no pages in aperture"):
                format.pte(number, aperture, 0)


def test_flags_that_a_format_cannot_say() -> None:
    with pytest.raises(InvalidArgument, match="no bit for NO_ATOMICS"):
        X86_64.pte(3, VRAM, 0, 0, NO_ATOMICS)
    with pytest.raises(InvalidArgument, match="no bit for NO_ATOMICS"):
        X86_64.pte(3, VRAM, 0, 0, NO_ATOMICS | READ_ONLY)


def test_levels_of_page_sizes() -> None:
    assert [GP100.level_of(shift) for shift in (21, 16, 12)] == [PD0, LPT, SPT]
    assert GH100.level_of(29) == 3
    for shift in (29, 47, 13, 0):
        with pytest.raises(
            InvalidArgument, match=rf"no pages of shift {shift}; choose one of \(21, 16, 12\)"
        ):
            GP100.level_of(shift)


def test_a_word_once_made_is_made_again() -> None:
    """What ``pte`` remembers is of this format only, and mistakes are not remembered."""
    other = replace(GP100, kinds=TU102.kinds)
    assert GP100.pte(PD0, VRAM, 0, 0xFE) != 0
    for _ in range(2):
        with pytest.raises(InvalidArgument, match="kind 0xfe"):
            other.pte(PD0, VRAM, 0, 0xFE)


def test_bits() -> None:
    assert (bits(0, 0), bits(2, 1), bits(63, 56)) == (1, 6, 0xFF << 56)


def test_layout_is_numbers_only() -> None:
    def numbers(value: object) -> bool:
        return all(map(numbers, value)) if isinstance(value, tuple) else type(value) is int

    for format in FORMATS.values():
        assert numbers(format.layout())
        va_bits, paired, page, levels = format.layout()
        assert (va_bits, paired) == (format.va_bits, format.paired)
        assert isinstance(page, tuple)
        assert len(page) == 7
        assert isinstance(levels, tuple)
        assert [len(level) for level in levels] == [14] * len(format.levels)
