"""A GPU that does jobs late: one after another, in a thread of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from typing import Generic, Protocol, TypeVar

from gpuvm.sync import lockdep, task
from gpuvm.sync.fence import Fence


class HasFence(Protocol):
    """A job: what to do, and then to signal."""

    fence: Fence


J = TypeVar("J", bound=HasFence)


class LateGpu(ABC, Generic[J]):
    def __init__(self) -> None:
        self.queue: deque[J] = deque()
        self.done = 0
        self.stopping = False
        self.sleeper: task.Waiter | None = None
        self.thread = task.start("gpu", self.work)

    @abstractmethod
    def perform(self, job: J) -> None:
        """What a job is about; its fence is signalled after."""

    def push(self, job: J) -> None:
        self.queue.append(job)
        self.rouse()

    def stop(self) -> None:
        self.stopping = True
        self.rouse()

    def rouse(self) -> None:
        sleeper = self.sleeper
        if sleeper is not None:
            sleeper.wake()

    def work(self) -> None:
        while not self.stopping:
            self.sleeper = task.Waiter()
            if not self.queue and not self.stopping:
                self.sleeper.wait()
            while self.queue:
                self.run(self.queue.popleft())

    def run(self, job: J) -> None:
        with lockdep.fence_signalling(job.fence.context):
            self.perform(job)
            job.fence.signal()
        self.done += 1
