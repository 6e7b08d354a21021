"""While a queue is guarded, nothing is made that could start the garbage collector, and so finalizers."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import pytest

from actors import actors
from gpuvm.errors import Contended, Interrupted
from gpuvm.sync import mutex, task
from gpuvm.sync.mutex import Mutex
from gpuvm.sync.ww_acquire import AcquireContext, WwClass
from gpuvm.sync.ww_mutex import WwMutex

ROUNDS = 50


@contextmanager
def collecting_often(watch: Callable[[], bool]) -> Iterator[list[bool]]:
    """Collect at every chance, and note whether ``watch()`` then."""
    seen: list[bool] = []

    def note(phase: Literal["start", "stop"], info: dict[str, int]) -> None:
        if phase == "start":
            seen.append(watch())

    before = gc.get_threshold()
    gc.callbacks.append(note)
    gc.set_threshold(1, 1, 1)
    gc.enable()
    try:
        yield seen
    finally:
        gc.disable()  # as actors have it
        gc.set_threshold(*before)
        gc.callbacks.remove(note)


def test_mutex() -> None:
    lock = Mutex("m")
    with actors("holder") as [holder]:
        holder.do(lock.lock)
        with collecting_often(mutex._queues.locked) as seen:
            for _ in range(ROUNDS):
                task.current().interrupt()
                with pytest.raises(Interrupted):
                    lock.lock(interruptible=True)
        holder.do(lock.unlock)
    assert len(seen) > ROUNDS
    assert not any(seen)


@pytest.mark.parametrize("wait_die", [True, False])
def test_ww_mutex(wait_die: bool) -> None:
    ww_class = WwClass("c", wait_die=wait_die)
    lock, mine = WwMutex(ww_class, "held"), WwMutex(ww_class, "mine")
    with actors("holder") as [holder]:
        ticket: AcquireContext = holder.do(AcquireContext, ww_class).result
        holder.do(lock.lock, ticket)
        with AcquireContext(ww_class) as young, collecting_often(ww_class.guard.locked) as seen:
            for _ in range(ROUNDS):
                task.current().interrupt()
                with pytest.raises(Interrupted):
                    lock.lock(young, interruptible=True)
                if wait_die:
                    mine.lock(young)
                    with pytest.raises(Contended):
                        lock.lock(young)
                    mine.unlock()
                    young.contending = None
                else:
                    task.current().interrupt()
                    with pytest.raises(Interrupted):
                        lock.lock(interruptible=True)
        holder.do(lock.unlock)
        holder.do(ticket.fini)
    assert len(seen) > ROUNDS
    assert not any(seen)
