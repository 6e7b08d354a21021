"""The memory and the descriptors of a program under us, as one of its calls gets at them."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

from gpuvm.device import linux
from gpuvm.errors import FileTableFull, Gone, PermissionDenied
from gpuvm.nouveau.uapi import Caller, UserMemory
from gpuvm.nouveau.uapi.caller import NOT_OPEN, UserFd

if TYPE_CHECKING:
    from gpuvm.device.notify import Listener, Notification

_PIDFD_THREAD: Final = os.O_EXCL


def caller_of(listener: Listener, call: Notification) -> Caller:
    """Who makes ``call``, for as long as it is not answered."""
    return Caller(CallMemory(call.pid, listener.fd, call.id), CallFiles(listener, call))


class CallMemory(UserMemory):
    """The caller's memory while its call is under way: ``CallMemory(tid, listener's descriptor, call's id)``.

    A thread that was killed leaves its number to another one. So it is made sure after each copy from there
    that it was the caller's, and before each copy to there that it still is.

    Raises (every call):
        Gone: the caller is. What was read is not to be used.
    """

    __slots__ = ()


class CallFiles:
    """The caller's descriptors."""

    __slots__ = ("_call", "_listener")

    def __init__(self, listener: Listener, call: Notification) -> None:
        self._listener: Final = listener
        self._call: Final = call

    def fget(self, number: int) -> int:
        """As ``UserFiles.fget``.

        Raises:
            FileTableFull: we have no descriptor left.
            PermissionDenied: we may not trace the caller.
            Gone: the caller is.
        """
        try:
            pidfd = _pidfd_of(self._call.pid)
            try:
                if not self._listener.is_valid(self._call.id):
                    raise Gone(f"thread {self._call.pid} has ended", self._call.pid)
                return UserFd(linux.pidfd_getfd(pidfd, number & 0xFFFFFFFF), number)
            finally:
                os.close(pidfd)
        except OSError as error:
            if error.errno == errno.EBADF:
                return UserFd(NOT_OPEN, number)
            if error.errno == errno.ESRCH:
                raise Gone(f"thread {self._call.pid} has ended", self._call.pid) from None
            if error.errno == errno.EPERM:
                raise PermissionDenied(
                    f"descriptor {number} of thread {self._call.pid} cannot be had: we may not trace it; run "
                    "as its user, and see the kernel's ptrace_scope",
                    self._call.pid,
                ) from None
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise FileTableFull(
                    f"descriptor {number} of thread {self._call.pid} cannot be had: {error.strerror} in the "
                    "supervisor; raise its `ulimit -n`, or have programs close what they do not use"
                ) from None
            raise

    def install(self, number: int, *, cloexec: bool) -> int:
        """As ``UserFiles.install``.

        Raises:
            TooManyFiles: the caller has no descriptor left.
            Gone: the caller is.
        """
        try:
            return self._listener.add_fd(self._call.id, number, cloexec=cloexec)
        finally:
            os.close(number)


def link_by_copy(tid: int, fd: int) -> str | None:
    """What /proc would say the thread's descriptor leads to, if it hides that from us; None if it does not.

    It does of programs that are not ``dumpable``, which are root's to look at in /proc.

    Source: ``PR_SET_DUMPABLE`` of ``prctl(2)``, ``task_dump_owner``.
    """
    if os.access(f"/proc/{tid}/fd", os.X_OK):
        return None
    try:
        pidfd = _pidfd_of(tid)
        try:
            copy = linux.pidfd_getfd(pidfd, fd)
        finally:
            os.close(pidfd)
        try:
            return os.readlink(f"/proc/self/fd/{copy}")
        finally:
            os.close(copy)
    except OSError:
        return None


def _pidfd_of(tid: int) -> int:
    """A descriptor for the thread, or before Linux 6.9 for its process, which shares its files by rule.

    Raises:
        OSError: as ``pidfd_open``.
    """
    try:
        return os.pidfd_open(tid, _PIDFD_THREAD)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    with open(f"/proc/{tid}/status", encoding="ascii", errors="replace") as status:
        (leader,) = (line.split()[1] for line in status if line.startswith("Tgid:"))
    return os.pidfd_open(int(leader))
