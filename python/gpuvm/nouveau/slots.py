"""Page slots as the backend's calls take them, and what two sets of them do not have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from gpuvm.mmu.pages import Pages

_Spans = list[tuple[int, int]]


class Slots(NamedTuple):
    """The page slots of size ``1 << shift`` in ``[addr, addr + range)``."""

    addr: int
    range: int
    shift: int


class SlotSet:
    """The slots that some pages are in, each once.

    Sizes have slots of their own: a page of 64 KiB and sixteen of 4 KiB below it have none in common.

    Iterating gives ``Slots``, neighbours as one, wherever their memory is. Cost: O(n log n) to make, O(n) to
    subtract.
    """

    __slots__ = ("_spans",)

    def __init__(self, pages: Sequence[Pages]) -> None:
        self._spans: dict[int, _Spans] = {}
        """By shift, in order, neighbours joined."""
        for addr, range, shift, _ in sorted(pages) if len(pages) > 1 else pages:
            spans = self._spans.get(shift)
            if spans is None:
                self._spans[shift] = [(addr, addr + range)]
            elif spans[-1][1] == addr:
                spans[-1] = spans[-1][0], addr + range
            else:
                spans.append((addr, addr + range))

    def __iter__(self) -> Iterator[Slots]:
        for shift, spans in self._spans.items():
            for start, end in spans:
                yield Slots(start, end - start, shift)

    def __sub__(self, others: SlotSet) -> list[Slots]:
        """Those that are not among ``others``."""
        if not self._spans or self._spans == others._spans:
            return []
        return [
            Slots(start, end - start, shift)
            for shift, spans in self._spans.items()
            for start, end in _subtract(spans, others._spans.get(shift, ()))
        ]


def _subtract(spans: _Spans, others: _Spans | tuple[()]) -> Iterator[tuple[int, int]]:
    """What is left of ``spans``; both are in order."""
    index = 0
    for start, end in spans:
        while index < len(others) and others[index][1] <= start:
            index += 1
        at = index
        while at < len(others) and others[at][0] < end:
            if start < others[at][0]:
                yield start, others[at][0]
            start = others[at][1]
            at += 1
        if start < end:
            yield start, end
