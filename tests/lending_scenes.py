"""Threads that wait for their jobs by `push_and_wait`, and others that get in between."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from gpuvm.errors import Busy, NotFound
from gpuvm.sched import Entity, Job, JobState, Scheduler, SchedulerBackend, TimeoutStatus
from gpuvm.sync import task
from gpuvm.sync.fence import Fence
from gpuvm.testing import Interleaving
from interleaved import pause, pending_fence, sleep_until

Check = Callable[[], None]


class OneAtATime(SchedulerBackend[Job]):
    """Its callbacks are long, and are never inside each other. The hardware is done at once, or when told."""

    def __init__(self, *, late: bool = False) -> None:
        self.late = late
        self.inside: Job | None = None
        self.ran: list[Job] = []
        self.freed: list[Job] = []
        self.hardware: dict[Job, Fence] = {}

    def run_job(self, job: Job) -> Fence | None:
        self._call(job, self.ran)
        if not self.late:
            return None
        fence = self.hardware[job] = pending_fence()
        return fence

    def free_job(self, job: Job) -> None:
        assert job.finished.signalled
        self._call(job, self.freed)

    def timedout_job(self, job: Job) -> TimeoutStatus:
        raise AssertionError(f"{job} timed out")

    def cancel_job(self, job: Job) -> None: ...

    def _call(self, job: Job, log: list[Job]) -> None:
        assert self.inside is None, f"{job} while {self.inside} is inside"
        self.inside = job
        pause()
        self.inside = None
        log.append(job)


@dataclass
class Scene:
    """A scheduler whose worker sleeps, with jobs that are armed."""

    run: Interleaving
    backend: OneAtATime = field(default_factory=OneAtATime)
    timeout: float | None = None
    jobs: list[Job] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.scheduler = Scheduler(self.backend, name="s", credit_limit=1, timeout=self.timeout)
        self.run.run()

    def entity(self) -> Entity:
        return Entity(self.scheduler)

    def arm(self, entity: Entity) -> Job:
        job = Job(entity)
        job.arm()
        self.jobs.append(job)
        return job

    def wait_for(self, job: Job) -> None:
        """What the threads that lend themselves do."""
        job.push_and_wait()
        assert job.finished.signalled

    def check(self) -> None:
        """All jobs are done and freed once, those of an entity in order, and everybody has let go."""
        self.scheduler.check()
        for job in self.jobs:
            assert job.finished.signalled
            assert job.state is JobState.FREED
        ran = [job for job in self.jobs if job.finished.error != errno.ESRCH]
        assert Counter(self.backend.ran) == Counter(ran)
        assert Counter(self.backend.freed) == Counter(self.jobs)
        for entity in {job.entity for job in self.jobs}:
            places = [job.finished.seqno for job in self.backend.ran if job.entity is entity]
            assert places == sorted(places)
        worker = self.scheduler._worker
        assert (worker.post.holder, worker.run_lock.locked, worker.free_lock.locked) == ({}, False, False)

    def end(self) -> None:
        self.check()
        for entity in self.scheduler.entities:
            entity.destroy()
        if not self.scheduler._worker.closing:
            self.scheduler.fini()
        self.check()


def two_waiters_and_a_pusher(run: Interleaving) -> Check:
    scene = Scene(run)
    for _ in range(2):
        run.spawn(scene.wait_for, scene.arm(scene.entity()))
    run.spawn(scene.arm(scene.entity()).push)
    return scene.end


def waiters_of_one_entity(run: Interleaving) -> Check:
    scene = Scene(run)
    entity = scene.entity()
    for _ in range(2):
        run.spawn(scene.wait_for, scene.arm(entity))
    run.spawn(scene.arm(entity).push)
    return scene.end


def waiter_and_kill(run: Interleaving) -> Check:
    """After `kill` no callback that runs a job is inside."""
    scene = Scene(run)
    entity = scene.entity()

    def kill() -> None:
        entity.kill()
        inside = scene.backend.inside
        assert inside is None or inside.finished.signalled

    run.spawn(scene.wait_for, scene.arm(entity))
    run.spawn(kill)
    return scene.end


def waiter_and_stop(run: Interleaving) -> Check:
    """Nothing is called between `stop` and `start`."""
    scene = Scene(run)

    def reset() -> None:
        backend = scene.backend
        scene.scheduler.stop()
        before = len(backend.ran), len(backend.freed)
        for _ in range(3):
            assert backend.inside is None
            pause()
        assert (len(backend.ran), len(backend.freed)) == before
        scene.scheduler.start()

    run.spawn(scene.wait_for, scene.arm(scene.entity()))
    run.spawn(reset)
    return scene.end


def waiter_and_fini(run: Interleaving) -> Check:
    """The end comes as soon as the job is done, perhaps while it is freed."""
    scene = Scene(run)
    entity = scene.entity()
    job = scene.arm(entity)

    def end() -> None:
        job.finished.wait()
        entity.destroy()
        scene.scheduler.fini()
        scene.check()

    run.spawn(scene.wait_for, job)
    run.spawn(end)
    return scene.end


def waiter_and_early_end(run: Interleaving) -> Check:
    """The end comes whenever the entity lets it."""
    scene = Scene(run)
    entity = scene.entity()

    def end() -> None:
        with suppress(Busy):  # it is armed and not pushed
            entity.destroy(0)
            scene.scheduler.fini()

    run.spawn(scene.wait_for, scene.arm(entity))
    run.spawn(end)
    return scene.end


def waiter_and_late_hardware(run: Interleaving) -> Check:
    scene = Scene(run, OneAtATime(late=True), timeout=1.0)
    jobs = [scene.arm(scene.entity()) for _ in range(2)]

    def execute() -> None:
        for count in range(1, 1 + len(jobs)):
            while len(scene.backend.hardware) < count:
                sleep_until(task.now() + 1000)
            list(scene.backend.hardware.values())[-1].signal()

    for job in jobs:
        run.spawn(scene.wait_for, job)
    run.spawn(execute)
    return scene.end


def waiter_with_a_dependency(run: Interleaving) -> Check:
    scene = Scene(run)
    gate = pending_fence()
    job = Job(scene.entity())
    job.add_dependency(gate)
    job.arm()
    scene.jobs.append(job)
    run.spawn(scene.wait_for, job)
    run.spawn(gate.signal)
    return scene.end


def waiter_and_another_armed(run: Interleaving) -> Check:
    """The second is armed before, or behind, and must not be lost behind the first."""
    scene = Scene(run)
    entity = scene.entity()

    def push_another() -> None:
        with suppress(NotFound):
            scene.arm(entity).push()

    run.spawn(scene.wait_for, scene.arm(entity))
    run.spawn(push_another)
    return scene.end


SCENES = (
    two_waiters_and_a_pusher,
    waiters_of_one_entity,
    waiter_and_kill,
    waiter_and_stop,
    waiter_and_fini,
    waiter_and_early_end,
    waiter_and_late_hardware,
    waiter_with_a_dependency,
    waiter_and_another_armed,
)
