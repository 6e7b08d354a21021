"""Copied: what a driver took from a program and gave to it while it carried out one call: bytes and files."""

from __future__ import annotations

import os
from contextlib import suppress
from operator import index
from typing import Final, Self, SupportsIndex

from gpuvm.nouveau.uapi.caller import UserFiles
from gpuvm.nouveau.uapi.user_memory import LONGEST, UserMemory


class Copied(UserMemory):
    """A program's memory for the time of one call; it keeps what was read and written.

    A program may change its memory at any time, so what was copied is what the call was about, and nothing
    else is. Locking: the thread that makes the call.

    Args:
        memory: the program's.
    """

    __slots__ = ("_memory", "_reads", "_writes")

    _memory: UserMemory
    _reads: dict[int, bytes]
    _writes: dict[int, bytes]

    def __new__(cls, memory: UserMemory) -> Self:
        """As the class says."""
        made = super().__new__(cls, memory.pid)
        made._memory, made._reads, made._writes = memory, {}, {}
        return made

    def read(self, addr: SupportsIndex, size: SupportsIndex) -> bytearray:
        """As the program's memory does."""
        return self._keep(addr, self._memory.read(addr, size))

    def read_array(
        self,
        addr: SupportsIndex,
        count: SupportsIndex,
        size: SupportsIndex,
        most: SupportsIndex = LONGEST,
    ) -> bytearray:
        """As the program's memory does."""
        return self._keep(addr, self._memory.read_array(addr, count, size, most))

    def _keep(self, addr: SupportsIndex, data: bytearray) -> bytearray:
        if len(self._reads.get(index(addr), b"")) < len(data):
            self._reads[index(addr)] = bytes(data)
        return data

    def write(self, addr: SupportsIndex, data: bytes | bytearray) -> None:
        """As the program's memory does."""
        self._memory.write(addr, data)
        self._writes[index(addr)] = bytes(data)

    def told(self, addr: int, size: int) -> bytes | None:
        """The first ``size`` bytes that were read at ``addr``; None if they were not."""
        data = self._reads.get(addr, b"")
        return data[:size] if len(data) >= size else None

    def answered(self, addr: int) -> bytes | None:
        """What was written to ``addr``; None: nothing."""
        return self._writes.get(addr)


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
