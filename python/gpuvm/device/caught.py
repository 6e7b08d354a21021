"""Which system calls are caught: those that a program can tell a device node by. All else is native."""

from __future__ import annotations

import os
from typing import Final

from gpuvm.device.seccomp import Rule

# Of x86-64.
OPEN: Final = 2
STAT: Final = 4
FSTAT: Final = 5
LSTAT: Final = 6
IOCTL: Final = 16
TRUNCATE: Final = 76
FTRUNCATE: Final = 77
CREAT: Final = 85
STATFS: Final = 137
FSTATFS: Final = 138
OPENAT: Final = 257
NEWFSTATAT: Final = 262
FALLOCATE: Final = 285
STATX: Final = 332
OPENAT2: Final = 437

IOCTL_TYPES: Final = b"dW>b"
"""DRM, ``sw_sync``, sync files, dma-bufs."""

AT_EMPTY_PATH: Final = 0x1000
_NO_OPEN: Final = os.O_PATH | os.O_DIRECTORY
"""A file that is opened so is not read, written, mapped or controlled: a stand-in does."""


def rules(*, paths_are_stated: bool) -> tuple[Rule, ...]:
    """What the filter has to catch.

    Args:
        paths_are_stated: the node's file is a stand-in, since an ordinary user can make no device node; so
            ``stat`` and its like are caught by path, too.
    """
    return (
        Rule(IOCTL, 1, 0xFF00, tuple(kind << 8 for kind in IOCTL_TYPES)),
        Rule(FSTAT),
        Rule(OPENAT, 2, _NO_OPEN, (0,)),
        *(_STAT_PATHS if paths_are_stated else _STAT_DESCRIPTORS),
        Rule(OPEN, 1, _NO_OPEN, (0,)),
        Rule(OPENAT2),
        Rule(CREAT),
        Rule(STATFS),
        Rule(FSTATFS),
        Rule(TRUNCATE),
        Rule(FTRUNCATE),
        Rule(FALLOCATE),
    )


_STAT_DESCRIPTORS: Final = (
    Rule(NEWFSTATAT, 0, 1 << 31, (0,)),  # with a descriptor; that may be of /proc/PID/fd
    Rule(STATX, 2, AT_EMPTY_PATH, (AT_EMPTY_PATH,)),
)
_STAT_PATHS: Final = (Rule(NEWFSTATAT), Rule(STATX), Rule(STAT), Rule(LSTAT))
