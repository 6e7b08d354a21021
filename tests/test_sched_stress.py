"""Everything at once, with the machine's own threads: schedulers and entities come and go under load."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from random import Random

import pytest

from contention import in_real_threads
from gpuvm.errors import GpuvmError, InvalidArgument, NotFound
from gpuvm.sched import Entity, Priority, Scheduler, TimeoutStatus
from gpuvm.testing.mock_device import MockDevice, MockJob
from mock_jobs import MS
from suite import scaled

PRODUCERS = 3
SCHEDULERS = 3
ROUNDS = scaled(6, 900)
JOBS = 60

ENDS = {0, errno.ESRCH, errno.ETIMEDOUT, errno.ECANCELED}


class Resetting(MockDevice):
    """It resets all of it when a job hangs."""

    scheduler: Scheduler

    def timedout_job(self, job: MockJob) -> TimeoutStatus:
        with suppress(GpuvmError):  # the scheduler ends
            self.scheduler.stop()
            for each in self.pending:
                self.abort(each, errno.ETIMEDOUT)
            self.scheduler.start(errno.ETIMEDOUT)
        return TimeoutStatus.RESET


@contextmanager
def machine() -> Iterator[list[Scheduler]]:
    """Some devices with a scheduler each; the last one never has to wait for its jobs."""
    with ExitStack() as stack:
        schedulers = []
        for number in range(SCHEDULERS):
            device = stack.enter_context(Resetting())
            device.scheduler = Scheduler(device, name=f"s{number}", credit_limit=8, timeout=0.003)
            schedulers.append(device.scheduler)
        yield schedulers
        for scheduler in schedulers:
            scheduler.fini(60)
            scheduler.check()
            left = scheduler.statistics()
            assert left.in_flight == left.killed == left.queued == 0


def one_round(seed: int) -> list[MockJob]:
    """Producers make and end entities; somebody else kills them, moves them, asks for other priorities."""
    jobs: list[MockJob] = []
    entities: list[Entity] = []
    over = threading.Event()

    def produce(dice: Random, schedulers: list[Scheduler]) -> None:
        entity = Entity(*dice.sample(schedulers, dice.randint(1, SCHEDULERS)))
        entities.append(entity)
        for _ in range(JOBS):
            try:
                job = MockJob(
                    entity, duration=dice.choice([0, 0, 0, MS // 20, None]), credits=dice.randint(1, 3)
                )
                for _ in range(dice.randrange(3) if jobs else 0):
                    job.add_dependency(dice.choice(jobs[-20:]).finished)
                job.arm()
            except NotFound:  # killed
                break
            jobs.append(job)
            job.push()
            if dice.randrange(20) == 0:
                entity.flush(0.001)
        if dice.randrange(2):
            entity.flush(0.01)
        entity.destroy(dice.choice([0, 0.002]))

    def disturb(dice: Random, schedulers: list[Scheduler]) -> None:
        while not over.wait(0.0005):
            if not entities:
                continue
            entity = dice.choice(entities)
            with suppress(NotFound):
                entity.modify_schedulers(*dice.sample(schedulers, dice.randint(1, SCHEDULERS)))
            entity.priority = dice.choice(list(Priority))
            dice.choice(schedulers).check()
            if dice.randrange(8) == 0:
                entity.kill()

    with machine() as schedulers:

        def work(number: int) -> None:
            dice = Random(seed * 100 + number)
            if number == PRODUCERS:
                disturb(dice, schedulers)
                return
            try:
                for _ in range(3):
                    produce(dice, schedulers)
            finally:
                done.append(number)
                if len(done) == PRODUCERS:
                    over.set()

        done: list[int] = []
        in_real_threads(PRODUCERS + 1, work)
    return jobs


@pytest.mark.parametrize("part", range(2))
def test_everything_at_once(part: int) -> None:
    """Whatever happens, every job ends, once, and every thread too."""
    threads = threading.active_count()
    for seed in range(part, ROUNDS, 2):
        try:
            for job in one_round(seed):
                assert job.finished.signalled
                assert job.finished.error in ENDS
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
    assert threading.active_count() == threads


def test_kill_races_fini() -> None:
    """From flush straight to the end, without a look at any job's fence."""
    jobs: list[MockJob] = []
    for _ in range(scaled(30, 4000)):
        with MockDevice() as device:
            scheduler = Scheduler(device, name="s", credit_limit=2)
            entity = Entity(scheduler)

            def work(number: int, entity: Entity = entity, scheduler: Scheduler = scheduler) -> None:
                if number:
                    entity.kill()
                    return
                for turn in range(4):
                    with suppress(NotFound):
                        job = MockJob(entity, duration=turn % 2 * 1000)
                        job.arm()
                        jobs.append(job)
                        job.push()
                entity.flush()
                entity.destroy(0)
                scheduler.fini()

            in_real_threads(2, work)
            with pytest.raises(InvalidArgument, match="has ended"):
                scheduler.fini()
            scheduler.check()
    assert {job.finished.error for job in jobs} <= {0, errno.ESRCH, errno.ECANCELED}
    assert all(job.finished.signalled for job in jobs)
