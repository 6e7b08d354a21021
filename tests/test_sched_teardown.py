"""Ending: flush, destroy, fini; nothing is lost, nothing leaks."""

from __future__ import annotations

import errno
import gc
import threading
import weakref
from collections.abc import Callable

import pytest

from gpuvm.errors import Busy, Interrupted, InvalidArgument
from gpuvm.sched import Entity, Job, JobState, Scheduler, SchedulerBackend
from gpuvm.sync.fence import Fence, fence_context_alloc
from gpuvm.testing import Interleaving
from gpuvm.testing.mock_device import MockDevice, MockJob
from mock_jobs import MS, mock_setup, push
from suite import scaled

SEEDS = range(scaled(4, 60))


# -- flush


@pytest.mark.parametrize("seed", SEEDS)
def test_flush_waits_until_all_is_given_to_the_hardware(seed: int) -> None:
    with mock_setup(seed, credit_limit=1) as mock, Entity(mock.scheduler) as entity:
        assert entity.flush()
        jobs = [push(entity, name, duration=10 * MS) for name in "abc"]
        begin = mock.run.now()
        assert not entity.flush(0.015)
        assert mock.run.now() - begin == 15 * MS
        assert entity.flush()
        assert mock.run.now() - begin == 20 * MS
        assert entity.idle
        assert not jobs[-1].finished.signalled
        assert jobs[-1].finished.wait()


def test_flush_can_be_interrupted() -> None:
    with mock_setup(0) as mock, Entity(mock.scheduler) as entity:
        gate = Fence(fence_context_alloc(), 1)
        push(entity, after=[gate], duration=0)

        def flush() -> None:
            with pytest.raises(Interrupted):
                entity.flush(interruptible=True)

        flusher = mock.run.spawn(flush)
        flusher.task.interrupt()
        mock.run.run()
        gate.signal()
        assert entity.flush()


# -- destroy


@pytest.mark.parametrize("seed", SEEDS)
def test_entity_cleanup(seed: int) -> None:
    """Destroyed with jobs queued, it leaves none unsignalled."""
    with mock_setup(seed, credit_limit=1) as mock:
        entity = Entity(mock.scheduler)
        jobs = [push(entity, str(number), duration=300 * MS) for number in range(10)]
        entity.destroy()
        assert mock.scheduler.entities == ()
        for job in jobs:
            assert job.finished.wait()
        errors = [job.finished.error for job in jobs]
        assert errors == [0] * 4 + [errno.ESRCH] * 6  # it flushes for a second
        mock.settle()


def test_an_exception_destroys_at_once() -> None:
    with mock_setup(0) as mock:
        gate = Fence(fence_context_alloc(), 1)
        begin = mock.run.now()
        jobs = []

        def fail() -> None:
            with Entity(mock.scheduler) as entity:
                jobs.append(push(entity, after=[gate]))
                raise KeyError

        with pytest.raises(KeyError):
            fail()
        assert mock.run.now() == begin
        gate.signal()
        assert jobs[0].finished.wait()
        assert jobs[0].finished.error == errno.ESRCH


# -- fini


@pytest.mark.parametrize("seed", SEEDS)
def test_basic_cancel(seed: int) -> None:
    with mock_setup(seed, credit_limit=2) as mock:
        entity = Entity(mock.scheduler)
        jobs = [push(entity, name) for name in "abcd"]
        mock.settle()
        entity.destroy(0)
        mock.scheduler.fini()
        errors = [job.finished.error for job in jobs]
        assert errors == [errno.ECANCELED, errno.ECANCELED, errno.ESRCH, errno.ESRCH]
        assert mock.device.names("cancel") == ["b", "a"]
        assert sorted(mock.device.names("free")) == ["a", "b", "c", "d"]


def test_what_the_hardware_has_done_is_not_cancelled() -> None:
    with mock_setup(0, queues=2) as mock:
        entity = Entity(mock.scheduler)
        runs, done = push(entity, "runs"), push(entity, "done", queue=1, duration=0)
        mock.settle()
        assert not done.finished.signalled  # nor will it be, before the job before it
        entity.destroy()
        mock.scheduler.fini()
        assert mock.device.names("cancel") == ["runs"]
        assert (runs.finished.error, done.finished.error) == (errno.ECANCELED, 0)


def test_fini_needs_the_entities_to_be_gone() -> None:
    with mock_setup(0) as mock:
        entities = [Entity(mock.scheduler, name=f"e{number}") for number in range(10)]
        with pytest.raises(Busy, match=r'"e0".*"e7".* and 2 more are still at') as caught:
            mock.scheduler.fini()
        assert (caught.value.value, caught.value.bound) == (10, 0)
        assert push(entities[0], duration=0).finished.wait()
        for entity in entities:
            entity.destroy()
        mock.scheduler.fini()
        with pytest.raises(InvalidArgument, match="ended already"):
            mock.scheduler.fini()


class NoCancel(SchedulerBackend[Job]):
    def __init__(self) -> None:
        self.fence = Fence(fence_context_alloc(), 1)

    def run_job(self, job: Job) -> Fence | None:
        return self.fence


def left_with_a_job(run: Interleaving, backend: SchedulerBackend[Job]) -> tuple[Scheduler, Job]:
    """The hardware has a job whose entity is gone."""
    scheduler = Scheduler(backend, name="s", credit_limit=1)
    entity = Entity(scheduler)
    job = Job(entity)
    job.arm()
    job.push()
    run.run()
    entity.destroy()
    return scheduler, job


def test_fini_without_cancel_job_needs_the_jobs_to_be_done() -> None:
    with Interleaving(0) as run:
        backend = NoCancel()
        scheduler, job = left_with_a_job(run, backend)
        with pytest.raises(Busy, match="cancel_job"):
            scheduler.fini()
        backend.fence.signal()
        scheduler.fini()
        assert job.state is JobState.FREED


@pytest.mark.parametrize("stopped", [False, True])
def test_fini_ends_what_cancel_job_leaves(stopped: bool) -> None:
    class Lazy(NoCancel):
        def cancel_job(self, job: Job) -> None: ...

    with Interleaving(0) as run:
        scheduler, job = left_with_a_job(run, Lazy())
        if stopped:
            scheduler.stop()
        scheduler.fini()
        assert job.finished.error == errno.ECANCELED
        assert job.state is JobState.FREED


@pytest.mark.parametrize("seed", SEEDS)
def test_fini_waits_for_killed_jobs(seed: int) -> None:
    with mock_setup(seed) as mock:
        gate = Fence(fence_context_alloc(), 1)
        entity = Entity(mock.scheduler)
        job = push(entity, "killed", after=[gate])
        entity.destroy(0)
        mock.run.spawn(mock.scheduler.fini)
        mock.run.spawn(gate.signal)
        mock.run.run()
        assert job.finished.error == errno.ESRCH
        assert mock.device.names("free") == ["killed"]


@pytest.mark.parametrize("seed", SEEDS)
def test_fini_gives_up_in_time_and_can_be_called_again(seed: int) -> None:
    with mock_setup(seed) as mock:
        gate = Fence(fence_context_alloc(), 1)
        entity = Entity(mock.scheduler)
        runs = push(entity, "runs")
        runs.scheduled.wait()
        killed = [push(entity, name, after=[gate]) for name in "ab"]
        entity.destroy(0)
        begin = mock.run.now()
        for _ in range(2):
            with pytest.raises(
                Busy, match=r"time is up.* waits for <Fence gpuvm .* call fini again"
            ) as caught:
                mock.scheduler.fini(0.5)
            assert caught.value.value == (gate, gate)
        assert mock.run.now() - begin == 1000 * MS
        assert runs.finished.error == errno.ECANCELED
        mock.check()
        with pytest.raises(InvalidArgument, match="has ended"):
            Entity(mock.scheduler)
        gate.signal()
        mock.scheduler.fini(0.5)
        assert [job.finished.error for job in killed] == [errno.ESRCH] * 2


# -- exceptions in with blocks


@pytest.mark.parametrize("seed", SEEDS)
def test_an_exception_between_arm_and_push_comes_through(seed: int) -> None:
    """The job is killed, whoever depends on it goes on, and nothing is left."""
    jobs: list[MockJob] = []

    def fail(scheduler: Scheduler) -> None:
        with scheduler, Entity(scheduler) as other, Entity(scheduler) as entity:
            jobs.extend(
                (push(entity, "before", duration=0), MockJob(entity, "armed"), MockJob(entity, "behind"))
            )
            for job in jobs[1:]:
                job.arm()
            jobs[2].push()
            jobs.append(push(other, "depends", after=[jobs[1].finished], duration=0))
            raise KeyError

    with Interleaving(seed), MockDevice() as device:
        scheduler = Scheduler(device, name="s", credit_limit=1)
        with pytest.raises(KeyError) as caught:
            fail(scheduler)
        assert getattr(caught.value, "__notes__", []) == []
        assert {job.state for job in jobs} == {JobState.FREED}
        assert [job.finished.error for job in jobs[1:3]] == [errno.ESRCH] * 2
        with pytest.raises(Busy, match="killed before it was pushed"):
            jobs[1].push()
        scheduler.check()


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_left_after_an_exception_is_noted_on_it(seed: int) -> None:
    gate = Fence(fence_context_alloc(), 1)
    jobs: list[MockJob] = []

    def fail(scheduler: Scheduler) -> None:
        with scheduler, Entity(scheduler) as entity:
            jobs.append(push(entity, after=[gate]))
            raise KeyError

    with mock_setup(seed) as mock:
        begin = mock.run.now()
        with pytest.raises(KeyError) as caught:
            fail(mock.scheduler)
        assert mock.run.now() - begin == 1000 * MS
        assert "waits for <Fence gpuvm" in caught.value.__notes__[0]
        gate.signal()
        mock.scheduler.fini()
        assert jobs[0].state is JobState.FREED


# -- leaks


def lives(references: list[weakref.ref[object]]) -> list[object]:
    return [alive for reference in references if (alive := reference()) is not None]


@pytest.mark.parametrize("timeout", [None, 5.0])
@pytest.mark.parametrize("ending", ["done", "killed", "cancelled"])
def test_nothing_leaks(ending: str, timeout: float | None) -> None:
    """Real threads, no garbage collector: what is not needed goes by itself."""
    gc.collect()
    gc.disable()
    threads = threading.active_count()
    references: list[weakref.ref[object]] = []
    try:
        with MockDevice(2) as device:
            scheduler = Scheduler(device, name="s", credit_limit=3, timeout=timeout)
            entity, other = Entity(scheduler), Entity(scheduler)
            _use(ending, device, entity, other, references)
            scheduler.fini()
            references += [weakref.ref(scheduler), weakref.ref(entity), weakref.ref(other)]
            del scheduler, entity, other
        assert lives(references) == []
        assert threading.active_count() == threads
    finally:
        gc.enable()


def _use(
    ending: str, device: MockDevice, entity: Entity, other: Entity, references: list[weakref.ref[object]]
) -> None:
    jobs: list[MockJob] = []
    for turn in range(5):
        after = [jobs[-1].finished] if jobs else []
        jobs.append(push(entity, str(turn), queue=turn % 2))
        jobs.append(push(other, f"other {turn}", after=[*after, jobs[-1].finished], queue=1 - turn % 2))
    for job in jobs:
        references += [weakref.ref(job), weakref.ref(job.scheduled), weakref.ref(job.finished)]
    assert jobs[0].scheduled.wait()
    device.advance(2)
    while ending == "done" and not all(job.finished.signalled for job in jobs):
        if not device.advance():
            waiting = [job.scheduled for job in jobs if not job.scheduled.signalled]
            (waiting[0] if waiting else jobs[-1].finished).wait(0.1)
    entity.destroy(0)
    other.destroy(0)
    if ending == "killed":
        while device.advance():
            pass
        assert all(job.finished.wait() for job in jobs)


@pytest.mark.parametrize("end", [Entity.kill, lambda entity: entity.destroy(0)])
def test_freed_jobs_are_not_kept_by_sleeping_threads(end: Callable[[Entity], None]) -> None:
    with mock_setup(0, timeout=1.0) as mock:
        entity = Entity(mock.scheduler)
        job: MockJob | None = push(entity, duration=MS)
        assert job is not None
        assert job.finished.wait()
        mock.settle()
        references: list[weakref.ref[object]] = [weakref.ref(job)]
        job = None
        assert lives(references) == []
        end(entity)
        entity.destroy()
