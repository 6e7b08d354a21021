"""UserMemory: the memory of the program that makes a call, by its own addresses."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import Final

from gpuvm.errors import BadAddress, OutOfMemory, PermissionDenied, TooMany

U64_END: Final = 1 << 64
WINDOW: Final = 1 << 16
"""How many bytes one system call copies at most."""

LONGEST: Final = 1 << 26
"""The longest array of a driver's call, in bytes. The kernel takes 2 GiB; we make objects of its items."""

# The interpreter's lock is kept: copying a few bytes takes less time than getting it back.
_libc: Final = ctypes.PyDLL(None, use_errno=True)
_SIZE_ADDR_SIZE: Final = struct.Struct("=3Q")


class _Window:
    """A buffer of ours, and what the system calls take that fill and empty it.

    ctypes takes long to convert arguments, so they are of its own types, and what differs from one call to
    the next is behind pointers.
    """

    __slots__ = ("_pinned", "arguments", "buffer", "iovecs")

    def __init__(self, pid: int) -> None:
        self.buffer: Final = bytearray(WINDOW)
        self.iovecs: Final = bytearray(32)
        """Address and size of our bytes, then of the program's: all but the first for each call anew."""
        self._pinned: Final = [
            (ctypes.c_char * len(part)).from_buffer(part) for part in (self.buffer, self.iovecs)
        ]
        buffer, ours = map(ctypes.addressof, self._pinned)
        struct.pack_into("=Q", self.iovecs, 0, buffer)
        self.arguments: Final = (
            ctypes.c_int(pid),
            ctypes.c_void_p(ours),
            ctypes.c_ulong(1),
            ctypes.c_void_p(ours + 16),
            ctypes.c_ulong(1),
            ctypes.c_ulong(0),
        )


class UserMemory:
    """The memory of one process, this one or another, as the kernel's ``copy_from_user`` gets at it.

    Addresses and sizes may be any u64 that a program made up: a bad one is an error, never a crash, and no
    memory is allocated for what cannot be read. Protections hold.

    Locking: none; any thread may call anything.

    Cost: 3 us a call, which is the system call's; ``/proc/PID/mem`` takes half of that, but reads and writes
    what is protected, too.

    Args:
        pid: whose memory. Of another process it takes the right to trace it.

    Source: ``process_vm_readv(2)``.
    """

    __slots__ = ("_windows", "pid")

    def __init__(self, pid: int) -> None:
        self.pid: Final = pid
        self._windows: Final[list[_Window]] = []
        """Those that no call uses now."""

    @staticmethod
    def own() -> UserMemory:
        """This process's memory."""
        return _own[0]

    def read(self, addr: int, size: int) -> bytearray:
        """A copy of ``size`` bytes. None can be read anywhere.

        Raises:
            BadAddress: not all can be read, or the process is gone.
            PermissionDenied: we may not look into that process.
        """
        if addr + size > U64_END:
            raise self._wraps(addr, size)
        if size <= WINDOW:
            return self._read(addr, size) if size else bytearray()
        data = bytearray()
        for done in range(0, size, WINDOW):
            data += self._read(addr + done, min(size - done, WINDOW))
        return data

    def write(self, addr: int, data: bytes | bytearray) -> None:
        """Copy ``data`` to ``addr``. No bytes can be written anywhere.

        Raises:
            BadAddress: not all can be written, though the first may have been; or the process is gone.
            PermissionDenied: we may not look into that process.
        """
        if addr + len(data) > U64_END:
            raise self._wraps(addr, len(data))
        for done in range(0, len(data), WINDOW):
            self._write(addr + done, data[done : done + WINDOW])

    def read_array(self, addr: int, count: int, size: int, most: int = LONGEST) -> bytearray:
        """The ``count`` items of an array, each of ``size`` bytes.

        Args:
            most: bytes of the longest array that is taken.

        Raises:
            TooMany: ``count`` times ``size`` is no u64.
            OutOfMemory: the array is longer than ``most``.
            GpuvmError: as ``read``.

        Source: ``u_memcpya``.
        """
        total = count * size
        if total <= most:
            return self.read(addr, total)
        if total >= U64_END:
            raise TooMany(f"{count} items of {size} bytes are more than addresses can tell", count, U64_END)
        raise OutOfMemory(f"{count} items of {size} bytes; pass {most // size} at most", count, most // size)

    def _read(self, addr: int, size: int) -> bytearray:
        window = self._take(addr, size)
        copied = _libc.process_vm_readv(*window.arguments)
        data = window.buffer[:size]
        self._windows.append(window)
        if copied != size:
            raise self._failed("read", addr, size, copied)
        return data

    def _write(self, addr: int, data: bytes | bytearray) -> None:
        window = self._take(addr, len(data))
        window.buffer[: len(data)] = data
        copied = _libc.process_vm_writev(*window.arguments)
        self._windows.append(window)
        if copied != len(data):
            raise self._failed("written", addr, len(data), copied)

    def _take(self, addr: int, size: int) -> _Window:
        try:
            window = self._windows.pop()
        except IndexError:
            window = _Window(self.pid)
        _SIZE_ADDR_SIZE.pack_into(window.iovecs, 8, size, addr, size)
        return window

    def _wraps(self, addr: int, size: int) -> BadAddress:
        return BadAddress(f"{size:#x} bytes at {addr:#x} end behind the last address", addr, U64_END)

    def _failed(self, how: str, addr: int, size: int, copied: int) -> BadAddress | PermissionDenied:
        if copied < 0 and ctypes.get_errno() == errno.EPERM:
            return PermissionDenied(
                f"the memory of process {self.pid} cannot be {how}: we may not trace it; run as its user, "
                "and see the kernel's ptrace_scope",
                self.pid,
            )
        return BadAddress(f"not all {size:#x} bytes of process {self.pid} at {addr:#x} can be {how}", addr)

    def __repr__(self) -> str:
        return f"<UserMemory of process {self.pid}>"


_own: Final = [UserMemory(os.getpid())]


def _after_fork() -> None:
    _own[0] = UserMemory(os.getpid())


os.register_at_fork(after_in_child=_after_fork)
