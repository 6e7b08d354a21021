"""Killing an entity, at any moment: its jobs end in order and nobody waits for ever."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from gpuvm.errors import Busy, NotFound
from gpuvm.sched import Entity, Job, JobState, Scheduler, SchedulerBackend
from gpuvm.sync import task
from gpuvm.sync.fence import Fence, fence_context_alloc
from gpuvm.testing import Interleaving, explore
from gpuvm.testing.mock_device import MockDevice, MockJob
from mock_jobs import MS, mock_setup, push
from suite import scaled

SEEDS = range(scaled(4, 60))


@pytest.mark.parametrize("seed", SEEDS)
def test_killed_jobs_wait_for_what_they_depend_on_and_for_the_job_before(seed: int) -> None:
    with mock_setup(seed, credit_limit=1) as mock:
        entity = Entity(mock.scheduler)
        gates = [Fence(fence_context_alloc(), 1) for _ in range(3)]
        running = push(entity, "running")
        jobs = [push(entity, str(number), after=[gate]) for number, gate in enumerate(gates)]
        mock.settle()
        entity.kill()
        mock.settle()
        assert running.state is JobState.RUNNING
        assert {job.state for job in jobs} == {JobState.KILLED}
        gates[0].signal()
        gates[2].signal()
        mock.settle()
        assert not any(job.finished.signalled for job in jobs)
        mock.advance()
        assert [job.finished.signalled for job in jobs] == [True, False, False]
        gates[1].signal()
        mock.settle()
        assert [job.finished.status for job in jobs] == [-errno.ESRCH] * 3
        assert running.finished.status == 1
        assert mock.ran() == ["running"]
        assert mock.device.names("free") == ["running", "0", "1", "2"]
        assert {job.state for job in jobs} == {JobState.FREED}
        with pytest.raises(NotFound, match="was killed"):
            Job(entity)
        assert entity.flush()
        entity.destroy()


@pytest.mark.parametrize("seed", range(scaled(20, 500)))
def test_kill_at_any_moment(seed: int) -> None:
    """Every job either ran or was killed; those killed are the last, and all are freed once."""
    with mock_setup(seed, credit_limit=2) as mock:
        entity, other = Entity(mock.scheduler), Entity(mock.scheduler)
        jobs: list[MockJob] = []

        def make() -> None:
            after: list[Fence] = []
            for turn in range(6):
                try:
                    jobs.append(push(entity, str(turn), after=after, duration=turn % 3 * MS))
                except NotFound:
                    return
                after = [push(other, f"other {turn}", after=[jobs[-1].finished], duration=MS).finished]

        mock.run.spawn(make)
        mock.run.spawn(entity.kill)
        mock.run.run()
        for job in jobs:
            assert job.finished.wait()
        other.destroy(None)
        entity.destroy()
        mock.settle()
        killed = [job.finished.error == errno.ESRCH for job in jobs]
        assert killed == sorted(killed)
        ran = [name for name in mock.ran() if "other" not in name]
        assert ran == [str(turn) for turn in range(killed.count(False))]
        assert len(mock.device.names("free")) == mock.scheduler.statistics().freed
        assert sorted(name for name in mock.device.names("free") if "other" not in name) == [
            job.name for job in jobs
        ]


def test_kill_in_the_moment_in_which_a_dependency_is_signalled() -> None:
    """All schedules with few preemptions."""

    def scenario(run: Interleaving) -> Callable[[], None]:
        device = MockDevice()
        scheduler = Scheduler(device, name="s", credit_limit=1)
        entity = Entity(scheduler)
        gate = Fence(fence_context_alloc(), 1)
        jobs = [push(entity, "waits", after=[gate], duration=0), push(entity, "behind", duration=0)]
        run.run()
        run.spawn(gate.signal)
        run.spawn(entity.kill)

        def check() -> None:
            scheduler.check()
            entity.destroy()
            scheduler.fini()
            killed = [job.finished.error for job in jobs]
            assert killed in ([0, 0], [0, errno.ESRCH], [errno.ESRCH] * 2)
            assert len(device.names("run")) == killed.count(0)
            assert device.names("free") == ["waits", "behind"]

        return check

    assert explore(scenario, preemptions=scaled(2, 3), limit=scaled(2000, 50_000)).complete


@pytest.mark.parametrize("seed", SEEDS)
def test_a_job_armed_before_and_pushed_after_the_kill_is_killed(seed: int) -> None:
    with mock_setup(seed) as mock:
        entity = Entity(mock.scheduler)
        first, second, third = (MockJob(entity, name) for name in "123")
        for job in (first, second, third):
            job.arm()
        third.push()
        entity.kill()
        mock.settle()
        with pytest.raises(Busy, match="is armed"):
            entity.destroy(0)
        with pytest.raises(Busy, match="still at"):
            mock.scheduler.fini()
        assert not third.finished.signalled
        second.push()
        first.push()
        for job in (first, second, third):
            assert job.finished.wait()
            assert job.finished.error == errno.ESRCH
        entity.destroy()
        assert mock.ran() == []


def test_a_job_not_armed_when_the_entity_is_killed_can_be_cleaned_up() -> None:
    with mock_setup(0) as mock:
        entity = Entity(mock.scheduler)
        job = MockJob(entity)
        entity.destroy()
        with pytest.raises(NotFound, match="clean the job up"):
            job.arm()
        job.cleanup()
        assert job.state is JobState.CLEANED_UP


@pytest.mark.parametrize("seed", SEEDS)
def test_kill_waits_for_run_job(seed: int) -> None:
    inside: list[str] = []

    class Slow(MockDevice):
        def run_job(self, job: MockJob) -> Fence | None:
            inside.append(job.name)
            task.Waiter().wait(task.now() + MS)
            inside.remove(job.name)
            return super().run_job(job)

    with (
        Interleaving(seed),
        Slow() as device,
        Scheduler(device, name="s", credit_limit=9) as scheduler,
    ):
        entity, other = Entity(scheduler), Entity(scheduler)
        for _ in range(5):
            push(entity, "mine", duration=0)
            push(other, "other", duration=0)
        task.Waiter().wait(task.now() + 5 * MS // 2)
        assert inside == ["mine"]
        entity.kill()
        assert "mine" not in inside
        count = len(device.names("run"))
        other.destroy(None)
        assert "mine" not in device.names("run")[count:]
        entity.destroy()


def test_free_job_may_kill_its_own_entity() -> None:
    class Backend(SchedulerBackend[Job]):
        def run_job(self, job: Job) -> Fence | None:
            return None

        def free_job(self, job: Job) -> None:
            job.entity.kill()

    with Interleaving(0) as run, Scheduler(Backend(), name="s", credit_limit=1) as scheduler:
        entity = Entity(scheduler)
        jobs = []
        for _ in range(3):
            job = Job(entity)
            job.arm()
            job.push()
            jobs.append(job)
        run.run()
        assert [job.finished.error for job in jobs] == [0, errno.ESRCH, errno.ESRCH]
        entity.destroy()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_killed_entity_does_not_disturb_others(seed: int) -> None:
    with mock_setup(seed, credit_limit=1) as mock, Entity(mock.scheduler) as other:
        entity = Entity(mock.scheduler)
        gate = Fence(fence_context_alloc(), 1)
        killed = push(entity, "killed", after=[gate])
        depends = push(other, "depends", after=[killed.finished], duration=0)
        entity.destroy(0)
        gate.signal()
        assert depends.finished.wait()
        assert depends.finished.status == 1
        assert mock.ran() == ["depends"]
