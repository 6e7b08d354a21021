"""Programs that mean no good: whatever they pass, and whenever they change it, nothing of ours breaks."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Iterator

import pytest

from compiled import needs_cc
from device_world import DeviceWorld, device_world
from gpuvm.nouveau.uapi import numbers
from gpuvm.nouveau.uapi.numbers import Ioctl
from suite import scaled
from uapi_reference import ERRNOS

pytestmark = needs_cc

NAMES = {ioctl.number: ioctl.name for ioctl in vars(numbers).values() if isinstance(ioctl, Ioctl)}


@pytest.fixture
def world() -> Iterator[DeviceWorld]:
    with device_world(vram=16 << 20, gart=16 << 20) as world:
        yield world


@pytest.mark.parametrize("seed", range(scaled(2, 20)))
def test_what_is_read_is_rewritten_meanwhile(world: DeviceWorld, seed: int) -> None:
    """A call decides by what it copied, once."""
    print("seed", seed)
    with world.program("races", str(seed + 1), str(scaled(300, 20_000))) as program:
        program.reaches("done")
        (client,) = world.device.clients
        client.settle()
        world.device.check()
        vm = client.vm
        assert vm is not None
        assert vm.statistics().binds > 10
        program.ends_well()


@pytest.mark.parametrize("seed", range(scaled(2, 20)))
def test_pointers_from_hell(world: DeviceWorld, seed: int) -> None:
    """Only errnos that are written down come out; what is no call at all is EINVAL or ENOTTY."""
    print("seed", seed)
    results: Counter[tuple[str, int]] = Counter()
    with world.program("hell", "calls", str(seed + 1), str(scaled(2_000, 200_000))) as program:
        while (line := program.line()) != "done":
            number, result, times = map(int, line.split())
            results[NAMES.get(number, "unknown"), result] += times
        program.ends_well()
    for name, result in results:
        known = {0, errno.EINVAL, errno.ENOTTY, errno.EFAULT}
        known |= {getattr(errno, one) for one in ERRNOS.get(name, "EOPNOTSUPP").split()}
        assert result in known, (name, errno.errorcode.get(result, result))
    assert sum(times for (_, result), times in results.items() if result == 0) > 100
    assert sum(times for (_, result), times in results.items() if result == errno.EFAULT) > 100


def test_processes_that_vanish_while_they_are_read(world: DeviceWorld) -> None:
    with world.program("hell", "vanish", str(scaled(6, 200))) as program:
        program.reaches("done")
        world.device.check()
        program.ends_well()
        assert program.caught.server.statistics().failures == 0
