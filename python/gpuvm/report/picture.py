"""The picture of a space: bands stacked by address, lowest on top; what `gpuvm show` writes.

Single mappings are boxes whose height grows with the logarithm of their size; holes are compressed; many
mappings together are a raster to scale. An object has the same colour everywhere.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gpuvm.report.bands import Band, Kind, Piece, cut, pieces_of
from gpuvm.report.colours import object_colour, text_colour
from gpuvm.report.legend import draw_legend
from gpuvm.report.raster import draw, lay_out
from gpuvm.report.sizes import hex_text, size_text
from gpuvm.report.svg import MONO, SANS, Svg
from gpuvm.va import GpuvaManager, Region

WIDTH = 1180
_LEFT = 196.0  # of the column
_COLUMN = 720.0
_RIGHT = _LEFT + _COLUMN + 16  # of the notes
_MARGIN = 28.0
_FEWEST_ROWS = 6
_MOST_ROWS = 32
_ROWS_IN_ALL = 170
_INK = "#1c2026"
_FAINT = "#5d6573"

_STYLE = f"""
text {{ font: 12px {SANS}; fill: {_INK}; }}
.title {{ font-size: 20px; font-weight: 600; }}
.faint {{ fill: {_FAINT}; }}
.addr {{ font: 11.5px {MONO}; }}
.row {{ font: 9.5px {MONO}; fill: {_FAINT}; }}
.region {{ font-weight: 600; fill: #44506a; }}
.box {{ font-weight: 600; }}
"""

_PATTERNS = (
    '<pattern id="sparse" width="7" height="7" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect width="7" height="7" fill="#f3f5fa"/><rect width="2" height="7" fill="#b9c3d9"/></pattern>',
    '<pattern id="fine" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect width="5" height="5" fill="#f7f9fc"/><rect width="1.2" height="5" fill="#d9e0ec"/></pattern>',
    '<pattern id="kernel" width="9" height="9" patternUnits="userSpaceOnUse" patternTransform="rotate(-45)">'
    '<rect width="9" height="9" fill="#4a5160"/><rect width="3.5" height="9" fill="#5f6778"/></pattern>',
)


@dataclass
class Canvas:
    """The drawing and how far down it has come."""

    svg: Svg
    y: float
    kinds: set[str] = field(default_factory=set)
    crowded: int = 0


def picture(
    vm: GpuvaManager,
    title: str,
    number_of: Callable[[object], int],
    *,
    object_word: str = "handle",
) -> str:
    """The space as an SVG document.

    Args:
        title: what it shows: file, line, client.
        number_of: the number by which an object is labelled and coloured; 0 for none.
        object_word: what a number is: ``handle``, ``bo``.
    """
    pieces = pieces_of(vm, number_of)
    bands = cut(pieces)
    canvas = Canvas(Svg(WIDTH), 0.0)
    for pattern in _PATTERNS:
        canvas.svg.define(pattern)
    _head(canvas, title, vm, pieces)
    _stack(canvas, bands, object_word)
    mapped = [piece for piece in pieces if piece.kind is Kind.MAPPING]
    canvas.y = draw_legend(canvas.svg, canvas.y + 30, mapped, canvas.kinds, canvas.crowded, object_word)
    return canvas.svg.document(canvas.y + _MARGIN, title, _STYLE)


def _head(canvas: Canvas, title: str, vm: GpuvaManager, pieces: Sequence[Piece]) -> None:
    stats = vm.statistics()
    numbers = {piece.number for piece in pieces if piece.kind is Kind.MAPPING and piece.number}
    regions = vm.region_list()
    space = f"GPU VA space [{hex_text(vm.start)}, {hex_text(vm.end)}), {size_text(vm.range)}"
    counts = "nothing is mapped"
    if stats.mappings:
        counts = (
            f"{_many(stats.mappings, 'mapping')} of {_many(len(numbers), 'object')}, "
            f"{size_text(stats.mapped_bytes)} mapped"
        )
    sparse = sum(region.sparse for region in regions)
    for count, noun in ((sparse, "sparse region"), (len(regions) - sparse, "other region")):
        counts += f", {_many(count, noun)}" if count else ""
    counts += f"; largest hole {size_text(stats.largest_hole)}, fragmentation {stats.fragmentation:.1%}"
    canvas.svg.text(_MARGIN, 42, title, "title")
    canvas.svg.text(_MARGIN, 66, space, "faint")
    canvas.svg.text(_MARGIN, 84, counts, "faint")
    canvas.y = 112.0


def _stack(canvas: Canvas, bands: Sequence[Band], object_word: str) -> None:
    rows = _row_budget(bands)
    smallest = min((p.range for b in bands for p in b.pieces if p.kind is Kind.MAPPING), default=1)
    region: Region | None = None
    region_top = 0.0
    for band, most_rows in zip(bands, rows, strict=True):
        if band.region is not region:
            _region_bar(canvas, region, region_top)
            region = band.region
            region_top = canvas.y
            if region is not None:
                _region_head(canvas, region)
        _address(canvas, band.addr)
        if band.dense:
            _dense(canvas, band, most_rows)
        else:
            _single(canvas, band.pieces[0], smallest, object_word)
    _region_bar(canvas, region, region_top)
    _address(canvas, bands[-1].end)


def _row_budget(bands: Sequence[Band]) -> list[int]:
    """Rows for each dense band: more for more mappings, within reason for the whole picture."""
    counts = [len(band.mappings()) if band.dense else 0 for band in bands]
    total = sum(counts) or 1
    return [min(max(_ROWS_IN_ALL * count // total, _FEWEST_ROWS), _MOST_ROWS) for count in counts]


def _region_head(canvas: Canvas, region: Region) -> None:
    kind = "sparse region" if region.sparse else "region"
    where = f"{kind}, {size_text(region.range)}, [{hex_text(region.addr)}, {hex_text(region.end)})"
    canvas.svg.text(_LEFT, canvas.y + 16, where, "region")
    canvas.y += 24


def _region_bar(canvas: Canvas, region: Region | None, top: float) -> None:
    if region is None:
        return
    fill = "url(#sparse)" if region.sparse else "#dfe4ee"
    canvas.svg.rect(_LEFT - 12, top + 4, 7, canvas.y - top - 4, fill, stroke="#8c98b3", stroke_width="0.8")


def _address(canvas: Canvas, addr: int) -> None:
    canvas.svg.line(_LEFT - 18, canvas.y, _LEFT, canvas.y, _FAINT)
    canvas.svg.text(_LEFT - 24, canvas.y + 4, hex_text(addr), "addr", text_anchor="end")


def _single(canvas: Canvas, piece: Piece, smallest: int, object_word: str) -> None:
    canvas.kinds.add(piece.kind.value)
    draw_piece = {Kind.HOLE: _hole, Kind.UNBOUND: _unbound, Kind.KERNEL: _kernel}.get(piece.kind)
    if draw_piece is not None:
        draw_piece(canvas, piece)
        return
    height = min(22.0 + 2.2 * (piece.range // smallest).bit_length(), 56.0)
    fill = object_colour(piece.number)
    name = f"{object_word} {piece.number}" if piece.number else "no object"
    place = f"offset {hex_text(piece.offset)}"
    kind = f", kind {piece.pte_kind:#04x}" if piece.pte_kind else ""
    hover = f"[{piece.addr:#x}, {piece.end:#x}) {name}, {place}{kind}"
    canvas.svg.rect(_LEFT, canvas.y + 0.5, _COLUMN, height - 1, fill, rx="2", title=hover)
    canvas.svg.text(_LEFT + 10, canvas.y + height / 2 + 4, name, "box", style=f"fill:{text_colour(fill)}")
    canvas.svg.text(_RIGHT, canvas.y + height / 2 + 4, f"{size_text(piece.range)}, {place}{kind}", "")
    canvas.y += height


def _hole(canvas: Canvas, piece: Piece) -> None:
    height = 30.0
    top, bottom = canvas.y + 5, canvas.y + height - 5
    for x in (_LEFT, _LEFT + _COLUMN):
        canvas.svg.line(x, canvas.y, x, top, "#aab1be")
        canvas.svg.line(x, bottom, x, canvas.y + height, "#aab1be")
    for y in (top, bottom):
        zigzag = "".join(f"l10 {3 if i % 2 == 0 else -3}" for i in range(int(_COLUMN / 10)))
        canvas.svg.path(f"M{_LEFT:g} {y - 1.5:g}{zigzag}", fill="none", stroke="#c3c8d2")
    middle = _LEFT + _COLUMN / 2
    text = f"hole, {size_text(piece.range)}"
    canvas.svg.text(middle, canvas.y + height / 2 + 4, text, "faint", text_anchor="middle")
    canvas.y += height


def _unbound(canvas: Canvas, piece: Piece) -> None:
    canvas.svg.rect(_LEFT, canvas.y + 0.5, _COLUMN, 21, "url(#sparse)")
    canvas.svg.text(_RIGHT, canvas.y + 15, f"{size_text(piece.range)} sparse, unbound", "faint")
    canvas.y += 22


def _kernel(canvas: Canvas, piece: Piece) -> None:
    canvas.svg.rect(_LEFT, canvas.y + 0.5, _COLUMN, 33, "url(#kernel)", rx="2")
    canvas.svg.text(_LEFT + 10, canvas.y + 21, "kernel reserved node", "box", style="fill:#ffffff")
    canvas.svg.text(_RIGHT, canvas.y + 21, size_text(piece.range), "")
    canvas.y += 34


def _dense(canvas: Canvas, band: Band, most_rows: int) -> None:
    raster = lay_out(band, _COLUMN, most_rows)
    top = canvas.y + 1
    drawn = draw(band, raster, _LEFT, top)
    canvas.crowded += drawn.crowded
    canvas.kinds.update(piece.kind.value for piece in band.pieces)
    canvas.kinds.add("unmapped")
    canvas.svg.path(drawn.extent, fill="#eceef2")
    if drawn.unbound:
        canvas.svg.path(drawn.unbound, fill="url(#fine)")
    for number, data in drawn.by_number.items():
        canvas.svg.path(data, fill=object_colour(number))
    for row in range(raster.rows):
        begin = raster.origin + row * raster.row_bytes
        below = row * raster.row_height
        clear = below >= 11 and raster.height - below >= 12  # of the band's own two addresses
        if clear and (raster.row_height >= 11 or row % 2 == 0):
            canvas.svg.text(_LEFT - 24, top + below + 8, hex_text(begin), "row", text_anchor="end")
    for line, text in enumerate(_dense_notes(band, raster.row_bytes, raster.bytes_a_pixel, drawn.crowded)):
        canvas.svg.text(_RIGHT, canvas.y + 14 + 15 * line, text, "" if line == 0 else "faint")
    canvas.y += max(raster.height + 2, 15.0 * 4)


def _dense_notes(band: Band, row_bytes: int, bytes_a_pixel: float, crowded: int) -> list[str]:
    mapped = band.mappings()
    by_number: dict[int, int] = defaultdict(int)
    for piece in mapped:
        by_number[piece.number] += piece.range
    pixel = f", a pixel {size_text(round(bytes_a_pixel))}" if bytes_a_pixel >= 1 else ""
    notes = [
        f"{_many(len(mapped), 'mapping')}, {_many(len(by_number.keys() - {0}), 'object')}",
        f"{size_text(sum(by_number.values()))} of {size_text(band.end - band.addr)} mapped",
        f"a row is {size_text(row_bytes)}{pixel}",
    ]
    return [*notes, f"{crowded:,} mappings share a pixel"] if crowded else notes


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
