"""Attendant: stays with a program and with whatever it leaves running: signals, stops, ends."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Final, Self

from gpuvm.device.mappings import descendants

_TO_ALL: Final = (signal.SIGINT, signal.SIGQUIT)
"""The terminal sends them to the program, too."""
_PASSED_ON: Final = (signal.SIGTERM, signal.SIGHUP)
_STOPS: Final = (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
"""What a terminal stops a job by. We stop when the program has, so that whoever waits for us sees it."""
_GRACE: Final = 500
"""Milliseconds after the program's end after which it is told who is left. Most end just then."""
_SHOWN: Final = 8


class Attendant:
    """``with Attendant(tell) as attendant``: signals are its own until the end of the block.

    In one process there can be one, in the main thread. Children of this process are all its to wait for.

    Args:
        tell: prints a line for the user.

    Source: ``signal(7)``, ``waitpid(2)``, ``PR_SET_CHILD_SUBREAPER``.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell: Final = tell
        self._before: dict[signal.Signals, Any] = {}
        self._pipe = (-1, -1)
        self._wakeup = -1
        self._pid = 0
        self._status: int | None = None
        self.dismissed = False
        """A signal came after the program's end: whoever is left is not to be waited for."""

    def __enter__(self) -> Self:
        self._pipe = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._wakeup = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        for one in (*_TO_ALL, *_PASSED_ON, *_STOPS, signal.SIGCHLD):
            # A handler and not SIG_IGN, which programs that are started would inherit. If they do anyway,
            # since we did, nobody wants the signal to do anything.
            if one is signal.SIGCHLD or signal.getsignal(one) is not signal.SIG_IGN:
                self._before[one] = signal.signal(one, _nothing)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for one, handler in self._before.items():
            signal.signal(one, handler)
        signal.set_wakeup_fd(self._wakeup)
        for end in self._pipe:
            os.close(end)

    def attend(self, pid: int, nobody_left: int) -> int:
        """Wait until the program has ended, and ``nobody_left`` can be read.

        While the program lives, it gets the signals that end programs. After that, one that comes makes this
        return.

        Args:
            pid: the program, a child of ours.
            nobody_left: a descriptor.

        Returns:
            The program's status, as ``waitpid`` has it.
        """
        self._pid = pid
        self._reap()  # it may have ended before we had handlers
        poll = select.poll()
        for fd in (self._pipe[0], nobody_left):
            poll.register(fd, select.POLLIN)
        told = alone = False
        while self._status is None or not (alone or self.dismissed):
            ready = [fd for fd, _ in poll.poll(_GRACE if self._status is not None and not told else None)]
            if nobody_left in ready:
                poll.unregister(nobody_left)
                alone = True
            if self._pipe[0] in ready:
                self._on_signals(os.read(self._pipe[0], 4096))
            if not ready:
                told = True
                self._tell_who_is_left()
        return self._status

    def _on_signals(self, numbers: bytes) -> None:
        for number in dict.fromkeys(numbers):
            if number == signal.SIGCHLD:
                self._reap()
            elif number in _STOPS:
                pass  # the program has it too, and whether it stops is its own decision
            elif self._status is not None:
                self.dismissed = True
            elif number in _PASSED_ON:
                with suppress(ProcessLookupError):
                    os.kill(self._pid, number)

    def _reap(self) -> None:
        """Collect the children that have ended; stop, if the program was stopped as a job is."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            except ChildProcessError:
                return
            if not pid:
                return
            if not os.WIFSTOPPED(status):
                if pid == self._pid:
                    self._status = status
            elif pid == self._pid and status >> 8 in _STOPS:  # no more bits, as tracers get
                os.kill(os.getpid(), signal.SIGSTOP)

    def _tell_who_is_left(self) -> None:
        """Whom the device is still there for."""
        left = [pid for pid in descendants(os.getpid()) if _state(pid) not in "ZX"]
        if left:
            shown = ", ".join(f"{_name(pid)} ({pid})" for pid in left[:_SHOWN])
            more = f" and {len(left) - _SHOWN} more" if len(left) > _SHOWN else ""
            self._tell(f"the program has ended; still running: {shown}{more}; Ctrl-C takes the device away")


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """The wakeup descriptor tells."""


def _state(pid: int) -> str:
    """``R``, ``S``, ``Z``...; ``X`` if it is gone."""
    try:
        return chr(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2][0])
    except OSError:
        return "X"


def _name(pid: int) -> str:
    """A process gives itself any bytes for a name: a terminal gets none that it would obey."""
    try:
        name = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "?"
    return "".join(one if one.isprintable() else "?" for one in name)
