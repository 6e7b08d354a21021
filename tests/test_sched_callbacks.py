"""Callbacks that go wrong: it is told, their job ends, and the scheduler goes on."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from gpuvm.errors import GpuvmError, InvalidArgument
from gpuvm.sched import Entity, Job, JobState, Scheduler, SchedulerBackend, TimeoutStatus
from gpuvm.sync import lockdep
from gpuvm.sync.fence import Fence, fence_context_alloc
from gpuvm.testing import Interleaving
from mock_jobs import mock_setup, push
from suite import scaled

SEEDS = range(scaled(4, 40))

ENDS = [SystemExit, KeyboardInterrupt, GeneratorExit, KeyError]
"""The last one ends nothing, and is told like the others."""


class Scripted(SchedulerBackend[Job]):
    """The hardware is done at once, unless the callback named does something else."""

    def __init__(self, where: str = "", act: Callable[[Job], object] = repr) -> None:
        self.where = where
        self.act = act
        self.acts = 1
        self.freed: list[Job] = []

    def _perhaps(self, where: str, job: Job) -> object:
        if where != self.where or not self.acts:
            return None
        self.acts -= 1
        return self.act(job)

    def prepare_job(self, job: Job) -> Fence | None:
        return self._perhaps("prepare_job", job)  # type: ignore[return-value]

    def run_job(self, job: Job) -> Fence | None:
        return self._perhaps("run_job", job)  # type: ignore[return-value]

    def free_job(self, job: Job) -> None:
        self.freed.append(job)
        self._perhaps("free_job", job)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[type[BaseException]]:
    """What goes to the hook for exceptions without a caller."""
    types: list[type[BaseException]] = []
    monkeypatch.setattr(
        Interleaving, "_on_unraisable", lambda _self, unraisable: types.append(unraisable.exc_type)
    )
    return types


def pushed(entity: Entity) -> Job:
    job = Job(entity)
    job.arm()
    job.push()
    return job


def raises(error: type[BaseException]) -> Callable[[Job], object]:
    def act(_job: Job) -> object:
        raise error("bug")

    return act


def run_two(backend: Scripted, seed: int = 0) -> list[int]:
    """The errors of two jobs; the second shows that the worker goes on."""
    with (
        Interleaving(seed),
        Scheduler(backend, name="s", credit_limit=1) as scheduler,
        Entity(scheduler) as entity,
    ):
        jobs = [pushed(entity), pushed(entity)]
        for job in jobs:
            assert job.finished.wait()
        scheduler.check()
    assert backend.freed == jobs
    return [job.finished.error for job in jobs]


@pytest.mark.parametrize("error", ENDS)
@pytest.mark.parametrize("where", ["prepare_job", "run_job", "free_job"])
def test_whatever_a_callback_raises_the_worker_goes_on(
    where: str, error: type[BaseException], told: list[type[BaseException]]
) -> None:
    backend = Scripted(where, raises(error))
    assert run_two(backend) == [errno.EIO if where == "run_job" else 0, 0]
    assert told == [error]


@pytest.mark.parametrize("answer", [3, "fence", object()])
def test_what_prepare_job_answers_must_be_a_fence(answer: object, told: list[type[BaseException]]) -> None:
    assert run_two(Scripted("prepare_job", lambda _job: answer)) == [0, 0]
    assert told == [TypeError]


def test_an_errno_of_nobody_is_eio() -> None:
    def act(_job: Job) -> object:
        error = GpuvmError("strange")
        error.errno = -5
        raise error

    assert run_two(Scripted("run_job", act)) == [errno.EIO, 0]


@pytest.mark.parametrize("which", ["scheduled", "finished"])
@pytest.mark.parametrize("seed", SEEDS)
def test_only_the_scheduler_signals_the_fences_of_a_job(which: str, seed: int) -> None:
    def act(job: Job) -> object:
        with pytest.raises(InvalidArgument, match="signalled by the scheduler alone"):
            getattr(job, which).signal()
        return None

    assert run_two(Scripted("run_job", act), seed) == [0, 0]


@pytest.mark.parametrize("which", ["scheduled", "finished"])
@pytest.mark.parametrize("error", ENDS)
def test_callbacks_of_a_jobs_fences_cannot_end_the_worker(
    which: str, error: type[BaseException], told: list[type[BaseException]]
) -> None:
    backend = Scripted()
    with (
        Interleaving(0),
        Scheduler(backend, name="s", credit_limit=1) as scheduler,
        Entity(scheduler) as entity,
    ):
        jobs = [Job(entity), Job(entity)]
        jobs[0].arm()
        getattr(jobs[0], which).add_callback(raises(error))
        jobs[0].push()
        jobs[1].arm()
        jobs[1].push()
        assert jobs[1].finished.wait()
    assert backend.freed == jobs
    assert told == [error]


class Hooked(Fence):
    """A driver's fence whose hook is broken."""

    __slots__ = ("error_class",)

    error_class: type[BaseException]

    def enable_signaling(self) -> bool:
        raise self.error_class("bug")


@pytest.mark.parametrize("error", ENDS)
@pytest.mark.parametrize("where", ["prepare_job", "run_job"])
def test_a_broken_hook_of_a_fence_cannot_end_the_worker(
    where: str, error: type[BaseException], told: list[type[BaseException]]
) -> None:
    fence = Hooked(fence_context_alloc(), 1)
    fence.error_class = error
    assert run_two(Scripted(where, lambda _job: fence)) == [errno.EIO if where == "run_job" else 0, 0]
    assert told == [error]


@pytest.mark.parametrize("error", ENDS[:-1])
def test_a_timeout_handler_that_ends_the_program_does_not(
    error: type[BaseException], told: list[type[BaseException]]
) -> None:
    class Hangs(Scripted):
        def run_job(self, job: Job) -> Fence | None:
            return hardware

        def timedout_job(self, job: Job) -> TimeoutStatus:
            if not told:
                raise error("bug")
            hardware.signal()
            return TimeoutStatus.RESET

    hardware = Fence(fence_context_alloc(), 1)
    backend = Hangs()
    with (
        Interleaving(0),
        Scheduler(backend, name="s", credit_limit=1, timeout=0.1) as scheduler,
        Entity(scheduler) as entity,
    ):
        job = pushed(entity)
        assert job.finished.wait()
        assert told == [error]
    assert backend.freed == [job]


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_an_interrupt_while_the_hardware_signals_loses_no_job(error: type[BaseException]) -> None:
    """It reaches whoever signals; the job is freed all the same."""
    with mock_setup(0) as mock, Entity(mock.scheduler) as entity:
        job = push(entity, "job")
        job.finished.add_callback(raises(error))
        mock.settle()
        with pytest.raises(error):
            mock.device.advance()
        behind = push(entity, "behind", duration=0)
        assert behind.finished.wait()
        mock.settle()
        assert job.state is JobState.FREED


def test_cancel_job_that_ends_the_program_can_be_called_again() -> None:
    with mock_setup(0) as mock, pytest.MonkeyPatch.context() as patch:
        with Entity(mock.scheduler) as entity:
            jobs = [push(entity, name) for name in "ab"]
            mock.settle()
        patch.setattr(mock.device, "cancel_job", raises(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            mock.scheduler.fini()
        patch.undo()
        mock.scheduler.fini()
        assert [job.finished.error for job in jobs] == [errno.ECANCELED] * 2
        assert mock.device.names("cancel") == ["a"]


# -- what would hang for ever


@pytest.mark.parametrize("validator", [True, False])
@pytest.mark.parametrize("where", ["prepare_job", "run_job", "free_job"])
@pytest.mark.parametrize("call", [Entity.flush, Entity.destroy, lambda entity: entity.flush(5)])
def test_the_worker_cannot_wait_for_itself(
    where: str, call: Callable[[Entity], object], validator: bool
) -> None:
    def act(job: Job) -> object:
        with pytest.raises(InvalidArgument, match="called in a callback of the worker"):
            call(job.entity)
        return None

    if not validator:
        lockdep.disable()
    assert run_two(Scripted(where, act)) == [0, 0]


@pytest.mark.parametrize("which", ["scheduled", "finished", "later"])
def test_prepare_job_cannot_have_a_job_wait_for_itself(which: str, told: list[type[BaseException]]) -> None:
    later: list[Job] = []

    def act(job: Job) -> object:
        return later[0].finished if which == "later" else getattr(job, which)

    backend = Scripted("prepare_job", act)
    with (
        Interleaving(0),
        Scheduler(backend, name="s", credit_limit=1) as scheduler,
        Entity(scheduler) as entity,
    ):
        first, second = Job(entity), Job(entity)
        first.arm()
        second.arm()
        later.append(second)
        for job in (first, second):
            job.push()
        assert second.finished.wait()
    assert told == [InvalidArgument]


def test_prepare_job_may_answer_with_the_job_before() -> None:
    before: list[Fence] = []

    def act(job: Job) -> object:
        before.append(job.finished)
        return before[-2] if len(before) > 1 else None

    backend = Scripted("prepare_job", act)
    backend.acts = 2
    assert run_two(backend) == [0, 0]
