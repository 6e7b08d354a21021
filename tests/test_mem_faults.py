"""Every allocation fails in turn, in every operation: nothing is half done, and the next try succeeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from gpuvm import Exec
from gpuvm.errors import OutOfMemory
from gpuvm.mem import faults
from gpuvm.mem.aperture import Domain
from gpuvm.mem.device import Device
from gpuvm.mem.gem import GemObject
from gpuvm.mem.memory import Memory
from gpuvm.mem.placement import PAGE, placement_of
from gpuvm.sync.resv import refuse_reservation
from placed import evict, make_device, make_object, pin, require_content, validate

VRAM, GART, CPU = Domain.VRAM, Domain.GART, Domain.CPU


@dataclass
class Scene:
    """A device with 8 pages of VRAM, all taken by two objects, and a third that lies in GART."""

    device: Device
    objects: list[GemObject]
    made: list[object] = field(default_factory=list)

    @classmethod
    def set_up(cls) -> Scene:
        device = make_device(vram=8, gart=8, system=8 * PAGE)
        objects = [make_object(device, 4, name=f"bo{number}") for number in range(3)]
        for obj in objects:
            validate(obj)
        return cls(device, objects)

    def state(self) -> object:
        """All that a failed operation must not change, if it evicted nobody."""
        statistics = self.device.statistics()
        objects = [(obj.resource, obj.pin_count, obj.swapped) for obj in self.objects]
        return objects, statistics.managers, statistics.system_used, statistics.instance_memory

    def check(self) -> None:
        self.device.check()
        for obj in self.objects:
            require_content(obj)


def create(scene: Scene) -> None:
    scene.made.append(scene.device.create(PAGE))


def place(scene: Scene) -> None:
    scene.objects.append(make_object(scene.device, 2, GART))
    validate(scene.objects[-1])


def bring_back(scene: Scene) -> None:
    assert validate(scene.objects[0])


def bring_back_as_submission(scene: Scene) -> None:
    with Exec() as exec:
        for attempt in exec.until_all_locked():
            with attempt:
                exec.prepare_obj(scene.objects[0], 1)
                scene.device.validate(scene.objects[0], exec=exec)


def move_to_gart(scene: Scene) -> None:
    validate(scene.objects[1], placement_of(GART))


def move_to_cpu(scene: Scene) -> None:
    assert validate(scene.objects[1], placement_of(CPU))


def evict_from_vram(scene: Scene) -> None:
    evict(scene.objects[1])


def evict_from_gart(scene: Scene) -> None:
    evict(scene.objects[0])


def evict_all(scene: Scene) -> None:
    scene.device.evict_all(VRAM)


def swap_out(scene: Scene) -> None:
    for obj in scene.objects:
        validate(obj, placement_of(CPU))


def swap_in(scene: Scene) -> None:
    scene.objects[0].device.evict_all(GART)
    for obj in scene.objects[1:]:
        validate(obj, placement_of(CPU))
    validate(scene.objects[0])


def pin_there(scene: Scene) -> None:
    pin(scene.objects[0], VRAM)


def instance_memory(scene: Scene) -> None:
    scene.made.append(scene.device.instance_memory.allocate(2 * PAGE))


OPERATIONS = [
    create,
    place,
    bring_back,
    bring_back_as_submission,
    move_to_gart,
    move_to_cpu,
    evict_from_vram,
    evict_from_gart,
    evict_all,
    swap_out,
    swap_in,
    pin_there,
    instance_memory,
]
each_operation = pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
Operation = Callable[[Scene], None]


@each_operation
def test_each_allocation(operation: Operation) -> None:
    scene = Scene.set_up()
    with faults.count_allocations() as allocations:
        operation(scene)
    scene.check()
    assert allocations or operation is evict_from_gart
    for number, what in enumerate(allocations):
        scene = Scene.set_up()
        before, evictions = scene.state(), scene.device.statistics().evictions
        with faults.refuse_allocation(number), pytest.raises(OutOfMemory, match=what):
            operation(scene)
        scene.check()
        statistics = scene.device.statistics()
        if not statistics.evictions - evictions and not statistics.swapped_out:
            assert scene.state() == before or operation in (swap_in, swap_out, place), what
        operation(scene)
        scene.check()


@each_operation
def test_each_reservation_of_slots(operation: Operation) -> None:
    number = 0
    while True:
        scene = Scene.set_up()
        try:
            with refuse_reservation(number):
                operation(scene)
        except OutOfMemory:
            scene.check()
            operation(scene)
            scene.check()
        else:
            break
        number += 1
    assert number or operation in (create,)


class TestNoMemoryForTheCopy:
    """The copy that a move leaves behind is for stale readers only."""

    def test_does_not_stop_the_move(self, monkeypatch: pytest.MonkeyPatch) -> None:
        scene = Scene.set_up()
        obj = scene.objects[1]
        (aperture, addr, range_), *_ = obj.extents

        def refuse(*_: object) -> None:
            raise OutOfMemory("no memory for the copy")

        monkeypatch.setattr(Memory, "_copy", refuse)
        evict(obj)
        assert not scene.device.memory(aperture).view[addr : addr + range_].any()
        scene.check()


def test_counting_and_refusing_agree() -> None:
    with faults.count_allocations() as allocations:
        for _ in range(3):
            faults.may_fail("something")
    assert allocations == ["something"] * 3
    with faults.refuse_allocation(1):
        faults.may_fail("first")
        with pytest.raises(OutOfMemory, match="second: allocation 1 was made to fail") as caught:
            faults.may_fail("second")
        assert caught.value.value == 1
        faults.may_fail("third")
    faults.may_fail("after")


class Stubborn:
    """An address space that fails to take notice."""

    immediate_mode = False

    def bo_find(self, obj: object) -> None:
        raise KeyboardInterrupt


def test_an_address_space_that_fails_leaves_the_object_where_it_was() -> None:
    scene = Scene.set_up()
    space = Stubborn()
    scene.objects[1].vms.add(space)
    before = scene.state()
    with pytest.raises(KeyboardInterrupt):
        move_to_cpu(scene)
    with pytest.raises(KeyboardInterrupt):
        move_to_gart(scene)
    assert scene.state() == before
    scene.check()
    scene.objects[1].vms.discard(space)
    move_to_cpu(scene)
    scene.check()
