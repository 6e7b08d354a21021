"""The end of a scheduler in the moment in which a job is given to the hardware; two threads at one thing."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from gpuvm.errors import Busy, InvalidArgument
from gpuvm.sched import Entity, Job, JobState, Scheduler, SchedulerBackend
from gpuvm.sync.fence import Fence, fence_context_alloc, stub_fence
from gpuvm.testing import Interleaving, Pct, sample
from gpuvm.testing.mock_device import MockDevice, MockJob
from suite import scaled

SEEDS = range(scaled(200, 5000))


class Answers(SchedulerBackend[Job]):
    def __init__(self, answer: Fence | None) -> None:
        self.answer = answer
        self.freed = 0

    def run_job(self, job: Job) -> Fence | None:
        return self.answer

    def free_job(self, job: Job) -> None:
        self.freed += 1


class CancelsNothing(Answers):
    def cancel_job(self, job: Job) -> None: ...


def use(backend: Answers) -> Job:
    """The whole life of a scheduler, with a flush that returns as soon as the job is scheduled."""
    with Scheduler(backend, name="s", credit_limit=1) as scheduler, Entity(scheduler) as entity:
        job = Job(entity)
        job.arm()
        job.push()
    scheduler.check()
    assert backend.freed == 1
    assert job.state is JobState.FREED
    return job


def test_fini_in_the_moment_in_which_the_hardware_gets_a_job() -> None:
    """What is given to the hardware is cancelled, even if it was not yet listened to."""

    def scenario(_run: Interleaving) -> None:
        hardware = Fence(fence_context_alloc(), 1)
        assert use(CancelsNothing(hardware)).finished.error == errno.ECANCELED

    sample(scenario, SEEDS)
    sample(scenario, SEEDS, lambda seed: Pct(seed, depth=3))


@pytest.mark.parametrize("answer", [None, stub_fence()])
def test_fini_in_the_moment_in_which_a_job_needs_no_hardware(answer: Fence | None) -> None:
    """Nothing runs, so no `cancel_job` is missing."""

    def scenario(_run: Interleaving) -> None:
        assert use(Answers(answer)).finished.status == 1

    sample(scenario, SEEDS)
    sample(scenario, SEEDS, lambda seed: Pct(seed, depth=3))


def test_two_threads_end_a_scheduler() -> None:
    """One of them does."""

    def scenario(run: Interleaving) -> Callable[[], None]:
        scheduler = Scheduler(Answers(None), name="s", credit_limit=1)
        refused: list[InvalidArgument] = []

        def end() -> None:
            try:
                scheduler.fini()
            except InvalidArgument as error:
                refused.append(error)

        for _ in range(2):
            run.spawn(end)

        def check() -> None:
            assert len(refused) == 1

        return check

    sample(scenario, SEEDS)


@pytest.mark.parametrize("call", [Job.arm, Job.push])
def test_two_threads_arm_or_push_a_job(call: Callable[[Job], None]) -> None:
    """One of them does."""

    def scenario(run: Interleaving) -> Callable[[], None]:
        device = MockDevice()
        scheduler = Scheduler(device, name="s", credit_limit=4)
        entity = Entity(scheduler)
        job = MockJob(entity, "job", duration=0)
        if call is Job.push:
            job.arm()
        refused: list[Busy] = []

        def attempt() -> None:
            try:
                call(job)
            except Busy as error:
                refused.append(error)

        for _ in range(2):
            run.spawn(attempt)

        def check() -> None:
            assert len(refused) == 1
            if call is Job.arm:
                job.push()
            assert job.finished.wait()
            entity.destroy()
            scheduler.fini()
            scheduler.check()
            assert device.names("free") == ["job"]

        return check

    sample(scenario, SEEDS)


def test_an_entity_that_comes_while_the_scheduler_ends() -> None:
    """It is refused, or the scheduler is."""

    def scenario(run: Interleaving) -> Callable[[], None]:
        scheduler = Scheduler(Answers(None), name="s", credit_limit=1)
        entities: list[Entity] = []
        refused: list[str] = []

        def come() -> None:
            try:
                entities.append(Entity(scheduler))
            except InvalidArgument:
                refused.append("entity")

        def end() -> None:
            try:
                scheduler.fini()
            except Busy:
                refused.append("fini")

        run.spawn(come)
        run.spawn(end)

        def check() -> None:
            assert refused == ["fini"] if entities else refused == ["entity"]
            for entity in entities:
                entity.destroy()
                scheduler.fini()

        return check

    sample(scenario, SEEDS)
