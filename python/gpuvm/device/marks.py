"""Marks on opens of a file: each lasts exactly as long as its open, in whatever processes that is."""

from __future__ import annotations

import fcntl
import os
import struct
from typing import Final

_FLOCK: Final = struct.Struct("=hh4xqqi4x")
"""``struct flock``."""


def mark(fd: int, number: int) -> bool:
    """Put mark ``number`` on the open that ``fd`` is a descriptor of. Only its last close takes it away.

    It is a lock on the byte with this number, which belongs to the open file description. Other opens of the
    file, by whatever name, are not asked. A program that unlocks it itself deceives nobody but itself. While
    one has locked the file for itself there are no further marks: False.

    Args:
        number: below 2^63, of no other open of the file.

    Raises:
        OSError: the kernel has no memory for it.

    Source: ``F_OFD_SETLK`` of ``fcntl(2)``.
    """
    writes_only = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY
    kind = fcntl.F_WRLCK if writes_only else fcntl.F_RDLCK
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, number, 1, 0))
    except BlockingIOError:
        return False
    return True


def is_marked(fd: int, number: int) -> bool:
    """Whether an open of the file with mark ``number`` is still there. ``fd`` is another open of it.

    Cost: a system call, and O(marks).
    """
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, number, 1, 0)
    kind: int = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked))[0]
    return kind != fcntl.F_UNLCK
