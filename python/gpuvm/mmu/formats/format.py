"""Format: page tables of one kind of MMU, as data; those who write tables and those who read them use it.

An entry is one 64-bit little-endian word, or two in the *paired* level, which has two tables below: one of
big pages, which the low word points to, and one of small pages, which the high word points to. What an entry
is, is decided in this order, by every reader:

1. ``leaf`` matches the low word: a page.
2. A pointer is in it: go on in the table below, or fault if that is not in VRAM as a whole. Of two pointers
   the one to big pages comes first; either may be missing.
3. ``sparse`` matches the low word: reads give zeros, writes vanish.
4. Otherwise it is invalid: a fault.

In the table of big pages it is decided in this order: a page, sparse, ``stop`` ("no small page below is
valid"): a fault. Any other word, 0 among them, sends the reader to the table of small pages; without one it
is a fault.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from gpuvm.errors import InvalidArgument
from gpuvm.mem import Aperture
from gpuvm.mmu.formats.kinds import NO_KINDS, Kinds
from gpuvm.mmu.formats.words import NEVER, NO_FLAGS, Field, Match, Page, Pointer, PteFlags, bits

__all__ = [
    "NEVER",
    "NO_FLAGS",
    "Entry",
    "Field",
    "Format",
    "Level",
    "Match",
    "Page",
    "Pointer",
    "PteFlags",
    "State",
    "bits",
]


_WORD = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Level:
    """One level of tables, and how its entries look.

    ``NEVER`` for what an entry cannot be, None for tables that cannot be below.
    """

    name: str
    shift: int
    """log2 of the bytes that one entry spans."""
    bits: int
    """How many of the address are the index."""
    entry_bytes: int = 8
    """8, or 16 in the paired level."""
    table_bytes: int = 0x1000
    """What one table takes, and its alignment."""
    pages: frozenset[Aperture] = frozenset()
    """Where pages of this level may be; empty: none are written."""
    leaf: Match = NEVER
    sparse: Match = NEVER
    stop: Match = NEVER
    pointer: Pointer | None = None
    small: Pointer | None = None
    """In the high word of the paired level."""
    invalid_word: int = 0
    """An entry where nothing is mapped and nothing below is in use. (In the table of big pages, entries with
    small pages in use are 0.)"""
    sparse_word: int | None = None
    """An entry where nothing is mapped and all is sparse; the high word is 0. None: cannot be said."""
    fields: tuple[Field, ...] = ()
    """Of a page, by the names of its document."""


class State(Enum):
    """What an entry is."""

    PAGE = "page"
    TABLE = "table"
    SPARSE = "sparse"
    STOP = "no small pages"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class Entry:
    """A decoded entry. What its ``state`` has no use for is 0 or None."""

    level: Level
    words: tuple[int, ...]
    state: State
    fields: tuple[tuple[str, int], ...]
    """All of the words, by the names of their document."""
    aperture: Aperture = Aperture.VRAM
    """Of the page."""
    address: int = 0
    """Of the page; a multiple of its size."""
    kind: int = 0
    flags: PteFlags = NO_FLAGS
    """Of the page, or what pointers impose on all pages below."""
    table: int | None = None
    """Where the table below is; in the paired level that of big pages. None: there is none."""
    table_in_vram: bool = False
    small: int | None = None
    """Where the table of small pages is."""
    small_in_vram: bool = False


@dataclass(frozen=True, slots=True)
class Format:
    """Page tables of one MMU.

    Args:
        va_bits: length of an address.
        levels: root first. If ``paired``, the last two are the tables below the third last one: that of big
            pages, then that of small ones.
    """

    name: str
    va_bits: int
    levels: tuple[Level, ...]
    page: Page
    paired: bool
    kinds: Kinds = NO_KINDS
    _attributes: dict[tuple[int, int, int, int], tuple[int, int]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """What ``pte`` found out about pages, by level, aperture, kind and flags."""
    _layouts: list[tuple[object, ...]] = field(default_factory=list, init=False, repr=False, compare=False)
    """What ``layout`` gives, once it was asked for."""

    @property
    def page_shifts(self) -> tuple[int, ...]:
        """log2 of the page sizes, the largest first."""
        return tuple(level.shift for level in self.levels if level.pages)

    def level_of(self, shift: int) -> int:
        """The number of the level whose pages have ``1 << shift`` bytes.

        Raises:
            InvalidArgument: no level has such pages.
        """
        for number, level in enumerate(self.levels):
            if level.shift == shift and level.pages:
                return number
        raise InvalidArgument(
            f"{self.name}: no pages of shift {shift}; choose one of {self.page_shifts}",
            value=shift,
            bound=self.page_shifts,
        )

    def address_mask(self, level: int, aperture: int) -> int:
        """Where in the word the address of a page is. Address bits below the page size are not looked at."""
        return self.page.addresses[aperture] & -self.step(level)

    def step(self, level: int) -> int:
        """What the words of two neighbouring pages differ by."""
        return 1 << self.levels[level].shift - self.page.address_shift

    def page_patterns(self, level: int) -> tuple[Match, ...]:
        """One of these every word of ``pte`` has: all bits but those of its address, kind and flags."""
        free = self.page.kind.mask
        for _, match in self.page.patterns():
            free |= match.mask
        constant = self.levels[level].leaf.value | self.page.constant
        return tuple(
            Match(
                _WORD & ~(free | self.address_mask(level, aperture)),
                constant | self.page.aperture.place(aperture),
            )
            for aperture in self.levels[level].pages
        )

    def pte(
        self, level: int, aperture: Aperture, address: int, kind: int = 0, flags: PteFlags = NO_FLAGS
    ) -> int:
        """The word of a page. The next page of a run has ``word + step(level)``.

        Raises:
            InvalidArgument: this level has no pages there, the address is not aligned or does not fit, there
                is no such kind or not on such a page, or the format has no bit for a flag.
        """
        attributes = self._attributes.get((level, aperture, kind, flags))
        if attributes is None:
            attributes = self._attributes_of(level, aperture, kind, flags)
            self._attributes[level, aperture, kind, flags] = attributes
        word, mask = attributes
        if address & ~mask:
            where = f"{self.name} {self.levels[level].name}"
            raise InvalidArgument(
                f"{where}: page address {address:#x} has bits outside {mask:#x}", value=address, bound=mask
            )
        return word | address >> self.page.address_shift

    def _attributes_of(self, level: int, aperture: Aperture, kind: int, flags: PteFlags) -> tuple[int, int]:
        """The word of such a page at address 0, and the mask of possible addresses."""
        entry, page = self.levels[level], self.page
        if aperture not in entry.pages:
            names = ", ".join(sorted(a.name for a in entry.pages)) or "none"
            raise InvalidArgument(
                f"{self.name} {entry.name}: no pages in aperture {aperture}; it has pages in: {names}",
                value=aperture,
                bound=entry.pages,
            )
        self.kinds.validate(kind, aperture, entry.shift)
        word = entry.leaf.value | page.constant | page.aperture.place(aperture) | page.kind.place(kind)
        mask = self.address_mask(level, aperture) << page.address_shift
        return word | page.encode_flags(flags), mask

    def decode(self, level: int, words: Sequence[int]) -> Entry:
        """What an entry says: one word, or two in the paired level. Any words are an entry."""
        entry = self.levels[level]
        low, raw = words[0], tuple(words)
        if entry.leaf.matches(low):
            return self._page(level, raw)
        pointer = entry.pointer if entry.pointer and entry.pointer.matches(low) else None
        small = entry.small if entry.small and entry.small.matches(raw[-1]) else None
        if pointer or small:
            return _table(entry, raw, pointer, small)
        fields = _fields(entry, raw)
        if entry.sparse.matches(low):
            return Entry(entry, raw, State.SPARSE, fields)
        return Entry(entry, raw, State.STOP if entry.stop.matches(low) else State.INVALID, fields)

    def _page(self, level: int, words: tuple[int, ...]) -> Entry:
        entry, word, page = self.levels[level], words[0], self.page
        aperture = Aperture(page.aperture.of(word))
        return Entry(
            entry,
            words,
            State.PAGE,
            tuple((field.name, field.of(word)) for field in entry.fields),
            aperture=aperture,
            address=(word & self.address_mask(level, aperture)) << page.address_shift,
            kind=page.kind.of(word),
            flags=page.flags(word),
        )

    def layout(self) -> tuple[object, ...]:
        """All that the core needs, as nested tuples of integers, in this order.

        Format: va_bits, paired, page, levels.
        Page: aperture mask, address shift, kind mask, read_only, privileged, volatile, no_atomics.
        Level: shift, bits, entry_bytes, table_bytes, pages (bit ``1 << aperture`` each), step, address masks
        by aperture (4), leaf, sparse, stop, pointer, small, invalid_word, sparse_word (-1: none).
        Pointer: match, present, vram, constant, mask, shift, read_only, privileged; () if there is none.
        A pattern is (mask, value).
        """
        if not self._layouts:
            levels = tuple(self._level_layout(number) for number in range(len(self.levels)))
            self._layouts.append((self.va_bits, int(self.paired), self.page.layout(), levels))
        return self._layouts[0]

    def _level_layout(self, number: int) -> tuple[object, ...]:
        level = self.levels[number]
        return (
            level.shift,
            level.bits,
            level.entry_bytes,
            level.table_bytes,
            sum(1 << aperture for aperture in level.pages),
            self.step(number),
            tuple(self.address_mask(number, aperture) for aperture in Aperture),
            (level.leaf.mask, level.leaf.value),
            (level.sparse.mask, level.sparse.value),
            (level.stop.mask, level.stop.value),
            level.pointer.layout() if level.pointer else (),
            level.small.layout() if level.small else (),
            level.invalid_word,
            -1 if level.sparse_word is None else level.sparse_word,
        )


def _table(entry: Level, words: tuple[int, ...], pointer: Pointer | None, small: Pointer | None) -> Entry:
    """An entry with a pointer, or two."""
    low, high = words[0], words[-1]
    return Entry(
        entry,
        words,
        State.TABLE,
        _fields(entry, words),
        flags=(pointer.flags(low) if pointer else NO_FLAGS) | (small.flags(high) if small else NO_FLAGS),
        table=pointer.address(low) if pointer else None,
        table_in_vram=pointer is not None and pointer.vram.matches(low),
        small=small.address(high) if small else None,
        small_in_vram=small is not None and small.vram.matches(high),
    )


def _fields(entry: Level, words: tuple[int, ...]) -> tuple[tuple[str, int], ...]:
    """Of what is no page: those of pointers where there can be any."""
    fields = entry.pointer.fields if entry.pointer else entry.fields
    low = tuple((field.name, field.of(words[0])) for field in fields)
    if entry.small is None:
        return low
    return low + tuple((field.name, field.of(words[1])) for field in entry.small.fields)
