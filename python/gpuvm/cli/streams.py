"""Opens what verbs replay, with a progress line while it is read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gpuvm.cli.opening import open_trace
from gpuvm.cli.progress import Progress
from gpuvm.trace.source import Source, upto, watched
from gpuvm.trace.stream import Stream, calls_until, is_sqlite

if TYPE_CHECKING:
    from gpuvm.trace.recorded import Record


@contextmanager
def open_stream(path: str, doing: str, until: int | None) -> Iterator[Stream]:
    """A trace of either form or a request file, up to a line or a call; read in the block, once.

    Args:
        doing: a verb for the progress line.

    Raises:
        TraceError: it cannot be used, or ends before ``until``.
    """
    if not is_sqlite(path):
        with Source(path) as source, Progress(f"{doing} {source.name}", source.size) as progress:
            yield Stream(source.name, upto(source.name, watched(source, progress.update), until), None)
        return
    with open_trace(path) as trace:
        records = calls_until(trace, until)
        with Progress(f"{doing} {trace.name}", until or trace.last_call()) as progress:
            yield Stream(trace.name, None, _told(records, progress))


def _told(records: Iterator[Record], progress: Progress) -> Iterator[Record]:
    for record in records:
        progress.update(record.line, record.line)
        yield record
