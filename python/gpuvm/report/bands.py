"""A space cut into the bands that a picture stacks: what gets a band of its own, what is drawn together.

Every byte of the space is in exactly one band, in address order. With few pieces (mappings, holes, the
kernel's node, unbound stretches of sparse regions) each is a band. With many, neighbours are gathered
into dense bands: cut at the kernel's node, at regions and at the largest holes; the shortest runs are
still drawn piece by piece while there is room.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from gpuvm.va import GpuvaFlags, GpuvaManager, Region

MOST_BANDS = 64
# A bind's PTE kind is kept in the driver's bits of a mapping's flags.
_KIND_SHIFT = GpuvaFlags.USERBITS.bit_length() - 1
_MOST_CUT_HOLES = 24
# A hole is worth compressing while it is at least this part of everything that is still drawn.
_CUT_PART = 16
_MOST_CUT_REGIONS = 24


class Kind(Enum):
    """What a piece is."""

    MAPPING = "mapping"
    HOLE = "hole"
    UNBOUND = "unbound"  # in a sparse region, nothing mapped
    KERNEL = "kernel"


@dataclass(frozen=True, slots=True)
class Piece:
    """``[addr, end)`` of one kind; ``number``, ``offset`` and ``pte_kind`` are a mapping's."""

    kind: Kind
    addr: int
    end: int
    region: Region | None = None
    number: int = 0
    offset: int = 0
    pte_kind: int = 0

    @property
    def range(self) -> int:
        """Bytes."""
        return self.end - self.addr


@dataclass(frozen=True, slots=True)
class Band:
    """One piece, or many to be drawn together."""

    pieces: tuple[Piece, ...]

    @property
    def dense(self) -> bool:
        """Whether it is drawn as a raster."""
        return len(self.pieces) > 1

    @property
    def addr(self) -> int:
        """First byte."""
        return self.pieces[0].addr

    @property
    def end(self) -> int:
        """Exclusive."""
        return self.pieces[-1].end

    @property
    def region(self) -> Region | None:
        """The region that holds all of it."""
        first = self.pieces[0].region
        return first if all(piece.region is first for piece in self.pieces) else None

    def mappings(self) -> list[Piece]:
        """The mapped ones."""
        return [piece for piece in self.pieces if piece.kind is Kind.MAPPING]


def pieces_of(vm: GpuvaManager, number_of: Callable[[object], int]) -> list[Piece]:
    """The space as pieces without gaps, in address order."""
    start, end = vm.start, vm.end
    regions = vm.region_list()
    ends = [region.end for region in regions]
    pieces: list[Piece] = []
    at = start
    for va in vm.mappings():
        if va.end <= start or va.addr >= end:
            continue  # the kernel's node may lie outside
        pieces.extend(_between(at, va.addr, regions, ends))
        at = min(va.end, end)
        if va.kernel:
            pieces.append(Piece(Kind.KERNEL, max(va.addr, start), at))
            continue
        index = bisect_right(ends, va.addr)
        region = regions[index] if index < len(regions) and regions[index].addr <= va.addr else None
        pte_kind = va.flags >> _KIND_SHIFT & 0xFF
        pieces.append(Piece(Kind.MAPPING, va.addr, va.end, region, number_of(va.obj), va.offset, pte_kind))
    pieces.extend(_between(at, end, regions, ends))
    return pieces


def _between(addr: int, end: int, regions: Sequence[Region], ends: Sequence[int]) -> Iterator[Piece]:
    """``[addr, end)``, where nothing is mapped, cut where regions begin and end (at ``ends``)."""
    at = addr
    for region in regions[bisect_right(ends, addr) :]:
        if region.addr >= end or at >= end:
            break
        if region.addr > at:
            yield Piece(Kind.HOLE, at, region.addr)
            at = region.addr
        upto = min(region.end, end)
        yield Piece(Kind.UNBOUND if region.sparse else Kind.HOLE, at, upto, region)
        at = upto
    if at < end:
        yield Piece(Kind.HOLE, at, end)


def cut(pieces: Sequence[Piece]) -> list[Band]:
    """The bands of a picture; at most about `MOST_BANDS` of them."""
    if len(pieces) <= MOST_BANDS:
        return [Band((piece,)) for piece in pieces]
    runs = _runs(pieces)
    budget = MOST_BANDS - len(runs)
    bands: dict[int, list[Band]] = {}
    for index in sorted(range(len(runs)), key=lambda i: len(runs[i])):
        run = runs[index]
        if len(run) - 1 <= budget:
            budget -= len(run) - 1
            bands[index] = [Band((piece,)) for piece in run]
        else:
            bands[index] = [Band(tuple(run))]
    return [band for index in range(len(runs)) for band in bands[index]]


def _runs(pieces: Sequence[Piece]) -> list[list[Piece]]:
    holes = sorted(
        (piece for piece in pieces if piece.kind is Kind.HOLE and piece.region is None),
        key=lambda piece: piece.range,
        reverse=True,
    )
    drawn = pieces[-1].end - pieces[0].addr
    alone = set()
    for hole in holes[:_MOST_CUT_HOLES]:
        drawn -= hole.range
        if hole.range * _CUT_PART < drawn:
            break
        alone.add(hole.addr)
    regions = {piece.region for piece in pieces}
    at_regions = len(regions) <= _MOST_CUT_REGIONS
    runs: list[list[Piece]] = []
    joins = False
    for piece in pieces:
        single = piece.kind is Kind.KERNEL or (piece.kind is Kind.HOLE and piece.addr in alone)
        if joins and not single and not (at_regions and piece.region is not runs[-1][-1].region):
            runs[-1].append(piece)
        else:
            runs.append([piece])
        joins = not single
    return runs
