"""The mock device by itself."""

from __future__ import annotations

import errno

import pytest

from gpuvm.errors import InvalidArgument
from gpuvm.sched import Entity
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
