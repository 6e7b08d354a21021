"""Every inconsistency that can be planted in a device's books is seen by its ``check``."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from gpuvm.errors import CheckFailed
from gpuvm.mem.aperture import Domain
from gpuvm.mem.device import Device
from gpuvm.mem.gem import GemObject
from gpuvm.mem.placement import PAGE
from gpuvm.mem.policy import Clock
from gpuvm.mem.resource import Allocator, Resource, ResourceManager
from placed import make_device, make_object, pin, validate

VRAM, GART, CPU = Domain.VRAM, Domain.GART, Domain.CPU


class Scene:
    """A device with an object in each domain, a pinned one, and instance memory."""

    def __init__(self) -> None:
        self.device: Device = make_device(vram=8, gart=8, system=32 * PAGE, policy=Clock())
        self.vram, self.gart, self.cpu, self.pinned = (
            self.make(domain) for domain in (VRAM, GART, CPU, VRAM)
        )
        pin(self.pinned, VRAM)
        self.device.instance_memory.allocate(PAGE)
        self.residency = self.device._residency
        self.device.check()

    def make(self, domain: Domain) -> GemObject:
        obj = make_object(self.device, 2, domain)
        validate(obj)
        return obj

    def manager(self, domain: Domain) -> ResourceManager:
        return self.residency.managers[domain]

    def allocator(self, domain: Domain) -> Allocator:
        allocator = self.manager(domain).allocator
        assert allocator is not None
        return allocator

    def cpu_resource(self) -> Resource:
        return self.residency._on_cpu[self.cpu.backing]


def exchange(scene: Scene) -> None:
    first, second = scene.vram, scene.pinned
    first.resource, second.resource = second.resource, first.resource


def name(scene: Scene) -> None:
    scene.vram.handle_count, scene.vram.flink_name = 1, 3


PLANTED: dict[str, Callable[[Scene], object]] = {
    "counted pinned": lambda scene: setattr(scene.vram, "pin_count", 1),
    "counted pinned on the CPU's side": lambda scene: setattr(scene.cpu, "pin_count", 1),
    "counted not pinned": lambda scene: setattr(scene.pinned, "pin_count", 0),
    "negative": lambda scene: setattr(scene.vram, "pin_count", -1),
    "swapped out in VRAM": lambda scene: setattr(scene.vram, "swapped", True),
    "swapped out on the CPU's side": lambda scene: setattr(scene.cpu, "swapped", True),
    "no resource": lambda scene: setattr(scene.vram, "resource", None),
    "another's resource": exchange,
    "quota": lambda scene: setattr(scene.residency, "_system_used", 1),
    "not listed": lambda scene: scene.manager(VRAM)._lru[0].clear(),
    "other priority": lambda scene: setattr(scene.vram.resource, "priority", 2),
    "not among the pinned": lambda scene: scene.manager(VRAM)._pinned.clear(),
    "instance memory of nobody": lambda scene: scene.device.instance_memory._allocated.clear(),
    "CPU's side forgotten": lambda scene: scene.residency._on_cpu.clear(),
    "CPU's side of two": lambda scene: scene.residency._on_cpu.update(
        {scene.vram.backing: scene.cpu_resource()}
    ),
    "CPU's side of another": lambda scene: scene.residency._on_cpu.update(
        {scene.vram.backing: scene.residency._on_cpu.pop(scene.cpu.backing)}
    ),
    "arriving where it lies": lambda scene: scene.residency._arriving.update({scene.cpu_resource(): None}),
    "not on the ring": lambda scene: scene.residency.policy.removed(scene.cpu_resource()),
    "not wired": lambda scene: scene.device.vram.unwire(*scene.vram.extents[0][1:]),
    "residue below": lambda scene: os.pwrite(scene.device.vram.fd, b"x", scene.vram.extents[0].addr),
    "free in VRAM": lambda scene: scene.allocator(VRAM).free(*scene.vram.extents[0][1:]),
    "lost in VRAM": lambda scene: scene.allocator(VRAM).alloc(PAGE),
    "free in GART": lambda scene: scene.allocator(GART).free(*scene.gart.extents[0][1:]),
    "lost in GART": lambda scene: scene.allocator(GART).alloc(PAGE),
    "free in the object file": lambda scene: scene.device.object_file.free(
        scene.vram.offset, scene.vram.size
    ),
    "lost in the object file": lambda scene: scene.device.object_file.allocate(PAGE),
    "resource forgotten": lambda scene: scene.manager(GART)._resources.clear(),
    "name of nobody": name,
}


@pytest.mark.parametrize("planted", PLANTED)
def test_it_is_seen(planted: str) -> None:
    scene = Scene()
    PLANTED[planted](scene)
    with pytest.raises(CheckFailed):
        scene.device.check()
