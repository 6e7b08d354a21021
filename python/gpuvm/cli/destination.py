"""Where a result file goes: never over an existing one unless asked, and whole or not at all."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from gpuvm.cli.options import OutputError
from gpuvm.trace.source import display_name


def check_destination(path: str, *, force: bool, source: str | None = None) -> None:
    """Complain early, before a long replay.

    Args:
        source: what is read for it, by a verb that writes a file alone. That is evidence, and not replaced by
            what is made of it.

    Raises:
        OutputError: the file exists and ``force`` is not set; it is a directory; it is ``source``, or ``-``.
    """
    if source is not None and path == "-":
        raise OutputError("-: this does not go to standard output; pass a file name, ./- if it is to be -")
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return
    if stat.S_ISDIR(mode):
        raise OutputError(f"{display_name(path)}: is a directory")
    if stat.S_ISREG(mode) and not force:
        raise OutputError(f"{display_name(path)}: exists already; --force overwrites it, -o names another")
    if source is not None and os.path.exists(source) and os.path.samefile(path, source):
        raise OutputError(f"{display_name(path)}: is the file that is read; -o names another")


def write_text(path: str, text: str, *, force: bool) -> None:
    """Write a file. An existing one is replaced in one step, so that it is never left half written.

    Raises:
        OutputError: as `check_destination`; no room, no permission.
    """
    with writing(path, force=force) as file:
        file.write(text.encode())


@contextmanager
def writing(path: str, *, force: bool) -> Iterator[BinaryIO]:
    """A file to write, which is there under its name when all is written, and not at all after an error.

    What exists and is no regular file, such as a pipe, is written as it comes.

    Raises:
        OutputError: as `write_text`.
    """
    check_destination(path, force=force)
    try:
        target = os.path.realpath(path)
    except ValueError as error:
        raise _cannot_write(path, error) from None
    in_place = os.path.exists(target) and not os.path.isfile(target)
    try:
        with open(target, "wb") if in_place else _replacing(target) as file:
            yield file
    except OSError as error:
        raise _cannot_write(path, error) from None


def _cannot_write(path: str, error: OSError | ValueError) -> OutputError:
    reason = getattr(error, "strerror", None) or "not a file name"
    return OutputError(f"cannot write {display_name(path)}: {reason}")


@contextmanager
def _replacing(path: str) -> Iterator[BinaryIO]:
    handle, temporary = tempfile.mkstemp(prefix=".gpuvm-", dir=os.path.dirname(path))
    try:
        with open(handle, "wb") as file:
            yield file
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
