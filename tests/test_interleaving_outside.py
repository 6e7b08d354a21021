"""The controlled scheduler and what it does not control: other threads, finalizers, signals."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence

import pytest

from gpuvm.sync import task
from gpuvm.sync.mutex import Mutex
from gpuvm.testing import Interleaving, RandomWalk, replay
from interleaved import pause, pending_fence, waits_for_ever
from suite import scaled


def test_other_threads_use_the_primitives_as_ever() -> None:
    fence, mutex = pending_fence(), Mutex("m")
    outside: list[object] = []

    def stranger() -> None:
        with mutex:
            outside.append(fence.wait(0.0))
        outside.append(fence.wait())
        pause()

    def signals() -> None:
        with mutex:
            fence.signal()

    with Interleaving(1) as run:
        thread = threading.Thread(target=stranger)
        thread.start()
        while len(outside) < 1:
            pass
        run.spawn(signals)
        run.run()
        thread.join()
    assert outside == [False, True]


class Dropped:
    """Wakes, yields and looks at a mutex when it is dropped."""

    def __init__(self, waiter: task.Waiter, mutex: Mutex) -> None:
        self.waiter, self.mutex = waiter, mutex

    def __del__(self) -> None:
        self.waiter.wake()
        pause()
        if self.mutex.trylock():
            self.mutex.unlock()


class Dropping:
    """Drops objects in the middle of choosing."""

    def __init__(self, seed: int) -> None:
        self.walk = RandomWalk(seed)
        self.drops: list[Dropped] = []

    def begin(self) -> None:
        self.walk.begin()

    def choose(self, ready: Sequence[int], running: int | None) -> int:
        chosen = self.walk.choose(ready, running)
        if self.drops:
            self.drops.pop()
        return chosen


def test_a_finalizer_inside_the_scheduler_does_no_harm() -> None:
    for seed in range(scaled(50, 1000)):
        strategy = Dropping(seed)
        with Interleaving(strategy) as run:
            mutex = Mutex("m")
            woken: list[int] = []

            def sleeper(number: int) -> None:
                waiter = task.Waiter()
                strategy.drops.append(Dropped(waiter, mutex))  # noqa: B023
                waiter.wait()
                woken.append(number)  # noqa: B023

            def works() -> None:
                for _ in range(40):
                    with mutex:  # noqa: B023
                        pass

            for number in range(3):
                run.spawn(sleeper, number)
                run.spawn(works)
            run.run()
            run.check()
            mutex.check()
            assert sorted(woken) == [0, 1, 2], f"seed {seed}"


class Torn(Exception):
    """What the handler of the signal raises."""


@pytest.fixture
def handled() -> Iterator[None]:
    def handler(_number: int, _frame: object) -> None:
        raise Torn

    before = signal.signal(signal.SIGUSR1, handler)
    yield
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.usefixtures("handled")
def test_a_signal_may_tear_the_owner_out_of_its_sleep() -> None:
    owner = threading.get_ident()
    ended = []

    def works() -> None:
        try:
            for _ in range(100):
                os.sched_yield()  # the owner falls asleep; the interpreter looks at signals when it wakes
            signal.pthread_kill(owner, signal.SIGUSR1)
            while True:
                pause()
        finally:
            ended.append(1)

    def scene(run: Interleaving) -> None:
        run.spawn(works)
        waits_for_ever(run)

    with pytest.raises(Torn):
        replay(scene, 1)
    assert ended == [1]
    assert task.preempt is None
