"""Running a scenario many times: under all schedules that there are, or under those of many seeds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice

from gpuvm.errors import InvalidArgument
from gpuvm.sync import lockdep
from gpuvm.testing.interleaving import Interleaving, RunStatistics
from gpuvm.testing.strategy import Exhaustive, RandomWalk, Strategy

Scenario = Callable[[Interleaving], Callable[[], None] | None]
"""Makes objects and spawns threads; what it returns is called when they have ended, to check the outcome."""


@dataclass(frozen=True, slots=True)
class Explored:
    """What a search has covered without finding a failure."""

    schedules: int
    complete: bool
    """There is no other schedule, within the preemptions allowed."""
    steps: int
    """Most steps of one run."""
    choices: int
    """Most choices of one run; what ``Pct`` takes as ``steps``."""


def replay(scenario: Scenario, strategy: Strategy | int) -> RunStatistics:
    """Run it once.

    The validator forgets before what it has learnt, so that the run does not depend on those before.

    Raises:
        what the scenario, its threads or its last check raise, with a note how to repeat it.
    """
    if lockdep.enabled:
        lockdep.reset()
    with Interleaving(strategy) as run:
        run.scenario = getattr(scenario, "__name__", repr(scenario))
        check = scenario(run)
        run.run()
        if check is not None:
            check()
        return run.statistics()


def sample(
    scenario: Scenario, seeds: Iterable[int], strategy: Callable[[int], Strategy] = RandomWalk
) -> Explored:
    """Run it once for each seed: ``sample(scenario, range(100), lambda seed: Pct(seed, depth=2))``.

    Raises:
        InvalidArgument: there is no seed, so that nothing would be tested.
        what ``replay`` raises, for the first seed that fails.
    """
    if not isinstance(seeds, Iterable):
        raise InvalidArgument(f"sample: seeds is {seeds!r}; give several, such as range(100)", seeds)
    explored = _cover(scenario, map(strategy, seeds), complete=False)
    if explored.schedules == 0:
        raise InvalidArgument("sample: no seeds, so nothing was run; give some, such as range(100)", 0, 1)
    return explored


def explore(scenario: Scenario, preemptions: int | None = 2, limit: int = 10_000) -> Explored:
    """Run it under all schedules with at most so many preemptions, those with fewer first.

    Args:
        preemptions: switches away from a thread that could have gone on; None: any number.
        limit: so many schedules at most.

    Raises:
        InvalidArgument: a negative number of preemptions, or less than one schedule.
        NotReplayable: the scenario does something else each time.
        what ``replay`` raises, for the first schedule that fails.
    """
    asked: object = limit
    if not isinstance(asked, int) or limit < 1:
        raise InvalidArgument(f"explore: a limit of {limit!r} schedules; give 1 or more", limit, 1)
    schedules = iter(Exhaustive(preemptions))
    explored = _cover(scenario, islice(schedules, limit), complete=True)
    return dataclasses.replace(explored, complete=next(schedules, None) is None)


def _cover(scenario: Scenario, strategies: Iterable[Strategy], complete: bool) -> Explored:
    runs = steps = choices = 0
    for strategy in strategies:
        try:
            ran = replay(scenario, strategy)
        except Exception as error:
            error.add_note(f"  after {runs} runs without failure")
            raise
        runs += 1
        steps, choices = max(steps, ran.steps), max(choices, ran.choices)
    return Explored(runs, complete, steps, choices)
