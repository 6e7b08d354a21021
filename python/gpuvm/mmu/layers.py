"""Layers: what is referenced and mapped at each page size, and what shows of it; books without memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import Enum
from itertools import groupby
from typing import Final, NamedTuple, TypeVar

from gpuvm.errors import AlreadyMapped, CheckFailed, InvalidArgument, NotFound
from gpuvm.mem import Aperture
from gpuvm.mmu.formats.format import PteFlags
from gpuvm.mmu.intervals import IntervalMap, Piece

V = TypeVar("V")


class Mapped(NamedTuple):
    """Pages that continue each other; the same wherever they are cut."""

    shift: int
    aperture: Aperture
    delta: int
    """Physical address less address."""
    kind: int
    flags: PteFlags


class Unmapped(Enum):
    """What shows where nothing is mapped."""

    HOLE = "hole"
    SPARSE = "sparse"


Shown = Mapped | Unmapped


def memory_of(shown: Shown) -> object:
    """What is equal where the same memory shows, whatever the page sizes."""
    return shown[1:] if isinstance(shown, Mapped) else shown


class Layers:
    """A layer of slots and pages for each page size, larger ones above, and sparse ranges below them all.

    Refuses wrong calls before it changes anything. Locking: the caller's.

    Args:
        start, end: addresses.
        shifts: page sizes, the largest first.
    """

    def __init__(self, start: int, end: int, shifts: Iterable[int]) -> None:
        self.start: Final = start
        self.end: Final = end
        self.references: Final = {shift: IntervalMap(start, end, 0) for shift in shifts}
        self.mapped: Final = {
            shift: IntervalMap[Mapped | None](start, end, None) for shift in self.references
        }
        self.sparse: Final = IntervalMap(start, end, False)
        self.sparse_ranges: Final[dict[int, int]] = {}
        """From address to length."""

    # -- references

    def require_referenced(self, call: str, addr: int, end: int, shift: int) -> None:
        """Refuse the call if a slot is not referenced."""
        for piece in self.references[shift].pieces(addr, end):
            if not piece.value:
                raise InvalidArgument(
                    f"{call}: nobody references the pages of {1 << shift:#x} bytes in "
                    f"[{piece.start:#x}, {piece.end:#x}); get them first",
                    value=piece.start,
                )

    def edges_of_get(self, addr: int, end: int, shift: int) -> int:
        """How many more places ``get`` adds where pages may end."""
        fresh = [piece for piece in self.references[shift].pieces(addr, end) if not piece.value]
        return sum(self._edges(piece.start, piece.end, shift) for piece in fresh)

    def get(self, addr: int, end: int, shift: int) -> None:
        """Count a reference of each slot."""
        self.references[shift].update(addr, end, lambda count: count + 1)

    def put(self, addr: int, end: int, shift: int) -> int:
        """Drop a reference of each slot.

        Returns:
            How many places fewer there are where pages may end.
        """
        self.require_referenced("put", addr, end, shift)
        last = [piece for piece in self.references[shift].pieces(addr, end) if piece.value == 1]
        for piece in last:
            self._require_unmapped(piece, shift)
        self.references[shift].update(addr, end, lambda count: count - 1)
        return sum(self._edges(piece.start, piece.end, shift) for piece in last)

    def _require_unmapped(self, last: Piece[int], shift: int) -> None:
        for piece in self.mapped[shift].pieces(last.start, last.end):
            if piece.value is not None:
                raise InvalidArgument(
                    f"put: pages of {1 << shift:#x} bytes are mapped in [{piece.start:#x}, {piece.end:#x}), "
                    "whose last reference this is; unmap them first",
                    value=piece.start,
                )

    def _edges(self, start: int, end: int, shift: int) -> int:
        """Borders of slots in ``[start, end)`` that are no borders of a referenced neighbour."""
        references = self.references[shift]
        before = start > self.start and references[start - 1] > 0
        behind = end < self.end and references[end] > 0
        return ((end - start) >> shift) + 1 - before - behind

    def edges(self) -> int:
        """All places where pages may end. O(pieces)."""
        total = 0
        for shift, references in self.references.items():
            for used, pieces in groupby(self._all(references), key=lambda piece: piece.value > 0):
                if used:
                    total += 1 + sum((piece.end - piece.start) >> shift for piece in pieces)
        return total

    # -- pages

    def map(self, addr: int, end: int, mapped: Mapped) -> None:
        """Put pages in the place of those of the same size."""
        self.require_referenced("map", addr, end, mapped.shift)
        self.mapped[mapped.shift].assign(addr, end, mapped)

    def unmap(self, addr: int, end: int, shift: int) -> None:
        """Take away the pages of this size."""
        self.require_referenced("unmap", addr, end, shift)
        self.mapped[shift].assign(addr, end, None)

    def require_not_sparse(self, addr: int, end: int) -> None:
        """Refuse to make sparse what is."""
        for piece in self.sparse.pieces(addr, end):
            if piece.value:
                raise AlreadyMapped(
                    f"sparse: [{piece.start:#x}, {piece.end:#x}) is sparse already; drop that range first",
                    value=addr,
                    bound=piece.start,
                )

    def sparse_ref(self, addr: int, end: int) -> None:
        """Make the range sparse."""
        self.sparse.assign(addr, end, True)
        self.sparse_ranges[addr] = end - addr

    def sparse_unref(self, addr: int, end: int) -> None:
        """Make the range, which was made sparse as one, not sparse."""
        if self.sparse_ranges.get(addr) != end - addr:
            raise NotFound(
                f"sparse: [{addr:#x}, {end:#x}) was not made sparse as one; pass addr and range as they were",
                value=addr,
                bound=self.sparse_ranges.get(addr),
            )
        del self.sparse_ranges[addr]
        self.sparse.assign(addr, end, False)

    def shown(self, start: int, end: int) -> Iterator[Piece[Shown]]:
        """What shows in ``[start, end)``: the largest pages first, then sparse ranges, in order."""
        return self._shown(start, end, tuple(self.mapped))

    def _shown(self, start: int, end: int, shifts: tuple[int, ...]) -> Iterator[Piece[Shown]]:
        if not shifts:
            for first, last, sparse in self.sparse.pieces(start, end):
                yield Piece(first, last, Unmapped.SPARSE if sparse else Unmapped.HOLE)
            return
        for first, last, mapped in self.mapped[shifts[0]].pieces(start, end):
            if mapped is not None:
                yield Piece(first, last, mapped)
            else:
                yield from self._shown(first, last, shifts[1:])

    # -- itself

    def mapped_pages(self) -> dict[int, int]:
        """Pages by shift. O(pieces)."""
        return {
            shift: sum(piece.end - piece.start for piece in self._all(layer) if piece.value) >> shift
            for shift, layer in self.mapped.items()
        }

    def reference_count(self) -> int:
        """References of all slots together. O(pieces)."""
        return sum(
            (piece.end - piece.start >> shift) * piece.value
            for shift, references in self.references.items()
            for piece in self._all(references)
        )

    def _all(self, pieces: IntervalMap[V]) -> list[Piece[V]]:
        return pieces.pieces(self.start, self.end)

    def check(self) -> None:
        """Verify that only referenced slots have pages, and that sparse ranges are apart.

        Raises:
            CheckFailed: with the state.
        """
        for shift, layer in self.mapped.items():
            layer.check()
            self.references[shift].check()
            for piece in self._all(layer):
                if piece.value is not None:
                    unreferenced = any(
                        not part.value for part in self.references[shift].pieces(piece.start, piece.end)
                    )
                    if unreferenced or (piece.start | piece.end) % (1 << shift):
                        raise CheckFailed(f"pages of 2**{shift} at {piece} without reference or misaligned")
        listed = IntervalMap(self.start, self.end, False)
        for addr, length in self.sparse_ranges.items():
            listed.assign(addr, addr + length, True)
        if listed.pieces(self.start, self.end) != self.sparse.pieces(self.start, self.end):
            raise CheckFailed(
                f"sparse ranges {self.sparse_ranges}, but {self.sparse.pieces(self.start, self.end)}"
            )
