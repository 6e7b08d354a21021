"""Stating: calls that ask what a file is, and the calls that would resize one.

Where the node's file is a real device node the kernel answers for its path, and only what is asked by a
descriptor comes here: by one of the file, or of a directory such as ``/proc/PID/fd``.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from gpuvm.device import linux
from gpuvm.device.faces import Faces
from gpuvm.device.linux import AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW
from gpuvm.device.notify import CONTINUE
from gpuvm.device.paths import directory_argument, read_path, resolve
from gpuvm.device.process import caller_of
from gpuvm.device.tree import NodeName
from gpuvm.errors import GpuvmError
from gpuvm.nouveau.uapi import UserMemory

if TYPE_CHECKING:
    from gpuvm.device.notify import Listener, Notification

_SYSFS: Final = 0x62656572
"""``SYSFS_MAGIC``."""


class Stating:
    """Handles ``stat`` and its like, ``statfs`` and its like, ``truncate``, ``ftruncate`` and ``fallocate``.

    Locking: any thread, nothing held.

    Args:
        faces: the files.
        listener: of the calls.
        sysfs: devices of the file systems that stand for sysfs, as ``st_dev``.
        by_path: whether paths of nodes come here, since their files are no device nodes.
    """

    def __init__(self, faces: Faces, listener: Listener, sysfs: frozenset[int], *, by_path: bool) -> None:
        self._faces: Final = faces
        self._listener: Final = listener
        self._sysfs: Final = sysfs
        self._by_path: Final = by_path

    def fstat(self, call: Notification) -> int:
        """``fstat(fd, buffer)``."""
        fd, buffer = call.args[:2]
        return self._stat(call, self._of_descriptor(call.pid, fd), buffer)

    def stat(self, call: Notification) -> int:
        """``stat(path, buffer)``."""
        path, buffer = call.args[:2]
        return self._stat(call, self._of_path(call.pid, AT_FDCWD, path, 0), buffer)

    def lstat(self, call: Notification) -> int:
        """``lstat(path, buffer)``."""
        path, buffer = call.args[:2]
        return self._stat(call, self._of_path(call.pid, AT_FDCWD, path, AT_SYMLINK_NOFOLLOW), buffer)

    def newfstatat(self, call: Notification) -> int:
        """``newfstatat(directory, path, buffer, flags)``."""
        directory, path, buffer, flags = call.args[:4]
        return self._stat(call, self._of_path(call.pid, directory, path, flags), buffer, flags)

    def statx(self, call: Notification) -> int:
        """``statx(directory, path, flags, mask, buffer)``."""
        directory, path, flags, mask, buffer = call.args[:5]
        node = self._of_path(call.pid, directory, path, flags)
        if node is None:
            return CONTINUE
        return self._write(call, buffer, lambda: self._faces.statx(node, flags, mask))

    def _stat(self, call: Notification, node: NodeName | None, buffer: int, flags: int = 0) -> int:
        if node is None:
            return CONTINUE
        return self._write(call, buffer, lambda: self._faces.stat(node, flags))

    def _write(self, call: Notification, buffer: int, data: Callable[[], bytearray]) -> int:
        try:
            caller_of(self._listener, call).memory.write(buffer, data())
        except GpuvmError as error:
            return -error.code
        except OSError as error:
            return -(error.errno or errno.EIO)
        return 0

    # -- which node

    def _of_descriptor(self, tid: int, fd: int) -> NodeName | None:
        fd &= 0xFFFFFFFF
        node = self._faces.of_open(tid, fd)
        if node is not None or not self._by_path:
            return node
        try:
            file = os.open(f"/proc/{tid}/fd/{fd}", os.O_PATH | os.O_CLOEXEC)
        except OSError:
            return None
        return self._of_own(file)

    def _of_path(self, tid: int, directory: int, path_addr: int, flags: int) -> NodeName | None:
        directory = directory_argument(directory)
        if flags & AT_EMPTY_PATH and not self._by_path and self._faces.of_open(tid, directory) is None:
            return None  # what fstat is made of nowadays
        follow = not flags & AT_SYMLINK_NOFOLLOW
        path = self._faces.candidate(tid, directory, path_addr, follow) if path_addr else b""
        if path is None:
            return None
        if not path and flags & AT_EMPTY_PATH:
            return self._of_descriptor(tid, directory)
        try:
            file = resolve(tid, directory, path, follow=follow)
        except OSError:
            return None
        return self._of_own(file)

    def _of_own(self, file: int) -> NodeName | None:
        """Of a descriptor of our own, which is closed."""
        try:
            node = self._faces.of(file, os.fstat(file))
        finally:
            os.close(file)
        return node if node is None or node.minor is not None else None

    # -- what it is on

    def fstatfs(self, call: Notification) -> int:
        """``fstatfs(fd, buffer)``."""
        fd, buffer = call.args[:2]
        try:
            file = os.open(f"/proc/{call.pid}/fd/{fd & 0xFFFFFFFF}", os.O_PATH | os.O_CLOEXEC)
        except OSError:
            return CONTINUE
        return self._statfs(call, file, buffer)

    def statfs(self, call: Notification) -> int:
        """``statfs(path, buffer)``."""
        path_addr, buffer = call.args[:2]
        path = read_path(UserMemory(call.pid), path_addr)
        if path is None:
            return CONTINUE
        try:
            file = resolve(call.pid, AT_FDCWD, path, follow=True)
        except OSError:
            return CONTINUE
        return self._statfs(call, file, buffer)

    def _statfs(self, call: Notification, file: int, buffer: int) -> int:
        """Our tmpfs with sysfs's files is sysfs. ``file`` is a descriptor of our own, which is closed."""
        try:
            if os.fstat(file).st_dev not in self._sysfs:
                return CONTINUE
            data = linux.statfs_bytes(file)
        finally:
            os.close(file)
        data[:8] = _SYSFS.to_bytes(8, "little")
        return self._write(call, buffer, lambda: data)

    # -- what a device has no size for

    def truncate(self, call: Notification) -> int:
        """``truncate(path, length)``: a path of /proc leads to descriptors, too."""
        node = self._of_path(call.pid, AT_FDCWD, call.args[0], 0)
        return CONTINUE if node is None else -errno.EINVAL

    def ftruncate(self, call: Notification) -> int:
        """``ftruncate(fd, length)``: EINVAL, as for any file that is no regular one."""
        return CONTINUE if self._faces.of_open(call.pid, call.args[0] & 0xFFFFFFFF) is None else -errno.EINVAL

    def fallocate(self, call: Notification) -> int:
        """``fallocate(fd, mode, offset, length)``: ENODEV, as for any file that is no regular one."""
        return CONTINUE if self._faces.of_open(call.pid, call.args[0] & 0xFFFFFFFF) is None else -errno.ENODEV
