"""Fences: the kernel's cases (drivers/dma-buf/st-dma-fence.c), in every order of racing threads."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable

import pytest

from fences import Calls, make
from gpuvm.errors import InvalidArgument
from gpuvm.sync import task
from gpuvm.sync.fence import stub_fence
from gpuvm.testing import Interleaving, explore, sample
from suite import scaled


def test_signaling() -> None:
    fence = make()
    assert not fence.signalled
    fence.signal()
    assert fence.signalled
    with pytest.raises(InvalidArgument, match=r"^signal: .* is signalled already"):
        fence.signal()
    fence.check()


def test_add_callback() -> None:
    fence, calls = make(), Calls()
    assert fence.add_callback(calls)
    assert calls.fences == []
    fence.signal()
    assert calls.fences == [fence]
    assert not fence.remove_callback(calls)


def test_late_add_callback() -> None:
    fence, calls = make(), Calls()
    fence.signal()
    assert not fence.add_callback(calls)
    assert calls.fences == []


def test_rm_callback() -> None:
    fence, calls = make(), Calls()
    assert fence.add_callback(calls)
    assert fence.remove_callback(calls)
    assert not fence.remove_callback(calls)
    fence.signal()
    assert calls.fences == []


def test_late_rm_callback() -> None:
    fence, calls = make(), Calls()
    assert fence.add_callback(calls)
    fence.signal()
    assert not fence.remove_callback(calls)
    assert calls.fences == [fence]


def test_status() -> None:
    fence = make()
    assert fence.status == 0
    fence.signal()
    assert fence.status == 1


def test_error() -> None:
    fence = make()
    fence.set_error(errno.EIO)
    assert (fence.status, fence.error) == (0, errno.EIO)
    fence.signal()
    assert (fence.status, fence.error) == (-errno.EIO, errno.EIO)


def test_wait() -> None:
    def scenario(run: Interleaving) -> None:
        fence = make()
        assert not fence.wait(0)

        def sleeper() -> None:
            assert fence.wait()
            assert fence.wait(0)
            assert fence.signalled

        run.spawn(sleeper)
        run.spawn(fence.signal)

    assert explore(scenario).complete


def test_wait_timeout() -> None:
    with Interleaving(0) as run:
        fence = make()
        begin = task.now()

        def sleeper() -> None:
            assert not fence.wait(0.5)
            assert task.now() == begin + task.NSEC_PER_SEC // 2
            assert not fence.wait_until(begin)
            assert fence.wait_until(begin + 2 * task.NSEC_PER_SEC)
            assert task.now() == begin + task.NSEC_PER_SEC

        def signaller() -> None:
            never = make()
            assert not never.wait(1.0)
            fence.signal()

        run.spawn(sleeper)
        run.spawn(signaller)
        run.run()
        assert fence.timestamp == begin + task.NSEC_PER_SEC
        assert fence.statistics().callbacks == 0


def test_stub() -> None:
    stub = stub_fence()
    assert stub is stub_fence()
    assert stub.signalled
    assert stub.status == 1
    assert stub.wait(0)
    assert not stub.add_callback(Calls())
    stub.check()


def test_race_signal_callback() -> None:
    """Whatever the order: a callback that was accepted runs once, one that was refused never."""

    def scenario(run: Interleaving) -> Callable[[], None]:
        fence = make()
        calls = [Calls() for _ in range(3)]
        removed: list[bool] = []

        def add_and_remove() -> bool:
            added = fence.add_callback(calls[2])
            removed.append(added and fence.remove_callback(calls[2]))
            return added

        adders = [
            run.spawn(fence.add_callback, calls[0]),
            run.spawn(fence.add_callback, calls[1]),
            run.spawn(add_and_remove),
        ]
        run.spawn(fence.signal)

        def check() -> None:
            for adder, call in zip(adders[:2], calls, strict=False):
                assert call.fences == [fence] * adder.result
            assert calls[2].fences == [fence] * (adders[2].result and not removed[0])
            fence.check()

        return check

    assert explore(scenario, preemptions=2, limit=scaled(1_000, 30_000)).schedules > 100
    sample(scenario, range(scaled(50, 2_000)))


def test_race_of_real_threads() -> None:
    """Two threads signal each other in turn, each waiting for the other's last fence."""
    rounds = scaled(300, 20_000)
    ours = [make(i) for i in range(rounds)]
    theirs = [make(i) for i in range(rounds)]
    calls = Calls()

    def other() -> None:
        for mine, yours in zip(theirs, ours, strict=True):
            yours.add_callback(calls)
            yours.wait()
            mine.signal()

    thread = threading.Thread(target=other)
    thread.start()
    accepted = 0
    for mine, yours in zip(ours, theirs, strict=True):
        mine.signal()
        accepted += yours.add_callback(calls)
        yours.wait()
    thread.join()
    assert accepted <= len(calls.fences) <= 2 * rounds
    for fence in ours + theirs:
        fence.check()
