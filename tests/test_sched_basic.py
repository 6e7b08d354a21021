"""Jobs through the scheduler: the kernel's basic tests, and the way of a single job in detail."""

from __future__ import annotations

import errno
import sys
import warnings
from dataclasses import dataclass

import pytest

from gpuvm.errors import Busy, InvalidArgument, NotFound
from gpuvm.sched import Entity, Job, JobState, Scheduler, SchedulerBackend
from gpuvm.sync.fence import Fence, fence_context_alloc, stub_fence
from gpuvm.testing.mock_device import MockJob
from mock_jobs import MS, mock_setup, push
from suite import scaled

SEEDS = range(scaled(4, 60))


@pytest.mark.parametrize("seed", SEEDS)
def test_submit(seed: int) -> None:
    with mock_setup(seed) as mock, Entity(mock.scheduler) as entity:
        job = push(entity, "job")
        assert job.scheduled.wait()
        mock.settle()
        assert mock.ran() == ["job"]
        assert not job.finished.signalled
        assert not job.finished.wait(0.5)
        mock.device.advance()
        assert job.finished.wait()
        assert job.finished.status == job.scheduled.status == 1
        mock.settle()
        assert mock.device.names("free") == ["job"]
        assert job.state is JobState.FREED


@dataclass(frozen=True)
class Case:
    name: str
    entities: int
    jobs: int
    duration: int
    in_chain: bool = False
    """Each job depends on the one before it of its entity."""
    across: bool = False
    """Each job depends on the one before it, of whatever entity."""


CASES = [
    Case("one entity", 1, 20, MS),
    Case("one entity, chain", 1, 20, MS, in_chain=True),
    Case("many entities", 5, 8, MS),
    Case("many entities, chains", 5, 8, MS, in_chain=True),
    Case("many entities, chained across", 5, 8, MS, across=True),
    Case("at once", 5, 8, 0, across=True),
]


@pytest.mark.parametrize("seed", range(scaled(2, 20)))
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("in_order", [False, True])
def test_entities(case: Case, in_order: bool, seed: int) -> None:
    with mock_setup(seed, in_order=in_order) as mock:
        begin = mock.run.now()
        entities = [Entity(mock.scheduler) for _ in range(case.entities)]
        before: list[MockJob | None] = [None] * case.entities
        last: MockJob | None = None
        jobs = []
        for turn in range(case.jobs):
            for number, entity in enumerate(entities):
                on = last if case.across else before[number] if case.in_chain else None
                after = () if on is None else (on.finished,)
                last = before[number] = push(entity, f"{number}.{turn}", after=after, duration=case.duration)
                jobs.append(last)
        assert last is not None
        for job in jobs:
            assert job.finished.wait()
            assert job.finished.status == 1
        assert mock.run.now() - begin == len(jobs) * case.duration
        for entity in entities:
            entity.destroy()
        mock.settle()
        for number in range(case.entities):
            mine = [name for name in mock.ran() if name.startswith(f"{number}.")]
            assert mine == [f"{number}.{turn}" for turn in range(case.jobs)]
        assert sorted(mock.device.names("free")) == sorted(mock.ran())
        assert all(job.state is JobState.FREED for job in jobs)


@pytest.mark.parametrize("seed", SEEDS)
def test_place_in_the_queue_is_taken_by_arm(seed: int) -> None:
    with mock_setup(seed) as mock, Entity(mock.scheduler) as entity:
        first, second = MockJob(entity, "first", duration=0), MockJob(entity, "second", duration=0)
        first.arm()
        second.arm()
        assert (first.finished.seqno, second.finished.seqno) == (1, 2)
        second.push()
        mock.settle()
        assert mock.ran() == []
        assert entity.statistics().armed == 1
        first.push()
        assert second.finished.wait()
        assert mock.ran() == ["first", "second"]


@pytest.mark.parametrize("seed", SEEDS)
def test_credit_limit_of_one(seed: int) -> None:
    with mock_setup(seed, credit_limit=1) as mock, Entity(mock.scheduler) as entity:
        for name in "abc":
            push(entity, name)
        for ran in (["a"], ["a", "b"], ["a", "b", "c"]):
            mock.settle()
            assert mock.ran() == ran
            assert mock.scheduler.statistics().credits_used == 1
            mock.device.advance()
        mock.settle()
        assert mock.scheduler.statistics().credits_used == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_credits_are_never_exceeded(seed: int) -> None:
    with mock_setup(seed, credit_limit=5) as mock, Entity(mock.scheduler) as entity:
        for name, credits in ("a", 3), ("b", 2), ("c", 1), ("d", 5):
            push(entity, name, credits=credits)
        mock.settle()
        assert mock.ran() == ["a", "b"]
        mock.advance()  # a
        assert mock.ran() == ["a", "b", "c"]
        mock.advance()  # b
        assert mock.ran() == ["a", "b", "c"]
        mock.advance()  # c
        assert mock.ran() == ["a", "b", "c", "d"]
        mock.advance()


def test_credits_above_the_limit_are_cut_down() -> None:
    with mock_setup(0, credit_limit=5) as mock, Entity(mock.scheduler) as entity:
        job = MockJob(entity, credits=6, duration=0)
        with pytest.raises(RuntimeWarning, match="cut down"), warnings.catch_warnings(action="error"):
            job.arm()
        assert (job.state, job.credits) == (JobState.INITIALISED, 6)
        with pytest.warns(RuntimeWarning, match="cut down to it, 5"):
            job.arm()
        assert job.credits == 5
        job.push()


# -- the fences


def test_fences_of_a_job() -> None:
    with mock_setup(0) as mock, Entity(mock.scheduler, name="client") as entity:
        first, second = push(entity), push(entity)
        assert first.finished.context == first.scheduled.context + 1 == entity.context + 1
        assert second.finished.is_later(first.finished)
        assert second.scheduled.is_later(first.scheduled)
        assert (first.finished.driver, first.finished.timeline) == ("sched", "client")
        mock.settle()
        assert first.parent is not None
        mock.advance(2)
        assert first.finished.timestamp is not None
        assert first.statistics().finished_at == first.finished.timestamp


@pytest.mark.parametrize("before", [True, False])
def test_deadline_is_passed_on_to_the_hardware(before: bool) -> None:
    with mock_setup(0) as mock, Entity(mock.scheduler) as entity:
        job = push(entity)
        if before:
            job.finished.set_deadline(77)
        mock.settle()
        if not before:
            job.finished.set_deadline(77)
        assert job.parent is not None
        assert job.parent.deadline == 77
        mock.advance()


# -- what run_job may do


@pytest.fixture
def unraisable(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    told: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    return told


class Answers(SchedulerBackend[Job]):
    def __init__(self, answer: object) -> None:
        self.answer = answer
        self.freed = 0

    def run_job(self, job: Job) -> Fence | None:
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer  # type: ignore[return-value]

    def free_job(self, job: Job) -> None:
        assert job.finished.signalled
        self.freed += 1


def failed_fence() -> Fence:
    fence = Fence(fence_context_alloc(), 1)
    fence.set_error(errno.ETIME)
    fence.signal()
    return fence


def run_one(answer: object) -> Job:
    backend = Answers(answer)
    with Scheduler(backend, name="s", credit_limit=1) as scheduler, Entity(scheduler) as entity:
        job = Job(entity)
        job.arm()
        job.push()
        assert job.finished.wait()
        scheduler.check()
    assert backend.freed == 1
    return job


@pytest.mark.parametrize(
    ("answer", "status"),
    [(None, 1), (stub_fence(), 1), (failed_fence(), -errno.ETIME), (NotFound("gone"), -errno.ENOENT)],
)
def test_what_run_job_answers(answer: object, status: int) -> None:
    assert run_one(answer).finished.status == status


@pytest.mark.parametrize("answer", [KeyError("driver bug"), 3])
def test_bugs_of_run_job_are_told_and_end_the_job(answer: object, unraisable: list[object]) -> None:
    job = run_one(answer)
    assert job.finished.status == -errno.EIO
    assert job.scheduled.status == 1
    assert len(unraisable) == 1


def test_bug_of_free_job_is_told(unraisable: list[object]) -> None:
    class Bad(Answers):
        def free_job(self, job: Job) -> None:
            super().free_job(job)
            raise KeyError("driver bug")

    backend = Bad(None)
    with Scheduler(backend, name="s", credit_limit=1) as scheduler, Entity(scheduler) as entity:
        for _ in range(2):
            job = Job(entity)
            job.arm()
            job.push()
    assert backend.freed == len(unraisable) == 2


def test_guilty_jobs_are_marked_and_go_through_run_job() -> None:
    with mock_setup(0) as mock, Entity(mock.scheduler) as entity:
        entity.guilty = True
        job = push(entity, "job")
        assert job.finished.wait()
        assert job.finished.status == -errno.ECANCELED
        assert mock.device.names("skip") == ["job"]


# -- misuse


def test_misuse_is_refused() -> None:
    with mock_setup(0) as mock, Entity(mock.scheduler) as entity:
        with pytest.raises(InvalidArgument, match="at least 1"):
            Job(entity, 0)
        job = MockJob(entity, duration=0)
        with pytest.raises(InvalidArgument, match="before arm"):
            job.finished  # noqa: B018
        with pytest.raises(InvalidArgument, match="not armed"):
            job.push()
        job.arm()
        for call in (job.arm, job.cleanup, lambda: job.add_dependency(stub_fence())):
            with pytest.raises(Busy, match="no way back"):
                call()
        job.push()
        with pytest.raises(Busy, match="pushed before"):
            job.push()
        given_up = MockJob(entity)
        given_up.add_dependency(Fence(fence_context_alloc(), 1))
        given_up.cleanup()
        assert given_up.dependencies == ()
        for call in (given_up.arm, given_up.cleanup, lambda: given_up.add_dependency(stub_fence())):
            with pytest.raises(InvalidArgument, match="cleaned up"):
                call()
        with pytest.raises(InvalidArgument, match="not armed"):
            given_up.push()
        assert job.finished.wait()
        assert mock.ran() == [""]


def test_a_scheduler_must_make_sense() -> None:
    with pytest.raises(InvalidArgument, match="credit_limit is 0"):
        Scheduler(Answers(None), name="s", credit_limit=0)
    with pytest.raises(InvalidArgument, match="needs a timedout_job"):
        Scheduler(Answers(None), name="s", credit_limit=1, timeout=1)
    with pytest.raises(InvalidArgument, match="positive"):
        Scheduler(Answers(None), name="s", credit_limit=1, timeout=0)
    with pytest.raises(InvalidArgument, match="no scheduler"):
        Entity()
    with Scheduler(Answers(None), name="s", credit_limit=1) as scheduler:
        with pytest.raises(InvalidArgument, match="no priority"):
            Entity(scheduler, priority=4)  # type: ignore[arg-type]
        assert scheduler.entities == ()
    with pytest.raises(InvalidArgument, match="has ended"):
        Entity(scheduler)
