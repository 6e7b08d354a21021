"""A progress line on a terminal, nothing anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from types import TracebackType

from gpuvm.trace.recorded import Record

_WIDTH = 30
_SECONDS_BETWEEN = 0.05


class Progress:
    """Shows how far a file is read on stderr, and wipes the line when it is done."""

    def __init__(self, label: str, size: int | None, unit: str = "lines") -> None:
        """Args: ``label`` in front of the bar; ``size`` of all, in bytes; None: only ``unit``s are told."""
        self._label = label
        self._size = size
        self._unit = unit
        self._on = sys.stderr.isatty()
        self._next = 0.0

    def update(self, done: int, lines: int) -> None:
        """``done`` bytes and ``lines`` lines are read."""
        if not self._on or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _SECONDS_BETWEEN
        bar = ""
        if self._size:
            part = min(done / self._size, 1.0)
            full = round(part * _WIDTH)
            bar = f" [{'=' * full}{' ' * (_WIDTH - full)}] {part:4.0%}"
        print(f"\r{self._label}{bar} {lines:,} {self._unit}", end="", file=sys.stderr, flush=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._on:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def each_record(label: str, records: Sequence[Record]) -> Iterator[Record]:
    """The records one by one, with a progress line while whoever asks works on them."""
    with Progress(label, len(records)) as progress:
        for index, record in enumerate(records):
            progress.update(index, record.line)
            yield record
