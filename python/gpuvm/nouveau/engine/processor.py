"""Processor: a channel's front end, which fetches pushes and has engines execute their methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from gpuvm._core import Pbdma
from gpuvm.errors import CheckFailed, PageFault
from gpuvm.mmu.access import AddressSpace
from gpuvm.nouveau.engine.classes import Classes
from gpuvm.nouveau.engine.copy import CopyEngine
from gpuvm.nouveau.engine.copy_state import LAUNCH_DMA
from gpuvm.nouveau.engine.counts import MethodCounts
from gpuvm.nouveau.engine.engine import Engine
from gpuvm.nouveau.engine.fault import EngineFault, Rejected, Stopped
from gpuvm.nouveau.engine.host import Host
from gpuvm.nouveau.engine.inline_to_memory import InlineToMemory
from gpuvm.nouveau.engine.memory import EngineMemory
from gpuvm.nouveau.engine.report_semaphore import ReportSemaphore
from gpuvm.nouveau.engine.semaphore import Semaphore
from gpuvm.nouveau.engine.semaphores import SemaphoreWaits
from gpuvm.nouveau.engine.watched_memory import Accessed, WatchedMemory
from gpuvm.sync import task
from gpuvm.sync.mutex import Mutex

_MALFORMED: Final = ("no header", "methods beyond the last", "data beyond the push")


@dataclass(frozen=True, slots=True)
class ProcessorStatistics:
    """A snapshot of a channel's engines."""

    name: str
    pushes: int
    """Executed to their end."""
    words: int
    """Fetched."""
    launches: int
    bytes_copied: int
    bytes_filled: int
    releases: int
    acquires: int
    waits: int
    """Acquires that had to wait."""
    malformed: int
    """Pushes that ended at an entry which is none."""
    busy: Mapping[str, int]
    """ns for which each engine worked."""
    not_executed: Mapping[tuple[int, int], int]
    """Times by class and method."""


class Processor:
    """One channel's PBDMA and the engines behind it.

    Methods are executed one after the other, each to its end. So there is nothing to wait for or to flush
    between them, and semaphores are written after all that came before.

    Locking: one thread executes; any thread may stop it and look. ``execute`` may sleep, so its caller holds
    no lock.

    Args:
        space: what addresses lead to.
        classes: of the host and the engines.
        clock: ns, as timestamps have it (PTIMER).
        semaphores: the device's.
        name: what messages call it.
        accessed: is told of accesses to memory.

    Source: "FIFO_DMA" in NVIDIA's dev_ram, dev_pbdma.
    """

    def __init__(
        self,
        space: AddressSpace,
        classes: Classes,
        *,
        clock: Callable[[], int],
        semaphores: SemaphoreWaits,
        name: str,
        accessed: Accessed | None = None,
    ) -> None:
        self.name: Final = name
        self.classes: Final = classes
        self.counts: Final = MethodCounts()
        self._semaphores: Final = semaphores
        self._memory: Final = (
            EngineMemory(space, name) if accessed is None else WatchedMemory(space, name, accessed)
        )
        self._pbdma: Final = Pbdma()
        self._pushes = 0
        self._words = 0
        self._malformed = 0
        self._stopped = False
        self._executing = False
        semaphore = self._semaphore = Semaphore(
            self._memory, self.counts, semaphores, clock, lambda: self._stopped
        )
        self._copy: Final = CopyEngine(
            classes.copy, self._pbdma, self.counts, self._memory, semaphore, self._go_on
        )
        self._host: Final = Host(classes, self._pbdma, self.counts, semaphore)
        self._engines: Final = (
            self._front_end("3d", classes.threed, 0, semaphore, reports=True, inline=True),
            self._front_end("compute", classes.compute, 1, semaphore, reports=True, inline=True),
            self._front_end("inline", classes.inline, 2, semaphore, reports=False, inline=True),
            self._front_end("2d", classes.twod, 3, semaphore, reports=False, inline=False),
            self._copy,
            *(self._front_end("software", 0, unit, semaphore, False, False) for unit in (5, 6, 7)),
            self._host,
        )
        self._handlers: Final = [engine.handlers for engine in self._engines]

    def _front_end(
        self, name: str, class_: int, unit: int, semaphore: Semaphore, reports: bool, inline: bool
    ) -> Engine:
        """An engine of which no more than that is executed."""
        engine = Engine(name, class_, unit, self._pbdma, self.counts)
        if reports:
            ReportSemaphore(engine, semaphore)
        if inline:
            InlineToMemory(engine, self._memory, semaphore, self._go_on)
        engine.ready()
        return engine

    def execute(self, va: int, va_len: int) -> None:
        """Run one push of ``va_len`` bytes at ``va``; what is beyond whole words is left out.

        State that methods set stays for the pushes after it.

        Raises:
            EngineFault: a method could not be executed, or the push not be read. What came before was
                executed; the channel cannot go on.
            Stopped: ``stop`` was called.
            OutOfMemory: none for an engine's buffer.
        """
        self._executing = True
        try:
            self._pbdma.begin(self._fetch(va, va_len))
            self._run()
            self._pushes += 1
        finally:
            self._executing = False
            self._copy.pending = None

    def _run(self) -> None:
        """Execute the push that was begun."""
        pbdma, copy, handlers = self._pbdma, self._copy, self._handlers
        launch = copy.unit, LAUNCH_DMA
        unit, method = self._host.unit, 0
        self._memory.engine = self._host.name
        since, waited = task.now(), self.counts.waited
        try:
            while (event := pbdma.next()) is not None:
                if self._stopped:
                    raise Stopped
                if copy.pending is not None and event[:2] != launch:
                    copy.flush()
                if event[0] < 0:
                    raise self._malformed_at(*event[1:])
                if event[0] != unit:
                    since, waited = self._charge(unit, since, waited)
                    self._memory.engine = self._engines[event[0]].name
                unit, method, data = event
                handlers[unit][method](data)
            copy.flush()
        except PageFault as error:
            engine = self._engines[unit]
            raise EngineFault.of_access(engine.name, engine.class_, method, error) from error
        except Rejected as error:
            engine = self._engines[unit]
            raise EngineFault(engine.name, engine.class_, method, None, error.error) from error
        finally:
            self._charge(unit, since, waited)

    def _charge(self, unit: int, since: int, waited: int) -> tuple[int, int]:
        """An engine worked since then, but for what channels waited more than then."""
        now = task.now()
        self.counts.busy[self._engines[unit].name] += now - since - (self.counts.waited - waited)
        return now, self.counts.waited

    def _malformed_at(self, word: int, why: int) -> EngineFault:
        self._malformed += 1
        return EngineFault("host", self.classes.host, 0, None, f"PBENTRY: word {word:#x}: {_MALFORMED[why]}")

    def _fetch(self, va: int, va_len: int) -> bytes:
        words = va_len >> 2
        if words <= 0:
            return b""
        try:
            push = self._memory.fetch(va & ~3, words << 2)
        except PageFault as error:
            raise EngineFault.of_access("host", self.classes.host, 0, error) from error
        self._words += words
        return push

    @property
    def accessing(self) -> Mutex:
        """Held while it accesses memory; see ``EngineMemory``."""
        return self._memory.accessing

    @property
    def waiting(self) -> str:
        """What it waits for, a semaphore and the word there; "" if it does not. Locking: none; any thread."""
        return self._semaphore.waiting

    def stop(self) -> None:
        """End what is executed with ``Stopped``, now and for ever: waiting, a long launch. Any thread."""
        self._stopped = True
        self._semaphores.released()

    def _go_on(self) -> None:
        if self._stopped:
            raise Stopped

    def check(self) -> None:
        """Verify that nothing is left of a push. Call it while none is executed.

        Raises:
            CheckFailed: with the state.
        """
        if self._executing or self._copy.pending is not None:
            raise CheckFailed(f"{self!r}: executing {self._executing}, pending {self._copy.pending}")

    def statistics(self) -> ProcessorStatistics:
        """What was executed, and what was not. O(methods)."""
        counts = self.counts
        return ProcessorStatistics(
            self.name,
            self._pushes,
            self._words,
            counts.launches,
            counts.bytes_copied,
            counts.bytes_filled,
            counts.releases,
            counts.acquires,
            counts.waits,
            self._malformed,
            dict(counts.busy),
            counts.not_executed,
        )

    def __repr__(self) -> str:
        return f"<Processor {self.name!r}>"
