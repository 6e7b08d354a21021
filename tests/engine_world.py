"""A channel's engines over scattered pages, sparse ones, a hole; and a slow model of the bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from random import Random
from typing import NamedTuple

import numpy as np
import pytest

from gpuvm.mem import Aperture, Domain
from gpuvm.mmu.access import AddressSpace
from gpuvm.nouveau.bind import BindOp
from gpuvm.nouveau.engine import TURING, Classes, EngineFault, Processor, SemaphoreWaits
from pushbuf import COPY, Push
from uvmm_world import MIB, PAGE, World, map_op, map_sparse, unmap_op

A = 1 << 38
MAPPED = 64 * PAGE
"""Bytes from A on, on pages of two objects in no order."""
SPARSE = 32 * PAGE
"""Bytes behind those."""
END = A + MAPPED + SPARSE
"""Behind which nothing is."""
PUSH = 1 << 37

BEHIND = A + MAPPED
"""The first sparse address."""


class EngineWorld:
    """One channel. ``model`` has the bytes from A on as they should be."""

    def __init__(self, classes: Classes = TURING) -> None:
        self.world = World(vram=4 * MIB, gart=4 * MIB)
        self.vm = self.world.space()
        device = self.world.device
        self.objects = [device.create(MAPPED, domain) for domain in (Domain.VRAM, Domain.GART)]
        self.pushes = device.create(MIB, Domain.GART)
        self.vm.bind([map_sparse(A, MAPPED + SPARSE), map_op(PUSH, MIB, self.pushes)])
        pages = [(bo, page * PAGE) for page in range(MAPPED // PAGE // 2) for bo in self.objects]
        Random(5).shuffle(pages)
        self.places = pages
        self.vm.bind(self.same_pages(A))
        self.space = AddressSpace(
            self.vm.backend,
            {each: device.memory(each) for each in (Aperture.VRAM, Aperture.SYSTEM_COHERENT)},
        )
        self.waits = SemaphoreWaits()
        self.time = 1000
        self.channel = self.processor(classes)
        self.model = bytearray(MAPPED + SPARSE)

    def processor(self, classes: Classes = TURING, name: str = "channel") -> Processor:
        return Processor(self.space, classes, clock=lambda: self.time, semaphores=self.waits, name=name)

    def same_pages(self, addr: int) -> list[BindOp]:
        """What shows the pages at A at other addresses, too."""
        return [map_op(addr + place * PAGE, PAGE, *page) for place, page in enumerate(self.places)]

    def run(self, push: Push, channel: Processor | None = None, at: int = PUSH) -> None:
        """Execute a push."""
        if push.words:
            self.space.write(at, bytes(push))
        (channel or self.channel).execute(at, len(push))

    def fault(self, push: Push) -> EngineFault:
        """That which the push ends with; memory is as it was."""
        try:
            self.run(push)
        except EngineFault as fault:
            self.compare()
            self.channel.check()
            return fault
        raise AssertionError("no fault")

    def scramble(self, seed: int) -> None:
        """Other bytes everywhere."""
        data = np.random.default_rng(seed).integers(0, 256, MAPPED, np.uint8).tobytes()
        self.space.write(A, data)
        self.model[:] = data + bytes(SPARSE)

    def read(self, addr: int, size: int) -> bytes:
        """Of the model."""
        return bytes(self.model[addr - A : addr - A + size])

    def write(self, addr: int, data: bytes) -> None:
        """To the model; what is sparse stays zero."""
        self.model[addr - A : addr - A + len(data)] = data
        self.model[MAPPED:] = bytes(SPARSE)

    def compare(self) -> None:
        """The memory is what the model says."""
        found = self.space.read(A, MAPPED + SPARSE)
        if found != bytes(self.model):
            place = next(at for at, byte in enumerate(found) if byte != self.model[at])
            raise AssertionError(f"at A + {place:#x}: {found[place]:#x}, not {self.model[place]:#x}")

    def number(self, addr: int, size: int = 4) -> int:
        return int.from_bytes(self.space.read(addr, size), "little")

    def unmap(self, addr: int, range_: int) -> None:
        """Show what is sparse below."""
        self.vm.bind([unmap_op(addr, range_)])

    def close(self) -> None:
        self.channel.check()
        self.waits.check()
        self.world.check()
        self.world.close()


@contextmanager
def engine_world(classes: Classes = TURING) -> Iterator[EngineWorld]:
    made = EngineWorld(classes)
    yield made
    made.close()


def shared_world(classes: Classes = TURING) -> tuple[Callable[[], EngineWorld], object]:
    """For a module whose tests use one world: what gives it, and the fixture that takes it down."""

    @cache
    def world() -> EngineWorld:
        return EngineWorld(classes)

    @pytest.fixture(scope="module", autouse=True)
    def end() -> Iterator[None]:
        yield
        world().close()
        world.cache_clear()

    return world, end


class Layout(NamedTuple):
    """A block-linear surface: where it is, its size in elements and lines, its blocks."""

    addr: int
    width: int
    height: int
    depth: int
    gobs_high: int
    gobs_deep: int
    element: int = 1

    @property
    def rows(self) -> tuple[int, int, int]:
        """How many blocks there are beside, below and behind each other."""
        high, deep = 8 << self.gobs_high, 1 << self.gobs_deep
        return (
            -(-self.width * self.element // 64),
            -(-self.height // high),
            -(-self.depth // deep),
        )

    @property
    def size(self) -> int:
        columns, rows, layers = self.rows
        return columns * rows * layers * (512 << self.gobs_high << self.gobs_deep)

    def byte(self, x: int, y: int, z: int) -> int:
        """Where byte x of line y of layer z is: slowly, in words of NIL's tables."""
        columns, rows, _ = self.rows
        high, deep = 1 << self.gobs_high, 1 << self.gobs_deep
        gob_x, gob_y = x // 64, y // 8
        block = (z // deep * rows + gob_y // high) * columns + gob_x
        gob = block * high * deep + z % deep * high + gob_y % high
        sector = SECTORS[y % 8 // 2][x % 64 // 16]
        return self.addr + gob * 512 + sector * 32 + y % 2 * 16 + x % 16

    def methods(self, push: Push, first: int, layer: int) -> None:
        """SET_BLOCK_SIZE and the four methods behind it."""
        block = 1 << 12 | self.gobs_deep << 8 | self.gobs_high << 4
        push.inc(COPY, first, block, self.width, self.height, self.depth, layer)


SECTORS = [[0, 2, 8, 10], [1, 3, 9, 11], [4, 6, 12, 14], [5, 7, 13, 15]]
"""Sectors of 16 bytes by two lines in a GOB of Turing (Mesa's NIL, ``tiling.rs``)."""


class Rectangle:
    """One side of a launch, byte by byte: ``byte(n, line)`` is the address of byte n of a line."""

    def __init__(self, byte: Callable[[int, int], int]) -> None:
        self.byte = byte

    def line(self, world: EngineWorld, line: int, length: int) -> bytes:
        return b"".join(world.read(self.byte(n, line), 1) for n in range(length))

    def put(self, world: EngineWorld, line: int, data: Iterable[int | None]) -> None:
        """Write bytes; None: one that stays."""
        for n, value in enumerate(data):
            at = self.byte(n, line) - A
            if value is not None and at < MAPPED:
                world.model[at] = value


def by_pitch(addr: int, pitch: int) -> Rectangle:
    return Rectangle(lambda n, line: addr + line * pitch + n)


def in_blocks(layout: Layout, x: int, y: int, z: int) -> Rectangle:
    return Rectangle(lambda n, line: layout.byte(x * layout.element + n, y + line, z))
