"""Who goes on: strategies that choose the next thread wherever more than one could go on."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol, runtime_checkable

from gpuvm.errors import InvalidArgument


class NotReplayable(AssertionError):
    """A schedule does not fit the run: it is another scenario's, or the scenario is not deterministic."""


@runtime_checkable
class Strategy(Protocol):
    """Directs runs, one after another. Its ``repr`` is the expression that makes it anew."""

    def begin(self) -> None:
        """A run begins; the same choices come again if the run asks the same."""

    def choose(self, ready: Sequence[int], running: int | None) -> int:
        """The number of the thread that goes on. If it is not ready the run ends in ``NotReplayable``.

        Args:
            ready: those that could, at least two, in the order in which they became ready; not to be changed.
            running: the one that went until now, None if it cannot go on.
        """


def meant(strategy: Strategy | int) -> Strategy:
    """The strategy itself; a number is the seed of a ``RandomWalk``.

    Raises:
        InvalidArgument: it is neither.
    """
    given: object = strategy
    if isinstance(given, int):
        return RandomWalk(given)
    if isinstance(given, type) or not isinstance(given, Strategy):
        raise InvalidArgument(
            f"Interleaving: {given!r} is no strategy; give one, such as RandomWalk(17), or a seed",
            given,
        )
    return given


def pick(strategy: Strategy, ready: Sequence[int], running: int | None, place: int) -> int:
    """What ``strategy`` chooses as choice number ``place``.

    Raises:
        NotReplayable: that thread is not ready.
    """
    number = strategy.choose(ready, running)
    if number not in ready:
        raise NotReplayable(
            f"choice {place} is thread {number}, but ready are {sorted(ready)}: the schedule is another "
            "scenario's, or the scenario does not repeat what it does"
        )
    return number


class RandomWalk:
    """Each time any of the ready threads, all equally likely."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.begin()

    def begin(self) -> None:
        """Start over."""
        self._random = Random(self.seed).random

    def choose(self, ready: Sequence[int], running: int | None) -> int:
        """Any of them."""
        return ready[int(self._random() * len(ready))]

    def __repr__(self) -> str:
        return f"RandomWalk({self.seed})"


class Pct:
    """Of random priorities the highest goes on; at ``depth - 1`` random places it falls to the bottom.

    Finds a bug that needs ``depth`` ordered events with a chance of at least
    ``1 / (threads * steps**(depth - 1))`` a run. Unfair: a thread that polls and never sleeps starves the
    others, and the run ends in ``Livelock``.

    Args:
        seed: of priorities and places.
        depth: 1 or more.
        steps: how many choices a run is expected to have; the places are among the first ``steps``.

    Source: Burckhardt et al., A Randomized Scheduler with Probabilistic Guarantees of Finding Bugs (2010).
    """

    def __init__(self, seed: int, depth: int = 3, steps: int = 200) -> None:
        if not 1 <= depth <= steps:
            raise InvalidArgument(
                f"Pct: depth {depth} with {steps} steps; need 1 <= depth <= steps", depth, steps
            )
        self.seed, self.depth, self.steps = seed, depth, steps
        self.begin()

    def begin(self) -> None:
        """Start over."""
        self._random = Random(self.seed)
        places = self._random.sample(range(self.steps), self.depth - 1)
        self._changes = {place: priority for priority, place in enumerate(places)}
        self._priorities: dict[int, float] = {}
        self._step = 0

    def choose(self, ready: Sequence[int], running: int | None) -> int:
        """The one with the highest priority, after a change of priority if here is a place for one."""
        priorities = self._priorities
        for number in ready:
            if number not in priorities:
                priorities[number] = self.depth + self._random.random()
        highest = max(ready, key=priorities.__getitem__)
        lowered = self._changes.get(self._step)
        self._step += 1
        if lowered is None:
            return highest
        priorities[highest] = lowered
        return max(ready, key=priorities.__getitem__)

    def __repr__(self) -> str:
        return f"Pct({self.seed}, depth={self.depth}, steps={self.steps})"


@dataclass(frozen=True, slots=True)
class Decision:
    """One choice that was made."""

    ready: tuple[int, ...]
    running: int | None
    chosen: int


class Replay:
    """Chooses as ``Interleaving.schedule`` recorded; after that the running thread goes on while it can."""

    def __init__(self, choices: Sequence[int]) -> None:
        self.choices = tuple(choices)
        self.begin()

    def begin(self) -> None:
        """Start over."""
        self.decisions: list[Decision] = []

    def choose(self, ready: Sequence[int], running: int | None) -> int:
        """The recorded one."""
        place = len(self.decisions)
        if place < len(self.choices):
            chosen = self.choices[place]
        else:
            chosen = ready[0] if running is None else running
        self.decisions.append(Decision(tuple(ready), running, chosen))
        return chosen

    def __repr__(self) -> str:
        return f"Replay({list(self.choices)})"


class Exhaustive:
    """All schedules with at most so many preemptions, each once, those with fewer preemptions first.

    A preemption is a switch away from a thread that could have gone on; switches where a thread sleeps or
    ends are free. Iterating gives one strategy for each schedule; run it before asking for the next::

        for schedule in Exhaustive(preemptions=2):
            replay(scenario, schedule)

    Args:
        preemptions: at most so many in one schedule; None: any number.

    Raises:
        InvalidArgument: a negative number of preemptions.

    Raises, while iterating:
        NotReplayable: the scenario is not deterministic.

    Source: Musuvathi and Qadeer, Iterative Context Bounding for Systematic Testing, PLDI 2007.
    """

    def __init__(self, preemptions: int | None = 2) -> None:
        asked: object = preemptions
        if preemptions is not None and (not isinstance(asked, int) or preemptions < 0):
            raise InvalidArgument(
                f"Exhaustive: {preemptions!r} preemptions; give 0 or more, or None for any number",
                preemptions,
                0,
            )
        self.preemptions = preemptions

    def __iter__(self) -> Iterator[Replay]:
        # Each schedule is found once: from the one that is the same up to its last choice that is no default.
        # What is still to be run, by preemptions: a schedule taken, where to leave it, and for whom.
        waiting: list[deque[tuple[list[Decision], int, int]]] = [deque()]
        yield from self._run((), 0, waiting)
        spent = 0
        while spent < len(waiting):
            if waiting[spent]:
                taken, place, other = waiting[spent].popleft()
                choices = (*(decision.chosen for decision in taken[:place]), other)
                yield from self._run(choices, spent, waiting)
            else:
                spent += 1

    def _run(
        self, choices: tuple[int, ...], spent: int, waiting: list[deque[tuple[list[Decision], int, int]]]
    ) -> Iterator[Replay]:
        schedule = Replay(choices)
        yield schedule
        taken = schedule.decisions
        if len(taken) < len(choices):
            raise NotReplayable(
                f"the run had {len(taken)} choices, and {len(choices)} were expected: run each schedule "
                "before asking for the next; and the scenario must do the same each time"
            )
        for place in range(len(choices), len(taken)):
            decision = taken[place]
            cost = spent if decision.running is None else spent + 1
            if self.preemptions is not None and cost > self.preemptions:
                continue
            if cost == len(waiting):
                waiting.append(deque())
            waiting[cost].extend(
                (taken, place, other) for other in decision.ready if other != decision.chosen
            )

    def __repr__(self) -> str:
        return f"Exhaustive(preemptions={self.preemptions})"
