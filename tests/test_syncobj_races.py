"""`SyncObj`: waits, submissions and resets that race."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable

import pytest

from fences import make
from gpuvm.errors import Interrupted
from gpuvm.sync import task
from gpuvm.sync.container import FenceChain, walk
from gpuvm.sync.fence import stub_fence
from gpuvm.sync.syncobj import SyncObj, SyncObjStatistics
from gpuvm.testing import Interleaving, explore, sample
from suite import scaled


def test_no_wait_misses_its_submission() -> None:
    """Two who wait, one of them with an eventfd, against three who submit, signal and reset."""

    def scenario(run: Interleaving) -> Callable[[], None]:
        syncobj = SyncObj()
        eventfd = os.eventfd(0, os.EFD_NONBLOCK)
        fence = make()
        waits = [run.spawn(syncobj.wait, 2, 100.0), run.spawn(syncobj.wait, 1, 100.0)]
        run.spawn(syncobj.signal_eventfd, eventfd, 2)
        run.spawn(syncobj.add_point, stub_fence(), 1)
        run.spawn(syncobj.add_point, fence, 2)
        run.spawn(fence.signal)

        def check() -> None:
            # A point that came too late for its number counts as the last one; so both are there.
            assert [wait.result for wait in waits] == [True, True]
            assert os.eventfd_read(eventfd) == 1
            os.close(eventfd)
            assert (syncobj.payload, syncobj.last_submitted) == (2, 2)
            syncobj.check()
            assert not fence.awaited

        return check

    sample(scenario, range(scaled(150, 5_000)))
    assert explore(scenario, preemptions=1, limit=scaled(200, 20_000)).schedules > 50


def test_a_reset_takes_nothing_from_a_wait_that_was_served() -> None:
    def scenario(run: Interleaving) -> Callable[[], None]:
        syncobj, fence = SyncObj(), make()
        wait = run.spawn(syncobj.wait, 1)

        def client() -> None:
            syncobj.add_point(fence, 1)
            syncobj.reset()
            syncobj.add_point(stub_fence(), 1)
            fence.signal()

        run.spawn(client)
        return lambda: None if wait.result else pytest.fail("lost")

    assert explore(scenario).complete


def test_a_wait_that_gives_up_while_it_is_served_leaves_no_callback() -> None:
    def scenario(run: Interleaving) -> Callable[[], None]:
        syncobj, fences = SyncObj(), [make(), make()]
        tasks: list[task.Task] = []

        def waiter() -> None:
            tasks.append(task.current())
            with contextlib.suppress(Interrupted):
                syncobj.wait(0, 1.0, interruptible=True)

        def interrupt() -> None:
            for waiting in tasks:
                waiting.interrupt()

        run.spawn(waiter)
        run.spawn(interrupt)
        run.spawn(syncobj.replace_fence, fences[0])
        run.spawn(syncobj.replace_fence, fences[1])

        def check() -> None:
            assert not any(fence.awaited for fence in fences)
            assert syncobj.statistics().waiting == 0
            syncobj.check()

        return check

    sample(scenario, range(scaled(150, 5_000)))


def test_every_point_that_racing_threads_add_is_there() -> None:
    def scenario(run: Interleaving) -> Callable[[], None]:
        syncobj = SyncObj()
        fences = [make() for _ in range(4)]
        for point, fence in enumerate(fences, 1):
            run.spawn(syncobj.add_point, fence, point)

        def check() -> None:
            head = syncobj.head
            assert {id(link.fence) for link in walk(head) if isinstance(link, FenceChain)} == set(
                map(id, fences)
            )
            assert syncobj.last_submitted == 4
            for fence in fences:
                assert not syncobj.signalled
                fence.signal()
            assert syncobj.payload == 4

        return check

    assert explore(scenario, preemptions=2, limit=scaled(500, 20_000)).schedules > 20


def test_real_threads() -> None:
    """Producers add points of their own timelines, consumers wait for each; for real."""
    count, points = 3, scaled(300, 20_000)
    syncobjs = [SyncObj() for _ in range(count)]
    failures: list[str] = []

    def produce(syncobj: SyncObj) -> None:
        for point in range(1, points + 1):
            fence = make()
            syncobj.add_point(fence, point)
            fence.signal()

    def consume() -> None:
        for point in range(1, points + 1):
            for syncobj in syncobjs:
                if not syncobj.wait(point, 60.0) or syncobj.payload < point:
                    failures.append(f"{syncobj!r} at {point}")

    threads = [threading.Thread(target=produce, args=(syncobj,)) for syncobj in syncobjs]
    threads += [threading.Thread(target=consume) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    for syncobj in syncobjs:
        syncobj.check()
        assert syncobj.statistics() == SyncObjStatistics(True, points, points, 0, 0)
