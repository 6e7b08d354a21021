"""Tickets used wrongly: each mistake is told, and leaves the locks as they were."""

from __future__ import annotations

import pytest

from actors import actors
from gpuvm.errors import Contended, InvalidArgument, LockdepError
from gpuvm.sync import lockdep
from gpuvm.sync.ww_acquire import AcquireContext, AcquireStatistics, WwClass
from gpuvm.sync.ww_mutex import WwMutex

ONE, OTHER = WwClass("one", wait_die=True), WwClass("other", wait_die=True)


def test_a_ticket_of_another_class() -> None:
    lock = WwMutex(ONE, "x")
    with AcquireContext(OTHER) as ticket:
        for take in lock.lock, lock.trylock, lock.lock_slow:
            with pytest.raises(InvalidArgument, match='another class than "x"'):
                take(ticket)
    assert not lock.locked


def test_a_ticket_of_another_class_without_the_validator() -> None:
    """It is told where it would do harm, in the queue."""
    lockdep.disable()
    lock = WwMutex(ONE, "x")
    with (
        lock,
        AcquireContext(OTHER) as ticket,
        pytest.raises(InvalidArgument, match='another class than "x"'),
    ):
        lock.lock(ticket)
    lock.check()
    assert not lock.locked


def test_locking_when_done() -> None:
    lock = WwMutex(ONE, "x")
    with AcquireContext(ONE) as ticket:
        ticket.done()
        for take in lock.lock, lock.trylock:
            with pytest.raises(LockdepError, match="done with locking"):
                take(ticket)
    assert not lock.locked


def test_after_contention() -> None:
    """The contended one may be taken by ``lock`` too, once nothing is held; another one may not."""
    first, contended = WwMutex(ONE, "first"), WwMutex(ONE, "contended")
    with actors("old") as [old]:
        ticket: AcquireContext = old.do(AcquireContext, ONE).result
        old.do(contended.lock, ticket)
        with AcquireContext(ONE) as young:
            first.lock(young)
            with pytest.raises(Contended):
                contended.lock(young)
            with pytest.raises(LockdepError, match="got Contended"):
                contended.lock(young)
            first.unlock()
            with pytest.raises(LockdepError, match="got Contended"):
                first.lock(young)
            old.do(contended.unlock)
            contended.lock(young)
            young.check()
            assert young.statistics() == AcquireStatistics(young.stamp, acquired=1, gave_way=1)
            contended.unlock()
        old.do(ticket.fini)


def test_an_exception_with_locks_held_is_not_hidden() -> None:
    lock = WwMutex(ONE, "x")

    def fail() -> None:
        with AcquireContext(ONE) as ticket:
            lock.lock(ticket)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        fail()
    assert "holding 1> was ended with that" in "\n".join(caught.value.__notes__)
    lock.unlock()
    with AcquireContext(ONE) as next_one:
        lock.lock(next_one)
        lock.unlock()


def test_ending_with_locks_held() -> None:
    lock = WwMutex(ONE, "x")
    ticket = AcquireContext(ONE)
    lock.lock(ticket)
    with pytest.raises(InvalidArgument, match="must hold nothing"):
        ticket.fini()
    lock.unlock()
    ticket.fini()
