"""What the numbers in a recording are here."""

from __future__ import annotations

from collections.abc import KeysView
from typing import Final

NOBODY: Final = 0xFFFF_FFFF
"""A number that nothing has."""


class Numbering:
    """Handles of one kind, or channels, of one client: by their numbers in the recording, ours.

    Which number something new gets is the kernel's own business, and so need not be the same; but what has
    one number there has one here. What nobody told of keeps its number, unless that is something else's here.
    """

    def __init__(self) -> None:
        self._ours: dict[int, int] = {}
        self._recorded: dict[int, int] = {}

    def pair(self, recorded: int | None, ours: int | None) -> bool:
        """They name the same thing; True if the numbers are different.

        Args:
            recorded: None if the trace does not tell.
            ours: None if it is not here, so that its uses shall find nothing.
        """
        if recorded is None:
            return False
        self.forget(recorded)
        self._ours[recorded] = NOBODY if ours is None else ours
        if ours is not None:
            self._recorded[ours] = recorded
        return ours is not None and recorded != ours

    def same(self, recorded: int, ours: int) -> bool:
        """Whether they name one thing as far as is known, or both something new."""
        return self._ours.get(recorded) == (ours if ours in self._recorded else None)

    def forget(self, recorded: int) -> None:
        """The number names nothing any more."""
        ours = self._ours.pop(recorded, None)
        if ours is not None:
            self._recorded.pop(ours, None)

    def ours(self, recorded: int) -> int:
        """Our number of it; ``NOBODY`` if it is not here. Cost: O(1)."""
        found = self._ours.get(recorded)
        if found is None:
            return NOBODY if recorded in self._recorded else recorded
        return found

    @property
    def all_ours(self) -> KeysView[int]:
        """Our numbers of all that is known."""
        return self._recorded.keys()

    def __contains__(self, recorded: int) -> bool:
        """Whether it is here under some number."""
        return self._ours.get(recorded, NOBODY) != NOBODY
