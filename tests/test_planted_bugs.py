"""The tester finds a bug of each kind within a stated number of seeds, and nothing in its correct twin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import pytest

from gpuvm.errors import LockdepError
from gpuvm.sync import lockdep, task
from gpuvm.sync.mutex import Mutex
from gpuvm.testing import Deadlock, Interleaving, Pct, Scenario, Strategy, explore, replay, sample
from interleaved import pause, pending_fence
from suite import scaled

Check = Callable[[], None]


# -- lost wake-up: looking and going to sleep are two steps


class Mailbox:
    """Who finds it empty sleeps until something is put in."""

    def __init__(self) -> None:
        self.mutex = Mutex("mailbox")
        self.items: list[int] = []
        self.sleepers: list[task.Waiter] = []

    def put(self, item: int) -> None:
        with self.mutex:
            self.items.append(item)
            sleepers, self.sleepers = self.sleepers, []
        for sleeper in sleepers:
            sleeper.wake()

    def get(self) -> int:
        while True:
            with self.mutex:
                if self.items:
                    return self.items.pop(0)
                waiter = task.Waiter()
                self.sleepers.append(waiter)
            waiter.wait()


class ForgetfulMailbox(Mailbox):
    def get(self) -> int:
        while True:
            with self.mutex:
                if self.items:
                    return self.items.pop(0)
            waiter = task.Waiter()
            with self.mutex:
                self.sleepers.append(waiter)  # something may have been put in since
            waiter.wait()


def mail_scene(make: Callable[[], Mailbox]) -> Scenario:
    def scene(run: Interleaving) -> Check:
        mailbox = make()

        def sender(first: int) -> None:
            for item in range(first, first + 3):
                mailbox.put(item)

        receivers = [run.spawn(lambda: [mailbox.get() for _ in range(3)]) for _ in range(2)]
        for first in (0, 10):
            run.spawn(sender, first)

        def check() -> None:
            got = sorted(item for receiver in receivers for item in receiver.result)
            assert got == [0, 1, 2, 10, 11, 12]

        return check

    return scene


# -- a wake-up for somebody who has given up


class Wasted(AssertionError):
    """A post let nobody go on."""


class Semaphore:
    """A post lets one waiter go on, or the next that comes."""

    def __init__(self) -> None:
        self.mutex = Mutex("semaphore")
        self.count = 0
        self.queue: list[task.Waiter] = []

    def post(self) -> None:
        with self.mutex:
            if not self.queue:
                self.count += 1
                return
            first = self.queue.pop(0)
        first.wake()

    def wait(self, timeout: float | None = None) -> bool:
        with self.mutex:
            if self.count:
                self.count -= 1
                return True
            waiter = task.Waiter()
            self.queue.append(waiter)
        if waiter.wait(task.deadline_after(timeout)):
            return True
        return self.give_up(waiter)

    def give_up(self, waiter: task.Waiter) -> bool:
        with self.mutex:
            if waiter in self.queue:
                self.queue.remove(waiter)
                return False
        return True  # posted in the last moment


class WastefulSemaphore(Semaphore):
    def give_up(self, waiter: task.Waiter) -> bool:
        with self.mutex:
            if waiter in self.queue:
                self.queue.remove(waiter)
        return False  # perhaps with a post that was meant for it


def post_scene(make: Callable[[], Semaphore]) -> Scenario:
    def scene(run: Interleaving) -> Check:
        semaphore = make()

        def post_late() -> None:
            task.Waiter().wait(task.deadline_after(1.0))
            semaphore.post()

        hasty = run.spawn(semaphore.wait, 1.0)
        run.spawn(post_late)

        def check() -> None:
            if int(hasty.result) + semaphore.count != 1:
                raise Wasted

        return check

    return scene


# -- lock inversion


def transfer_scene(sort: bool) -> Scenario:
    def scene(run: Interleaving) -> Check:
        mutexes = [Mutex(f"account {index}") for index in range(3)]
        accounts = [5, 5, 5]

        def transfer(source: int, target: int) -> None:
            first, second = sorted((source, target)) if sort else (source, target)
            with mutexes[first], mutexes[second]:
                accounts[source] -= 1
                accounts[target] += 1

        for source in range(3):
            run.spawn(transfer, source, (source + 1) % 3)

        def check() -> None:
            assert accounts == [5, 5, 5]

        return check

    return scene


# -- missed signal: a callback that comes while its fence is signalled is neither called nor refused


class Missed(AssertionError):
    """A callback was neither called nor refused."""


class Signals(Protocol):
    def signal(self) -> None: ...
    def add_callback(self, callback: Callable[[object], object]) -> bool: ...
    def wait(self) -> bool: ...


class DeafFence:
    def __init__(self) -> None:
        self.mutex = Mutex("fence")
        self.signalled = False
        self.callbacks: list[Callable[[object], object]] = []

    def signal(self) -> None:
        with self.mutex:
            self.signalled = True
            callbacks, self.callbacks = self.callbacks, []
        for callback in callbacks:
            callback(self)

    def add_callback(self, callback: Callable[[object], object]) -> bool:
        if self.signalled:
            return False
        with self.mutex:
            self.callbacks.append(callback)  # it may have been signalled since
        return True

    def wait(self) -> bool:
        waiter = task.Waiter()
        return not self.add_callback(lambda _fence: waiter.wake()) or waiter.wait()


def callback_scene(make: Callable[[], Signals]) -> Scenario:
    def scene(run: Interleaving) -> Check:
        fence = make()
        called: list[int] = []

        def add(number: int) -> bool:
            return fence.add_callback(lambda _fence: called.append(number))

        added = [run.spawn(add, number) for number in range(3)]
        run.spawn(fence.signal)

        def check() -> None:
            accepted = [number for number, thread in enumerate(added) if thread.result]
            if sorted(called) != accepted:
                raise Missed

        return check

    return scene


def wait_scene(make: Callable[[], Signals]) -> Scenario:
    def scene(run: Interleaving) -> None:
        fence = make()
        for _ in range(2):
            run.spawn(fence.wait)
        run.spawn(fence.signal)

    return scene


# -- use after put: looking up and taking a reference are two steps


class Freed(AssertionError):
    """It was used without a reference."""


class Counted:
    def __init__(self) -> None:
        self.references = 1

    def get(self) -> None:
        if self.references == 0:
            raise Freed("get after the last put")
        self.references += 1

    def use(self) -> None:
        if self.references == 0:
            raise Freed("use after the last put")


class Table:
    """Handles of counted objects; the table has one reference to each."""

    def __init__(self) -> None:
        self.mutex = Mutex("table")
        self.objects = {1: Counted()}

    def lookup(self, handle: int) -> Counted | None:
        with self.mutex:
            found = self.objects.get(handle)
            if found is not None:
                found.get()
            return found

    def put(self, counted: Counted) -> None:
        with self.mutex:
            counted.references -= 1

    def close(self, handle: int) -> None:
        with self.mutex:
            counted = self.objects.pop(handle)
        self.put(counted)


class HastyTable(Table):
    def lookup(self, handle: int) -> Counted | None:
        with self.mutex:
            found = self.objects.get(handle)
        if found is not None:
            found.get()  # the table's reference may be gone
        return found


def table_scene(make: Callable[[], Table]) -> Scenario:
    def scene(run: Interleaving) -> None:
        table = make()

        def user() -> None:
            found = table.lookup(1)
            if found is not None:
                pause()
                found.use()
                table.put(found)

        run.spawn(user)
        run.spawn(user)
        run.spawn(table.close, 1)

    return scene


# -- how many seeds


@dataclass(frozen=True)
class Plant:
    """A bug, its correct twin, and how much looking finds it from whatever seed one begins."""

    name: str
    broken: Scenario
    fixed: Scenario
    shows_as: type[BaseException]
    walks: int
    """Seeds of RandomWalk."""
    pcts: int
    """Seeds of Pct with depth 3 and as many steps as a run has choices."""
    schedules: int
    """Schedules of explore."""


PLANTS = [
    Plant("lost wake-up", mail_scene(ForgetfulMailbox), mail_scene(Mailbox), Deadlock, 80, 80, 300),
    Plant("wasted wake-up", post_scene(WastefulSemaphore), post_scene(Semaphore), Wasted, 40, 100, 20),
    Plant("lock inversion", transfer_scene(sort=False), transfer_scene(sort=True), Deadlock, 60, 250, 60),
    Plant("missed callback", callback_scene(DeafFence), callback_scene(pending_fence), Missed, 40, 100, 50),
    Plant("missed signal", wait_scene(DeafFence), wait_scene(pending_fence), Deadlock, 40, 150, 30),
    Plant("use after put", table_scene(HastyTable), table_scene(Table), Freed, 150, 150, 30),
]

plants = pytest.mark.parametrize("plant", PLANTS, ids=[plant.name for plant in PLANTS])
beginnings = pytest.mark.parametrize("first", [1000 * number for number in range(scaled(3, 40))])


@pytest.fixture(autouse=True)
def without_validator(lock_validator: None) -> None:
    """It would find the inversion before it becomes a deadlock."""
    lockdep.disable()


def pct(plant: Plant) -> Callable[[int], Strategy]:
    steps = sample(plant.fixed, range(20)).choices
    return lambda seed: Pct(seed, depth=3, steps=steps)


@plants
@beginnings
def test_a_random_walk_finds_it(plant: Plant, first: int) -> None:
    with pytest.raises(plant.shows_as):
        sample(plant.broken, range(first, first + plant.walks))


@plants
@beginnings
def test_pct_finds_it(plant: Plant, first: int) -> None:
    with pytest.raises(plant.shows_as):
        sample(plant.broken, range(first, first + plant.pcts), pct(plant))


@plants
def test_exploring_finds_it_with_one_preemption(plant: Plant) -> None:
    assert explore(plant.broken, preemptions=0).complete
    with pytest.raises(plant.shows_as):
        explore(plant.broken, preemptions=1, limit=plant.schedules)


@plants
@beginnings
def test_the_twin_is_clean_for_the_same_seeds(plant: Plant, first: int) -> None:
    sample(plant.fixed, range(first, first + plant.walks))
    sample(plant.fixed, range(first, first + plant.pcts), pct(plant))


@plants
def test_the_twin_is_clean_under_all_schedules(plant: Plant) -> None:
    explored = explore(plant.fixed, preemptions=scaled(1, 2), limit=scaled(1000, 20_000))
    assert explored.complete or explored.schedules >= 1000


def test_the_validator_finds_the_inversion_under_any_schedule() -> None:
    lockdep.enable()
    for seed in range(scaled(30, 1000)):
        with pytest.raises(LockdepError, match="account"):
            replay(transfer_scene(sort=False), seed)
    sample(transfer_scene(sort=True), range(scaled(30, 1000)))
