"""Work: what channels executed, those of one client or of many together."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpuvm.nouveau.engine.processor import ProcessorStatistics


@dataclass(slots=True)
class Work:
    """A sum. Locking: the caller's."""

    channels: int = 0
    """That were counted."""
    pushes: int = 0
    """Executed to their end."""
    launches: int = 0
    """Copies and fills."""
    bytes_copied: int = 0
    bytes_filled: int = 0
    not_executed: Counter[tuple[int, int]] = field(default_factory=Counter)
    """Times by class and method."""

    def add_channel(self, done: ProcessorStatistics) -> None:
        """Add what one channel did."""
        self.channels += 1
        self.pushes += done.pushes
        self.launches += done.launches
        self.bytes_copied += done.bytes_copied
        self.bytes_filled += done.bytes_filled
        self.not_executed.update(done.not_executed)

    def add(self, other: Work) -> None:
        """Add what others did."""
        self.channels += other.channels
        self.pushes += other.pushes
        self.launches += other.launches
        self.bytes_copied += other.bytes_copied
        self.bytes_filled += other.bytes_filled
        self.not_executed.update(other.not_executed)
