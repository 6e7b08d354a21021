"""Which class of locks was taken while which other was held, and whether that makes a cycle."""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import dataclass
from types import FrameType
from typing import Final, Protocol

from gpuvm.errors import CheckFailed

DEPTH: Final = 4
"""How many frames of a stack are kept."""

_HERE: Final = os.path.join(os.path.dirname(__file__), "")


class Lock(Protocol):
    """What the validator has to know of a lock."""

    @property
    def lock_class(self) -> LockClass:
        """The locks with which it shares a place in the order."""

    @property
    def name(self) -> str:
        """What reports call it."""


class LockClass:
    """Locks that share one place in the order, however many there are (``struct lock_class_key``).

    Args:
        name: what reports call it: the kind of lock, not the one lock.
        reservation: whether these are reservations, which nobody may lock who has a fence to signal.
    """

    __slots__ = ("after", "name", "reservation")

    def __init__(self, name: str, *, reservation: bool = False) -> None:
        self.name = name
        self.reservation = reservation
        self.after: dict[LockClass, Order] = {}
        """What was ever taken while one of these was held, and how that came about first."""

    def __repr__(self) -> str:
        return f"<LockClass {self.name!r}>"


FENCE: Final = LockClass("fence")
"""All fences: held by whoever has one to signal, taken by whoever waits for one."""


@dataclass(frozen=True, slots=True)
class Place:
    """A line of somebody's stack."""

    file: str
    line: int
    function: str


@dataclass(frozen=True, slots=True)
class Order:
    """A thread took something while it held something else; ``held`` and ``taken`` as a report says it."""

    task: str
    held: str
    taken: str
    stack: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class Cycle:
    """Orders that lead in a circle.

    Attributes:
        classes: each was taken while the one before was held, and now the first while the last is held.
        orders: how each of these steps came about; the last is the present one.
    """

    classes: tuple[LockClass, ...]
    orders: tuple[Order, ...]


_ordered: set[LockClass] = set()
"""The classes after which something is known."""


def stack() -> tuple[Place, ...]:
    """Where the calling thread left the caller's code for ours, innermost first."""
    caller = sys._getframe(1)
    frame: FrameType | None = caller
    while frame is not None and frame.f_code.co_filename.startswith(_HERE):
        frame = frame.f_back
    frame = frame or caller
    places: list[Place] = []
    while frame is not None and len(places) < DEPTH and frame.f_code.co_filename != threading.__file__:
        places.append(Place(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name))
        frame = frame.f_back
    return tuple(places)


def record(task: str, held: dict[LockClass, str], taken: LockClass, name: str) -> Cycle | None:
    """Remember that ``task`` takes ``taken`` while it has ``held``, or nothing if that closes a cycle.

    Locking: none, any thread. Of two threads that close a cycle together each writes its own order down
    before it looks for the other's, so at least one finds it. A guard would be in the way: a destructor that
    takes locks may run in here whenever something is allocated.
    """
    here = stack()
    new = {before: Order(task, held[before], name, here) for before in held if taken not in before.after}
    for before, order in new.items():
        before.after[taken] = order
        _ordered.add(before)
    cycle = find_path(taken, new)
    if cycle is not None:
        for before in new:
            before.after.pop(taken, None)
    return cycle


def find_path(start: LockClass, ends: dict[LockClass, Order]) -> Cycle | None:
    """The shortest way along known orders from ``start`` to one of ``ends``, which leads back to it."""
    came_from: dict[LockClass, tuple[LockClass, Order]] = {}
    reached = [start]
    for here in reached:
        if here in ends:
            return _way(start, here, came_from, ends[here])
        for after, order in here.after.copy().items():
            if after not in came_from:
                came_from[after] = here, order
                reached.append(after)
    return None


def _way(
    start: LockClass, end: LockClass, came_from: dict[LockClass, tuple[LockClass, Order]], last: Order
) -> Cycle:
    classes, orders = [end], [last]
    while classes[-1] is not start:
        before, order = came_from[classes[-1]]
        classes.append(before)
        orders.append(order)
    return Cycle(tuple(reversed(classes)), tuple(reversed(orders)))


def forget() -> None:
    """Forget all orders."""
    while _ordered:
        _ordered.pop().after.clear()


def count() -> tuple[int, int]:
    """How many classes there are after which something is known, and how many orders."""
    counts = [len(before.after) for before in list(_ordered) if before.after]
    return len(counts), sum(counts)


def check() -> None:
    """Verify that no cycle is remembered.

    Raises:
        CheckFailed: with the cycle.
    """
    for before in list(_ordered):
        for after, order in before.after.copy().items():
            cycle = find_path(after, {before: order})
            if cycle is not None:
                raise CheckFailed(f"the remembered lock orders have a cycle: {cycle}")
