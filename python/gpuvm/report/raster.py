"""Many mappings in one block: rows of equal length, read like lines of text, to scale."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from gpuvm.report.bands import Band, Kind, Piece
from gpuvm.report.svg import number

# Below this many pixels a mapping shares its pixel with its neighbours.
_NARROWEST = 1.5
_WIDEST_SMALLEST = 24
_ROW_HEIGHTS = ((4, 22.0), (8, 16.0), (16, 12.0), (1 << 30, 8.0))


@dataclass(frozen=True, slots=True)
class Raster:
    """Where bytes of a dense band go.

    Attributes:
        origin: address of the first row's left edge, at or below the band's first byte.
        row_bytes: bytes a row; a power of two.
        rows: how many.
        row_height: pixels.
        width: pixels a row.
    """

    origin: int
    row_bytes: int
    rows: int
    row_height: float
    width: float

    @property
    def height(self) -> float:
        """Pixels."""
        return self.rows * self.row_height

    @property
    def bytes_a_pixel(self) -> float:
        """The scale."""
        return self.row_bytes / self.width

    def spans(self, addr: int, end: int) -> Iterator[tuple[int, float, float]]:
        """``(row, left, right)`` in pixels of each row that ``[addr, end)`` touches."""
        first, last = (addr - self.origin) // self.row_bytes, (end - 1 - self.origin) // self.row_bytes
        for row in range(first, last + 1):
            begin = self.origin + row * self.row_bytes
            left = max(addr - begin, 0) / self.row_bytes * self.width
            right = min(end - begin, self.row_bytes) / self.row_bytes * self.width
            yield row, left, right


def lay_out(band: Band, width: float, most_rows: int) -> Raster:
    """A raster for the band, ``width`` pixels wide, of at most ``most_rows`` rows and one more."""
    extent = band.end - band.addr
    smallest = min((piece.range for piece in band.mappings()), default=extent)
    wanted = max(extent / most_rows, smallest * width / _WIDEST_SMALLEST)
    row_bytes = 1 << max(int(wanted) - 1, 0).bit_length()
    origin = band.addr if extent <= row_bytes else band.addr // row_bytes * row_bytes
    rows = -(-(band.end - origin) // row_bytes)
    row_height = next(height for limit, height in _ROW_HEIGHTS if rows <= limit)
    if rows * row_height < 44:
        row_height = 44 / rows
    return Raster(origin, row_bytes, rows, row_height, width)


@dataclass(frozen=True, slots=True)
class Drawn:
    """SVG path data of a raster.

    Attributes:
        extent: all of the band's bytes.
        by_number: of the mappings, one path an object.
        unbound: of the sparse regions' unbound stretches.
        crowded: mappings that share a pixel with others.
    """

    extent: str
    by_number: dict[int, str]
    unbound: str
    crowded: int


def draw(band: Band, raster: Raster, x: float, y: float) -> Drawn:
    """Path data with the raster's upper left corner at ``(x, y)``.

    Where mappings are narrower than a pixel, the object that has most bytes in it gives the pixel its colour.
    """
    paths: dict[int, list[str]] = defaultdict(list)
    unbound: list[str] = []
    narrow: dict[tuple[int, int], list[tuple[Piece, float]]] = defaultdict(list)

    def box(row: int, left: float, right: float) -> str:
        top = y + row * raster.row_height
        width = number(max(right - left, 0.5))
        return f"M{number(x + left)} {number(top)}h{width}v{number(raster.row_height - 1)}h-{width}z"

    for piece in band.pieces:
        if piece.kind is Kind.HOLE:
            continue
        for row, left, right in raster.spans(piece.addr, piece.end):
            if piece.kind is Kind.UNBOUND:
                unbound.append(box(row, left, right))
            elif right - left < _NARROWEST:
                narrow[row, int(left)].append((piece, right - left))
            else:
                # A hairline keeps equal neighbours apart where there is room for it.
                gap = 0.7 if right - left >= 4 else 0.0
                paths[piece.number].append(box(row, left, right - gap))
    crowded = 0
    for (row, pixel), shares in narrow.items():
        weight: dict[int, float] = defaultdict(float)
        for piece, share in shares:
            weight[piece.number] += share
        paths[max(weight, key=lambda key: weight[key])].append(box(row, pixel, pixel + 1))
        crowded += len(shares) if len(shares) > 1 else 0
    return Drawn(
        "".join(box(*span) for span in raster.spans(band.addr, band.end)),
        {key: "".join(data) for key, data in paths.items()},
        "".join(unbound),
        crowded,
    )
