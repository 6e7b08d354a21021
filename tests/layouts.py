"""Address spaces to test in: ordinary, tiny, uneven, and at both ends of 64 bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import gpuvm
from gpuvm import GpuVmFlags, Merge, Regions
from page_model import Grid, PageModel

TOP = (1 << 64) - 1
"""The highest possible end of a space: addresses and ends are u64."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Cells of a space; `kernel` and `regions` are half-open intervals of cells."""

    name: str
    edges: tuple[int, ...]
    kernel: tuple[int, int] | None = None
    regions: tuple[tuple[int, int], ...] = ()

    @property
    def grid(self) -> Grid:
        return Grid(self.edges)

    def space(
        self,
        merge: Merge = Merge.NEVER,
        regions: Regions = Regions.OFF,
        flags: GpuVmFlags = GpuVmFlags(0),  # noqa: B008 (immutable)
    ) -> gpuvm.GpuvaManager:
        start, size = self.grid.bytes(0, len(self.grid))
        kernel = None if self.kernel is None else self.grid.bytes(*self.kernel)
        vm = gpuvm.GpuvaManager(
            self.name,
            start=start,
            range=size,
            kernel_node=kernel,
            merge=merge,
            regions=regions,
            flags=flags,
        )
        if regions is not Regions.OFF:
            for region in self.regions:
                vm.region_insert(*self.grid.bytes(*region), sparse=True)
        return vm

    def model(self, merge: Merge = Merge.NEVER, regions: Regions = Regions.OFF) -> PageModel:
        kernel = frozenset() if self.kernel is None else frozenset(range(*self.kernel))
        spans = [] if regions is Regions.OFF else [frozenset(range(*region)) for region in self.regions]
        return PageModel(self.grid, merge, regions, kernel, spans)


def even(start: int, unit: int, count: int) -> tuple[int, ...]:
    return tuple(start + unit * index for index in range(count + 1))


def uneven(start: int, sizes: Sequence[int]) -> tuple[int, ...]:
    return tuple(accumulate(sizes, initial=start))


_PAGE = 4096
_MIXED = (1, 1, _PAGE - 2, _PAGE, 15 * _PAGE, 1 << 16, 1 << 21, 1 << 30, 1 << 40, 1 << 46)

LAYOUTS = (
    Layout("bytes at zero", even(0, 1, 40), regions=((0, 12), (12, 20), (28, 40))),
    Layout("kernel at the bottom", even(0, _PAGE, 36), kernel=(0, 5), regions=((6, 20), (24, 36))),
    Layout(
        "kernel in the middle", even(_PAGE, _PAGE, 40), kernel=(17, 21), regions=((0, 9), (9, 17), (22, 38))
    ),
    Layout("uneven below 2^47", uneven(0, (*_MIXED, *_MIXED[::-1])), regions=((0, 6), (6, 11), (13, 20))),
    Layout("bytes at the top", even(TOP - 36, 1, 36), regions=((0, 14), (14, 22), (30, 36))),
    Layout(
        "pages at the top", even(TOP - 40 * _PAGE, _PAGE, 40), kernel=(36, 40), regions=((2, 20), (20, 34))
    ),
    Layout(
        "all 64 bits",
        (0, 1, 2, _PAGE, 1 << 32, 1 << 47, 1 << 62, 1 << 63, 3 << 62, TOP - _PAGE, TOP - 1, TOP),
    ),
)

LARGE = Layout(
    "many leaves",
    even(1 << 40, _PAGE, 4000),
    kernel=(1900, 1950),
    regions=((0, 1500), (1500, 1800), (2100, 4000)),
)
