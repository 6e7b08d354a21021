"""`Job.push_and_wait` with the machine's own threads, and with Ctrl-C at any place."""

from __future__ import annotations

import errno
import gc
import weakref
from random import Random

import pytest

from contention import in_real_threads
from gpuvm.sched import Entity, Job, JobState, Priority, Scheduler, SchedulerBackend, TimeoutStatus
from gpuvm.sync import lockdep, task
from gpuvm.sync.fence import Fence
from gpuvm.testing.mock_device import MockDevice, MockJob
from interleaved import pending_fence
from interrupts import Interrupt
from mock_jobs import armed
from suite import scaled

PATIENCE = 60.0


@pytest.fixture(autouse=True)
def without_validator(lock_validator: None) -> None:
    """So that it is the real thing; and its books are no better than others at Ctrl-C."""
    lockdep.disable()


class Hardware(SchedulerBackend[Job]):
    """It is done at once; or `late`, when the fences in `given` are signalled."""

    def __init__(self, *, late: bool = False) -> None:
        self.late = late
        self.given: list[Fence] = []
        self.freed: list[Job] = []

    def run_job(self, job: Job) -> Fence | None:
        if not self.late:
            return None
        self.given.append(pending_fence())
        return self.given[-1]

    def timedout_job(self, job: Job) -> TimeoutStatus:
        raise AssertionError(f"{job} timed out")

    def free_job(self, job: Job) -> None:
        self.freed.append(job)


def test_many_threads() -> None:
    """Some wait for each job, one pushes many, one kills an entity again and again."""
    rounds = scaled(150, 5000)
    with MockDevice() as device, Scheduler(device, name="s", credit_limit=2, timeout=60) as scheduler:
        jobs: list[MockJob] = []

        def work(number: int) -> None:
            dice = Random(number)
            entity = Entity(scheduler, priority=dice.choice(list(Priority)))
            for turn in range(rounds):
                job = MockJob(entity, f"{number}.{turn}", duration=dice.choice([0, 0, 0, 1000]))
                if jobs and dice.random() < 0.2:
                    job.add_dependency(dice.choice(jobs[-5:]).finished)
                job.arm()
                jobs.append(job)
                if number == 0:
                    job.push()
                elif number == 1 and turn % 10 == 0:
                    entity.kill()
                    job.push_and_wait()
                    entity.destroy()
                    entity = Entity(scheduler)
                else:
                    job.push_and_wait()
                    assert job.finished.signalled
            entity.destroy(60)

        in_real_threads(4, work)
        assert all(job.finished.wait(60) for job in jobs)
    scheduler.check()
    assert {job.finished.error for job in jobs} <= {0, errno.ESRCH}
    assert sorted(device.names("free")) == sorted(job.name for job in jobs)


def test_the_job_is_not_kept() -> None:
    gc.collect()
    gc.disable()
    try:
        with MockDevice() as device, Scheduler(device, name="s", credit_limit=1) as scheduler:
            entity = Entity(scheduler)
            job: MockJob | None = MockJob(entity, duration=0)
            assert job is not None
            job.arm()
            job.push_and_wait()
            reference = weakref.ref(job)
            job = None
            assert reference() is None
            entity.destroy()
    finally:
        gc.enable()


# -- Ctrl-C


@pytest.mark.parametrize("timeout", [None, PATIENCE])
@pytest.mark.parametrize("late", [False, True])
def test_an_interrupt_at_any_place_loses_nothing(late: bool, timeout: float | None) -> None:
    """Whatever was reached: the job can be pushed, or is done and freed once; and the next job too."""
    places = 0
    while interrupt_at(places, late, timeout):
        places += 1
    assert places > 50


def interrupt_at(place: int, late: bool, timeout: float | None) -> bool:
    """Interrupt a call there; False if it has not so many places."""
    backend = Hardware(late=late)
    with Scheduler(backend, name="s", credit_limit=1, timeout=timeout) as scheduler:
        entity = Entity(scheduler)
        job = armed(entity)
        if late:
            task.start("hardware", lambda: signal_first(job, backend))
        with Interrupt(place) as interrupt:
            job.push_and_wait()
        if job.state is JobState.ARMED:  # it came at the very beginning
            job.push()
        following = armed(entity)
        following.push()
        for each in (job, following):
            assert each.scheduled.wait(PATIENCE)
            if late and each is following:
                backend.given[-1].signal()
            assert each.finished.wait(PATIENCE), f"place {place}: {each}"
        entity.destroy()
    assert (job.finished.error, following.finished.error) in ((0, 0), (errno.EIO, 0)), f"place {place}"
    assert backend.freed == [job, following], f"place {place}"
    worker = scheduler._worker
    held = worker.post.holder, worker.run_lock.locked, worker.free_lock.locked
    assert held == ({}, False, False), f"place {place}"
    scheduler.check()
    return interrupt.came


def signal_first(job: Job, backend: Hardware) -> None:
    """If it came to that: the interrupt may have come before the hardware got it."""
    assert job.scheduled.wait(PATIENCE)
    if job.parent is not None:
        job.parent.signal()
