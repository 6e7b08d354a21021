"""Watcher: ends waits whose caller has a signal to handle, or was killed.

A call that was received is not ended by a signal: ``WAIT_KILLABLE_RECV`` sees to that, so that nothing is
done twice. So a thread of ours looks every few milliseconds at the callers of those calls that last. Where
one has a signal to handle the thread that serves it is interrupted. If the driver is in a wait that a signal
may end the call comes back undone, and the answer is ``ERESTARTSYS``: the caller handles the signal, and then
the kernel repeats the call or ends it with ``EINTR``, as that signal's handler was set up.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, final

from gpuvm.device import signals
from gpuvm.device.notify import RESTART, Notification
from gpuvm.sync import lockdep, task
from gpuvm.sync.mutex import Mutex

TICK: Final = 2_000_000
"""ns from one round to the next while calls come and go."""

SLOW_TICK: Final = 8_000_000
"""ns from one round to the next while the same calls last."""

A_LOOK: Final = 250_000
"""ns that a round is made longer for each call that lasts: looking takes a tenth of a processor at most."""

_STEADY_ROUNDS: Final = 16
"""After so many rounds without a new call they become slow; without any call the watcher sleeps."""

STOP_TICK: Final = 16_000_000
"""ns from one look to the next at whether processes are being stopped."""

_SERVING: Final = lockdep.lock_class("gpuvm.device.interrupts.Serving")


@final
class Serving:
    """What the thread that makes this does. It alone sets ``call``, and calls ``end``.

    Args:
        hand_over: called where a call takes long, so that the thread does not do meanwhile what it should.

    ``end`` clears ``call`` first and looks at ``_touched`` next; who interrupts sets ``_touched`` first and
    looks at ``call`` next. So no interrupt is taken for the next call's, and a call that is not interrupted
    takes no lock.
    """

    __slots__ = ("_ending", "_lock", "_task", "_touched", "call", "hand_over")

    def __init__(self, hand_over: Callable[[], None]) -> None:
        self.hand_over: Final = hand_over
        self._task: Final = task.current()
        self.call: Notification | None = None
        self._touched = False
        self._ending: int | None = None
        self._lock: Final = Mutex("gpuvm.device.interrupts.Serving", _SERVING)

    def interrupt(self, call: Notification, ending: int) -> None:
        """End the wait in ``call``, if it is in one that can be, and have ``ending`` answered."""
        self._touched = True
        with self._lock:
            if self.call is call:
                self._ending = ending
                self._task.interrupt()

    def end(self) -> int | None:
        """The call came back: what to answer if it came back interrupted; None if nobody interrupted it."""
        self.call = None
        if not self._touched:
            return None
        with self._lock:
            self._touched = False
            self._task.forget_interrupt()
            ending, self._ending = self._ending, None
            return ending


@final
class _Lasting:
    """A call that lasts."""

    __slots__ = ("call", "decided", "serving", "shared", "since")

    def __init__(self, serving: Serving, call: Notification, since: int) -> None:
        self.serving = serving
        self.call = call
        self.since = since
        self.shared = 0
        """Signals that another thread might have handled since the last look, and had not."""
        self.decided = False
        """The caller looks for signals when the call ends, whatever has become of them."""


@dataclass(frozen=True, slots=True)
class WatcherStatistics:
    """A snapshot of the watcher."""

    lasting: int
    """Calls that last now."""
    looks: int
    """How often the signals of a caller were looked at."""
    interrupts: int
    """How often a wait was told to end because of a signal."""
    nudges: int
    """How often it had to be settled which thread of a process handles a signal."""
    killed: int
    """How often a wait was told to end because its caller was gone."""


@final
class Watcher:
    """One thread that looks after all calls that last.

    Locking: none; any thread may call anything.

    Args:
        is_valid: whether the caller of a call is still there (``Listener.is_valid``).
        servings: what the threads do; asked every round.
    """

    def __init__(self, is_valid: Callable[[int], bool], servings: Callable[[], Iterable[Serving]]) -> None:
        self._is_valid: Final = is_valid
        self._servings: Final = servings
        self._lasting: dict[Serving, _Lasting] = {}
        self._stops_seen = 0
        self._waiter: task.Waiter | None = None
        self._closed = False
        self.asleep = False
        """Nothing was to be seen for long; ``wake`` it when there is."""
        self._looks = self._interrupts = self._nudges = self._killed = 0

    def run(self) -> None:
        """Look until ``close``."""
        steady = 0
        while not self._closed:
            new = self._meet()
            self._look_at_all()
            steady = 0 if new else steady + 1
            if steady > _STEADY_ROUNDS and not self._lasting:
                steady = 0
                self._sleep()
                continue
            tick = SLOW_TICK if steady > _STEADY_ROUNDS else TICK
            self._waiter = waiter = task.Waiter()
            waiter.wait(task.now() + tick + A_LOOK * len(self._lasting))

    def _sleep(self) -> None:
        """Until a call comes."""
        self._waiter = waiter = task.Waiter()
        self.asleep = True
        if not self._closed and not any(serving.call for serving in self._servings()):
            waiter.wait()
        self.asleep = False

    def wake(self) -> None:
        """A call came while ``asleep``."""
        self.asleep = False
        waiter = self._waiter
        if waiter is not None:
            waiter.wake()

    def close(self) -> None:
        """Have ``run`` return soon."""
        self._closed = True
        self.wake()

    def _meet(self) -> bool:
        """Note which calls there are; True if one was not there a round ago."""
        new = False
        known, self._lasting = self._lasting, {}
        for serving in self._servings():
            call = serving.call
            if call is None:
                continue
            lasting = known.get(serving)
            if lasting is None or lasting.call is not call:
                lasting = _Lasting(serving, call, task.now())
                new = True
            self._lasting[serving] = lasting
        return new

    def _look_at_all(self) -> None:
        """End those waits that have to end, of those that were there a round ago."""
        now = task.now()
        stops = now - self._stops_seen >= STOP_TICK
        if stops:
            self._stops_seen = now
        stopping: dict[int, bool] = {}
        undecided: dict[int, list[_Lasting]] = {}
        for lasting in self._lasting.values():
            if now - lasting.since < TICK:
                continue
            lasting.serving.hand_over()
            caller = self._look(lasting)
            if caller is None:
                continue
            if lasting.shared & caller.shared:
                undecided.setdefault(caller.process, []).append(lasting)
            lasting.shared = caller.shared
            if stops and caller.threads > 1:
                if caller.process not in stopping:
                    stopping[caller.process] = signals.stopping(caller.process)
                if stopping[caller.process]:
                    self._restart(lasting)
        for process, candidates in undecided.items():
            self._decide(process, candidates)

    def _look(self, lasting: _Lasting) -> signals.Signals | None:
        """End the wait where it is plain that it has to; else what is known of its caller."""
        call = lasting.call
        if not self._is_valid(call.id):
            self._killed += 1
            lasting.serving.interrupt(call, -errno.EINTR)
            return None
        self._looks += 1
        caller = signals.read(call.pid)
        if caller is not None and (
            caller.own or (caller.shared and (lasting.decided or caller.threads == 1))
        ):
            self._restart(lasting)
            return None
        return caller

    def _decide(self, process: int, candidates: list[_Lasting]) -> None:
        """Choose who handles a signal for a process that all these threads of it could handle.

        The kernel prefers the first thread of a process. Where we may not settle it the oldest call ends with
        ``EINTR``, which any program repeats that calls by ``drmIoctl``; then it is the next one's turn.
        """
        candidates.sort(key=lambda lasting: lasting.since)
        first = next((lasting for lasting in candidates if lasting.call.pid == process), candidates[0])
        self._nudges += 1
        if signals.nudge(first.call.pid):
            first.decided = True
            self._restart(first)
        else:
            self._interrupts += 1
            candidates[0].serving.interrupt(candidates[0].call, -errno.EINTR)

    def _restart(self, lasting: _Lasting) -> None:
        self._interrupts += 1
        lasting.serving.interrupt(lasting.call, -RESTART)

    def statistics(self) -> WatcherStatistics:
        """What it did."""
        return WatcherStatistics(
            len(self._lasting), self._looks, self._interrupts, self._nudges, self._killed
        )
