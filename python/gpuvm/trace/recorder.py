"""Recorder: tells the calls of programs, and what they lead to, while they are made."""

from __future__ import annotations

import json
import threading
from dataclasses import asdict, dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from gpuvm.nouveau.uapi.caller import Caller
from gpuvm.nouveau.uapi.layout import maker
from gpuvm.nouveau.uapi.numbers import TYPE
from gpuvm.nouveau.watcher import Watcher
from gpuvm.sync import lockdep, task
from gpuvm.sync.mutex import Mutex
from gpuvm.trace import frames
from gpuvm.trace.copied import Copied, CopiedFiles
from gpuvm.trace.told import TOLD, is_early

if TYPE_CHECKING:
    from gpuvm.mmu.table_work import TableWork
    from gpuvm.nouveau.client import Client
    from gpuvm.nouveau.fault import FaultReport
    from gpuvm.sync.fence import Fence
    from gpuvm.trace.spool import Spool

_caller: Final = maker(Caller)


@dataclass(frozen=True, slots=True)
class RecorderStatistics:
    """A snapshot of a recorder."""

    calls: int
    """That were told."""


class _OfThread:
    """What the driver says of the call that a thread makes."""

    __slots__ = ("bind", "calls", "job", "making", "place", "tables")

    def __init__(self) -> None:
        self.making = False
        """It makes one. Others, which do not come as ioctls, are not told."""
        self.place = 0
        """Where it took effect; 0: not said."""
        self.bind = 0
        self.tables: TableWork | None = None
        """What a bind did to page tables within its call."""
        self.job: tuple[int, int, int, str, int] | None = None
        """Channel; context, seqno and timeline of the fence; when."""
        self.calls = 0
        """How many it made."""


class _Mine(threading.local):
    def __init__(self, all: list[_OfThread]) -> None:
        self.own = _OfThread()
        all.append(self.own)


class Recorder(Watcher):
    """Makes calls, tells what became of each, and is a device's watcher for all else.

    What a call was about is what the driver copied when it made it, not what the program's memory has later.
    Files are told by numbers of their own, one for each, since programs pass them to each other.

    Everything has a place, so that calls of several threads stand in an order in which they can be made one
    after the other, and what they led to behind them: see ``frames``.

    Locking: any thread, nothing held; as a watcher what that says. Cost: some 5 us a call.

    Args:
        spool: takes what is told.
    """

    def __init__(self, spool: Spool) -> None:
        self._place: Final = spool.place
        self._tell: Final = spool.tell
        self._tell_at: Final = spool.tell_at
        self._make_room: Final = spool.make_room
        self._all: Final[list[_OfThread]] = []
        self._mine: Final = _Mine(self._all)
        self._mutex: Final = Mutex("recorder", lockdep.lock_class("recorder"))
        """Over the numbers of files."""
        self._files: Final[dict[tuple[int, int], int]] = {}
        self._device_told: Final[list[None]] = [None]

    # -- calls

    def make(self, client: Client, request: int, arg: int, caller: Caller) -> int:
        """Make one call, as ``Client.drm_ioctl`` does, and tell of it."""
        number = request & 0xFF
        told = TOLD.get(number) if request >> 8 & 0xFF == TYPE else None
        if told is None:
            return client.drm_ioctl(request, arg, caller)
        began = task.now()
        early = self._place() if told.early and is_early(caller, number, arg) else 0
        mine = self._mine.own
        mine.making = True
        mine.place = mine.bind = 0
        mine.job = mine.tables = None
        memory, files = caller
        copied = Copied(memory)
        if told.file:
            files = CopiedFiles(files)
        try:
            result = client.drm_ioctl(request, arg, _caller((copied, files)))
        except BaseException:
            mine.making = False
            for unused in filter(None, (early, mine.place)):
                self._tell_at(unused, frames.NOTHING)
            raise
        mine.making = False
        took = task.now() - began
        file = self._number_of(files.file) if isinstance(files, CopiedFiles) else None
        place = mine.place or (early if result == 0 else 0) or self._place()  # refused: where it ended
        unused = early if place != early else 0
        size = request >> 16 & 0x3FFF
        head = frames.CALL, number, client.id, began, took, result, size, arg
        if not self._tell_at(place, *head, copied, file, mine.bind, mine.job, mine.tables, unused):
            self._make_room()
        mine.calls += 1
        return result

    def _number_of(self, file: tuple[int, int] | None) -> int | None:
        if file is None:
            return None
        with self._mutex:
            return self._files.setdefault(file, len(self._files))

    def about(self, key: str, value: str | int) -> None:
        """Something about the recording, instead of what the key had."""
        self._tell(frames.ABOUT, key, value)

    # -- what the device says

    def opened(self, client: Client) -> None:
        """As ``Watcher``."""
        if self._device_told:
            self._device_told.clear()
            device = client.device
            told = device.chip.name, device.chip.chipset, device.mem.vram.size, device.mem.gart.size
            self._tell(frames.DEVICE, *told)
        self._tell(frames.OPENED, task.now(), client.id, client.name)

    def closed(self, client: Client) -> None:
        """As ``Watcher``."""
        self._tell(frames.CLOSED, task.now(), client.id)

    def bound(self, client: Client, number: int) -> None:
        """As ``Watcher``."""
        mine = self._mine.own
        if mine.making:
            mine.place, mine.bind = self._place(), number

    def queued(self, client: Client, channel: int, fence: Fence) -> None:
        """As ``Watcher``."""
        mine, now = self._mine.own, task.now()
        if not mine.making:
            self._tell(frames.QUEUED, now, fence.context, fence.seqno, fence.timeline)
            return
        mine.place = mine.place or self._place()
        mine.job = channel, fence.context, fence.seqno, fence.timeline, now

    def started(self, fence: Fence) -> None:
        """As ``Watcher``."""
        self._tell(frames.STARTED, task.now(), fence.context, fence.seqno)

    def done(self, fence: Fence) -> None:
        """As ``Watcher``."""
        time = fence.timestamp
        self._tell(frames.DONE, time, fence.context, fence.seqno, fence.error)

    def tables_changed(self, client: Client, number: int, work: TableWork) -> None:
        """As ``Watcher``."""
        mine = self._mine.own
        if mine.making and mine.bind == number:
            mine.tables = work
        else:
            self._tell(frames.TABLES, client.id, number, *work)

    def accessed(
        self,
        client: Client,
        channel: int,
        engine: str,
        access: int,
        addr: int,
        range: int,
        began: int,
        ended: int,
    ) -> None:
        """As ``Watcher``."""
        told = began, ended, client.id, channel, engine, access, addr, range
        self._tell(frames.ACCESSED, *told)

    def moved(
        self,
        offset: int,
        size: int,
        source: str | None,
        target: str | None,
        evicted: bool,
        times: tuple[int, int],
    ) -> None:
        """As ``Watcher``."""
        self._tell(frames.MOVED, *times, offset, size, source, target, evicted)

    def faulted(self, client: Client, report: FaultReport) -> None:
        """As ``Watcher``."""
        unmapped = 0 if report.unmapped is None else report.unmapped.call
        mapped = 0 if report.mapped is None else report.mapped.call
        told = (
            report.time,
            client.id,
            report.channel,
            report.addr,
            None if report.access is None else report.access.name,
            None if report.reason is None else report.reason.name,
            str(report.cause),
            report.engine,
            unmapped,
            mapped,
            json.dumps(_plain(asdict(report)), separators=(",", ":")),
        )
        self._tell(frames.FAULTED, *told)

    # -- itself

    def statistics(self) -> RecorderStatistics:
        """Counts, of now."""
        return RecorderStatistics(sum(one.calls for one in [*self._all]))


def _plain(value: Any) -> Any:
    """As JSON can hold it: enums by name."""
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return value
