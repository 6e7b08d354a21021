"""Opening: calls that open a path, and whether it is one of our files."""

from __future__ import annotations

import errno
import os
import re
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from gpuvm.device import linux
from gpuvm.device.faces import Faces
from gpuvm.device.node import OpenNode
from gpuvm.device.notify import CONTINUE
from gpuvm.device.paths import directory_argument, read_path, resolve, walk
from gpuvm.device.tree import NodeName
from gpuvm.errors import GpuvmError
from gpuvm.nouveau.fdinfo import fdinfo
from gpuvm.nouveau.uapi import UserMemory

if TYPE_CHECKING:
    from gpuvm.device.notify import Listener, Notification

_HOW: Final = struct.Struct("=3Q")
_LONGEST_HOW: Final = 4096
_FLAGS: Final = 0o37777703
"""That ``open`` has. Others are no flags, which ``openat2`` minds."""
_NOT_OURS: Final = os.O_PATH | os.O_DIRECTORY
_FDINFO: Final = re.compile(rb"/([0-9]+)/fdinfo/([0-9]+)$")
"""A process or a thread, and its descriptor."""
_NAMES: Final = frozenset(name.value.encode() for name in NodeName)
_DEVICES: Final = (b"/dev/dri", b"/dev/nvidia")


class Opening:
    """Handles ``open``, ``openat``, ``openat2`` and ``creat``.

    Every error of the path's own, such as a link too many, is left to the kernel to say.

    Locking: any thread, nothing held.

    Args:
        faces: the files.
        listener: of the calls.
        missing: is told of paths of devices that are not there.
    """

    def __init__(self, faces: Faces, listener: Listener, missing: Callable[[bytes], None]) -> None:
        self._faces: Final = faces
        self._listener: Final = listener
        self._missing: Final = missing

    def open(self, call: Notification) -> int:
        """``open(path, flags, mode)``."""
        path, flags = call.args[:2]
        return self._open(call, linux.AT_FDCWD, path, flags)

    def creat(self, call: Notification) -> int:
        """``creat(path, mode)``."""
        return self._open(call, linux.AT_FDCWD, call.args[0], os.O_CREAT | os.O_WRONLY | os.O_TRUNC)

    def openat(self, call: Notification) -> int:
        """``openat(directory, path, flags, mode)``."""
        directory, path, flags = call.args[:3]
        return self._open(call, directory_argument(directory), path, flags)

    def openat2(self, call: Notification) -> int:
        """``openat2(directory, path, how, size)``."""
        directory, path, how, size = call.args[:4]
        if not _HOW.size <= size <= _LONGEST_HOW:
            return CONTINUE
        try:
            data = UserMemory(call.pid).read(how, size)
        except GpuvmError:
            return CONTINUE
        flags, mode, how_resolve = _HOW.unpack_from(data)
        if (
            flags & ~_FLAGS
            or flags & _NOT_OURS
            or (mode and not flags & os.O_CREAT)
            or any(data[_HOW.size :])
        ):
            return CONTINUE
        return self._open(call, directory_argument(directory), path, flags, how_resolve)

    def _open(self, call: Notification, directory: int, path_addr: int, flags: int, how: int = 0) -> int:
        follow = not flags & os.O_NOFOLLOW
        if how:
            path = read_path(UserMemory(call.pid), path_addr)
        else:
            path = self._faces.candidate(call.pid, directory, path_addr, follow)
        if path is None:
            return CONTINUE
        try:
            fd = resolve(call.pid, directory, path, follow=follow, how=how)
        except FileNotFoundError:
            self._note_missing(call.pid, directory, path)
            return CONTINUE
        except OSError as error:
            full = error.errno in (errno.EMFILE, errno.ENFILE) and os.path.basename(path) in _NAMES
            return -errno.ENFILE if full else CONTINUE  # the kernel says the same, but for us
        try:
            status = os.fstat(fd)
            node = self._faces.of(fd, status)
            if node is not None:
                return self._open_node(call, node, flags)
            if self._faces.is_multiplexer(status):
                return self._open_terminal(call, flags)
            if status.st_dev == self._faces.proc:
                of_proc = os.readlink(f"/proc/self/fd/{fd}".encode())
                return self._open_fdinfo(call, directory, path, of_proc, flags)
        finally:
            os.close(fd)
        return CONTINUE

    def _open_node(self, call: Notification, node: NodeName, flags: int) -> int:
        if flags & os.O_CREAT and flags & os.O_EXCL:
            return CONTINUE  # there it is: EEXIST
        if flags & os.O_DIRECT:
            return -errno.EINVAL
        if not self._listener.is_valid(call.id):
            return CONTINUE  # what was read was another's path
        opens = self._faces.opens
        if node is NodeName.SW_SYNC:
            return self._give(call, opens.open_sw_sync(_name(call.pid)), flags)
        _, fd = opens.open(node.value, flags, _name(call.pid))
        return self._give(call, fd, flags)

    def _open_terminal(self, call: Notification, flags: int) -> int:
        """A new pseudo terminal, which is ours until the program has it."""
        if flags & os.O_CREAT and flags & os.O_EXCL:
            return CONTINUE
        kept = flags & (os.O_ACCMODE | os.O_NONBLOCK)
        try:
            fd = os.open(f"/proc/self/fd/{self._faces.multiplexer}", kept | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError as error:
            return -(error.errno or errno.EIO)
        return self._give(call, fd, flags)

    def _give(self, call: Notification, fd: int, flags: int) -> int:
        """The program's number for our descriptor, which is closed."""
        try:
            return self._listener.add_fd(call.id, fd, cloexec=bool(flags & os.O_CLOEXEC))
        finally:
            os.close(fd)

    def _open_fdinfo(
        self, call: Notification, directory: int, path: bytes, of_proc: bytes, flags: int
    ) -> int:
        """A file of procfs, which may be what it tells of an open of ours."""
        if flags & os.O_ACCMODE or _FDINFO.search(of_proc) is None:
            return CONTINUE
        try:
            fd = walk(
                call.pid, directory, path, follow=not flags & os.O_NOFOLLOW
            )  # /proc/self is the program's
            try:
                of_proc = os.readlink(f"/proc/self/fd/{fd}".encode())
            finally:
                os.close(fd)
            found = _FDINFO.search(of_proc)
            if found is None:
                return CONTINUE
            of_open = self._faces.opens.find(int(found[1]), int(found[2]))
            if not isinstance(of_open, OpenNode):
                return CONTINUE
            with open(f"/proc/{int(found[1])}/fdinfo/{int(found[2])}", "rb") as file:
                lines = [line for line in file if not line.startswith(b"lock:")]  # those are ours
            text = b"".join(lines) + fdinfo(of_open.client).encode()
            return self._give(call, _file_of(text), flags)
        except OSError:
            return CONTINUE

    def _note_missing(self, tid: int, directory: int, path: bytes) -> None:
        if not path.startswith(b"/"):
            try:
                start = "cwd" if directory == linux.AT_FDCWD else f"fd/{directory}"
                path = os.path.join(os.readlink(f"/proc/{tid}/{start}".encode()), path)
            except OSError:
                return
        path = os.path.normpath(path)
        if path.startswith(_DEVICES):
            self._missing(path)


def _file_of(text: bytes) -> int:
    """A descriptor of a file to be read."""
    written = os.memfd_create("fdinfo")
    try:
        os.write(written, text)
        return os.open(f"/proc/self/fd/{written}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(written)


def _name(tid: int) -> str:
    """Of the process, for reports."""
    try:
        with open(f"/proc/{tid}/comm", encoding="utf-8", errors="replace") as file:
            return f"{file.read().rstrip()} ({tid})"
    except OSError:
        return f"process {tid}"
