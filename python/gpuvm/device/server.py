"""Server: threads that receive system calls, have handlers carry them out, and answer."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, final

from gpuvm.device.interrupts import Serving, Watcher, WatcherStatistics
from gpuvm.device.notify import CONTINUE, Listener, Notification
from gpuvm.errors import CheckFailed, GpuvmError, OutOfMemory
from gpuvm.sync import task, unraisable

Handler = Callable[[Notification], int]
"""Carries a call out: what to answer, minus an errno, or CONTINUE. It may sleep, and raise."""

_KEPT: Final = 4
"""How many threads stay when there is nothing to do."""

_LEFT_ALONE: Final = 100_000_000
"""ns after which a thread is left alone that an old kernel does not wake when the last process has ended."""


@dataclass(frozen=True, slots=True)
class ServerStatistics:
    """A snapshot of a server."""

    calls: int
    """Calls that were received."""
    by_number: Mapping[int, int]
    """The same, by the system call's number."""
    continued: int
    """How many of them were left to the kernel."""
    lost: int
    """Answers that came too late: the caller was gone."""
    refused: int
    """Calls that got ENOMEM because no more threads could be started."""
    failures: int
    """Handlers that failed with what is no ``GpuvmError``: bugs."""
    handed_over: int
    """How often a thread that was going to sleep, or took long, let another one receive."""
    threads: int
    most_threads: int
    """The most there were at once."""
    watcher: WatcherStatistics


class _Thread:
    """One thread's state and counts."""

    __slots__ = (
        "calls",
        "continued",
        "failures",
        "handed_over",
        "lead",
        "receiving",
        "refused",
        "serving",
        "waiter",
    )

    def __init__(self, hand_over: Callable[[_Thread], None]) -> None:
        self.serving: Final = Serving(partial(hand_over, self))
        self.lead: Final[list[None]] = []
        """One item while it is the one that receives. Who pops it has to give it to another."""
        self.waiter = task.Waiter()
        """Where it stands by."""
        self.receiving = False
        self.calls: Final[dict[int, int]] = {}
        self.continued = self.refused = self.failures = self.handed_over = 0


@final
class Server:
    """Serves the calls that a listener hands over: who sleeps delays nobody else.

    One thread leads: it receives a call, carries it out, answers, receives the next. Before it sleeps it
    hands the lead over to one that stands by, as the kernel's workqueues do; where it takes long without
    sleeping in a way that it could know of, the watcher does that for it. So calls that do not sleep are
    served by one thread, which waits for no other, not even for the interpreter's lock.

    Locking: any thread may call anything, and ``run`` once.

    Args:
        listener: not closed by the server.
        handlers: by the system call's number. A number that is not there is left to the kernel.
        most_threads: calls that may be in progress at once. One more gets ENOMEM.

    Source: ``wq_worker_sleeping``.
    """

    def __init__(
        self, listener: Listener, handlers: Mapping[int, Handler], *, most_threads: int = 1024
    ) -> None:
        self._listener: Final = listener
        self._handlers: Final = dict(handlers)
        self._limit: Final = most_threads
        self._threads: Final[dict[_Thread, None]] = {}
        self._standing_by: Final[list[_Thread]] = []
        self._starting: Final[list[None]] = []
        self._vacant: Final[list[None]] = [None]
        """The lead, while there is nobody to have it."""
        self._most = 0
        self._past: Final[list[_Thread]] = []
        """Those that ended."""
        self._told: Final[set[object]] = set()
        self._abandoned = False
        self._ended: task.Waiter | None = None
        self._watcher: Final = Watcher(listener.is_valid, self._servings)

    def _servings(self) -> list[Serving]:
        return [thread.serving for thread in list(self._threads)]

    def run(self) -> None:
        """Serve until no process is left that could make a call, and every call that was made has ended.

        Raises:
            OutOfMemory: no thread can be started.
        """
        none = "no thread can be started to serve the program; see `ulimit -u`"
        try:
            watching = task.start("gpuvm watcher", self._watcher.run)
        except RuntimeError as error:
            raise OutOfMemory(none) from error
        try:
            if not self._start():
                raise OutOfMemory(none)
            self._listener.wait_until_abandoned()
            self._dismiss()
            self._join()
        finally:
            self._watcher.close()
            watching.join()

    def _join(self) -> None:
        """Wait until no thread serves a call. What they wait for the watcher ends: all callers are gone."""
        self._watcher.wake()
        while True:
            self._ended = waiter = task.Waiter()
            if not self._threads:
                return
            if not waiter.wait(task.now() + _LEFT_ALONE) and all(
                thread.receiving for thread in list(self._threads)
            ):
                return

    def _start(self) -> bool:
        """Start one more thread; False if there can be none."""
        if len(self._threads) + len(self._starting) >= self._limit:
            return False
        self._starting.append(None)
        try:
            task.start("gpuvm server", self._run_thread)
        except (RuntimeError, MemoryError):  # none is left to this user, or to this machine
            self._starting.pop()
            return False
        return True

    def _run_thread(self) -> None:
        thread = _Thread(self._hand_over)
        task.current().before_sleep = thread.serving.hand_over
        self._threads[thread] = None
        self._most = max(self._most, len(self._threads))
        starting = True
        try:
            while self._stand_by(thread, starting):
                starting = False
                self._lead(thread)
        finally:
            self._past.append(thread)
            del self._threads[thread]
            if self._ended is not None:
                self._ended.wake()

    # -- the lead

    def _hand_over(self, thread: _Thread) -> None:
        """The thread is going to sleep in a call, or takes long: another one receives meanwhile."""
        if thread.lead and thread.serving.call is not None:
            try:
                thread.lead.pop()
            except IndexError:
                return  # the watcher, or the thread itself, was faster
            thread.handed_over += 1
            self._give_lead()

    def _give_lead(self) -> None:
        """Have one that stands by lead, or whoever stands by next."""
        try:
            thread = self._standing_by.pop()
        except IndexError:
            self._vacant.append(None)
            if self._standing_by:
                self._fill_vacancy()
            return
        thread.lead.append(None)
        thread.waiter.wake()

    def _fill_vacancy(self) -> None:
        try:
            self._vacant.pop()
        except IndexError:
            return
        self._give_lead()

    def _stand_by(self, thread: _Thread, starting: bool) -> bool:
        """Sleep until it is this thread's turn to lead; False if it is to end."""
        if not starting and len(self._standing_by) >= _KEPT:
            return False
        thread.waiter = task.Waiter()
        self._standing_by.append(thread)
        if starting:
            self._starting.pop()
        if self._vacant:
            self._fill_vacancy()
        if self._abandoned:
            self._dismiss()
        thread.waiter.wait()
        return bool(thread.lead)

    def _dismiss(self) -> None:
        """Nobody is left: who stands by ends, and who serves a call ends after it."""
        self._abandoned = True
        while self._standing_by:
            try:
                thread = self._standing_by.pop()
            except IndexError:
                return
            thread.waiter.wake()

    # -- calls

    def _lead(self, thread: _Thread) -> None:
        """Receive, carry out, answer, until another thread leads or nobody is left."""
        listener, standing_by = self._listener, self._standing_by
        if not standing_by and not self._starting:
            self._start()
        thread.receiving = True
        call = listener.receive()
        while call is not None:
            thread.receiving = False
            value = self._carry_out(thread, call)
            if not thread.lead:
                listener.answer(call.id, value)
                return
            thread.receiving = True
            call = listener.answer_and_receive(call.id, value)
        thread.receiving = False
        self._dismiss()
        thread.lead.clear()

    def _carry_out(self, thread: _Thread, call: Notification) -> int:
        """What to answer."""
        number = call.nr
        thread.calls[number] = thread.calls.get(number, 0) + 1
        handler = self._handlers.get(number)
        if handler is None:
            thread.continued += 1
            return CONTINUE
        if not self._standing_by and not self._starting and not self._start():
            thread.refused += 1
            return -errno.ENOMEM
        serving = thread.serving
        serving.call = call
        if self._watcher.asleep:
            self._watcher.wake()
        try:
            value = handler(call)
        except GpuvmError as error:
            value = -error.code
        except Exception as error:
            value = self._failed(thread, call, error)
        ending = serving.end()
        if value == CONTINUE:
            thread.continued += 1
        elif ending is not None and value == -errno.EINTR:
            return ending
        return value

    def _failed(self, thread: _Thread, call: Notification, error: Exception) -> int:
        """A bug in a handler: told once, and the program goes on with an error."""
        thread.failures += 1
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        place = type(error), trace and (trace.tb_frame.f_code, trace.tb_lineno)
        if place not in self._told:
            self._told.add(place)
            unraisable.report(error, f"the handler of system call {call.nr}")
        return -errno.EIO

    def check(self) -> None:
        """Verify that no thread is lost. Call it while no call is in progress.

        Raises:
            CheckFailed: with the state.
        """
        threads = list(self._threads)
        busy = [thread.serving.call for thread in threads if thread.serving.call is not None]
        leads = sum(len(thread.lead) for thread in threads) + len(self._vacant)
        if busy or leads > 1 or (leads == 0 and not self._abandoned):
            raise CheckFailed(
                f"calls in progress: {busy}; {len(threads)} threads, {len(self._starting)} that start, "
                f"{len(self._standing_by)} that stand by; {leads} leads, {len(self._vacant)} of them vacant"
            )
        self._listener.check()

    def statistics(self) -> ServerStatistics:
        """What was served until now."""
        threads = [*self._past, *list(self._threads)]
        by_number: Counter[int] = Counter()
        for thread in threads:
            by_number.update(dict(thread.calls))
        return ServerStatistics(
            by_number.total(),
            by_number,
            sum(thread.continued for thread in threads),
            self._listener.lost,
            sum(thread.refused for thread in threads),
            sum(thread.failures for thread in threads),
            sum(thread.handed_over for thread in threads),
            len(self._threads),
            self._most,
            self._watcher.statistics(),
        )
