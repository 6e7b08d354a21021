"""Chains: the kernel's cases (drivers/dma-buf/st-dma-fence-chain.c), a model, long chains."""

from __future__ import annotations

import errno
import gc
import random
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fences import make
from gpuvm.errors import CheckFailed, InvalidArgument
from gpuvm.sync.container import FenceArray, FenceChain, contained, find_seqno, walk
from gpuvm.sync.fence import Fence
from gpuvm.testing import Interleaving, sample
from suite import scaled


class Timeline:
    """A chain with one point for each of its fences."""

    def __init__(self, length: int, spacing: int = 1) -> None:
        self.fences = [make() for _ in range(length)]
        self.chains: list[FenceChain] = []
        prev: FenceChain | None = None
        for index, fence in enumerate(self.fences):
            prev = FenceChain(prev, fence, (index + 1) * spacing)
            self.chains.append(prev)

    @property
    def tail(self) -> FenceChain:
        return self.chains[-1]


# -- the kernel's selftest


def test_sanity_chain() -> None:
    fence = make()
    chain = FenceChain(None, fence, 1)
    assert contained(chain) is fence
    assert contained(fence) is fence
    assert not chain.signalled
    fence.signal()
    assert chain.signalled
    assert chain.status == 1
    chain.check()


def test_find_seqno() -> None:
    timeline = Timeline(64)
    tail = timeline.tail
    assert find_seqno(tail, 0) is tail
    for index, chain in enumerate(timeline.chains):
        assert find_seqno(tail, index + 1) is chain
    for head in (None, make(), tail):
        with pytest.raises(InvalidArgument, match=r"^find_seqno: "):
            find_seqno(head, 65)
    assert find_seqno(timeline.chains[0], 1) is timeline.chains[0]
    with pytest.raises(InvalidArgument, match="the last one is 1"):
        find_seqno(timeline.chains[0], 2)
    for head in (None, make()):
        assert find_seqno(head, 0) is head


def test_find_signaled() -> None:
    timeline = Timeline(2)
    timeline.fences[0].signal()
    found = find_seqno(timeline.tail, 1)
    assert found is None or found.signalled


def test_find_out_of_order() -> None:
    """Point 1 waits although a later one is done, and the done one is nobody's answer any more."""
    timeline = Timeline(3)
    timeline.fences[1].signal()
    found = find_seqno(timeline.tail, 2)
    assert found is timeline.chains[0]
    assert not timeline.chains[1].signalled
    assert timeline.tail.prev is timeline.chains[0]


def test_find_gap() -> None:
    """Points 2 and 4: asking for 3 gives the link that covers it, once more when 2 is done."""
    timeline = Timeline(2, spacing=2)
    assert find_seqno(timeline.tail, 3) is timeline.tail
    assert find_seqno(timeline.tail, 2) is timeline.chains[0]
    assert find_seqno(timeline.tail, 1) is timeline.chains[0]
    timeline.fences[0].signal()
    assert find_seqno(timeline.tail, 3) is timeline.tail
    assert find_seqno(timeline.tail, 2) is None


def test_find_race() -> None:
    """Searching while links are signalled in any order: the answer covers the point or is done."""
    length = 6

    def scenario(run: Interleaving) -> Callable[[], None]:
        timeline = Timeline(length)

        def search(seed: int) -> None:
            numbers = random.Random(seed)
            for _ in range(6):
                point = numbers.randint(1, length)
                found = find_seqno(timeline.tail, point)
                if found is None:
                    assert timeline.chains[point - 1].signalled
                else:
                    assert isinstance(found, FenceChain)
                    assert found.seqno <= point
                    assert found.enable_signaling() or found.signalled

        def signal(indices: Iterator[int]) -> None:
            for index in indices:
                timeline.fences[index].signal()

        for seed in range(2):
            run.spawn(search, seed)
        run.spawn(signal, iter(range(0, length, 2)))
        run.spawn(signal, iter(range(length - 1, 0, -2)))

        def check() -> None:
            assert timeline.tail.signalled
            for chain in timeline.chains:
                chain.check()

        return check

    sample(scenario, range(scaled(40, 2_000)))


@pytest.mark.parametrize("watched", [False, True])
def test_signal_forward(watched: bool) -> None:
    timeline = Timeline(64)
    if watched:
        for chain in timeline.chains:
            chain.enable_sw_signaling()
    for index, fence in enumerate(timeline.fences):
        fence.signal()
        assert timeline.chains[index].signalled
        assert index + 1 == 64 or not timeline.chains[index + 1].signalled


@pytest.mark.parametrize("watched", [False, True])
def test_signal_backward(watched: bool) -> None:
    timeline = Timeline(64)
    if watched:
        for chain in timeline.chains:
            chain.enable_sw_signaling()
    for fence in timeline.fences[:0:-1]:
        fence.signal()
        assert not any(chain.signalled for chain in timeline.chains)
    timeline.fences[0].signal()
    assert all(chain.signalled for chain in timeline.chains)


@pytest.mark.parametrize("order", ["forward", "backward", "random"])
def test_wait(order: str) -> None:
    def scenario(run: Interleaving) -> None:
        timeline = Timeline(16)
        fences = list(timeline.fences)
        if order == "backward":
            fences.reverse()
        elif order == "random":
            random.Random(7).shuffle(fences)
        waits = [run.spawn(timeline.tail.wait), run.spawn(timeline.chains[8].wait)]

        def signal() -> None:
            for fence in fences:
                fence.signal()

        run.spawn(signal)
        run.run()
        assert [wait.result for wait in waits] == [True, True]
        assert not any(fence.statistics().callbacks for fence in [*fences, *timeline.chains])

    sample(scenario, range(scaled(10, 500)))


# -- more


def test_a_chain_does_not_take_over_errors() -> None:
    fence = make()
    chain = FenceChain(None, fence, 1)
    fence.set_error(errno.EIO)
    fence.signal()
    assert (chain.status, chain.error) == (1, 0)


def test_a_link_in_order_shares_the_context_another_begins_one() -> None:
    first = FenceChain(None, make(), 5)
    second = FenceChain(first, make(), 6)
    unordered = FenceChain(second, make(), 3)
    after_plain = FenceChain(make(), make(), 2)
    assert (second.context, second.seqno, second.prev_seqno) == (first.context, 6, 5)
    assert (unordered.seqno, unordered.prev_seqno) == (6, 0)
    assert unordered.context != second.context
    assert (after_plain.seqno, after_plain.prev_seqno) == (2, 0)
    for chain in (first, second, unordered, after_plain):
        chain.check()


def test_what_a_chain_refuses() -> None:
    with pytest.raises(InvalidArgument, match="is a link itself"):
        FenceChain(None, FenceChain(None, make(), 1), 2)
    for seqno in (-1, 1 << 64):
        with pytest.raises(InvalidArgument, match="u64"):
            FenceChain(None, make(), seqno)


def test_walking_lets_go_of_what_is_done() -> None:
    timeline = Timeline(5)
    assert timeline.tail.statistics().contained == 5
    for index in (1, 2):
        timeline.fences[index].signal()
    assert [link.seqno for link in walk(timeline.tail)] == [5, 4, 1]
    assert timeline.tail.statistics().contained == 3
    timeline.fences[0].signal()
    assert [link.seqno for link in walk(timeline.tail)] == [5, 4]
    assert [link.seqno for link in walk(None)] == []


def test_check_finds_a_broken_chain() -> None:
    timeline = Timeline(2)
    timeline.chains[0].seqno = 9
    with pytest.raises(CheckFailed, match="follows"):
        timeline.tail.check()
    chain = FenceChain(None, make(), 1)
    chain._finish()
    with pytest.raises(CheckFailed, match="before its links"):
        chain.check()


@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=12),
    st.lists(st.integers(0, 11), max_size=12, unique=True),
)
def test_chain_against_prefixes(points: list[int], order: list[int]) -> None:
    """A link is done when its fence and all before are, whatever was collected in between."""
    links: list[FenceChain] = []
    fences = [make() for _ in points]
    for fence, point in zip(fences, points, strict=True):
        links.append(FenceChain(links[-1] if links else None, fence, point))
    for index in [index for index in order if index < len(points)]:
        fences[index].signal()
        head = random.Random(index).choice(links)
        for _ in walk(head):
            pass
        for place, link in enumerate(links):
            prefix_done = all(fence.signalled for fence in fences[: place + 1])
            assert link.signalled == prefix_done
            assert link.seqno == max(points[: place + 1])
        links[-1].check()


LONG = 100_000


@pytest.mark.parametrize("order", ["forward", "backward"])
def test_a_long_chain_is_signalled_without_recursion(order: str) -> None:
    timeline = Timeline(LONG)
    tail = timeline.tail
    calls: list[Fence] = []
    assert tail.add_callback(calls.append)
    for fence in timeline.fences if order == "forward" else reversed(timeline.fences):
        assert calls == []
        fence.signal()
    assert calls == [tail]
    tail.check()


def test_a_long_chain_is_walked_and_dropped_without_recursion() -> None:
    timeline = Timeline(LONG)
    tail = timeline.tail
    assert sum(1 for _ in walk(tail)) == LONG
    assert find_seqno(tail, 1) is timeline.chains[0]
    tail.set_deadline(5)
    assert timeline.fences[0].deadline == 5
    assert tail.statistics().pending == LONG
    del timeline, tail
    gc.collect()


def test_a_long_chain_of_done_links_is_collected_without_recursion() -> None:
    timeline = Timeline(LONG)
    tail = timeline.tail
    for fence in timeline.fences[1:]:
        fence.signal()
    first = timeline.chains[0]
    del timeline
    assert tail.prev is first
    assert tail.statistics().contained == 2


def test_deadlines_reach_what_is_contained() -> None:
    timeline = Timeline(3)
    array = FenceArray([make(), make()])
    chain = FenceChain(timeline.tail, array, 4)
    chain.set_deadline(7)
    assert [fence.deadline for fence in (chain, array, *array.fences, *timeline.fences)] == [7] * 7
    for fence in (*array.fences, *timeline.fences):
        fence.signal()


def test_a_container_that_nobody_waits_for_does_not_count_as_a_waiter() -> None:
    fence = make()
    chain = FenceChain(None, FenceArray([fence]), 1)
    calls: list[Fence] = []
    assert chain.add_callback(calls.append)
    assert fence.awaited
    assert chain.remove_callback(calls.append)
    assert not fence.awaited
    assert fence.statistics().callbacks == 1
    last = [fence]
    del fence, chain
    last.clear()
    gc.collect()  # no warning: there was nobody to be told
    assert calls == []
