"""A device whose node programs of tests/device_programs open, in this process, where all of it can be seen.

The kernel tells of their calls as under ``gpuvm run``; but they have no /dev of their own: that they open the
node is recognised by the text of the path.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from caught_program import CaughtProgram
from compiled import compiled
from gpuvm.device import caught, linux
from gpuvm.device.ioctls import Ioctls
from gpuvm.device.node import OpenNode, Opens
from gpuvm.device.notify import CONTINUE, Listener, Notification
from gpuvm.device.process import caller_of
from gpuvm.device.seccomp import Rule
from gpuvm.nouveau import Client, Device
from gpuvm.nouveau.uapi import Caller
from gpuvm.sync.descriptor import carriers
from gpuvm.sync.fence import Fence, fence_context_alloc

PATHS = {
    b"/dev/dri/renderD128": "renderD128",
    b"/dev/dri/card0": "card0",
    b"/sys/kernel/debug/sync/sw_sync": "sw_sync",
}
RULES = (
    Rule(caught.IOCTL, 1, 0xFF00, tuple(kind << 8 for kind in caught.IOCTL_TYPES)),
    Rule(caught.OPENAT, 2, os.O_PATH | os.O_DIRECTORY, (0,)),
)
PATIENCE = 60.0
"""Seconds after which a test gives up."""


def directory() -> int:
    """A descriptor of one on a tmpfs, where an ordinary user has one, too."""
    if os.geteuid() == 0:
        return linux.new_tmpfs({}, linux.MountAttribute(0))
    path = f"/dev/shm/gpuvm-test-{os.getpid()}"
    os.mkdir(path, 0o700)
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    return fd


class Program:
    """One program under the device."""

    def __init__(self, world: DeviceWorld, words: Sequence[str]) -> None:
        self._world = world
        self._listening = Fence(fence_context_alloc(), 1)
        handlers = {caught.IOCTL: self._ioctl, caught.OPENAT: self._openat}
        self.caught = CaughtProgram(words, handlers, rules=RULES)
        self.listener: Listener = self.caught.listener
        self.ioctls = Ioctls(world.opens, self.listener, world.door)
        self._listening.signal()

    def _ioctl(self, call: Notification) -> int:
        self._listening.wait()
        return self.ioctls(call)

    def _openat(self, call: Notification) -> int:
        self._listening.wait()
        memory = caller_of(self.listener, call).memory
        path = bytes(memory.read(call.args[1], 1))
        while path[-1] and path[:1] == b"/" and len(path) <= max(map(len, PATHS)):
            path += memory.read(call.args[1] + len(path), 1)
        node = PATHS.get(path.rstrip(b"\0"))
        if node is None:
            return CONTINUE
        opens, flags = self._world.opens, call.args[2]
        fd = opens.open_sw_sync() if node == "sw_sync" else opens.open(node, flags)[1]
        try:
            return self.listener.add_fd(call.id, fd, cloexec=bool(flags & os.O_CLOEXEC))
        finally:
            os.close(fd)

    def line(self) -> str:
        """What it prints next."""
        assert self.caught.child.stdout is not None
        return self.caught.child.stdout.readline().decode().rstrip("\n")

    def reaches(self, step: str) -> None:
        line = self.line()
        assert line == step, line

    def go_on(self) -> None:
        child = self.caught.child
        assert child.stdin is not None
        child.stdin.write(b"x")
        child.stdin.flush()

    def goes_on_until(self, step: str) -> None:
        self.go_on()
        self.reaches(step)

    def ends_well(self) -> None:
        self.go_on()
        status, output = self.caught.finish()
        assert (status, output) == (0, "")


class DeviceWorld:
    """One device, its opens, and what they tell of."""

    def __init__(self, **options: Any) -> None:
        self.directory = directory()
        self.told: list[tuple[str, int]] = []
        """What became of opens, by their numbers."""
        self.device = Device(objects=self.directory, **{"vram": 64 << 20, "gart": 64 << 20} | options)
        self.opens = Opens(
            self.device,
            self.directory,
            opened=lambda made: self.told.append(("opened", made.number)),
            closing=lambda made: self.told.append(("closing", made.number)),
            closed=lambda made: self.told.append(("closed", made.number)),
        )

    def door(self, client: Client, fd: int, request: int, arg: int, caller: Caller) -> int:
        return client.drm_ioctl(request, arg, caller)

    def open(self, flags: int = os.O_RDWR, node: str = "renderD128") -> tuple[OpenNode, int]:
        """By this process."""
        return self.opens.open(node, flags)

    @contextmanager
    def program(self, *words: str) -> Iterator[Program]:
        """Run one; in the end nobody may have anything open."""
        program = Program(self, [compiled(words[0]), *words[1:]])
        with program.caught:
            yield program
        self.forgets_all()

    def forgets_all(self) -> None:
        """Nobody has any file open; so nothing of it is left."""
        for client in self.device.clients:
            assert client.released.wait(PATIENCE), client
        self.opens.collect()
        assert self.opens.statistics().open == 0
        carriers.collect()
        assert carriers.statistics().files == 0
        self.opens.check()
        self.device.check()

    def wait_for_clients(self, count: int) -> None:
        """Until no more are left, and what the others had is gone; there may be no fewer."""
        while len(self.device.clients) > count or self.opens.statistics().ending:
            self.opens.collect()
        assert len(self.device.clients) == count
        self.device.mem.reap()
        self.device.mem.object_file.collect()

    def close(self) -> None:
        self.opens.close()
        self.opens.check()
        self.device.check()
        self.device.close()
        assert self.told.count(("closed", 1)) <= 1
        os.close(self.directory)
        if os.geteuid():
            os.rmdir(f"/dev/shm/gpuvm-test-{os.getpid()}")


@contextmanager
def device_world(**options: Any) -> Iterator[DeviceWorld]:
    gc.collect()  # no descriptor of an earlier test is closed in the midst of this one
    world = DeviceWorld(**options)
    try:
        yield world
    finally:
        world.close()
