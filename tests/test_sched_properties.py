"""Random graphs of jobs on several schedulers under random interleavings: what must hold of a job holds."""

from __future__ import annotations

import errno
from collections import Counter
from contextlib import ExitStack
from random import Random

import pytest

from gpuvm.errors import Busy, NotFound
from gpuvm.sched import Entity, JobState, Policy, Priority, Scheduler
from gpuvm.sync.fence import Fence, fence_context_alloc
from gpuvm.testing import Interleaving
from gpuvm.testing.mock_device import MockDevice, MockJob
from mock_jobs import MS
from suite import scaled

LIMIT = 4
QUEUES = 3
SEEDS_AT_ONCE = 10


class Watched(MockDevice):
    """Checks each job when it gets it, and counts credits by itself."""

    def __init__(self, world: World, in_order: bool) -> None:
        super().__init__(1 if in_order else QUEUES)
        self.world = world
        self.in_order = in_order
        self.credits_used = 0

    def run_job(self, job: MockJob) -> Fence | None:
        self.credits_used += job.credits
        assert self.credits_used <= LIMIT
        for fence in self.world.after[job]:
            before = self.world.of_finished.get(fence)
            assert fence.signalled or (
                self.in_order and before is not None and before.name in self.names("run")
            ), f"{job} runs before {fence}"
        return super().run_job(job)

    def free_job(self, job: MockJob) -> None:
        assert job.finished.signalled
        if job.finished.error != errno.ESRCH:
            self.credits_used -= job.credits
        super().free_job(job)


class World:
    """Devices, schedulers, entities; threads that push, kill and change their mind."""

    def __init__(self, seed: int, stack: ExitStack) -> None:
        self.dice = Random(seed)
        self.run = stack.enter_context(Interleaving(seed))
        self.after: dict[MockJob, list[Fence]] = {}
        self.of_finished: dict[Fence, MockJob] = {}
        self.jobs: dict[Entity, list[MockJob]] = {}
        self.signalled: list[Fence] = []
        self.gates = [Fence(fence_context_alloc(), 1) for _ in range(3)]
        self.devices: list[Watched] = []
        self.schedulers: list[Scheduler] = []
        for number in range(self.dice.randint(1, 3)):
            in_order = self.dice.random() < 0.5
            device = stack.enter_context(Watched(self, in_order))
            self.devices.append(device)
            scheduler = Scheduler(
                device,
                name=f"s{number}",
                credit_limit=LIMIT,
                timeout=self.dice.choice([None, 1.0]),
                policy=self.dice.choice(list(Policy)),
                in_order=in_order,
            )
            self.schedulers.append(scheduler)
        for _ in range(self.dice.randint(1, 4)):
            self.jobs[self._entity()] = []

    def _entity(self) -> Entity:
        if self.dice.random() < 0.3:
            one_kind = [s for s in self.schedulers if s.in_order == self.schedulers[0].in_order]
            return Entity(*one_kind, priority=self._priority())
        return Entity(self.dice.choice(self.schedulers), priority=self._priority())

    def _priority(self) -> Priority:
        return self.dice.choice(list(Priority))

    # -- what the threads do

    def push_some(self) -> None:
        for _ in range(self.dice.randint(1, 8)):
            entity = self.dice.choice(list(self.jobs))
            try:
                self.push(entity)
            except NotFound:
                assert entity.stopped

    def push(self, entity: Entity) -> None:
        dice = self.dice
        queues = 1 if entity.scheduler.in_order else QUEUES
        job = MockJob(
            entity,
            str(len(self.after)),
            duration=dice.choice([0, 0, MS, 2 * MS, 5 * MS]),
            queue=dice.randrange(queues),
            credits=dice.randint(1, LIMIT),
        )
        known = list(self.of_finished)
        after = [dice.choice(known) for _ in range(dice.randint(0, 3)) if known]
        if dice.random() < 0.2:
            after.append(dice.choice(self.gates))
        self.after[job] = after
        for fence in after:
            job.add_dependency(fence)
        job.arm()
        self.jobs[entity].append(job)
        self.jobs[entity].sort(key=lambda job: job.finished.seqno)
        self.of_finished[job.finished] = job
        assert job.finished.add_callback(self.note)
        if dice.random() < 0.3:
            job.push_and_wait()
        else:
            job.push()

    def note(self, fence: Fence) -> None:
        """Whatever became of the job, what it depended on is signalled, and the job before it."""
        job = self.of_finished[fence]
        assert all(before.signalled for before in self.after[job])
        assert job.scheduled.signalled
        mine = self.jobs[job.entity]
        place = mine.index(job)
        assert place == 0 or mine[place - 1].finished.signalled
        self.signalled.append(fence)

    def open_gates(self) -> None:
        for gate in self.gates:
            gate.signal()

    def disturb(self) -> None:
        for _ in range(self.dice.randint(0, 4)):
            entity = self.dice.choice(list(self.jobs))
            match self.dice.randrange(5):
                case 0:
                    entity.priority = self._priority()
                case 1:
                    entity.flush(0.002)
                case 2:
                    entity.kill()
                case 3:
                    for scheduler in self.schedulers:
                        scheduler.check()
                case 4:
                    self.reset(self.dice.choice(self.schedulers))

    def reset(self, scheduler: Scheduler) -> None:
        """Stop and start as after a reset that has lost nothing."""
        try:
            scheduler.stop()
        except Busy:
            return  # another thread is at it
        for job in scheduler.in_flight:
            assert isinstance(job, MockJob)
            job.parent = job.hardware_fence or job.parent
        scheduler.start(errno.EIO)

    # -- what must hold

    def play(self) -> None:
        for _ in range(self.dice.randint(1, 4)):
            self.run.spawn(self.push_some)
        self.run.spawn(self.disturb)
        self.run.spawn(self.open_gates)
        self.run.run()
        for fence in self.of_finished:
            assert fence.wait(100)
        for entity in self.jobs:
            entity.destroy(self.dice.choice([0, 1]))
        for scheduler in self.schedulers:
            scheduler.fini()

    def check(self) -> None:
        assert Counter(self.signalled) == Counter(list(self.of_finished))
        ran = Counter(name for device in self.devices for name in device.names("run"))
        freed = Counter(name for device in self.devices for name in device.names("free"))
        for entity, jobs in self.jobs.items():
            entity.check()
            for job in jobs:
                killed = job.finished.error == errno.ESRCH
                assert job.state is JobState.FREED
                assert ran[job.name] == (0 if killed else 1)
                assert freed[job.name] == 1
                if not killed:
                    self.check_times(job)
            names = [job.name for job in jobs if ran[job.name]]
            assert names == [job.name for job in jobs][: len(names)]
            orders = [job.order for job in jobs if ran[job.name]]
            assert len(entity.schedulers) > 1 or orders == sorted(orders)
        for scheduler, device in zip(self.schedulers, self.devices, strict=True):
            scheduler.check()
            device.check()
            assert device.credits_used == 0
            left = scheduler.statistics()
            assert (left.entities, left.queued, left.in_flight, left.killed, left.credits_used) == (0,) * 5

    def check_times(self, job: MockJob) -> None:
        """By the clock, the hardware began it after all that it depended on was done."""
        if job.finished.error or job.parent is None or job.parent.timestamp is None:
            return
        begun = job.parent.timestamp - (job.duration or 0)
        for fence in self.after[job]:
            assert fence.timestamp is not None
            assert fence.timestamp <= begun


@pytest.mark.parametrize("first", range(0, scaled(50, 2000), SEEDS_AT_ONCE))
def test_random_graphs(first: int) -> None:
    for seed in range(first, first + SEEDS_AT_ONCE):
        try:
            with ExitStack() as stack:
                world = World(seed, stack)
                world.play()
                world.check()
        except BaseException as failure:
            failure.add_note(f"seed {seed}")
            raise
