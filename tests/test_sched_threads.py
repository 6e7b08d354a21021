"""The scheduler with the machine's own threads, and what the validator says of callbacks."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from random import Random

import pytest

from contention import in_real_threads
from gpuvm.errors import LockdepError, NotFound
from gpuvm.sched import Entity, Job, Scheduler, SchedulerBackend
from gpuvm.sync.fence import Fence, fence_context_alloc
from gpuvm.sync.mutex import Mutex
from gpuvm.sync.resv import Resv
from gpuvm.testing.mock_device import MockDevice, MockJob
from mock_jobs import push
from suite import scaled

PRODUCERS = 4
JOBS = scaled(100, 3000)


@pytest.mark.parametrize("in_order", [False, True])
def test_many_threads(in_order: bool) -> None:
    """Producers wait for each other's jobs, one entity is killed, hardware is done now and then."""
    with MockDevice(1 if in_order else 3) as device:
        scheduler = Scheduler(device, name="s", credit_limit=16, timeout=60, in_order=in_order)
        entities = [Entity(scheduler) for _ in range(PRODUCERS)]
        jobs: list[MockJob] = []

        def produce(number: int) -> None:
            dice = Random(number)
            for turn in range(JOBS):
                after = [dice.choice(jobs).finished for _ in range(dice.randrange(3)) if jobs]
                queue = 0 if in_order else dice.randrange(3)
                try:
                    job = push(entities[number], f"{number}.{turn}", after=after, duration=0, queue=queue)
                except NotFound:
                    assert number == 0
                    return
                jobs.append(job)
                if turn % 10 == 0:
                    assert job.finished.wait(60)
                if turn == JOBS // 2:
                    scheduler.check()
                    if number == 0:
                        entities[0].kill()

        in_real_threads(PRODUCERS, produce)
        for entity in entities:
            entity.destroy(60)
        scheduler.fini()
        scheduler.check()
        assert {job.finished.error for job in jobs} <= {0, errno.ESRCH}
        for number in range(PRODUCERS):
            killed = [job.finished.error for job in jobs if job.entity is entities[number]]
            assert killed == sorted(killed)
            assert number == 0 or not any(killed)
        assert len(device.names("free")) == len(jobs) == scheduler.statistics().freed


def test_hardware_that_is_done_in_another_thread() -> None:
    jobs: list[MockJob] = []
    with (
        MockDevice(2) as device,
        Scheduler(device, name="s", credit_limit=5) as scheduler,
        Entity(scheduler) as one,
        Entity(scheduler) as other,
    ):

        def produce() -> None:
            for turn in range(JOBS):
                after = [jobs[-1].finished] if turn % 3 == 0 and jobs else []
                jobs.append(push((one, other)[turn % 2], after=after, queue=turn % 2))

        def execute() -> None:
            done = 0
            while done < JOBS:
                ended = device.advance()
                done += ended
                waiting = [job for job in jobs if not job.scheduled.signalled]
                if waiting and not ended:
                    waiting[0].scheduled.wait(0.001)

        in_real_threads(2, lambda number: (produce, execute)[number]())
        assert {job.finished.wait(60) for job in jobs} == {True}


# -- the validator looks on


class Calls(SchedulerBackend[Job]):
    def __init__(self, call: Callable[[], object]) -> None:
        self.call = call

    def run_job(self, job: Job) -> Fence | None:
        self.call()
        return None


@pytest.mark.parametrize("what", ["reservation", "fence"])
def test_run_job_must_not_wait_for_others(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[type[BaseException]] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: told.append(args.exc_type))
    foreign = Fence(fence_context_alloc(), 1)
    resv = Resv()
    backend = Calls(foreign.wait if what == "fence" else resv.lock)
    with Scheduler(backend, name="s", credit_limit=1) as scheduler, Entity(scheduler) as entity:
        job = Job(entity)
        job.arm()
        job.push()
        assert job.finished.wait()
        assert job.finished.error == errno.EIO
    assert told == [LockdepError]


def test_stop_under_a_lock_that_run_job_takes_is_reported() -> None:
    lock = Mutex("driver")

    def locked() -> None:
        with lock:
            pass

    with Scheduler(Calls(locked), name="s", credit_limit=1) as scheduler, Entity(scheduler) as entity:
        job = Job(entity)
        job.arm()
        job.push()
        assert job.finished.wait()
        with lock, pytest.raises(LockdepError, match="sched_run"):
            scheduler.stop()
        assert not scheduler.stopped
