"""Opens traces for verbs, with a progress line while JSON Lines are read."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gpuvm.cli.progress import Progress
from gpuvm.trace.source import display_name

if TYPE_CHECKING:
    from gpuvm.trace.trace import Trace


@contextmanager
def open_trace(path: str) -> Iterator[Trace]:
    """A trace of either form.

    Raises:
        TraceError: it cannot be used, or SQLite finds that it is damaged while it is read.
    """
    from gpuvm.trace.database import damaged  # the verbs' parsers do without
    from gpuvm.trace.trace import Trace

    size = os.path.getsize(path) if os.path.isfile(path) else None
    with Progress(f"read {display_name(path)}", size) as progress:
        trace = Trace.open(path, progress=progress.update)
    with trace:
        try:
            yield trace
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise damaged(trace.name, error) from None
        except (LookupError, ArithmeticError, TypeError, ValueError):
            _blame(trace)
            raise


def _blame(trace: Trace) -> None:
    """Whether it is the trace's fault that a verb met what cannot be."""
    from gpuvm.errors import CheckFailed
    from gpuvm.trace.errors import TraceError

    try:
        trace.check()
    except CheckFailed as error:
        raise TraceError(trace.name, f"damaged: {error}; copy it again, or record again") from None
