"""Frames: what a recorder tells, one thing each, and the order in which they take effect.

A frame is a tuple: its place, its kind, and what the kind has. Places count from 1 without a gap, in the
order in which things took effect; frames come in another one, since a call is told when it has ended. Times
are ns of ``task.now``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

CALL: Final = 0
"""Call's number, client, began, took, result, size, arg, what was read and what was written (addresses, each
followed by bytes), file, bind number, job, table work, a place that nothing has (0: none).

A job: channel, its fence's context, seqno and timeline, when it was queued; None: none. Table work: entries
written and cleared, tables made and freed; None: none."""
OPENED: Final = 1
"""Time, client, its name."""
CLOSED: Final = 2
"""Time, client."""
STARTED: Final = 3
"""Time, fence's context and seqno."""
DONE: Final = 4
"""Time, fence's context and seqno, error."""
ACCESSED: Final = 5
"""Began, ended, client, channel, engine, access, address, range."""
MOVED: Final = 6
"""Began, ended, offset, size, source, target, evicted."""
TABLES: Final = 7
"""Client, bind number, entries written and cleared, tables made and freed."""
FAULTED: Final = 8
"""Time, client, channel, address, access, reason, cause, engine, bind numbers of who unmapped and who mapped
there, report."""
DEVICE: Final = 9
"""Chip, its number, bytes of VRAM and of GART."""
ABOUT: Final = 10
"""Key, value."""
NOTHING: Final = 11
"""A place that nothing has."""
QUEUED: Final = 12
"""Time, fence's context, seqno and timeline; of a job whose call is not told."""

Frame = tuple[Any, ...]

MOST_HELD: Final = 1 << 16


class Order:
    """Puts frames in their order.

    Those that are missing are waited for, since a call may take long after it took effect; but not by more
    than ``MOST_HELD`` others, and not for ever: then they come late.

    Args:
        take: gets them.
    """

    def __init__(self, take: Callable[[Frame], None]) -> None:
        self._take: Final = take
        self._next = 1
        self._held: Final[dict[int, Frame | None]] = {}
        """By place, what came too early; None: nothing has the place."""

    @property
    def missing(self) -> int:
        """The place that others wait for; 0: none does."""
        return self._next if self._held else 0

    def add(self, frame: Frame) -> None:
        """The next that comes, and with it those that it held up."""
        if frame[0] < self._next:  # it was given up
            self._take(frame)
        else:
            self._held[frame[0]] = frame
        if frame[1] == CALL and frame[-1] >= self._next:
            self._held[frame[-1]] = None
        if len(self._held) > MOST_HELD:
            self.give_up()
        self._go_on()

    def give_up(self) -> None:
        """Do not wait for the next any more."""
        self._next = min(self._held, default=self._next)
        self._go_on()

    def _go_on(self) -> None:
        while self._next in self._held:
            due = self._held.pop(self._next)
            self._next += 1
            if due is not None:
                self._take(due)

    def rest(self) -> None:
        """Nothing more comes: those that wait for what never came."""
        for place in sorted(self._held):
            held = self._held.pop(place)
            if held is not None:
                self._take(held)
