"""Under a picture: which colour is which object, what hatching means, and what was drawn together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from gpuvm.report.bands import Kind, Piece
from gpuvm.report.colours import object_colour
from gpuvm.report.sizes import size_text
from gpuvm.report.svg import Svg

_LEFT = 196.0
_COLUMNS = 3
_COLUMN = 306.0
_ROW = 21.0
_MOST_OBJECTS = 24

_SYMBOLS = {
    Kind.UNBOUND.value: ("url(#sparse)", "sparse region, unbound: reads give 0, writes are lost"),
    Kind.KERNEL.value: ("url(#kernel)", "kernel reserved node"),
    "unmapped": ("#eceef2", "not mapped, inside a block of many mappings"),
}


def draw_legend(
    svg: Svg, y: float, mapped: Sequence[Piece], kinds: set[str], crowded: int, object_word: str
) -> float:
    """Draw it from ``y`` down; returns where it ends.

    Args:
        mapped: every mapping of the picture.
        kinds: which other kinds of pieces were drawn.
        crowded: mappings that share a pixel with others.
        object_word: what an object's number is.
    """
    top = y
    sizes: dict[int, int] = defaultdict(int)
    counts: dict[int, int] = defaultdict(int)
    for piece in mapped:
        sizes[piece.number] += piece.range
        counts[piece.number] += 1
    largest = sorted(sizes, key=lambda number: (-sizes[number], number))
    shown = largest[:_MOST_OBJECTS]
    if shown:
        svg.text(28, y, "objects by size", "faint")
    for index, number in enumerate(shown):
        x = _LEFT + index % _COLUMNS * _COLUMN
        line = top + index // _COLUMNS * _ROW
        many = "mapping" if counts[number] == 1 else "mappings"
        name = f"{object_word} {number}" if number else "no object"
        text = f"{name}: {size_text(sizes[number])}, {counts[number]:,} {many}"
        _entry(svg, x, line, object_colour(number), text)
    y = top + -(-len(shown) // _COLUMNS) * _ROW
    if rest := largest[_MOST_OBJECTS:]:
        text = f"and {len(rest):,} more, {size_text(sum(sizes[number] for number in rest))} in all"
        svg.text(_LEFT, y, text, "faint")
        y += _ROW
    symbols = [_SYMBOLS[kind] for kind in _SYMBOLS if kind in kinds]
    if symbols:
        y += 8
        svg.text(28, y, "other", "faint")
        for fill, text in symbols:
            _entry(svg, _LEFT, y, fill, text)
            y += _ROW
    y += 8
    svg.text(28, y, "scale", "faint")
    for text in _scale_notes("unmapped" in kinds, crowded):
        svg.text(_LEFT, y, text, "faint")
        y += 18
    return y


def _scale_notes(dense: bool, crowded: int) -> list[str]:
    notes = ["Addresses grow downwards. A box grows with the logarithm of its size; holes are compressed."]
    if dense:
        notes.append("Blocks of many mappings are to scale, row by row, each row as long as its note says.")
    if crowded:
        notes.append(
            f"{crowded:,} mappings share a pixel; the object with most bytes in it gives the colour."
        )
    return notes


def _entry(svg: Svg, x: float, y: float, fill: str, text: str) -> None:
    svg.rect(x, y - 11, 16, 14, fill, rx="2", stroke="#00000055", stroke_width="0.6")
    svg.text(x + 23, y, text, "")
