"""`Job.push_and_wait`: the caller does the worker's work if it can, and otherwise it is a push and a wait."""

from __future__ import annotations

import errno
import sys
from _thread import get_ident
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from gpuvm.errors import Busy, Interrupted, InvalidArgument, LockdepError, NotFound
from gpuvm.sched import Entity, Job, JobState, Priority, Scheduler, SchedulerBackend
from gpuvm.sync.fence import Fence, stub_fence
from gpuvm.sync.mutex import Mutex
from gpuvm.sync.resv import Resv
from gpuvm.testing import Interleaving
from gpuvm.testing.mock_device import MockJob
from interleaved import pending_fence
from mock_jobs import MS, armed, mock_setup


class Watched(SchedulerBackend[Job]):
    """Notes in which thread it is called; `act` is what `run_job` does."""

    def __init__(self, act: Callable[[Job], object] = lambda _job: None) -> None:
        self.act = act
        self.ran: list[int] = []
        self.freed: list[int] = []

    def run_job(self, job: Job) -> Fence | None:
        self.ran.append(get_ident())
        return self.act(job)  # type: ignore[return-value]

    def free_job(self, job: Job) -> None:
        assert job.finished.signalled
        self.freed.append(get_ident())


class Prepared(Watched):
    def prepare_job(self, job: Job) -> Fence | None:
        return None


@dataclass(frozen=True)
class Idle:
    run: Interleaving
    scheduler: Scheduler
    entity: Entity


@contextmanager
def idle(backend: SchedulerBackend[Job]) -> Iterator[Idle]:
    """A scheduler whose worker sleeps. The owner, who makes the calls, is not disturbed."""
    with (
        Interleaving(0) as run,
        Scheduler(backend, name="s", credit_limit=1) as scheduler,
        Entity(scheduler) as entity,
    ):
        run.run()
        yield Idle(run, scheduler, entity)
        run.run()
        scheduler.check()


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[type[BaseException] | None]:
    """What goes to the hook for exceptions without a caller."""
    types: list[type[BaseException] | None] = []
    hook = lambda *args: types.append(args[-1].exc_type)  # noqa: E731
    monkeypatch.setattr(Interleaving, "_on_unraisable", hook)
    monkeypatch.setattr(sys, "unraisablehook", hook)
    return types


# -- the caller does it all


def test_nobody_is_woken() -> None:
    backend = Watched()
    with idle(backend) as here:
        asleep = here.scheduler._worker.post._sleeper
        for seqno in range(1, 4):
            job = armed(here.entity)
            order: list[Fence] = []
            job.scheduled.add_callback(order.append)
            job.finished.add_callback(order.append)
            job.push_and_wait()
            assert order == [job.scheduled, job.finished]
            assert (job.state, job.finished.seqno, job.finished.status) == (JobState.FREED, seqno, 1)
        assert backend.ran == backend.freed == [get_ident()] * 3
        assert asleep is not None
        assert not asleep.woken
        assert here.scheduler.statistics().freed == 3


def failed_fence() -> Fence:
    fence = pending_fence()
    fence.set_error(errno.ETIME)
    fence.signal()
    return fence


def refuse(_job: Job) -> object:
    raise NotFound("gone")


ANSWERS: tuple[tuple[Callable[[Job], object], int], ...] = (
    (lambda _job: stub_fence(), 1),
    (lambda _job: failed_fence(), -errno.ETIME),
    (refuse, -errno.ENOENT),
)


@pytest.mark.parametrize(("answer", "status"), ANSWERS)
def test_what_run_job_answers(answer: Callable[[Job], object], status: int) -> None:
    backend = Watched(answer)
    with idle(backend) as here:
        job = armed(here.entity)
        job.push_and_wait()
        assert job.finished.status == status
        assert backend.freed == [get_ident()]


def test_dependencies_that_are_signalled_by_now() -> None:
    backend, gate = Watched(), pending_fence()
    with idle(backend) as here:
        before = armed(here.entity)
        before.push_and_wait()
        job = armed(here.entity, gate, before.finished)
        gate.signal()
        job.push_and_wait()
        assert backend.ran == [get_ident()] * 2


def test_the_hardware_takes_its_time() -> None:
    """The job is given to it by the caller; the rest is as with any other job."""
    with mock_setup(0, timeout=1.0) as mock, Entity(mock.scheduler) as entity:
        mock.settle()
        begin = mock.run.now()
        job = MockJob(entity, "job", duration=5 * MS)
        job.arm()
        job.push_and_wait()
        assert mock.run.now() - begin == 5 * MS
        mock.settle()
        assert job.state is JobState.FREED
        hangs = MockJob(entity, "hangs")
        hangs.arm()
        hangs.push_and_wait()
        assert hangs.finished.error == errno.ETIMEDOUT
        assert mock.device.names("timeout") == ["hangs"]


def test_a_guilty_entity() -> None:
    with mock_setup(0) as mock, Entity(mock.scheduler) as entity:
        entity.guilty = True
        job = MockJob(entity, "job")
        job.arm()
        job.push_and_wait()
        assert job.finished.error == errno.ECANCELED
        assert mock.device.names("skip") == ["job"]


# -- the worker does it


def worker_runs(here: Idle, backend: Watched, job: Job) -> None:
    job.push_and_wait()
    assert job.finished.status == 1
    here.run.run()
    assert job.state is JobState.FREED
    assert get_ident() not in backend.ran + backend.freed


def test_a_dependency_is_waited_for_by_the_worker() -> None:
    backend, gate = Watched(), pending_fence()
    with idle(backend) as here:
        job = armed(here.entity, gate)
        here.run.spawn(gate.signal)
        worker_runs(here, backend, job)


def test_the_driver_is_asked_by_the_worker() -> None:
    backend = Prepared()
    with idle(backend) as here:
        worker_runs(here, backend, armed(here.entity))


@pytest.mark.parametrize("other", ["before", "behind", "of another"])
def test_other_jobs_are_run_by_the_worker(other: str) -> None:
    """And in order."""
    backend, gate = Watched(), pending_fence()
    with idle(backend) as here, Entity(here.scheduler, priority=Priority.LOW) as low:
        if other == "before":
            jobs = [armed(here.entity), armed(here.entity)]
            jobs[0].push()
        elif other == "behind":
            jobs = [armed(here.entity), armed(here.entity)]
            jobs[1].push()
        else:
            jobs = [armed(low), armed(here.entity)]
            jobs[0].push()
        worker_runs(here, backend, jobs[other != "behind"])
        assert [job.finished.status for job in jobs] == [1, 1]
        gate.signal()


def test_a_stopped_scheduler_and_one_without_credits() -> None:
    hardware = pending_fence()
    backend = Watched(lambda _job: hardware)
    with idle(backend) as here, Entity(here.scheduler) as other:
        here.scheduler.stop()
        job = armed(here.entity)
        here.run.spawn(here.scheduler.start)
        here.run.spawn(hardware.signal)
        worker_runs(here, backend, job)
        backend.act, again = lambda _job: again, pending_fence()
        first = armed(other)
        first.push()
        here.run.run()
        here.run.spawn(again.signal)
        worker_runs(here, backend, armed(here.entity))


def test_a_killed_entity() -> None:
    backend = Watched()
    with idle(backend) as here:
        job = armed(here.entity)
        here.entity.kill()
        job.push_and_wait()
        assert job.finished.error == errno.ESRCH
        assert backend.ran == []


# -- what goes wrong


def test_an_interrupted_wait_leaves_the_job() -> None:
    hardware = pending_fence()
    with idle(Watched(lambda _job: hardware)) as here:
        job = armed(here.entity)

        def wait() -> None:
            with pytest.raises(Interrupted):
                job.push_and_wait(interruptible=True)

        waiter = here.run.spawn(wait)
        waiter.task.interrupt()
        here.run.run()
        hardware.signal()
        assert job.finished.wait()
        assert job.finished.status == 1


def test_misuse_is_refused() -> None:
    with idle(Watched()) as here:
        job = Job(here.entity)
        with pytest.raises(InvalidArgument, match="is not armed"):
            job.push_and_wait()
        job.arm()
        job.push_and_wait()
        with pytest.raises(Busy, match="was pushed before"):
            job.push_and_wait()


@pytest.mark.parametrize("lent", [True, False])
@pytest.mark.parametrize("what", ["run_job", "free_job", "finished"])
def test_no_callback_waits_for_itself(what: str, lent: bool, told: list[object]) -> None:
    """The thread that lends itself is the worker as long as it does; afterwards it may wait again."""
    later: list[Job] = []

    def act(job: Job) -> None:
        for call in (later[0].push_and_wait, job.entity.flush, here.scheduler.stop, here.scheduler.fini):
            with pytest.raises(InvalidArgument, match="called in a callback of the worker"):
                call()
        job.entity.priority = Priority.HIGH

    class Acting(Watched):
        def free_job(self, job: Job) -> None:
            super().free_job(job)
            if what == "free_job" and job is not later[0]:
                act(job)

    backend = Acting(lambda job: act(job) if what == "run_job" and job is not later[0] else None)
    with idle(backend) as here:
        job = armed(here.entity)
        later.append(armed(here.entity))
        if what == "finished":
            job.finished.add_callback(lambda _: act(job))
        job.push_and_wait() if lent else job.push()
        job.finished.wait()
        here.run.run()
        later[0].push_and_wait()
        assert here.entity.flush()
    assert told == []


def test_run_job_may_kill() -> None:
    backend = Watched(lambda job: job.entity.kill())
    with idle(backend) as here:
        jobs = [armed(here.entity), armed(here.entity)]
        for job in jobs:
            job.push_and_wait()
        assert [job.finished.error for job in jobs] == [0, errno.ESRCH]


@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("where", ["run_job", "free_job", "scheduled", "finished", "both"])
def test_only_what_ends_the_program_comes_out(
    where: str, error: type[BaseException], told: list[object]
) -> None:
    def fail(*_: object) -> None:
        raise error("bug")

    class Fails(Watched):
        def free_job(self, job: Job) -> None:
            super().free_job(job)
            if where == "free_job" and len(self.freed) == 1:
                fail()

    backend = Fails(lambda job: fail() if where == "run_job" and job is jobs[0] else None)
    with idle(backend) as here:
        jobs = [armed(here.entity), armed(here.entity)]
        for which in ("scheduled", "finished"):
            if where in (which, "both"):
                getattr(jobs[0], which).add_callback(fail)
        if error is KeyError:
            jobs[0].push_and_wait()
        else:
            with pytest.raises(error):
                jobs[0].push_and_wait()
        jobs[1].push_and_wait()
        here.run.run()
        assert [job.finished.error for job in jobs] == [errno.EIO if where == "run_job" else 0, 0]
        assert [job.state for job in jobs] == [JobState.FREED] * 2
        assert len(backend.freed) == 2
    assert told == [error] * ((where == "both") + 1 if error is KeyError else 0)


# -- the validator looks on


def test_run_job_must_not_lock_a_reservation(told: list[object]) -> None:
    resv = Resv()
    with idle(Watched(lambda _job: resv.lock())) as here:
        job = armed(here.entity)
        with resv:  # the caller may hold some
            job.push_and_wait()
        assert job.finished.error == errno.EIO
    assert told == [LockdepError]


def test_waiting_under_a_lock_that_run_job_takes_is_reported() -> None:
    lock = Mutex("driver")

    def locked(_job: Job) -> None:
        with lock:
            pass

    with idle(Watched(locked)) as here:
        armed(here.entity).push_and_wait()
        job = armed(here.entity)
        with lock, pytest.raises(LockdepError, match="driver"):
            job.push_and_wait()
        assert job.finished.wait()  # it is pushed all the same
        assert job.finished.status == 1
