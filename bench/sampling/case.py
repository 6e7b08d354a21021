"""What a table is made of: cases, who takes part in each, and what was to be reached."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bench.sampling.contender import Contender


@dataclass(frozen=True)
class Target:
    """To stay below `limit` times the rival, or below `limit` ns if none is named."""

    limit: float
    rival: str | None = None


@dataclass(frozen=True)
class Case:
    """One row."""

    title: str
    contenders: Mapping[str, Callable[[], Contender]]
    units: int
    """Of a whole sample."""
    step: int = 1
    """Units are done by so many together."""
    targets: tuple[Target, ...] = ()

    def units_of(self, share: int) -> int:
        """One `share`-th of the units of a sample."""
        return max(self.units // share // self.step, 1) * self.step


@dataclass(frozen=True)
class Table:
    """Cases that are measured in the same way with the same contenders. Targets are the first one's."""

    name: str
    title: str
    columns: Mapping[str, str]
    """The title of each contender."""
    ratios: tuple[tuple[str, str], ...]
    """Pairs of contenders whose times are divided by each other."""
    cases: tuple[Case, ...]
    clock: Callable[[], int] = time.perf_counter_ns
    rate: str | None = None
    """What the first contender does so many of in a second, if that is to be told."""
