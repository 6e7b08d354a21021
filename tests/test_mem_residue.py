"""Nobody meets another's bytes: in a new object, in instance memory, in blocks said to be cleared."""

from __future__ import annotations

from random import Random

import pytest

from gpuvm.errors import Busy, NoSpace, OutOfMemory
from gpuvm.mem import faults
from gpuvm.mem.aperture import Domain
from gpuvm.mem.buddy import Buddy
from gpuvm.mem.device import Device
from gpuvm.mem.gem import GemObject
from gpuvm.mem.placement import PAGE, Place
from gpuvm.sync.resv import Resv
from placed import evict, make_device, require_content, validate
from suite import scaled

VRAM, GART, CPU = Domain.VRAM, Domain.GART, Domain.CPU
WINDOWS = (
    None,
    (Place(VRAM, contiguous=True),),
    (Place(VRAM, 2 * PAGE, 6 * PAGE), Place(GART, fallback=True)),
)
USED = 255


class World:
    """Objects full of their own byte, and instance memory full of USED."""

    def __init__(self, seed: int) -> None:
        self.dice = Random(seed)
        self.device: Device = make_device(8, 8, system=self.dice.choice((None, 6 * PAGE, 12 * PAGE)))
        self.objects: list[tuple[GemObject, int]] = []
        self.tables: list[tuple[int, int]] = []
        self.shared = Resv("vm")
        self.steps = (self.create, self.validate, self.evict, self.drop, self.allocate, self.free)

    def step(self) -> None:
        does = self.dice.choices(self.steps, (4, 4, 2, 2, 1, 1))[0]
        failing = self.dice.randrange(12) if self.dice.random() < 0.2 else -1
        try:
            with faults.refuse_allocation(failing):
                does()
        except (Busy, NoSpace, OutOfMemory):
            pass

    def create(self) -> None:
        domains = self.dice.choice((VRAM, GART, VRAM | GART, CPU))
        resv = self.dice.choice((None, self.shared))
        priority, size = self.dice.randrange(4), self.dice.randint(1, 3) * PAGE
        obj = self.device.create(size, domains, resv=resv, priority=priority)
        assert not obj.view.any(), obj
        value = len(self.objects) % 200 + 1
        obj.view[:] = value
        self.objects.append((obj, value))

    def validate(self) -> None:
        if self.objects:
            validate(self.dice.choice(self.objects)[0], self.dice.choice(WINDOWS))

    def evict(self) -> None:
        if self.objects:
            evict(self.dice.choice(self.objects)[0])

    def drop(self) -> None:
        if self.objects:
            self.objects.pop(self.dice.randrange(len(self.objects)))
        self.device.reap()

    def allocate(self) -> None:
        size = self.dice.choice((PAGE, 2 * PAGE))
        addr = self.device.instance_memory.allocate(size)
        assert not self.device.vram.view[addr : addr + size].any()
        self.device.vram.view[addr : addr + size] = USED
        self.tables.append((addr, size))

    def free(self) -> None:
        if self.tables:
            self.device.instance_memory.free(*self.tables.pop())

    def check(self) -> None:
        self.device.check()
        for obj, value in self.objects:
            require_content(obj, obj.view * 0 + value)
        for addr, size in self.tables:
            assert (self.device.vram.view[addr : addr + size] == USED).all()
        self.check_cleared()

    def check_cleared(self) -> None:
        buddy = self.device._residency.managers[VRAM].allocator
        assert isinstance(buddy, Buddy)
        pages = [buddy.alloc(PAGE, clear=True)[0] for _ in range(buddy.cleared_bytes // PAGE)]
        assert not any(self.device.vram.view[addr : addr + size].any() for addr, size in pages)
        for addr, size in pages:
            buddy.free(addr, size, cleared=True)


@pytest.mark.parametrize("seed", range(scaled(8, 400)))
def test_nobody_meets_the_bytes_of_another(seed: int) -> None:
    world = World(seed)
    for _ in range(60):
        world.step()
        world.check()
