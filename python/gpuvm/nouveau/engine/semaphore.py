"""Semaphore: what engines do with one: write it, with the time perhaps, reduce it, wait for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gpuvm.nouveau.engine.counts import MethodCounts
from gpuvm.nouveau.engine.fault import Rejected
from gpuvm.nouveau.engine.memory import EngineMemory
from gpuvm.nouveau.engine.semaphores import SemaphoreWaits
from gpuvm.sync import task

REDUCTIONS: Final = frozenset((*range(8), 10, 11, 12))
"""Operations that there are, by the numbers of the host and of copy engines."""
FRONT_END_REDUCTIONS: Final = (5, 0, 1, 6, 7, 3, 4, 2)
"""These numbers of what the graphics front end calls 0 to 7: add, min, max, inc, dec, and, or, xor."""


class Semaphore:
    """The semaphores of a channel's engines: 4 or 8 bytes, or 16 with the time in the upper 8.

    Locking: the channel's thread.

    Args:
        clock: ns, as timestamps have it.
        stopped: the channel is to stop.

    Source: "Host Semaphore Methods" in NVIDIA's dev_pbdma.
    """

    def __init__(
        self,
        memory: EngineMemory,
        counts: MethodCounts,
        waits: SemaphoreWaits,
        clock: Callable[[], int],
        stopped: Callable[[], bool],
    ) -> None:
        self._memory: Final = memory
        self._counts: Final = counts
        self._waits: Final = waits
        self._clock: Final = clock
        self._stopped: Final = stopped
        self._acquiring: tuple[int, int, int] | None = None
        """What ``acquire`` waits for: an address, the payload, and the number there when it looked."""

    @property
    def waiting(self) -> str:
        """What ``acquire`` waits for, as text; "" if it does not. Locking: none; any thread."""
        acquiring = self._acquiring
        if acquiring is None:
            return ""
        addr, payload, value = acquiring
        return f"it acquires {payload:#x} at {addr:#x}, where {value:#x} is"

    def release(self, addr: int, payload: int, size: int, *, timestamp: bool) -> None:
        """Write a payload of ``size`` bytes, or with the time 16 bytes, and wake who waits.

        Raises:
            Rejected: the address is no multiple of what is written.
            PageFault: it leads nowhere.
        """
        _require_aligned(addr, 16 if timestamp else size)
        if timestamp:  # comes first, since the payload is what others wait for
            self._memory.write_number(addr + 8, self._clock(), 8)
        self._memory.write_number(addr, payload, 8 if timestamp else size)
        self._released()

    def reduce(
        self, addr: int, payload: int, size: int, operation: int, *, signed: bool, timestamp: bool
    ) -> None:
        """Change what is there by one of ``REDUCTIONS``; then the time is written first, too.

        Raises: as ``release``; or there is no such operation for this size.
        """
        _require_aligned(addr, 16 if timestamp else size)
        if operation not in REDUCTIONS or (size == 8 and operation > 5):
            raise Rejected(f"INVALID_OPERATION: reduction {operation:#x} of {size} bytes")
        if timestamp:
            self._memory.require_atomics(addr, size)
            self._memory.write_number(addr + 8, self._clock(), 8)
        self._memory.reduce(addr, size, operation, payload, signed)
        self._released()

    def acquire(self, addr: int, size: int, payload: int, reached: Callable[[int], bool]) -> None:
        """Wait until ``reached`` agrees with the number there. ``payload``: for ``waiting``.

        Raises:
            Rejected, PageFault: as ``release``; the page may go while this waits.
            Stopped: the channel is to stop.
        """
        _require_aligned(addr, size)

        def look() -> bool:
            value = self._memory.read_number(addr, size)
            self._acquiring = addr, payload, value
            return reached(value)

        start = task.now()
        if not reached(self._memory.read_number(addr, size)):
            self._counts.waits += 1
            try:
                self._waits.wait_until(look, self._stopped)
            finally:
                self._acquiring = None
                self._counts.waited += task.now() - start
                self._memory.acquired(addr, size, start)
        else:
            self._memory.acquired(addr, size, start)
        self._counts.acquires += 1

    def _released(self) -> None:
        self._counts.releases += 1
        self._waits.released()


def _require_aligned(addr: int, size: int) -> None:
    if addr % size:
        raise Rejected(f"SEMAPHORE: {addr:#x} is no multiple of {size}")
