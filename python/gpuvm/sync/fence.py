"""Fence: something that is done later, once, and that others can wait for (the kernel's ``dma_fence``).

A fence has no lock, see ``completion``. So a finalizer or a signal handler, which Python runs between any two
steps of a thread, may use any fence, even the one that this thread is working on.
"""

from __future__ import annotations

import errno
import warnings
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from heapq import heappush
from typing import Any, ClassVar, Final

from gpuvm.errors import ERRNO_NAMES, CheckFailed, InvalidArgument
from gpuvm.sync import task
from gpuvm.sync.completion import Completion
from gpuvm.sync.fence_context import U64_MAX as U64_MAX
from gpuvm.sync.fence_context import check_u64 as check_u64
from gpuvm.sync.fence_context import fence_context_alloc as fence_context_alloc
from gpuvm.sync.fence_wait import Wait, resume_when_signalled

MAX_ERRNO: Final = 4095

WATCHED: Final[list[bool]] = []
"""What is in ``_unwatched`` if there is nobody to be told."""


def check_fence(call: str, fence: Fence) -> None:
    """Refuse what is no fence.

    Raises:
        TypeError: it is something else.
    """
    if not isinstance(fence, Fence):
        raise TypeError(f"{call}: {fence!r} is no fence")


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


class Fence(Completion):
    """Something that is done later, once. Any thread may call anything.

    Drivers that must be told to begin watching their hardware override ``enable_signaling``; those that can
    see by a look that it is done, ``poll``; those that can work faster for somebody in a hurry,
    ``set_deadline``.

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
        TypeError: one that is no integer.

    Source: ``struct dma_fence``, ``dma_fence_init64``.
    """

    __slots__ = (
        "__weakref__",
        "_deadlines",
        "context",
        "dont_pipeline",
        "driver",
        "seqno",
        "timeline",
    )

    _hooked: ClassVar[bool] = False
    """It brings a hook ``enable_signaling``."""

    relays: ClassVar[bool] = False
    """Its callbacks on other fences serve nobody but those who wait for it, as a container's do."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls._hooked = cls.enable_signaling is not Fence.enable_signaling

    def __init__(self, context: int, seqno: int, *, driver: str = "gpuvm", timeline: str = "") -> None:
        try:
            beyond = (context | seqno) >> 64  # of a negative number too something is left
        except TypeError:
            raise TypeError(f"Fence: context {context!r}, seqno {seqno!r}; both are integers") from None
        if beyond:
            raise InvalidArgument(
                f"Fence: context {context}, seqno {seqno}; both are u64", (context, seqno), U64_MAX
            )
        self._callbacks = {}
        self._done = []
        self._unwatched = [True] if self._hooked else WATCHED
        self._error = 0
        self._deadlines: list[int] = []
        """A heap of the moments that were asked for."""
        self.context = context
        self.seqno = seqno
        self.driver = driver
        self.timeline = timeline
        self.dont_pipeline = False

    @property
    def signalled(self) -> bool:
        """True once it is done. Looks with ``poll`` while it is not (``dma_fence_is_signaled``)."""
        if not self._done and self.poll():
            self._finish()
        return bool(self._done)

    @property
    def status(self) -> int:
        """0 while pending, 1 once done, -errno once done with an error (``dma_fence_get_status``)."""
        return -self._done[0][1] or 1 if self.signalled else 0

    @property
    def error(self) -> int:
        """The errno that was set, 0 if none; known before it is signalled."""
        return self._done[0][1] if self._done else self._error

    @property
    def timestamp(self) -> int | None:
        """When it was done, in ns of ``task.now``; None while pending."""
        return self._done[0][0] if self.signalled else None

    @property
    def deadline(self) -> int | None:
        """The earliest moment that anybody asked for, in ns; None if nobody did."""
        return self._deadlines[0] if self._deadlines else None

    @property
    def contexts(self) -> Sequence[int]:
        """The timelines that a wait for it waits for: its own; of a container those of what is in it."""
        return (self.context,)

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
        if self._done:
            raise InvalidArgument(f"set_error: {self!r} is signalled already; set the error before", error)
        self._error = error

    def signal(self, timestamp: int | None = None) -> None:
        """Declare it done: wake who waits and run the callbacks, in the order in which they came, here.

        They have run when this returns, with all that their own signals brought. But what a callback signals
        is called back after those that are due before, so not before its call of ``signal`` returns.
        A callback must not block; if it sleeps for a fence, what is due runs before. What it raises goes to
        ``sys.unraisablehook``; the others run all the same.

        Args:
            timestamp: when it was done, in ns of ``task.now``. Default: now.

        Raises:
            InvalidArgument: it was signalled before.
            RecursionError: the stack has no room for callbacks; nothing was done.

        Source: ``dma_fence_signal``, ``dma_fence_signal_timestamp``.
        """
        if task.preempt is not None:
            task.preempt()
        if not self._finish(timestamp):
            raise InvalidArgument(f"signal: {self!r} is signalled already; a fence is signalled once")
        if task.preempt is not None:
            task.preempt()

    def poll(self) -> bool:
        """Hook: look whether it is done, though nobody said so. Called when somebody looks and it is pending.

        If it returns True the fence is signalled at once; a ``signal`` that comes later is refused.
        It must not block, and may be called by several threads at once.

        Source: ``dma_fence_ops.signaled``.
        """
        return False

    def set_deadline(self, deadline: int) -> None:
        """Hint: somebody would like it done by ``deadline``, in ns of ``task.now``. The earliest counts.

        Also the hook for drivers and containers that pass it on. Source: ``dma_fence_set_deadline``.
        """
        deadlines = self._deadlines
        if not self._done and not (deadlines and deadlines[0] <= deadline):
            heappush(deadlines, deadline)

    def wait(self, timeout: float | None = None, *, interruptible: bool = False) -> bool:
        """Sleep until it is signalled. Its error, if it has one, is not raised; see ``status``.

        Args:
            timeout: in seconds; None for ever, 0 to look only, without ``enable_signaling``.
            interruptible: ``Task.interrupt`` ends the wait.

        Returns:
            False if the time was up before.

        Raises:
            InvalidArgument: the timeout is no number.
            Interrupted: ``interruptible``, and the task was interrupted.
            LockdepError: under the validator, where this thread must not wait for it.

        Source: ``dma_fence_wait_timeout``.
        """
        wait = Wait(self, task.deadline_after(timeout), interruptible)
        del self  # a fence is not kept by those who sleep, so that one which is dropped wakes them
        return wait.sleep()

    def wait_until(self, deadline: int | None, *, interruptible: bool = False) -> bool:
        """As ``wait``, with the moment to give up in ns of ``task.now``; None for never."""
        wait = Wait(self, deadline, interruptible)
        del self
        return wait.sleep()

    def __await__(self) -> Generator[Any, None, None]:
        """Suspend the asyncio task until it is signalled, by whatever thread."""
        return resume_when_signalled(self)

    def __del__(self) -> None:
        try:
            forgotten = self._callbacks and not self._done and self.awaited
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
                self._finish(error=errno.EDEADLK)

    def check(self) -> None:
        """Verify that its state fits together. Call it while no thread is inside one of its calls.

        Raises:
            CheckFailed: with the state.
        """
        error = self._done[0][1] if self._done else self._error
        if (self._done and self._callbacks) or not 0 <= error <= MAX_ERRNO:
            raise CheckFailed(
                f"{self!r}: signalled {self._done}, error {self._error}, "
                f"callbacks {list(self._callbacks.values())!r}"
            )

    def statistics(self) -> FenceStatistics:
        """Where it stands, and how many wait for it."""
        return FenceStatistics(
            self.context, self.seqno, self.status, len(self._callbacks), self.timestamp, self.deadline
        )

    def __repr__(self) -> str:
        if not self._done:
            state = "pending"
        elif self.error:
            state = ERRNO_NAMES.get(self.error, f"error {self.error}")
        else:
            state = "signalled"
        name = f"{self.driver}/{self.timeline}" if self.timeline else self.driver
        return f"<{type(self).__name__} {name} {self.context}:{self.seqno} {state}>"


_stub = Fence(0, 0, driver="stub")
_stub.signal()


def stub_fence() -> Fence:
    """The one fence that was always signalled: nothing to wait for (``dma_fence_get_stub``)."""
    return _stub
