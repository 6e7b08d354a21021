"""Files that clients map and cut off: nobody of us dies of it."""

from __future__ import annotations

import faulthandler
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from device_world import directory
from gpuvm._core import TruncationGuard
from gpuvm.errors import CheckFailed, InvalidArgument, OutOfMemory
from gpuvm.mem.object_file import ObjectFile
from gpuvm.mem.remapping import Mapping
from gpuvm.nouveau import Device

PAGE = 0x1000


@pytest.fixture
def place() -> Iterator[int]:
    fd = directory()
    yield fd
    os.close(fd)
    if os.geteuid():
        os.rmdir(f"/dev/shm/gpuvm-test-{os.getpid()}")


def cut(file: ObjectFile, at: int = 0) -> None:
    os.truncate(file.fd, at)


def test_what_was_cut_off_reads_as_zeros(place: int) -> None:
    file = ObjectFile("file", 1 << 20, place)
    file.view[:] = 7
    cut(file, 4 * PAGE)
    with pytest.raises(CheckFailed, match=r'"file".*cut it off at 0x4000'):
        file.check()
    assert not file.view[4 * PAGE :].any()
    assert (file.view[: 4 * PAGE] == 7).all()
    file.check()
    assert file.statistics().cut_off == 1
    os.unlink("file", dir_fd=place)


def test_writes_get_there(place: int) -> None:
    file = ObjectFile("file", 1 << 20, place)
    cut(file)
    file.view[5 * PAGE] = 3
    assert os.pread(file.fd, 1, 5 * PAGE) == b"\3"
    file.check()
    os.unlink("file", dir_fd=place)


def test_memories_that_show_the_file(place: int) -> None:
    with Device(vram=1 << 20, gart=1 << 20, objects=place) as device:
        obj = device.mem.create(8 * PAGE)
        with obj.resv:
            device.mem.validate(obj)
            ((_, addr, _),) = obj.extents
        view = device.mem.vram.view[addr : addr + 8 * PAGE]
        view[:] = 5
        assert (obj.view == 5).all()
        cut(device.mem.object_file)
        assert not view.any()
        view[:] = 6
        assert (obj.view == 6).all()
        device.check()
        assert device.mem.object_file.statistics().cut_off == 1
        del obj, view
    os.unlink("nouveau objects", dir_fd=place)


def test_threads_that_are_in_the_midst_of_it(place: int) -> None:
    """One goes on cutting, others copy, with and without the interpreter's lock."""
    file = ObjectFile("file", 16 << 20, place)
    source = np.full(4 << 20, 9, np.uint8)

    def copy(part: int) -> None:
        for _ in range(20):
            file.view[part * (4 << 20) : (part + 1) * (4 << 20)] = source

    with ThreadPoolExecutor(3) as threads:
        copies = [threads.submit(copy, part) for part in range(1, 4)]
        while not all(copy.done() for copy in copies):
            cut(file, 1 << 20)
        for one in copies:
            one.result()
    file.view[-1] = 1
    file.check()
    os.unlink("file", dir_fd=place)


def test_a_page_that_cannot_be_had_back() -> None:
    """The file is as long as it should be, as the guard believes: so something else is the matter."""
    fd = os.memfd_create("short")
    os.ftruncate(fd, PAGE)
    mapping = Mapping(4 * PAGE)
    mapping.replace_pages(0, 4 * PAGE, fd, 0)
    guard = TruncationGuard(fd, PAGE, [(mapping.address, mapping.size)])
    mapping.view[2 * PAGE] = 8
    assert (mapping.view[2 * PAGE], mapping.view[3 * PAGE], guard.mended, guard.lost) == (8, 0, 0, 2)
    assert os.fstat(fd).st_size == PAGE
    os.close(fd)


def test_guards_are_limited_and_come_back() -> None:
    fd = os.memfd_create("file")
    with pytest.raises(InvalidArgument, match="4 ranges"):
        TruncationGuard(fd, PAGE, [(0, PAGE)] * 4)
    for _ in range(2):
        with pytest.raises(OutOfMemory, match="guarded"):
            [TruncationGuard(fd, PAGE, []) for _ in range(1000)]
        TruncationGuard(fd, PAGE, [])
    os.close(fd)


@pytest.mark.parametrize("before", ["default", "faulthandler"])
def test_what_is_not_guarded_dies_as_before(before: str) -> None:
    program = (
        "import faulthandler, mmap, os, sys\n"
        "from gpuvm._core import TruncationGuard\n"
        "fd = os.memfd_create('other')\n"
        "os.ftruncate(fd, 4096)\n"
        "map = mmap.mmap(fd, 4096)\n"
        "if sys.argv[1] == 'faulthandler': faulthandler.enable()\n"
        "guard = TruncationGuard(fd, 0, [(4096, 4096)])\n"
        "os.ftruncate(fd, 0)\n"
        "map[0]\n"
    )
    ran = subprocess.run([sys.executable, "-c", program, before], capture_output=True, text=True, check=False)
    assert ran.returncode == -signal.SIGBUS
    assert ("Fatal Python error: Bus error" in ran.stderr) == (before == "faulthandler")


def test_the_tests_themselves_keep_their_handler() -> None:
    assert faulthandler.is_enabled()
