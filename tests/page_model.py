"""The oracle: an address space as a dictionary of cells, one mapping content for each.

Nothing here knows how the library plans. A space is cut into cells (pages) at fixed edges; a cell knows which
object backs it, at which offset, with which flags, and which mapping it belongs to. A mapping is nothing but
the set of cells that name it; a hole is the absence of cells. From that alone follow

* what a request must leave behind (`after_map`, `after_unmap`): an ordinary dictionary update;
* whether a list of ops does it (`play`): each op is carried out cell by cell, and an op that takes what is
  not there, or maps over what is, fails;
* the exact list of ops for each merge policy (`map_ops` and its sisters), from sets of cells: "sticks out",
  "covers" and "touches the border" are subset and membership tests, never sums of addresses.

Cells may differ in size, so that a handful of them covers 2^64 bytes.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from gpuvm import Merge, Regions
from shapes import MapShape, OpShape, PrefetchShape, RemapShape, UnmapShape, Va

WORD = 1 << 64


@dataclass(frozen=True, slots=True)
class Cell:
    bo: int
    offset: int
    flags: int
    owner: int

    @property
    def content(self) -> tuple[int, int, int]:
        return (self.bo, self.offset, self.flags)


class Grid:
    """Edges of the cells: cell `i` is `[edges[i], edges[i + 1])`."""

    def __init__(self, edges: Sequence[int]) -> None:
        assert all(low < high for low, high in pairwise(edges)), "edges must ascend"
        self.edges = list(edges)
        self._index = {edge: index for index, edge in enumerate(edges)}

    def __len__(self) -> int:
        return len(self.edges) - 1

    def size(self, cell: int) -> int:
        return self.edges[cell + 1] - self.edges[cell]

    def cells(self, addr: int, size: int) -> list[int]:
        return list(range(self._index[addr], self._index[addr + size]))

    def bytes(self, first: int, last: int) -> tuple[int, int]:
        """Address and length of cells `[first, last)`."""
        return self.edges[first], self.edges[last] - self.edges[first]


@dataclass(slots=True)
class PageModel:
    grid: Grid
    merge: Merge = Merge.NEVER
    regions_mode: Regions = Regions.OFF
    kernel: frozenset[int] = frozenset()
    regions: list[frozenset[int]] = field(default_factory=list)
    cells: dict[int, Cell] = field(default_factory=dict)
    _pages: dict[int, list[int]] = field(default_factory=dict)
    _next_owner: int = 1

    # What is there.

    def owners(self, pages: Iterable[int]) -> list[int]:
        """The mappings that own one of these pages, in address order."""
        return list(dict.fromkeys(self.cells[page].owner for page in pages if page in self.cells))

    def pages(self, owner: int) -> list[int]:
        return self._pages[owner]

    def va(self, pages: Sequence[int], cells: Mapping[int, Cell] | None = None) -> Va:
        """The mapping that consists of exactly these pages."""
        source = self.cells if cells is None else cells
        first = source[pages[0]]
        size = sum(self.grid.size(page) for page in pages)
        return Va(self.grid.edges[pages[0]], size, first.bo, first.offset, first.flags)

    def vas(self) -> list[Va]:
        """Every mapping in address order."""
        return [self.va(pages) for pages in sorted(self._pages.values())]

    def contents(self) -> dict[int, tuple[int, int, int]]:
        return {page: cell.content for page, cell in self.cells.items()}

    def region_of(self, pages: Iterable[int]) -> int | None:
        wanted = frozenset(pages)
        return next((number for number, region in enumerate(self.regions) if wanted <= region), None)

    # What a request must leave behind, whatever the ops.

    def request(self, pages: Sequence[int], bo: int, offset: int, flags: int) -> dict[int, Cell]:
        wanted: dict[int, Cell] = {}
        for page in pages:
            wanted[page] = Cell(bo, offset % WORD, flags, 0)
            offset += self.grid.size(page)
        return wanted

    def after_map(self, wanted: Mapping[int, Cell]) -> dict[int, tuple[int, int, int]]:
        return self.contents() | {page: cell.content for page, cell in wanted.items()}

    def after_unmap(self, pages: Iterable[int]) -> dict[int, tuple[int, int, int]]:
        gone = set(pages)
        return {page: content for page, content in self.contents().items() if page not in gone}

    # The exact ops.

    def map_ops(self, pages: Sequence[int], bo: int, offset: int, flags: int = 0) -> list[OpShape]:
        wanted = self.request(pages, bo, offset, flags)
        requested = frozenset(pages)
        ops: list[OpShape] = []
        visited = self.owners(pages)
        for owner in visited:
            owned = self.pages(owner)
            same = self._same_backing(owned, wanted)
            if self.merge is Merge.NEVER or not (same and self._may_merge(owned[0], flags)):
                ops.append(self._cut(owned, requested, keep=same))
            elif requested <= set(owned):
                return []
            else:
                ops.append(UnmapShape(self.va(owned), keep=True))
                wanted |= {page: replace(self.cells[page], flags=flags, owner=0) for page in owned}
        if self.merge is not Merge.NEVER:
            for neighbour in self._neighbours(visited, requested, wanted):
                ops.append(UnmapShape(self.va(neighbour), keep=True))
                wanted |= {page: replace(self.cells[page], flags=flags, owner=0) for page in neighbour}
        ops.append(MapShape(self.va(sorted(wanted), wanted)))
        return ops

    def unmap_ops(self, pages: Sequence[int]) -> list[OpShape]:
        gone = frozenset(pages)
        return [self._cut(self.pages(owner), gone, keep=False) for owner in self.owners(pages)]

    def prefetch_ops(self, pages: Sequence[int]) -> list[OpShape]:
        return [PrefetchShape(self.va(self.pages(owner))) for owner in self.owners(pages)]

    def madvise_ops(self, pages: Sequence[int]) -> list[OpShape]:
        """Only what has no object and sticks out of the request is cut; the part inside is mapped again.

        Its offset is 0: without an object it means nothing.
        """
        advised = frozenset(pages)
        ops: list[OpShape] = []
        for owner in self.owners(pages):
            owned = self.pages(owner)
            if self.cells[owned[0]].bo == 0 and not advised.issuperset(owned):
                inside = [page for page in owned if page in advised]
                ops += [self._cut(owned, advised, keep=False), MapShape(replace(self.va(inside), offset=0))]
        return ops

    def _same_backing(self, owned: Sequence[int], wanted: Mapping[int, Cell]) -> bool:
        """Every page shared by the mapping and the request shows the same byte of the same object in both."""
        both = [page for page in owned if page in wanted]
        return all(
            self.cells[page].bo == wanted[page].bo != 0 and self.cells[page].offset == wanted[page].offset
            for page in both
        )

    def _may_merge(self, page: int, flags: int) -> bool:
        """Mappings whose flags differ (kind, sparse, invalidated) are not the same mapping."""
        return self.cells[page].flags == flags

    def _cut(self, owned: Sequence[int], hole: frozenset[int], *, keep: bool) -> OpShape:
        before = [page for page in owned if page < min(hole)]
        behind = [page for page in owned if page > max(hole)]
        if not before and not behind:
            return UnmapShape(self.va(owned), keep)
        return RemapShape(
            self.va(owned),
            self.va(before) if before else None,
            self.va(behind) if behind else None,
            keep,
        )

    def _neighbours(
        self, visited: Sequence[int], requested: frozenset[int], wanted: Mapping[int, Cell]
    ) -> Iterator[list[int]]:
        """Mappings that touch the (grown) request and continue it, left then right.

        A border that an overlapping mapping crosses was decided there; a border that none crosses has a
        neighbour or a hole behind it, whatever was replaced inside.
        """
        inside = {page for owner in visited for page in self.pages(owner)} | requested
        if min(inside) == min(requested):
            yield from self._continues(min(requested) - 1, min(requested), wanted)
        if max(inside) == max(requested):
            yield from self._continues(max(requested) + 1, max(requested), wanted)

    def _continues(self, page: int, border: int, wanted: Mapping[int, Cell]) -> Iterator[list[int]]:
        cell = self.cells.get(page)
        edge = wanted[border]
        if cell is None or cell.bo == 0 or cell.bo != edge.bo or cell.flags != edge.flags:
            return
        lower, upper, step = (cell, edge, page) if page < border else (edge, cell, border)
        if (lower.offset + self.grid.size(step)) % WORD != upper.offset:
            return
        owned = self.pages(cell.owner)
        if self._may_span([*owned, *wanted]):
            yield owned

    def _may_span(self, pages: Iterable[int]) -> bool:
        if self.merge is Merge.WITHIN_REGION:
            return self.region_of(pages) is not None
        return self.placing_error(pages) == 0

    def placing_error(self, pages: Iterable[int]) -> int:
        """The errno for a mapping at these pages as far as regions go, 0 if it may be there."""
        wanted = frozenset(pages)
        inside = self.region_of(wanted) is not None
        if self.regions_mode is Regions.REQUIRED and not inside:
            return errno.EINVAL
        if (
            self.regions_mode is Regions.SPARSE
            and not inside
            and any(wanted & region for region in self.regions)
        ):
            return errno.ENOSPC
        return 0

    # Ops carried out page by page.

    def play(self, ops: Iterable[OpShape]) -> None:
        for op in ops:
            match op:
                case MapShape(va):
                    self._put(va)
                case UnmapShape(va):
                    self._take(va)
                case RemapShape(va, prev, following):
                    self._take(va)
                    for piece in (prev, following):
                        if piece is not None:
                            assert va.addr <= piece.addr, f"{piece} begins before {va}"
                            assert piece.end <= va.end, f"{piece} ends behind {va}"
                            self._put(piece)
                case PrefetchShape(va):
                    self._whole(va)

    def _put(self, va: Va) -> None:
        pages = self.grid.cells(va.addr, va.range)
        taken = [page for page in pages if page in self.cells or page in self.kernel]
        assert not taken, f"{va} maps over pages {taken}"
        fresh = self.request(pages, va.bo, va.offset, va.flags)
        self.cells |= {page: replace(cell, owner=self._next_owner) for page, cell in fresh.items()}
        self._pages[self._next_owner] = pages
        self._next_owner += 1

    def _take(self, va: Va) -> None:
        pages, owner = self._whole(va)
        for page in pages:
            del self.cells[page]
        del self._pages[owner]

    def _whole(self, va: Va) -> tuple[list[int], int]:
        """The pages of the mapping that `va` describes, which must be exactly one."""
        pages = self.grid.cells(va.addr, va.range)
        owners = self.owners(pages)
        assert [self.pages(owner) for owner in owners] == [pages], f"{va} is not one mapping"
        assert self.va(pages) == va, f"{va} is described wrongly, there is {self.va(pages)}"
        return pages, owners[0]
