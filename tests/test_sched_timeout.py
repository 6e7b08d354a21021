"""Jobs that hang: the driver is told in time, resets, and the scheduler goes on."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable

import pytest

from gpuvm.errors import Busy, InvalidArgument
from gpuvm.sched import Entity, JobState, Scheduler, TimeoutStatus
from gpuvm.sync import task
from gpuvm.sync.fence import Fence, fence_context_alloc
from gpuvm.testing import Interleaving
from gpuvm.testing.mock_device import MockDevice, MockJob
from mock_jobs import MS, mock_setup, push
from suite import scaled

SEEDS = range(scaled(4, 60))
TIMEOUT = 0.050


def times_of(device: MockDevice, event: str) -> int:
    return len(device.names(event))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_job_that_hangs_is_ended(seed: int) -> None:
    with mock_setup(seed, timeout=TIMEOUT) as mock, Entity(mock.scheduler) as entity:
        begin = mock.run.now()
        job = push(entity, "hangs")
        after = push(entity, "after", duration=MS)
        assert job.finished.wait()
        assert mock.run.now() - begin == 50 * MS
        assert job.finished.status == -errno.ETIMEDOUT
        assert after.finished.wait()
        assert after.finished.status == 1
        mock.settle()
        assert mock.device.names("free") == ["hangs", "after"]
        assert mock.scheduler.statistics().timeouts == 1


@pytest.mark.parametrize("seed", SEEDS)
def test_false_alarm(seed: int) -> None:
    """The job goes on, and is given its time anew (the kernel's skip_reset)."""
    with mock_setup(seed, timeout=TIMEOUT) as mock, Entity(mock.scheduler) as entity:
        begin = mock.run.now()
        slow = push(entity, "slow", duration=70 * MS, false_alarm=True)
        assert slow.finished.wait()
        assert slow.finished.status == 1
        assert mock.run.now() - begin == 70 * MS
        hangs = push(entity, "hangs", false_alarm=True)
        assert hangs.finished.wait()
        assert hangs.finished.status == -errno.ETIMEDOUT
        assert mock.run.now() - begin == (70 + 100) * MS
        mock.settle()
        assert mock.device.names("timeout") == ["slow", "hangs", "hangs"]
        assert mock.device.names("free") == ["slow", "hangs"]
        assert mock.scheduler.statistics().false_alarms == 2


@pytest.mark.parametrize("seed", SEEDS)
def test_jobs_on_a_ring_are_timed_one_after_the_other(seed: int) -> None:
    with mock_setup(seed, timeout=TIMEOUT) as mock, Entity(mock.scheduler) as entity:
        jobs = [push(entity, duration=40 * MS) for _ in range(10)]
        assert jobs[-1].finished.wait()
        assert {job.finished.status for job in jobs} == {1}
        assert times_of(mock.device, "timeout") == 0
        mock.settle()


@pytest.mark.parametrize("seed", SEEDS)
def test_each_of_many_that_hang_is_found(seed: int) -> None:
    with mock_setup(seed, timeout=TIMEOUT, queues=3) as mock, Entity(mock.scheduler) as entity:
        begin = mock.run.now()
        jobs = [push(entity, str(queue), queue=queue) for queue in range(3)]
        assert jobs[-1].finished.wait()
        assert mock.run.now() - begin == 150 * MS
        assert {job.finished.status for job in jobs} == {-errno.ETIMEDOUT}
        mock.settle()


@pytest.mark.parametrize("seed", SEEDS)
def test_time_begins_with_the_job_not_with_the_scheduler(seed: int) -> None:
    with mock_setup(seed, timeout=TIMEOUT) as mock, Entity(mock.scheduler) as entity:
        for _ in range(3):
            quick = push(entity, duration=30 * MS)
            assert quick.finished.wait()
            mock.run.advance(35 * MS)
            mock.settle()
        begin = mock.run.now()
        assert push(entity, "hangs").finished.wait()
        assert mock.run.now() - begin == 50 * MS
        assert mock.device.names("timeout") == ["hangs"]


# -- drivers that reset


class Resetting(MockDevice):
    """Stops the scheduler, forgets what the hardware had, and starts it again."""

    scheduler: Scheduler
    status = TimeoutStatus.RESET
    again = False
    """Give the jobs to the hardware once more."""

    def timedout_job(self, job: MockJob) -> TimeoutStatus:
        self.log.append(("timeout", job.name))
        self.scheduler.stop()
        assert self.scheduler.stopped
        job.finished.set_error(errno.ETIME)
        lost = [left for left in self.scheduler.in_flight if not left.finished.signalled]
        for pending in self.pending:
            self.abort(pending, errno.EIO)
        assert not any(left.finished.signalled for left in lost)
        if self.again:
            for left in lost:
                if left is not job:
                    left.parent = self.run_job(left)  # type: ignore[arg-type]
        self.scheduler.start()
        return self.status


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("again", [False, True])
def test_stop_reset_start(again: bool, seed: int) -> None:
    with (
        Interleaving(seed) as run,
        Resetting() as device,
        Scheduler(device, name="s", credit_limit=3, timeout=TIMEOUT) as scheduler,
        Entity(scheduler) as entity,
    ):
        device.scheduler, device.again = scheduler, again
        hangs = push(entity, "hangs")
        behind = [push(entity, name, duration=MS) for name in "abcd"]
        for job in (hangs, *behind):
            assert job.finished.wait()
        lost = 1 if again else -errno.ECANCELED
        assert [job.finished.status for job in (hangs, *behind)] == [-errno.ETIME, lost, lost, 1, 1]
        run.run()
        scheduler.check()
        assert sorted(device.names("free")) == [*"abcd", "hangs"]


@pytest.mark.parametrize("seed", SEEDS)
def test_no_device_ends_all_timeouts(seed: int) -> None:
    with (
        Interleaving(seed) as run,
        Resetting() as device,
        Scheduler(device, name="s", credit_limit=3, timeout=TIMEOUT) as scheduler,
        Entity(scheduler) as entity,
    ):
        device.scheduler, device.status = scheduler, TimeoutStatus.NO_DEVICE
        assert push(entity, "hangs").finished.wait()
        left = push(entity, "left")
        assert not left.finished.wait(1)
        assert device.names("timeout") == ["hangs"]
        run.run()
        device.abort(left, errno.ENODEV)
        assert left.finished.error == errno.ENODEV


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_called_between_stop_and_start(seed: int) -> None:
    with mock_setup(seed, timeout=TIMEOUT) as mock, Entity(mock.scheduler) as entity:
        done, lost = push(entity, "done", duration=MS), push(entity, "lost")
        assert done.finished.wait()
        mock.scheduler.stop()
        log = list(mock.device.log)
        queued = push(entity, "queued", duration=MS)
        mock.run.advance(200 * MS)
        mock.settle()
        assert mock.device.log == log
        mock.scheduler.start(errno.ENODEV)
        assert lost.finished.status == -errno.ENODEV
        mock.device.abort(lost, errno.EIO)  # nobody listens any more
        assert queued.finished.wait()
        mock.settle()


@pytest.mark.parametrize("seed", SEEDS)
def test_stop_waits_for_the_callbacks(seed: int) -> None:
    inside: list[str] = []

    class Slow(MockDevice):
        def run_job(self, job: MockJob) -> Fence | None:
            inside.append(job.name)
            task.Waiter().wait(task.now() + 3 * MS)
            inside.remove(job.name)
            return super().run_job(job)

        def free_job(self, job: MockJob) -> None:
            inside.append(job.name)
            task.Waiter().wait(task.now() + 3 * MS)
            inside.remove(job.name)

    with (
        Interleaving(seed) as run,
        Slow() as device,
        Scheduler(device, name="s", credit_limit=1) as scheduler,
        Entity(scheduler) as entity,
    ):
        jobs = [push(entity, str(turn), duration=0) for turn in range(3)]
        for _ in range(4):
            task.Waiter().wait(task.now() + 2 * MS)
            scheduler.stop()
            assert inside == []
            run.advance(10 * MS)
            assert inside == []
            scheduler.start()
        assert jobs[-1].finished.wait()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_job_may_end_while_the_scheduler_is_stopped(seed: int) -> None:
    with mock_setup(seed) as mock, Entity(mock.scheduler) as entity:
        job = push(entity, "job")
        mock.settle()
        mock.scheduler.stop()
        done = Fence(fence_context_alloc(), 1)
        done.signal()
        job.parent = done
        mock.scheduler.start(errno.EIO)
        assert job.finished.status == -errno.EIO
        mock.device.advance()


@pytest.mark.parametrize("seed", range(scaled(30, 1000)))
def test_a_job_that_ends_in_the_moment_of_its_timeout_is_freed_once(seed: int) -> None:
    with mock_setup(seed, timeout=TIMEOUT) as mock, Entity(mock.scheduler) as entity:
        jobs = [push(entity, str(turn), duration=50 * MS) for turn in range(4)]
        assert jobs[-1].finished.wait()
        mock.settle()
        assert mock.device.names("free") == ["0", "1", "2", "3"]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_job_is_not_freed_while_the_driver_looks_at_it(seed: int) -> None:
    class Careful(MockDevice):
        def timedout_job(self, job: MockJob) -> TimeoutStatus:
            status = super().timedout_job(job)
            assert job.finished.signalled
            task.Waiter().wait(task.now() + MS)  # as long as the worker likes
            assert job.state is JobState.RUNNING
            return status

    with (
        Interleaving(seed) as run,
        Careful() as device,
        Scheduler(device, name="s", credit_limit=3, timeout=TIMEOUT) as scheduler,
        Entity(scheduler) as entity,
    ):
        job = push(entity, "job")
        assert job.finished.wait()
        assert not task.Waiter().wait(task.now() + 2 * MS)
        run.run()
        assert job.state is JobState.FREED
        assert device.names("free") == ["job"]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_job_times_out_even_if_run_job_hangs(seed: int) -> None:
    class Stuck(MockDevice):
        def run_job(self, job: MockJob) -> Fence | None:
            fence = super().run_job(job)
            if job.name == "next":
                assert not task.Waiter().wait(task.now() + 1000 * MS)
            return fence

    with (
        Interleaving(seed),
        Stuck() as device,
        Scheduler(device, name="s", credit_limit=3, timeout=TIMEOUT) as scheduler,
        Entity(scheduler) as entity,
    ):
        begin = task.now()
        hangs, stuck = push(entity, "hangs"), push(entity, "next", duration=0)
        assert hangs.finished.wait()
        assert task.now() - begin == 50 * MS
        assert hangs.finished.error == errno.ETIMEDOUT
        assert stuck.finished.wait()


@pytest.mark.parametrize("answer", [None, KeyError("driver bug")])
def test_bugs_of_timedout_job_are_told(answer: object, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)

    class Bad(MockDevice):
        def timedout_job(self, job: MockJob) -> TimeoutStatus:
            super().timedout_job(job)
            if isinstance(answer, BaseException):
                raise answer
            return answer  # type: ignore[return-value]

    device = Bad()
    with Scheduler(device, name="s", credit_limit=3, timeout=0.001) as scheduler, Entity(scheduler) as entity:
        assert push(entity, "hangs").finished.wait()
    assert len(told) == 1
    assert device.names("free") == ["hangs"]


# -- misuse


def test_stop_and_start_in_turn() -> None:
    with mock_setup(0) as mock:
        with pytest.raises(InvalidArgument, match="not stopped"):
            mock.scheduler.start()
        mock.scheduler.stop()
        with pytest.raises(Busy, match="stopped already"):
            mock.scheduler.stop()
        with pytest.raises(InvalidArgument, match="no errno"):
            mock.scheduler.start(-5)
        assert mock.scheduler.stopped
        mock.scheduler.start()
        mock.scheduler.fini()
        with pytest.raises(InvalidArgument, match="has ended"):
            mock.scheduler.stop()


@pytest.mark.parametrize("call", [Scheduler.stop, Scheduler.fini])
def test_callbacks_of_the_worker_must_not_wait_for_it(call: Callable[[Scheduler], None]) -> None:
    class Eager(MockDevice):
        scheduler: Scheduler

        def run_job(self, job: MockJob) -> Fence | None:
            call(self.scheduler)
            return None

    with (
        Interleaving(0),
        Eager() as device,
        Scheduler(device, name="s", credit_limit=3) as scheduler,
        Entity(scheduler) as entity,
    ):
        device.scheduler = scheduler
        job = push(entity)
        assert job.finished.wait()
        assert job.finished.error == errno.EINVAL


def test_timedout_job_must_not_end_the_scheduler() -> None:
    class Eager(MockDevice):
        scheduler: Scheduler

        def timedout_job(self, job: MockJob) -> TimeoutStatus:
            with pytest.raises(InvalidArgument, match="timedout_job"):
                self.scheduler.fini()
            return super().timedout_job(job)

    with (
        Interleaving(0),
        Eager() as device,
        Scheduler(device, name="s", credit_limit=3, timeout=TIMEOUT) as scheduler,
        Entity(scheduler) as entity,
    ):
        device.scheduler = scheduler
        assert push(entity).finished.wait()
