"""The mock device by itself."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from gpuvm.errors import InvalidArgument
from gpuvm.sched import Entity, Scheduler
from gpuvm.sync.fence import Fence
from gpuvm.testing.mock_device import MockDevice, MockJob
from mock_jobs import MS, mock_setup, push
from suite import scaled

SEEDS = range(scaled(4, 60))


def test_advance_ends_the_oldest_of_all_queues() -> None:
    with mock_setup(0, queues=2) as mock, Entity(mock.scheduler) as one, Entity(mock.scheduler) as other:
        push(one, "a", queue=1)
        push(other, "b", queue=0)
        push(one, "c", queue=1, duration=100 * MS)
        mock.settle()
        assert [job.name for job in mock.device.pending] == ["a", "b", "c"]
        assert mock.device.advance(2) == 2
        assert mock.device.names("done") == ["a", "b"]
        assert mock.device.advance(2) == 1
        assert mock.device.advance() == 0
        assert mock.device.statistics().submitted == 3
        assert mock.device.statistics().pending == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_a_queue_executes_one_job_after_the_other(seed: int) -> None:
    with mock_setup(seed, queues=2) as mock, Entity(mock.scheduler) as one, Entity(mock.scheduler) as other:
        begin = mock.run.now()
        durations = {"a": 3, "b": 2, "c": 0, "d": 1}
        mine = [push(one, name, duration=duration * MS) for name, duration in durations.items()]
        others = [push(other, name, duration=2 * MS, queue=1) for name in "xy"]
        for job in (*mine, *others):
            assert job.finished.wait()
        ends = [((job.finished.timestamp or 0) - begin) // MS for job in (*mine, *others)]
        assert ends == [3, 5, 5, 6, 2, 4]


@pytest.mark.parametrize("seed", SEEDS)
def test_what_was_advanced_lets_the_next_begin(seed: int) -> None:
    with mock_setup(seed) as mock, Entity(mock.scheduler) as entity:
        push(entity, "until advance")
        timed = push(entity, "timed", duration=5 * MS)
        assert not timed.finished.wait(0.1)
        begin = mock.run.now()
        mock.device.advance()
        assert timed.finished.wait()
        assert mock.run.now() - begin == 5 * MS


def test_abort() -> None:
    with mock_setup(0) as mock, Entity(mock.scheduler) as entity:
        first, second = push(entity, "first"), push(entity, "second")
        mock.settle()
        mock.device.abort(second, errno.EIO)
        mock.device.abort(second, errno.EIO)
        mock.device.advance()
        assert (first.finished.error, second.finished.error) == (0, 0)
        mock.settle()
        assert second.finished.error == errno.EIO
        assert mock.device.names("done") == ["second", "first"]


def test_it_needs_a_queue() -> None:
    with pytest.raises(InvalidArgument, match="at least 1"), mock_setup(0, queues=0):
        pass


# -- misuse


@pytest.mark.parametrize("queue", [-1, 1, 3, 0.5])
def test_a_job_needs_a_queue_that_there_is(queue: Any) -> None:
    with mock_setup(0) as mock, Entity(mock.scheduler) as entity:
        with pytest.raises(InvalidArgument, match=r"queue is .*; the device has 1"):
            MockJob(entity, queue=queue)
        assert push(entity, duration=0).finished.wait()


def test_a_job_that_comes_from_a_device_with_more_queues() -> None:
    with (
        mock_setup(0) as mock,
        Scheduler(MockDevice(2), name="two", credit_limit=1) as two,
        Entity(two) as entity,
    ):
        job = MockJob(entity, queue=1)
        entity.modify_schedulers(mock.scheduler)
        job.arm()
        job.push()
        assert job.finished.wait()
        assert job.finished.error == errno.EINVAL
        assert mock.device.statistics().submitted == 0


@pytest.mark.parametrize("duration", [-1, 0.5, "1"])
def test_a_duration_is_in_whole_ns(duration: Any) -> None:
    refused = pytest.raises(InvalidArgument, match=r"duration is .*; pass ns as an int")
    with mock_setup(0) as mock, Entity(mock.scheduler) as entity, refused:
        MockJob(entity, duration=duration)


@pytest.mark.parametrize("count", [-1, 0.5])
def test_advance_ends_a_number_of_jobs(count: Any) -> None:
    with pytest.raises(InvalidArgument, match="pass an int"):
        MockDevice().advance(count)


def test_abort_needs_an_errno_and_a_job_on_the_device() -> None:
    with mock_setup(0, credit_limit=1) as mock, Entity(mock.scheduler) as entity:
        first, second = push(entity, "first"), push(entity, "second")
        mock.settle()
        for error in (-errno.EIO, 0, 4096):
            with pytest.raises(InvalidArgument, match="is no errno"):
                mock.device.abort(first, error)
        with pytest.raises(InvalidArgument, match="was not given to the device"):
            mock.device.abort(second, errno.EIO)
        mock.advance()
        mock.device.abort(first, errno.EIO)  # it is done
        mock.advance()
        assert second.finished.status == first.finished.status == 1


def test_a_fence_that_somebody_else_signals_does_not_wedge_the_device() -> None:
    with mock_setup(0) as mock, Entity(mock.scheduler) as entity:
        jobs = [push(entity, name) for name in "ab"]
        mock.settle()
        assert jobs[0].hardware_fence is not None
        jobs[0].hardware_fence.signal()
        mock.device.abort(jobs[0], errno.EIO)
        assert mock.device.advance() == 1
        assert [job.finished.wait() for job in jobs] == [True, True]


def test_a_callback_that_ends_the_program_does_not_wedge_the_device() -> None:
    def end(_fence: Fence) -> None:
        raise SystemExit

    with mock_setup(0) as mock, Entity(mock.scheduler) as entity:
        jobs = [push(entity, name) for name in "abc"]
        mock.settle()
        assert jobs[0].hardware_fence is not None
        jobs[0].hardware_fence.add_callback(end)
        with pytest.raises(SystemExit):
            mock.device.advance(2)
        mock.device.advance()
        assert [job.finished.wait() for job in jobs] == [True] * 3
