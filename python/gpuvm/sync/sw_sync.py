"""SwSync: a timeline that user space counts up itself, for fences to try things with (``sw_sync``)."""

from __future__ import annotations

import errno
import heapq
import weakref
from dataclasses import dataclass
from typing import Final

from gpuvm.errors import BadFile, CheckFailed, InvalidArgument
from gpuvm.sync import lockdep
from gpuvm.sync.fence import Fence, fence_context_alloc
from gpuvm.sync.mutex import Mutex

U32_MAX: Final = 0xFFFF_FFFF
_BEGIN: Final = 1 << 32
"""Where it begins to count, of which it shows 32 bits: so there are numbers before it."""


@dataclass(frozen=True, slots=True)
class SwSyncStatistics:
    """A snapshot of one timeline."""

    name: str
    value: int
    pending: int
    """Fences that wait for a higher value."""


class SwSync:
    """A counter. A fence with a number is signalled when the counter gets there.

    Numbers are 32 bits and wrap: one is ahead of the counter if it is by less than 2^31.

    Locking: any thread; a lock of its own, under which fences are signalled.

    Args:
        name: of the timeline: who opened it.

    Source: ``drivers/dma-buf/sw_sync.c``.
    """

    __slots__ = ("__weakref__", "_closed", "_context", "_fences", "_mutex", "_numbers", "_value", "name")

    def __init__(self, name: str) -> None:
        self.name: Final = name
        self._context: Final = fence_context_alloc()
        self._value = _BEGIN
        self._fences: Final[dict[int, weakref.ref[Fence]]] = {}
        """Pending ones, by their numbers of more than 32 bits. Who waits for one keeps it."""
        self._numbers: list[int] = []
        """A heap of these."""
        self._closed = False
        self._mutex: Final = Mutex(f"sw_sync {name}", lockdep.lock_class("sw_sync"))

    @property
    def value(self) -> int:
        """The counter."""
        return self._value & U32_MAX

    def create_fence(self, seqno: int) -> Fence:
        """The fence that is signalled at ``seqno``: the one that there is, or a new one.

        Raises:
            InvalidArgument: no u32.
            BadFile: it is closed.

        Source: ``sync_pt_create``.
        """
        _require_u32("create_fence: seqno", seqno)
        with self._mutex:
            if self._closed:
                raise BadFile(f'sw_sync "{self.name}" is closed; open another one', self.name)
            ahead = (seqno - self._value + (1 << 31) & U32_MAX) - (1 << 31)
            number = self._value + ahead
            known = self._fences.get(number)
            fence = None if known is None else known()
            if fence is not None:
                return fence
            fence = Fence(self._context, number, driver="sw_sync", timeline=self.name)
            if ahead <= 0:
                fence.signal()
            else:
                if known is None:
                    heapq.heappush(self._numbers, number)
                self._fences[number] = weakref.ref(fence)
            return fence

    def increase(self, by: int) -> None:
        """Count up, and signal what is reached, in order.

        Raises:
            InvalidArgument: no u32.

        Source: ``sw_sync_ioctl_inc``.
        """
        _require_u32("increase: by", by)
        with self._mutex:
            self._value += by
            self._signal(self._value, 0)

    def close(self) -> None:
        """No fence is reached any more: those that wait are signalled with ``ENOENT``; again: nothing.

        Source: ``sw_sync_debugfs_release``.
        """
        with self._mutex:
            self._closed = True
            self._signal(None, errno.ENOENT)

    def _signal(self, up_to: int | None, error: int) -> None:
        while self._numbers and (up_to is None or self._numbers[0] <= up_to):
            fence = self._fences.pop(heapq.heappop(self._numbers))()
            if fence is None:
                continue
            if error:
                fence.set_error(error)
            fence.signal()

    def check(self) -> None:
        """Verify that pending fences are ahead of the counter, and known by their numbers.

        Raises:
            CheckFailed: with the state.
        """
        reached = [number for number in self._numbers if number <= self._value]
        if reached or sorted(self._fences) != sorted(self._numbers) or (self._closed and self._numbers):
            raise CheckFailed(f"{self!r}: {sorted(self._numbers)} pending, {sorted(self._fences)} known")

    def statistics(self) -> SwSyncStatistics:
        """Where it stands."""
        pending = sum(fence() is not None for fence in [*self._fences.values()])
        return SwSyncStatistics(self.name, self.value, pending)

    def __repr__(self) -> str:
        return f'<SwSync "{self.name}" at {self.value}>'


def _require_u32(what: str, value: int) -> None:
    if not 0 <= value <= U32_MAX:
        raise InvalidArgument(f"{what} {value}; pass a u32", value, U32_MAX)
