"""`SyncObj`: payloads, points and waits, against models."""

from __future__ import annotations

import gc
import os
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fences import make, signalled
from gpuvm.errors import CheckFailed, Interrupted, InvalidArgument, LockdepError
from gpuvm.sync import task
from gpuvm.sync.container import FenceArray, FenceChain, walk
from gpuvm.sync.fence import Fence, stub_fence
from gpuvm.sync.mutex import Mutex
from gpuvm.sync.syncobj import SyncObj, SyncObjStatistics
from gpuvm.testing import Interleaving, sample
from suite import scaled

# -- the object


def test_binary() -> None:
    syncobj = SyncObj()
    assert (syncobj.submitted, syncobj.signalled, syncobj.head) == (False, False, None)
    with pytest.raises(InvalidArgument, match=r"^fence: nothing was submitted for point 0"):
        syncobj.fence()
    fence = make()
    syncobj.replace_fence(fence)
    assert (syncobj.submitted, syncobj.signalled) == (True, False)
    assert syncobj.fence() is fence
    assert (syncobj.payload, syncobj.last_submitted) == (0, 0)
    fence.signal()
    assert syncobj.signalled
    syncobj.reset()
    assert not syncobj.submitted
    syncobj.signal()
    assert syncobj.fence() is stub_fence()
    assert SyncObj(signalled=True).signalled
    assert SyncObj(fence).fence() is fence
    syncobj.check()


def test_timeline() -> None:
    syncobj = SyncObj()
    fences = [make(), make()]
    syncobj.add_point(fences[0], 3)
    syncobj.add_point(fences[1], 5)
    assert (syncobj.payload, syncobj.last_submitted) == (0, 5)
    assert syncobj.fence(2) is syncobj.fence(3)
    assert syncobj.fence(3) is not syncobj.fence(4)
    assert syncobj.fence() is syncobj.fence(5)
    with pytest.raises(InvalidArgument, match="point 6 yet; the last one is 5") as caught:
        syncobj.fence(6)
    assert (caught.value.value, caught.value.bound) == (6, 5)
    fences[0].signal()
    assert (syncobj.payload, syncobj.fence(3)) == (3, stub_fence())
    assert not syncobj.signalled
    fences[1].signal()
    syncobj.signal(8)
    assert (syncobj.payload, syncobj.last_submitted, syncobj.signalled) == (8, 8, True)
    syncobj.check()


def test_a_point_of_a_timeline_may_become_a_point_of_another() -> None:
    first, second = SyncObj(), SyncObj()
    fences = [make(), make()]
    first.add_point(fences[0], 1)
    first.add_point(fences[1], 2)
    second.add_point(first.fence(2), 9)
    assert isinstance(second.head, FenceChain)
    assert isinstance(second.head.fence, FenceArray)
    fences[1].signal()
    assert second.payload == 0
    fences[0].signal()
    assert second.payload == 9


def test_what_is_no_point_is_refused() -> None:
    syncobj = SyncObj()
    with pytest.raises(InvalidArgument, match="u64"):
        syncobj.add_point(make(), 1 << 64)
    assert not syncobj.submitted


def test_wait_before_submit_and_before_signal() -> None:
    def scenario(run: Interleaving) -> None:
        syncobj, fence = SyncObj(), make()
        begin = task.now()

        def pause(seconds: float) -> None:
            never = make()
            assert not never.wait(seconds)

        def waiter() -> None:
            assert not syncobj.wait(3, 0)
            assert not syncobj.wait(3, 0.5)
            assert task.now() == begin + task.NSEC_PER_SEC // 2
            assert syncobj.wait(3, 10.0, available=True)
            assert task.now() == begin + task.NSEC_PER_SEC
            assert not syncobj.wait(3, 0)
            assert syncobj.wait(3)
            assert task.now() == begin + 2 * task.NSEC_PER_SEC
            assert syncobj.wait(2, 0)

        def client() -> None:
            pause(1)
            syncobj.add_point(fence, 3)
            pause(1)
            fence.signal()

        run.spawn(waiter)
        run.spawn(client)

    sample(scenario, range(scaled(20, 500)))


def test_an_interrupted_wait_leaves_nothing_behind() -> None:
    syncobj, fence = SyncObj(), make()
    for submitted in (False, True):
        if submitted:
            syncobj.add_point(fence, 1)
        task.current().interrupt()
        with pytest.raises(Interrupted):
            syncobj.wait(1, 1000.0, interruptible=True)
        assert syncobj.statistics().waiting == 0
        assert not fence.awaited


def test_waiting_for_user_space_with_a_lock_held_is_reported() -> None:
    syncobj = SyncObj(signalled=True)
    with Mutex("vm"), pytest.raises(LockdepError, match="user space"):
        syncobj.wait()


def test_statistics_and_repr() -> None:
    syncobj = SyncObj()
    assert syncobj.statistics() == SyncObjStatistics(False, 0, 0, 0, 0)
    assert repr(syncobj) == "<SyncObj None>"
    fences = [make(), make()]
    for point, fence in enumerate(fences, 1):
        syncobj.add_point(fence, point)
    fences[0].signal()
    eventfd = os.eventfd(0)
    syncobj.signal_eventfd(eventfd, 3)
    assert syncobj.statistics() == SyncObjStatistics(True, 1, 2, 1, 1)
    os.close(eventfd)


def test_check_finds_a_waiter_that_was_forgotten() -> None:
    class Forgotten:
        point = 0

        def offer(self, fence: Fence) -> None:
            raise NotImplementedError

    syncobj = SyncObj(signalled=True)
    syncobj._watchers[0] = Forgotten()
    with pytest.raises(CheckFailed, match="waits for point 0, which is there"):
        syncobj.check()


# -- models


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.integers(1, 3)),
            st.tuples(st.just("signal"), st.integers(0, 20)),
            st.tuples(st.just("reset"), st.just(0)),
        ),
        max_size=40,
    )
)
def test_payload_against_prefixes(steps: list[tuple[str, int]]) -> None:
    """The payload is the highest point whose whole prefix is signalled, whatever was collected."""
    syncobj = SyncObj()
    model: list[tuple[int, Fence]] = []
    for step, number in steps:
        if step == "add":
            point = (model[-1][0] if model else 0) + number
            fence = make()
            model.append((point, fence))
            syncobj.add_point(fence, point)
        elif step == "reset":
            model = []
            syncobj.reset()
        elif model:
            fence = model[number % len(model)][1]
            if not fence.signalled:
                fence.signal()
        prefix = 0
        for point, fence in model:
            if not fence.signalled:
                break
            prefix = point
        last = model[-1][0] if model else 0
        assert (syncobj.payload, syncobj.last_submitted) == (prefix, last)
        for point in range(1, last + 1):
            assert syncobj.fence(point).signalled == all(
                fence.signalled for its, fence in model[: 1 + sum(its < point for its, _ in model)]
            )
            assert syncobj.wait(point, 0, available=True)
        assert not syncobj.wait(last + 1, 0, available=True)
        syncobj.check()


@given(st.lists(st.tuples(st.integers(1, 6), st.booleans()), min_size=1, max_size=12), st.integers(0, 11))
def test_unordered_points_against_positions(adds: list[tuple[int, bool]], late: int) -> None:
    """Nothing is reached before all that was added earlier, in whatever order the points were."""
    syncobj = SyncObj()
    fences = []
    for point, is_done in adds:
        fences.append(signalled() if is_done else make())
        syncobj.add_point(fences[-1], point)
        assert syncobj.last_submitted == max(its for its, _ in adds[: len(fences)])
    if not fences[late % len(fences)].signalled:
        fences[late % len(fences)].signal()
    assert syncobj.signalled == all(fence.signalled for fence in fences)
    assert syncobj.payload <= syncobj.last_submitted
    for fence in fences:
        if not fence.signalled:
            fence.signal()
    assert syncobj.payload == syncobj.last_submitted
    syncobj.check()


def test_a_timeline_holds_what_is_pending_and_little_more() -> None:
    """A pipeline of three: links that are done go, though walks are rare."""
    syncobj = SyncObj()
    links = [weakref.ref(make())]
    pending: list[Fence] = []
    for point in range(1, 10_000):
        fence = make()
        links.append(weakref.ref(fence))
        pending.append(fence)
        syncobj.add_point(fence, point)
        del fence
        if len(pending) > 3:
            pending.pop(0).signal()
    assert sum(link() is not None for link in links) < 12
    assert syncobj.payload == 9_996


def test_a_long_timeline_needs_no_recursion() -> None:
    count = scaled(20_000, 100_000)
    syncobj = SyncObj()
    fences = [make() for _ in range(count)]
    for point, fence in enumerate(fences, 1):
        syncobj.add_point(fence, point)
    assert syncobj.statistics().pending == count
    assert syncobj.payload == 0
    for fence in reversed(fences[1:]):
        fence.signal()
    assert (syncobj.payload, sum(1 for _ in walk(syncobj.head))) == (0, 2)
    fences[0].signal()
    assert syncobj.payload == count
    for point in range(count + 1, 2 * count):
        syncobj.add_point(make(), point)
    syncobj.reset()
    gc.collect()
