"""What is measured: each case makes, for one contender and one size, a job and the number of its units."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from bench import workload
from bench.contender import BEST, HIGHEST, LOWEST, Contender, GapJob, Job
from bench.workload import Base

BULK = 4096
SMALL = 64


# Rounds of updates, each with a search; those who walk do as many as there are large holes.
ROUNDS = 64

# Up to here a search takes so short a time that the clock itself would be seen in a few of them.
SMALL_SPACE = 10_000

# A best fit walks everything: one search is enough where that takes a second.
LONG_WALK = 3_000_000


@dataclass(frozen=True)
class Effort:
    """How much of everything is done for one sample."""

    requests: int
    calls: int

    def of_requests(self, contender: Contender) -> int:
        """Slow contenders run a share of the same kind of requests; always whole mixed quarters."""
        return max(256, self.requests // contender.share // 4 * 4)

    def of_calls(self, contender: Contender) -> int:
        return max(256, self.calls // max(1, contender.share // 8))


def _searches(sizes: list[int], space: Contender, base: Base, fit: int) -> list[int]:
    """Many times in a small space; one where each walks the whole of a large one in Python; else all once."""
    if len(base) <= SMALL_SPACE:
        return sizes * 16
    everything = fit == BEST or space.sorts
    return sizes[:1] if everything and len(base) * space.share > LONG_WALK else sizes


@dataclass(frozen=True)
class Prepared:
    """A job and the number of units (requests, calls, searches, rounds) that its time is divided by."""

    job: Job | GapJob
    units: int


Prepare: TypeAlias = Callable[[Contender, Base, Effort, np.random.Generator], Prepared]


@dataclass(frozen=True)
class Case:
    """One row of the tables."""

    name: str
    title: str
    prepare: Prepare
    once: bool = False
    """Only the first time tells something: one sample."""


def _find(chunk: int) -> Prepare:
    def prepare(space: Contender, base: Base, effort: Effort, rng: np.random.Generator) -> Prepared:
        finds = workload.finds(base, effort.of_requests(space), rng)
        return Prepared(space.find_job(finds, chunk), len(finds))

    return prepare


def _replace(chunk: int) -> Prepare:
    def prepare(space: Contender, base: Base, effort: Effort, rng: np.random.Generator) -> Prepared:
        requests = workload.replace(base, effort.of_requests(space), rng)
        return Prepared(space.bind_job(requests, chunk), len(requests))

    return prepare


def _split(space: Contender, base: Base, effort: Effort, rng: np.random.Generator) -> Prepared:
    requests = workload.split_and_restore(base, effort.of_requests(space), rng)
    return Prepared(space.bind_job(requests, BULK), len(requests))


def _mixed(space: Contender, base: Base, effort: Effort, rng: np.random.Generator) -> Prepared:
    count = effort.of_requests(space)
    requests = workload.updates(base, count * 3 // 4, rng)
    finds = workload.finds(base, count // 4, rng)
    return Prepared(space.mixed_job(requests, finds, BULK), len(requests) + len(finds))


def _large_gap(fit: int) -> Prepare:
    def prepare(space: Contender, base: Base, effort: Effort, rng: np.random.Generator) -> Prepared:
        sizes = _searches(workload.large_holes(base), space, base, fit)
        return Prepared(space.gap_job(sizes, fit), len(sizes))

    return prepare


def _small_gap(fit: int) -> Prepare:
    def prepare(space: Contender, base: Base, effort: Effort, rng: np.random.Generator) -> Prepared:
        sizes = _searches(workload.small_holes(8, rng), space, base, fit)
        return Prepared(space.gap_job(sizes, fit), len(sizes))

    return prepare


def _first_gap(fit: int) -> Prepare:
    """One search where none has been made: it pays for an index that is made or renewed on demand."""

    def prepare(space: Contender, base: Base, effort: Effort, rng: np.random.Generator) -> Prepared:
        return Prepared(space.gap_job(workload.large_holes(base)[:1], fit), 1)

    return prepare


def _updates(space: Contender, base: Base, effort: Effort, rng: np.random.Generator) -> Prepared:
    rounds = effort.of_requests(space) // SMALL
    requests = workload.updates(base, rounds * SMALL, rng)
    return Prepared(space.bind_job(requests, SMALL), rounds)


def _updates_and_gaps(fit: int) -> Prepare:
    """As `_updates`, with a search after each round: the difference is what a search costs then."""

    def prepare(space: Contender, base: Base, effort: Effort, rng: np.random.Generator) -> Prepared:
        large = workload.large_holes(base)
        sizes = _searches(large, space, base, fit) if space.walks else (large * ROUNDS)[:ROUNDS]
        requests = workload.updates(base, len(sizes) * SMALL, rng)
        return Prepared(space.updates_and_gaps_job(requests, SMALL, sizes, fit), len(sizes))

    return prepare


def _map_calls(space: Contender, base: Base, effort: Effort, rng: np.random.Generator) -> Prepared:
    requests = workload.replace(base, effort.of_calls(space), rng)
    return Prepared(space.map_calls_job(requests), len(requests))


def _find_calls(space: Contender, base: Base, effort: Effort, rng: np.random.Generator) -> Prepared:
    finds = workload.finds(base, effort.of_calls(space), rng)
    return Prepared(space.find_calls_job(finds), len(finds))


# Cases of one phase run on one space, in this order: those that leave the ranges as they were come first.
PHASES: tuple[tuple[Case, ...], ...] = (
    (
        Case("replace", "replace, 4096 a call", _replace(BULK)),
        Case("replace-64", "replace, 64 a call", _replace(SMALL)),
        Case("split", "split in the middle, restore, 4096 a call", _split),
        Case("find", "exact find, 4096 a call", _find(BULK)),
        Case("find-64", "exact find, 64 a call", _find(SMALL)),
        Case("mixed", "mixed maps, unmaps, finds, 4096 a call", _mixed),
        Case("updates", "round of 64 maps and unmaps in one call", _updates),
    ),
    (
        Case("gap-first", "first gap search, lowest (once)", _first_gap(LOWEST), once=True),
        Case("gap-lowest", "gap search, lowest, large", _large_gap(LOWEST)),
        Case("gap-highest", "gap search, highest, large", _large_gap(HIGHEST)),
        Case("gap-lowest-small", "gap search, lowest, small", _small_gap(LOWEST)),
        Case("updates-after", "round of 64 after such searches", _updates),
        Case("updates-gap", "round of 64 and one gap search, lowest, large", _updates_and_gaps(LOWEST)),
    ),
    # A best fit may need an index of its own, which later updates and other searches then pay for.
    (
        Case("gap-first-best", "first gap search, best fit (once)", _first_gap(BEST), once=True),
        Case("gap-best", "gap search, best fit, large", _large_gap(BEST)),
        Case("gap-best-small", "gap search, best fit, small", _small_gap(BEST)),
        Case("updates-after-best", "round of 64 after such searches, best fit", _updates),
        Case("updates-gap-best", "round of 64 and one gap search, best fit, large", _updates_and_gaps(BEST)),
    ),
    (
        Case("map-call", "one call of map (plan and apply)", _map_calls),
        Case("find-call", "one call of find", _find_calls),
    ),
)

CASES: tuple[Case, ...] = tuple(case for phase in PHASES for case in phase)
