"""Rival 4: ``intervaltree.IntervalTree``, with map and split written on top."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from intervaltree import Interval, IntervalTree

from bench.contender_python import Op, Piece, PythonSpace, cut, map_op


def _piece(interval: Any) -> Piece:
    offset, handle, flags = interval.data
    return interval.begin, interval.end, offset, handle, flags


def _interval(piece: Piece) -> Any:
    return Interval(piece[0], piece[1], piece[2:])


class IntervalContender(PythonSpace):
    """Intervals carry offset, handle and flags; what overlaps a request is removed and the rest added again.

    The package's own ``chop`` splits too, but gives neither the pieces nor their new offsets.
    """

    name = "intervaltree"
    # At a million, building takes longer than the whole rest of the benchmark.
    limit = 100_000
    share = 128
    sorts = True

    def __init__(self) -> None:
        self._tree: Any = IntervalTree()

    def _clear(self, start: int, end: int, new: Piece | None) -> list[Op]:
        ops = []
        for interval in sorted(self._tree.overlap(start, end)):
            op, prev, after = cut(_piece(interval), start, end, new)
            ops.append(op)
            self._tree.remove(interval)
            if prev is not None:
                self._tree.add(_interval(prev))
            if after is not None:
                self._tree.add(_interval(after))
        return ops

    def map(self, addr: int, end: int, offset: int, handle: int, flags: int) -> list[Op]:
        new = (addr, end, offset, handle, flags)
        ops = self._clear(addr, end, new)
        self._tree.add(_interval(new))
        ops.append(map_op(new))
        return ops

    def unmap(self, addr: int, end: int) -> list[Op]:
        return self._clear(addr, end, None)

    def find_one(self, addr: int, end: int) -> Piece | None:
        for interval in self._tree.at(addr):
            if interval.begin == addr and interval.end == end:
                return _piece(interval)
        return None

    def pieces(self) -> Iterator[Piece]:
        return (_piece(interval) for interval in sorted(self._tree))

    def borders(self, *, descending: bool) -> Iterator[tuple[int, int]]:
        for interval in sorted(self._tree, reverse=descending):
            yield interval.begin, interval.end
