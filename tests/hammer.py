"""What could kill a process, to be run in one of its own: `python tests/hammer.py SCENARIO`."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from threading import Thread

import numpy as np
from numpy.typing import NDArray

from gpuvm.mem import Extent
from gpuvm.mmu.formats.format import PteFlags
from gpuvm.mmu.pages import Pages, cut_pages, split_into_pages
from host_world import K4, K64, M2, START, VRAM, World

VECTORS = {
    "one-partial": (4, 1, (1, 3)),
    "either-side-partial": (4, 2, (1, 3)),
    "either-side-partial-hammer": (6, 2, (2, 4)),
    "either-side-full": (4, 4, (1, 3)),
    "end": (4, 2, (0, 3)),
    "front": (4, 2, (1, 4)),
    "many-either-side-partial": (32, 16, (1, 31)),
}
"""IGT's munmap-style unbinds (`tests/intel/xe_vm.c`): units in the object, mappings of it, units unbound."""

UNITS = (M2 // 4, K64, K4)


class Mappings:
    """An object of contiguous memory, mapped as several mappings of equal length."""

    def __init__(self, world: World, units: int, mappings: int, unit: int) -> None:
        self.backend = world.backend
        length = units * unit // mappings
        self.mappings = [
            split_into_pages(
                self.backend.pages, START + first, length, [Extent(VRAM, 0, units * unit)], first
            )
            for first in range(0, units * unit, length)
        ]
        for pages in self.mappings:
            self.map(pages)

    def map(self, pages: list[Pages]) -> None:
        for run in pages:
            self.backend.get(run.addr, run.range, run.shift)
            self.backend.map(*run)

    def unmap(self, pages: list[Pages]) -> None:
        for run in pages:
            self.backend.unmap(run.addr, run.range, run.shift)
            self.backend.put(run.addr, run.range, run.shift)

    def unbind(self, start: int, end: int, *, blink: bool = False) -> None:
        """Cut the range out of each mapping, and map all again as it was."""
        for pages in self.mappings:
            cut = cut_pages(self.backend.pages, pages, START + start, end - start)
            if blink:
                self.unmap(cut.gone)
                self.map(cut.added)
            else:
                self.map(cut.added)
                self.unmap(cut.gone)
            self.map(cut.gone)
            self.unmap(cut.added)

    def close(self) -> None:
        for pages in self.mappings:
            self.unmap(pages)


class Observer:
    """A thread that reads the same bytes all the time."""

    def __init__(self, untouched: NDArray[np.uint8]) -> None:
        self.untouched = untouched
        self.expected = int(untouched.sum())
        self.reads = 0
        self.over = False
        self.thread = Thread(target=self._observe)
        self.thread.start()

    def _observe(self) -> None:
        while not self.over:
            assert int(self.untouched.sum()) == self.expected
            self.reads += 1

    def stop(self) -> None:
        self.over = True
        self.thread.join()


def hammer(reads: int, *, blink: bool = False) -> None:
    """Unbind and bind again while the bytes on both sides are read."""
    for unit in UNITS:
        for name, (units, mappings, (start, end)) in VECTORS.items():
            if units * unit > 4 * M2:
                continue
            world = World()
            mapped = Mappings(world, units, mappings, unit)
            sides = (world.array[: start * unit], world.array[end * unit : units * unit])
            observers = [Observer(side) for side in sides if len(side)]
            while min(observer.reads for observer in observers) < reads:
                mapped.unbind(start * unit, end * unit, blink=blink)
            for observer in observers:
                observer.stop()
            world.check()
            mapped.close()
            world.backend.close()
            print(name, unit, "read", min(observer.reads for observer in observers), "times")


def touch(flags: PteFlags, write: bool) -> None:
    world = World()
    world.backend.get(START, M2, 21)
    world.backend.map(START, M2, 21, Extent(VRAM, 0, M2), 0, flags)
    print("mapped", world.array[0] if not flags & PteFlags.PRIVILEGED else "", flush=True)
    if write:
        world.array[0] = 1
    else:
        int(world.array[0])


def read_hole() -> None:
    world = World()
    world.map(START, M2, 21)
    world.unmap(START, M2, 21)
    print("mapped", flush=True)
    int(world.array[0])


SCENARIOS: dict[str, Callable[[], None]] = {
    "hammer": lambda: hammer(int(sys.argv[2])),
    "blink": lambda: hammer(int(sys.argv[2]), blink=True),
    "hole": read_hole,
    "read": lambda: touch(PteFlags.READ_ONLY, write=False),
    "write-read-only": lambda: touch(PteFlags.READ_ONLY, write=True),
    "read-privileged": lambda: touch(PteFlags.PRIVILEGED, write=False),
}

if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    SCENARIOS[sys.argv[1]]()
    print("alive")
