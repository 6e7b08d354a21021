"""Words of page tables: what their bits mean, as data that writes them and reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntFlag

from gpuvm.errors import InvalidArgument


@dataclass(frozen=True, slots=True)
class Match:
    """A pattern of bits: it matches a word if ``word & mask == value``."""

    mask: int
    value: int

    def matches(self, word: int) -> bool:
        """Whether the word has it."""
        return word & self.mask == self.value


NEVER = Match(0, 1)


@dataclass(frozen=True, slots=True)
class Field:
    """A named part of a word: the bits of ``mask``, which are neighbours. Without a bit it is always 0."""

    name: str
    mask: int

    @property
    def shift(self) -> int:
        """Where it begins."""
        return max((self.mask & -self.mask).bit_length() - 1, 0)

    def of(self, word: int) -> int:
        """Its value."""
        return (word & self.mask) >> self.shift

    def place(self, value: int) -> int:
        """The word that has this value here and 0 elsewhere. What does not fit is cut off."""
        return value << self.shift & self.mask


def bits(high: int, low: int) -> int:
    """The mask of the bits ``high:low``, as hardware documents write them."""
    return (1 << high + 1) - (1 << low)


class PteFlags(IntFlag):
    """What a page forbids or asks for. Without any, everybody may read, write and use atomics; cached."""

    READ_ONLY = 1 << 0
    """Writes and atomics fault."""
    PRIVILEGED = 1 << 1
    """Only requests of the driver pass."""
    VOLATILE = 1 << 2
    """Not to be kept in the GPU's cache; pages of coherent system memory want it."""
    NO_ATOMICS = 1 << 3
    """Atomics fault."""


NO_FLAGS = PteFlags(0)
_ALL_FLAGS = PteFlags.READ_ONLY | PteFlags.PRIVILEGED | PteFlags.VOLATILE | PteFlags.NO_ATOMICS


def require_known(flags: int) -> None:
    """Refuse numbers that are no combination of ``PteFlags``.

    Raises:
        InvalidArgument: a bit is no flag's.
    """
    if flags & ~int(_ALL_FLAGS):
        raise InvalidArgument(
            f"page: flags {flags:#x}; pass a combination of PteFlags, {int(_ALL_FLAGS):#x} at most",
            value=flags,
            bound=int(_ALL_FLAGS),
        )


@dataclass(frozen=True, slots=True)
class Pointer:
    """How a word says where the table below is."""

    match: Match
    """Necessary for a pointer ..."""
    present: int
    """... and so is one of these bits."""
    vram: Match
    """Pointers into VRAM. Others lead out of the memory that readers can see: what is below faults."""
    constant: int
    """What a pointer into VRAM consists of besides the address."""
    mask: int
    """Where the address is: ``(word & mask) << shift``."""
    shift: int
    read_only: Match = NEVER
    """Pointers that make everything below read-only ..."""
    privileged: Match = NEVER
    """... or privileged."""
    fields: tuple[Field, ...] = ()

    def matches(self, word: int) -> bool:
        """Whether the word is a pointer."""
        return self.match.matches(word) and word & self.present != 0

    def encode(self, address: int) -> int:
        """The word that points to the table at ``address`` in VRAM.

        Raises:
            InvalidArgument: the address is not aligned or does not fit.
        """
        if address & ~(self.mask << self.shift):
            raise InvalidArgument(
                f"pointer: table address {address:#x} has bits outside {self.mask << self.shift:#x}",
                value=address,
                bound=self.mask << self.shift,
            )
        return self.constant | address >> self.shift

    def address(self, word: int) -> int:
        """Where the table is."""
        return (word & self.mask) << self.shift

    def flags(self, word: int) -> PteFlags:
        """What the pointer forbids below."""
        return _flags(((PteFlags.READ_ONLY, self.read_only), (PteFlags.PRIVILEGED, self.privileged)), word)

    def layout(self) -> tuple[object, ...]:
        """As ``Format.layout`` has it."""
        return (
            (self.match.mask, self.match.value),
            self.present,
            (self.vram.mask, self.vram.value),
            self.constant,
            self.mask,
            self.shift,
            (self.read_only.mask, self.read_only.value),
            (self.privileged.mask, self.privileged.value),
        )


@dataclass(frozen=True, slots=True)
class Page:
    """How a word says what a page is, at every level of a format.

    The flags are patterns of one bit; ``NEVER`` where there is no such bit.
    """

    constant: int
    """What every page has set besides."""
    aperture: Field
    addresses: tuple[int, int, int, int]
    """By aperture, the mask of the address of a 4 KiB page: ``(word & mask) << address_shift``."""
    address_shift: int
    kind: Field
    read_only: Match
    privileged: Match
    volatile: Match
    no_atomics: Match

    def patterns(self) -> tuple[tuple[PteFlags, Match], ...]:
        """Each flag with its pattern, by the flag's bit."""
        return (
            (PteFlags.READ_ONLY, self.read_only),
            (PteFlags.PRIVILEGED, self.privileged),
            (PteFlags.VOLATILE, self.volatile),
            (PteFlags.NO_ATOMICS, self.no_atomics),
        )

    def flags(self, word: int) -> PteFlags:
        """Those that the word sets."""
        return _flags(self.patterns(), word)

    def encode_flags(self, flags: PteFlags) -> int:
        """The bits that say them.

        Raises:
            InvalidArgument: there is no bit for one.
        """
        require_known(flags)
        word = 0
        for flag, match in self.patterns():
            if match == NEVER:
                if flags & flag:
                    raise InvalidArgument(f"page: the format has no bit for {flag.name}", value=flags)
            else:
                word |= match.value if flags & flag else match.mask ^ match.value
        return word

    def layout(self) -> tuple[object, ...]:
        """As ``Format.layout`` has it."""
        flags = tuple((match.mask, match.value) for _, match in self.patterns())
        return (self.aperture.mask, self.address_shift, self.kind.mask, *flags)


def _flags(patterns: Sequence[tuple[PteFlags, Match]], word: int) -> PteFlags:
    """Those whose pattern the word has."""
    flags = NO_FLAGS
    for flag, match in patterns:
        if match.matches(word):
            flags |= flag
    return flags
