"""Channels: those of one client, by number."""

from __future__ import annotations

import itertools
from collections import Counter
from contextlib import nullcontext
from typing import TYPE_CHECKING, Final

from gpuvm.errors import CheckFailed, NotFound, OutOfMemory
from gpuvm.nouveau.channel import PATIENCE, Channel
from gpuvm.nouveau.engine import EngineFault, Processor
from gpuvm.nouveau.fault import make_report
from gpuvm.nouveau.watcher import ChannelWatch
from gpuvm.nouveau.work import Work
from gpuvm.sync import lockdep, task
from gpuvm.sync.mutex import Mutex

if TYPE_CHECKING:
    from gpuvm.nouveau.client import Client


class Channels:
    """Makes the channels of a client and ends them.

    Locking: any thread, nothing held.

    Args:
        client: whose they are.

    Attributes:
        by_id: those that there are.
        freed_busy: ns for which engines worked for channels that were freed, by the engine's name.
        freed_busy_ns: ns for which these channels executed.
        freed_work: what they executed.

    Source: ``struct nouveau_abi16``.
    """

    def __init__(self, client: Client) -> None:
        self._client: Final = client
        self._mutex: Final = Mutex(f"{client.name} channels", lockdep.lock_class("client_channels"))
        self.by_id: Final[dict[int, Channel]] = {}
        self.freed_busy: Final[Counter[str]] = Counter()
        self.freed_busy_ns = 0
        self.freed_work: Final = Work()

    def alloc(self) -> Channel:
        """A new one, with the lowest number from 1 on that is free.

        Raises:
            NoSpace: the device has no more.
            OutOfMemory: there are no threads for it.

        Source: ``nouveau_abi16_ioctl_channel_alloc``.
        """
        with self._mutex:
            id = next(number for number in itertools.count(1) if number not in self.by_id)
            self._client.device.take_channel()
            try:
                channel = self.by_id[id] = self._make(id)
            except BaseException:
                self._client.device.give_back_channel()
                raise
            return channel

    def _make(self, id: int) -> Channel:
        client, device = self._client, self._client.device
        name = f"{client.name} channel {id}"
        watcher = device.watcher
        watch = None if watcher is None else ChannelWatch(watcher, client, id)
        processor = Processor(
            client.space,
            device.chip.engines,
            clock=task.now,
            semaphores=device.semaphores,
            name=name,
            accessed=None if watch is None else watch.accessed,
        )

        def faulted(error: EngineFault) -> str:
            report = make_report(client, id, error)
            device.note_fault(report)
            if watcher is not None:
                watcher.faulted(client, report)
            return str(report)

        try:
            channel = Channel(id, name, processor, timeout=device.timeout, faulted=faulted, watch=watch)
        except RuntimeError as error:
            raise OutOfMemory(f"CHANNEL_ALLOC: {error}; free channels, or raise `ulimit -u`") from error
        if client.vm is not None:  # otherwise it will execute nothing
            client.vm.engines[processor.accessing] = None
        return channel

    def free(self, id: int) -> None:
        """End one (``nouveau_abi16_ioctl_channel_free``).

        Raises:
            NotFound: no such channel.
        """
        with self._mutex:
            channel = self.by_id.pop(id, None)
        if channel is None:
            raise NotFound(f"CHANNEL_FREE: there is no channel {id}, but {[*self.by_id]}", id)
        self._end([channel])

    def calm_down(self, deadline: int) -> None:
        """Kill those that have something to do at ``deadline``, in ns of ``task.now``."""
        for channel in [*self.by_id.values()]:
            if not (channel.flush(deadline) and channel.ring.idle(deadline)):
                channel.kill("its device was closed, and it was not done in time")

    def end_all(self) -> None:
        """End all of them together, since they may wait for each other."""
        channels = [*self.by_id.values()]
        self.by_id.clear()
        self._end(channels)

    def _end(self, channels: list[Channel]) -> None:
        vm = self._client.vm
        deadline = task.now() + int(PATIENCE * task.NSEC_PER_SEC)
        for channel in channels:
            channel.flush(deadline)
        for channel in channels:
            channel.stop()
        for channel in channels:
            channel.end_ring(deadline)
            if vm is not None:
                vm.engines.pop(channel.processor.accessing, None)
        with vm.lock if vm is not None else nullcontext():
            pass  # who armed a job has pushed it; not before, since who has the lock may wait for the rings
        for channel in channels:
            channel.end()
        with self._mutex:
            for channel in channels:
                self.freed_busy.update(channel.processor.counts.busy)
                self.freed_busy_ns += channel.busy_ns
                self.freed_work.add_channel(channel.processor.statistics())
                self._client.device.give_back_channel()

    def check(self) -> None:
        """Verify all of them. Call it while no call is under way and nothing is executed.

        Raises:
            CheckFailed: with the state.
        """
        for id, channel in self.by_id.copy().items():
            if channel.id != id:
                raise CheckFailed(f"{channel!r} has the number {id}")
            channel.check()
