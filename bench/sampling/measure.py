"""How it is measured.

CPU time of the one thread where only one works, else time that passes, since waiting is what is measured;
medians over repeats. The contenders take turns within a repeat, each time in another order. What they lock,
signal and run is made outside the clock, with the garbage collector off.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from statistics import median

from bench.sampling.case import Case, Table
from bench.sampling.contender import Contender, Job
from bench.selfcheck import Disagreement
from gpuvm.sync import lockdep

PATIENCE = 120.0
"""Seconds after which threads are taken to hang."""


@dataclass
class Result:
    """One cell: nanoseconds a unit, one value for each repeat."""

    table: str
    case: str
    contender: str
    samples: list[float] = field(default_factory=list)

    @property
    def ns(self) -> float:
        return median(self.samples)


@contextmanager
def _validator(on: bool) -> Iterator[None]:
    """The lock validator on or off, and afterwards as it was."""
    before = lockdep.enabled
    _switch_validator(on)
    try:
        yield
    finally:
        _switch_validator(before)


def _switch_validator(on: bool) -> None:
    if on:
        lockdep.enable()
    else:
        lockdep.disable()


def _in_threads(jobs: list[Job]) -> int:
    """Nanoseconds from when all threads stand ready until the last has done its job."""
    begin: list[int] = []
    ends: list[int] = []
    errors: list[BaseException] = []
    ready = threading.Barrier(len(jobs), lambda: begin.append(time.perf_counter_ns()))

    def run(job: Job) -> None:
        ready.wait()
        try:
            job()
        except BaseException as error:
            errors.append(error)
        ends.append(time.perf_counter_ns())

    threads = [threading.Thread(target=run, args=(job,), daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        if errors:
            raise errors[0]
        if thread.is_alive():
            raise Disagreement(f"a thread did not end within {PATIENCE:.0f} seconds")
    return max(ends) - begin[0]


def run_once(contender: Contender, units: int, clock: Callable[[], int]) -> float:
    """Nanoseconds a unit."""
    with _validator(contender.validated):
        jobs = contender.jobs(units)
        if len(jobs) > 1:
            return _in_threads(jobs) / units
        clock = contender.clock or clock
        begin = clock()
        jobs[0]()
        time = (clock() - begin) / units
        contender.settle()
        return time


def _measure_case(table: Table, case: Case, *, repeats: int, share: int) -> list[Result]:
    row = {name: Result(table.name, case.title, name) for name in case.contenders}
    names = list(row)
    with ExitStack() as stack:
        contenders = {}
        for name, make in case.contenders.items():
            contenders[name] = make()
            stack.callback(contenders[name].close)
        for repeat in range(repeats):
            turn = repeat % len(names)
            for name in names[turn:] + names[:turn]:
                row[name].samples.append(run_once(contenders[name], case.units_of(share), table.clock))
                contenders[name].check()
    return list(row.values())


def measure(table: Table, *, repeats: int, share: int, progress: Callable[[str], None]) -> list[Result]:
    """All cases of a table; each sample is a `share`-th of what a full one is."""
    results: list[Result] = []
    for case in table.cases:
        progress(f"{table.title}: {case.title}")
        gc.collect()
        gc.disable()
        try:
            results += _measure_case(table, case, repeats=repeats, share=share)
        finally:
            gc.enable()
    return results
