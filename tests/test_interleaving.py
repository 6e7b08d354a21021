"""The controlled scheduler: its owner and workers, what it repeats and leaves behind."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Callable, Sequence

import pytest

from gpuvm.errors import Busy, InvalidArgument
from gpuvm.sync import task
from gpuvm.sync.fence import Fence, fence_context_alloc
from gpuvm.sync.mutex import Mutex
from gpuvm.testing import (
    Deadlock,
    Exhaustive,
    Interleaving,
    NotReplayable,
    Pct,
    RandomWalk,
    Replay,
    Strategy,
    explore,
    replay,
    sample,
)
from interleaved import pause, pending_fence, sleep_until, waits_for_ever
from suite import scaled

MAKERS: list[Callable[[int], Strategy]] = [
    RandomWalk,
    Pct,
    lambda seed: Pct(seed, depth=8, steps=60),
]


class Pad:
    """Threads write what they do and when."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, line: str) -> None:
        self.lines.append(f"{task.current().name} {line} {task.now()}")


def busy_scene(run: Interleaving) -> Pad:
    """Mutexes, sleeps, a fence and threads that start threads."""
    pad = Pad()
    mutexes = [Mutex(f"m{index}") for index in range(3)]
    fence = pending_fence()

    def use(turn: int) -> None:
        for step in range(4):
            with mutexes[(turn + step) % 3]:
                pad.write(f"holds {(turn + step) % 3}")
            if step == 2 and turn % 2:
                pad.write(f"waited {fence.wait(0.5)}")

    def finish() -> None:
        sleep_until(task.now() + 1000)
        pad.write("signals")
        worker = task.start("late", lambda: use(1))
        fence.signal()
        worker.join()
        pad.write("joined")

    for turn in range(4):
        run.spawn(use, turn)
    run.spawn(finish)
    return pad


def played(strategy: Strategy) -> tuple[list[str], list[int]]:
    with Interleaving(strategy) as run:
        pad = busy_scene(run)
        run.run()
        run.check()
        return pad.lines, run.schedule


# -- the same strategy, the same run


@pytest.mark.parametrize("make", MAKERS)
def test_the_same_seed_gives_the_same_run(make: Callable[[int], Strategy]) -> None:
    for seed in range(scaled(10, 200)):
        assert played(make(seed)) == played(make(seed)), f"seed {seed}"


@pytest.mark.parametrize("make", MAKERS)
def test_a_strategy_may_be_used_again(make: Callable[[int], Strategy]) -> None:
    strategy = make(3)
    assert played(strategy) == played(strategy)


@pytest.mark.parametrize("make", MAKERS)
def test_a_recorded_schedule_repeats_the_run(make: Callable[[int], Strategy]) -> None:
    for seed in range(scaled(10, 200)):
        lines, schedule = played(make(seed))
        assert played(Replay(schedule)) == (lines, schedule), f"seed {seed}"


@pytest.mark.parametrize("make", MAKERS)
def test_the_representation_makes_the_strategy_anew(make: Callable[[int], Strategy]) -> None:
    strategy = make(5)
    assert played(eval(repr(strategy))) == played(strategy)


@pytest.mark.parametrize("make", MAKERS)
def test_seeds_differ(make: Callable[[int], Strategy]) -> None:
    assert len({tuple(played(make(seed))[0]) for seed in range(20)}) >= 15


def test_a_number_is_the_seed_of_a_random_walk() -> None:
    assert repr(Interleaving(7).strategy) == "RandomWalk(7)"


def test_a_schedule_of_something_else_does_not_fit() -> None:
    with pytest.raises(NotReplayable, match=r"choice 2 is thread 4, but ready are \[0, 1\]"):
        replay(two_that_pause, Replay([0, 1, 4]))


def two_that_pause(run: Interleaving) -> None:
    run.spawn(pause, 3)
    run.spawn(pause, 3)


# -- workers


def service(log: list[str], fences: Sequence[Fence]) -> None:
    try:
        for fence in fences:
            fence.wait()
            log.append(f"served {fence.seqno}")
    finally:
        log.append("ended")


def test_workers_finish_what_they_can_and_are_unwound() -> None:
    before = threading.active_count()
    for seed in range(20):
        log: list[str] = []
        context = fence_context_alloc()
        fences = [Fence(context, seqno) for seqno in range(5)]
        with Interleaving(seed) as run:
            task.start("service", lambda: service(log, fences))  # noqa: B023 (ends in here)

            def use() -> None:
                for fence in fences[:3]:  # noqa: B023
                    fence.signal()

            run.spawn(use)
            run.run()
            run.check()
            assert log == ["served 0", "served 1", "served 2"], f"seed {seed}"
        assert log[3:] == ["ended"], f"seed {seed}"
        run.check()
    assert threading.active_count() == before


def test_the_clock_does_not_move_for_workers_alone() -> None:
    def heartbeat() -> None:
        while True:
            sleep_until(task.now() + 10)

    with Interleaving(1) as run:
        begin = run.now()
        task.start("heartbeat", heartbeat)
        run.spawn(sleep_until, begin + 95)
        run.run()
        assert run.now() == begin + 95


def test_unwinding_runs_what_cleans_up() -> None:
    """Locks are let go, other threads woken, and a clean-up that wants to sleep is unwound as well."""
    log = []
    mutex = Mutex("m")
    fence = pending_fence()

    def worker() -> None:
        try:
            with mutex:
                fence.wait()
        finally:
            log.append(f"locked: {mutex.locked}")
            try:
                fence.wait()
            finally:
                log.append("ended")

    with Interleaving(Replay([])) as run:
        for number in range(2):
            task.start(f"worker {number}", worker)
        run.run()  # worker 0 has the mutex, waits for the fence, and is unwound first
    assert log == ["locked: True", "ended", "locked: False", "ended"]
    mutex.check()


def test_a_worker_that_fails_while_it_is_unwound_is_told() -> None:
    def worker() -> None:
        try:
            never = pending_fence()
            never.wait()
        finally:
            raise ValueError("planted")

    def scene(_run: Interleaving) -> None:
        task.start("worker", worker)

    with pytest.raises(ValueError, match="planted") as caught:
        replay(scene, 1)
    assert 'in thread 0 "worker", while it was unwound, at step' in "\n".join(caught.value.__notes__)


def test_no_thread_starts_while_all_end() -> None:
    def worker() -> None:
        try:
            never = pending_fence()
            never.wait()
        finally:
            with pytest.raises(Busy, match='thread "late"'):
                task.start("late", pause)

    with Interleaving(1) as run:
        task.start("worker", worker)
        run.run()


# -- the owner


def test_the_owner_waits_for_workers() -> None:
    with Interleaving(1) as run:
        log: list[str] = []
        fence = pending_fence()
        worker = task.start("service", lambda: service(log, [fence]))
        assert not fence.wait(1.0)
        fence.signal()
        assert log == []  # the owner goes undisturbed
        worker.join()
        assert log == ["served 1", "ended"]
        run.check()


def test_the_owner_sees_a_deadlock_too() -> None:
    never = pending_fence()
    with pytest.raises(Deadlock), Interleaving(1):
        never.wait()


def test_the_owner_cannot_wait_after_a_failure() -> None:
    def fail() -> None:
        raise ValueError("planted")

    with Interleaving(1) as run:
        run.spawn(fail)
        with pytest.raises(ValueError, match="planted"):
            run.run()
        never = pending_fence()
        with pytest.raises(ValueError, match="planted"):
            never.wait()
        with pytest.raises(Busy):
            run.spawn(pause)


def test_more_may_be_spawned_and_run() -> None:
    with Interleaving(1) as run:
        first = run.spawn(lambda: 1)
        with pytest.raises(Busy, match="has not ended"):
            _ = first.result
        run.run()
        second = run.spawn(lambda value: value + 1, first.result)
        run.run()
        run.run()
        assert (first.result, second.result) == (1, 2)
        assert (first.name, second.number) == ("<lambda>-0", 1)


def test_threads_may_spawn_and_join() -> None:
    def scene(run: Interleaving) -> Callable[[], None]:
        def child() -> int:
            pause()
            return 5

        def parent() -> int:
            spawned = run.spawn(child)
            spawned.join()
            return spawned.result + 1

        made = run.spawn(parent)

        def check() -> None:
            assert made.result == 6

        return check

    assert explore(scene, None).complete


def test_misuse_is_refused() -> None:
    with Interleaving(1) as run:
        with pytest.raises(Busy, match="another one is active"), Interleaving(2):
            pass
        run.spawn(run.run)
        with pytest.raises(Busy, match="only in the thread that entered"):
            run.run()
    with pytest.raises(Busy, match="make a new one"), run:
        pass
    with pytest.raises(Busy):
        run.run()
    with pytest.raises(Busy):
        Interleaving(1).spawn(pause)


@pytest.mark.parametrize("none", [RandomWalk, Exhaustive(), "17", 1.5, None])
def test_what_is_no_strategy_is_refused(none: object) -> None:
    with pytest.raises(InvalidArgument, match="is no strategy"):
        Interleaving(none)  # type: ignore[arg-type]


def test_a_strategy_that_cannot_begin_leaves_all_as_it_was() -> None:
    class Broken(RandomWalk):
        def begin(self) -> None:
            raise ValueError("planted")

    broken = Broken.__new__(Broken)
    state = task.runtime, task.preempt, gc.isenabled(), os.sched_getaffinity(0), sys.unraisablehook
    with pytest.raises(ValueError, match="planted"), Interleaving(broken):
        pass
    assert state == (task.runtime, task.preempt, gc.isenabled(), os.sched_getaffinity(0), sys.unraisablehook)
    replay(two_that_pause, 1)


def test_everything_is_put_back() -> None:
    def state() -> tuple[object, ...]:
        return task.runtime, task.preempt, gc.isenabled(), os.sched_getaffinity(0), sys.unraisablehook

    before = state()
    with Interleaving(1) as run:
        assert task.runtime is run
        assert not gc.isenabled()
        run.run()
    assert state() == before
    with pytest.raises(Deadlock):
        replay(waits_for_ever, 1)
    assert state() == before
    gc.disable()
    try:
        with Interleaving(1):
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_orders_do_not_outlive_a_run() -> None:
    """Else a report of the validator would depend on the runs before it."""
    first, second = Mutex("first"), Mutex("second")
    turns = iter([(first, second), (second, first)])

    def scene(run: Interleaving) -> None:
        outer, inner = next(turns)

        def nests() -> None:
            with outer, inner:
                pass

        run.spawn(nests)

    sample(scene, range(2))
