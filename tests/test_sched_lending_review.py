"""Ctrl-C, or a stack without room, where a job is pushed or waited for: none is lost, and the next runs."""

from __future__ import annotations

import errno
import gc
import sys
import time
from _thread import get_ident
from collections.abc import Callable, Iterator
from threading import Thread

import pytest

from gpuvm.sched import Entity, Job, JobState, Scheduler, SchedulerBackend
from gpuvm.sync import lockdep
from gpuvm.sync.container import FenceArray, FenceChain
from gpuvm.sync.fence import Fence
from interleaved import pending_fence
from interrupts import Interrupt
from mock_jobs import armed

PATIENCE = 20.0

CALLS: tuple[Callable[[Job], None], ...] = (Job.push, Job.push_and_wait)


@pytest.fixture(autouse=True)
def without_validator(lock_validator: None) -> None:
    lockdep.disable()


@pytest.fixture(autouse=True)
def without_collector() -> Iterator[None]:
    """The place that is interrupted must not be in what it happens to call."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class Hardware(SchedulerBackend[Job]):
    """It is done at once, unless `act` says otherwise."""

    def __init__(self) -> None:
        self.act: Callable[[], Fence | None] = lambda: None
        self.at_free: Callable[[], object] = lambda: None
        self.ran: list[Job] = []
        self.freed: list[Job] = []

    def run_job(self, job: Job) -> Fence | None:
        self.ran.append(job)
        return self.act()

    def free_job(self, job: Job) -> None:
        self.freed.append(job)
        self.at_free()


class Asking(Hardware):
    def prepare_job(self, job: Job) -> Fence | None:
        return None


class Place:
    """A scheduler where a job is to be pushed, with an interrupt at a place of the call."""

    def __init__(self, backend: Hardware | None = None) -> None:
        self.backend = Hardware() if backend is None else backend
        self.scheduler = Scheduler(self.backend, name="s", credit_limit=1)
        self.entity = Entity(self.scheduler)
        self.release: Callable[[], object] = lambda: None
        """What the job waits for comes."""

    def interrupt(self, job: Job, call: Callable[[Job], None], place: int) -> bool:
        """False if the call has not so many places. Afterwards it is ARMED, or as if nothing had been."""
        releasing = Thread(target=self._release_when_pushed, args=(job,))
        releasing.start()
        with Interrupt(place) as interrupt:
            call(job)
        if job.state is JobState.ARMED:
            job.push()
        assert job.finished.wait(PATIENCE), f"place {place}: {job}"
        releasing.join()
        return interrupt.came

    def _release_when_pushed(self, job: Job) -> None:
        while job.state is JobState.ARMED:
            time.sleep(0.0002)
        self.release()

    def end(self, *jobs: Job) -> None:
        """All of them are done and freed, and one more."""
        if not self.entity.stopped:
            jobs = (*jobs, armed(self.entity))
            jobs[-1].push()
        assert all(job.finished.wait(PATIENCE) for job in jobs)
        self.entity.destroy()
        self.scheduler.fini(PATIENCE)
        assert sorted(map(id, self.backend.freed)) == sorted(map(id, jobs))
        worker = self.scheduler._worker
        assert (worker.post.holder, worker.run_lock.locked, worker.free_lock.locked) == ({}, False, False)
        self.scheduler.check()


Setting = Callable[[], tuple[Place, list[Job]]]


def with_a_dependency() -> tuple[Place, list[Job]]:
    here, gate = Place(), pending_fence()
    here.release = gate.signal
    return here, [armed(here.entity, gate)]


def behind_another() -> tuple[Place, list[Job]]:
    here, gate = Place(), pending_fence()
    here.release = gate.signal
    first = armed(here.entity, gate)
    first.push()
    return here, [armed(here.entity), first]


def before_another() -> tuple[Place, list[Job]]:
    here = Place()
    jobs = [armed(here.entity), armed(here.entity)]
    jobs[1].push()
    return here, jobs


def stopped() -> tuple[Place, list[Job]]:
    here = Place()
    here.scheduler.stop()
    here.release = here.scheduler.start
    return here, [armed(here.entity)]


def killed() -> tuple[Place, list[Job]]:
    here = Place()
    job = armed(here.entity)
    here.entity.kill()
    return here, [job]


def asked_for() -> tuple[Place, list[Job]]:
    here = Place(Asking())
    return here, [armed(here.entity)]


def without_credits() -> tuple[Place, list[Job]]:
    here, hardware = Place(), pending_fence()
    here.backend.act = lambda: hardware
    here.release = hardware.signal
    first = armed(here.entity)
    first.push()
    assert first.scheduled.wait(PATIENCE)
    here.backend.act = lambda: None
    return here, [armed(here.entity), first]


SETTINGS = (
    with_a_dependency,
    behind_another,
    before_another,
    stopped,
    killed,
    asked_for,
    without_credits,
)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("setting", SETTINGS)
def test_an_interrupt_while_it_is_pushed(setting: Setting, call: Callable[[Job], None]) -> None:
    place, came = 0, True
    while came:
        here, jobs = setting()
        came = here.interrupt(jobs[0], call, place)
        here.end(*jobs)
        place += 1
    assert place > 3


def chain(job: Job) -> Fence:
    return FenceChain(None, job.finished, 1)


DEPENDENCIES: tuple[Callable[[Job], Fence], ...] = (
    lambda job: job.scheduled,
    lambda job: job.finished,
    lambda job: FenceArray([job.scheduled, job.finished]),
    chain,
)


@pytest.mark.parametrize("dependency", DEPENDENCIES, ids=["scheduled", "finished", "array", "chain"])
def test_an_interrupt_keeps_no_other_job_waiting(dependency: Callable[[Job], Fence]) -> None:
    """That job is told by a callback in the thread that is interrupted."""
    place, came = 0, True
    while came:
        here = Place()
        with Entity(here.scheduler) as other:
            job = armed(here.entity)
            waits = armed(other, dependency(job))
            waits.push()
            while here.scheduler._worker.queue.entities:
                time.sleep(0.0002)
            came = here.interrupt(job, Job.push_and_wait, place)
            assert waits.finished.wait(PATIENCE), f"place {place}: {waits}"
        here.end(job, waits)
        place += 1


class Contended(Place):
    """Another thread wants to stop the scheduler, and waits for the callback to return."""

    def __init__(self, which: str) -> None:
        super().__init__()
        worker = self.scheduler._worker
        self.lock = worker.run_lock if which == "run_job" else worker.free_lock
        self.thread: Thread | None = None
        if which == "run_job":
            self.backend.act = self._contend
        else:
            self.backend.at_free = self._contend

    def _contend(self) -> None:
        if self.thread is None:
            thread = Thread(target=self._stop_and_start, daemon=True)
            thread.start()
            self.thread = thread
            while not self.lock.waiters:
                time.sleep(0.0002)

    def _stop_and_start(self) -> None:
        self.scheduler.stop()
        self.scheduler.start()


@pytest.mark.parametrize("which", ["run_job", "free_job"])
def test_an_interrupt_while_a_lock_has_to_be_passed_on(which: str) -> None:
    place, came = 0, True
    while came:
        here = Contended(which)
        job = armed(here.entity)
        came = here.interrupt(job, Job.push_and_wait, place)
        here.backend.act = lambda: None
        while which == "free_job" and here.thread is None:  # perhaps it is the worker that frees it
            time.sleep(0.0002)
        if here.thread is not None:
            here.thread.join(PATIENCE)
            assert not here.thread.is_alive(), f"place {place}"
        here.end(job)
        place += 1


def test_an_interrupt_under_the_validator() -> None:
    """What it knows of that thread may be torn; the scheduler is not."""
    lockdep.enable()
    place, came = 0, [True]
    while came.pop():
        here = Place()
        job = armed(here.entity)

        def wait(here: Place = here, job: Job = job, place: int = place) -> None:
            came.append(here.interrupt(job, Job.push_and_wait, place))

        thread = Thread(target=wait)
        thread.start()
        thread.join()
        here.end(job)
        place += 1


# -- the stack


def at_the_end_of_the_stack(room: int, call: Callable[[], object]) -> None:
    """Call it where so many levels are left."""

    def down(levels: int) -> None:
        if levels:
            down(levels - 1)
        else:
            call()

    depth, frame = 1, sys._getframe()
    while frame.f_back is not None:
        depth, frame = depth + 1, frame.f_back
    down(sys.getrecursionlimit() - depth - room)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("watched", [False, True])
def test_a_stack_without_room(watched: bool, call: Callable[[Job], None]) -> None:
    """Then nothing is done; otherwise all of it."""
    refused = 0
    for room in range(2, 50):
        here = Place()
        job = armed(here.entity)
        if watched:
            for fence in job.scheduled, job.finished:
                fence.add_callback(lambda _: None)
        try:
            at_the_end_of_the_stack(room, lambda job=job: call(job))  # type: ignore[misc]
        except RecursionError:
            refused += 1
            assert job.state is JobState.ARMED, f"room for {room}"
            job.push()
        assert job.scheduled.wait(PATIENCE), f"room for {room}"
        here.end(job)
        assert job.finished.error in (0, errno.EIO)
    assert refused > 3


# -- the rest


def test_a_job_that_was_lent_waits_for_nothing() -> None:
    here, gate = Place(), pending_fence()
    job = armed(here.entity, gate)
    gate.signal()
    job.push_and_wait()
    assert here.backend.ran == [job]
    assert (job.dependencies, job.statistics().dependencies) == ((), 0)
    here.end(job)


def test_a_dependency_that_fails_to_look() -> None:
    """Who looks gets what it raises; the job is pushed."""

    class Broken(Fence):
        failing = False

        def poll(self) -> bool:
            if self.failing and get_ident() == me:
                raise KeyError("poll")
            return False

    me = get_ident()
    here, gate = Place(), Broken(pending_fence().context, 1)
    job = armed(here.entity, gate)
    Broken.failing = True
    with pytest.raises(KeyError):
        job.push_and_wait()
    Broken.failing = False
    gate.signal()
    here.end(job)
