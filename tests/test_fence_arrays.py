"""Arrays: of all or of any, against Python's own, in every order of racing threads."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fences import make, signalled
from gpuvm.errors import InvalidArgument
from gpuvm.sync.container import FenceArray, FenceChain, is_container
from gpuvm.sync.fence import Fence
from gpuvm.testing import Interleaving, explore, sample
from suite import scaled


@pytest.mark.parametrize("signal_on_any", [False, True])
@pytest.mark.parametrize("watched", [False, True])
def test_array(signal_on_any: bool, watched: bool) -> None:
    fences = [make() for _ in range(3)]
    array = FenceArray(fences, signal_on_any=signal_on_any)
    if watched:
        array.enable_sw_signaling()
    assert (array.signalled, array.status) == (False, 0)
    fences[1].signal()
    assert array.signalled is signal_on_any
    fences[0].signal()
    fences[2].signal()
    assert (array.signalled, array.status) == (True, 1)
    assert array.timestamp is not None
    array.check()


def test_an_array_of_signalled_fences_needs_no_watching() -> None:
    array = FenceArray([signalled(), signalled()])
    assert not array.add_callback(lambda _: None)
    assert array.statistics().contained == 2
    assert array.statistics().pending == 0
    array.check()


@pytest.mark.parametrize("watched", [False, True])
def test_an_array_takes_over_the_first_error(watched: bool) -> None:
    fences = [make() for _ in range(3)]
    array = FenceArray(fences)
    if watched:
        array.enable_sw_signaling()
    for fence, error, when in ((fences[2], errno.EIO, 10), (fences[0], errno.ECANCELED, 20)):
        fence.set_error(error)
        fence.signal(when)
    assert (array.status, array.error) == (0, 0)
    fences[1].signal(5)
    assert (array.status, array.error) == (-errno.EIO, errno.EIO)
    array.check()


@pytest.mark.parametrize("watched", [False, True])
def test_an_array_for_any_takes_over_what_came_first(watched: bool) -> None:
    fences = [make() for _ in range(3)]
    array = FenceArray(fences, signal_on_any=True)
    if watched:
        array.enable_sw_signaling()
    fences[1].signal(10)
    fences[0].set_error(errno.EIO)
    fences[0].signal(20)
    assert array.status == 1
    array.check()


def test_an_array_for_any_leaves_no_callbacks_behind() -> None:
    fences = [make() for _ in range(3)]
    array = FenceArray([*fences, fences[0]], signal_on_any=True)
    array.enable_sw_signaling()
    assert [fence.statistics().callbacks for fence in fences] == [2, 1, 1]
    fences[1].signal()
    assert array.signalled
    assert [fence.statistics().callbacks for fence in fences] == [0, 0, 0]


def test_an_array_may_hold_a_fence_twice() -> None:
    fence = make()
    array = FenceArray([fence, fence])
    array.enable_sw_signaling()
    fence.signal()
    assert array.signalled


def test_what_an_array_refuses() -> None:
    with pytest.raises(InvalidArgument, match="no fences"):
        FenceArray([])
    for container in (FenceArray([make()]), FenceChain(None, make(), 1)):
        assert is_container(container)
        with pytest.raises(InvalidArgument, match="is a container"):
            FenceArray([make(), container])
    assert not is_container(make())


@given(st.permutations(range(5)), st.booleans(), st.integers(0, 5))
def test_array_against_all_and_any(order: list[int], signal_on_any: bool, watched_from: int) -> None:
    fences = [make() for _ in order]
    array = FenceArray(fences, signal_on_any=signal_on_any)
    calls: list[Fence] = []
    accepted = False
    for step, index in enumerate(order):
        if step == watched_from:
            accepted = array.add_callback(calls.append)
        fences[index].signal()
        enough = any if signal_on_any else all
        assert array.signalled == enough(fence.signalled for fence in fences)
        assert calls == [array] * (accepted and array.signalled)
        array.check()


def test_an_array_is_signalled_once_whoever_is_last() -> None:
    def scenario(run: Interleaving) -> Callable[[], None]:
        fences = [make() for _ in range(3)]
        arrays = [FenceArray(fences), FenceArray(fences, signal_on_any=True)]
        calls: list[Fence] = []
        for array in arrays:
            run.spawn(array.add_callback, calls.append)
        threads = [run.spawn(fence.signal) for fence in fences]
        assert len(threads) == 3

        def check() -> None:
            assert len(calls) == len(set(map(id, calls))) <= 2
            for array in arrays:
                assert array.signalled
                array.check()
            assert not any(fence.statistics().callbacks for fence in fences)

        return check

    sample(scenario, range(scaled(200, 5_000)))
    assert explore(scenario, preemptions=1, limit=scaled(500, 20_000)).schedules > 50
