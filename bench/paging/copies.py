"""Bytes copied from one place to another; a unit is a kibibyte."""

from __future__ import annotations

import mmap
from random import Random

import numpy as np
from numpy.typing import NDArray

from bench.paging.tables import BASE, page_table
from bench.sampling.contender import Contender, Job
from bench.selfcheck import Disagreement
from gpuvm.mem import Aperture, Extent, Memory
from gpuvm.mmu import AddressSpace

SIZE = 64 << 20
"""Of source and destination."""
UNIT = 1024
DESTINATION = BASE + SIZE


class TranslatedCopies(Contender):
    """`AddressSpace.copy` through gp100 page tables, within VRAM, of which each side has shuffled blocks."""

    def __init__(self, shift: int) -> None:
        self._shift = shift
        self._memory = Memory(Aperture.VRAM, 2 * SIZE, "bench")
        self._tables = page_table(4 << 20)
        self._tables.get(BASE, 2 * SIZE, shift)
        block = 1 << shift
        places = list(range(0, 2 * SIZE, block))
        Random(shift).shuffle(places)
        for number, place in enumerate(places):
            target = Extent(Aperture.VRAM, place, block)
            self._tables.map(BASE + block * number, block, shift, target)
        self._space = AddressSpace(self._tables, {Aperture.VRAM: self._memory})
        self._space.write(BASE, _pattern())

    def jobs(self, units: int) -> list[Job]:
        rounds, copy = units * UNIT // SIZE, self._space.copy
        self._space.fill(DESTINATION, SIZE, b"\0")

        def move() -> None:
            for _ in range(rounds):
                copy(DESTINATION, BASE, SIZE)

        return [move]

    def check(self) -> int:
        return _compare(self, np.frombuffer(self._space.read(DESTINATION, SIZE), np.uint8))


class PlainCopies(Contender):
    """The floor: one copy by NumPy, which is the machine's `memcpy`, within one shared mapping of a file."""

    def __init__(self) -> None:
        self._bytes = np.frombuffer(mmap.mmap(-1, 2 * SIZE), np.uint8)
        self._bytes[:SIZE] = _pattern()

    def jobs(self, units: int) -> list[Job]:
        rounds, source, destination = units * UNIT // SIZE, self._bytes[:SIZE], self._bytes[SIZE:]
        destination.fill(0)

        def move() -> None:
            for _ in range(rounds):
                destination[:] = source

        return [move]

    def check(self) -> int:
        return _compare(self, self._bytes[SIZE:])


def _pattern() -> NDArray[np.uint8]:
    return np.random.default_rng(SIZE).integers(0, 256, SIZE, np.uint8)


def _compare(who: Contender, found: NDArray[np.uint8]) -> int:
    if not np.array_equal(found, _pattern()):
        raise Disagreement(f"{type(who).__name__}: other bytes arrived")
    return SIZE // UNIT
