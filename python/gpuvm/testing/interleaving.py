"""Interleaving: real threads that run one at a time, in an order that a strategy chooses."""

from __future__ import annotations

import sys
import threading
from _thread import get_ident
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from types import ModuleType, TracebackType
from typing import Self, TypeVar, TypeVarTuple

from gpuvm.errors import Busy, CheckFailed
from gpuvm.sync import lockdep, task
from gpuvm.testing.clock import Clock
from gpuvm.testing.failure import OURS, Deadlock, Failure, Livelock, Stuck, locks_of
from gpuvm.testing.lines import Lines
from gpuvm.testing.strategy import Strategy, meant, pick
from gpuvm.testing.surroundings import taken_over
from gpuvm.testing.switches import Switches
from gpuvm.testing.thread import Controlled

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class _Unwind(BaseException):
    """Ends a thread that sleeps or waits for its turn when all is over."""


@dataclass(frozen=True, slots=True)
class RunStatistics:
    """A snapshot of an interleaving."""

    threads: int
    steps: int
    """Places at which another thread could have gone on."""
    choices: int
    """Steps with more than one thread to choose from: the length of ``schedule``."""
    switches: int
    """Steps at which another thread did go on."""
    now: int
    """The virtual clock, ns."""


class Interleaving:
    """Runs threads one at a time; a strategy chooses who goes on where one sleeps, wakes, starts or ends.

    ::

        with Interleaving(RandomWalk(17)) as run:
            mutex = Mutex("m")
            run.spawn(worker, mutex)
            run.spawn(worker, mutex)
            run.run()

    The strategy and the threads determine everything, so the same strategy gives the same run. To that end
    the clock is virtual: it stands still, and jumps to the nearest deadline when nobody can go on. And the
    garbage collector is off, which would come when whatever ran before has left enough. Threads change only
    inside the primitives, where those call ``task.preempt`` or sleep, or between lines after ``step_lines``.

    The thread that enters is the owner. It takes no part: what it does goes undisturbed, and when it sleeps,
    in ``run`` or in a primitive, the others go on until it is woken. Threads made by ``task.start`` are
    workers; those left over at the end are unwound by an exception where they sleep. Threads that are not
    controlled may use the primitives meanwhile, but nobody may wait for them. What a callback or a finalizer
    raises where nobody can catch it fails the run, too.

    Cost: 10 to 15 us a switch, 1 us a step without one, 100 us a thread.

    Args:
        strategy: chooses; a number is the seed of a ``RandomWalk``.

    Raises:
        InvalidArgument: the strategy is none.

    Raises, where the owner sleeps:
        Deadlock: nobody can go on.
        Livelock: more than ``STEPS`` steps.
        Stuck: no step for ``PATIENCE`` seconds of real time.
        what a controlled thread raised: with a note that tells which one, when, and how to repeat it.
    """

    STEPS = 1_000_000
    PATIENCE = 30.0

    def __init__(self, strategy: Strategy | int) -> None:
        self.strategy = meant(strategy)
        self.scenario = ""
        """What ``replay`` runs, for the note on a failure that tells how to repeat it."""
        self.schedule: list[int] = []
        """Who was chosen, each time there was a choice; ``Replay(schedule)`` repeats the run."""
        self._machine = task.Threads()
        self._owner: Controlled[object] = Controlled(-1, "owner", None, worker=True)
        self._running = self._owner
        self._threads: list[Controlled[object]] = []
        self._ready: list[int] = []
        self._clock = Clock()
        self._surroundings = ExitStack()
        self._unfinished = 0
        """Threads made by ``spawn`` that have not ended."""
        self._in_run = False
        self._owner_due = False
        """The owner goes on at the next step."""
        self._inside = False
        """The running thread is in here; a finalizer that gets in between can wake others, nothing else."""
        self._closing = False
        self._asking = False
        """Threads are not unwound yet, but tell which locks they hold."""
        self._failure: Failure | None = None
        self._lines: Lines | None = None
        self._steps = 0
        self._switches = Switches()

    # -- life

    def __enter__(self) -> Self:
        if isinstance(task.runtime, Interleaving):
            raise Busy(
                "Interleaving: another one is active, and only one can control the threads",
                self,
                task.runtime,
            )
        if self._closing:
            raise Busy("Interleaving: this one is over; make a new one", self)
        self.strategy.begin()
        self._owner.ident = get_ident()
        self._surroundings.enter_context(taken_over(self, self.preempt, self._on_unraisable))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        told = self._failure
        with self._surroundings:
            self._close()
        if error is None and self._failure is not None and self._failure is not told:
            self._note_how_to_repeat(self._failure.error)
            raise self._failure.error
        if error is not None:
            self._note_how_to_repeat(error)

    def spawn(self, function: Callable[[*Ts], T], *args: *Ts, name: str = "") -> Controlled[T]:
        """A thread that calls ``function(*args)``. It begins when it is chosen; ``run`` waits for its end.

        Args:
            name: what reports call it; default: the function's name and the thread's number.

        Raises:
            Busy: outside of the ``with`` block, or after a failure.
        """
        name = name or f"{getattr(function, '__name__', 'thread')}-{len(self._threads)}"
        return self._launch(name, lambda: function(*args), worker=False)

    def run(self) -> None:
        """Let the threads run until all that were spawned have ended and the workers have nothing to do.

        The clock does not move for workers alone. May be called again when more were spawned.

        Raises:
            Deadlock, Livelock, Stuck: see the class.
            what a thread raised: the first exception that left any of them.
            Busy: not in the owner, or outside of the ``with`` block.
        """
        if task.runtime is not self or get_ident() != self._owner.ident:
            raise Busy("run: only in the thread that entered the Interleaving, inside the with block", self)
        self._in_run = True
        try:
            self._let_run()
        finally:
            self._in_run = False

    def step_lines(self, *modules: ModuleType) -> None:
        """Let threads that are made from now on change before each line of these modules, too.

        For primitives that share data without a lock: their lines are what real threads interleave. The raw
        locks in ``with`` statements of these modules may be held meanwhile; nothing else may really block,
        so a module that shares such a lock with one of them must be among them. A later call replaces these.
        Cost: many more steps; 2 us each.
        """
        self._lines = Lines(modules, self.preempt)

    def advance(self, duration: int) -> None:
        """Move the clock by ``duration`` ns; those whose deadline has come can go on.

        Raises:
            InvalidArgument: it is negative, or no whole number.
        """
        for sleeper in self._clock.advance(duration):
            self._wake(sleeper)
        self.preempt()

    # -- the runtime of gpuvm.sync.task

    def now(self) -> int:
        """The virtual clock in ns."""
        return self._clock.now

    def preempt(self) -> None:
        """Perhaps another thread goes on. Nothing for the owner and for threads that are not controlled."""
        me = self._running
        if me.ident == get_ident() and me is not self._owner and not (self._inside or self._closing):
            self._inside = True
            self._switch(me, self._choose(me))

    def park(self, waiter: task.Waiter, deadline: int | None) -> None:
        """Sleep; the others go on."""
        me = self._running
        if me.ident != get_ident() or self._inside:
            self._machine.park(waiter, deadline)
            return
        if waiter.gate.acquire(False):
            return
        me.deadline = deadline
        self._clock.sleepers[waiter] = me
        try:
            if me is self._owner:
                self._let_run()
            elif self._closing:
                raise _Unwind
            else:
                self._inside = True
                self._ready.remove(me.number)
                self._switch(me, self._choose(None))
        finally:
            self._clock.sleepers.pop(waiter, None)

    def unpark(self, waiter: task.Waiter) -> None:
        """Wake who sleeps at ``waiter``; perhaps it goes on at once."""
        sleeper = self._clock.sleepers.pop(waiter, None)
        if sleeper is not None:
            self._wake(sleeper)
        else:
            self._machine.unpark(waiter)
        self.preempt()

    def start(self, name: str, target: Callable[[], None]) -> Controlled[None]:
        """A worker."""
        return self._launch(name, target, worker=True)

    # -- choosing

    def _choose(self, me: Controlled[object] | None) -> Controlled[object]:
        """Who goes on; ``me`` is the one that runs, if it can go on."""
        self._steps += 1
        if self._steps > self.STEPS:
            self._fail(Livelock(f"no end after {self.STEPS} steps; perhaps threads poll"))
        ready = self._ready
        while not self._owner_due:
            if len(ready) == 1:
                return self._threads[ready[0]]
            if ready:
                try:
                    running = None if me is None else me.number
                    number = pick(self.strategy, ready, running, len(self.schedule))
                except BaseException as error:
                    self._fail(error)
                    break
                self.schedule.append(number)
                return self._threads[number]
            if self._lines is not None and self._lines.let_in():
                continue
            if self._in_run and not self._unfinished:
                break
            woken = self._clock.jump()
            for sleeper in woken:
                self._wake(sleeper)
            if not woken:
                self._fail(Deadlock("nobody can go on"))
        return self._owner

    def _wake(self, sleeper: Controlled[object]) -> None:
        if sleeper is self._owner:
            self._owner_due = True
        else:
            self._ready.append(sleeper.number)

    def _switch(self, me: Controlled[object], chosen: Controlled[object]) -> None:
        """Hand the baton to ``chosen``, and wait until it comes back."""
        if chosen is me:
            self._inside = False
            return
        self._switches.add(self._steps, me.name, sys._getframe(1), chosen.name)
        self._give_baton(chosen)
        me.baton.acquire()
        if self._asking:
            me.held = locks_of(me.task)
            self._give_baton(self._owner)
            me.baton.acquire()
        if self._closing:
            raise _Unwind

    def _give_baton(self, chosen: Controlled[object]) -> None:
        self._running = chosen
        self._inside = False
        chosen.baton.release()

    # -- the life of a thread

    def _launch(self, name: str, target: Callable[[], T], worker: bool) -> Controlled[T]:
        if task.runtime is not self or self._closing:
            raise Busy(f'thread "{name}": its Interleaving is not entered yet, or over', self)
        thread = Controlled(len(self._threads), name, target, worker)
        self._threads.append(thread)
        thread.os_thread = threading.Thread(target=self._live, args=(thread,), name=name, daemon=True)
        thread.os_thread.start()
        self._ready.append(thread.number)
        if not worker:
            self._unfinished += 1
        self.preempt()
        return thread

    def _live(self, thread: Controlled[object]) -> None:
        thread.ident = get_ident()
        task.adopt(thread.task)
        thread.baton.acquire()
        try:
            if not self._closing:
                if self._lines is not None:
                    sys.settrace(self._lines.trace)
                thread.call()
                lockdep.check_nothing_held(repr(thread))
        except _Unwind:
            pass
        except BaseException as error:
            self._fail(error, thread)
        if self._lines is not None:
            sys.settrace(None)
        if self._running is thread:  # else it was given up
            self._end(thread)

    def _end(self, thread: Controlled[object]) -> None:
        self._inside = True
        thread.ended = True
        if not thread.worker:
            self._unfinished -= 1
        if self._closing:
            self._give_baton(self._owner)
            return
        self._ready.remove(thread.number)
        for joiner in thread.joiners:
            joiner.wake()
        chosen = self._choose(None)
        self._switches.add(self._steps, thread.name, None, chosen.name)
        self._give_baton(chosen)

    # -- the owner

    def _let_run(self) -> None:
        """Let the others go on until it is the owner's turn."""
        self._owner_due = self._failure is not None
        self._inside = True
        self._give_baton(self._choose(None))
        self._await_baton()
        if self._failure is not None:
            self._close()
            raise self._failure.error

    def _await_baton(self) -> None:
        steps = self._steps
        while not self._owner.baton.acquire(True, self.PATIENCE):
            if self._steps == steps:
                self._give_up(self._running)
            steps = self._steps

    def _give_up(self, thread: Controlled[object]) -> None:
        """Leave a thread to itself that does not come back."""
        why = "it blocks outside of gpuvm.sync.task, or computes for very long; it is left to itself"
        if self._lines is not None:
            why += ". If it stands at a raw lock, its module has to be among those of step_lines"
        self._fail(Stuck(f"{thread} did not reach a place to switch for {self.PATIENCE:g} s: {why}"))
        thread.ended = True
        thread.os_thread = None
        self._running = self._owner
        self._owner.baton.release()

    # -- the end

    def _close(self) -> None:
        """Unwind the threads that are left."""
        if self._closing:
            return
        if self._running is not self._owner:  # a signal's handler has torn the owner out of its sleep
            self._owner_due = True
            self._await_baton()
        self._closing = True
        self._ready.clear()
        if self._failure is not None:
            self._ask_for_locks()
        self._visit_those_left()
        for thread in self._threads:
            if thread.os_thread is not None:
                thread.os_thread.join()
        if self._failure is not None:
            self._failure.explain(self._owner.held, str(self._switches))

    def _ask_for_locks(self) -> None:
        """Before the first is unwound, and lets go of what the next one waits for."""
        if lockdep.held():
            self._owner.held = locks_of(task.current())
        self._asking = True
        self._visit_those_left()
        self._asking = False

    def _visit_those_left(self) -> None:
        for thread in self._threads:
            if not thread.ended:
                self._give_baton(thread)
                self._await_baton()

    def _fail(self, error: BaseException, thread: Controlled[object] | None = None) -> None:
        """Note the first failure; the owner goes on and raises it."""
        self._owner_due = True
        if self._failure is None:
            where = (
                "" if thread is None else f"in {thread}{', while it was unwound,' if self._closing else ''} "
            )
            left = [each for each in self._threads if not each.ended] if isinstance(error, OURS) else []
            when = f"{where}at step {self._steps}, {self._clock.now} ns"
            self._failure = Failure(error, when, left, self._clock.sleepers.values())

    def _on_unraisable(self, unraisable: sys.UnraisableHookArgs) -> None:
        error = unraisable.exc_value
        if error is not None and not isinstance(error, _Unwind):
            self._fail(error, self._running)

    def _note_how_to_repeat(self, error: BaseException) -> None:
        call = f"replay({self.scenario}, " if self.scenario else "Interleaving("
        error.add_note(f"  repeat: {call}{self.strategy!r})")

    # -- looking

    def check(self) -> None:
        """Verify that each thread that has not ended runs, is ready or sleeps. Call it in the owner.

        Raises:
            CheckFailed: with the state.
        """
        asleep = [sleeper.number for sleeper in self._clock.sleepers.values() if sleeper is not self._owner]
        left = [thread.number for thread in self._threads if not thread.ended]
        unfinished = sum(not self._threads[number].worker for number in left)
        if not self._closing and (sorted(self._ready + asleep) != left or unfinished != self._unfinished):
            raise CheckFailed(
                f"{self!r}: left {left}, ready {self._ready}, asleep {asleep}, {self._unfinished} to end"
            )

    def statistics(self) -> RunStatistics:
        """How far the run has come."""
        return RunStatistics(
            len(self._threads), self._steps, len(self.schedule), self._switches.count, self._clock.now
        )

    def __repr__(self) -> str:
        return f"<Interleaving({self.strategy!r}) at step {self._steps}>"
