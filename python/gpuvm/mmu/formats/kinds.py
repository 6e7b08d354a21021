"""Kinds: how the bytes of a page are arranged and compressed, by the numbers that a chip has for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gpuvm.errors import InvalidArgument
from gpuvm.mem import Aperture


@dataclass(frozen=True, slots=True)
class Kinds:
    """The kinds of one chip.

    A compressed page needs room for its compression state, which only VRAM in large pages has. Compression
    tags are not modelled: none are given out, and a compressed kind is written as it is.

    Source: ``gp100_vmm_valid`` of nouveau.
    """

    name: str
    uncompressed: tuple[int | None, ...]
    """By kind, the same arrangement without compression, which is the kind itself if it has none; None where
    the chip has no such kind."""
    compressed_shifts: frozenset[int]
    """log2 of the page sizes that can be compressed."""

    def has(self, kind: int) -> bool:
        """Whether the chip has it."""
        return 0 <= kind < len(self.uncompressed) and self.uncompressed[kind] is not None

    def is_compressed(self, kind: int) -> bool:
        """Whether it is one of those that are."""
        return self.has(kind) and self.uncompressed[kind] != kind

    def validate(self, kind: int, aperture: Aperture, shift: int) -> None:
        """Check that a page of ``1 << shift`` bytes in ``aperture`` can have this kind.

        Raises:
            InvalidArgument: the chip does not have it, or it is compressed and the page cannot be.
        """
        if not self.has(kind):
            raise InvalidArgument(f"kind {kind:#x}: {self.name} does not have it", value=kind)
        if not self.is_compressed(kind):
            return
        if aperture != Aperture.VRAM or shift not in self.compressed_shifts:
            raise InvalidArgument(
                f"kind {kind:#x} is compressed, which needs VRAM and pages of shift "
                f"{sorted(self.compressed_shifts)}, not {Aperture(aperture).name} and {shift}; "
                f"take kind {self.uncompressed[kind]:#x}, the same without compression",
                value=kind,
                bound=self.uncompressed[kind],
            )


def _table(size: int, families: Mapping[int, Iterable[int]]) -> tuple[int | None, ...]:
    """By kind its uncompressed twin, of families: an uncompressed kind and those that compress it."""
    table: list[int | None] = [None] * size
    for kind, compressed in families.items():
        for member in (kind, *compressed):
            table[member] = kind
    return tuple(table)


NO_KINDS = Kinds("this format", (0,), frozenset())
"""Of an MMU that knows only plain pages."""

GP100_KINDS = Kinds(
    "gp100",
    _table(
        256,
        {
            0x00: (),
            0x01: (*range(0x02, 0x06), *range(0x07, 0x0B)),
            0x11: range(0x17, 0x1B),
            0x26: (0x3A, 0x3E),
            0x27: (0x3B, 0x3F),
            0x28: (0x3C, 0x40),
            0x29: (0x3D, 0x41),
            0x2A: (),
            0x2B: (),
            0x46: range(0x51, 0x55),
            0x7B: range(0x86, 0x8A),
            0x8B: (0xA3,),
            0x8C: (0xA4,),
            0x8D: (0xA5,),
            0x8E: (0xA6,),
            0xA7: (0xBF,),
            0xA8: (0xC0,),
            0xA9: (0xC1,),
            0xAA: (0xC2,),
            0xC3: range(0xCE, 0xD2),
            0xFD: (),
            0xFE: (
                *(0xCC, 0xCD, 0xD8, 0xDB, 0xDD, 0xDF, 0xE0, *range(0xE2, 0xE7)),
                *(0xE9, 0xEB, 0xED, 0xEE, *range(0xF0, 0xFC)),
            ),
        },
    ),
    frozenset({16, 21}),
)
"""Maxwell to Volta; a byte, of which 0xff stands for invalid. Source: ``gm200_mmu_kind`` of nouveau."""

_TURING = _table(16, {0: (), 1: (0xB,), 2: (0xA,), 3: (0xC,), 4: (0xD,), 5: (0xE,), 6: (0x8, 0x9)})

TU102_KINDS = Kinds("tu102", _TURING, frozenset({16, 21}))
"""Turing to Ada; 7 stands for invalid, and no page has 15. Source: ``tu102_mmu_kind`` of nouveau."""

GH100_KINDS = Kinds("gh100", _TURING, frozenset({16, 21, 29}))
"""Hopper: Turing's kinds. Source: ``gh100_mmu`` and the page types of ``gh100_vmm`` of nouveau."""
