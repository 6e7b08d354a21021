"""Who has what of a file mapped, among the processes below this one."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator

import pytest

from gpuvm.device.mappings import Mappings, descendants

PAGE = 4096
CHILD = """
import mmap, os, sys
fd = int(sys.argv[1])
maps = [mmap.mmap(fd, size * 4096, offset=at * 4096) for at, size in eval(sys.argv[2])]
if os.fork() == 0:
    del maps[1:]
    print("there", flush=True)
    sys.stdin.read(1)
    os._exit(0)
maps[0].close()
os.wait()
print("alone", flush=True)
sys.stdin.read(1)
"""


@pytest.fixture
def file() -> Iterator[int]:
    fd = os.memfd_create("mapped")
    os.truncate(fd, 64 * PAGE)
    yield fd
    os.close(fd)


def pages(*ranges: tuple[int, int]) -> list[tuple[int, int]]:
    return [(start * PAGE, end * PAGE) for start, end in ranges]


def test_ranges_of_all_processes_are_united(file: int) -> None:
    """The grandchild has one, its parent the others; neighbours and what lies over another are one."""
    mappings = Mappings(file)
    assert mappings() == []
    wanted = [(0, 4), (10, 2), (12, 3), (20, 8), (22, 2), (63, 1)]
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(file), repr(wanted)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=[file],
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == b"there\n"
        below = [*descendants(child.pid)]
        assert len(below) == 1
        assert {child.pid, *below} <= {*descendants(os.getpid())}
        assert mappings() == pages((0, 4), (10, 15), (20, 28), (63, 64))
        child.stdin.write(b"x")
        child.stdin.flush()
        assert child.stdout.readline() == b"alone\n"
        assert mappings() == pages((10, 15), (20, 28), (63, 64))
        child.stdin.write(b"x")
        child.stdin.flush()
        child.wait()
        assert mappings() == []


def test_other_files_are_not_meant(file: int) -> None:
    other = os.memfd_create("mapped")
    os.truncate(other, 64 * PAGE)
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(other), "[(0, 4)]"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=[other],
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"there\n"
        assert Mappings(file)() == []
        assert Mappings(other)() == pages((0, 4))
        child.communicate(b"xx")
    os.close(other)


def test_without_a_descriptor_everything_counts_as_mapped(file: int) -> None:
    mappings = Mappings(file)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        assert mappings() == [(0, 1 << 63)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
