"""Listener: the descriptor by which the kernel hands over other processes' system calls.

It knows system calls, not what they are about.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import struct
from dataclasses import dataclass
from typing import Final, final

from gpuvm._core import Notification, SeccompListener
from gpuvm.errors import BadFile, CheckFailed, Gone, TooManyFiles

__all__ = ["CONTINUE", "RESTART", "Listener", "ListenerStatistics", "Notification"]

CONTINUE: Final = SeccompListener.CONTINUE
"""As an answer: the kernel carries the call out.

Right only where it does all checks itself: what pointers lead to may have changed since.
"""

RESTART: Final = 512
"""``ERESTARTSYS``: the kernel repeats the call, or ends it with ``EINTR`` if a signal's handler is so set up.

Only right for a thread that is on its way to handle signals: any other would see this number.
"""

# _IOW('!', number, size)
_ADDFD: Final = 0x40182103
_SET_FLAGS: Final = 0x40082104
_SYNC_WAKE_UP: Final = 1

_ADD: Final = struct.Struct("=QIIII")


@dataclass(frozen=True, slots=True)
class ListenerStatistics:
    """A snapshot of a listener."""

    open: bool
    sync_wake_up: bool
    """A caller and who answers it take turns on one processor: ``SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP``."""
    lost: int
    """Answers that came too late: the caller was gone."""


@final
class Listener(SeccompListener):
    """Receives calls and answers them.

    What it has from the core:

    - ``fd``, its descriptor;
    - ``receive()``, the next call: it sleeps until there is one, and returns None once no process is left
      that could make one, for which kernels before Linux 6.11 do not wake it;
    - ``answer(id, value)``, which ends a call, with minus an errno if below 0, or with ``CONTINUE``: False if
      the caller is gone;
    - ``answer_and_receive(id, value)``, both, in half the time;
    - ``is_valid(id)``: False if the caller is gone;
    - ``abandoned()``: whether no process is left that could make a call.

    Locking: none; any thread may call anything but ``close``, and any number of threads may receive.

    Args:
        fd: from ``seccomp.install``; owned from now on.

    Raises:
        BadFile: it is not open.

    Source: ``seccomp_unotify(2)``, ``kernel/seccomp.c``.
    """

    __slots__ = ("_sync",)

    def __init__(self, fd: int) -> None:
        self._sync = self._set_sync_wake_up()

    def _set_sync_wake_up(self) -> bool:
        try:
            fcntl.ioctl(self.fd, _SET_FLAGS, _SYNC_WAKE_UP)
        except OSError as error:
            if error.errno == errno.EBADF:
                raise BadFile(f"{self.fd} is no open file descriptor", self.fd) from None
            return False  # Linux 6.6 brought it
        return True

    def add_fd(self, id: int, fd: int, *, cloexec: bool) -> int:
        """Open our file ``fd`` in the process that makes the call: its number there, which it does not know.

        Raises:
            Gone: the caller is.
            TooManyFiles: it has no descriptor left.
        """
        request = bytearray(_ADD.pack(id, 0, fd, 0, os.O_CLOEXEC if cloexec else 0))
        while True:
            try:
                return int(fcntl.ioctl(self.fd, _ADDFD, request))
            except OSError as error:
                if error.errno == errno.ENOENT:
                    raise Gone("the process that made the call has ended") from None
                if error.errno in (errno.EMFILE, errno.ENFILE):
                    raise TooManyFiles(
                        f"{error.strerror} in the program under us; raise its `ulimit -n`, "
                        "or have it close what it does not use"
                    ) from None
                if error.errno != errno.EINTR:
                    raise

    def wait_until_abandoned(self) -> None:
        """Sleep until no process is left that could make a call. Calls do not wake it."""
        poll = select.poll()
        poll.register(self.fd, 0)
        poll.poll()

    def close(self) -> None:
        """Let go: who calls from now on, or waits for an answer, gets ENOSYS. No thread may be in it."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)

    def check(self) -> None:
        """Verify that the descriptor still is the listener.

        Raises:
            CheckFailed: with the state.
        """
        try:
            self.is_valid(0)
        except OSError as error:
            raise CheckFailed(f"descriptor {self.fd} is no seccomp listener: {error}") from error

    def statistics(self) -> ListenerStatistics:
        """What the kernel does for us."""
        return ListenerStatistics(self.fd >= 0, self._sync, self.lost)
