"""Which file a path means to a program: in its own root, from its own directory, with its own ``/proc/self``.

The kernel walks the path for us, from descriptors of the program's directories, and so sees the mounts that
the program sees. Only what would mean something else when we walk is walked here, step by step.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

from gpuvm.device import linux
from gpuvm.device.linux import Resolve
from gpuvm.errors import GpuvmError
from gpuvm.nouveau.uapi import UserMemory

PATH_MAX: Final = 4096
"""Bytes of a path, its last zero included."""
_PAGE: Final = 4096
_LINKS: Final = 40
"""That are followed on one way."""
_PROC: Final = 0x9FA0
"""``PROC_SUPER_MAGIC``."""
_PROC_ROOT: Final = 1
"""Its inode."""
_STEP: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_OWN: Final = (b"self", b"thread-self")
_CONFINED: Final = Resolve.IN_ROOT | Resolve.BENEATH


def read_path(memory: UserMemory, addr: int) -> bytes | None:
    """The string at ``addr``; None if the kernel would refuse it."""
    path = bytearray()
    try:
        while len(path) < PATH_MAX:
            at = addr + len(path)
            size = min(_PAGE - at % _PAGE, PATH_MAX - len(path), 256)
            chunk = memory.read(at, size)
            end = chunk.find(0)
            if end >= 0:
                path += chunk[:end]
                return bytes(path)
            path += chunk
    except GpuvmError:
        return None
    return None


def directory_argument(value: int) -> int:
    """A directory's descriptor as it is passed to a system call: an ``int`` with a sign."""
    return ((value & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000


def resolve(tid: int, directory: int, path: bytes, *, follow: bool, how: int = 0) -> int:
    """A descriptor (``O_PATH``) of what ``path`` is to the thread ``tid``.

    Args:
        directory: the program's descriptor that a relative path begins at, or ``AT_FDCWD``.
        follow: the last link, too.
        how: what ``openat2`` was asked for.

    Raises:
        OSError: it leads nowhere, or we cannot tell.

    Cost: 3 system calls, 5 us; more for paths by way of ``/proc/self``.

    Source: ``path_openat``, ``openat2(2)``, ``path_resolution(7)``.
    """
    absolute = path.startswith(b"/") and not how & Resolve.IN_ROOT
    start = _opened(tid, "root") if absolute else _opened_directory(tid, directory)
    try:
        flags = os.O_PATH | (0 if follow else os.O_NOFOLLOW)
        confined: int = Resolve.IN_ROOT if absolute else Resolve.BENEATH
        if how & _CONFINED:
            confined = 0
        try:
            return linux.openat2(start, path, flags, how | confined)
        except OSError as error:
            if how & _CONFINED or not _means_else(start, path, error.errno):
                raise
    finally:
        os.close(start)
    return walk(tid, directory, path, follow=follow, how=how)


def walk(tid: int, directory: int, path: bytes, *, follow: bool, how: int = 0) -> int:
    """As ``resolve``, for a path that may lead through ``/proc/self``, which to the kernel would be ours.

    Cost: 3 us a directory on the way.
    """
    root = _opened(tid, "root")
    try:
        start = os.dup(root) if path.startswith(b"/") else _opened_directory(tid, directory)
        way = _Walk(tid, start, root, how)
        try:
            return way.to_end(path, follow=follow)
        finally:
            way.close()
    finally:
        os.close(root)


def _means_else(start: int, path: bytes, code: int | None) -> bool:
    """Whether the kernel, walking for us, may have come to another end than walking for the program."""
    if code == errno.ENOENT:  # so it is, unless a link led it to what /proc/self is to us
        try:
            os.close(linux.openat2(start, path, os.O_PATH, Resolve.IN_ROOT | Resolve.NO_SYMLINKS))
        except OSError as error:
            code = error.errno
    return code in (errno.EXDEV, errno.ELOOP, errno.EAGAIN)


def _opened(tid: int, name: str) -> int:
    return os.open(f"/proc/{tid}/{name}", os.O_PATH | os.O_CLOEXEC)


def _opened_directory(tid: int, directory: int) -> int:
    return _opened(tid, "cwd" if directory == linux.AT_FDCWD else f"fd/{directory}")


def _numbers(tid: int, key: str) -> list[int]:
    """Of a line of ``/proc/TID/status``."""
    with open(f"/proc/{tid}/status", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith(key + ":"):
                return [int(word) for word in line.split()[1:]]
    raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))


class _Walk:
    """A way from one directory to the next, for a thread of another process.

    Args:
        tid: the thread.
        start: where it begins; this object's from now on.
        root: the thread's root directory.
        how: what it may not lead through, of ``Resolve``.
    """

    def __init__(self, tid: int, start: int, root: int, how: int) -> None:
        self._tid: Final = tid
        self._root: Final = root
        self._how: Final = how
        self._at = start
        self._links = 0

    def close(self) -> None:
        """Where it came to is closed, too."""
        os.close(self._at)

    def to_end(self, path: bytes, *, follow: bool) -> int:
        """A descriptor of what is at the end of ``path``."""
        names = self._names(path)
        while names:
            name = names.pop()
            if name == b"..":
                if not os.path.samestat(os.fstat(self._at), os.fstat(self._root)):
                    self._step(os.open(b"..", _STEP | os.O_DIRECTORY, dir_fd=self._at))
                continue
            fd = os.open(name, _STEP, dir_fd=self._at)
            if not stat.S_ISLNK(os.fstat(fd).st_mode) or not (names or follow):
                self._step(fd)
                continue
            try:
                names += self._follow(fd, name)
            finally:
                os.close(fd)
        return os.dup(self._at)

    def _names(self, path: bytes) -> list[bytes]:
        """What is to be done, the last first."""
        if path.startswith(b"/"):
            self._step(os.dup(self._root))
        names = [name for name in path.split(b"/") if name]
        if path.endswith(b"/"):
            names.append(b".")
        return names[::-1]

    def _step(self, fd: int) -> None:
        before, self._at = self._at, fd
        try:
            if self._how & Resolve.NO_XDEV and linux.mount_of(before) != linux.mount_of(fd):
                raise _error(errno.EXDEV)
        finally:
            os.close(before)

    def _follow(self, link: int, name: bytes) -> list[bytes]:
        """Names that a link adds to the way, the last first; none if it was followed here."""
        self._links += 1
        if self._links > _LINKS or self._how & Resolve.NO_SYMLINKS:
            raise _error(errno.ELOOP)
        if linux.file_system_type(link) != _PROC:
            return self._names(os.readlink(b"", dir_fd=link))
        if name in _OWN and os.fstat(self._at).st_ino == _PROC_ROOT:
            return self._names(self._own_directory(name))
        try:
            os.close(linux.openat2(self._at, name, os.O_PATH, Resolve.NO_MAGICLINKS))
        except OSError as error:
            if error.errno == errno.ELOOP:  # no text leads there, only the kernel
                self._jump(name)
                return []
        return self._names(os.readlink(b"", dir_fd=link))

    def _jump(self, name: bytes) -> None:
        if self._how & Resolve.NO_MAGICLINKS:
            raise _error(errno.ELOOP)
        self._step(os.open(name, os.O_PATH | os.O_CLOEXEC, dir_fd=self._at))

    def _own_directory(self, name: bytes) -> bytes:
        """What ``/proc/self`` or ``/proc/thread-self`` is to the thread, in the procfs that it looks at."""
        try:
            ours = os.readlink(b"self", dir_fd=self._at) == b"%d" % os.getpid()
        except FileNotFoundError:
            ours = False
        # A procfs of another namespace of processes is the one of the namespace that the thread is in.
        which = 0 if ours else -1
        process = _numbers(self._tid, "NStgid")[which]
        if name == b"self":
            return b"%d" % process
        return b"%d/task/%d" % (process, _numbers(self._tid, "NSpid")[which])


def _error(code: int) -> OSError:
    return OSError(code, os.strerror(code))
