"""Kinds: which a chip has, and on which pages the compressed ones can be."""

from __future__ import annotations

import pytest

from gpuvm.errors import InvalidArgument
from gpuvm.mem import Aperture
from gpuvm.mmu.formats import GH100, GP100, TU102, X86_64, Format
from gpuvm.mmu.formats.kinds import GH100_KINDS, GP100_KINDS, NO_KINDS, TU102_KINDS, Kinds

VRAM, PEER, COHERENT, NON_COHERENT = Aperture


def test_gp100_has_those_of_nouveau() -> None:
    """Counted and spot-checked in the table of gm200_mmu_kind."""
    table = GP100_KINDS.uncompressed
    assert len(table) == 256
    assert sum(GP100_KINDS.has(kind) for kind in range(256)) == 90
    assert {kind for kind in range(256) if table[kind] == kind} == {
        *(0x00, 0x01, 0x11, 0x26, 0x27, 0x28, 0x29, 0x2A, 0x2B, 0x46, 0x7B),
        *(0x8B, 0x8C, 0x8D, 0x8E, 0xA7, 0xA8, 0xA9, 0xAA, 0xC3, 0xFD, 0xFE),
    }
    twins = {0x02: 0x01, 0x0A: 0x01, 0x17: 0x11, 0x3E: 0x26, 0x41: 0x29, 0x54: 0x46, 0x89: 0x7B}
    twins |= {0xA6: 0x8E, 0xBF: 0xA7, 0xD1: 0xC3, 0xDB: 0xFE, 0xE6: 0xFE, 0xEE: 0xFE, 0xFB: 0xFE}
    assert {kind: table[kind] for kind in twins} == twins
    for missing in (0x06, 0x0B, 0x10, 0x47, 0x8A, 0xE1, 0xE7, 0xE8, 0xEA, 0xEC, 0xEF, 0xFC, 0xFF):
        assert not GP100_KINDS.has(missing)


@pytest.mark.parametrize("kinds", [TU102_KINDS, GH100_KINDS], ids=lambda kinds: kinds.name)
def test_tu102_has_those_of_nouveau(kinds: Kinds) -> None:
    """The table of tu102_mmu_kind, where 7 stands for invalid; names are in NVIDIA's dev_mmu.h."""
    assert kinds.uncompressed == (0, 1, 2, 3, 4, 5, 6, None, 6, 6, 2, 1, 3, 4, 5, None)


@pytest.mark.parametrize("kinds", [NO_KINDS, GP100_KINDS, TU102_KINDS, GH100_KINDS], ids=lambda k: k.name)
def test_twins_are_not_compressed(kinds: Kinds) -> None:
    for kind, twin in enumerate(kinds.uncompressed):
        if twin is not None:
            assert kinds.uncompressed[twin] == twin
            assert kinds.is_compressed(kind) == (twin != kind)


@pytest.mark.parametrize("kind", [-1, 7, 15, 16, 255])
def test_kinds_that_a_chip_does_not_have(kind: int) -> None:
    assert not TU102_KINDS.has(kind)
    assert not TU102_KINDS.is_compressed(kind)
    with pytest.raises(InvalidArgument, match="tu102 does not have it") as error:
        TU102.pte(5, VRAM, 0, kind)
    assert error.value.value == kind


@pytest.mark.parametrize(("format", "kind", "twin"), [(GP100, 0xDB, 0xFE), (TU102, 8, 6), (GH100, 8, 6)])
def test_compressed_pages_are_large_and_in_vram(format: Format, kind: int, twin: int) -> None:
    levels = format.levels
    for number, level in enumerate(levels):
        if VRAM not in level.pages:
            continue
        if level.shift > 12:
            assert format.decode(number, (format.pte(number, VRAM, 0, kind), 0)).kind == kind
        else:
            with pytest.raises(InvalidArgument, match="compressed") as error:
                format.pte(number, VRAM, 0, kind)
            assert error.value.bound == twin
        for aperture in (COHERENT, NON_COHERENT):
            if aperture in level.pages:
                with pytest.raises(InvalidArgument, match="needs VRAM"):
                    format.pte(number, aperture, 0, kind)
                format.pte(number, aperture, 0, twin)


def test_a_large_page_outside_vram_is_not_compressed() -> None:
    with pytest.raises(InvalidArgument, match=r"not SYSTEM_COHERENT and 21; take kind 0x6"):
        TU102_KINDS.validate(8, COHERENT, 21)
    TU102_KINDS.validate(6, COHERENT, 21)
    TU102_KINDS.validate(8, VRAM, 16)


def test_x86_64_has_plain_pages_only() -> None:
    X86_64.pte(3, VRAM, 0, 0)
    with pytest.raises(InvalidArgument, match="kind 0x1"):
        X86_64.pte(3, VRAM, 0, 1)
