"""What the lock validator says of a broken rule: what happened, where, why it is wrong, what to do."""

from __future__ import annotations

import linecache
import os
from collections.abc import Iterable
from typing import Protocol

from gpuvm.sync.lock_order import FENCE, Cycle, Lock, LockClass, Order, Place, stack


class Awaited(Protocol):
    """What the validator has to know of a fence."""

    @property
    def context(self) -> int:
        """Its timeline."""

    @property
    def seqno(self) -> int:
        """Its place there."""

    @property
    def contexts(self) -> Iterable[int]:
        """The timelines that it waits for: its own; of a container those of what is in it."""


def fence_label(fence: Awaited) -> str:
    """What reports call a fence."""
    name = f"fence {fence.context}:{fence.seqno}"
    if tuple(fence.contexts) == (fence.context,):
        return name
    return f"{name}, made of contexts {', '.join(map(str, fence.contexts))}"


def label(lock: Lock) -> str:
    """A lock and its class."""
    return f'"{lock.name}" (class {lock.lock_class.name})'


def relative(file: str) -> str:
    """A file as reports call it: from the working directory, if it is in there."""
    return file.removeprefix(os.path.join(os.getcwd(), ""))


def inversion(cycle: Cycle) -> str:
    """Somebody took them the other way round."""
    first, last, now = cycle.classes[0], cycle.classes[-1], cycle.orders[-1]
    lines = [
        f"lock order inversion: {now.task} {_takes(first)} {now.taken} while it {_holds(last)} {now.held}",
        f"   {' -> '.join(one.name for one in [*cycle.classes, first])}",
        "   where a -> b means that b was taken, or waited for, while a was held",
    ]
    after = [*cycle.classes[1:], first]
    for number, (before, taken, order) in enumerate(zip(cycle.classes, after, cycle.orders, strict=True), 1):
        lines.append(f"{number}. {_happened(before, taken, order, now is order)}:{_show(order.stack)}")
    lines.append("Whenever these meet in time, each waits for the next and none goes on.")
    lines.append(f"What to do: {_order_advice(cycle)}")
    return "\n".join(lines)


def recursion(task: str, lock: Lock) -> str:
    """Taken by whoever has it."""
    return (
        f"recursive locking: {task} takes {label(lock)}, which it holds already:{_show(stack())}\n"
        "It would wait for itself.\n"
        "What to do: lock it in one of the two places only, and assert_held in the other."
    )


def same_class(task: str, lock: Lock, other: Lock) -> str:
    """Two of one class without a common acquire context."""
    return (
        f"possible recursive locking: {task} takes {label(lock)} while it holds {label(other)} "
        f"of the same class, and not both under one acquire context:{_show(stack())}\n"
        "Another thread may take the two the other way round.\n"
        "What to do: take both under one acquire context; or, if their order is fixed, give them two classes."
    )


def reservation_inside(task: str, lock: Lock, signalling: str) -> str:
    """A reservation in a fence-signalling section."""
    return (
        f"reservation in a fence-signalling section: {task}, which has to signal {signalling}, "
        f"takes {label(lock)}:{_show(stack())}\n"
        "Whoever holds it may wait for just that fence.\n"
        "What to do: lock it before the fence is published; or trylock it, and do without if that fails."
    )


def foreign_wait(task: str, fence: str, signalling: str) -> str:
    """A wait for somebody else's fence in a fence-signalling section."""
    return (
        f"foreign wait in a fence-signalling section: {task}, which has to signal {signalling}, "
        f"waits for {fence}:{_show(stack())}\n"
        "That fence may in turn wait for ours.\n"
        "What to do: make it a dependency of the job, or wait for it before ours is published; if it cannot "
        "depend on ours, name its context in fence_signalling()."
    )


def not_held(call: str, task: str, lock: Lock, held: Iterable[Lock], advice: str) -> str:
    """A lock that this thread should hold and does not."""
    others = ", ".join(map(label, held)) or "nothing"
    return (
        f"{call}: {task} does not hold {label(lock)}; it holds {others}:{_show(stack())}\n"
        f"What to do: {advice}."
    )


def left_over(what: str, task: str, left: Iterable[str]) -> str:
    """The end of something after which nothing should be held."""
    return (
        f"{what} ended, and {task} still has {', '.join(left)}:{_show(stack())}\n"
        "What to do: release on every way out, most simply by `with`."
    )


def user_wait(what: str, task: str, left: Iterable[str]) -> str:
    """A wait that only user space can end, with something in hand."""
    return (
        f"{what}: {task} waits for user space, which may never do it, and has {', '.join(left)}:"
        f"{_show(stack())}\n"
        "What to do: wait before locking anything and before a fence is published."
    )


def _takes(taken: LockClass) -> str:
    return "waits for" if taken is FENCE else "takes"


def _holds(held: LockClass) -> str:
    return "has to signal" if held is FENCE else "holds"


def _happened(before: LockClass, taken: LockClass, order: Order, now: bool) -> str:
    """One order as a sentence."""
    if now:
        return f"{order.task}, which {_holds(before)} {order.held}, now {_takes(taken)} {order.taken}"
    had = "had to signal" if before is FENCE else "held"
    took = "waited for" if taken is FENCE else "took"
    return f"{order.task}, which {had} {order.held}, {took} {order.taken}"


def _order_advice(cycle: Cycle) -> str:
    classes, now = cycle.classes, cycle.orders[-1]
    if FENCE in classes:
        fence = classes.index(FENCE)
        waiting, inside = classes[fence - 1].name, classes[(fence + 1) % len(classes)].name
        return (
            f"do not hold {waiting} while waiting for a fence; or do not take {inside} between publishing "
            "a fence and signalling it."
        )
    known = " before ".join(one.name for one in classes)
    return (
        f"take the classes in one order everywhere, so far {known}; or let go of {now.held} before taking "
        f"{now.taken}; or trylock it, and back off if that fails."
    )


def _show(places: Iterable[Place]) -> str:
    """A stack as lines."""
    return "".join(f"\n      {_line(place)}" for place in places)


def _line(place: Place) -> str:
    source = linecache.getline(place.file, place.line).strip()
    return f"{relative(place.file)}:{place.line} in {place.function}" + (f": {source}" if source else "")
