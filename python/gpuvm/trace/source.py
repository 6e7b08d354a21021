"""Lines of a file, plain or gzipped, or of standard input; told apart by their first bytes."""

from __future__ import annotations

import gzip
import os
import stat
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, cast

from gpuvm.trace.errors import TraceError

GZIP_MAGIC = b"\x1f\x8b"
SQLITE_MAGIC = b"SQLite format 3\0"
# A vm_bind of half a million ops still fits; a file without line ends must not fill the memory.
LONGEST_LINE = 64 * 1024 * 1024
_NO_TEXT = "an SQLite trace, where a text file was expected"


def display_name(path: str) -> str:
    """The path as messages and titles show it: ``-`` is standard input, unprintable bytes are escaped."""
    if path == "-":
        return "<stdin>"
    return printable(path.encode("utf-8", "backslashreplace").decode("utf-8"))


def printable(text: str) -> str:
    """Names that others chose, such as those of processes, without what a terminal takes as its own."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


class Source:
    """Iterating yields ``(line number from 1, text without its line end)``.

    Attributes:
        name: the file as messages show it.
        size: bytes in the file as stored, None where that is unknown (a pipe).

    Raises:
        TraceError: not a readable file, a gzip stream that is truncated or damaged, a line that is
            not UTF-8 or longer than 64 MiB.
    """

    def __init__(self, path: str) -> None:
        self.name = display_name(path)
        self.size: int | None = None
        self._raw = self._open(path)
        try:
            packed = self._raw.peek(2)[:2] == GZIP_MAGIC  # type: ignore[attr-defined]
        except OSError as error:
            self.close()
            raise TraceError(self.name, f"cannot read: {error.strerror}") from None
        self._packed = packed
        self._lines = cast(BinaryIO, gzip.GzipFile(fileobj=self._raw)) if packed else self._raw

    def _open(self, path: str) -> BinaryIO:
        if path == "-":
            if sys.stdin is None:
                raise TraceError(self.name, "standard input is closed")
            return sys.stdin.buffer
        try:
            raw = open(path, "rb")  # noqa: SIM115 - closed by close()
            info = os.fstat(raw.fileno())
        except OSError as error:
            raise TraceError(self.name, f"cannot open: {error.strerror}") from None
        except ValueError:  # a NUL byte in the name
            raise TraceError(self.name, "cannot open: not a file name") from None
        if stat.S_ISREG(info.st_mode):
            self.size = info.st_size
        return raw

    def position(self) -> int:
        """Bytes of the stored file read so far; for a progress bar."""
        return self._raw.tell() if self.size is not None else 0

    def close(self) -> None:
        """Close the file; standard input stays open."""
        if self._raw is not getattr(sys.stdin, "buffer", None):
            self._raw.close()

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[tuple[int, str]]:
        number = 0
        while True:
            raw = self._readline(number + 1)
            if not raw:
                return
            number += 1
            if number == 1 and raw.startswith(SQLITE_MAGIC):
                what = "an SQLite trace in a gzip file: gunzip it first" if self._packed else _NO_TEXT
                raise TraceError(self.name, what)
            if len(raw) > LONGEST_LINE:
                message = "the line is longer than 64 MiB"
                raise TraceError(self.name, message, line=number, column=LONGEST_LINE)
            try:
                yield number, raw.decode("utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                column = len(raw[: error.start].decode("utf-8")) + 1
                message = f"not UTF-8 text (byte 0x{raw[error.start]:02x}); is this a recorded trace?"
                raise TraceError(self.name, message, line=number, column=column) from None

    def _readline(self, number: int) -> bytes:
        try:
            return self._lines.readline(LONGEST_LINE + 1)
        except EOFError:
            raise TraceError(self.name, "the gzip file is truncated", line=number, column=1) from None
        except (gzip.BadGzipFile, zlib.error) as error:
            message = f"the gzip file is damaged: {error}"
            raise TraceError(self.name, message, line=number, column=1) from None
        except OSError as error:
            raise TraceError(self.name, f"cannot read: {error.strerror}", line=number) from None


def upto(name: str, lines: Iterable[tuple[int, str]], last: int | None) -> Iterator[tuple[int, str]]:
    """The lines up to and including line ``last``; all of them for None.

    Raises:
        TraceError: the file ends earlier.
    """
    number = 0
    for number, text in lines:
        yield number, text
        if number == last:
            return
    if last is not None:
        raise TraceError(name, f"line {last} was asked for, but the file has {number} lines")


def watched(
    source: Source, report: Callable[[int, int], None], *, every: int = 256
) -> Iterator[tuple[int, str]]:
    """The lines, telling ``report(bytes read, lines read)`` now and then; how a progress bar looks in."""
    for number, text in source:
        if number % every == 0:
            report(source.position(), number)
        yield number, text
