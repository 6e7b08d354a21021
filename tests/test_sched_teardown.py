"""Ending: flush, kill, destroy, fini; nothing is lost, nothing leaks."""

from __future__ import annotations

import errno
import gc
import threading
import weakref
from collections.abc import Callable

import pytest

from gpuvm.errors import Busy, Interrupted, InvalidArgument, NotFound
from gpuvm.sched import Entity, Job, JobState, Scheduler, SchedulerBackend
from gpuvm.sync import task
from gpuvm.sync.fence import Fence, fence_context_alloc
from gpuvm.testing import Interleaving, explore
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


# -- kill


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


def test_fini_without_cancel_job_needs_the_jobs_to_be_done() -> None:
    with Interleaving(0) as run:
        backend = NoCancel()
        scheduler = Scheduler(backend, name="s", credit_limit=1)
        entity = Entity(scheduler)
        job = Job(entity)
        job.arm()
        job.push()
        run.run()
        entity.destroy()
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
        scheduler = Scheduler(Lazy(), name="s", credit_limit=1)
        entity = Entity(scheduler)
        job = Job(entity)
        job.arm()
        job.push()
        run.run()
        entity.destroy()
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
