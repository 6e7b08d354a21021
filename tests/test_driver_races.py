"""Calls of one client that meet its end, or a channel's, or the device's, in many orders."""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import suppress

import pytest

import pushbuf
from contention import strategy_of
from driver_world import (
    BIG,
    BINARY,
    HUGE,
    PAGE,
    VRAM,
    Program,
    device_of,
    drop_op,
    ended,
    map_op,
    sparse_op,
    unmap_op,
)
from gpuvm.errors import BadFile, NotFound
from gpuvm.nouveau import (
    bind_job,
    bind_queue,
    channel,
    channels,
    cleanup,
    client,
    exec_job,
    gem,
    open_file,
    ring,
    worker_thread,
)
from gpuvm.nouveau.sync import Sync
from gpuvm.sched import doorbell
from gpuvm.sync.fence import Fence
from gpuvm.testing import Interleaving
from suite import scaled

SEEDS = range(scaled(6, 150))
AT, REGION = HUGE, (16 * HUGE, HUGE)
MODULES = (
    *(bind_job, bind_queue, channel, channels, cleanup, client, doorbell, exec_job, gem, open_file, ring),
    worker_thread,
)
"""Between whose lines threads change, besides in primitives."""


class Scene:
    """What the threads need, made before: who looks at bytes has the object, and the device stays open."""

    def __init__(self, program: Program) -> None:
        self.device, self.client = program.device, program.client
        self.bos = program.bo(), program.bo()
        program.bind(*(map_op(AT * (1 + at), BIG, bo.handle) for at, bo in enumerate(self.bos)))
        program.bind(sparse_op(*REGION))
        self.push = program.push(pushbuf.Push().copy(AT, 2 * AT, 64))
        self.fences: list[Fence] = []


Work = Callable[[Scene], None]


def racing(*works: Work, lines: bool = False) -> None:
    """In many orders; afterwards all fences are signalled, and nothing is left."""
    for seed in SEEDS:
        with Interleaving(strategy_of(seed)) as run:
            if lines:
                run.step_lines(*MODULES)
            with device_of() as device:
                s = Scene(Program(device))
                for work in works:
                    run.spawn(_tolerant, work, s)
                run.run()
                for fence in s.fences:
                    assert ended(fence) in (0, errno.ESRCH, errno.ENODEV)


def _tolerant(work: Work, s: Scene) -> None:
    with suppress(BadFile, NotFound):  # closed meanwhile
        work(s)


def execute(s: Scene) -> None:
    out = s.client.syncobjs.create(0)
    s.client.exec(1, [s.push], (), [Sync(BINARY, out)])
    syncobj = s.client.syncobjs.find(out)
    if syncobj is not None and syncobj.head is not None:  # else it is closed
        s.fences.append(syncobj.head)


def bind(s: Scene) -> None:
    s.client.vm_bind([map_op(8 * AT, BIG, s.bos[0].handle)])
    s.client.vm_bind([unmap_op(8 * AT, PAGE), drop_op(*REGION)], run_async=True)
    s.client.vm_bind([map_op(REGION[0], BIG, s.bos[1].handle)])


def make(s: Scene) -> None:
    s.client.gem_new(BIG, VRAM)
    s.client.gem_cpu_prep(s.bos[0].handle)
    s.client.gem_close(s.bos[1].handle)


def free(s: Scene) -> None:
    s.client.channel_free(1)


def close(s: Scene) -> None:
    s.client.close()


def close_device(s: Scene) -> None:
    s.device.close()


@pytest.mark.parametrize("lines", [False, True], ids=["primitives", "lines"])
@pytest.mark.parametrize("end", [free, close, close_device])
class TestRaces:
    def test_with_executions(self, end: Work, lines: bool) -> None:
        racing(execute, execute, end, lines=lines)

    def test_with_binds(self, end: Work, lines: bool) -> None:
        racing(bind, end, end, lines=lines)

    def test_with_objects(self, end: Work, lines: bool) -> None:
        racing(make, execute, end, lines=lines)
