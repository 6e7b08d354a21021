"""What /proc tells of a thread's signals, and how to have a thread look for them."""

from __future__ import annotations

import ctypes
import os
import threading
from typing import Final, NamedTuple

from gpuvm.sync import task

_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long] * 4
_libc.ptrace.restype = ctypes.c_long
_PTRACE_SEIZE: Final = 0x4206
_PTRACE_INTERRUPT: Final = 0x4207
_MOST: Final = 1 << 14


class Signals(NamedTuple):
    """A thread's part of ``/proc/TID/status``. Sets of signals: bit ``n - 1`` is signal ``n``."""

    process: int
    tracer: int
    """The thread that traces it, or 0."""
    threads: int
    """In its process."""
    own: int
    """Pending for this thread and not blocked: it handles them before it is back in the program."""
    shared: int
    """Pending for the process, and not blocked by this thread: it may be the one to handle them."""


def read(tid: int) -> Signals | None:
    """What signals the thread has to handle; None if it is gone. Cost: 20 us.

    Source: ``proc_pid_status(5)``.
    """
    text = _read(f"/proc/{tid}/status")
    if text is None:
        return None
    field: dict[bytes, bytes] = dict(line.split(b":", 1) for line in text.splitlines())
    unblocked = ~int(field[b"SigBlk"], 16)
    return Signals(
        int(field[b"Tgid"]),
        int(field[b"TracerPid"]),
        int(field[b"Threads"]),
        int(field[b"SigPnd"], 16) & unblocked,
        int(field[b"ShdPnd"], 16) & unblocked,
    )


def stopping(process: int) -> bool:
    """Whether a thread of the process was stopped by a signal, as then all others are to be.

    Cost: 15 us a thread.

    Source: ``do_signal_stop``.
    """
    try:
        threads = os.listdir(f"/proc/{process}/task")
    except OSError:
        return False
    return any(_state(f"/proc/{process}/task/{thread}/stat") == b"T" for thread in threads)


def _state(path: str) -> bytes:
    text = _read(path)
    return b"" if text is None else text[text.rindex(b")") + 2 :][:1]


def _read(path: str) -> bytes | None:
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            text = part = os.read(file, _MOST)
            while len(part) == _MOST:  # a thread may be in 65,536 groups
                text += (part := os.read(file, _MOST))
            return text
        finally:
            os.close(file)
    except OSError:
        return None


def nudge(tid: int) -> bool:
    """Have a thread that sleeps in a system call look for signals when that ends; False if we may not.

    The kernel leaves to chance, more or less, which thread handles a signal for a process, and does not tell.
    After this it is this one, or whoever was faster. It is traced for a moment, by a thread that ends at
    once: so it is let go before it can have stopped, and nobody sees it stop.

    Source: ``ptrace(2)``, ``PTRACE_INTERRUPT``; ``complete_signal``, ``__ptrace_unlink``.
    """
    done: list[int] = []

    def trace() -> None:
        if not _libc.ptrace(_PTRACE_SEIZE, tid, 0, 0) and not _libc.ptrace(_PTRACE_INTERRUPT, tid, 0, 0):
            done.append(threading.get_native_id())

    task.start("gpuvm nudge", trace).join()
    while done and (now := read(tid)) is not None and now.tracer == done[0]:
        os.sched_yield()
    return bool(done)
