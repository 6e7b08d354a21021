"""What a job waits for: the latest of each context, what the driver adds; and when less is enough."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gpuvm.sched import Entity, Job, Scheduler, SchedulerBackend
from gpuvm.sync.fence import Fence, fence_context_alloc, stub_fence
from gpuvm.testing import Interleaving
from gpuvm.testing.mock_device import MockJob
from mock_jobs import Setup, mock_setup, push
from suite import scaled

SEEDS = range(scaled(4, 60))


def test_only_the_latest_of_each_context_is_kept() -> None:
    one, other = fence_context_alloc(), fence_context_alloc()
    early, late, lone = Fence(one, 1), Fence(one, 2), Fence(other, 1)
    with mock_setup(0) as mock, Entity(mock.scheduler) as entity:
        for order in ([early, late, lone], [late, early, lone], [lone, late, late]):
            job = MockJob(entity)
            for fence in order:
                job.add_dependency(fence)
            assert set(job.dependencies) == {late, lone}
            job.cleanup()


def test_signalled_dependencies_are_dropped() -> None:
    with mock_setup(0) as mock, Entity(mock.scheduler) as entity:
        job = MockJob(entity)
        job.add_dependency(stub_fence())
        assert job.dependencies == ()
        job.cleanup()


@pytest.mark.parametrize("seed", SEEDS)
def test_waits_for_all(seed: int) -> None:
    with mock_setup(seed) as mock, Entity(mock.scheduler) as entity:
        fences = [Fence(fence_context_alloc(), 1) for _ in range(4)]
        push(entity, "job", after=fences, duration=0)
        for fence in (fences[2], fences[0], fences[3], fences[1]):
            mock.settle()
            assert mock.ran() == []
            fence.signal()
        mock.settle()
        assert mock.ran() == ["job"]


def test_error_of_a_dependency_does_not_keep_the_job_from_running() -> None:
    with mock_setup(0) as mock, Entity(mock.scheduler) as entity:
        failed = Fence(fence_context_alloc(), 1)
        job = push(entity, "job", after=[failed], duration=0)
        failed.set_error(errno.ETIME)
        failed.signal()
        assert job.finished.wait()
        assert job.finished.status == 1


@pytest.mark.parametrize("seed", SEEDS)
def test_others_go_first_while_an_entity_waits(seed: int) -> None:
    with mock_setup(seed) as mock, Entity(mock.scheduler) as one, Entity(mock.scheduler) as other:
        fence = Fence(fence_context_alloc(), 1)
        push(one, "waits", after=[fence], duration=0)
        push(one, "behind", duration=0)
        push(other, "other", duration=0)
        mock.settle()
        assert mock.ran() == ["other"]
        fence.signal()
        mock.settle()
        assert mock.ran() == ["other", "waits", "behind"]


@pytest.mark.parametrize("seed", SEEDS)
def test_prepare_job_adds_fences_until_it_has_no_more(seed: int) -> None:
    more = [Fence(fence_context_alloc(), 1) for _ in range(3)]
    asked = list(more)
    ran: list[Job] = []

    class Backend(SchedulerBackend[Job]):
        def prepare_job(self, job: Job) -> Fence | None:
            return asked.pop() if asked else None

        def run_job(self, job: Job) -> Fence | None:
            ran.append(job)
            return None

    first = Fence(fence_context_alloc(), 1)
    with (
        Interleaving(seed) as run,
        Scheduler(Backend(), name="s", credit_limit=1) as scheduler,
        Entity(scheduler) as entity,
    ):
        job = Job(entity)
        job.add_dependency(first)
        job.arm()
        job.push()
        run.run()
        assert asked == more
        for fence in (first, *reversed(more)):
            assert ran == []
            fence.signal()
            run.run()
            scheduler.check()
        assert ran == [job]


def test_bug_of_prepare_job_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)

    class Backend(SchedulerBackend[Job]):
        def prepare_job(self, job: Job) -> Fence | None:
            raise KeyError("driver bug")

        def run_job(self, job: Job) -> Fence | None:
            return None

    with Scheduler(Backend(), name="s", credit_limit=1) as scheduler, Entity(scheduler) as entity:
        job = Job(entity)
        job.arm()
        job.push()
        assert job.finished.wait()
    assert len(told) == 1


# -- pipelining: waiting until the other job is on the ring


@pytest.mark.parametrize("seed", SEEDS)
def test_bug_58_two_queues_behind_one_scheduler(seed: int) -> None:
    """Nouveau had one scheduler for all queues: the second job ran while the first was executed."""
    with mock_setup(seed, queues=2) as mock, Entity(mock.scheduler) as one, Entity(mock.scheduler) as other:
        first = push(one, "first", queue=0)
        second = push(other, "second", queue=1, after=[first.finished])
        mock.settle()
        assert mock.ran() == ["first"]
        mock.advance()
        assert first.finished.signalled
        assert mock.ran() == ["first", "second"]
        mock.advance()
        assert second.finished.signalled


@pytest.mark.parametrize("seed", SEEDS)
def test_bug_58_within_an_entity(seed: int) -> None:
    """Jobs of one entity begin in order, but with two queues that does not say that they finish in order."""
    with mock_setup(seed, queues=2) as mock, Entity(mock.scheduler) as entity:
        first = push(entity, "first", queue=0)
        push(entity, "second", queue=1, after=[first.finished])
        mock.settle()
        assert mock.ran() == ["first"]
        mock.advance(2 - 1)
        assert mock.ran() == ["first", "second"]
        mock.advance()


@contextmanager
def two_on_one_ring(seed: int) -> Iterator[tuple[Setup, Entity, Entity]]:
    """Two entities; what the hardware is given it does in order."""
    with (
        mock_setup(seed, in_order=True) as mock,
        Entity(mock.scheduler) as one,
        Entity(mock.scheduler) as other,
    ):
        yield mock, one, other


@pytest.mark.parametrize("seed", SEEDS)
def test_on_one_ring_a_job_waits_only_until_the_other_is_on_it(seed: int) -> None:
    with two_on_one_ring(seed) as (mock, one, other):
        gate = Fence(fence_context_alloc(), 1)
        first = push(one, "first", after=[gate])
        second = push(other, "second", after=[first.finished])
        mock.settle()
        assert mock.ran() == []
        gate.signal()
        mock.settle()
        assert mock.ran() == ["first", "second"]
        assert not first.finished.signalled
        mock.advance(2)
        assert second.finished.signalled


@pytest.mark.parametrize("seed", SEEDS)
def test_dont_pipeline(seed: int) -> None:
    with two_on_one_ring(seed) as (mock, one, other):
        first = MockJob(one, "first")
        first.arm()
        first.finished.dont_pipeline = True
        second = push(other, "second", after=[first.finished])
        first.push()
        mock.settle()
        assert mock.ran() == ["first"]
        mock.advance()
        assert mock.ran() == ["first", "second"]
        mock.advance()
        assert second.finished.signalled


@pytest.mark.parametrize("seed", SEEDS)
def test_another_schedulers_job_is_waited_for(seed: int) -> None:
    with (
        mock_setup(seed, in_order=True) as mock,
        Scheduler(mock.device, name="second", credit_limit=8, in_order=True) as second,
        Entity(mock.scheduler) as one,
        Entity(second) as other,
    ):
        first = push(one, "first")
        push(other, "second", after=[first.finished])
        mock.settle()
        assert mock.ran() == ["first"]
        mock.advance()
        assert mock.ran() == ["first", "second"]
        mock.advance()


@pytest.mark.parametrize("seed", SEEDS)
def test_pipelined_job_that_needs_no_hardware_is_not_done_before_the_other(seed: int) -> None:
    with two_on_one_ring(seed) as (mock, one, other):
        other.guilty = True
        first = push(one, "first")
        second = push(other, "second", after=[first.finished])
        mock.settle()
        assert mock.device.names("skip") == ["second"]
        assert not second.finished.signalled
        mock.advance()
        assert first.finished.signalled
        assert second.finished.status == -errno.ECANCELED


@pytest.mark.parametrize("seed", SEEDS)
def test_pipelined_job_that_is_killed_waits_for_the_other(seed: int) -> None:
    with two_on_one_ring(seed) as (mock, one, other):
        gate = Fence(fence_context_alloc(), 1)
        first = push(one, "first")
        second = push(other, "second", after=[first.finished, gate])
        mock.settle()
        other.kill()
        gate.signal()
        mock.settle()
        assert not second.finished.signalled
        mock.advance()
        assert second.finished.status == -errno.ESRCH


@pytest.mark.parametrize("seed", SEEDS)
def test_fences_of_an_entity_are_signalled_in_order(seed: int) -> None:
    """Or else who keeps only the latest of them as a dependency would not wait for those before."""
    with (
        mock_setup(seed, queues=3) as mock,
        Entity(mock.scheduler) as entity,
        Entity(mock.scheduler) as other,
    ):
        jobs = [push(entity, str(queue), queue=queue) for queue in range(3)]
        waits = MockJob(other, "waits", duration=0, queue=2)
        for job in jobs:
            waits.add_dependency(job.finished)
        assert waits.dependencies == (jobs[2].finished,)
        waits.arm()
        waits.push()
        mock.settle()
        for job in (jobs[2], jobs[1]):
            mock.device.abort(job, errno.ETIME)
            mock.settle()
            assert not any(job.finished.signalled for job in jobs)
        mock.device.abort(jobs[0], errno.EIO)
        assert waits.finished.wait()
        assert [job.finished.error for job in jobs] == [errno.EIO, errno.ETIME, errno.ETIME]
        mock.settle()


def test_a_long_row_of_jobs_that_are_done_out_of_order_ends() -> None:
    count = 3000
    with mock_setup(0, queues=2, credit_limit=count) as mock, Entity(mock.scheduler) as entity:
        first = push(entity, "first")
        last = [push(entity, queue=1, duration=0) for _ in range(count - 1)][-1]
        mock.settle()
        assert not last.finished.signalled
        mock.device.abort(first, errno.EIO)
        assert last.finished.wait()
