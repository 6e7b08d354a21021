"""`Resv`: the kernel's cases, for each usage (drivers/dma-buf/st-dma-resv.c)."""

from __future__ import annotations

import pytest

from gpuvm.errors import LockdepError
from gpuvm.sync.container import FenceArray
from gpuvm.sync.resv import Resv, Usage
from resvs import each_usage, listed, pending, put, with_fence


class TestSignaling:
    @each_usage
    def test_signalled_with_its_fence(self, usage: Usage) -> None:
        resv, fence = with_fence(usage)
        assert not resv.test_signalled(usage)
        fence.signal()
        assert resv.test_signalled(usage)

    def test_without_fences(self) -> None:
        assert all(Resv().test_signalled(usage) for usage in Usage)


class TestForEach:
    @each_usage
    def test_finds_the_fence(self, usage: Usage) -> None:
        resv, fence = with_fence(usage)
        assert listed(resv, usage) == [(fence, usage)]
        assert [len(listed(resv, query)) for query in Usage] == [int(usage <= query) for query in Usage]

    @each_usage
    def test_signalled_ones_too(self, usage: Usage) -> None:
        resv, fence = with_fence(usage)
        fence.signal()
        assert listed(resv, usage) == [(fence, usage)]

    def test_needs_the_lock(self) -> None:
        with pytest.raises(LockdepError, match="assert_held"):
            Resv().entries()


class TestForEachUnlocked:
    @each_usage
    def test_finds_the_fence(self, usage: Usage) -> None:
        resv, fence = with_fence(usage)
        assert [resv.fences(query) for query in Usage] == [[fence] * (usage <= query) for query in Usage]

    @each_usage
    def test_passes_over_signalled_ones(self, usage: Usage) -> None:
        resv, fence = with_fence(usage)
        fence.signal()
        assert resv.fences(usage) == []

    @each_usage
    def test_while_it_is_looked_at_the_fence_may_go(self, usage: Usage) -> None:
        """The kernel begins again when something changes; here the answer is of one moment."""
        resv, fence = with_fence(usage)
        found = resv.fences(usage)
        fence.signal()
        put(resv, (pending(), usage))
        assert found == [fence]


class TestGetFences:
    @each_usage
    def test_a_list_of_ones_own(self, usage: Usage) -> None:
        resv, fence = with_fence(usage)
        found = resv.fences(usage)
        found.clear()
        assert resv.fences(usage) == [fence]

    @each_usage
    def test_singleton(self, usage: Usage) -> None:
        resv, fence = with_fence(usage)
        assert resv.singleton(usage) is fence
        second = pending()
        put(resv, (second, usage))
        both = resv.singleton(usage)
        assert isinstance(both, FenceArray)
        assert set(both.fences) == {fence, second}
        fence.signal()
        assert not both.signalled
        second.signal()
        assert both.signalled
        assert resv.singleton(usage) is None
