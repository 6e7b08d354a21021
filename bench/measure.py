"""How it is measured.

Thread CPU time, so that other processes take no part in it beyond the caches; medians over repeats; the
contenders take turns within a repeat, each time in another order, so that a slow minute of the machine hits
all of them. Requests, jobs and arrays are made outside the clock, with the garbage collector off.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median

from bench import workload
from bench.cases import BULK, CASES, PHASES, Case, Effort
from bench.contender import Contender
from bench.selfcheck import Disagreement
from bench.workload import Base, generator


@dataclass
class Result:
    """One cell: nanoseconds a unit, one value for each repeat."""

    size: int
    case: str
    contender: str
    samples: list[float] = field(default_factory=list)

    @property
    def ns(self) -> float:
        return median(self.samples)


def _effort(size: int, *, quick: bool) -> Effort:
    """More of everything at large sizes, where a sample has to touch enough of the memory."""
    if quick:
        return Effort(requests=1 << 14, calls=4000)
    requests = 1 << 16 if size <= 10_000 else 1 << 17 if size <= 200_000 else 1 << 18
    return Effort(requests=requests, calls=40_000)


def _build(classes: Mapping[str, type[Contender]], base: Base) -> dict[str, Contender]:
    spaces = {}
    for name, make in classes.items():
        if len(base) <= make.limit:
            spaces[name] = make()
            requests = workload.fill(base, generator(len(base), 1))
            spaces[name].bind_job(requests, BULK)()
    return spaces


def _sample(
    case: Case, spaces: Mapping[str, Contender], base: Base, effort: Effort, repeat: int
) -> dict[str, float]:
    """Every contender once; they must answer the same when they have been asked the same all along."""
    names = list(spaces)
    turn = repeat % len(names)
    times = {}
    answers: dict[tuple[int, int], tuple[str, int | list[int | None]]] = {}
    for name in names[turn:] + names[:turn]:
        seed = generator(len(base), 2, CASES.index(case), repeat)
        prepared = case.prepare(spaces[name], base, effort, seed)
        begin = time.thread_time_ns()
        answer = prepared.job()
        times[name] = (time.thread_time_ns() - begin) / prepared.units
        # Contenders with another share have run fewer updates before: their spaces may differ.
        asked = (prepared.units, spaces[name].share)
        first, expected = answers.setdefault(asked, (name, answer))
        if answer != expected:
            raise Disagreement(f"{case.title} at {len(base)}: {first} and {name} did not do the same")
    return times


def measure(
    classes: Mapping[str, type[Contender]],
    size: int,
    *,
    repeats: int,
    quick: bool,
    progress: Callable[[str], None],
) -> list[Result]:
    """All cases at one size, in the order of `CASES`."""
    base = workload.base(size, generator(size, 0))
    effort = _effort(size, quick=quick)
    results: list[Result] = []
    for phase in PHASES:
        progress(f"{size:,} mappings: building")
        gc.collect()
        gc.disable()
        try:
            spaces = _build(classes, base)
            for case in phase:
                progress(f"{size:,} mappings: {case.title}")
                row = {name: Result(size, case.name, name) for name in spaces}
                for repeat in range(1 if case.once else repeats):
                    for name, ns in _sample(case, spaces, base, effort, repeat).items():
                        row[name].samples.append(ns)
                results += row.values()
        finally:
            gc.enable()
        del spaces
    return results
