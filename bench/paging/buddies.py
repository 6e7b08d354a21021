"""Blocks of many sizes allocated and freed; a unit is one of the two."""

from __future__ import annotations

from random import Random

from bench.paging.python_buddy import PythonBuddy
from bench.sampling.contender import Contender, Job
from bench.selfcheck import Disagreement
from gpuvm.mem import Buddy

SIZE = 1 << 33
BLOCK = 4096
LIVE = 4096
"""Blocks in use all the time."""
ORDERS = (0, 0, 0, 1, 2, 4, 4, 4, 5, 8, 9)


def _sizes(count: int) -> list[int]:
    dice = Random(count)
    return [BLOCK << dice.choice(ORDERS) for _ in range(count)]


class CoreBuddies(Contender):
    """`Buddy`: with windows, alignment and what is cleared, none of it asked for."""

    def __init__(self) -> None:
        self._buddy = Buddy(SIZE, BLOCK)
        self._live = [self._buddy.alloc(size)[0] for size in _sizes(LIVE)]
        self._done = 0

    def jobs(self, units: int) -> list[Job]:
        sizes, live, buddy = _sizes(units // 2), self._live, self._buddy
        places = Random(units).choices(range(LIVE), k=len(sizes))
        self._done = 2 * len(sizes)

        def churn() -> None:
            for size, place in zip(sizes, places, strict=True):
                buddy.free(*live[place])
                (live[place],) = buddy.alloc(size)

        return [churn]

    def check(self) -> int:
        self._buddy.check()
        if sum(size for _, size in self._live) != SIZE - self._buddy.free_bytes:
            raise Disagreement("CoreBuddies: blocks were lost")
        return self._done


class PythonBuddies(Contender):
    """The allocator in Python: powers of two, and nothing but alloc and free."""

    def __init__(self) -> None:
        self._buddy = PythonBuddy(SIZE, BLOCK)
        self._live = [self._buddy.alloc(size) for size in _sizes(LIVE)]
        self._done = 0

    def jobs(self, units: int) -> list[Job]:
        sizes, live, buddy = _sizes(units // 2), self._live, self._buddy
        places = Random(units).choices(range(LIVE), k=len(sizes))
        self._done = 2 * len(sizes)

        def churn() -> None:
            for size, place in zip(sizes, places, strict=True):
                buddy.free(live[place])
                live[place] = buddy.alloc(size)

        return [churn]

    def check(self) -> int:
        if len(set(self._live)) != LIVE:
            raise Disagreement("PythonBuddies: a block was given out twice")
        return self._done
