"""Copied: what a driver took from a program and gave to it while it carried out one call: bytes and files."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final

from gpuvm._core import CopiedMemory
from gpuvm.nouveau.uapi.caller import UserFiles
from gpuvm.nouveau.uapi.user_memory import UserMemory


class Copied(CopiedMemory, UserMemory):
    """A program's memory for the time of one call; it keeps what was read and written.

    A program may change its memory at any time, so what was copied is what the call was about, and nothing
    else is. A ``Spool`` takes it as a part of a frame. Locking: the thread that makes the call.

    Args:
        memory: the program's.
    """

    __slots__ = ()


class CopiedFiles:
    """A program's descriptors for the time of one call; it keeps which file was passed in or out.

    Args:
        files: the program's.

    Attributes:
        file: device and inode of the last one; None: none, or it was not open.
    """

    __slots__ = ("_files", "file")

    def __init__(self, files: UserFiles) -> None:
        self._files: Final = files
        self.file: tuple[int, int] | None = None

    def fget(self, number: int) -> int:
        """As the program's descriptors do."""
        ours = self._files.fget(number)
        self._note(ours)
        return ours

    def install(self, number: int, *, cloexec: bool) -> int:
        """As the program's descriptors do."""
        self._note(number)
        return self._files.install(number, cloexec=cloexec)

    def _note(self, number: int) -> None:
        self.file = None
        with suppress(OSError):
            found = os.fstat(number)
            self.file = found.st_dev, found.st_ino
