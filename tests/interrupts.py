"""Ctrl-C at a chosen place. Python handles signals when a call returns, a function begins, a loop repeats."""

from __future__ import annotations

import dis
import os
import sys
from types import FrameType, TracebackType
from typing import Any, Self

import gpuvm

_OURS = os.path.join(os.path.dirname(gpuvm.__file__), "")
_PLACES = ("CALL", "CALL_FUNCTION_EX", "JUMP_BACKWARD", "RESUME")


class Interrupt:
    """Within the block, ``KeyboardInterrupt`` comes at the ``number``-th of these places in our code."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.places = 0
        self._before: dict[FrameType, str] = {}

    @property
    def came(self) -> bool:
        """Whether there were so many places."""
        return self.places > self.number

    def __enter__(self) -> Self:
        self._outer = sys.gettrace()
        sys.settrace(self._trace)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        sys.settrace(self._outer)
        return isinstance(error, KeyboardInterrupt) and self.came

    def _trace(self, frame: FrameType, event: str, _: object) -> Any:
        if not frame.f_code.co_filename.startswith(_OURS) or frame.f_code.co_name == "__del__":
            return None  # what comes in a finalizer stays there
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            here = self._before.get(frame, "RESUME") in _PLACES
            self._before[frame] = dis.opname[frame.f_code.co_code[frame.f_lasti]]
            if here:
                self.places += 1
                if self.places == self.number + 1:
                    raise KeyboardInterrupt
        return self._trace
