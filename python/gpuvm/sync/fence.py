"""Fence: something that is done later, once, and that others can wait for (the kernel's ``dma_fence``).

A fence has no lock. Whatever can race is decided by one atomic operation of the interpreter: who signals, by
removing an entry from a list; whether a callback still runs or is taken back, by popping its ticket from a
dictionary. So a finalizer or a signal handler, which Python runs between any two steps of a thread, may use
any fence, even the one that this thread is working on.
"""

from __future__ import annotations

import errno
import itertools
import warnings
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from gpuvm.errors import ERRNO_NAMES, CheckFailed, InvalidArgument
from gpuvm.sync import lockdep, task
from gpuvm.sync.unraisable import report

U64_MAX: Final = 2**64 - 1
MAX_ERRNO: Final = 4095

_SIGNAL: Final = 1
_ENABLE: Final = 2
_contexts = itertools.count(1)
_tickets = itertools.count()


def fence_context_alloc(count: int = 1) -> int:
    """The first of ``count`` fresh contexts with successive numbers. Any thread.

    Raises:
        InvalidArgument: ``count`` is less than 1.

    Source: ``dma_fence_context_alloc``.
    """
    if count < 1:
        raise InvalidArgument(f"fence_context_alloc: count is {count}; ask for at least 1", count, 1)
    while True:
        numbers = [next(_contexts) for _ in range(count)]
        if numbers[-1] - numbers[0] == count - 1:
            return numbers[0]
        # another thread took one in between: these are left out


@dataclass(frozen=True, slots=True)
class FenceStatistics:
    """A snapshot of one fence."""

    context: int
    seqno: int
    status: int
    """0 pending, 1 done, -errno done with an error."""
    callbacks: int
    """How many wait to be called, sleepers included."""
    timestamp: int | None
    deadline: int | None


class Fence:
    """Something that is done later, once. Any thread may call anything.

    Drivers that must be told to begin watching their hardware override ``enable_signaling``; those that can
    work faster for somebody in a hurry override ``set_deadline``.

    Args:
        context: the timeline it lies on, of ``fence_context_alloc``. Fences of one context signal in order.
        seqno: its place there. Always compared as 64 bit.
        driver: who will signal it, for reports.
        timeline: what it lies on, for reports.

    Attributes:
        dont_pipeline: the scheduler must wait for this fence itself, not only until its job is on the ring
            before (``DRM_SCHED_FENCE_DONT_PIPELINE``).

    Raises:
        InvalidArgument: a number that is not a u64.

    Source: ``struct dma_fence``, ``dma_fence_init64``.
    """

    __slots__ = (
        "__weakref__",
        "_callbacks",
        "_deadline",
        "_error",
        "_signalled",
        "_timestamp",
        "_unclaimed",
        "context",
        "dont_pipeline",
        "driver",
        "seqno",
        "timeline",
    )

    relays: ClassVar[bool] = False
    """Its callbacks on other fences serve nobody but those who wait for it, as a container's do."""

    def __init__(self, context: int, seqno: int, *, driver: str = "gpuvm", timeline: str = "") -> None:
        self._callbacks: dict[int, Callable[[Any], object]] = {}
        self._unclaimed = [_SIGNAL, _ENABLE]
        """What nobody did yet; whoever removes an entry does it."""
        self._signalled = False
        self._error = 0
        self._timestamp: int | None = None
        self._deadline: int | None = None
        self.context = context
        self.seqno = seqno
        self.driver = driver
        self.timeline = timeline
        self.dont_pipeline = False
        if not (0 <= seqno <= U64_MAX and 0 <= context <= U64_MAX):
            raise InvalidArgument(
                f"Fence: context {context}, seqno {seqno}; both are u64", (context, seqno), U64_MAX
            )

    @property
    def signalled(self) -> bool:
        """True once it is done. Containers look at what they contain (``dma_fence_is_signaled``)."""
        return self._signalled

    @property
    def status(self) -> int:
        """0 while pending, 1 once done, -errno once done with an error (``dma_fence_get_status``)."""
        if not self.signalled:
            return 0
        return -self._error or 1

    @property
    def error(self) -> int:
        """The errno that was set, 0 if none; known before it is signalled."""
        return self._error

    @property
    def timestamp(self) -> int | None:
        """When it was done, in ns of ``task.now``; None while pending."""
        return self._timestamp if self.signalled else None

    @property
    def deadline(self) -> int | None:
        """The earliest moment that anybody asked for, in ns; None if nobody did."""
        return self._deadline

    @property
    def awaited(self) -> bool:
        """True while a callback or a sleeper waits for it, be it through a container."""
        for callback in list(self._callbacks.values()):
            owner = getattr(callback, "__self__", None)
            if not (isinstance(owner, Fence) and owner.relays) or owner.awaited:
                return True
        return False

    def is_later(self, other: Fence) -> bool:
        """True if it comes after ``other`` on their timeline.

        Raises:
            InvalidArgument: they lie on different timelines, where there is no order.

        Source: ``dma_fence_is_later``.
        """
        if self.context != other.context:
            raise InvalidArgument(
                f"is_later: {self!r} and {other!r} are of different contexts; there is no order between them",
                other.context,
                self.context,
            )
        return self.seqno > other.seqno

    def set_error(self, error: int) -> None:
        """Note why it will not have done what it stands for. To be called by whoever will signal it.

        Args:
            error: a positive errno, e.g. ``errno.ECANCELED``.

        Raises:
            InvalidArgument: no errno, or signalled already.

        Source: ``dma_fence_set_error``.
        """
        if not 0 < error <= MAX_ERRNO:
            raise InvalidArgument(
                f"set_error: {error} is no errno; pass a positive one, e.g. errno.ECANCELED", error, MAX_ERRNO
            )
        if self._signalled:
            raise InvalidArgument(f"set_error: {self!r} is signalled already; set the error before", error)
        self._error = error

    def signal(self, timestamp: int | None = None) -> None:
        """Declare it done: wake who waits and run the callbacks, in the order in which they came, here.

        What a callback raises goes to ``sys.unraisablehook``; the others run all the same.

        Args:
            timestamp: when it was done, in ns of ``task.now``. Default: now.

        Raises:
            InvalidArgument: it was signalled before.

        Source: ``dma_fence_signal``, ``dma_fence_signal_timestamp``.
        """
        if task.preempt is not None:
            task.preempt()
        if not self._finish(timestamp):
            raise InvalidArgument(f"signal: {self!r} is signalled already; a fence is signalled once")
        if task.preempt is not None:
            task.preempt()

    def _finish(self, timestamp: int | None = None) -> bool:
        """Signal; False if somebody else did or is about to."""
        try:
            self._unclaimed.remove(_SIGNAL)
        except ValueError:
            return False
        self._timestamp = task.runtime.now() if timestamp is None else timestamp
        self._signalled = True
        if self._callbacks:
            self._run_callbacks()
        return True

    def _run_callbacks(self) -> None:
        if task.preempt is not None:
            task.preempt()
        callbacks = self._callbacks
        stopped: BaseException | None = None
        for ticket in list(callbacks):
            callback = callbacks.pop(ticket, None)
            if callback is None:
                continue  # taken back in the meantime
            try:
                callback(self)
            except Exception as error:
                report(error, f"callback {callback!r} of {self!r}")
            except BaseException as error:  # somebody ends the program; the others still must not hang
                stopped = error
        if stopped is not None:
            raise stopped

    def add_callback(self, callback: Callable[[Any], object]) -> bool:
        """Have ``callback(fence)`` called once when it is signalled, by the thread that signals.

        Returns:
            False if it is signalled already: the callback is not called (the kernel's ``-ENOENT``).

        Source: ``dma_fence_add_callback``.
        """
        if self._signalled or not self._enable():
            return False
        if task.preempt is not None:
            task.preempt()
        callbacks = self._callbacks
        ticket = next(_tickets)
        callbacks[ticket] = callback
        if task.preempt is not None:
            task.preempt()
        if not self._signalled:
            return True
        # Signalled since: either the signaller found the ticket, or it is still there and we take it back.
        return callbacks.pop(ticket, None) is None

    def remove_callback(self, callback: Callable[[Any], object]) -> bool:
        """Take a callback back, the oldest that is equal; False if it was called, is being called or unknown.

        Cost: linear in the number of callbacks. Source: ``dma_fence_remove_callback``.
        """
        if task.preempt is not None:
            task.preempt()
        callbacks = self._callbacks
        for ticket, known in list(callbacks.items()):
            if known == callback and callbacks.pop(ticket, None) is not None:
                return True
        return False

    def enable_signaling(self) -> bool:
        """Hook: begin to watch for completion. Called once, before the first callback or sleep.

        Returns:
            False if it is done already; then the fence is signalled at once.

        Source: ``dma_fence_ops.enable_signaling``.
        """
        return True

    def enable_sw_signaling(self) -> None:
        """Begin to watch for completion although nobody waits (``dma_fence_enable_sw_signaling``)."""
        if not self._signalled:
            self._enable()

    def _enable(self) -> bool:
        """Call the hook if nobody did; False if the fence is signalled."""
        if _ENABLE in self._unclaimed:
            try:
                self._unclaimed.remove(_ENABLE)
            except ValueError:
                return True  # another thread was faster
            if not self.enable_signaling():
                self._finish()
                return False
        return True

    def set_deadline(self, deadline: int) -> None:
        """Hint: somebody would like it done by ``deadline``, in ns of ``task.now``. The earliest counts.

        Also the hook for drivers and containers that pass it on. Source: ``dma_fence_set_deadline``.
        """
        if not self._signalled and (self._deadline is None or deadline < self._deadline):
            self._deadline = deadline  # no thread is switched between the comparison and this

    def wait(self, timeout: float | None = None, *, interruptible: bool = False) -> bool:
        """Sleep until it is signalled. Its error, if it has one, is not raised; see ``status``.

        Args:
            timeout: in seconds; None for ever, 0 to look only.
            interruptible: ``Task.interrupt`` ends the wait.

        Returns:
            False if the time was up before.

        Raises:
            Interrupted: ``interruptible``, and the task was interrupted.
            LockdepError: under the validator, where this thread must not wait for it.

        Source: ``dma_fence_wait_timeout``.
        """
        return self.wait_until(task.deadline_after(timeout), interruptible=interruptible)

    def wait_until(self, deadline: int | None, *, interruptible: bool = False) -> bool:
        """As ``wait``, with the moment to give up in ns of ``task.now``; None for never."""
        if lockdep.enabled:
            lockdep.might_wait(self)
        if self.signalled:
            return True
        waiter = task.Waiter()

        def wake(_fence: Fence) -> None:
            waiter.wake()

        if not self.add_callback(wake):
            return True
        try:
            waiter.wait(deadline, interruptible=interruptible)
        finally:
            in_time = not self.remove_callback(wake)
        return in_time

    def __await__(self) -> Generator[Any, None, None]:
        """Suspend the asyncio task until it is signalled, by whatever thread."""
        import asyncio

        loop = asyncio.get_running_loop()
        future = loop.create_future()

        def resume() -> None:
            if not future.done():
                future.set_result(None)

        def wake(_fence: Fence) -> None:
            loop.call_soon_threadsafe(resume)

        if self.signalled or not self.add_callback(wake):
            return
        try:
            yield from future
        finally:
            self.remove_callback(wake)

    def __del__(self) -> None:
        try:
            forgotten = self._callbacks and not self._signalled and self.awaited
        except AttributeError:
            return  # it was never made: a subclass refused before this class began
        if forgotten:
            try:
                warnings.warn(
                    f"{self!r} was dropped unsignalled while {len(self._callbacks)} callbacks wait; it is "
                    "signalled with EDEADLK. Whoever makes a fence must signal it, if need be with an error",
                    RuntimeWarning,
                    stacklevel=2,
                )
            finally:
                self._error = errno.EDEADLK
                self._finish()

    def check(self) -> None:
        """Verify that its state fits together. Call it while no thread is inside one of its calls.

        Raises:
            CheckFailed: with the state.
        """
        claimed = _SIGNAL not in self._unclaimed
        consistent = (
            claimed == self._signalled
            and (self._timestamp is not None) == self._signalled
            and not (self._signalled and self._callbacks)
            and 0 <= self._error <= MAX_ERRNO
        )
        if not consistent:
            raise CheckFailed(
                f"{self!r}: claimed {claimed}, signalled {self._signalled}, timestamp {self._timestamp}, "
                f"error {self._error}, callbacks {list(self._callbacks.values())!r}"
            )

    def statistics(self) -> FenceStatistics:
        """Where it stands, and how many wait for it."""
        return FenceStatistics(
            self.context, self.seqno, self.status, len(self._callbacks), self._timestamp, self._deadline
        )

    def __repr__(self) -> str:
        if not self._signalled:
            state = "pending"
        elif self._error:
            state = ERRNO_NAMES.get(self._error, f"error {self._error}")
        else:
            state = "signalled"
        name = f"{self.driver}/{self.timeline}" if self.timeline else self.driver
        return f"<{type(self).__name__} {name} {self.context}:{self.seqno} {state}>"


_stub = Fence(0, 0, driver="stub")
_stub.signal()


def stub_fence() -> Fence:
    """The one fence that was always signalled: nothing to wait for (``dma_fence_get_stub``)."""
    return _stub
