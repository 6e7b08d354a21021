"""Which paths may lead to a file: none of them is missed. The kernel, following them, is the oracle."""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuvm._core import PathFilter

AT_FDCWD = -100
PROC = os.stat("/proc").st_dev


class Tree:
    """Directories with links all over, and one file that is meant."""

    def __init__(self, top: Path) -> None:
        (top / "a/b").mkdir(parents=True)
        (top / "a/meant").write_text("")
        (top / "b").write_text("another")
        os.link(top / "a/meant", top / "a/b/a")
        self.meant = os.stat(top / "a/meant")
        self.fd = os.open(top / "a/meant", os.O_RDONLY)
        self.directory = os.open(top / "a", os.O_PATH)
        for name, target in {
            "a/l": "../a",
            "a/up": "..",
            "a/b/m": "../meant",
            "a/b/l": f"{top}/a/b/m",
            "m": f"/proc/self/fd/{self.fd}",
            "a/c": f"/dev/fd/{self.directory}",
            "a/b/c": "/proc/thread-self/cwd",
            "a/loop": "loop",
            "a/b/loop": "nowhere",
        }.items():
            os.symlink(target, top / name)
        self.filter = PathFilter([(self.meant.st_dev, self.meant.st_ino)], PROC, [b"tell"])
        self.words = [
            "a",
            "b",
            "c",
            "l",
            "m",
            "up",
            "meant",
            "loop",
            "..",
            ".",
            "",
            f"{top}",
            "/proc/self/root",
            f"fd/{self.fd}",
        ]

    def candidate(self, path: bytes, directory: int = AT_FDCWD, *, follow: bool = True) -> bytes | None:
        buffer = ctypes.create_string_buffer(path)
        return self.filter.candidate(os.getpid(), directory, ctypes.addressof(buffer), follow)

    def is_meant(self, path: bytes, directory: int | None, *, follow: bool) -> bool:
        try:
            return os.path.samestat(os.stat(path, dir_fd=directory, follow_symlinks=follow), self.meant)
        except OSError:
            return False


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tree]:
    before = Path.cwd()
    top = tmp_path_factory.mktemp("tree")
    os.chdir(top)
    yield Tree(top)
    os.chdir(before)


@given(st.data(), st.booleans(), st.booleans(), st.booleans())
def test_no_path_to_the_file_is_missed(
    tree: Tree, data: st.DataObject, absolute: bool, from_directory: bool, follow: bool
) -> None:
    words = data.draw(st.lists(st.sampled_from(tree.words), min_size=1, max_size=7))
    path = os.fsencode(("/" if absolute else "") + "/".join(words))
    directory = tree.directory if from_directory else None
    found = tree.candidate(path, AT_FDCWD if directory is None else directory, follow=follow)
    if tree.is_meant(path, directory, follow=follow):
        assert found == path
    assert found in (None, path)


def test_ways_to_the_file_are_kept(tree: Tree) -> None:
    for path in (
        "a/l/l/b/m",
        "/proc/self/root{top}/m",
        "a/c/meant",
        "a/b/l",
        "/dev/fd/{fd}",
        "/../{top}/a/up/m",
    ):
        raw = os.fsencode(path.format(top=tree.words[11], fd=tree.fd))
        assert tree.is_meant(raw, None, follow=True), raw
        assert tree.candidate(raw) == raw


def test_files_elsewhere_are_let_go(tree: Tree) -> None:
    for path in (
        b"/etc/passwd",
        b"/etc",
        b"/dev/null",
        b"b",
        b"/usr/lib/nothing",
        b"/nothing",
        b"/proc/uptime",
        b"x/",
    ):
        assert tree.candidate(path) is None, path
    assert tree.candidate(b"/etc/passwd/x") is None
    assert tree.candidate(b"x" * 300) is None
    assert tree.candidate(b"/proc/self/stat") is None


def test_what_only_the_caller_can_follow_is_kept(tree: Tree) -> None:
    for path in (
        b"/proc/self/fd/4711",
        b"/dev/fd/4711",
        b"/proc/self/fdinfo/%d" % tree.fd,
        b"/dev/tell",
        b"",
        b"../a",
    ):
        assert tree.candidate(path) == path


def test_strings_are_read_as_the_kernel_reads_them(tree: Tree) -> None:
    page = mmap.PAGESIZE
    memory = mmap.mmap(-1, 3 * page)
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(base + 2 * page), page, 0) == 0
    meant = b"%s/a/meant" % os.fsencode(tree.words[11])
    for length in (len(meant), 255, 256, 257, 4094, 4095):
        path = meant.rjust(length, b"/")
        at = base + 2 * page - length - 1
        memory[2 * page - length - 1 : 2 * page] = path + b"\0"
        assert tree.filter.candidate(os.getpid(), AT_FDCWD, at, True) == path
        memory[2 * page - 1] = 0x2F
        assert tree.filter.candidate(os.getpid(), AT_FDCWD, at, True) is None
    memory[: 2 * page] = meant.rjust(4096, b"/") + b"\0" * 4096
    assert tree.filter.candidate(os.getpid(), AT_FDCWD, base, True) is None
    for addr in (0, 1, 1 << 47, (1 << 64) - 1, (1 << 64) - 4096):
        assert tree.filter.candidate(os.getpid(), AT_FDCWD, addr, True) is None


def test_a_process_that_is_gone_has_no_paths(tree: Tree) -> None:
    buffer = ctypes.create_string_buffer(b"/etc/passwd")
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert tree.filter.candidate(child.pid, AT_FDCWD, ctypes.addressof(buffer), True) is None


def test_without_descriptors_nothing_is_sure(tree: Tree) -> None:
    opened = []
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(limits[0], 256), limits[1]))
    try:
        while True:
            opened.append(os.open("/", os.O_PATH))
    except OSError:
        assert tree.candidate(b"/etc/passwd") == b"/etc/passwd"
        os.close(opened.pop())
        assert tree.candidate(b"/etc/passwd") == b"/etc/passwd"
    finally:
        for fd in opened:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert tree.candidate(b"/etc/passwd") is None
