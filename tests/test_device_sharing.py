"""Descriptors that name memory, sync objects and fences, in other processes; and when none are left."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from compiled import needs_cc
from device_world import DeviceWorld, device_world
from gpuvm.sync.descriptor import carriers
from uapi_program import no_descriptor_left

pytestmark = needs_cc


@pytest.fixture
def world() -> Iterator[DeviceWorld]:
    with device_world() as world:
        yield world


def test_memory_that_outlives_its_exporter(world: DeviceWorld) -> None:
    with world.program("sharing", "prime") as program:
        program.reaches("a buffer's")
        world.wait_for_clients(1)
        assert carriers.statistics().named == {"DmaBuf": 1}
        program.goes_on_until("a mapping's")
        carriers.collect()
        assert carriers.statistics().files == 0
        program.ends_well()


def test_a_sync_object_of_two_processes(world: DeviceWorld) -> None:
    with world.program("sharing", "syncobj") as program:
        assert program.caught.finish() == (0, "")


def test_fences_of_sw_sync(world: DeviceWorld) -> None:
    with world.program("sharing", "fences") as program:
        program.reaches("the timeline's end")
        carriers.collect()
        assert carriers.statistics().named == {"SyncFile": 4}
        program.ends_well()


def test_a_program_is_out_of_descriptors(world: DeviceWorld) -> None:
    with world.program("sharing", "exhausted") as program:
        program.reaches("one")
        world.wait_for_clients(1)
        carriers.collect()
        assert carriers.statistics().files == 0
        (client,) = world.device.clients
        counts = client.statistics()
        assert (counts.handles.objects, counts.syncobjs.objects) == (1, 1)
        program.ends_well()


def test_we_are_out_of_descriptors(world: DeviceWorld) -> None:
    with world.program("sharing", "exhausted-there") as program:
        program.reaches("before")
        with no_descriptor_left():
            program.goes_on_until("short")
        program.goes_on_until("after")
        world.wait_for_clients(2)
        program.ends_well()
