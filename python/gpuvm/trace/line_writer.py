"""LineWriter: writes calls as lines of JSON, and leaves all else out, which such a trace has no words for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TextIO

from gpuvm.trace.json_line import line_of

if TYPE_CHECKING:
    from gpuvm.trace.recorded import Record


class LineWriter:
    """As ``Writer``, for JSON Lines.

    Args:
        file: where to; it is the caller's to close.
    """

    def __init__(self, file: TextIO) -> None:
        self._file: Final = file

    def call(self, record: Record, took: int | None = None, *, map_handle: int | None = None) -> int:
        """Write one; those that lines have no word for are left out. Raises OSError."""
        line = line_of(record)
        if line is not None:
            self._file.write(f"{line}\n")
        return record.line

    def device(self, *_: Any) -> None:
        """No line."""

    about = opened = queued = started = done = page_work = accessed = moved = faulted = device

    def commit(self) -> None:
        """Have it in the file. Raises OSError."""
        self._file.flush()

    def finish(self, *, whole: bool = True) -> None:
        """The same."""
        self._file.flush()
