"""A map from addresses to values: ranges that do not overlap, in order."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import Generic, NamedTuple, TypeVar

from gpuvm.errors import CheckFailed

Value = TypeVar("Value")


class Span(NamedTuple, Generic[Value]):
    """``[addr, end)`` has ``value``."""

    addr: int
    end: int
    value: Value


class AddressMap(Generic[Value]):
    """What `put` was told last of each address. A call costs O(log spans), and the spans that it meets."""

    def __init__(self) -> None:
        self._spans: list[Span[Value]] = []

    def __iter__(self) -> Iterator[Span[Value]]:
        return iter(self._spans)

    def __len__(self) -> int:
        return len(self._spans)

    def over(self, addr: int, end: int) -> list[Span[Value]]:
        """The parts of spans that lie in ``[addr, end)``, ascending."""
        first, last = self._meets(addr, end)
        return [Span(max(addr, s.addr), min(end, s.end), s.value) for s in self._spans[first:last]]

    def put(self, addr: int, end: int, value: Value) -> None:
        """All of ``[addr, end)`` has ``value`` from now on. An empty range changes nothing."""
        if addr < end:
            self._replace(addr, end, [Span(addr, end, value)])

    def cut(self, addr: int, end: int) -> list[Span[Value]]:
        """Nothing in ``[addr, end)`` has a value any more; what had one."""
        gone = self.over(addr, end)
        if gone:
            self._replace(addr, end, [])
        return gone

    def _meets(self, addr: int, end: int) -> tuple[int, int]:
        spans = self._spans
        first = bisect_left(spans, (addr,))
        if first and spans[first - 1].end > addr:
            first -= 1
        return first, max(first, bisect_left(spans, (end,)))

    def _replace(self, addr: int, end: int, new: list[Span[Value]]) -> None:
        first, last = self._meets(addr, end)
        old = self._spans[first:last]
        if old and old[0].addr < addr:
            new.insert(0, Span(old[0].addr, addr, old[0].value))
        if old and old[-1].end > end:
            new.append(Span(end, old[-1].end, old[-1].value))
        self._spans[first:last] = new

    def check(self) -> None:
        """Verify it. Raises CheckFailed: an empty span, or two that overlap."""
        last = None
        for span in self._spans:
            if span.addr >= span.end or (last is not None and span.addr < last.end):
                raise CheckFailed(f"AddressMap: {span} after {last}")
            last = span
