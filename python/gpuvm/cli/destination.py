"""Where a result file goes: never over an existing one unless asked, and whole or not at all."""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from typing import TextIO

from gpuvm.cli.options import OutputError
from gpuvm.trace.source import display_name


def check_destination(path: str, *, force: bool) -> None:
    """Complain early, before a long replay.

    Raises:
        OutputError: the file exists and ``force`` is not set; it is a directory.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return
    if stat.S_ISDIR(mode):
        raise OutputError(f"{display_name(path)}: is a directory")
    if stat.S_ISREG(mode) and not force:
        raise OutputError(f"{display_name(path)}: exists already; --force overwrites it, -o names another")


def open_new(path: str, *, force: bool) -> TextIO:
    """A file for what comes bit by bit, so that something is there if the end never comes.

    Raises:
        OutputError: as `check_destination`; no permission.
    """
    check_destination(path, force=force)
    exclusive = not (force or os.path.exists(path))  # what exists and may be written is no regular file
    try:
        return open(path, "x" if exclusive else "w", encoding="utf-8")
    except (OSError, ValueError) as error:
        raise _cannot_write(path, error) from None


def remove_empty(path: str) -> None:
    """Take away what `open_new` made, if nothing came."""
    with suppress(OSError):
        if os.path.isfile(path) and not os.path.getsize(path):
            os.unlink(path)


def write_text(path: str, text: str, *, force: bool) -> None:
    """Write a file. An existing one is replaced in one step, so that it is never left half written.

    Raises:
        OutputError: as `check_destination`; no room, no permission.
    """
    check_destination(path, force=force)
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            with open(path, "w", encoding="utf-8") as device:
                device.write(text)
            return
        _replace(path, text)
    except (OSError, ValueError) as error:
        raise _cannot_write(path, error) from None


def _cannot_write(path: str, error: OSError | ValueError) -> OutputError:
    reason = getattr(error, "strerror", None) or "not a file name"
    return OutputError(f"cannot write {display_name(path)}: {reason}")


def _replace(path: str, text: str) -> None:
    folder = os.path.dirname(os.path.realpath(path))
    handle, temporary = tempfile.mkstemp(prefix=".gpuvm-", dir=folder)
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, os.path.realpath(path))
    except BaseException:
        os.unlink(temporary)
        raise
