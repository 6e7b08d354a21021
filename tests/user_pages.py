"""Pages of a program with holes and protections, and programs that are another process."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PAGE = mmap.PAGESIZE

mprotect = ctypes.CDLL(None, use_errno=True).mprotect
mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


class Pages:
    """Pages of this process that can be protected one by one."""

    def __init__(self, count: int) -> None:
        self.map = mmap.mmap(-1, count * PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._whole = ctypes.c_char.from_buffer(self.map)
        self.addr = ctypes.addressof(self._whole)

    def protect(self, page: int, protection: int) -> None:
        assert mprotect(self.addr + page * PAGE, PAGE, protection) == 0

    def forbid(self, page: int) -> None:
        """Nobody gets at it. Were it unmapped, somebody else might get its address."""
        self.protect(page, 0)

    def close(self) -> None:
        mprotect(self.addr, len(self.map), mmap.PROT_READ | mmap.PROT_WRITE)
        del self._whole
        self.map.close()


@contextmanager
def child(body: Callable[[], None]) -> Iterator[int]:
    """The pid of a process that was forked and has carried out ``body``; in the end it must end well."""
    ready, started = os.pipe()
    finish, finished = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(finished)
            body()
            os.write(started, b"x")
            os.read(finish, 1)
            status = 0
        finally:
            os._exit(status)
    os.close(started)
    os.close(finish)
    try:
        assert os.read(ready, 1) == b"x"
        yield pid
    finally:
        os.close(ready)
        os.close(finished)
        assert os.waitpid(pid, 0) == (pid, 0)
