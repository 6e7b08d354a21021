"""What ``gpuvm top`` looks at: a trace that grows, or one that has ended."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from gpuvm.report.fault import fault_text
from gpuvm.report.fault_document import report_of
from gpuvm.report.top.watch import Fault, Moment, Watch
from gpuvm.trace.errors import TraceError
from gpuvm.trace.trace import Trace

if TYPE_CHECKING:
    from gpuvm.report.top.screen import Program


def _utc_now() -> datetime:
    return datetime.now(UTC)


class EndedScene:
    """A trace as it was at its end. It stays open."""

    program: Program | None = None

    def __init__(self, trace: Trace) -> None:
        """Raises TraceError: it is damaged."""
        self.title = trace.name
        self._trace: Final = trace
        self._moment: Final = Watch().look(trace)

    def look(self) -> Moment:
        """Always the same."""
        return self._moment

    def report(self, fault: Fault) -> str:
        """All that is known of a fault."""
        return _report(self._trace, fault)


class LiveScene:
    """A trace that is being recorded; it is opened anew for each look."""

    def __init__(
        self, title: str, path: str, program: Program | None, clock: Callable[[], datetime] = _utc_now
    ) -> None:
        self.title = title
        self.program = program
        self._path: Final = path
        self._clock: Final = clock
        self._watch: Final = Watch()
        self._moment: Moment | None = None

    def look(self) -> Moment | None:
        """What is there now."""
        if self._moment is not None and self._moment.whole:
            return self._moment
        try:
            with Trace.open(self._path) as trace:
                self._moment = self._watch.look(trace, self._now(trace))
        except TraceError:
            # The recorder makes its file when the program is about to start.
            if self._moment is not None or self.program is None:
                raise
        return self._moment

    def report(self, fault: Fault) -> str:
        """All that is known of a fault."""
        with Trace.open(self._path) as trace:
            return _report(trace, fault)

    def _now(self, trace: Trace) -> int | None:
        begun = trace.about.get("begun")
        if begun is None or (self.program is not None and not self.program.running()):
            return None
        try:
            since = self._clock() - datetime.fromisoformat(begun)
        except (TypeError, ValueError):
            raise TraceError(trace.name, f"it began at {begun!r}, which is no time; it is damaged") from None
        return since.days * 86_400_000_000_000 + since.seconds * 1_000_000_000 + since.microseconds * 1000


def _report(trace: Trace, fault: Fault) -> str:
    (text,) = trace.db.execute("SELECT report FROM faults WHERE id = ?", (fault.id,)).fetchone()
    return fault_text(report_of(trace.name, text))
