"""What a sync object holds while a trace is put in order: a fence, or the points of a timeline, as clocks."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

Clock: TypeAlias = Mapping[int, int]
"""Up to which job of each queue all are done. No queue: signalled from the beginning."""

NO_CLOCK: Final[Clock] = {}


def joined(one: Clock, other: Clock, done: Sequence[int]) -> Clock:
    """Both; one of the two itself where it has all of the other. ``done``, by queue, is known anyway."""
    if all(one.get(queue, 0) >= number for queue, number in other.items()):
        return one
    if all(other.get(queue, 0) >= number for queue, number in one.items()):
        return other
    both = {**one, **{queue: number for queue, number in other.items() if number > one.get(queue, 0)}}
    return {queue: number for queue, number in both.items() if number > done[queue]}


class Slot:
    """One sync object. Empty at first, as after a reset.

    A point of a timeline is signalled when those before it are, too. Points that are done are forgotten now
    and then, so a slot is as large as what is pending.

    Source: dma_fence_chain_init, dma_fence_chain_find_seqno, drm_syncobj_replace_fence.
    """

    def __init__(self) -> None:
        self._points: list[int] = []  # ascending; 0 is a binary fence
        self._clocks: list[Clock] = []
        self._full = 64

    def put(self, fence: Clock, point: int, done: Sequence[int]) -> None:
        """A new fence: for ``point`` of the timeline, or 0 in place of everything."""
        if point == 0:
            self._points, self._clocks = [0], [fence]
            return
        if self._clocks:
            fence = joined(self._clocks[-1], fence, done)
            point = max(point, self._points[-1])
        self._points.append(point)
        self._clocks.append(fence)
        if len(self._points) >= self._full:
            self._forget(done)

    def find(self, point: int) -> Clock:
        """What a wait for ``point`` waits for; 0: for all that is there. Nothing, if nothing is there yet."""
        if not self._clocks:
            return NO_CLOCK
        at = bisect_left(self._points, point) if point else -1
        return self._clocks[at] if at < len(self._clocks) else NO_CLOCK

    def _forget(self, done: Sequence[int]) -> None:
        pending = next(
            (at for at, clock in enumerate(self._clocks) if any(done[q] < n for q, n in clock.items())),
            len(self._clocks),
        )
        kept = max(pending - 1, 0)  # whoever asks for an older point gets one that is done, too
        del self._points[:kept], self._clocks[:kept]
        self._full = 2 * len(self._points) + 64
