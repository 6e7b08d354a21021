"""MethodCounts: what a channel executed, and what it was asked for in vain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

Sent = Callable[[], list[tuple[int, int]]]
"""Methods, and how often each was sent."""


class MethodCounts:
    """Counters of one channel, which only grow.

    Locking: the channel's thread counts; who reads meanwhile sees some moment of each counter.
    """

    def __init__(self) -> None:
        self.launches = 0
        """Transfers of copy engines and of inline data that were done."""
        self.bytes_copied = 0
        """Written by them from other memory, or from the push."""
        self.bytes_filled = 0
        """Written by them from constants only."""
        self.releases = 0
        """Semaphores written, with or without the time, reduced ones among them."""
        self.acquires = 0
        """Semaphores acquired."""
        self.waits = 0
        """Acquires that had to wait."""
        self.waited = 0
        """ns of ``task.now`` for which they did."""
        self.busy: Final[Counter[str]] = Counter()
        """ns of ``task.now`` in which an engine worked, by its name; without those in which it waited."""
        self._declined: Final[Counter[tuple[int, int]]] = Counter()
        self._engines: Final[list[tuple[int, Sent, frozenset[int]]]] = []

    def watch(self, class_: int, sent: Sent, executed: frozenset[int]) -> None:
        """Count what is sent to a class, of whose methods some are executed."""
        self._engines.append((class_, sent, executed))

    def decline(self, class_: int, method: int) -> None:
        """A method that is executed as a rule asked for something that is not."""
        self._declined[class_, method] += 1

    @property
    def not_executed(self) -> Mapping[tuple[int, int], int]:
        """Times by class and method, in this order. O(methods)."""
        found = Counter(self._declined)
        for class_, sent, executed in self._engines:
            for method, times in sent():
                if method not in executed:
                    found[class_, method] += times
        return dict(sorted(found.items()))
