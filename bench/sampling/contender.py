"""What every contender can do.

Jobs are built outside the clock and run inside it: one in the measuring thread, several each in a thread of
its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeAlias

Job: TypeAlias = Callable[[], None]


class Contender(ABC):
    """Somebody who does the work of one case."""

    validated: bool = False
    """Whether the lock validator is on while it works."""

    @abstractmethod
    def jobs(self, units: int) -> list[Job]:
        """What each thread has to run so that `units` are done by all of them together."""

    @property
    def clock(self) -> Callable[[], int] | None:
        """Its own, in ns, if another process does the work; None: the table's."""
        return None

    def settle(self) -> None:  # noqa: B027 (most have done everything by then)
        """Wait for what the jobs have left under way, after the clock has stopped."""

    @abstractmethod
    def check(self) -> int:
        """After the jobs have run: how many things were found done. Raises `Disagreement` if any was not."""

    def close(self) -> None:  # noqa: B027 (not everybody has something to end)
        """End the threads it keeps."""
