"""UserMemory: the memory of the program that makes a call, by its own addresses."""

from __future__ import annotations

import os
from typing import Final

from gpuvm._core import ProcessMemory

LONGEST: Final = ProcessMemory.LONGEST
"""The longest array of a driver's call, in bytes. The kernel takes 2 GiB; we make objects of its items."""


class UserMemory(ProcessMemory):
    """The memory of one process, this one or another, as the kernel's ``copy_from_user`` gets at it.

    Addresses and sizes may be any u64 that a program made up: a bad one is an error, never a crash, and no
    memory is allocated for what cannot be read. Protections hold.

    - ``read(addr, size)``: a copy of so many bytes; none can be read anywhere
    - ``write(addr, data)``: the other way round
    - ``read_array(addr, count, size, most)``: the items of an array, each of ``size`` bytes, ``most`` bytes
      together. Default: ``LONGEST``

    Locking: none; any thread may call anything.

    Cost: 2 us a call, which is the system call's; ``/proc/PID/mem`` takes less, but reads and writes what is
    protected, too.

    Args:
        pid: whose memory. Of another process it takes the right to trace it.

    Raises (every call):
        BadAddress: not all can be read or written, though the first may have been; or the process is gone.
        PermissionDenied: we may not look into that process.
        TooMany: the ``count`` times the ``size`` of an array is no u64.
        OutOfMemory: the array is longer than ``most``.

    Source: ``process_vm_readv(2)``, ``u_memcpya``.
    """

    __slots__ = ()

    @staticmethod
    def own() -> UserMemory:
        """This process's memory."""
        return _own[0]


_own: Final = [UserMemory(os.getpid())]


def _after_fork() -> None:
    _own[0] = UserMemory(os.getpid())


os.register_at_fork(after_in_child=_after_fork)
