"""Grafts: files laid over directories that cannot be written to, such as ``/dev`` and ``/sys``.

Where a directory is to have more than it has, a tmpfs is mounted over it which shows, by bind mounts and
copied symbolic links, what was there, and what is new besides.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from errno import ENOENT
from typing import Final

from gpuvm.device import linux
from gpuvm.device.linux import MountAttribute
from gpuvm.device.step import StepFailed, taking
from gpuvm.device.tree import MAJOR, Bind, Directory, Entry, File, Link, Node, NodeName

PATH_ONLY: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_INERT: Final = MountAttribute.NOSUID | MountAttribute.NODEV | MountAttribute.NOEXEC
"""Nothing on our file systems is executed or, whoever finds it, a device of the machine's."""
_MULTIPLEXER: Final = os.makedev(5, 2)


def private_directory() -> int:
    """A file system that no path leads to: the descriptor of its root. It holds as much as there is memory.

    Raises:
        StepFailed: the kernel refuses.
    """
    with mounting("fsmount"):
        return _new_tmpfs(0o700)


class Grafts:
    """Lays trees over directories, in this process's mount namespace.

    Args:
        real_nodes: device nodes have their numbers, which takes CAP_MKNOD. Without, their number is 0:0.

    Attributes:
        nodes: descriptors (``O_PATH``) of the nodes that were made.
        devices: of file systems that stand for sysfs, as ``st_dev``.
        multiplexer: a descriptor (``O_PATH``) of ``/dev/ptmx`` at its former place; None if it still is
            there.

    Locking: one thread, which has its umask at 0. Cost: 5 us an entry of a directory that gets more entries.
    """

    def __init__(self, *, real_nodes: bool) -> None:
        self._real_nodes: Final = real_nodes
        self.nodes: Final[dict[NodeName, int]] = {}
        self.devices: Final[set[int]] = set()
        self.multiplexer: int | None = None

    def lay(self, place: int, wanted: Directory) -> int:
        """Lay ``wanted`` over the directory ``place``.

        Returns:
            A descriptor of the directory that is there now.

        Raises:
            StepFailed: the kernel refuses.
        """
        there = {} if wanted.alone else _listed(place)
        if not wanted.alone and all(
            _has_place(entry, there.get(name)) for name, entry in wanted.entries.items()
        ):
            self._fill(place, wanted)
            return os.dup(place)
        return self._mirror(place, wanted, there)

    def _mirror(self, place: int, wanted: Directory, there: dict[str, os.stat_result]) -> int:
        """Over ``place`` a tmpfs that shows what is there, and ``wanted``."""
        mode = stat.S_IMODE(os.fstat(place).st_mode)
        with mounting("fsmount"):
            top = _new_tmpfs(mode)
        self._keep_multiplexer(place, there)
        with mounting("move_mount"):
            linux.move_mount(top, place, b"")
        for name, status in there.items():
            if wanted.hidden and name.startswith(wanted.hidden):
                continue
            entry = wanted.entries.get(name)
            if entry is None or (isinstance(entry, Directory) and _has_place(entry, status)):
                _show(place, top, name, status)
        self._fill(top, wanted)
        if wanted.fixed:
            self.devices.add(os.fstat(top).st_dev)
            with mounting("mount_setattr"):
                linux.set_read_only(top)
        return top

    def _keep_multiplexer(self, place: int, there: dict[str, os.stat_result]) -> None:
        """What multiplexes terminals wants ``pts`` beside it; as a bind mount it has nothing beside it."""
        for name, status in there.items():
            if status.st_rdev == _MULTIPLEXER and self.multiplexer is None:
                self.multiplexer = os.open(name, PATH_ONLY, dir_fd=place)

    def _fill(self, top: int, wanted: Directory) -> None:
        for name, entry in wanted.entries.items():
            self._put(top, name, entry)

    def _put(self, top: int, name: str, entry: Entry) -> None:
        match entry:
            case File(content, mode):
                fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode, dir_fd=top)
                with open(fd, "wb") as file:
                    file.write(content)
            case Link(target):
                os.symlink(target, name, dir_fd=top)
            case Node(node):
                self._make_node(top, name, node)
            case Bind(source):
                _make_directory(top, name)
                _bind(os.fsencode(source), top, os.fsencode(name))
            case Directory():
                if _make_directory(top, name):
                    with _opened(top, name) as new:
                        self._fill(new, entry)
                else:
                    with _opened(top, name) as old:
                        os.close(self.lay(old, entry))

    def _make_node(self, top: int, name: str, node: NodeName) -> None:
        if node.minor is None:
            os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=top))
        else:
            # Anybody may make a character device 0:0, which directories list as what it is to be.
            number = os.makedev(MAJOR, node.minor) if self._real_nodes else 0
            with taking("mknod", "CAP_MKNOD, and device control groups that allow it", "pass --userns"):
                os.mknod(name, stat.S_IFCHR | 0o666, number, dir_fd=top)
        self.nodes[node] = os.open(name, PATH_ONLY, dir_fd=top)


def _has_place(entry: Entry, there: os.stat_result | None) -> bool:
    """What is there stays, below ``entry``."""
    if there is None or not stat.S_ISDIR(there.st_mode):
        return False
    return isinstance(entry, Directory | Bind)


def _listed(place: int) -> dict[str, os.stat_result]:
    """What is in a directory; nothing if we, and so the program, may not look."""
    try:
        fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=place)
    except PermissionError:
        return {}
    with ExitStack() as closing:
        closing.callback(os.close, fd)
        there = {}
        for name in os.listdir(fd):
            try:
                there[name] = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except OSError:  # it went meanwhile, or it is a mount of another user's
                continue
        return there


def _show(place: int, top: int, name: str, status: os.stat_result) -> None:
    """In ``top`` what is in ``place``; nothing if it is gone by now."""
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(name, dir_fd=place), name, dir_fd=top)
        return
    if stat.S_ISDIR(status.st_mode):
        os.mkdir(name, stat.S_IMODE(status.st_mode), dir_fd=top)
    else:
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=top))
    raw = os.fsencode(name)
    try:
        _bind(raw, top, raw, place)
    except StepFailed as error:
        if error.code != ENOENT:
            raise
        (os.rmdir if stat.S_ISDIR(status.st_mode) else os.unlink)(name, dir_fd=top)


def _bind(source: bytes, top: int, name: bytes, place: int = linux.AT_FDCWD) -> None:
    tree = _clone(place, source)
    try:
        with mounting(f"move_mount({os.fsdecode(name)})"):
            linux.move_mount(tree, top, name)
    finally:
        os.close(tree)


def _clone(place: int, name: bytes) -> int:
    with mounting(f"open_tree({os.fsdecode(name)})"):
        return linux.clone_tree(place, name)


def _new_tmpfs(mode: int) -> int:
    """One without limits: only root's is as large as memory by itself."""
    return linux.new_tmpfs({"source": "gpuvm", "mode": f"{mode:o}", "size": "0", "nr_inodes": "0"}, _INERT)


def _make_directory(top: int, name: str) -> bool:
    """True if it was not there."""
    try:
        os.mkdir(name, 0o755, dir_fd=top)
    except FileExistsError:
        return False
    return True


@contextmanager
def _opened(top: int, name: str) -> Iterator[int]:
    fd = os.open(name, PATH_ONLY | os.O_DIRECTORY, dir_fd=top)
    try:
        yield fd
    finally:
        os.close(fd)


def mounting(call: str) -> AbstractContextManager[None]:
    """Within, errors are those of mounts."""
    return taking(call, "mounts by descriptor (Linux 5.12)", "see whether a container forbids mounts")
