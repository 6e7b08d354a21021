"""Tally: what is counted while programs run: calls, what was asked for in vain, opens and what they left."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gpuvm.device.lacks import Lacks, LacksStatistics
from gpuvm.errors import CheckFailed
from gpuvm.nouveau.uapi.calls import CALLS
from gpuvm.nouveau.uapi.numbers import OF_DISPLAYS, TYPE
from gpuvm.nouveau.uapi.others import OTHERS
from gpuvm.nouveau.work import Work
from gpuvm.sync import lockdep
from gpuvm.sync.mutex import Mutex

if TYPE_CHECKING:
    from gpuvm.nouveau.client import Client
    from gpuvm.nouveau.uapi.caller import Caller

LEFT_KEPT: Final = 256
"""Opens that left something, of which it is told what; later ones are only counted."""

Make = Callable[["Client", int, int, "Caller"], int]
"""Makes a call, as ``Client.drm_ioctl`` does."""

_NAMES: Final[dict[int, str]] = {
    **{ioctl.number: ioctl.name.removeprefix("NOUVEAU_") for ioctl in CALLS},
    **{number: OTHERS.get(number, f"MODE {number:#04x}") for number in OF_DISPLAYS},
}
"""Of calls that are answered. Those about displays are, too: there are none."""


@dataclass(frozen=True, slots=True)
class Left:
    """What an open still had when the last descriptor of it was closed."""

    client: str
    objects: int
    bytes: int
    """Of these objects."""
    mappings: int
    regions: int
    """Sparse ones."""
    syncobjs: int
    channels: int

    def __bool__(self) -> bool:
        return bool(self.objects or self.mappings or self.regions or self.syncobjs or self.channels)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A kind of refusal: a call and an errno."""

    call: str
    errno: int
    times: int
    first: str
    """What was wrong the first time."""


@dataclass(frozen=True, slots=True)
class TallyStatistics:
    """What was counted so far."""

    calls: Mapping[str, int]
    """Of the driver's calls, by name."""
    refusals: Sequence[Refusal]
    lacks: LacksStatistics
    opens: int
    closed: int
    binds: int
    """VM_BINDs that were accepted."""
    bind_ops: int
    work: Work
    """What channels executed that are gone."""
    left: Sequence[Left]
    """By opens that had something left, the first ``LEFT_KEPT``."""
    left_more: int
    """Opens that had something left, beyond those."""


class _OfThread:
    """What one thread counted: without a lock, and nothing is lost."""

    __slots__ = ("calls", "refused")

    def __init__(self) -> None:
        self.calls: Final = dict.fromkeys(_NAMES, 0)
        self.refused: Final[dict[tuple[int, int], int]] = {}


class _Mine(threading.local):
    def __init__(self, all: list[_OfThread]) -> None:
        self.counts = _OfThread()
        all.append(self.counts)


class Tally:
    """Counters of one run. Its methods are hung in where things happen.

    Locking: any thread, nothing held. A call that is known takes no lock.

    Args:
        make: what makes the calls.
        tell: prints a line for the user.
    """

    def __init__(self, make: Make, tell: Callable[[str], None]) -> None:
        self._make: Final = make
        self._tell: Final = tell
        self.lacks: Final = Lacks()
        self._all: Final[list[_OfThread]] = []
        self._mine: Final = _Mine(self._all)
        self._mutex: Final = Mutex("tally", lockdep.lock_class("tally"))
        self._first: Final[dict[tuple[int, int], str]] = {}
        self._opens = 0
        self._closed = 0
        self._binds = 0
        self._bind_ops = 0
        self._work: Final = Work()
        self._left: Final[list[Left]] = []
        self._left_more = 0

    # -- ioctls

    def door(self, client: Client, fd: int, request: int, arg: int, caller: Caller) -> int:
        """An ioctl on an open of the node: its result, or minus an errno."""
        calls = self._mine.counts.calls
        number = request & 0xFF
        if number in calls and request >> 8 & 0xFF == TYPE:
            calls[number] += 1
            result = self._make(client, request, arg, caller)
            if result < 0:
                self._note_refusal(client, number, request, -result, arg, caller)
            return result
        self.unknown(fd, request, arg, caller)
        return self._make(client, request, arg, caller)

    def unknown(self, fd: int, request: int, arg: int, caller: Caller) -> None:
        """An ioctl on a file of ours that it does not have."""
        told = self.lacks.ioctl(fd, request, arg, caller)
        if told is not None:
            self._tell(told)

    def _note_refusal(
        self, client: Client, number: int, request: int, error: int, arg: int, caller: Caller
    ) -> None:
        refused, kind = self._mine.counts.refused, (number, error)
        if kind not in refused:
            refused[kind] = 0
            with self._mutex:
                self._first.setdefault(kind, client.last_error)
        refused[kind] += 1
        self.lacks.refused(number, request, error, arg, caller)

    # -- opens

    def opened(self) -> None:
        """Somebody opened the node."""
        with self._mutex:
            self._opens += 1

    def closing(self, client: Client) -> None:
        """The last descriptor of an open is closed; the client is not, yet."""
        counts = client.statistics()
        vm = counts.vm
        left = Left(
            client.name,
            counts.handles.objects,
            counts.handles.size,
            0 if vm is None else vm.mappings,
            0 if vm is None else vm.regions,
            counts.syncobjs.objects,
            len(counts.channels),
        )
        with self._mutex:
            if vm is not None:
                self._binds += vm.binds
                self._bind_ops += vm.bind_ops
            if left and len(self._left) < LEFT_KEPT:
                self._left.append(left)
            elif left:
                self._left_more += 1

    def closed(self, client: Client) -> None:
        """All that it had is gone."""
        with self._mutex:
            self._closed += 1
            self._work.add(client.freed_work)

    # -- itself

    def statistics(self) -> TallyStatistics:
        """Counts, of now."""
        calls: Counter[int] = Counter()
        refused: Counter[tuple[int, int]] = Counter()
        for one in [*self._all]:
            calls.update(one.calls)
            refused.update(one.refused.copy())
        work = Work()
        with self._mutex:
            work.add(self._work)
            return TallyStatistics(
                {_NAMES[number]: times for number, times in calls.items() if times},
                tuple(
                    Refusal(_NAMES[kind[0]], kind[1], times, self._first[kind])
                    for kind, times in refused.most_common()
                ),
                self.lacks.statistics(),
                self._opens,
                self._closed,
                self._binds,
                self._bind_ops,
                work,
                (*self._left,),
                self._left_more,
            )

    def check(self) -> None:
        """Verify that no open was closed that was not opened.

        Raises:
            CheckFailed: with the state.
        """
        if self._closed > self._opens:
            raise CheckFailed(f"tally: {self._opens} opens, {self._closed} of them closed")
