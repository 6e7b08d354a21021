"""The process that writes a trace while it is recorded. It has no driver in it, and outlives the recorder.

It takes frames from a spool until the recorder's end, be it in order or not; writes what is left; and then
says what became of it, if somebody still hears. It is an orphan in a session of its own, so it is nobody's
child to be waited for, and a terminal's signals do not reach it.
"""

from __future__ import annotations

import marshal
import os
import select
import signal
import socket
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from importlib.metadata import version
from typing import Final, NamedTuple

from gpuvm.trace.database import create
from gpuvm.trace.errors import TraceError
from gpuvm.trace.frames import Order
from gpuvm.trace.line_writer import LineWriter
from gpuvm.trace.spool import SpoolReader
from gpuvm.trace.telling import Telling
from gpuvm.trace.writer import Writer

CONTROL: Final = 3
SPOOL: Final = 4
FILE: Final = 5
"""Descriptors that it is started with; the last one with an open file for JSON Lines."""

_POLL: Final = 20
"""Milliseconds between two looks at the spool."""
_COMMIT_NS: Final = 100_000_000
"""What a reader of the trace, or whoever loses the rest, lags behind at most."""
_PATIENCE_NS: Final = 10_000_000_000
"""For which a call that took effect may go on before others are written that came after it."""
_SIGNALS: Final = (
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGPIPE,
    signal.SIGTSTP,
)
"""What ends programs and their groups. It ends by itself, soon after the recorder."""


class Ended(NamedTuple):
    """What it says at its end."""

    failed: str | None
    """Why not all was written."""
    calls: int
    closes: int
    """Of opens, which stand in the trace like calls."""


def main(path: str, begun: int, begun_utc: str) -> None:
    """Write the trace, and end.

    Args:
        path: of a database that is to be made in an empty file; "": ``FILE`` is one for JSON Lines.
        begun, begun_utc: when the recording began, in ns of the recorder's ``task.now``, and as ISO 8601.
    """
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    control, reader = socket.socket(fileno=CONTROL), SpoolReader(SPOOL)
    telling = None
    failed = None
    try:
        with _target(path, begun_utc) as target:
            telling = Telling(target, begun)
            _write(target, Order(telling.take), reader, lambda: _has_ended(control))
    except (OSError, sqlite3.Error, TraceError) as error:
        failed = _reason(error)
    except Exception as error:
        failed = f"a bug: {type(error).__name__}: {error}"
    reader.give_up()
    with suppress(OSError):  # nobody hears it any more
        control.send(marshal.dumps(tuple(_ended(failed, telling))))


@contextmanager
def _target(path: str, begun_utc: str) -> Iterator[Writer | LineWriter]:
    """Who writes. However it ends, what was committed is there, and if there is room in one file."""
    if not path:
        with open(FILE, "w", encoding="utf-8") as file:
            yield LineWriter(file)
        return
    with closing(create(path)) as db:
        writer = Writer(db)
        writer.about("gpuvm", version("gpuvm"))
        writer.about("source", "gpuvm record")
        writer.about("begun", begun_utc)
        writer.commit()
        try:
            yield writer
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")


def _write(
    target: Writer | LineWriter, order: Order, reader: SpoolReader, has_ended: Callable[[], bool]
) -> None:
    """All that comes, until nothing more comes."""
    due, written, over = time.monotonic_ns() + _COMMIT_NS, True, False
    missing, since = 0, 0
    while not over:
        over = has_ended()  # first: what was appended before is there now
        if order.missing != missing:
            missing, since = order.missing, time.monotonic_ns()
        elif missing and time.monotonic_ns() - since > _PATIENCE_NS:
            order.give_up()
        for frame in reader.frames():
            order.add(frame)
            written = False
            if time.monotonic_ns() >= due:
                target.commit()
                due, written = time.monotonic_ns() + _COMMIT_NS, True
        if not written and time.monotonic_ns() >= due:
            target.commit()
            due, written = time.monotonic_ns() + _COMMIT_NS, True
    order.rest()
    target.finish(whole=reader.ended)


def _has_ended(control: socket.socket) -> bool:
    """Sleep a moment; whether the recorder is gone, or has told all."""
    poll = select.poll()
    poll.register(control, select.POLLIN)
    return bool(poll.poll(_POLL))


def _ended(failed: str | None, telling: Telling | None) -> Ended:
    if telling is None:
        return Ended(failed, 0, 0)
    return Ended(failed, telling.numbers - telling.closes, telling.closes)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno)
    if isinstance(error, TraceError):
        return error.message
    return str(error)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
