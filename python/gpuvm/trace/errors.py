"""What is wrong with an input file, and where."""

from __future__ import annotations


class TraceError(Exception):
    """The input cannot be used.

    Attributes:
        path: the file as the user named it, ``<stdin>`` for standard input.
        line: 1-based line, None where the whole file is meant (missing, empty, a directory).
        column: 1-based column in characters, None where the whole line is meant.
        message: what is wrong, and what was expected instead.
    """

    def __init__(
        self, path: str, message: str, *, line: int | None = None, column: int | None = None
    ) -> None:
        self.path = path
        self.line = line
        self.column = column
        self.message = message
        place = ":".join(str(part) for part in (path, line, column) if part is not None)
        super().__init__(f"{place}: {message}")


class ReplayError(TraceError):
    """The file is well formed, but the manager refuses what the recording says was accepted.

    Attributes:
        op: index of the op in the call's ``ops`` (from 0), None when the call itself was refused.
    """

    def __init__(
        self, path: str, message: str, *, line: int, column: int | None = None, op: int | None = None
    ) -> None:
        super().__init__(path, message, line=line, column=column)
        self.op = op
