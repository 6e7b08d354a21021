"""gh100: page tables of Hopper ("version 3"): 57-bit addresses, pages of 512 MiB, 2 MiB, 64 KiB and 4 KiB.

One more level than gp100 on top, and pages at PD1 too. Addresses are at their own place in a word instead of
shifted. The attributes of pages and tables are codes: PCF, permission and cache flags. Of a page, each bit of
the code is one attribute; of what is no page, codes say which nothing it is. A page's code has ACD set: no
access counters.

The documents do not say what a code means that they do not list: here it is invalid, and below LPT sends the
reader to SPT as 0 does. "Mapping nowhere" of pages is such a code, too.

Source: ``NV_MMU_VER3_*`` of ``dev_mmu.h``; ``vmmgh100.c`` of nouveau; ``uvm_hopper_mmu.c`` of NVIDIA, for
pages of 512 MiB.
"""

from dataclasses import replace

from gpuvm.mem import Aperture
from gpuvm.mmu.formats.format import Field, Format, Level, Match, Page, Pointer, bits
from gpuvm.mmu.formats.kinds import GH100_KINDS

VALID = 1 << 0
"""A page. Entries without are tables, or nothing."""
APERTURE = bits(2, 1)
TABLE_IN_VRAM = 1 << 1

PCF = bits(7, 3)
UNCACHED = 1 << 3
PRIVILEGE = 1 << 4
READ_ONLY = 1 << 5
NO_ATOMIC = 1 << 6
ACD = 1 << 7
SPARSE = 1 << 3
"""PCF of what is neither page nor table."""
NO_VALID_4KB_PAGE = 3 << 3

PDE_PCF = bits(5, 3)
CACHED_ATS_NOT_ALLOWED = 2 << 3
"""PCF of a table: the CPU's tables are not to be asked as well."""

_VRAM = frozenset({Aperture.VRAM})
_SYSTEM = frozenset({Aperture.SYSTEM_COHERENT, Aperture.SYSTEM_NON_COHERENT})

_PAGE = Page(
    constant=ACD,
    aperture=Field("APERTURE", APERTURE),
    addresses=(bits(39, 12), bits(51, 12), bits(51, 12), bits(51, 12)),
    address_shift=0,
    kind=Field("KIND", bits(11, 8)),
    read_only=Match(READ_ONLY, READ_ONLY),
    privileged=Match(PRIVILEGE, PRIVILEGE),
    volatile=Match(UNCACHED, UNCACHED),
    no_atomics=Match(NO_ATOMIC, NO_ATOMIC),
)

_FIELDS = (
    Field("VALID", VALID),
    Field("APERTURE", APERTURE),
    Field("PCF", PCF),
    Field("KIND", bits(11, 8)),
    Field("ADDRESS", bits(51, 12)),
    Field("PEER_ID", bits(63, 61)),
)


def _pointer(address: int, suffix: str = "") -> Pointer:
    return Pointer(
        match=Match(VALID, 0),
        present=APERTURE,
        vram=Match(APERTURE, TABLE_IN_VRAM),
        constant=TABLE_IN_VRAM | CACHED_ATS_NOT_ALLOWED,
        mask=address,
        shift=0,
        fields=(
            Field(f"APERTURE{suffix}", APERTURE),
            Field(f"PCF{suffix}", PDE_PCF),
            Field(f"ADDRESS{suffix}", address),
        ),
    )


def _directory(name: str, shift: int, index_bits: int) -> Level:
    # Sparse are the codes 1 and 3, with and without the CPU's tables.
    not_ats = 1 << 4
    return Level(
        name=name,
        shift=shift,
        bits=index_bits,
        sparse=Match(VALID | APERTURE | PDE_PCF & ~not_ats, SPARSE),
        pointer=_pointer(bits(51, 12)),
        sparse_word=SPARSE,
    )


def _table(name: str, shift: int, index_bits: int, pages: frozenset[Aperture]) -> Level:
    return Level(
        name=name,
        shift=shift,
        bits=index_bits,
        pages=pages,
        leaf=Match(VALID, VALID),
        sparse=Match(VALID | PCF, SPARSE),
        sparse_word=SPARSE,
        fields=_FIELDS,
    )


_PD1 = replace(_directory("PD1", 29, 9), pages=_VRAM, leaf=Match(VALID, VALID), fields=_FIELDS)

_PD0 = replace(
    _PD1,
    name="PD0",
    shift=21,
    bits=8,
    entry_bytes=16,
    pointer=_pointer(bits(51, 8), "_BIG"),
    small=_pointer(bits(51, 12), "_SMALL"),
)

_LPT = replace(
    _table("LPT", 16, 5, _VRAM),
    table_bytes=0x100,
    stop=Match(VALID | PCF, NO_VALID_4KB_PAGE),
    invalid_word=NO_VALID_4KB_PAGE,
)

_SPT = _table("SPT", 12, 9, _VRAM | _SYSTEM)

GH100 = Format(
    name="gh100",
    va_bits=57,
    levels=(
        _directory("PD4", 56, 1),
        _directory("PD3", 47, 9),
        _directory("PD2", 38, 9),
        _PD1,
        _PD0,
        _LPT,
        _SPT,
    ),
    page=_PAGE,
    paired=True,
    kinds=GH100_KINDS,
)
