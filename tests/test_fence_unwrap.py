"""Flattening and merging fences: the kernel's unwrap selftest, and a model."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from fences import make, signalled
from gpuvm.sync.container import FenceArray, FenceChain, merge, unwrap
from gpuvm.sync.fence import Fence, fence_context_alloc, stub_fence


def test_unwrap_array() -> None:
    fences = [make(), make()]
    assert list(unwrap(FenceArray(fences))) == fences


def test_unwrap_chain() -> None:
    fences = [make(), make()]
    chain = FenceChain(fences[0], fences[1], 1)
    assert list(unwrap(chain)) == [fences[1], fences[0]]


def test_unwrap_chain_array() -> None:
    array_fences = [make(), make()]
    plain = make()
    chain = FenceChain(plain, FenceArray(array_fences), 1)
    assert list(unwrap(chain)) == [*array_fences, plain]


def test_unwrap_of_a_plain_fence_and_of_nothing() -> None:
    fence = make()
    assert list(unwrap(fence)) == [fence]
    assert list(unwrap(None)) == []


def parts(fence: Fence) -> tuple[Fence, ...]:
    assert isinstance(fence, FenceArray)
    return fence.fences


def test_unwrap_merge() -> None:
    first, second = make(), make()
    assert parts(merge(first, second)) == (first, second)


def test_unwrap_merge_duplicate() -> None:
    fence = make()
    assert merge(fence, fence) is fence


def test_unwrap_merge_seqno() -> None:
    context, other = fence_context_alloc(), make()
    early, late = make(1, context), make(2, context)
    assert parts(merge(late, other, early)) == tuple(sorted((late, other), key=lambda fence: fence.context))


def test_unwrap_merge_order() -> None:
    """Fences of the same contexts, given in opposite orders, end up once each and in one order."""
    fences = [make() for _ in range(4)]
    assert parts(merge(FenceArray(fences), FenceArray(fences[::-1]))) == tuple(fences)


def test_unwrap_merge_complex() -> None:
    fences = [make() for _ in range(5)]
    merged = merge(fences[4], FenceArray(fences[2:4]), FenceChain(fences[0], fences[1], 3), None)
    assert parts(merge(merged, fences[2])) == tuple(fences)


def test_unwrap_merge_complex_seqno() -> None:
    context = fence_context_alloc()
    numbered = [make(seqno, context) for seqno in range(1, 5)]
    other = make()
    merged = merge(FenceArray([numbered[2], other]), FenceChain(numbered[0], numbered[3], 1), numbered[1])
    assert parts(merged) == (numbered[3], other)


def test_merge_drops_what_is_done() -> None:
    pending = make()
    assert merge() is stub_fence()
    assert merge(signalled(), FenceArray([signalled()])) is stub_fence()
    assert merge(signalled(), pending) is pending


FENCES = st.builds(
    lambda context, seqno, done: signalled(seqno, context) if done else make(seqno, context),
    st.integers(1, 4),
    st.integers(1, 4),
    st.booleans(),
)
ARRAYS = st.builds(FenceArray, st.lists(FENCES, min_size=1, max_size=4))
CHAINS = st.recursive(
    FENCES, lambda prev: st.builds(FenceChain, prev, FENCES | ARRAYS, st.integers(1, 9)), max_leaves=4
)


def leaves(fence: Fence) -> Iterator[Fence]:
    """What a model that knows no garbage collection finds in a fence."""
    if isinstance(fence, FenceArray):
        yield from fence.fences
    elif isinstance(fence, FenceChain):
        yield from leaves(fence.fence)
        if fence._prev is not None:
            yield from leaves(fence._prev)
    else:
        yield fence


@given(st.lists(FENCES | ARRAYS | CHAINS, max_size=5))
def test_merge_against_a_set(fences: list[Fence]) -> None:
    pending = [leaf for fence in fences for leaf in leaves(fence) if not leaf.signalled]
    expected = {
        (context, max(leaf.seqno for leaf in group))
        for context, group in itertools.groupby(
            sorted(pending, key=lambda leaf: leaf.context), key=lambda leaf: leaf.context
        )
    }
    for fence in fences:
        assert {id(leaf) for leaf in unwrap(fence)} <= {id(leaf) for leaf in leaves(fence)}
    merged = merge(*fences)
    if not expected:
        assert merged is stub_fence()
        return
    found = list(unwrap(merged))
    assert [(leaf.context, leaf.seqno) for leaf in found] == sorted(expected)
    assert isinstance(merged, FenceArray) == (len(found) > 1)
    for leaf in pending:
        if not leaf.signalled:
            leaf.signal()
    assert merged.signalled
