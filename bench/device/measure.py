"""How it is measured: by the program itself, in many rounds; the ways take turns."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

from bench.device.cases import CALLS
from bench.device.ways import Way, built
from bench.selfcheck import Disagreement

PATIENCE = 120.0
"""Seconds after which a program is taken to hang."""
NOT_STARTED = 125
"""The exit status of those who could not run the program: stderr says why."""


@dataclass
class Result:
    """A cell: ns a call, of each run of the program the least and the median of its rounds."""

    call: str
    way: str
    least: list[float] = field(default_factory=list)
    medians: list[float] = field(default_factory=list)

    @property
    def ns(self) -> float:
        return median(self.medians)


@dataclass(frozen=True)
class Measured:
    """One run of the benchmark."""

    ways: Sequence[Way]
    """Those that lack something, too."""
    results: Sequence[Result]

    def ns(self, call: str, way: str) -> float | None:
        return next((one.ns for one in self.results if (one.call, one.way) == (call, way)), None)


def measure(repeats: int, rounds: int, calls: int, progress: Callable[[str], None]) -> Measured:
    """`repeats` runs of the program each way, in another order every time; each of `rounds` of `calls`."""
    with built() as (client, ways):
        ways = tuple(_tried(way, client) for way in ways)
        taking_part = [way for way in ways if way.lacks is None]
        cells: dict[tuple[str, str], Result] = {}
        for repeat in range(repeats):
            progress(f"round {repeat + 1} of {repeats}: {', '.join(way.title for way in taking_part)}")
            turn = repeat % len(taking_part)
            for way in taking_part[turn:] + taking_part[:turn]:
                for call, (least, middle) in _run(way, client, rounds, calls).items():
                    cell = cells.setdefault((call, way.name), Result(call, way.name))
                    cell.least.append(least)
                    cell.medians.append(middle)
    return Measured(ways, list(cells.values()))


def _tried(way: Way, client: str) -> Way:
    """It, with what it lacks."""
    if way.lacks is not None:
        return way
    done = _ended(way, client, 1, 1)
    if done.returncode == NOT_STARTED:
        return replace(way, lacks=" ".join(done.stderr.split()))
    _times(way, done)
    return way


def _run(way: Way, client: str, rounds: int, calls: int) -> dict[str, tuple[float, float]]:
    return _times(way, _ended(way, client, rounds, calls))


def _ended(way: Way, client: str, rounds: int, calls: int) -> subprocess.CompletedProcess[str]:
    command = [*way.before, client, str(rounds), str(calls)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)


def _times(way: Way, done: subprocess.CompletedProcess[str]) -> dict[str, tuple[float, float]]:
    """Least and median by call; those that were not answered are left out, if the way allows it."""
    if done.returncode:
        raise Disagreement(f"{way.title}: the program ended with {done.returncode}: {done.stderr.strip()}")
    rows = {name: words for name, *words in map(str.split, done.stdout.splitlines())}
    if list(rows) != [call.name for call in CALLS]:
        raise Disagreement(f"{way.title}: the program measured {', '.join(rows)}")
    refused = {name: " ".join(words[2:]) for name, words in rows.items() if words[0] == "-"}
    for call in CALLS:
        if call.name in refused and (way.has_node or not call.of_node):
            raise Disagreement(f"{way.title}: {call.title}: {refused[call.name]}")
    return {name: (float(words[0]), float(words[1])) for name, words in rows.items() if name not in refused}
