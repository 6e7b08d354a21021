"""`Mutex`: never two inside and nobody forgotten, wherever the threads change."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from contention import LOCKS, in_real_threads, watch
from gpuvm.errors import Interrupted
from gpuvm.sync import lockdep, task
from gpuvm.sync.mutex import Mutex
from gpuvm.testing import Interleaving, Pct, explore, sample
from suite import scaled


class Room:
    """What a mutex is for: at most one is inside."""

    def __init__(self) -> None:
        self.mutex = Mutex("room")
        self.inside = 0
        self.count = 0

    def visit(self) -> None:
        self.mutex.lock()
        self.stay()
        self.mutex.unlock()

    def visits(self, times: int) -> None:
        for _ in range(times):
            self.visit()

    def stay(self) -> None:
        assert self.inside == 0
        self.inside += 1
        if task.preempt is not None:
            task.preempt()
        self.inside -= 1
        self.count += 1

    def must_be_left(self, visits: int | None = None) -> None:
        self.mutex.check()
        assert (self.inside, self.mutex.locked, self.mutex.statistics().waiting) == (0, False, 0)
        assert visits is None or self.count == visits


class TestInterrupted:
    def test_at_any_line_of_the_hand_over(self) -> None:
        """Whoever is interrupted as the mutex is passed on to it has it, or passes it on."""

        def scenario(run: Interleaving) -> Callable[[], None]:
            run.step_lines(*LOCKS, task)
            room = Room()
            ends: list[str] = []

            def perhaps() -> None:
                try:
                    room.mutex.lock(interruptible=True)
                except Interrupted:
                    ends.append("interrupted")
                else:
                    room.stay()
                    room.mutex.unlock()
                    ends.append("had it")

            run.spawn(room.visit)
            sleeper = run.spawn(perhaps)
            run.spawn(room.visit)
            run.spawn(sleeper.task.interrupt)

            def nothing_lost() -> None:
                room.must_be_left(visits=2 + ends.count("had it"))
                assert len(ends) == 1
                assert sleeper.task.interrupted == (ends == ["had it"])

            return nothing_lost

        explore(scenario, preemptions=2, limit=scaled(300, 10_000))
        sample(scenario, range(scaled(200, 5000)), lambda seed: Pct(seed, depth=4, steps=120))


class TestNobodyIsForgotten:
    """Lost wake-ups end in `Deadlock`."""

    @pytest.mark.parametrize("threads", [2, 3])
    def test_wherever_the_mutex_offers_to_switch(self, threads: int) -> None:
        def scenario(run: Interleaving) -> Callable[[], None]:
            room = Room()
            watch(run, [room.mutex])
            for _ in range(threads):
                run.spawn(room.visits, 2)
            return lambda: room.must_be_left(visits=2 * threads)

        explored = explore(scenario, preemptions=2 if threads == 2 else scaled(1, 2), limit=20_000)
        assert explored.complete

    def test_between_any_two_lines(self) -> None:
        def scenario(run: Interleaving) -> Callable[[], None]:
            run.step_lines(*LOCKS)
            room = Room()
            run.spawn(room.visit)
            run.spawn(room.visit)
            return lambda: room.must_be_left(visits=2)

        explored = explore(scenario, preemptions=scaled(2, 3), limit=100_000)
        assert explored.complete

    def test_many_between_any_two_lines(self) -> None:
        def scenario(run: Interleaving) -> Callable[[], None]:
            run.step_lines(*LOCKS)
            room = Room()

            def visits() -> None:
                room.visit()
                if room.mutex.trylock():
                    room.stay()
                    room.mutex.unlock()
                room.visit()

            for _ in range(5):
                run.spawn(visits)
            return room.must_be_left

        sample(scenario, range(scaled(50, 1500)))
        sample(scenario, range(scaled(50, 1500)), lambda seed: Pct(seed, depth=5, steps=400))

    @pytest.mark.parametrize("validated", [True, False], ids=["validator", "none"])
    def test_real_threads(self, validated: bool) -> None:
        if not validated:
            lockdep.disable()
        threads, rounds = 6, scaled(500, 20_000)
        room = Room()

        in_real_threads(threads, lambda _: room.visits(rounds))
        room.must_be_left(visits=threads * rounds)
