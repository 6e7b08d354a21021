"""What tests of reservations share: fences in them, and a look at these."""

from __future__ import annotations

import pytest

from gpuvm.sync.fence import Fence, fence_context_alloc
from gpuvm.sync.resv import Resv, Usage

each_usage = pytest.mark.parametrize("usage", list(Usage), ids=lambda usage: str(usage.name))


def pending(context: int = 0, seqno: int = 1) -> Fence:
    return Fence(context or fence_context_alloc(), seqno)


def with_fence(usage: Usage, fence: Fence | None = None) -> tuple[Resv, Fence]:
    resv, fence = Resv(), pending() if fence is None else fence
    put(resv, (fence, usage))
    return resv, fence


def put(resv: Resv, *entries: tuple[Fence, Usage]) -> None:
    with resv:
        for fence, usage in entries:
            resv.reserve_fences(1)
            resv.add_fence(fence, usage)


def listed(resv: Resv, usage: Usage = Usage.BOOKKEEP) -> list[tuple[Fence, Usage]]:
    with resv:
        return list(resv.entries(usage))
