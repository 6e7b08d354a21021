"""Switches: the last ones between threads, for reports."""

from __future__ import annotations

import os
from collections import deque
from types import CodeType, FrameType
from typing import Final

from gpuvm.testing.failure import MACHINERY

REMEMBERED: Final = 20
"""How many a report shows."""

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep

_Place = tuple[CodeType, int, CodeType | None]
"""The code that a thread is in, the line, and the function of gpuvm that was called there."""


class Switches:
    """The last switches of a run. Cost: 1 us each."""

    __slots__ = ("_last", "count")

    def __init__(self) -> None:
        self.count = 0
        self._last: deque[tuple[int, str, _Place | None, str]] = deque(maxlen=REMEMBERED)

    def add(self, step: int, leaving: str, frame: FrameType | None, following: str) -> None:
        """``leaving``, which is at ``frame`` or has ended, stops for ``following``."""
        self.count += 1
        self._last.append((step, leaving, None if frame is None else _place(frame), following))

    def __str__(self) -> str:
        lines = [f"  last switches, of {self.count}:"]
        for step, leaving, place, following in self._last:
            lines.append(f"    step {step}: {leaving} {_words(place)} -> {following}")
        return "\n".join(lines)


def _words(place: _Place | None) -> str:
    if place is None:
        return "ended"
    code, line, primitive = place
    called = "" if primitive is None else f", in {primitive.co_qualname}"
    return f"at {os.path.basename(code.co_filename)}:{line} {code.co_qualname}{called}"


def _place(frame: FrameType) -> _Place:
    """The nearest line outside of gpuvm, and the innermost function of gpuvm.

    Keeps no frame: one would keep alive what its variables refer to.
    """
    inside: FrameType | None = None
    at: FrameType | None = frame
    while at is not None and at.f_code.co_filename.startswith(_PACKAGE):
        if inside is None and at.f_code.co_filename not in MACHINERY:
            inside = at
        at = at.f_back
    if at is None or at.f_code.co_filename in MACHINERY:  # a worker of gpuvm's own
        at, inside = inside or frame, None
    return at.f_code, at.f_lineno, None if inside is None else inside.f_code
