"""Opens of the node, one after the other: whose a descriptor is, and what the last close of one brings."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from device_world import PATIENCE, DeviceWorld, device_world
from gpuvm.device import node as node_module
from gpuvm.device.inotify import Closes
from gpuvm.device.marks import is_marked, mark
from gpuvm.device.node import OpenNode
from gpuvm.errors import CheckFailed, FileTableFull, OutOfMemory, TooManyFiles
from gpuvm.sync import task
from gpuvm.sync.descriptor import carriers
from gpuvm.sync.sw_sync import SwSync
from uapi_program import no_descriptor_left

ME = os.getpid()


@pytest.fixture
def world() -> Iterator[DeviceWorld]:
    with device_world(vram=1 << 20, gart=1 << 20) as world:
        yield world


def descriptors() -> Counter[str]:
    """What this process has open, but what polls, which threads make when they begin."""
    found: list[str] = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # that of the directory itself
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    return Counter(link for link in found if "eventpoll" not in link)


def ended(world: DeviceWorld, made: OpenNode) -> None:
    """Nobody has it any more."""
    assert made.over.wait(PATIENCE)
    assert not made.client.is_open
    world.opens.check()


def test_whose_a_descriptor_is(world: DeviceWorld) -> None:
    one, fd = world.open()
    other, second = world.open(os.O_RDONLY, "card0")
    copy = os.dup(fd)
    assert [world.opens.find(ME, number) for number in (fd, second, copy)] == [one, other, one]
    assert (one.node, other.node) == ("renderD128", "card0")
    for nobodys in (0, world.device.mem.object_file.fd, 1 << 20, (1 << 32) - 1):
        assert world.opens.find(ME, nobodys) is None
    assert world.opens.find((1 << 22) + 1, fd) is None
    for number in (fd, second, copy):
        os.close(number)
    ended(world, one)
    ended(world, other)


def test_objects_that_are_files(world: DeviceWorld) -> None:
    fd = world.opens.open_sw_sync("me")
    timeline = world.opens.find(ME, fd)
    assert isinstance(timeline, SwSync)
    assert timeline.name == "me"
    fence = timeline.create_fence(1)
    os.close(fd)
    assert fence.wait(PATIENCE)  # by the thread that waits for closes
    assert fence.error == errno.ENOENT
    carriers.collect()


@pytest.mark.parametrize("access", [os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_ACCMODE])
def test_its_mode_is_what_was_asked_for(world: DeviceWorld, access: int) -> None:
    """Nothing is done to the file behind it."""
    kept = os.O_APPEND | os.O_NONBLOCK
    made, fd = world.open(access | kept | os.O_TRUNC | os.O_CREAT | os.O_EXCL | os.O_DIRECT)
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    assert flags & (os.O_APPEND | os.O_NONBLOCK | os.O_DIRECT) == kept
    assert flags & os.O_ACCMODE == (os.O_RDWR if access == os.O_ACCMODE else access)
    assert not os.get_inheritable(fd)
    os.close(fd)
    ended(world, made)
    world.device.mem.object_file.check()


def test_what_is_told_and_when(world: DeviceWorld) -> None:
    made, fd = world.open()
    made.client.channel_alloc()
    assert world.told == [("opened", 1)]
    os.close(fd)
    ended(world, made)
    second, fd = world.open()  # waits for the end of the first
    assert world.told == [("opened", 1), ("closing", 1), ("closed", 1), ("opened", 2)]
    os.close(fd)
    ended(world, second)


def test_an_open_past_us_of_the_same_link_closes_nothing(world: DeviceWorld) -> None:
    made, fd = world.open()
    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):
        os.close(os.open(f"/proc/self/fd/{fd}", flags))
        world.opens.collect()
        assert made.client.is_open
    assert world.opens.statistics().doubtful == 1
    kept = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
    os.close(fd)
    ended(world, made)
    assert world.opens.find(ME, kept) is None
    os.close(kept)
    assert world.opens.statistics().doubtful == 0


def test_a_mark_that_goes_late(world: DeviceWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel tells of a close just before it takes the mark away."""
    looks = 0

    def late(fd: int, number: int) -> bool:
        nonlocal looks
        looks += 1
        return looks < 4 or is_marked(fd, number)

    made, fd = world.open()
    monkeypatch.setattr(node_module, "is_marked", late)
    os.close(fd)
    ended(world, made)
    assert looks >= 4


def test_closes_that_the_kernel_did_not_keep(world: DeviceWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """An overflow of the queue: everything is looked at."""
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if most > 20_000:
        pytest.skip(f"the kernel keeps {most} events")
    kept, kept_fd = world.open()
    opens = [world.open() for _ in range(10)]
    with world.opens._mutex:  # nobody reads meanwhile
        for number in range(most // 2 + 1):
            for _, fd in opens[:2]:  # different ones in turn: the same are told once
                os.close(os.open(f"/proc/self/fd/{fd}", os.O_RDONLY))
            if number == most // 2 - 1:
                for _, fd in opens:
                    os.close(fd)
                break
    for made, _ in opens:
        ended(world, made)
    assert world.opens.statistics().lost == 1
    assert kept.client.is_open
    os.close(kept_fd)
    ended(world, kept)


def test_a_program_that_locks_the_file(world: DeviceWorld) -> None:
    """Its opens, and others', end with the first close that is told."""
    first, fd = world.open()
    lock = struct.pack("=hh4xqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 2, 0, 0)
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, lock)
    second, other = world.open()
    world.opens.check()
    os.close(other)
    ended(world, second)
    os.close(fd)
    ended(world, first)


def test_a_call_that_lasts_longer_than_the_last_close(world: DeviceWorld) -> None:
    made, fd = world.open()
    handle = made.client.syncobjs.create(0)
    syncobj = made.client.syncobjs.find(handle)
    assert syncobj is not None
    with made.client._file:
        os.close(fd)
        while made.client.is_open:
            world.opens.collect()
        assert not made.client.released.signalled
        assert made.client.syncobjs.find(handle) is syncobj
    ended(world, made)
    assert world.told[-1] == ("closed", 1)


def test_an_end_that_has_no_memory_comes_later(world: DeviceWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    made, fd = world.open()
    refusals = iter([True, True, False])
    close = made.client.close

    def refusing() -> None:
        if next(refusals):
            raise OutOfMemory("close: no memory")
        close()

    monkeypatch.setattr(made.client, "close", refusing)
    os.close(fd)
    while world.opens.statistics().open or world.opens.statistics().ending:
        world.opens.collect()
    ended(world, made)
    assert world.told == [("opened", 1), ("closing", 1), ("closed", 1)]


def test_no_thread_can_be_started(world: DeviceWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, target: object) -> None:
        raise RuntimeError("can't start new thread")

    made, fd = world.open()
    made.client.channel_alloc()
    other, second = world.open()
    monkeypatch.setattr(task, "start", refuse)
    with other.client._file:  # a call of it lasts
        os.close(second)
        os.close(fd)
        ended(world, made)
        while other.client.is_open:
            world.opens.collect()
    while world.opens.statistics().ending:
        world.opens.collect()
    ended(world, other)
    assert [what for what, _ in world.told] == [
        "opened",
        "opened",
        *["closing", "closing"],
        "closed",
        "closed",
    ]


def test_we_are_out_of_descriptors(world: DeviceWorld) -> None:
    with no_descriptor_left(), pytest.raises(FileTableFull, match="supervisor"):
        world.open()
    with no_descriptor_left(), pytest.raises(TooManyFiles):
        world.opens.open_sw_sync()
    assert not world.device.clients
    world.opens.check()
    made, fd = world.open()
    os.close(fd)
    ended(world, made)


@pytest.mark.parametrize("error", [errno.ENOMEM, errno.ENOLCK, errno.ENOSPC])
def test_an_open_that_fails_half_way(world: DeviceWorld, monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    def refuse(fd: int, number: int) -> bool:
        raise OSError(error, os.strerror(error))

    before = descriptors()
    monkeypatch.setattr(node_module, "mark", refuse)
    with pytest.raises((OutOfMemory, FileTableFull), match=os.strerror(error)):
        world.open()
    assert not descriptors() - before
    assert not world.device.clients
    world.opens.check()


def test_a_thousand_at_once() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with device_world(vram=16 << 20, gart=1 << 20) as world:
            opens = [world.open() for _ in range(min(hard - 500, 1000))]
            assert all(world.opens.find(ME, fd) is made for made, fd in opens)
            world.opens.check()
            for half in (opens[::2], opens[1::2]):
                assert all(made.client.is_open for made, _ in half)
                for _, fd in half:
                    os.close(fd)
                for made, _ in half:
                    assert made.client.released.wait(PATIENCE)
                world.opens.check()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_end_of_all_with_somebody_there() -> None:
    with device_world() as world:
        made, fd = world.open()
        made.client.channel_alloc()
        world.opens.close()
        assert made.client.released.signalled
        assert world.told[-1] == ("closed", 1)
        os.close(fd)
        world.opens = type(world.opens)(world.device, world.directory)


def test_check_finds_a_link_too_many_and_an_open_that_is_gone(world: DeviceWorld) -> None:
    os.link("nouveau objects", "other", src_dir_fd=world.directory, dst_dir_fd=world.directory)
    with pytest.raises(CheckFailed, match="other"):
        world.opens.check()
    os.unlink("other", dir_fd=world.directory)
    world.opens.check()


# -- what it is made of


def test_marks_are_of_opens_not_of_descriptors() -> None:
    looker = os.memfd_create("file")
    path = f"/proc/self/fd/{looker}"
    fds = [os.open(path, flags) for flags in (os.O_RDWR, os.O_RDONLY, os.O_WRONLY)]
    for number, fd in enumerate(fds, 10):
        mark(fd, number)
    assert [number for number in range(9, 15) if is_marked(looker, number)] == [10, 11, 12]
    copy = os.dup(fds[1])
    os.close(fds[1])
    assert is_marked(looker, 11)
    os.close(os.open(path, os.O_RDONLY))  # POSIX's locks would go now
    assert is_marked(looker, 11)
    os.close(copy)
    assert not is_marked(looker, 11)
    os.close(fds[0])
    assert [number for number in range(9, 15) if is_marked(looker, number)] == [12]
    os.close(fds[2])
    os.close(looker)


def test_closes_tells_names(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    closes = Closes(directory)
    assert closes.read() == ([], False)
    for name in ("a", "b", "a" * 200):
        (tmp_path / name).write_text("x")
    (tmp_path / "b").read_text()
    assert closes.read() == (["a", "b", "a" * 200, "b"], False)
    closes.close()
    os.close(directory)


def test_closes_says_what_is_short(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    with no_descriptor_left(), pytest.raises(TooManyFiles, match="ulimit"):
        Closes(directory)
    os.close(directory)
