"""Testing code that uses gpuvm's primitives: its threads in every order, each of which can be repeated.

- ``Interleaving`` runs threads one at a time, in an order that a strategy chooses
- strategies: ``RandomWalk``, ``Pct``, ``Replay``, ``Exhaustive``
- ``explore`` runs a scenario under all schedules, ``sample`` under those of many seeds, ``replay`` under one
- ``MockDevice``: hardware for a scheduler, whose jobs take virtual time
- ``Node``: the virtual device's node, for code of this process
"""

from typing import TYPE_CHECKING

from gpuvm.testing.explore import Explored, Scenario, explore, replay, sample
from gpuvm.testing.failure import Deadlock, Livelock, Stuck
from gpuvm.testing.interleaving import Interleaving, RunStatistics
from gpuvm.testing.mock_device import MockDevice, MockJob
from gpuvm.testing.strategy import Decision, Exhaustive, NotReplayable, Pct, RandomWalk, Replay, Strategy
from gpuvm.testing.thread import Controlled

if TYPE_CHECKING:
    from gpuvm.testing.node import Node

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
    "Node",
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


def __getattr__(name: str) -> object:
    """Import the node when it is asked for: below it is the whole driver."""
    if name != "Node":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from gpuvm.testing.node import Node

    globals()[name] = Node
    return Node
