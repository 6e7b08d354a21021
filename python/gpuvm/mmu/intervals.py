"""IntervalMap: a value for every address of a range, kept as the places where it changes."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable
from itertools import pairwise
from operator import itemgetter
from typing import Any, Final, Generic, NamedTuple, TypeVar

from gpuvm.errors import CheckFailed, InvalidArgument

V = TypeVar("V")

_START = itemgetter(0)
_BEHIND: Final = object()
"""The value behind the end, like no other."""


class Piece(NamedTuple, Generic[V]):
    """``[start, end)`` with one value."""

    start: int
    end: int
    value: V


class IntervalMap(Generic[V]):
    """A function of the addresses ``[start, end)`` that is constant over long pieces.

    Values are compared by ``==`` and do not depend on the address: a piece may be cut anywhere, and
    neighbours with equal values are one piece.

    Locking: one thread changes it at a time. Looking needs no lock, and sees the whole of a change or
    nothing of it: all is in one list, whose slices the interpreter reads and writes in one step. Who finds
    that the list changed between the search and the slice searches again.

    Cost: finding O(log pieces); a change also moves the list behind it.
    """

    __slots__ = ("_pieces",)

    def __init__(self, start: int, end: int, value: V) -> None:
        self._pieces: list[tuple[int, Any]] = [(start, value), (end, _BEHIND)]

    def __len__(self) -> int:
        return len(self._pieces) - 1

    def __getitem__(self, addr: int) -> V:
        """The value at one address inside the range."""
        value: V = self._covering(addr, addr + 1)[0][1]
        return value

    def piece(self, addr: int) -> Piece[V]:
        """The whole piece that one address lies in."""
        (start, value), (end, _) = self._covering(addr, addr + 1)
        return Piece(start, end, value)

    def pieces(self, start: int, end: int) -> list[Piece[V]]:
        """The pieces of ``[start, end)`` at one moment, cut to it, in order. O(pieces returned)."""
        found = self._covering(start, end)
        return [
            Piece(max(first, start), min(last, end), value) for (first, value), (last, _) in pairwise(found)
        ]

    def assign(self, start: int, end: int, value: V) -> None:
        """Give all of ``[start, end)`` this value."""
        self._replace(start, end, [(start, value)])

    def update(self, start: int, end: int, change: Callable[[V], V]) -> None:
        """Give every address of ``[start, end)`` the value that ``change`` makes of its own."""
        self._replace(start, end, [(piece.start, change(piece.value)) for piece in self.pieces(start, end)])

    def check(self) -> None:
        """Verify that pieces are in order and differ from their neighbours.

        Raises:
            CheckFailed: with the state.
        """
        if any(first >= last or one == other for (first, one), (last, other) in pairwise(self._pieces)):
            raise CheckFailed(f"pieces out of order or not merged: {self._pieces!r}")

    def _covering(self, start: int, end: int) -> list[tuple[int, Any]]:
        """The pieces that meet ``[start, end)`` at one moment, and the next one behind."""
        pieces = self._pieces
        if not pieces[0][0] <= start < end <= pieces[-1][0]:
            bound = (pieces[0][0], pieces[-1][0])
            raise InvalidArgument(
                f"pieces of [{start:#x}, {end:#x}): pass a range within [{bound[0]:#x}, {bound[1]:#x})",
                value=(start, end),
                bound=bound,
            )
        while True:
            first = bisect_right(pieces, start, key=_START) - 1
            found = pieces[first : bisect_left(pieces, end, key=_START) + 1]
            if len(found) > 1 and found[0][0] <= start < found[1][0] and found[-2][0] < end <= found[-1][0]:
                return found

    def _replace(self, start: int, end: int, values: Iterable[tuple[int, V]]) -> None:
        """Put ``values``, by where they begin, in the place of what is in ``[start, end)``, in one step."""
        pieces = self._pieces
        first = bisect_left(pieces, start, key=_START)
        last = bisect_right(pieces, end, key=_START)
        previous = pieces[first - 1][1] if first else _BEHIND
        fresh: list[tuple[int, Any]] = []
        for begin, value in (*values, (end, pieces[last - 1][1])):
            if value != previous:
                fresh.append((begin, value))
                previous = value
        pieces[first:last] = fresh
