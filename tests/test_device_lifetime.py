"""Opens of the node live exactly as long as somebody has a descriptor or a mapping of them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from compiled import needs_cc
from device_world import DeviceWorld, device_world
from suite import scaled

pytestmark = needs_cc


@pytest.fixture
def world() -> Iterator[DeviceWorld]:
    with device_world() as world:
        yield world


def test_a_child_keeps_what_its_parent_closed(world: DeviceWorld) -> None:
    with world.program("lifetime", "forked") as program:
        program.reaches("shared")
        program.goes_on_until("the child's")
        world.wait_for_clients(1)
        program.goes_on_until("nobody's")
        world.wait_for_clients(0)
        program.ends_well()


def test_copies_of_a_descriptor(world: DeviceWorld) -> None:
    with world.program("lifetime", "duplicated") as program:
        program.reaches("the third's")
        world.wait_for_clients(1)
        program.goes_on_until("nobody's")
        world.wait_for_clients(0)
        program.ends_well()


def test_exec_closes_what_it_has_to(world: DeviceWorld) -> None:
    with world.program("lifetime", "executed") as program:
        program.reaches("both")
        world.wait_for_clients(2)
        program.goes_on_until("one")
        world.wait_for_clients(1)
        program.goes_on_until("nobody's")
        world.wait_for_clients(0)
        program.ends_well()


def test_a_descriptor_in_a_message(world: DeviceWorld) -> None:
    with world.program("lifetime", "sent") as program:
        program.reaches("under way")
        world.wait_for_clients(1)
        program.goes_on_until("received")
        world.wait_for_clients(1)
        program.goes_on_until("a mapping's")
        world.wait_for_clients(1)
        program.ends_well()


def test_a_mapping_outlives_the_descriptor(world: DeviceWorld) -> None:
    with world.program("lifetime", "mapped") as program:
        program.reaches("a mapping's")
        world.wait_for_clients(1)
        program.goes_on_until("half a mapping's")
        world.wait_for_clients(1)
        program.goes_on_until("nobody's")
        world.wait_for_clients(0)
        assert world.device.mem.object_file.statistics().allocated == 0
        program.ends_well()


def test_a_mapping_outlives_its_object(world: DeviceWorld) -> None:
    """In whatever process it is; who has it sees what was written, and nobody else's bytes."""
    objects = world.device.mem.object_file

    def freed() -> int:
        world.device.mem.reap()
        objects.collect()
        objects.check()
        return objects.statistics().freed

    with world.program("lifetime", "inherited") as program:
        program.reaches("both")
        assert (freed(), objects.parts) == ((1 << 20) + (1 << 16), [])
        program.goes_on_until("written")
        assert b"\x33" in bytes(objects.view[: 1 << 20])
        assert freed() == (1 << 20) + (1 << 16)
        program.goes_on_until("the other")
        assert freed() == 1 << 16
        program.goes_on_until("the parent's")
        assert freed() == 1 << 16
        program.ends_well()
    world.wait_for_clients(0)
    assert objects.statistics().freed == 0


def test_many_opens(world: DeviceWorld) -> None:
    times = scaled(500, 20_000)
    with world.program("lifetime", "many", str(times)) as program:
        program.reaches("all")
        world.wait_for_clients(200)
        world.opens.check()
        program.goes_on_until("nobody's")
        world.wait_for_clients(0)
        program.ends_well()
    assert world.opens.statistics().opened == times + 200
    assert [number for what, number in world.told if what == "closed"].sort() == list(
        range(1, times + 201)
    ).sort()
    assert not world.device.mem.object_file.parts


def test_who_is_killed_leaves_nothing(world: DeviceWorld) -> None:
    with world.program("lifetime", "killed") as program:
        waits, calls = map(int, program.line().split())
        program.reaches("busy")
        for pid in (waits, calls):
            os.kill(pid, signal.SIGKILL)
        program.goes_on_until("nobody's")
        world.wait_for_clients(0)
        program.ends_well()
