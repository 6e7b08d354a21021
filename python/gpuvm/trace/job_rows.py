"""Jobs and fences of a trace: one row each, changed as they are queued, started and signalled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gpuvm.trace.batches import Batch, Table
from gpuvm.trace.totals import Totals


class JobBook:
    """The rows of `jobs`, `contexts` and `other_fences`.

    A fence may start or be signalled before it is told for which call it is: calls are held back until
    those before them are there.
    """

    def __init__(self, totals: Totals) -> None:
        self._totals: Final = totals
        job = ("client", "channel", "queued", "waited", "took", "error", "context", "seqno")
        self._jobs: Final = Batch("jobs", "call", *job)
        self._contexts: Final = Batch("contexts", "id", "timeline")
        fence = ("call", "made", "took", "error")
        self._fences: Final = Batch("other_fences", "context", "seqno", *fence, key=2)
        self._known: Final[set[int]] = set()
        self._open: Final[dict[tuple[int, int], tuple[int | None, int, int | None]]] = {}
        """Fences that are not signalled: whose job, or None, and when they were made, and started."""
        self._jobless: Final[set[int]] = set()
        """Calls whose job has no fence yet."""
        self._early: Final[dict[tuple[int, int], list[Callable[[], None]]]] = {}

    def job(self, call: int, client: int, channel: int) -> None:
        """An EXEC, or an asynchronous VM_BIND, was accepted."""
        self._jobless.add(call)
        self._jobs.add(call, [call, client, channel, *[None] * 6])

    def queued(self, call: int | None, context: int, seqno: int, timeline: str, t: int) -> None:
        """As `Writer.queued`."""
        if context not in self._known:
            self._known.add(context)
            self._contexts.add(context, [context, timeline])
        fence = context, seqno
        if call in self._jobless:
            self._jobless.discard(call)
            self._open[fence] = call, t, None
            for column, value in (("queued", t), ("context", context), ("seqno", seqno)):
                self._jobs.change(call, column, value)
        else:
            self._open[fence] = None, t, None
            self._fences.add(fence, [context, seqno, call, t, None, None])
        for told in self._early.pop(fence, ()):
            told()

    def started(self, context: int, seqno: int, t: int) -> None:
        """As `Writer.started`."""
        fence = context, seqno
        if fence not in self._open:
            self._early.setdefault(fence, []).append(lambda: self.started(context, seqno, t))
            return
        call, made, _ = self._open[fence]
        self._open[fence] = call, made, t
        if call is not None:
            self._jobs.change(call, "waited", t - made)
            self._totals.most("waited", t - made, call)

    def done(self, context: int, seqno: int, t: int, error: int) -> None:
        """As `Writer.done`."""
        fence = context, seqno
        if fence not in self._open:
            self._early.setdefault(fence, []).append(lambda: self.done(context, seqno, t, error))
            return
        call, made, started = self._open.pop(fence)
        rows, key = (self._fences, fence) if call is None else (self._jobs, call)
        rows.change(key, "took", t - made)
        rows.change(key, "error", error)
        if call is not None:
            self._totals.add("ended_jobs", 1)
            self._totals.add("failed_jobs", error != 0)
            if started is not None:
                self._totals.most("ran", t - started, call)

    def batches(self) -> tuple[Table, ...]:
        """What waits."""
        return self._jobs, self._contexts, self._fences
