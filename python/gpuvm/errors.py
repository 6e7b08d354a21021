"""Errors with errno: every failure that a caller can cause.

Each class has one errno, the one the kernel returns for the same mistake, so that the uAPI can answer
with it. The message says what was wrong, the value, the bound it broke and what to do; ``value`` and
``bound`` repeat the two for programs.
"""

from __future__ import annotations

import errno
from typing import ClassVar

ERRNO_NAMES = {**errno.errorcode, errno.EDEADLK: "EDEADLK", errno.EOPNOTSUPP: "EOPNOTSUPP"}
"""Names of numbers; where two names share one, the one that DRM uses."""


class GpuvmError(OSError):
    """A call was refused and nothing was changed.

    Attributes:
        value: what was passed.
        bound: the limit it broke, or what stood in its way.
        request: index of the request in a bulk array, None for a single call.
    """

    code: ClassVar[int] = errno.EIO

    def __init__(
        self,
        message: str,
        value: object = None,
        bound: object = None,
        request: int | None = None,
    ) -> None:
        super().__init__(self.code, message)
        self.value = value
        self.bound = bound
        self.request = request

    def __reduce__(self) -> tuple[object, ...]:
        """Copies and pickles are made of what __init__ takes."""
        return type(self), (self.strerror, self.value, self.bound, self.request)

    def __str__(self) -> str:
        return f"{self.strerror} [{ERRNO_NAMES[self.code]}]"


class InvalidArgument(GpuvmError):
    """A range is empty, overflows, lies outside the space or touches the kernel's node; a wrong argument."""

    code = errno.EINVAL


class AlreadyMapped(GpuvmError):
    """Something is there already: a mapping, a region, a reference that is taken once."""

    code = errno.EEXIST


class NotFound(GpuvmError):
    """No such handle, mapping or region."""

    code = errno.ENOENT


class NoSpace(GpuvmError):
    """No hole is large enough, or a mapping does not fit the sparse region it touches."""

    code = errno.ENOSPC


class OutOfMemory(GpuvmError):
    """The core could not allocate; nothing was changed and the call may be repeated."""

    code = errno.ENOMEM


class StalePlan(GpuvmError):
    """The address space changed after the plan was made; ask for a new plan."""

    code = errno.ESTALE


class Busy(GpuvmError):
    """The object is in use in a way that forbids this call now."""

    code = errno.EBUSY


class Contended(GpuvmError):
    """Somebody older holds the lock: unlock everything, take this lock first, then begin again."""

    code = errno.EDEADLK


class AlreadyLocked(GpuvmError):
    """This acquire context holds the lock already, perhaps for another object that shares the reservation."""

    code = errno.EALREADY


class Interrupted(GpuvmError):
    """The wait was interrupted; what the caller held before it is still held."""

    code = errno.EINTR


class TimedOut(GpuvmError):
    """The time was up before what was waited for happened."""

    code = errno.ETIME


class BadFile(GpuvmError):
    """No such file descriptor."""

    code = errno.EBADF


class TooManyFiles(GpuvmError):
    """No file descriptor is left."""

    code = errno.EMFILE


class FileTableFull(GpuvmError):
    """Whoever serves the call has no file descriptor left."""

    code = errno.ENFILE


class PermissionDenied(GpuvmError):
    """It belongs to somebody else, who does not share it."""

    code = errno.EPERM


class PageFault(GpuvmError):
    """An access through page tables met a hole or what it may not do; ``value`` is the ``Fault``."""

    code = errno.EFAULT


class BadAddress(GpuvmError):
    """A pointer that a program passed leads nowhere."""

    code = errno.EFAULT


class TooMany(GpuvmError):
    """A count times a size is more than an address can say."""

    code = errno.EOVERFLOW


class Gone(GpuvmError):
    """The process that is meant has ended."""

    code = errno.ESRCH


class NoDevice(GpuvmError):
    """The channel was killed, by a fault or because it took too long."""

    code = errno.ENODEV


class Unavailable(GpuvmError):
    """The driver does not do this, or not for this client, which has to set up an address space first."""

    code = errno.ENOSYS


class UnknownCall(GpuvmError):
    """No ioctl has this number."""

    code = errno.ENOTTY


class NotSupported(GpuvmError):
    """The driver brought no hook for this."""

    code = errno.EOPNOTSUPP


class LockdepError(AssertionError):
    """The lock validator found a locking rule broken: a bug in the caller. The message is the report."""


class CheckFailed(AssertionError):
    """An invariant does not hold: a bug in gpuvm. The message carries the state for the report."""
