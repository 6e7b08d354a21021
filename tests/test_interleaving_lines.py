"""Threads that change between any two lines: what that finds, and that raw guards still guard."""

from __future__ import annotations

import sys
from _thread import allocate_lock
from collections.abc import Callable
from typing import Any

import pytest

from gpuvm.errors import Interrupted
from gpuvm.sync import callbacks, completion, fence_wait, task
from gpuvm.sync import fence as fence_module
from gpuvm.sync import mutex as mutex_module
from gpuvm.sync.mutex import Mutex
from gpuvm.testing import (
    Deadlock,
    Interleaving,
    Pct,
    RandomWalk,
    Replay,
    Scenario,
    Strategy,
    Stuck,
    explore,
    replay,
    sample,
)
from interleaved import pause, pending_fence
from suite import scaled

HERE = sys.modules[__name__]
MAKERS: list[Callable[[int], Strategy]] = [RandomWalk, lambda seed: Pct(seed, depth=4, steps=300)]


class Counter:
    def __init__(self) -> None:
        self.value = 0
        self.guard = allocate_lock()

    def add(self) -> None:
        seen = self.value
        self.value = seen + 1

    def add_guarded(self) -> None:
        with self.guard:
            seen = self.value
            self.value = seen + 1

    def add_and_return(self) -> int:
        with self.guard:
            seen = self.value
            self.value = seen + 1
            return seen

    def add_and_raise(self) -> None:
        try:
            with self.guard:
                seen = self.value
                self.value = seen + 1
                raise KeyError(seen)
        except KeyError:
            pass


def counter_scene(method: Callable[[Counter], object], lines: bool = True) -> Scenario:
    def scene(run: Interleaving) -> Callable[[], None]:
        if lines:
            run.step_lines(HERE)
        counter = Counter()
        for _ in range(2):
            run.spawn(method, counter)

        def check() -> None:
            assert counter.value == 2
            assert not counter.guard.locked()

        return check

    return scene


def test_a_race_between_lines_is_found() -> None:
    explore(counter_scene(Counter.add, lines=False), None)
    with pytest.raises(AssertionError, match="assert 1 == 2"):
        explore(counter_scene(Counter.add), preemptions=1)


@pytest.mark.parametrize("method", [Counter.add_guarded, Counter.add_and_return, Counter.add_and_raise])
def test_a_raw_guard_guards(method: Callable[[Counter], object]) -> None:
    explored = explore(counter_scene(method), preemptions=scaled(3, 5))
    assert explored.complete
    assert explored.schedules > 20


ELSEWHERE = """
def add_if_free(counter):
    if not counter.guard.acquire(False):
        return False
    counter.add()
    counter.guard.release()
    return True

def add_guarded(counter):
    with counter.guard:
        counter.add()
"""


def elsewhere(function: str) -> Callable[[Counter], bool]:
    """A function of a module that has no steps."""
    names: dict[str, Any] = {}
    exec(compile(ELSEWHERE, "elsewhere.py", "exec"), names)
    found: Callable[[Counter], bool] = names[function]
    return found


def test_a_guard_that_is_let_go_elsewhere_is_no_deadlock() -> None:
    waited = []

    def scene(run: Interleaving) -> Callable[[], None]:
        run.step_lines(HERE)
        counter = Counter()
        run.spawn(Counter.add_guarded, counter)
        added = run.spawn(elsewhere("add_if_free"), counter)

        def check() -> None:
            assert counter.value == 1 + added.result
            waited.append(added.result)

        return check

    assert explore(scene, preemptions=scaled(3, 5)).complete
    assert set(waited) == {False, True}


def test_who_really_meets_a_guard_held_at_a_step_is_stuck_and_told_why() -> None:
    def scene(run: Interleaving) -> None:
        run.PATIENCE = 0.05
        run.step_lines(HERE)
        counter = Counter()
        run.spawn(Counter.add_guarded, counter)
        run.spawn(elsewhere("add_guarded"), counter)

    with pytest.raises(Stuck, match="its module has to be among those of step_lines") as caught:
        replay(scene, Replay([0, 0, 1]))
    assert 'File "elsewhere.py"' in str(caught.value)


class DeafGate:
    """A mutex whose queue is joined after the last look at the token, not before."""

    def __init__(self) -> None:
        self.token = [None]
        self.guard = allocate_lock()
        self.queue: list[task.Waiter] = []

    def take(self) -> bool:
        try:
            self.token.pop()
        except IndexError:
            return False
        return True

    def lock(self) -> None:
        while not self.take():
            waiter = task.Waiter()
            with self.guard:
                if self.take():
                    return
                self.queue.append(waiter)
            waiter.wait()

    def unlock(self) -> None:
        self.token.append(None)
        if self.queue:
            with self.guard:
                first = self.queue.pop(0)
            first.wake()


def gate_scene(run: Interleaving) -> None:
    run.step_lines(HERE)
    gate = DeafGate()

    def use() -> None:
        gate.lock()
        gate.unlock()

    run.spawn(use)
    run.spawn(use)


def test_a_wake_up_lost_between_two_lines_is_found() -> None:
    with pytest.raises(Deadlock):
        sample(gate_scene, range(200))
    with pytest.raises(Deadlock):
        sample(gate_scene, range(400), lambda seed: Pct(seed, depth=3, steps=40))
    with pytest.raises(Deadlock):
        explore(gate_scene, preemptions=2, limit=1000)


def mutex_scene(run: Interleaving) -> Callable[[], None]:
    """Two that lock, one that is interrupted, one that only tries; never two inside."""
    run.step_lines(mutex_module)
    mutex = Mutex("m")
    inside: list[str] = []

    def hold() -> None:
        inside.append(task.current().name)
        pause()
        assert inside == [task.current().name]
        inside.clear()
        mutex.unlock()

    def locks(interruptible: bool) -> None:
        for _ in range(2):
            try:
                mutex.lock(interruptible=interruptible)
            except Interrupted:
                continue
            hold()

    def tries() -> None:
        for _ in range(2):
            if mutex.trylock():
                hold()

    interrupted = run.spawn(locks, True)
    run.spawn(locks, False)
    run.spawn(locks, False)
    run.spawn(tries)
    run.spawn(interrupted.task.interrupt)

    def check() -> None:
        mutex.check()
        assert not mutex.locked

    return check


def fence_scene(run: Interleaving) -> Callable[[], None]:
    """Callbacks that are added, and one taken back, while the fence is signalled."""
    run.step_lines(fence_module, fence_wait, completion, callbacks)
    fence = pending_fence()
    called: list[int] = []

    def add(number: int) -> bool:
        def callback(_fence: object) -> None:
            called.append(number)

        added = fence.add_callback(callback)
        return added and not (number == 2 and fence.remove_callback(callback))

    added = [run.spawn(add, number) for number in range(3)]
    waits = [run.spawn(fence.wait), run.spawn(fence.wait, 1.0)]
    run.spawn(fence.signal)

    def check() -> None:
        fence.check()
        assert sorted(called) == [number for number in range(3) if added[number].result]
        assert [thread.result for thread in waits] == [True, True]

    return check


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("scene", [mutex_scene, fence_scene])
def test_the_primitives_have_no_race_between_lines(scene: Scenario, make: Callable[[int], Strategy]) -> None:
    sample(scene, range(scaled(150, 5000)), make)
