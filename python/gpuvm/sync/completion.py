"""Completion: being done once, and who is told. The part of a fence in which threads race.

There is no lock. What can race is decided by one atomic operation of the interpreter: who completes it, by
who is first in a list; whether a callback still runs or is taken back, by who removes its ticket from a
dictionary; who has the driver watch, by who empties a list.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, Final

from gpuvm._core import require_stack
from gpuvm.sync import task
from gpuvm.sync.callbacks import run_callbacks
from gpuvm.sync.unraisable import report

_tickets = itertools.count()


_ROOM: Final = 12
"""Levels of the stack for waking a thread or telling a container."""


class Completion:
    """What a ``Fence`` is built on; its constructor makes what is annotated here."""

    __slots__ = ("_callbacks", "_done", "_error", "_unwatched")

    _callbacks: dict[int, Callable[[Any], object]]
    """By ticket, in the order in which they were added."""
    _done: list[tuple[int, int]]
    """When it was completed and with what error. Whoever is first in it has completed it."""
    _unwatched: list[bool]
    """Empty once the driver was told to watch."""
    _error: int
    """What was set before."""

    def _finish(self, timestamp: int | None = None, error: int = 0) -> bool:
        """Signal, with ``error`` or else what was set; False if somebody else was first."""
        done = self._done
        if done:
            return False
        if timestamp is None:
            timestamp = task.runtime.now()
        if self._callbacks:
            require_stack(_ROOM)  # RecursionError, if any, is raised here rather than in a callback
        mine = (timestamp, error or self._error)
        try:
            done.append(mine)
            if done[0] is mine and self._callbacks:
                if task.preempt is not None:
                    task.preempt()
                run_callbacks(self)
        except BaseException:  # it may have come, like Ctrl-C, between the claim and the callbacks
            if done and done[0] is mine:
                run_callbacks(self)
            raise
        return done[0] is mine

    def add_callback(self, callback: Callable[[Any], object]) -> bool:
        """Have ``callback(fence)`` called once when it is signalled, by the thread that signals.

        Returns:
            False if it is signalled already: the callback is not called (the kernel's ``-ENOENT``).

        Raises:
            Exception: what ``enable_signaling`` raises; the callback is not added.

        Source: ``dma_fence_add_callback``.
        """
        return self._add(callback) is not None

    def _add(self, callback: Callable[[Any], object], *, watch: bool = True) -> int | None:
        """Add a callback; the ticket to take it back with, None if the fence is signalled already."""
        if self._done or (watch and self._unwatched and not self._watch()):
            return None
        if task.preempt is not None:
            task.preempt()
        ticket = next(_tickets)
        self._callbacks[ticket] = callback
        if task.preempt is not None:
            task.preempt()
        # Signalled since: either the signaller found the ticket, or it is still there and we take it back.
        if self._done and self._callbacks.pop(ticket, None) is not None:
            return None
        return ticket

    def _add_for(self, others: object, callback: Callable[[Any], object]) -> int | None:
        """As ``_add``, on behalf of others: the caller cannot help it if the driver fails to watch.

        That is reported. The callback is added all the same, for the fence may be signalled unwatched.
        """
        try:
            return self._add(callback)
        except Exception as error:
            report(error, f"enable_signaling of {self!r} for {others!r}")
            if not self._watch_anyway():
                self._finish()
            return self._add(callback, watch=False)

    def _watch_anyway(self) -> bool:
        """Watch what can be watched, after ``enable_signaling`` failed; False if the fence is done."""
        return True

    def _remove(self, ticket: int) -> bool:
        """Take back what ``_add`` added; False if it was called or is being called."""
        return self._callbacks.pop(ticket, None) is not None

    def remove_callback(self, callback: Callable[[Any], object]) -> bool:
        """Take a callback back, the oldest that is equal; False if it was called, is being called or unknown.

        Cost: linear in the number of callbacks. Source: ``dma_fence_remove_callback``.
        """
        if task.preempt is not None:
            task.preempt()
        for ticket in list(self._callbacks):  # not its items: making pairs may start the collector
            known = self._callbacks.get(ticket)
            if known is not None and known == callback and self._remove(ticket):
                return True
        return False

    def enable_signaling(self) -> bool:
        """Hook: begin to watch for completion. Called once, before the first callback or sleep.

        If it raises, whoever asked for it gets that, and the next one that asks has it called again.
        Callbacks that other threads added meanwhile stay, until somebody succeeds or the fence is signalled.

        Returns:
            False if it is done already; then the fence is signalled at once.

        Source: ``dma_fence_ops.enable_signaling``.
        """
        return True

    def enable_sw_signaling(self) -> None:
        """Begin to watch for completion although nobody waits (``dma_fence_enable_sw_signaling``)."""
        if self._unwatched and not self._done:
            self._watch()

    def _watch(self) -> bool:
        """Call the hook if nobody did; False if the fence is signalled."""
        try:
            del self._unwatched[0]
        except IndexError:
            return True  # another thread was faster
        try:
            pending = self.enable_signaling()
        except BaseException:
            self._unwatched.append(True)
            raise
        if not pending:
            self._finish()
        return pending
