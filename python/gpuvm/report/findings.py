"""Finding: one thing that a rule of `gpuvm check` has to say."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from gpuvm.report.sizes import size_text


class Severity(StrEnum):
    """How sure it is that somebody has to act. The words are SARIF's levels."""

    ERROR = "error"
    """It went wrong."""
    WARNING = "warning"
    """It can go wrong, or costs a lot."""
    NOTE = "note"
    """It costs something, or cannot be judged. Does not count, unless asked for."""


class Role(NamedTuple):
    """A call's part in a finding."""

    call: int
    does: str
    """A verb, as in ``unmaps``."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rule found, in words and in numbers."""

    rule: str
    severity: Severity
    message: str
    """A sentence that names the calls."""
    calls: tuple[Role, ...]
    """In the order of the sentence; the first is where to look first."""
    client: int | None
    """Its number as recorded."""
    addr: int | None = None
    """Bytes; None: it is about no address."""
    end: int | None = None

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        document: dict[str, Any] = {
            "rule": self.rule,
            "severity": self.severity.value,
            "message": self.message,
            "client": self.client,
            "calls": [one._asdict() for one in self.calls],
        }
        if self.addr is not None and self.end is not None:
            document.update(addr=self.addr, range=self.end - self.addr)
        return document


def range_text(addr: int, end: int) -> str:
    """``64 KiB at 0x3fff00000``."""
    return f"{size_text(end - addr)} at {addr:#x}"


def times_text(count: int) -> str:
    """``once``, ``twice``, ``17 times``."""
    return {1: "once", 2: "twice"}.get(count, f"{count:,} times")
