"""Mock hardware with a scheduler on top, and jobs for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from gpuvm.sched import Entity, Job, Policy, Scheduler
from gpuvm.sync.fence import Fence
from gpuvm.testing import Interleaving
from gpuvm.testing.mock_device import MockDevice, MockJob

MS = 1_000_000


def push(
    entity: Entity,
    name: str = "",
    *,
    after: Iterable[Fence] = (),
    duration: int | None = None,
    queue: int = 0,
    credits: int = 1,
    false_alarm: bool = False,
) -> MockJob:
    job = MockJob(entity, name, duration=duration, queue=queue, credits=credits, false_alarm=false_alarm)
    for fence in after:
        job.add_dependency(fence)
    job.arm()
    job.push()
    return job


def armed(entity: Entity, *after: Fence) -> Job:
    """A job of any backend, that nobody has pushed yet."""
    job = Job(entity)
    for fence in after:
        job.add_dependency(fence)
    job.arm()
    return job


@dataclass(frozen=True)
class Setup:
    run: Interleaving
    device: MockDevice
    scheduler: Scheduler

    def settle(self) -> None:
        """Let the workers go on until all of them sleep; then nothing may be out of order."""
        self.run.run()
        self.check()

    def check(self) -> None:
        self.scheduler.check()
        self.device.check()

    def advance(self, count: int = 1) -> None:
        assert self.device.advance(count) == count
        self.settle()

    def ran(self) -> list[str]:
        return self.device.names("run")


@contextmanager
def mock_setup(
    seed: int,
    *,
    queues: int = 1,
    credit_limit: int = 64,
    timeout: float | None = None,
    policy: Policy = Policy.FIFO,
    in_order: bool = False,
) -> Iterator[Setup]:
    """A mock device, and a scheduler that must have nothing left in the end."""
    with Interleaving(seed) as run, MockDevice(queues) as device:
        scheduler = Scheduler(
            device,
            name="mock",
            credit_limit=credit_limit,
            timeout=timeout,
            policy=policy,
            in_order=in_order,
        )
        yield Setup(run, device, scheduler)
        if not scheduler._worker.closing:
            scheduler.fini()
        scheduler.check()
        assert scheduler.statistics().in_flight == scheduler.statistics().killed == 0
