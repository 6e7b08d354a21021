"""x86_64: page tables of a CPU in long mode: 48-bit addresses, pages of 1 GiB, 2 MiB and 4 KiB.

The format that everyone can check. Every entry on the way has a say: a page may be written, or reached by
user code, only if all entries above allow it too. There is nothing like sparse.

A CPU has one physical memory. Here bits 53:52, which it ignores, tell its parts apart by the number of the
aperture: 0 is VRAM, where the tables are too. A GPU's volatile is the CPU's "cache disable".

An address has 48 bits: the upper half of the canonical ones is [1 << 47, 1 << 48) here. Not modelled: that
reserved bits fault if set, execution, protection keys, and that the CPU sets A and D itself.

Source: AMD64 Architecture Programmer's Manual, volume 2, section 5.3; Intel SDM, volume 3, section 4.5.
"""

from dataclasses import replace

from gpuvm.mem import Aperture
from gpuvm.mmu.formats.format import NEVER, Field, Format, Level, Match, Page, Pointer, bits

PRESENT = 1 << 0
WRITABLE = 1 << 1
USER = 1 << 2
WRITE_THROUGH = 1 << 3
CACHE_DISABLE = 1 << 4
ACCESSED = 1 << 5
DIRTY = 1 << 6
PAGE_SIZE = 1 << 7
"""A page at a level that can have tables below; at the last level this bit is PAT."""
GLOBAL = 1 << 8
LARGE_PAT = 1 << 12
ADDRESS = bits(51, 12)
APERTURE = bits(53, 52)
NO_EXECUTE = 1 << 63

_ALL = frozenset(Aperture)

_PAGE = Page(
    constant=0,
    aperture=Field("APERTURE", APERTURE),
    addresses=(ADDRESS, ADDRESS, ADDRESS, ADDRESS),
    address_shift=0,
    kind=Field("KIND", 0),
    read_only=Match(WRITABLE, 0),
    privileged=Match(USER, 0),
    volatile=Match(CACHE_DISABLE, CACHE_DISABLE),
    no_atomics=NEVER,
)

_COMMON = (
    Field("P", PRESENT),
    Field("RW", WRITABLE),
    Field("US", USER),
    Field("PWT", WRITE_THROUGH),
    Field("PCD", CACHE_DISABLE),
    Field("A", ACCESSED),
)
_OF_PAGES = (Field("D", DIRTY), Field("G", GLOBAL))
_REST = (Field("ADDRESS", ADDRESS), Field("APERTURE", APERTURE), Field("NX", NO_EXECUTE))
_LARGE = (*_COMMON, *_OF_PAGES, Field("PS", PAGE_SIZE), Field("PAT", LARGE_PAT))

_POINTER = Pointer(
    match=Match(PRESENT | PAGE_SIZE, PRESENT),
    present=PRESENT,
    vram=Match(APERTURE, 0),
    constant=PRESENT | WRITABLE | USER,
    mask=ADDRESS,
    shift=0,
    read_only=Match(WRITABLE, 0),
    privileged=Match(USER, 0),
    fields=(*_COMMON, Field("PS", PAGE_SIZE), *_REST),
)

_PML4 = Level(
    name="PML4",
    shift=39,
    bits=9,
    pointer=_POINTER,
)

_PDPT = replace(
    _PML4,
    name="PDPT",
    shift=30,
    pages=_ALL,
    leaf=Match(PRESENT | PAGE_SIZE, PRESENT | PAGE_SIZE),
    fields=(*_LARGE, Field("ADDRESS", bits(51, 30)), *_REST[1:]),
)

_PD = replace(_PDPT, name="PD", shift=21, fields=(*_LARGE, Field("ADDRESS", bits(51, 21)), *_REST[1:]))

_PT = replace(
    _PML4,
    name="PT",
    shift=12,
    pages=_ALL,
    leaf=Match(PRESENT, PRESENT),
    pointer=None,
    fields=(*_COMMON, *_OF_PAGES, Field("PAT", PAGE_SIZE), *_REST),
)

X86_64 = Format(
    name="x86_64",
    va_bits=48,
    levels=(_PML4, _PDPT, _PD, _PT),
    page=_PAGE,
    paired=False,
)
