"""The lock validator: order across threads, recursion, what is held, on and off."""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from gpuvm.errors import CheckFailed, LockdepError
from gpuvm.sync import lock_order, lockdep
from gpuvm.sync.lock_order import Cycle, Order
from gpuvm.sync.lockdep import LockClass, lock_class
from gpuvm.sync.mutex import Mutex
from locks import Bare, Point, bare, in_thread, nested, report_of

# -- order


def test_inversion_of_two_in_threads_that_never_meet() -> None:
    vm, bo = Mutex("vm 1", lock_class("vm")), Mutex("bo 7", lock_class("bo"))
    assert in_thread("binder", nested, vm, bo) is None
    report = report_of("evictor", nested, bo, vm)
    assert report.splitlines()[0] == (
        'lock order inversion: evictor takes "vm 1" (class vm) while it holds "bo 7" (class bo)'
    )
    assert "vm -> bo -> vm" in report
    assert '1. binder, which held "vm 1" (class vm), took "bo 7" (class bo):' in report
    assert '2. evictor, which holds "bo 7" (class bo), now takes "vm 1" (class vm):' in report
    assert "What to do: take the classes in one order everywhere, so far vm before bo" in report


def test_inversion_is_between_classes_not_locks() -> None:
    of_vm, of_bo = lock_class("vm"), lock_class("bo")
    assert in_thread("a", nested, Mutex("vm 1", of_vm), Mutex("bo 1", of_bo)) is None
    assert in_thread("b", nested, Mutex("bo 2", of_bo), Mutex("vm 2", of_vm)) is not None


def test_inversion_of_three() -> None:
    a, b, c = Mutex("a"), Mutex("b"), Mutex("c")
    assert in_thread("one", nested, a, b) is None
    assert in_thread("two", nested, b, c) is None
    report = report_of("three", nested, c, a)
    assert "a -> b -> c -> a" in report
    steps = re.findall(r"^(\d)\. (\w+), which", report, re.MULTILINE)
    assert steps == [("1", "one"), ("2", "two"), ("3", "three")]


def test_inversion_shows_the_shortest_way() -> None:
    a, b, c = Mutex("a"), Mutex("b"), Mutex("c")
    for names in ((a, b), (b, c), (a, c)):
        assert in_thread("known", nested, *names) is None
    assert "   a -> c -> a\n" in report_of("wrong", nested, c, a)


def test_everything_held_counts_not_only_the_last() -> None:
    a, b, c = Mutex("a"), Mutex("b"), Mutex("c")
    assert in_thread("one", nested, a, b, c) is None
    assert lockdep.statistics().orders == 3
    assert "   a -> c -> a\n" in report_of("two", nested, c, a)


def test_inversion_in_one_thread() -> None:
    a, b = Mutex("a"), Mutex("b")
    nested(a, b)
    b.lock()
    with pytest.raises(LockdepError, match="a -> b -> a"):
        a.lock()
    assert not a.locked
    assert lockdep.held() == (b,)
    b.unlock()


def test_report_shows_where_each_was_taken() -> None:
    a, b = Mutex("a"), Mutex("b")

    def bind() -> None:
        with a:
            b.lock()
        b.unlock()

    def evict() -> None:
        with b, a:
            pass

    assert in_thread("one", bind) is None
    report = report_of("two", evict)
    places = re.findall(r"^ +(\S+):\d+ in (\w+): (.*)$", report, re.MULTILINE)
    assert [(function, source) for _, function, source in places] == [
        ("bind", "b.lock()"),
        ("run", "function(*args)"),
        ("evict", "with b, a:"),
        ("run", "function(*args)"),
    ]
    files = [os.path.basename(file) for file, _, _ in places]
    assert files == ["test_lockdep.py", "locks.py"] * 2


def test_after_a_report_nothing_is_remembered_of_it() -> None:
    a, b = Mutex("a"), Mutex("b")
    assert in_thread("one", nested, a, b) is None
    before = lockdep.statistics()
    for _ in range(2):
        assert in_thread("two", nested, b, a) is not None
    assert lockdep.statistics() == before
    assert in_thread("three", nested, a, b) is None


def test_trylock_adds_no_order() -> None:
    a, b = Mutex("a"), Mutex("b")

    def backwards() -> None:
        with b:
            assert a.trylock()
            a.unlock()

    assert in_thread("one", nested, a, b) is None
    assert in_thread("two", backwards) is None


def test_what_is_taken_after_a_trylock_is_ordered() -> None:
    a, b = Mutex("a"), Mutex("b")

    def tried_first() -> None:
        assert b.trylock()
        try:
            nested(a)
        finally:
            b.unlock()

    assert in_thread("one", nested, a, b) is None
    assert "a -> b -> a" in report_of("two", tried_first)


def test_release_in_any_order_keeps_the_order_right() -> None:
    a, b, c = Mutex("a"), Mutex("b"), Mutex("c")
    a.lock()
    b.lock()
    a.unlock()
    c.lock()
    assert lockdep.held() == (b, c)
    b.unlock()
    c.unlock()
    assert lockdep.statistics().orders == 2
    assert in_thread("one", nested, a, c) is None
    assert in_thread("two", nested, c, b) is not None


def test_reset_forgets_orders_but_not_locks() -> None:
    a, b = Mutex("a"), Mutex("b")
    with a:
        with b:
            pass
        lockdep.reset()
        assert lockdep.is_held(a)
    nested(b, a)


def test_two_threads_that_close_a_cycle_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both look for the other's order at the same time: not both may get through."""
    a, b, meet, find_path = bare("a"), bare("b"), threading.Barrier(2), lock_order.find_path

    def find_together(start: LockClass, ends: dict[LockClass, Order]) -> Cycle | None:
        meet.wait()
        cycle = find_path(start, ends)
        meet.wait()
        return cycle

    def take(first: Bare, second: Bare) -> None:
        lockdep.acquire(first)
        lockdep.acquire(second)

    monkeypatch.setattr(lock_order, "find_path", find_together)
    with ThreadPoolExecutor(2) as pool:
        errors = [run.exception() for run in [pool.submit(take, a, b), pool.submit(take, b, a)]]
    monkeypatch.undo()
    assert any(isinstance(error, LockdepError) for error in errors)
    lockdep.check()


# -- recursion and nesting


def test_recursion() -> None:
    a = Mutex("a")
    with (
        a,
        pytest.raises(LockdepError, match=r'recursive locking: \S+ takes "a" \(class a\), which it holds'),
    ):
        a.lock()
    assert not a.locked


def test_two_of_one_class() -> None:
    of = lock_class("bo")
    first, second = Mutex("bo 1", of), Mutex("bo 2", of)
    report = report_of("one", nested, first, second)
    assert 'takes "bo 2" (class bo) while it holds "bo 1" (class bo) of the same class' in report
    assert "under one acquire context" in report


def test_many_of_one_class_under_one_acquire_context() -> None:
    ticket = bare("ticket")
    locks = [bare(f"bo {n}", "bo") for n in range(5)]
    lockdep.acquire(ticket)
    for lock in locks:
        lockdep.acquire(lock, nest=ticket)
    assert lockdep.held() == (ticket, *locks)
    assert lockdep.statistics().orders == 1
    lockdep.check()
    for lock in [ticket, *locks]:
        lockdep.release(lock)


def test_new_order_while_others_of_the_class_are_held() -> None:
    queue, first, second = bare("queue"), bare("bo 1", "bo"), bare("bo 2", "bo")
    lockdep.acquire(first, nest="ticket")
    lockdep.acquire(queue, trylock=True)
    lockdep.acquire(second, nest="ticket")
    assert lockdep.statistics().orders == 1
    for lock in (first, queue, second):
        lockdep.release(lock)


@pytest.mark.parametrize("trylock", [False, True])
@pytest.mark.parametrize(("held", "wanted"), [("a", None), (None, "a"), ("a", "b")])
def test_one_class_not_under_the_same_context(held: str | None, wanted: str | None, trylock: bool) -> None:
    first, second = bare("bo 1", "bo"), bare("bo 2", "bo")
    lockdep.acquire(first, nest=held, trylock=trylock)
    with pytest.raises(LockdepError, match="possible recursive locking"):
        lockdep.acquire(second, nest=wanted)
    lockdep.release(first)
    lockdep.acquire(second, nest=wanted)
    lockdep.release(second)


def test_trylock_of_one_class_without_the_context() -> None:
    """It does not wait, so it is fine; but then the context may wait for no more of that class."""
    first, tried, third = (bare(f"bo {n}", "bo") for n in range(3))
    lockdep.acquire(first, nest="ticket")
    lockdep.acquire(tried, trylock=True)
    with pytest.raises(LockdepError, match="possible recursive locking"):
        lockdep.acquire(third, nest="ticket")
    lockdep.release(tried)
    lockdep.acquire(third, nest="ticket")
    lockdep.check()
    for lock in (first, third):
        lockdep.release(lock)


# -- what is held


def test_held() -> None:
    a, b = Mutex("a"), Mutex("b")
    with a, b:
        assert lockdep.held() == (a, b)
        assert lockdep.is_held(a)
        lockdep.assert_held(b)
        assert in_thread("other", lockdep.assert_held, a) is not None
    assert lockdep.held() == ()


def test_assert_held_says_what_is_held() -> None:
    a, b = Mutex("a"), Mutex("b")
    with b, pytest.raises(LockdepError, match=r'assert_held: \S+ does not hold "a" .*it holds "b"'):
        lockdep.assert_held(a)


def test_release_twice() -> None:
    a = bare("a")
    lockdep.acquire(a)
    lockdep.release(a)
    with pytest.raises(LockdepError, match=r'release: .* does not hold "a"'):
        lockdep.release(a)


def test_release_in_another_thread() -> None:
    a = bare("a")
    lockdep.acquire(a)
    assert "unlock it once, in the thread that locked it" in report_of("other", lockdep.release, a)
    assert lockdep.is_held(a)
    lockdep.release(a)


def test_check_nothing_held() -> None:
    a = Mutex("a")
    lockdep.check_nothing_held("bind")
    with a, pytest.raises(LockdepError, match=r'^bind ended, and \S+ still has "a" \(class a\)'):
        lockdep.check_nothing_held("bind")
    with (
        lockdep.fence_signalling(4),
        pytest.raises(LockdepError, match="a section that has to signal fences of context 4"),
    ):
        lockdep.check_nothing_held("bind")


def test_locks_are_kept_only_while_held() -> None:
    lock = bare("a")
    lockdep.acquire(lock)
    lockdep.release(lock)
    seen = lockdep._seen
    assert id(lock) in seen
    key = id(lock)
    del lock
    gc.collect()
    assert key not in seen


# -- on and off


@pytest.fixture
def off() -> Iterator[None]:
    lockdep.disable()
    yield
    lockdep.enable()


def test_off_means_nothing(off: None) -> None:
    a, b = Mutex("a"), Mutex("b")
    nested(a, b)
    nested(b, a)
    with lockdep.fence_signalling(5), a:
        assert lockdep.held() == ()
        assert not lockdep.is_held(a)
        lockdep.assert_held(b)
        lockdep.might_wait(Point(9))
        lockdep.check_nothing_held("this")
    lockdep.check()
    assert lockdep.statistics() == lockdep.LockdepStatistics(0, 0, 0, 0)


def test_enabling_while_something_is_held(off: None) -> None:
    a, b = Mutex("a"), Mutex("b")
    a.lock()
    with lockdep.fence_signalling(5):
        lockdep.enable()
        b.lock()
        a.unlock()
        assert lockdep.held() == (b,)
        b.unlock()
    lockdep.check()


def test_disabling_while_something_is_held() -> None:
    a = Mutex("a")
    a.lock()
    with lockdep.fence_signalling(5):
        lockdep.disable()
        lockdep.enable()
        assert lockdep.held() == ()
        a.unlock()
    lockdep.check()
    nested(a)


@pytest.mark.parametrize(("value", "enabled"), [("1", True), ("0", False), (None, False)])
def test_environment(value: str | None, enabled: bool) -> None:
    environment = {key: kept for key, kept in os.environ.items() if key != "GPUVM_LOCKDEP"}
    if value is not None:
        environment["GPUVM_LOCKDEP"] = value
    program = "from gpuvm.sync import lockdep; print(lockdep.enabled)"
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == (str(enabled), "")


def test_classes_are_shared_by_name() -> None:
    assert lock_class("vm") is lock_class("vm")
    assert lock_class("vm") is not lock_class("bo")
    assert LockClass("vm") is not LockClass("vm")


def test_check_finds_a_recorded_cycle() -> None:
    a, b = Mutex("a"), Mutex("b")
    nested(a, b)
    order = a.lock_class.after[b.lock_class]
    b.lock_class.after[a.lock_class] = order
    lock_order._ordered.add(b.lock_class)
    with pytest.raises(CheckFailed, match="cycle"):
        lockdep.check()
