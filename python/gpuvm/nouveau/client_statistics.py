"""What a client says of itself."""

from __future__ import annotations

from dataclasses import dataclass

from gpuvm.mem.handles import GemHandlesStatistics
from gpuvm.nouveau.bind_queue import BindQueueStatistics
from gpuvm.nouveau.channel import ChannelStatistics
from gpuvm.nouveau.statistics import UvmmStatistics
from gpuvm.sync.syncobj_table import SyncObjTableStatistics


@dataclass(frozen=True, slots=True)
class ClientStatistics:
    """A snapshot of one client."""

    name: str
    dialect: str
    handles: GemHandlesStatistics
    syncobjs: SyncObjTableStatistics
    vm: UvmmStatistics | None
    binds: BindQueueStatistics | None
    channels: tuple[ChannelStatistics, ...]
    busy_ns: int
    """Time that its channels spent executing, those that were freed among them."""
