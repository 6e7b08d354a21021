"""What is refused before anything has begun: no thread is left, and nothing is half changed."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

import pytest

from gpuvm.errors import InvalidArgument, NotFound
from gpuvm.sched import Entity, Job, Policy, Scheduler, SchedulerBackend, TimeoutStatus
from gpuvm.sync import task
from gpuvm.sync.fence import Fence, fence_context_alloc
from mock_jobs import mock_setup, push


class Idle(SchedulerBackend[Job]):
    def run_job(self, job: Job) -> Fence | None:
        return None


class Times(Idle):
    def timedout_job(self, job: Job) -> TimeoutStatus:
        return TimeoutStatus.RESET


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"backend": Idle}, "no backend"),
        ({"backend": None}, "no backend"),
        ({"credit_limit": 1.5}, "credit_limit is 1.5"),
        ({"credit_limit": "4"}, "credit_limit is '4'"),
        ({"credit_limit": 0}, "credit_limit is 0"),
        ({"policy": "fifo"}, "no policy; pass Policy.FIFO or"),
        ({"timeout": math.inf}, "timeout is inf"),
        ({"timeout": math.nan}, "timeout is nan"),
        ({"timeout": "1"}, "timeout is '1'"),
        ({"timeout": -1}, "timeout is -1"),
        ({"timeout": 1, "backend": Idle()}, "needs a timedout_job"),
    ],
)
def test_a_scheduler_that_makes_no_sense_begins_no_thread(change: dict[str, Any], match: str) -> None:
    threads = threading.active_count()
    arguments: dict[str, Any] = {"backend": Times(), "name": "s", "credit_limit": 1, "policy": Policy.FIFO}
    arguments |= change
    with pytest.raises(InvalidArgument, match=match):
        Scheduler(**arguments)
    assert threading.active_count() == threads


def test_a_callback_may_be_an_attribute_of_the_object() -> None:
    backend = Idle()
    cancelled: list[Job] = []
    hardware = Fence(fence_context_alloc(), 1)
    backend.run_job = lambda job: hardware  # type: ignore[method-assign]
    backend.timedout_job = lambda job: TimeoutStatus.NO_HANG  # type: ignore[method-assign]
    backend.cancel_job = lambda job: cancelled.append(job)  # type: ignore[method-assign]
    with Scheduler(backend, name="s", credit_limit=1, timeout=60) as scheduler, Entity(scheduler) as entity:
        job = Job(entity)
        job.arm()
        job.push()
    assert cancelled == [job]


@pytest.mark.parametrize("others", [(None,), ("scheduler",), ([],)])
@pytest.mark.parametrize("before", [True, False])
def test_entities_need_schedulers(others: tuple[Any, ...], before: bool) -> None:
    with mock_setup(0) as mock:
        wrong = (mock.scheduler, *others) if before else (*others, mock.scheduler)
        with pytest.raises(InvalidArgument, match=r"Entity: .* is no scheduler"):
            Entity(*wrong)
        assert not mock.scheduler.entities
        with Scheduler(mock.device, name="other", credit_limit=1) as other, Entity(other) as entity:
            with pytest.raises(InvalidArgument, match=r"modify_schedulers: .* is no scheduler"):
                entity.modify_schedulers(*wrong)
            with pytest.raises(InvalidArgument, match="is no scheduler"):
                entity.modify_schedulers([mock.scheduler])  # type: ignore[arg-type]
            assert (entity.schedulers, mock.scheduler.entities) == ((other,), ())


def test_a_killed_entity_keeps_its_schedulers() -> None:
    with mock_setup(0) as mock, Scheduler(mock.device, name="other", credit_limit=1) as other:
        entity = Entity(mock.scheduler)
        entity.destroy()
        with pytest.raises(NotFound, match="was killed"):
            entity.modify_schedulers(other)
        assert not other.entities


def test_a_killed_entity_comes_before_other_mistakes() -> None:
    """As in the kernel, which looks at the run queue first."""
    with mock_setup(0) as mock:
        entity = Entity(mock.scheduler)
        entity.destroy()
        with pytest.raises(NotFound):
            Job(entity, 0)


@pytest.mark.parametrize("credits", [0, -1, 1.5, "1"])
def test_a_job_takes_whole_credits(credits: Any) -> None:
    with (
        mock_setup(0) as mock,
        Entity(mock.scheduler) as entity,
        pytest.raises(InvalidArgument, match="credits"),
    ):
        Job(entity, credits)


def test_a_dependency_is_a_fence_or_nothing() -> None:
    with mock_setup(0) as mock, Entity(mock.scheduler) as entity:
        job = Job(entity)
        job.add_dependency(None)
        for wrong in (3, "fence", Fence):
            with pytest.raises(InvalidArgument, match="is no fence"):
                job.add_dependency(wrong)  # type: ignore[arg-type]
        assert job.dependencies == ()
        job.cleanup()


def test_start_looks_at_all_parents_before_it_begins() -> None:
    with mock_setup(0) as mock, Entity(mock.scheduler) as entity:
        jobs = [push(entity, name) for name in "ab"]
        mock.settle()
        mock.scheduler.stop()
        jobs[1].parent = 3  # type: ignore[assignment]
        with pytest.raises(InvalidArgument, match=r"parent of .* is 3"):
            mock.scheduler.start()
        assert mock.scheduler.stopped
        assert not any(job.finished.signalled for job in jobs)
        again = [Fence(fence_context_alloc(), 1) for _ in jobs]
        for job, fence in zip(jobs, again, strict=True):
            job.parent = fence
        mock.scheduler.start()
        for fence in again:
            fence.signal()
        assert [job.finished.wait() for job in jobs] == [True, True]
        mock.device.advance(2)


@pytest.mark.parametrize(
    "wait", [lambda entity: entity.flush(math.inf), lambda entity: entity.destroy(math.inf)]
)
def test_infinity_is_for_ever(wait: Callable[[Entity], object]) -> None:
    assert task.deadline_after(math.inf) is None
    with mock_setup(0) as mock, Entity(mock.scheduler) as entity:
        push(entity, duration=0)
        wait(entity)
        assert mock.ran() == [""]
