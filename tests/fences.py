"""What the tests of fences share: making them, and callbacks that count."""

from __future__ import annotations

from gpuvm.sync.fence import Fence, fence_context_alloc


def make(seqno: int = 1, context: int | None = None) -> Fence:
    return Fence(fence_context_alloc() if context is None else context, seqno)


def signalled(seqno: int = 1, context: int | None = None) -> Fence:
    fence = make(seqno, context)
    fence.signal()
    return fence


class Calls:
    """A callback that counts."""

    def __init__(self) -> None:
        self.fences: list[Fence] = []

    def __call__(self, fence: Fence) -> None:
        self.fences.append(fence)
