"""The lock validator (the kernel's lockdep): order, held-ness, fence-signalling sections.

It finds a deadlock without one happening: it remembers which class of locks was taken while which other was
held, by any thread at any time, and objects to the first lock that closes a circle. Waiting for a fence is
seen as taking what everybody holds who has a fence to signal.

Primitives write ``if lockdep.enabled: lockdep.acquire(self)``, so while it is off it costs a look at a flag.
The environment variable ``GPUVM_LOCKDEP=1`` turns it on from the start.

Source: ``kernel/locking/lockdep.c``, ``drivers/dma-buf/dma-fence.c``.
"""

from __future__ import annotations

import os
import threading
import weakref
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Final

from gpuvm._core import forbid_allocation, watch_locks
from gpuvm.errors import CheckFailed, LockdepError
from gpuvm.sync import lock_order, lock_report, task
from gpuvm.sync.lock_order import FENCE, Lock, LockClass
from gpuvm.sync.lock_report import Awaited

__all__ = [
    "Lock",
    "LockClass",
    "LockdepStatistics",
    "acquire",
    "assert_held",
    "check",
    "check_nothing_held",
    "disable",
    "enable",
    "enabled",
    "fence_signalling",
    "held",
    "is_held",
    "lock_class",
    "might_wait",
    "might_wait_for_user",
    "release",
    "reset",
    "statistics",
]

VALIDATOR: Final = 0
"""Which watcher of locks this is, for ``watch_locks``."""

enabled = False
"""Whether anything is validated; ``enable`` and ``disable`` set it."""


@dataclass(frozen=True, slots=True)
class LockdepStatistics:
    """What the validator knows."""

    classes: int
    """Classes while one of which was held something was taken."""
    orders: int
    """Pairs of classes of which the second was taken while the first was held."""
    held: int
    """Locks that the calling thread holds."""
    sections: int
    """Fence-signalling sections that the calling thread is in."""


_Seen = dict[int, weakref.ref[Lock]]


class _Held:
    """What one thread holds of what was taken since the validator was enabled."""

    __slots__ = ("classes", "locks", "sections", "seen")

    def __init__(self, seen: _Seen) -> None:
        self.seen = seen
        self.locks: dict[int, tuple[Lock, object]] = {}
        """By id each lock and the acquire context it is held under, in the order in which they were taken."""
        self.classes: dict[LockClass, dict[object, int]] = {}
        """For each class that is held how many locks under which acquire context; FENCE in a section."""
        self.sections: list[_Section] = []

    def left(self) -> list[str]:
        """All of it in words."""
        sections = (f"a section that has to signal {section.words()}" for section in self.sections)
        return [*(lock_report.label(lock) for lock, _ in self.locks.values()), *sections]

    def words(self, taken: LockClass) -> dict[LockClass, str]:
        """What a report calls what is held of each class but ``taken``."""
        words = {lock.lock_class: lock_report.label(lock) for lock, _ in self.locks.values()}
        if self.sections:
            words[FENCE] = self.sections[-1].words()
        words.pop(taken, None)
        return words


class _Thread(threading.local):
    held: _Held | None = None


_classes: dict[str, LockClass] = {}
_thread = _Thread()
_seen: _Seen = {}
"""By id the locks that were taken since the validator was enabled; any other may be held from before.

Enabling and disabling replace it, and so end the time for which a thread's ``_Held`` is valid.
"""


def lock_class(name: str) -> LockClass:
    """The class of this name, the same for everybody; made when it is first asked for, and kept."""
    known = _classes.get(name)
    return known if known is not None else _classes.setdefault(name, LockClass(name))


# -- on and off


def enable() -> None:
    """Validate from now on, unless it is on. What is held already stays unknown: releasing it is no error."""
    if not enabled:
        _switch(True)


def disable() -> None:
    """Validate no more, and forget everything."""
    _switch(False)


def _switch(on: bool) -> None:
    global enabled, _seen
    enabled = on
    watch_locks(VALIDATOR, on)
    _seen = {}
    lock_order.forget()


def reset() -> None:
    """Forget all orders; what is held stays known."""
    lock_order.forget()


# -- locks


def acquire(lock: Lock, *, nest: object = None, trylock: bool = False) -> None:
    """This thread is about to take ``lock``, or with ``trylock`` just took it without having to wait.

    Who does not wait cannot complete a deadlock. So a trylock adds no order and is allowed everywhere, even
    for a reservation inside a fence-signalling section; what is taken while it is held does come after it.

    Args:
        lock: anything with a ``lock_class`` and a ``name``.
        nest: the acquire context under which several locks of one class may be held.
        trylock: it is taken already.

    Raises:
        LockdepError: this thread holds it, or holds one of its class not under the same ``nest``; it is a
            reservation and this a fence-signalling section; or the order closes a cycle. The message is the
            report. The lock does not count as held then.

    Cost: some dictionary look-ups; only an order that is new costs a stack and a search.

    Source: ``lock_acquire``, ``check_deadlock``, ``check_prevs_add``.
    """
    mine = _thread.held
    if mine is None or mine.seen is not _seen:
        mine = _begin()
    key, own = id(lock), lock.lock_class
    under = mine.classes.get(own)
    if not trylock:
        if under is not None and (key in mine.locks or nest is None or nest not in under or len(under) > 1):
            raise LockdepError(_twice(mine, lock))
        if mine.sections and own.reservation:
            signalling = mine.sections[-1].words()
            raise LockdepError(lock_report.reservation_inside(task.current().name, lock, signalling))
        for before in mine.classes:
            if own not in before.after and before is not own:
                _record(mine, own, lock_report.label(lock))
                break
    if key not in mine.seen:
        _see(mine.seen, lock)
    mine.locks[key] = lock, nest
    if under is None:
        mine.classes[own] = {nest: 1}
    else:
        under[nest] = under.get(nest, 0) + 1


def release(lock: Lock) -> None:
    """This thread lets go of ``lock``; locks may be released in any order.

    Raises:
        LockdepError: it does not hold it. One that was not taken since ``enable`` is let pass.

    Source: ``lock_release``.
    """
    mine = _thread.held
    if mine is None or mine.seen is not _seen:
        mine = _begin()
    entry = mine.locks.pop(id(lock), None)
    if entry is None:
        if id(lock) in mine.seen:
            raise _not_held("release", lock, "unlock it once, in the thread that locked it")
        return
    own, nest = lock.lock_class, entry[1]
    under = mine.classes[own]
    if under[nest] > 1:
        under[nest] -= 1
    else:
        del under[nest]
        if not under:
            del mine.classes[own]


def held() -> tuple[Lock, ...]:
    """The locks that this thread holds, in the order in which they were taken; none while it is off."""
    return tuple(lock for lock, _ in _mine().locks.values()) if enabled else ()


def is_held(lock: Lock) -> bool:
    """Whether this thread holds ``lock``; False while the validator is off (``lockdep_is_held``)."""
    return enabled and id(lock) in _mine().locks


def assert_held(lock: Lock) -> None:
    """Verify that this thread holds ``lock``; nothing while the validator is off (``lockdep_assert_held``).

    Raises:
        LockdepError: it does not.
    """
    if enabled and id(lock) not in _mine().locks:
        raise _not_held("assert_held", lock, "lock it before the call that needs it")


def check_nothing_held(what: str) -> None:
    """Verify at the end of ``what``, such as a worker or an ioctl, that this thread holds nothing.

    Raises:
        LockdepError: it holds locks, or is in a fence-signalling section; the message lists them.

    Source: ``debug_check_no_locks_held``, ``lockdep_sys_exit``.
    """
    if enabled and (left := _mine().left()):
        raise LockdepError(lock_report.left_over(what, task.current().name, left))


# -- fences


def might_wait(fence: Awaited) -> None:
    """This thread is about to wait for ``fence``, even if it turns out to be signalled.

    Raises:
        LockdepError: this is a fence-signalling section, and not of the fence's contexts; or a lock is held
            that somebody takes inside such a section, so that the fence may wait for this thread.

    Source: ``__dma_fence_might_wait``.
    """
    if not enabled:
        return
    mine = _mine()
    for section in mine.sections:
        if not set(section.contexts).issuperset(fence.contexts):
            report = lock_report.foreign_wait(
                task.current().name, lock_report.fence_label(fence), section.words()
            )
            raise LockdepError(report)
    for before in mine.classes:
        if FENCE not in before.after and before is not FENCE:
            _record(mine, FENCE, lock_report.fence_label(fence))
            break


def might_wait_for_user(what: str) -> None:
    """This thread is about to wait for something that user space may never do.

    Raises:
        LockdepError: it holds locks, or is in a fence-signalling section; the message lists them.
    """
    if enabled and (left := _mine().left()):
        raise LockdepError(lock_report.user_wait(what, task.current().name, left))


_OFF: Final = nullcontext()


def fence_signalling(*contexts: int) -> AbstractContextManager[None]:
    """``with`` this around what lies between publishing fences of ``contexts`` and signalling them.

    Others may wait for them meanwhile, with reservations in hand, or because they need memory. So inside it
    is an error to lock a reservation, to make the core allocate, and to wait for fences of other contexts,
    which may wait for ours. Sections nest; then the rules of all apply. Beginning one is ordered after
    nothing; what is locked inside is ordered after it.

    Locking: one thread. Source: ``dma_fence_begin_signalling``, ``dma_fence_end_signalling``.
    """
    return _Section(contexts) if enabled else _OFF


class _Section:
    """One ``with fence_signalling(...)``."""

    __slots__ = ("_held", "contexts")

    def __init__(self, contexts: tuple[int, ...]) -> None:
        self.contexts = contexts
        self._held = _mine()

    def words(self) -> str:
        """What has to be signalled, for reports."""
        if not self.contexts:
            return "a fence"
        return f"fences of context {', '.join(map(str, self.contexts))}"

    def __enter__(self) -> None:
        self._held.sections.append(self)
        self._held.classes.setdefault(FENCE, {})
        forbid_allocation(True)

    def __exit__(self, *_: object) -> None:
        forbid_allocation(False)
        self._held.sections.remove(self)
        if not self._held.sections:
            del self._held.classes[FENCE]


# -- the whole


def check() -> None:
    """Verify what is known of orders and of what this thread holds.

    Raises:
        CheckFailed: with the state.
    """
    lock_order.check()
    mine = _mine()
    counts: dict[LockClass, dict[object, int]] = {FENCE: {}} if mine.sections else {}
    for lock, nest in mine.locks.values():
        under = counts.setdefault(lock.lock_class, {})
        under[nest] = under.get(nest, 0) + 1
    if counts != mine.classes:
        raise CheckFailed(f"this thread's locks are counted as {mine.classes}, but are {counts}")


def statistics() -> LockdepStatistics:
    """How much is known."""
    mine = _mine()
    classes, orders = lock_order.count()
    return LockdepStatistics(classes, orders, len(mine.locks), len(mine.sections))


def _mine() -> _Held:
    mine = _thread.held
    return mine if mine is not None and mine.seen is _seen else _begin()


def _begin() -> _Held:
    """This thread's first call since the validator was enabled."""
    mine = _thread.held = _Held(_seen)
    return mine


def _see(seen: _Seen, lock: Lock) -> None:
    """Remember ``lock`` as long as it lives, if it can be referenced weakly."""
    if type(lock).__weakrefoffset__:
        key = id(lock)
        seen[key] = weakref.ref(lock, lambda _: seen.pop(key, None))


def _record(mine: _Held, taken: LockClass, name: str) -> None:
    """Some order is new."""
    cycle = lock_order.record(task.current().name, mine.words(taken), taken, name)
    if cycle is not None:
        raise LockdepError(lock_report.inversion(cycle))


def _twice(mine: _Held, lock: Lock) -> str:
    """It, or one of its class, is held already."""
    if id(lock) in mine.locks:
        return lock_report.recursion(task.current().name, lock)
    other = next(one for one, _ in mine.locks.values() if one.lock_class is lock.lock_class)
    return lock_report.same_class(task.current().name, lock, other)


def _not_held(call: str, lock: Lock, advice: str) -> LockdepError:
    return LockdepError(lock_report.not_held(call, task.current().name, lock, held(), advice))


if os.environ.get("GPUVM_LOCKDEP") == "1":
    enable()
