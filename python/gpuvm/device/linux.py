"""System calls that Python has no function for, as far as the virtual device makes them."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable
from enum import IntEnum, IntFlag
from typing import Final

from gpuvm.errors import NotSupported

# The interpreter's lock is given back meanwhile: a path may lead into a file system that a program serves,
# and that never answers.
_libc: Final = ctypes.CDLL(None, use_errno=True)

AT_FDCWD: Final = -100
AT_SYMLINK_NOFOLLOW: Final = 0x100
AT_EMPTY_PATH: Final = 0x1000
_AT_RECURSIVE: Final = 0x8000


class SystemCall(IntEnum):
    """Numbers on x86-64 (``arch/x86/entry/syscalls/syscall_64.tbl``)."""

    CAPGET = 125
    CAPSET = 126
    RT_SIGACTION = 13
    FSTATFS = 138
    PIVOT_ROOT = 155
    NEWFSTATAT = 262
    STATX = 332
    OPEN_TREE = 428
    MOVE_MOUNT = 429
    FSOPEN = 430
    FSCONFIG = 431
    FSMOUNT = 432
    OPENAT2 = 437
    PIDFD_GETFD = 438
    MOUNT_SETATTR = 442


class CloneFlag(IntFlag):
    """What a process stops sharing (``unshare(2)``)."""

    NEWNS = 0x20000
    NEWUSER = 0x10000000


class MountFlag(IntFlag):
    """Of ``mount(2)`` and ``umount2(2)``."""

    RECURSIVE = 0x4000
    SLAVE = 1 << 19
    DETACH = 2


class MountAttribute(IntFlag):
    """Of one mount (``fsmount(2)``)."""

    RDONLY = 1
    NOSUID = 2
    NODEV = 4
    NOEXEC = 8


class Resolve(IntFlag):
    """How ``openat2(2)`` walks a path."""

    NO_XDEV = 1
    NO_MAGICLINKS = 2
    NO_SYMLINKS = 4
    BENEATH = 8
    IN_ROOT = 16


class Capability(IntEnum):
    """Of ``capabilities(7)``: those that are spoken of here."""

    DAC_READ_SEARCH = 2
    KILL = 5
    SYS_PTRACE = 19


def system_call(number: int, *arguments: int | bytes | bytearray | None) -> int:
    """What the system call returns. Buffers are passed by address.

    Raises:
        OSError: it failed.
    """
    result: int = _libc.syscall(number, *map(_argument, arguments))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def _argument(value: int | bytes | bytearray | None) -> object:
    if isinstance(value, bytearray):
        return (ctypes.c_char * len(value)).from_buffer(value)
    return ctypes.c_long(value) if isinstance(value, int) else value


def _done(result: int) -> None:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def reset_signal(number: int) -> None:
    """Have a signal do what it does by itself: also one of those that the C library keeps for itself."""
    action, size_of_mask = bytes(32), 8
    system_call(SystemCall.RT_SIGACTION, number, action, None, size_of_mask)


# -- files


_OPEN_HOW: Final = struct.Struct("=3Q")


def openat2(directory: int, path: bytes, flags: int, resolve: int) -> int:
    """A descriptor, closed at exec, for what ``path`` leads to from ``directory``.

    Raises:
        OSError: EXDEV or ELOOP: ``resolve`` forbids a step on the way; EAGAIN: something was renamed
            meanwhile; or as ``open``.
    """
    how = _OPEN_HOW.pack(flags | os.O_CLOEXEC, 0, resolve)
    return system_call(SystemCall.OPENAT2, directory, path, how, len(how))


def pidfd_getfd(pidfd: int, number: int) -> int:
    """A descriptor of our own for the other process's ``number``.

    Raises:
        OSError: EBADF: it has no such one; ESRCH: it is gone; EPERM: we may not trace it.
    """
    return system_call(SystemCall.PIDFD_GETFD, pidfd, number, 0)


def stat_bytes(fd: int, flags: int) -> bytearray:
    """``struct stat`` of a file, ``O_PATH`` or not, as the kernel writes it.

    Args:
        flags: as passed to ``newfstatat``.

    Raises:
        OSError: the kernel does not take them.
    """
    data = bytearray(144)
    system_call(SystemCall.NEWFSTATAT, fd, b"", data, flags | AT_EMPTY_PATH)
    return data


def statx_bytes(fd: int, flags: int, mask: int) -> bytearray:
    """``struct statx`` of a file, as ``stat_bytes``."""
    data = bytearray(256)
    system_call(SystemCall.STATX, fd, b"", flags | AT_EMPTY_PATH, mask, data)
    return data


def statfs_bytes(fd: int) -> bytearray:
    """``struct statfs`` of a file's file system, as ``stat_bytes``."""
    data = bytearray(120)
    system_call(SystemCall.FSTATFS, fd, data)
    return data


def mount_of(fd: int) -> int:
    """A number of the mount that a file was reached by (``STATX_MNT_ID``, Linux 5.8)."""
    return int.from_bytes(statx_bytes(fd, 0, 0x1000)[0x90:0x98], "little")


def file_system_type(fd: int) -> int:
    """The magic number of a file's file system (``linux/magic.h``)."""
    return int.from_bytes(statfs_bytes(fd)[:8], "little")


# -- mounts


def unshare(flags: CloneFlag) -> None:
    """Give this process its own of what ``flags`` name.

    Raises:
        OSError: it may not.
    """
    _done(_libc.unshare(int(flags)))


def mount_propagation(path: bytes, flags: MountFlag) -> None:
    """Say how mounts at ``path`` have to do with those that they were copied from.

    Raises:
        OSError: it may not.
    """
    _done(_libc.mount(b"none", path, None, ctypes.c_ulong(flags), None))


def new_tmpfs(options: dict[str, str], attributes: MountAttribute) -> int:
    """A new tmpfs, mounted nowhere: the descriptor of its root directory.

    Raises:
        OSError: it may not.

    Source: ``fsopen(2)``, ``fsconfig(2)``, ``fsmount(2)``.
    """
    set_string, create, close_on_exec = 1, 6, 1
    context = system_call(SystemCall.FSOPEN, b"tmpfs", close_on_exec)
    try:
        for key, value in options.items():
            system_call(SystemCall.FSCONFIG, context, set_string, key.encode(), value.encode(), 0)
        system_call(SystemCall.FSCONFIG, context, create, None, None, 0)
        return system_call(SystemCall.FSMOUNT, context, close_on_exec, int(attributes))
    finally:
        os.close(context)


def clone_tree(directory: int, name: bytes) -> int:
    """What is at ``name``, mounts below it included, to be mounted elsewhere.

    Raises:
        OSError: there is no such file; it may not.

    Source: ``open_tree(2)``.
    """
    clone = 1
    flags = clone | os.O_CLOEXEC | _AT_RECURSIVE | AT_SYMLINK_NOFOLLOW
    if not name:
        flags |= AT_EMPTY_PATH
    return system_call(SystemCall.OPEN_TREE, directory, name, flags)


def move_mount(tree: int, directory: int, name: bytes) -> None:
    """Mount ``tree`` upon ``name``; upon ``directory`` itself if that is empty.

    Raises:
        OSError: it may not.

    Source: ``move_mount(2)``.
    """
    from_descriptor, to_descriptor = 0x4, 0x40
    flags = from_descriptor | (0 if name else to_descriptor)
    system_call(SystemCall.MOVE_MOUNT, tree, b"", directory, name, flags)


def set_read_only(mount: int) -> None:
    """Nothing can be changed in this mount; those in it stay as they are.

    Raises:
        OSError: it may not.

    Source: ``mount_setattr(2)``.
    """
    attributes = struct.pack("=4Q", MountAttribute.RDONLY, 0, 0, 0)
    system_call(SystemCall.MOUNT_SETATTR, mount, b"", AT_EMPTY_PATH, attributes, len(attributes))


def change_root(directory: int) -> None:
    """Make the mount whose root ``directory`` is the root of all; what was is gone.

    Raises:
        OSError: it may not; EINVAL: the root is the initial ramfs, which stays.

    Source: ``pivot_root(2)``, which describes the two dots.
    """
    os.fchdir(directory)
    system_call(SystemCall.PIVOT_ROOT, b".", b".")
    _done(_libc.umount2(b".", int(MountFlag.DETACH)))
    os.chdir("/")


# -- rights


_CAPABILITY_HEADER: Final = struct.pack("=Ii", 0x20080522, 0)
_CAPABILITY_DATA: Final = struct.Struct("=6I")


def effective_capabilities() -> frozenset[int]:
    """Numbers of those that this thread has and uses."""
    data = bytearray(_CAPABILITY_DATA.size)
    system_call(SystemCall.CAPGET, _CAPABILITY_HEADER, data)
    low, _, _, high, _, _ = _CAPABILITY_DATA.unpack(data)
    bits = low | high << 32
    return frozenset(number for number in range(64) if bits >> number & 1)


def keep_capabilities(kept: Iterable[int]) -> None:
    """Drop all others of this thread's, for good, those that an exec would give included.

    Raises:
        OSError: one of them it did not have.
    """
    kept = effective_capabilities() & frozenset(kept)
    drop_from_bounding_set(kept)
    bits = sum(1 << number for number in kept)
    low, high = bits & 0xFFFFFFFF, bits >> 32
    data = _CAPABILITY_DATA.pack(low, low, 0, high, high, 0)
    system_call(SystemCall.CAPSET, _CAPABILITY_HEADER, data)


def drop_from_bounding_set(kept: Iterable[int]) -> None:
    """What an exec may give is ``kept`` at most.

    If we may not say so nothing happens: then it gives nothing.
    """
    set_pcap = 8
    if set_pcap not in effective_capabilities():
        return
    with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as file:
        last = int(file.read())
    for number in set(range(last + 1)) - set(kept):
        prctl(24, number)  # PR_CAPBSET_DROP


def no_new_privileges() -> None:
    """No exec gives this thread more rights than it has (``PR_SET_NO_NEW_PRIVS``)."""
    prctl(38, 1)


def prctl(option: int, value: int) -> None:
    """See ``prctl(2)``.

    Raises:
        OSError: it was refused.
    """
    zero = ctypes.c_ulong(0)
    _done(_libc.prctl(option, ctypes.c_ulong(value), zero, zero, zero))


def require_this_machine() -> None:
    """Numbers here are of one architecture.

    Raises:
        NotSupported: this is another one.
    """
    machine = os.uname().machine
    if machine != "x86_64" or struct.calcsize("P") != 8:
        raise NotSupported(f"the virtual device runs on x86-64, and this is {machine}", machine, "x86_64")
