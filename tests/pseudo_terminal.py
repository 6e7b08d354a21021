"""A command on a terminal of its own: what it shows is waited for, keys are pressed."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

_PATIENCE: Final = 60.0
_ESCAPES: Final = re.compile(rb"\x1b\[[0-9;:?<>=]*[a-zA-Z]|\x1b[()][A-Z0-9]|\x1b[=>]|\x1b\][^\x07]*\x07")


class Terminal:
    """Ends the command, if it has not ended, at the end of its ``with``."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        cwd: Path,
        size: tuple[int, int] = (100, 30),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.pid, self._fd = pty.fork()
        if not self.pid:
            os.chdir(cwd)
            environment = {**os.environ, "TERM": "xterm-256color", **(environment or {})}
            os.execvpe(command[0], list(command), environment)
        columns, rows = size
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self._shown = b""
        self._seen = 0
        self._status: int | None = None

    @property
    def text(self) -> str:
        """All that was printed so far, without colours and places."""
        return _ESCAPES.sub(b" ", self._shown).decode(errors="replace")

    def wait_for(self, words: str) -> None:
        """Until ``words``, which nothing cuts in pieces, are printed once more."""
        wanted = words.encode()
        deadline = time.monotonic() + _PATIENCE
        while wanted not in self._shown[self._seen :]:
            assert self._read(deadline), f"no {words!r} in:\n{self.text[-3000:]}"
        self._seen = self._shown.index(wanted, self._seen) + len(wanted)

    def press(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def end(self) -> int:
        """Wait for its end; as subprocess has it."""
        deadline = time.monotonic() + _PATIENCE
        while self._read(deadline):
            pass
        if self._status is None:
            _, status = os.waitpid(self.pid, 0)
            self._status = os.waitstatus_to_exitcode(status)
        return self._status

    def _read(self, deadline: float) -> bool:
        """Whether there was more; False at its end."""
        ready, _, _ = select.select([self._fd], [], [], max(deadline - time.monotonic(), 0))
        assert ready, f"nothing came for a minute; so far:\n{self.text[-3000:]}"
        try:
            block = os.read(self._fd, 1 << 16)
        except OSError:  # EIO: nobody has the other end open any more
            return False
        self._shown += block
        return bool(block)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._fd)
