"""Recording: a trace that is being written, from its new file to its end."""

from __future__ import annotations

import errno
import fcntl
import marshal
import os
import signal
import socket
import stat
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from weakref import WeakSet

import gpuvm
from gpuvm.sync import task
from gpuvm.trace.errors import TraceError
from gpuvm.trace.recorder import Recorder
from gpuvm.trace.source import display_name
from gpuvm.trace.spool import Spool, SpoolStatistics
from gpuvm.trace.writing import CONTROL, FILE, SPOOL, Ended

LINES: Final = ".jsonl"
"""What the names end in of traces of JSON Lines."""

_JOURNALS: Final = ("-wal", "-shm", "-journal")
"""What SQLite may have beside a database."""
_LONGEST: Final = 1 << 16
_BEYOND: Final = FILE + 1
"""The first descriptor that the process that writes is not started with."""
_CODE: Final = (
    "import os, sys; os.fork() and os._exit(0); os.setsid(); os.chdir('/'); "
    f"os.closerange({_BEYOND}, os.sysconf('SC_OPEN_MAX')); sys.path.insert(0, sys.argv.pop(1)); "
    "from gpuvm.trace.writing import main; main(sys.argv[1], int(sys.argv[2]), sys.argv[3])"
)


class Recording:
    """``with Recording("app.gpuvm") as recording``: all that happens in the block is in the trace after it.

    For a device in this process::

        with Recording("app.gpuvm") as recording, Device(watcher=recording.recorder) as device:
            client = device.open()
            recording.recorder.make(client, request, address, Caller.own())

    Calls are recorded that go through ``recorder.make``; what they lead to, the device says by itself. A
    ``gpuvm.testing.Node(recording=recording)`` does both.

    The trace is written by another process, while it is recorded, a tenth of a second behind. So it can be
    read meanwhile, and is there whatever becomes of this process, with all that was told until then. If that
    process cannot go on, or is killed, ``failed`` says why, and what is recorded goes on.

    A process that ``fork`` makes of this one records nothing.

    Locking: one thread makes and closes it.

    Args:
        path: of a new file. A name that ends in ``.jsonl``, and what is no regular file, like a pipe, gets
            JSON Lines, all else SQLite.
        force: replace what is there.

    Attributes:
        path: the same.
        recorder: makes calls, and is the device's watcher.
        failed: why the trace is not complete; None while nothing of that is known.
        calls, closes: how many calls are in it, and closes of opens, once it is closed.

    Raises:
        TraceError: the file exists, or cannot be written; ``message`` says so after its name.
        OutOfMemory: as ``Spool``.
        OSError: no process can be started.
    """

    def __init__(self, path: str, *, force: bool = False) -> None:
        self.path: Final = path
        self.failed: str | None = None
        self.calls = 0
        self.closes = 0
        begun, utc = task.now(), datetime.now(UTC)
        self._closed = False
        file = _create(path, force=force)
        try:
            self._spool: Final = Spool(self._is_read)
            self._control, theirs = socket.socketpair()
            with theirs:
                is_database = stat.S_ISREG(os.fstat(file).st_mode) and not path.endswith(LINES)
                target = os.path.realpath(path) if is_database else ""
                arguments = target, str(begun), utc.isoformat(timespec="microseconds")
                _start(arguments, (theirs.fileno(), self._spool.fd, file))
        finally:
            os.close(file)
        self.recorder: Final = Recorder(self._spool)
        _recordings.add(self)

    def _is_read(self) -> bool:
        """Whether the process that writes is there: it says nothing before its end."""
        try:
            self._control.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def close(self) -> None:
        """Wait until all is written; again: nothing. Nobody may record any more."""
        if self._closed:
            return
        self._closed = True
        self._spool.end()
        with self._control:
            with suppress(OSError):
                self._control.shutdown(socket.SHUT_WR)
            try:
                said = self._control.recv(_LONGEST)
            except ConnectionResetError:
                said = b""
        self._spool.close()
        ended = Ended(*marshal.loads(said)) if said else Ended("the process that wrote it was killed", 0, 0)
        self.failed, self.calls, self.closes = ended

    def after_fork(self) -> None:
        """In a new process: leave it to the old one, who else would not be heard when it ends."""
        self._closed = True
        self._spool.abandon()
        self._control.close()

    def remove(self) -> None:
        """Take the file away, which nobody wants: it is closed, and there is nothing in it."""
        if os.path.isfile(self.path):
            os.unlink(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- itself

    def check(self) -> None:
        """Verify the spool.

        Raises:
            CheckFailed: with the state.
        """
        self._spool.check()

    def statistics(self) -> SpoolStatistics:
        """Bytes on their way to the trace."""
        return self._spool.statistics()

    def __repr__(self) -> str:
        return f"<Recording {self.path!r}>"


_recordings: Final[WeakSet[Recording]] = WeakSet()


def _after_fork() -> None:
    for recording in _recordings:
        recording.after_fork()


os.register_at_fork(after_in_child=_after_fork)


def _create(path: str, *, force: bool) -> int:
    """A descriptor of a file that is new and empty, or no regular file.

    A file of the name is replaced and not emptied: who reads it, or still records it, keeps what it has.
    """
    if path == "-":
        raise TraceError(path, "standard output is the program's; pass the name of a file")
    try:
        real = path and os.path.realpath(path)
        with suppress(FileNotFoundError):
            if not stat.S_ISREG(os.stat(real).st_mode):
                return os.open(real, os.O_WRONLY | os.O_CLOEXEC | os.O_NOCTTY)
            if force:
                os.unlink(real)
        for journal in _JOURNALS:  # of a trace whose recording was killed, or that was deleted
            if not os.path.exists(real):
                with suppress(FileNotFoundError):
                    os.unlink(real + journal)
        return os.open(real, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno == errno.EEXIST:
            reason = "exists already; --force overwrites it, -o names another"
        else:
            reason = getattr(error, "strerror", None) or "not a file name"
        raise TraceError(display_name(path), reason) from None


def _start(arguments: tuple[str, ...], descriptors: tuple[int, int, int]) -> None:
    """Start the process that writes, nobody's child."""
    above = str(Path(gpuvm.__file__).parent.parent)
    words = [sys.executable, "-P", "-c", _CODE, above, *arguments]
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _BEYOND) for fd in descriptors]
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0),
        *((os.POSIX_SPAWN_DUP2, 0, number) for number in (1, 2)),
        *((os.POSIX_SPAWN_DUP2, *pair) for pair in zip(high, (CONTROL, SPOOL, FILE), strict=True)),
    ]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    try:
        pid = os.posix_spawn(
            sys.executable, words, environment, file_actions=actions, setsigmask=signal.valid_signals()
        )
    finally:
        for fd in high:
            os.close(fd)
    os.waitpid(pid, 0)
