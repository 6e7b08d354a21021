"""The virtual clock: sleeping, timeouts, interrupts."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from gpuvm.errors import Interrupted, InvalidArgument
from gpuvm.sync import task
from gpuvm.testing import Interleaving, explore
from interleaved import pause, pending_fence, sleep_until

HOUR = 3600 * task.NSEC_PER_SEC


def test_the_clock_jumps_when_nobody_can_go_on() -> None:
    with Interleaving(1) as run:
        begin = run.now()
        woke: list[tuple[str, int]] = []

        def sleeper(name: str, hours: int) -> None:
            sleep_until(begin + hours * HOUR)
            woke.append((name, (task.now() - begin) // HOUR))

        run.spawn(sleeper, "a", 5)
        run.spawn(sleeper, "b", 2)
        run.spawn(sleeper, "c", 1000)
        run.run()
        assert woke == [("b", 2), ("a", 5), ("c", 1000)]
        assert run.statistics().now == begin + 1000 * HOUR


def test_the_clock_stands_still_while_somebody_can_go_on() -> None:
    def scene(run: Interleaving) -> None:
        begin = run.now()

        def watch() -> None:
            for _ in range(5):
                pause()
                assert task.now() == begin

        run.spawn(sleep_until, begin + 1)
        run.spawn(watch)

    explore(scene)


def test_a_deadline_that_has_passed_does_not_turn_the_clock_back() -> None:
    with Interleaving(1) as run:
        begin = run.now()
        run.spawn(sleep_until, begin - HOUR)
        run.run()
        assert run.now() == begin


def test_those_with_one_deadline_wake_in_any_order() -> None:
    orders = set()

    def scene(run: Interleaving) -> Callable[[], None]:
        pad: list[int] = []
        deadline = run.now() + 5

        def sleeper(number: int) -> None:
            sleep_until(deadline)
            pad.append(number)

        for number in range(3):
            run.spawn(sleeper, number)
        return lambda: orders.add(tuple(pad))

    explore(scene, preemptions=0)
    assert orders == set(itertools.permutations(range(3)))


def test_a_wake_up_at_the_deadline_may_win_or_come_too_late() -> None:
    outcomes = set()

    def scene(run: Interleaving) -> Callable[[], None]:
        fence = pending_fence()
        deadline = run.now() + 100

        def signal_in_time() -> None:
            sleep_until(deadline)
            fence.signal()

        run.spawn(signal_in_time)
        waited = run.spawn(fence.wait_until, deadline)
        return lambda: outcomes.add(waited.result)

    explore(scene)
    assert outcomes == {False, True}


def test_advance_wakes_those_whose_time_has_come() -> None:
    with Interleaving(1) as run:
        begin = run.now()
        log: list[int] = []

        def sleeper(duration: int) -> None:
            sleep_until(begin + duration)
            log.append(duration)

        def drive() -> None:
            run.advance(10)
            assert task.now() == begin + 10
            pause(20)
            log.append(15)

        run.spawn(sleeper, 10)
        run.spawn(sleeper, 20)
        run.spawn(drive)
        run.run()
        assert run.now() == begin + 20
        assert sorted(log) == log == [10, 15, 20]
        for wrong in (-1, 0.5):
            with pytest.raises(InvalidArgument, match="does not run backwards"):
                run.advance(wrong)  # type: ignore[arg-type]
        assert run.now() == begin + 20


def test_timeouts_in_seconds() -> None:
    with Interleaving(1) as run:
        begin = run.now()
        waited = run.spawn(pending_fence().wait, 2.5)
        run.run()
        assert waited.result is False
        assert run.now() - begin == 5 * task.NSEC_PER_SEC // 2


def test_an_interrupt_ends_an_interruptible_wait_or_the_next_one() -> None:
    outcomes = set()

    def scene(run: Interleaving) -> Callable[[], None]:
        fence = pending_fence()

        def waits() -> str:
            try:
                fence.wait(interruptible=True)
            except Interrupted:
                assert not task.current().interrupted
                return "interrupted"
            return "waited"

        waiting = run.spawn(waits)

        def interrupts() -> None:
            waiting.task.interrupt()

        run.spawn(interrupts)
        run.spawn(fence.signal)
        return lambda: outcomes.add(waiting.result)

    assert explore(scene).complete
    assert outcomes == {"interrupted", "waited"}


def test_an_interrupt_does_not_end_another_wait() -> None:
    def scene(run: Interleaving) -> Callable[[], None]:
        fence = pending_fence()

        def waits() -> bool:
            return fence.wait(1.0)

        waiting = run.spawn(waits)
        run.spawn(waiting.task.interrupt)

        def check() -> None:
            assert waiting.result is False
            assert waiting.task.interrupted

        return check

    assert explore(scene).complete
