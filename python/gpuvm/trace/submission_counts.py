"""What a replay through the driver has submitted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpuvm.nouveau.channel import Channel


@dataclass(slots=True)
class SubmissionCounts:
    """What was submitted to the driver, and accepted."""

    sync_binds: int = 0
    async_binds: int = 0
    bind_ops: int = 0
    execs: int = 0
    pushes: int = 0
    words: int = 0
    """In the pushes; methods and their data, had the CPU's writes been recorded."""
    renumbered: int = 0
    """Handles and channels that have another number here, which is the kernel's own business."""
    signals: int = 0
    """Sync objects that binds and execs signal."""
    channels: list[Channel] = field(default_factory=list)
    """All that there were."""
