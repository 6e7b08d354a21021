"""gp100: page tables of Pascal to Ada ("version 2"): 49-bit addresses, pages of 2 MiB, 64 KiB and 4 KiB.

Below each PD0 entry are two tables: LPT of 64 KiB pages, SPT of 4 KiB pages. The low word of the entry points
to the first or is a page of 2 MiB, the high word points to the second.

Entries of tables and of pages number VRAM differently: 1 and 0. Addresses in VRAM have 37 bits, as the three
bits above are the number of another GPU in entries that lead there; in system memory they have 58, in bits
that in VRAM are the compression tag line.

The documents do not say what an LPT entry is that is sparse and "no small pages" at once: here it is sparse.

Source: NVIDIA "Pascal MMU Format Changes"; ``NV_MMU_VER2_*`` of ``dev_mmu.h``; ``vmmgp100.c`` of nouveau.
"""

from dataclasses import replace

from gpuvm.mem import Aperture
from gpuvm.mmu.formats.format import Field, Format, Level, Match, Page, Pointer, bits
from gpuvm.mmu.formats.kinds import GP100_KINDS, TU102_KINDS

VALID = 1 << 0
"""A page. Entries without are tables, or nothing."""
APERTURE = bits(2, 1)
VOLATILE = 1 << 3
"""With neither a page nor a table: sparse."""
PRIVILEGED = 1 << 5
"""In LPT, without a page: no small pages."""
READ_ONLY = 1 << 6
ATOMIC_DISABLE = 1 << 7
KIND = bits(63, 56)
TABLE_IN_VRAM = 1 << 1

_VRAM = frozenset({Aperture.VRAM})
_SYSTEM = frozenset({Aperture.SYSTEM_COHERENT, Aperture.SYSTEM_NON_COHERENT})

_PAGE = Page(
    constant=0,
    aperture=Field("APERTURE", APERTURE),
    addresses=(bits(32, 8), bits(32, 8), bits(53, 8), bits(53, 8)),
    address_shift=4,
    kind=Field("KIND", KIND),
    read_only=Match(READ_ONLY, READ_ONLY),
    privileged=Match(PRIVILEGED, PRIVILEGED),
    volatile=Match(VOLATILE, VOLATILE),
    no_atomics=Match(ATOMIC_DISABLE, ATOMIC_DISABLE),
)

_FIELDS = (
    Field("VALID", VALID),
    Field("APERTURE", APERTURE),
    Field("VOL", VOLATILE),
    Field("PRIVILEGE", PRIVILEGED),
    Field("READ_ONLY", READ_ONLY),
    Field("ATOMIC_DISABLE", ATOMIC_DISABLE),
    Field("ADDRESS", bits(53, 8)),
    Field("KIND", KIND),
)


def _pointer(address: int, suffix: str = "") -> Pointer:
    return Pointer(
        match=Match(VALID, 0),
        present=APERTURE,
        vram=Match(APERTURE, TABLE_IN_VRAM),
        constant=TABLE_IN_VRAM,
        mask=address,
        shift=4,
        fields=(
            Field(f"APERTURE{suffix}", APERTURE),
            Field(f"VOL{suffix}", VOLATILE),
            Field(f"ADDRESS{suffix}", address),
        ),
    )


def _directory(name: str, shift: int, index_bits: int) -> Level:
    return Level(
        name=name,
        shift=shift,
        bits=index_bits,
        sparse=Match(VALID | APERTURE | VOLATILE, VOLATILE),
        pointer=_pointer(bits(53, 8)),
        sparse_word=VOLATILE,
    )


def _table(name: str, shift: int, index_bits: int, pages: frozenset[Aperture]) -> Level:
    return Level(
        name=name,
        shift=shift,
        bits=index_bits,
        pages=pages,
        leaf=Match(VALID, VALID),
        sparse=Match(VALID | VOLATILE, VOLATILE),
        sparse_word=VOLATILE,
        fields=_FIELDS,
    )


_PD0 = replace(
    _directory("PD0", 21, 8),
    entry_bytes=16,
    pages=_VRAM,
    leaf=Match(VALID, VALID),
    pointer=_pointer(bits(53, 4), "_BIG"),
    small=_pointer(bits(53, 8), "_SMALL"),
    fields=_FIELDS,
)

_LPT = replace(
    _table("LPT", 16, 5, _VRAM),
    table_bytes=0x100,
    stop=Match(VALID | PRIVILEGED, PRIVILEGED),
    invalid_word=PRIVILEGED,
)

_SPT = _table("SPT", 12, 9, _VRAM | _SYSTEM)

GP100 = Format(
    name="gp100",
    va_bits=49,
    levels=(_directory("PD3", 47, 2), _directory("PD2", 38, 9), _directory("PD1", 29, 9), _PD0, _LPT, _SPT),
    page=_PAGE,
    paired=True,
    kinds=GP100_KINDS,
)
"""With the kinds of Pascal and Volta."""

TU102 = replace(GP100, name="tu102", kinds=TU102_KINDS)
"""With the kinds of Turing, Ampere and Ada."""
