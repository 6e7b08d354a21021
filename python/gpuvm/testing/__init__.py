"""Testing code that uses gpuvm's primitives: its threads in every order, each of which can be repeated.

- ``Interleaving`` runs threads one at a time, in an order that a strategy chooses
- strategies: ``RandomWalk``, ``Pct``, ``Replay``, ``Exhaustive``
- ``explore`` runs a scenario under all schedules, ``sample`` under those of many seeds, ``replay`` under one
- ``MockDevice``: hardware for a scheduler, whose jobs take virtual time
"""

from gpuvm.testing.explore import Explored, Scenario, explore, replay, sample
from gpuvm.testing.failure import Deadlock, Livelock, Stuck
from gpuvm.testing.interleaving import Interleaving, RunStatistics
from gpuvm.testing.mock_device import MockDevice, MockJob
from gpuvm.testing.strategy import Decision, Exhaustive, NotReplayable, Pct, RandomWalk, Replay, Strategy
from gpuvm.testing.thread import Controlled

__all__ = [
    "Controlled",
    "Deadlock",
    "Decision",
    "Exhaustive",
    "Explored",
    "Interleaving",
    "Livelock",
    "MockDevice",
    "MockJob",
    "NotReplayable",
    "Pct",
    "RandomWalk",
    "Replay",
    "RunStatistics",
    "Scenario",
    "Strategy",
    "Stuck",
    "explore",
    "replay",
    "sample",
]
