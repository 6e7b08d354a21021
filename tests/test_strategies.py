"""Which schedules the strategies choose."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from math import comb, factorial

import pytest

from gpuvm.errors import InvalidArgument
from gpuvm.testing import (
    Exhaustive,
    Interleaving,
    NotReplayable,
    Pct,
    explore,
    replay,
    sample,
)
from interleaved import pause

# -- all schedules


def merges(lengths: Sequence[int]) -> set[tuple[int, ...]]:
    """All orders of the parts of threads with so many parts each."""
    return set(itertools.permutations([number for number, parts in enumerate(lengths) for _ in range(parts)]))


def preemptions(order: Sequence[int]) -> int:
    """How often a thread is left that has parts left."""
    return sum(
        here != there and here in order[i + 1 :] for i, (here, there) in enumerate(itertools.pairwise(order))
    )


def parts_scene(lengths: Sequence[int], order: list[int]) -> Callable[[Interleaving], None]:
    def part(number: int, parts: int) -> None:
        for index in range(parts):
            if index:
                pause()
            order.append(number)

    def scene(run: Interleaving) -> None:
        order.clear()
        for number, parts in enumerate(lengths):
            run.spawn(part, number, parts)

    return scene


@pytest.mark.parametrize("lengths", [(1, 1), (3, 2), (4, 4), (1, 2, 3), (2, 2, 2), (1, 1, 1, 2)])
@pytest.mark.parametrize("bound", [0, 1, 2, None])
def test_every_schedule_is_found_once(lengths: tuple[int, ...], bound: int | None) -> None:
    order: list[int] = []
    scene = parts_scene(lengths, order)
    seen = []
    for schedule in Exhaustive(bound):
        replay(scene, schedule)
        seen.append(tuple(order))
    expected = {each for each in merges(lengths) if bound is None or preemptions(each) <= bound}
    assert len(seen) == len(set(seen))
    assert set(seen) == expected
    assert [preemptions(each) for each in seen] == sorted(preemptions(each) for each in seen)


def test_counts_are_the_multinomial_coefficients() -> None:
    for lengths in [(5, 4), (2, 3, 2)]:
        number = factorial(sum(lengths))
        for parts in lengths:
            number //= factorial(parts)
        explored = explore(parts_scene(lengths, []), preemptions=None)
        assert (explored.schedules, explored.complete) == (number, True)
    assert explore(parts_scene((6, 6), []), None).schedules == comb(12, 6)


def test_a_limit_is_told() -> None:
    scene = parts_scene((3, 3), [])
    assert not explore(scene, None, limit=19).complete
    assert explore(scene, None, limit=20).complete
    assert explore(scene, None, limit=19).schedules == 19


@pytest.mark.parametrize("preemptions", [-1, 0.5, "2"])
def test_preemptions_are_counted(preemptions: object) -> None:
    with pytest.raises(InvalidArgument, match="preemptions; give 0 or more, or None"):
        explore(two_that_pause, preemptions)  # type: ignore[arg-type]


@pytest.mark.parametrize("limit", [-1, 0, 1.5])
def test_a_limit_is_one_schedule_or_more(limit: object) -> None:
    with pytest.raises(InvalidArgument, match="schedules; give 1 or more"):
        explore(two_that_pause, limit=limit)  # type: ignore[arg-type]


def test_sampling_no_seeds_is_refused() -> None:
    """Else such a test would pass whatever it tests."""
    for seeds in (range(0), range(5, 5)):
        with pytest.raises(InvalidArgument, match="no seeds, so nothing was run"):
            sample(two_that_pause, seeds)
    with pytest.raises(InvalidArgument, match=r"seeds is 5; give several, such as range\(100\)"):
        sample(two_that_pause, 5)  # type: ignore[arg-type]


def two_that_pause(run: Interleaving) -> None:
    run.spawn(pause, 3)
    run.spawn(pause, 3)


def test_exploring_what_does_something_else_each_time_is_refused() -> None:
    shrinking = iter(range(5, 0, -1))

    def scene(run: Interleaving) -> None:
        times = next(shrinking)
        run.spawn(pause, times)
        run.spawn(pause, times)

    with pytest.raises(NotReplayable):
        explore(scene)


def test_a_schedule_that_was_not_run_is_missed() -> None:
    schedules = iter(Exhaustive())
    replay(two_that_pause, next(schedules))
    next(schedules)
    with pytest.raises(NotReplayable, match="run each schedule before"):
        next(schedules)


def test_a_scene_without_choices_has_one_schedule() -> None:
    def scene(run: Interleaving) -> None:
        run.spawn(pause, 5)

    explored = explore(scene)
    assert (explored.schedules, explored.complete, explored.choices) == (1, True, 0)


# -- priorities


def test_pct_of_depth_one_lets_threads_finish() -> None:
    order: list[int] = []
    scene = parts_scene((3, 3, 3), order)
    seen = set()
    for seed in range(50):
        replay(scene, Pct(seed, depth=1))
        assert preemptions(order) == 0, f"seed {seed}"
        seen.add(tuple(order))
    assert len(seen) == factorial(3)


def test_pct_preempts_less_often_than_its_depth() -> None:
    order: list[int] = []
    scene = parts_scene((6, 6, 6), order)
    most = 0
    for seed in range(100):
        replay(scene, Pct(seed, depth=3, steps=15))
        most = max(most, preemptions(order))
    assert most == 2


@pytest.mark.parametrize(("depth", "steps"), [(0, 10), (-1, 10), (4, 3)])
def test_pct_checks_its_arguments(depth: int, steps: int) -> None:
    with pytest.raises(InvalidArgument, match="1 <= depth <= steps"):
        Pct(1, depth, steps)
