"""Closes: which files of a directory were closed, as the kernel tells it."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import Final, NamedTuple

from gpuvm.errors import TooManyFiles

_CLOSE_WRITE: Final = 0x8
_CLOSE_NOWRITE: Final = 0x10
_Q_OVERFLOW: Final = 0x4000
_ONLYDIR: Final = 0x1000000

_EVENT: Final = struct.Struct("=iIII")
_ROOM: Final = 1 << 16

_libc: Final = ctypes.CDLL(None, use_errno=True)


class Closed(NamedTuple):
    """What was told since the last time."""

    names: list[str]
    """Of files that were closed, once for each open file description; neighbours that are equal once only."""
    lost: bool
    """There were more than the kernel keeps; anything may have been closed."""


class Closes:
    """Tells that files of a directory are closed: when no descriptor and no mapping of an open is left.

    Each *name* of a file is told for itself: an open by one hard link is not one by another.

    Locking: one reader at a time.

    Args:
        directory: its descriptor. It may be one that is mounted nowhere.

    Raises:
        TooManyFiles: the kernel gives this user no more such instances, or there is no descriptor left.

    Source: ``inotify(7)``; ``fsnotify_close``, which the last ``fput`` of a file comes to.
    """

    __slots__ = ("fd",)

    def __init__(self, directory: int) -> None:
        self.fd: Final = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        path = f"/proc/self/fd/{directory}".encode()
        try:
            _checked(_libc.inotify_add_watch(self.fd, path, _CLOSE_WRITE | _CLOSE_NOWRITE | _ONLYDIR))
        except BaseException:
            os.close(self.fd)
            raise

    def read(self) -> Closed:
        """What was closed since the last time; does not wait."""
        names: list[str] = []
        lost = False
        while True:
            try:
                data = os.read(self.fd, _ROOM)
            except BlockingIOError:
                return Closed(names, lost)
            at = 0
            while at < len(data):
                _, mask, _, length = _EVENT.unpack_from(data, at)
                at += _EVENT.size
                lost |= bool(mask & _Q_OVERFLOW)
                if length:
                    names.append(os.fsdecode(data[at : at + length].rstrip(b"\0")))
                at += length

    def close(self) -> None:
        """Let go of the descriptor."""
        os.close(self.fd)


def _checked(result: int) -> int:
    if result >= 0:
        return result
    error = ctypes.get_errno()
    if error in (errno.EMFILE, errno.ENFILE, errno.ENOSPC):
        raise TooManyFiles(
            f"inotify: {os.strerror(error)}; see the sysctls fs.inotify.max_user_instances and "
            "max_user_watches, and `ulimit -n`"
        )
    raise OSError(error, os.strerror(error), "inotify")
