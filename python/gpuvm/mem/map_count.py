"""Maps: pieces of a process's addresses that the kernel keeps apart; it allows so many, and ours are counted.

A range of addresses costs one for every piece whose pages are of another file than those before, or not the
next ones of the same file.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Final

from gpuvm.errors import OutOfMemory
from gpuvm.mem import faults
from gpuvm.sync import lockdep
from gpuvm.sync.mutex import Mutex

OTHERS: Final = 4096
"""Maps left to the rest of the process. A Python process with NumPy and some threads has a few hundred."""

_USUAL_LIMIT: Final = 65530
LIMIT_FILE: Final = Path("/proc/sys/vm/max_map_count")


class MapCount:
    """How many maps this process may have by us, and how many it has or was promised.

    Locking: ``lock``, taken for a few steps; nothing is taken within it.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.lock: Final = Mutex("map_count", lockdep.lock_class("map_count"))
        self._used = 0
        self._given_back: deque[int] = deque()

    @property
    def used(self) -> int:
        """Maps, promised ones included."""
        with self.lock:
            self._collect()
            return self._used

    def charge(self, maps: int) -> None:
        """Count ``maps`` more, or fewer.

        Raises:
            OutOfMemory: too many; nothing was counted.
        """
        if maps > 0:
            faults.may_fail("maps of this process")
        with self.lock:
            self._collect()
            if maps > 0 and self._used + maps > self.limit:
                raise _too_many_maps(maps, self._used, self.limit)
            self._used += maps

    def give_back(self, maps: int) -> None:
        """Count ``maps`` fewer. Takes no lock: for finalizers, which run at any moment of any thread."""
        self._given_back.append(maps)

    def _collect(self) -> None:
        while self._given_back:
            self._used -= self._given_back.popleft()


def _too_many_maps(maps: int, used: int, limit: int) -> OutOfMemory:
    wanted = 2 * (used + maps + OTHERS)
    return OutOfMemory(
        f"{maps} more maps of this process: {used} of {limit} are used, and {OTHERS} are for others; raise "
        f"the machine's limit with `sysctl -w vm.max_map_count={wanted}` and call raise_map_limit, or place "
        "objects in fewer pieces",
        used + maps,
        limit,
    )


def _read_limit() -> int:
    try:
        return int(LIMIT_FILE.read_text()) - OTHERS
    except (OSError, ValueError):
        return _USUAL_LIMIT - OTHERS


map_count: Final = MapCount(_read_limit())
"""The process's; the machine's limit was read once."""


class MapRoom:
    """Room for maps, taken while failure is still possible, for exchanges that may not fail.

    An exchange that is given a room takes the maps that it adds from there, and puts there those it saves.

    Args:
        maps: for how many.

    Raises:
        OutOfMemory: there is no room; the message says how to get it.
    """

    __slots__ = ("left",)

    def __init__(self, maps: int = 0) -> None:
        self.left = 0
        self.grow(maps)

    def grow(self, maps: int) -> None:
        """Room for ``maps`` more. Raises OutOfMemory: it is as it was."""
        map_count.charge(maps)
        self.left += maps

    def shrink(self, maps: int) -> None:
        """Give up room for ``maps``, or as many as are left."""
        maps = min(maps, self.left)
        self.left -= maps
        map_count.charge(-maps)

    def __del__(self) -> None:
        map_count.give_back(self.left)
