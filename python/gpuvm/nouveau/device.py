"""Device: a GPU and its driver, to be opened by clients (``struct nouveau_drm``)."""

from __future__ import annotations

import itertools
from _thread import allocate_lock
from collections import deque
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self
from weakref import WeakKeyDictionary

from gpuvm.errors import BadFile, InvalidArgument, NoSpace
from gpuvm.mem import Device as Memory
from gpuvm.mem import EvictionPolicy, GemObject
from gpuvm.mem.move_statistics import DeviceStatistics as MemoryStatistics
from gpuvm.nouveau.channel import PATIENCE
from gpuvm.nouveau.chipset import Chip, chip_of
from gpuvm.nouveau.client import Client
from gpuvm.nouveau.engine import SemaphoreWaits
from gpuvm.nouveau.uapi.dialects import CURRENT, Dialect
from gpuvm.nouveau.watcher import Watcher
from gpuvm.sched.arguments import require_seconds
from gpuvm.sync import lockdep, task
from gpuvm.sync.mutex import Mutex

if TYPE_CHECKING:
    from gpuvm.nouveau.fault import FaultReport

CHANNELS: Final = 128
"""That there can be at a time, in all clients."""
FAULTS_KEPT: Final = 256
"""Reports of faults; older ones are forgotten."""


@dataclass(frozen=True, slots=True)
class DeviceStatistics:
    """A snapshot of one device."""

    name: str
    chip: str
    clients: int
    channels: int
    """In all of them."""
    faults: int
    """All that there were."""
    memory: MemoryStatistics


class Device:
    """One GPU. ``open`` gives a client, which is what a program has that opened the device's node.

    ``with Device() as device:`` closes it at the end.

    Locking: any thread.

    Args:
        chipset: which chip it is, such as 0x162 (TU102) or 0x172 (GA102); see ``chipset.CHIPS``.
        vram: bytes of its own memory.
        gart: bytes of system memory within its reach.
        policy: who is evicted first. Default: the least recently used.
        timeout: seconds that a job may take on a channel before that is killed; None: for ever.
        name: for reports and fences.
        objects: as ``mem.Device``.
        watcher: is told what happens.

    Attributes:
        mem: its memories and the objects in them.
        faults: what became of accesses that went wrong, the newest last; ``FAULTS_KEPT`` at most.

    Raises:
        InvalidArgument: no such chip, a timeout not positive or beyond 292 years, or as ``mem.Device``.
        OutOfMemory: as ``mem.Device``.
    """

    def __init__(
        self,
        *,
        chipset: int = 0x162,
        vram: int = 8 << 30,
        gart: int = 8 << 30,
        policy: EvictionPolicy | None = None,
        timeout: float | None = 10.0,
        name: str = "nouveau",
        objects: int | None = None,
        watcher: Watcher | None = None,
    ) -> None:
        self.chip: Final[Chip] = chip_of(chipset)
        if timeout is not None:
            require_seconds("Device", timeout)
        self.name: Final = name
        self.timeout: Final = timeout
        self.watcher: Final = watcher
        moved = None if watcher is None else watcher.moved
        self.mem: Final[Memory] = Memory(
            vram=vram, gart=gart, policy=policy, name=name, objects=objects, moved=moved
        )
        self.faults: Final[deque[FaultReport]] = deque(maxlen=FAULTS_KEPT)
        self._guard: Final = allocate_lock()
        self._fault_count = 0
        self._channels = 0
        self.semaphores: Final = SemaphoreWaits()
        self.tilings: Final[WeakKeyDictionary[GemObject, tuple[int, int]]] = WeakKeyDictionary()
        """Tile mode and flags of objects that have any, for whoever imports them."""
        self._ids: Final = itertools.count(1)
        self._clients: Final[dict[int, Client]] = {}
        self._opening: Final = Mutex(f"{name} opening", lockdep.lock_class("device_opening"))
        self._closed = False
        """No client is added any more. Locking: ``_opening``."""

    @property
    def clients(self) -> tuple[Client, ...]:
        """Those that are open, in the order in which they came."""
        return tuple(client for client in self._clients.copy().values() if client.is_open)

    def open(self, *, dialect: Dialect = CURRENT, name: str = "") -> Client:
        """A new client.

        Args:
            dialect: of the uAPI that it speaks: today's, or that of the original series.
            name: for reports.

        Raises:
            InvalidArgument: the device is closed; it is no dialect.

        Source: ``nouveau_drm_open``.
        """
        if not isinstance(dialect, Dialect):
            raise InvalidArgument(f"open: {dialect!r} is no dialect; pass CURRENT or SERIES", dialect)
        with self._opening:
            if self._closed:
                raise InvalidArgument(f"open: {self!r} is closed; make another one", self)
            number = next(self._ids)
            client = Client(self, number, name or f"client {number}", dialect, self._gone)
            self._clients[number] = client
            if self.watcher is not None:
                self.watcher.opened(client)
            return client

    def _gone(self, client: Client) -> None:
        """A client was released."""
        self._clients.pop(client.id, None)
        if self.watcher is not None:
            self.watcher.closed(client)

    def take_channel(self) -> None:
        """Count a channel that is made.

        Raises:
            NoSpace: there are ``CHANNELS`` already.
        """
        with self._guard:
            free = self._channels < CHANNELS
            self._channels += free
        if not free:
            raise NoSpace(f"CHANNEL_ALLOC: {self!r} has {CHANNELS} channels; free some", CHANNELS, CHANNELS)

    def give_back_channel(self) -> None:
        """Count one that is gone."""
        with self._guard:
            self._channels -= 1

    def note_fault(self, report: FaultReport) -> None:
        """A channel dies of this. Locking: none; in fence-signalling sections too."""
        self.faults.append(report)
        with self._guard:
            self._fault_count += 1

    # -- its end

    def close(self) -> None:
        """Close all clients, wait until they are gone, and make sure that nothing is left; again: nothing.

        Channels may finish what they have for a second, and are killed then. Calls that are under way in
        other threads are waited for. Locking: none held.

        Raises:
            Busy: somebody has objects, like views of their bytes. The clients are closed. Or as
                ``Client.close``.
            OutOfMemory: as ``Client.close``; close it again.

        Source: ``nouveau_drm_device_remove``.
        """
        with self._opening:
            self._closed = True
            clients = tuple(self._clients.copy().values())
        deadline = task.now() + int(PATIENCE * task.NSEC_PER_SEC)
        with ExitStack() as closing:
            for client in clients:
                closing.enter_context(client.closing())
            for (
                client
            ) in clients:  # none of them goes before all are calm, since they may wait for each other
                client.calm_down(deadline)
        for client in clients:
            client.close()
            client.released.wait()
        self.mem.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
            return
        for client in self.clients:  # what raised may hold objects, and calls that never end
            client.close()

    # -- itself

    def gpuvas(self) -> str:
        """What debugfs shows of all clients' address spaces; see ``Client.gpuvas``."""
        told = []
        for client in self.clients:
            with suppress(BadFile):  # it was closed just now
                told.append(client.gpuvas())
        return "".join(told)

    def check(self) -> None:
        """Verify all of it: memory, clients, address spaces, channels. Call it while no call is under way.

        Raises:
            CheckFailed: with the state.
        """
        self.mem.check()
        for client in self.clients:
            client.check()

    def statistics(self) -> DeviceStatistics:
        """Counts, of now."""
        return DeviceStatistics(
            self.name,
            self.chip.name,
            len(self._clients),
            self._channels,
            self._fault_count,
            self.mem.statistics(),
        )

    def __repr__(self) -> str:
        return f'<Device "{self.name}" {self.chip.name}, {len(self._clients)} clients>'
