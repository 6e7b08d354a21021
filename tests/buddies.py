"""What a buddy allocator may do, page by page: a dict of the free pages and whether each is zero."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from gpuvm.mem.buddy import Buddy

PAGE = 4096

Run = tuple[int, int]


def pages_of(run: Run) -> range:
    addr, size = run
    return range(addr // PAGE, (addr + size) // PAGE)


def state(buddy: Buddy) -> tuple[object, ...]:
    """What a refused call leaves as it was."""
    numbers = buddy.statistics()
    return numbers.free_lists, numbers.cleared_bytes, numbers.allocated_blocks


def free_sizes(buddy: Buddy) -> list[int]:
    """Size of every free block in pages, smallest first."""
    lists = buddy.statistics().free_lists
    return [entry.size // PAGE for entry in lists for _ in range(entry.dirty + entry.cleared)]


def roots(pages: int) -> list[int]:
    """Sizes of the blocks that untouched memory consists of, smallest first."""
    return [1 << bit for bit in range(pages.bit_length()) if pages >> bit & 1]


@dataclass(frozen=True)
class Request:
    """An allocation, in pages."""

    size: int
    unit: int = 1
    first: int = 0
    last: int | None = None
    contiguous: bool = False
    clear: bool = False
    top_down: bool = False

    def of(self, buddy: Buddy) -> list[Run]:
        return buddy.alloc(
            self.size * PAGE,
            min_block=self.unit * PAGE,
            first=self.first * PAGE,
            last=None if self.last is None else self.last * PAGE,
            contiguous=self.contiguous,
            clear=self.clear,
            top_down=self.top_down,
        )


class PageModel:
    """The free pages of an allocator."""

    def __init__(self, pages: int) -> None:
        self.pages = pages
        self.free = dict.fromkeys(range(pages), False)
        self.live: list[Run] = []

    def rooms(self, request: Request) -> tuple[int, int]:
        """Multiples of the unit where a whole unit is free, and those where the whole request is."""
        last = self.pages if request.last is None else request.last
        allowed = {page for page in self.free if request.first <= page < last}
        starts = range(0, self.pages, request.unit)
        units = sum(allowed.issuperset(range(start, start + request.unit)) for start in starts)
        runs = sum(allowed.issuperset(range(start, start + request.size)) for start in starts)
        return units, runs

    def must_fit(self, request: Request) -> bool:
        units, runs = self.rooms(request)
        if request.contiguous or request.size < request.unit:
            return runs > 0
        return units >= -(-request.size // request.unit)

    def can_fit(self, request: Request) -> bool:
        units, runs = self.rooms(request)
        if request.contiguous or request.size < request.unit:
            return runs > 0
        return units >= request.size // request.unit

    def allocated(self, request: Request, buddy: Buddy, runs: list[Run]) -> None:
        """Look at what came of a request, and note it."""
        assert self.can_fit(request)
        assert sum(size for _, size in runs) == request.size * PAGE
        if request.contiguous:
            assert len(runs) == 1
        last = self.pages if request.last is None else request.last
        offset = 0
        for run in runs:
            pages = pages_of(run)
            assert request.first <= pages.start < pages.stop <= last
            assert pages.start % request.unit == 0
            assert offset % request.unit == 0
            offset += len(pages)
            dirty = self.dirty(buddy, run)
            for page in pages:
                assert self.free.pop(page) or page in dirty, f"page {page} is said to be zero"
        assert all(sum(run) != after[0] for run, after in pairwise(runs)), "two runs are one"
        self.live += runs

    def freed(self, run: Run, zero: bool) -> None:
        self.free.update(dict.fromkeys(pages_of(run), zero))

    @staticmethod
    def dirty(buddy: Buddy, run: Run) -> set[int]:
        return {page for part in buddy.dirty(*run) for page in pages_of(part)}

    def check(self, buddy: Buddy) -> None:
        buddy.check()
        assert buddy.free_bytes == len(self.free) * PAGE
        assert buddy.cleared_bytes <= sum(self.free.values()) * PAGE, "more is said to be zero than is"


def filled(pages: int) -> Buddy:
    """An allocator whose pages are all allocated, each as a block of its own."""
    buddy = Buddy(pages * PAGE)
    for _ in range(pages):
        buddy.alloc(PAGE)
    return buddy


def with_free(pages: int, free: Iterable[int], cleared: Iterable[int] = ()) -> Buddy:
    """An allocator with just these pages free, dirty or cleared."""
    buddy, cleared = filled(pages), set(cleared)
    for page in sorted(cleared.union(free)):
        buddy.free(page * PAGE, PAGE, page in cleared)
    return buddy
