"""Whose turn it is: priorities, first in first out, round robin, credits, several schedulers."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gpuvm.errors import InvalidArgument
from gpuvm.sched import Entity, Policy, Priority, Scheduler
from gpuvm.sync.fence import Fence, fence_context_alloc
from gpuvm.testing import Interleaving, sample
from gpuvm.testing.mock_device import MockDevice, MockJob
from mock_jobs import MS, Setup, mock_setup, push
from suite import scaled

SEEDS = range(scaled(4, 60))
POLICIES = list(Policy)


def push_all_at_once(mock: Setup, names: list[tuple[Entity, str]]) -> list[MockJob]:
    """Push with the scheduler stopped, so that the worker sees all at once."""
    mock.scheduler.stop()
    jobs = [push(entity, name, duration=MS) for entity, name in names]
    mock.scheduler.start()
    return jobs


def wait_for(mock: Setup, jobs: list[MockJob]) -> list[str]:
    for job in jobs:
        assert job.finished.wait()
    mock.settle()
    return mock.ran()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("policy", POLICIES)
def test_higher_priorities_first(policy: Policy, seed: int) -> None:
    with mock_setup(seed, policy=policy, credit_limit=1) as mock:
        entities = [Entity(mock.scheduler, priority=priority) for priority in reversed(Priority)]
        names = [(entity, f"{entity.priority.name}.{turn}") for turn in range(3) for entity in entities]
        ran = wait_for(mock, push_all_at_once(mock, names))
        assert ran == [f"{priority.name}.{turn}" for priority in Priority for turn in range(3)]
        for entity in entities:
            entity.destroy()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("policy", POLICIES)
def test_priority_changes_while_busy(policy: Policy, seed: int) -> None:
    with mock_setup(seed, policy=policy, credit_limit=1) as mock, Entity(mock.scheduler) as entity:
        jobs = []
        for turn in range(40):
            jobs.append(push(entity, str(turn), duration=MS))
            entity.priority = Priority(turn % 4)
            mock.check()
        assert wait_for(mock, jobs) == [str(turn) for turn in range(40)]


def test_a_change_of_priority_holds_for_what_is_queued() -> None:
    with (
        mock_setup(0, credit_limit=1) as mock,
        Entity(mock.scheduler) as one,
        Entity(mock.scheduler) as other,
    ):
        jobs = [push(one, "running", duration=MS)]
        mock.settle()
        jobs += push_all_at_once(mock, [(one, "one"), (other, "other")])
        other.priority = Priority.HIGH
        assert wait_for(mock, jobs) == ["running", "other", "one"]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("policy", "order"),
    [(Policy.FIFO, "a0 a1 a2 b0 b1 b2 c0 c1 c2"), (Policy.ROUND_ROBIN, "a0 b0 c0 a1 b1 c1 a2 b2 c2")],
)
def test_order_of_equals(policy: Policy, order: str, seed: int) -> None:
    with mock_setup(seed, policy=policy, credit_limit=1) as mock:
        entities = {name: Entity(mock.scheduler) for name in "abc"}
        names = [(entities[name], f"{name}{turn}") for name in "abc" for turn in range(3)]
        assert wait_for(mock, push_all_at_once(mock, names)) == order.split()
        for entity in entities.values():
            entity.destroy()


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("heavy", [Priority.HIGH, Priority.NORMAL, Priority.LOW])
@pytest.mark.parametrize("light", [Priority.HIGH, Priority.NORMAL, Priority.LOW])
def test_two_clients(policy: Policy, heavy: Priority, light: Priority) -> None:
    """A client that always has many jobs queued, and one that pushes the next when the last is done."""
    with mock_setup(1, policy=policy, credit_limit=1) as mock:
        hog = Entity(mock.scheduler, priority=heavy, name="heavy")
        modest = Entity(mock.scheduler, priority=light, name="light")
        queued = push_all_at_once(mock, [(hog, "heavy")] * 30)
        waited = []
        for _ in range(3):
            begin = mock.run.now()
            assert push(modest, "light", duration=MS).finished.wait()
            waited.append((mock.run.now() - begin) // MS)
        if light < heavy or (light == heavy and policy is Policy.ROUND_ROBIN):
            assert max(waited) <= 3  # the one that runs, perhaps one more, and its own
        elif light > heavy or policy is Policy.FIFO:
            assert waited[0] >= 30  # behind all that was pushed before
        wait_for(mock, queued)
        hog.destroy()
        modest.destroy()


@pytest.mark.parametrize("policy", POLICIES)
def test_equal_clients_get_equal_shares(policy: Policy) -> None:
    clients, jobs_each = 7, 6
    with mock_setup(1, policy=policy, credit_limit=1) as mock:
        entities = [Entity(mock.scheduler, name=str(number)) for number in range(clients)]
        names = [(entity, entity.name) for _ in range(jobs_each) for entity in entities]
        ran = wait_for(mock, push_all_at_once(mock, names))
        for begin in range(0, len(ran), clients):
            assert sorted(ran[begin : begin + clients]) == [str(number) for number in range(clients)]
        for entity in entities:
            entity.destroy()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_job_without_credits_keeps_lower_priorities_waiting(seed: int) -> None:
    with mock_setup(seed, credit_limit=4) as mock:
        high = Entity(mock.scheduler, priority=Priority.HIGH)
        low = Entity(mock.scheduler, priority=Priority.LOW)
        push(high, "three", credits=3)
        mock.settle()
        push(high, "two", credits=2)
        push(low, "one", credits=1)
        mock.settle()
        assert mock.ran() == ["three"]
        mock.advance()
        assert mock.ran() == ["three", "two", "one"]
        mock.advance(2)
        high.destroy()
        low.destroy()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_job_that_waits_for_a_fence_keeps_nobody_waiting(seed: int) -> None:
    with mock_setup(seed, credit_limit=1) as mock:
        high = Entity(mock.scheduler, priority=Priority.HIGH)
        low = Entity(mock.scheduler, priority=Priority.LOW)
        fence = Fence(fence_context_alloc(), 1)
        waits = push(high, "high", after=[fence], duration=0)
        assert push(low, "low", duration=0).finished.wait()
        fence.signal()
        assert waits.finished.wait()
        high.destroy()
        low.destroy()


# -- several schedulers


@pytest.mark.parametrize("seed", SEEDS)
def test_modify_schedulers(seed: int) -> None:
    with mock_setup(seed) as mock, Scheduler(mock.device, name="second", credit_limit=8) as second:
        both = (mock.scheduler, second)
        with Entity(mock.scheduler) as entity:
            jobs = []
            for turn in range(20):
                jobs.append(push(entity, str(turn), duration=MS))
                entity.modify_schedulers(both[turn % 2])
                second.check()
                mock.check()
                if turn % 3 == 0:
                    assert jobs[-1].finished.wait()
            assert wait_for(mock, jobs) == [str(turn) for turn in range(20)]
            assert second.statistics().freed + mock.scheduler.statistics().freed == 20
            assert second.statistics().freed > 0
            with pytest.raises(InvalidArgument, match="no scheduler"):
                entity.modify_schedulers()
        assert mock.scheduler.entities == second.entities == ()


def test_an_idle_entity_leaves_at_once_and_a_busy_one_when_it_is_done() -> None:
    with (
        mock_setup(0) as mock,
        Scheduler(mock.device, name="second", credit_limit=8) as second,
        Entity(mock.scheduler) as entity,
    ):
        entity.modify_schedulers(second)
        assert entity.scheduler is second
        assert not mock.scheduler.entities
        push(entity)
        entity.modify_schedulers(mock.scheduler)
        push(entity)
        assert entity.scheduler is second
        mock.settle()
        mock.advance(2)
        push(entity)
        assert entity.scheduler is mock.scheduler
        assert second.entities == ()
        mock.settle()
        mock.advance()


def test_idle_entities_go_where_least_is_to_do() -> None:
    with mock_setup(0) as mock, Scheduler(mock.device, name="second", credit_limit=8) as second:
        entities = [Entity(mock.scheduler, second) for _ in range(4)]
        for entity in entities:
            push(entity)
            push(entity)
        where = [entity.scheduler.name for entity in entities]
        assert where == ["mock", "second", "mock", "second"]
        mock.settle()
        mock.advance(8)
        for entity in entities:
            entity.destroy()


def test_a_job_made_for_a_scheduler_with_more_credits() -> None:
    with (
        mock_setup(0, credit_limit=8) as mock,
        Scheduler(mock.device, name="small", credit_limit=2) as small,
        Entity(mock.scheduler) as entity,
    ):
        job = MockJob(entity, credits=8, duration=0)
        entity.modify_schedulers(small)
        with pytest.warns(RuntimeWarning, match="cut down to it, 2"):
            job.arm()
        job.push()
        assert job.finished.wait()
        assert job.credits == 2


def test_credits_count_where_the_job_runs() -> None:
    """A scheduler with fewer credits, which the entity could have gone to, does not matter."""
    with (
        mock_setup(0, credit_limit=8) as mock,
        Scheduler(mock.device, name="small", credit_limit=2) as small,
        Entity(mock.scheduler, small) as entity,
        Entity(small) as other,
    ):
        other_job = push(other)
        first = push(entity, credits=5)
        second = push(entity, credits=5)
        mock.settle()
        assert (first.credits, mock.scheduler.statistics().credits_used) == (5, 5)
        assert not second.scheduled.signalled
        mock.advance(2)
        mock.advance()
        assert other_job.finished.signalled


def test_modify_schedulers_while_another_thread_arms() -> None:
    """Wherever the entity goes, that scheduler knows it."""

    def scenario(run: Interleaving) -> Callable[[], None]:
        device = MockDevice()
        schedulers = [Scheduler(device, name=name, credit_limit=1) for name in ("before", "old", "new")]
        before, old, new = schedulers
        entity, busy = Entity(before, old), Entity(before)
        running = push(busy)  # so that old is the better choice
        running.scheduled.wait()
        job = MockJob(entity)
        run.spawn(job.arm)
        run.spawn(entity.modify_schedulers, new)

        def check() -> None:
            entity.check()
            assert entity in entity.scheduler.entities
            job.push()
            device.advance(1)
            job.scheduled.wait()
            device.advance(1)
            entity.destroy()
            busy.destroy()
            for scheduler in schedulers:
                scheduler.check()
                assert not scheduler.entities
                scheduler.fini()

        return check

    sample(scenario, range(scaled(300, 5000)))


def test_a_scheduler_that_has_ended_is_refused() -> None:
    with mock_setup(0) as mock:
        ended = Scheduler(mock.device, name="ended", credit_limit=8)
        ended.fini()
        with pytest.raises(InvalidArgument, match="has ended"):
            Entity(mock.scheduler, ended)
        assert not mock.scheduler.entities
        with Entity(mock.scheduler) as entity:
            with pytest.raises(InvalidArgument, match="has ended"):
                entity.modify_schedulers(mock.scheduler, ended)
            assert entity.schedulers == (mock.scheduler,)
            assert mock.scheduler.entities == (entity,)
