"""Rival 3: ``sortedcontainers.SortedDict`` from address to mapping, with map and split written on top."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sortedcontainers import SortedDict

from bench.contender_python import Op, Piece, PythonSpace, cut, map_op


class SortedContender(PythonSpace):
    """Keys are the addresses, values the whole pieces."""

    name = "sortedcontainers"
    limit = 1 << 62

    def __init__(self) -> None:
        self._tree: Any = SortedDict()

    def _clear(self, start: int, end: int, new: Piece | None) -> list[Op]:
        tree = self._tree
        at = tree.bisect_left(start) - 1
        hit: list[Piece] = []
        if at >= 0:
            before: Piece = tree.peekitem(at)[1]
            if before[1] > start:
                hit.append(before)
        hit += [tree[addr] for addr in tree.irange(start, end, (True, False))]
        ops = []
        for piece in hit:
            op, prev, after = cut(piece, start, end, new)
            ops.append(op)
            if prev is not None:
                tree[piece[0]] = prev
            elif new is None or piece[0] != start:
                # The new mapping will take this key otherwise: then the sorted list need not be touched.
                del tree[piece[0]]
            if after is not None:
                tree[after[0]] = after
        return ops

    def map(self, addr: int, end: int, offset: int, handle: int, flags: int) -> list[Op]:
        new = (addr, end, offset, handle, flags)
        tree = self._tree
        old = tree.get(addr)
        if old is not None and old[1] == end:
            # Exactly over a mapping: the key stays, so the sorted list need not be touched.
            ops = [cut(old, addr, end, new)[0]]
        else:
            ops = self._clear(addr, end, new)
        tree[addr] = new
        ops.append(map_op(new))
        return ops

    def unmap(self, addr: int, end: int) -> list[Op]:
        return self._clear(addr, end, None)

    def find_one(self, addr: int, end: int) -> Piece | None:
        piece: Piece | None = self._tree.get(addr)
        return piece if piece is not None and piece[1] == end else None

    def pieces(self) -> Iterator[Piece]:
        return iter(self._tree.values())

    def borders(self, *, descending: bool) -> Iterator[tuple[int, int]]:
        tree = self._tree
        for addr in reversed(tree) if descending else iter(tree):
            yield addr, tree[addr][1]
