"""PageAllocator: who has which pages of system memory within the GPU's reach (the GART)."""

from bisect import bisect_left, bisect_right, insort
from dataclasses import dataclass

from gpuvm.errors import CheckFailed, InvalidArgument, NoSpace

_Hole = tuple[int, int]
"""(length, address): sorted, the smallest comes first, of equals the lowest."""


@dataclass(frozen=True, slots=True)
class PageStatistics:
    """A snapshot of one allocator. Sizes are bytes."""

    size: int
    page: int
    free_bytes: int
    holes: int
    """Runs of free pages."""
    largest_hole: int

    @property
    def fragmentation(self) -> float:
        """1 - largest hole / free bytes, 0 when all that is free is one hole."""
        return 1 - self.largest_hole / self.free_bytes if self.free_bytes else 0.0


class PageAllocator:
    """Pages of ``[0, size)``, in as few runs as possible, scattered if they must be.

    It knows only the holes: by address, to merge what is freed, and by length, to find what fits. Pages have
    no clear state, since an object brings its own. Addresses and sizes are bytes.

    Locking: the caller's; two threads may not be in one allocator at a time.

    Args:
        size: bytes, a multiple of ``page``.
        page: what memory is handed out in; a power of two.

    Raises:
        InvalidArgument: anything else.

    Source: ``ttm_pool_alloc`` for the pages, ``drm_mm`` for their addresses.
    """

    def __init__(self, size: int, page: int = 4096) -> None:
        if page < 1 or page & (page - 1):
            raise InvalidArgument(f"PageAllocator: pages of {page} bytes; pass a power of two", page)
        if size < 1 or size % page:
            raise InvalidArgument(
                f"PageAllocator: size {size:#x} is not a multiple of the page, {page:#x}, or is 0", size, page
            )
        self.size = size
        self.page = page
        self.free_bytes = size
        """Bytes that are free."""
        self._starts = [0]
        self._ends = [size]
        self._by_length: list[_Hole] = [(size, 0)]

    def alloc(
        self,
        size: int,
        *,
        min_block: int | None = None,
        first: int = 0,
        last: int | None = None,
        contiguous: bool = False,
        clear: bool = False,
        top_down: bool = False,
    ) -> list[tuple[int, int]]:
        """Allocate ``size`` bytes, whole or nothing: runs (addr, size).

        One run, in the smallest hole that is large enough, if there is one; else the largest holes are used
        up. O(log holes) a run, and moving the lists' ends; O(holes) in a window or with ``min_block``.

        Args:
            size: a multiple of the page.
            min_block: runs begin at multiples of it, and but for the last are multiples of it; a power of
                two. Default: the page.
            first: lowest address allowed.
            last: address behind the highest allowed; default: the allocator's size.
            contiguous: one run.
            clear: means nothing here; as ``Buddy`` takes it.
            top_down: from the upper end of a hole.

        Raises:
            InvalidArgument: not multiples of the page, an empty window or one that leaves the memory.
            NoSpace: there is no such room now. Nothing was changed.
        """
        min_block = self.page if min_block is None else min_block
        last = self.size if last is None else last
        self._check_request(size, min_block, first, last)
        whole = (first, last, min_block) == (0, self.size, self.page)
        holes = self._by_length if whole else self._holes_within(first, last, min_block)
        runs = _choose(holes, size, min_block, contiguous, top_down)
        if runs is None:
            largest = holes[-1][0] if holes else 0
            raise NoSpace(
                f"alloc: no room for {size:#x} bytes{' in a row' if contiguous else ''} at multiples of"
                f" {min_block:#x} in [{first:#x}, {last:#x}); {self.free_bytes:#x} bytes are free, the"
                f" largest hole there has {largest:#x}; free something",
                size,
                self.free_bytes,
            )
        for addr, length in runs:
            self._take(addr, addr + length)
        return runs

    def free(self, addr: int, size: int, cleared: bool = False) -> None:
        """Free allocated pages, all that ``alloc`` gave or some. O(log holes), and moving the lists' ends.

        ``cleared`` means nothing here; as ``Buddy`` takes it.

        Raises:
            InvalidArgument: not whole pages, or some are not allocated; nothing was freed.
        """
        end = addr + size
        if not 0 <= addr < end <= self.size or (addr | end) % self.page:
            raise InvalidArgument(
                f"free: [{addr:#x}, +{size:#x}) is empty, leaves [0, {self.size:#x}) or is not made of pages"
                f" of {self.page:#x}",
                (addr, size),
                (0, self.size),
            )
        index = bisect_right(self._starts, addr)
        below = self._ends[index - 1] if index else -1
        above = self._starts[index] if index < len(self._starts) else self.size + 1
        if below > addr or above < end:
            raise InvalidArgument(
                f"free: pages of [{addr:#x}, +{size:#x}) are free already; pass what alloc gave, once",
                (addr, size),
            )
        low, high = index - (below == addr), index + (above == end)
        start = self._starts[low] if low < index else addr
        end = self._ends[index] if high > index else end
        self.free_bytes += size
        self._replace(low, high, [(start, end)])

    def check(self) -> None:
        """Test every invariant; CheckFailed says which one is broken. O(holes)."""
        holes = list(zip(self._starts, self._ends, strict=True))
        edges = [edge for hole in holes for edge in hole]
        inside = all(0 <= edge <= self.size and not edge % self.page for edge in edges)
        if edges != sorted(set(edges)) or not inside:
            raise CheckFailed(f"{self!r}: holes overlap, touch, leave the memory or cut pages\n{holes}")
        if self._by_length != sorted((end - start, start) for start, end in holes):
            raise CheckFailed(f"{self!r}: the holes by length are others\n{holes}\n{self._by_length}")
        if self.free_bytes != sum(length for length, _ in self._by_length):
            raise CheckFailed(f"{self!r}: the holes have another sum\n{holes}")

    def statistics(self) -> PageStatistics:
        """Counts and sizes, of now. O(1)."""
        largest = self._by_length[-1][0] if self._by_length else 0
        return PageStatistics(self.size, self.page, self.free_bytes, len(self._starts), largest)

    def __repr__(self) -> str:
        return f"<PageAllocator {self.size:#x} bytes, {self.free_bytes:#x} free>"

    def _check_request(self, size: int, min_block: int, first: int, last: int) -> None:
        if size < 1 or size % self.page:
            raise InvalidArgument(
                f"alloc: size {size:#x} is 0 or not a multiple of the page, {self.page:#x}", size, self.page
            )
        if min_block < self.page or min_block & (min_block - 1):
            raise InvalidArgument(
                f"alloc: min_block {min_block:#x}; pass a power of two from {self.page:#x} on",
                min_block,
                self.page,
            )
        if not 0 <= first < last <= self.size or (first | last) % self.page:
            raise InvalidArgument(
                f"alloc: the window [{first:#x}, {last:#x}) is empty, leaves [0, {self.size:#x}) or is not"
                f" made of pages of {self.page:#x}",
                (first, last),
                (0, self.size),
            )

    def _holes_within(self, first: int, last: int, align: int) -> list[_Hole]:
        """The holes' parts inside a window that begin at multiples of ``align``, sorted."""
        low = bisect_right(self._ends, first)
        high = bisect_left(self._starts, last)
        parts = (
            (min(end, last), -(-max(start, first) // align) * align)
            for start, end in zip(self._starts[low:high], self._ends[low:high], strict=True)
        )
        return sorted((end - start, start) for end, start in parts if start < end)

    def _take(self, start: int, end: int) -> None:
        """Cut ``[start, end)`` out of the hole that it lies in."""
        index = bisect_right(self._starts, start) - 1
        below, above = (self._starts[index], start), (end, self._ends[index])
        self.free_bytes -= end - start
        self._replace(index, index + 1, [hole for hole in (below, above) if hole[0] < hole[1]])

    def _replace(self, low: int, high: int, holes: list[tuple[int, int]]) -> None:
        """Put ``holes``, as (start, end), where the holes from ``low`` up to ``high`` were."""
        for start, end in zip(self._starts[low:high], self._ends[low:high], strict=True):
            del self._by_length[bisect_left(self._by_length, (end - start, start))]
        for start, end in holes:
            insort(self._by_length, (end - start, start))
        self._starts[low:high] = [start for start, _ in holes]
        self._ends[low:high] = [end for _, end in holes]


def _choose(
    holes: list[_Hole], size: int, min_block: int, contiguous: bool, top_down: bool
) -> list[tuple[int, int]] | None:
    """The fewest runs that do: the largest holes, and for what is left the smallest that is large enough."""
    runs: list[tuple[int, int]] = []
    for index in reversed(range(len(holes))):
        fitting = bisect_left(holes, (size, 0), 0, index + 1)
        if fitting <= index:
            length, start = holes[fitting]
            above = (length - size) // min_block * min_block if top_down else 0
            return [*runs, (start + above, size)]
        length, start = holes[index]
        whole = length - length % min_block
        if contiguous or not whole:
            return None
        runs.append((start, whole))
        size -= whole
    return None
