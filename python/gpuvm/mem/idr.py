"""Idr: small numbers for things (the kernel's ``struct idr``)."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Generic, TypeVar

from gpuvm.errors import CheckFailed
from gpuvm.mem import faults

T = TypeVar("T")


class Idr(Generic[T]):
    """Things by number. A new one gets the lowest from 1 on that is free.

    Locking: changes are the caller's business; ``get`` and iteration over a copy need no lock.

    Args:
        what: a number is for, for the message of an injected fault.

    Attributes:
        entries: the things by number.
    """

    __slots__ = ("_freed", "_next", "_what", "entries")

    def __init__(self, what: str) -> None:
        self._what = what
        self.entries: dict[int, T] = {}
        self._freed: list[int] = []
        """A heap: numbers below ``_next`` that are free."""
        self._next = 1

    def insert(self, thing: T) -> int:
        """Its number. Cost: O(log freed).

        Raises:
            OutOfMemory: a test wants so; nothing was changed.

        Source: ``idr_alloc``.
        """
        faults.may_fail(self._what)
        if self._freed:
            number = heapq.heappop(self._freed)
        else:
            number = self._next
            self._next += 1
        self.entries[number] = thing
        return number

    def get(self, number: int) -> T | None:
        """The thing with that number; None if there is none (``idr_find``)."""
        return self.entries.get(number)

    def remove(self, number: int) -> T | None:
        """Forget the thing with that number, and return it; None if there is none (``idr_remove``)."""
        thing = self.entries.pop(number, None)
        if thing is not None:
            heapq.heappush(self._freed, number)
        return thing

    def items(self) -> list[tuple[int, T]]:
        """Numbers and things, in the order of insertion, as they are now."""
        return list(self.entries.items())

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[int]:
        return iter(list(self.entries))

    def check(self) -> None:
        """Verify that every number below the next is in use or free.

        Raises:
            CheckFailed: with the state.
        """
        if sorted([*self.entries, *self._freed]) != list(range(1, self._next)):
            raise CheckFailed(f"used {list(self.entries)}, free {self._freed}, next {self._next}")
