"""`Resv` against a plain list of what was asked for."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gpuvm.errors import InvalidArgument
from gpuvm.sync.fence import Fence, fence_context_alloc
from gpuvm.sync.resv import Resv, Usage
from resvs import pending

CONTEXTS = [fence_context_alloc() for _ in range(3)]


class Asked:
    """Every fence that was added and for which usage, even if a later one stands for it now."""

    def __init__(self) -> None:
        self.rows: list[tuple[Fence, Usage]] = []
        self.perhaps: list[tuple[Fence, Usage]] = []
        """Replacements of what is signalled: it depends on whether that was dropped already."""

    def replace(self, context: int, replacement: Fence, usage: Usage) -> None:
        replaced = [old for old, _ in self.rows if old.context == context]
        self.rows = [row for row in self.rows if row[0].context != context]
        pending = any(not old.signalled for old in replaced)
        (self.rows if pending else self.perhaps).append((replacement, usage))

    def verify(self, found: list[Fence], usage: Usage) -> None:
        """Found is each fence or a later one of its context, and nothing that was not added."""
        waited_for = {fence.context: fence.seqno for fence in sorted(found, key=lambda each: each.seqno)}
        for fence, its in self.rows:
            if its.value <= usage.value and not fence.signalled:
                assert waited_for.get(fence.context, -1) >= fence.seqno, (fence, its, found)
        for fence in found:
            assert not fence.signalled
            asked = self.rows + self.perhaps
            assert any(fence is each and its.value <= usage.value for each, its in asked), fence


contexts, usages = st.integers(0, 2), st.sampled_from(Usage)


steps = st.one_of(
    st.tuples(st.just("add"), contexts, st.integers(0, 4), usages),
    st.tuples(st.just("add"), contexts, st.integers(0, 4), usages),
    st.tuples(st.just("reserve"), st.integers(1, 3)),
    st.tuples(st.just("signal"), contexts),
    st.tuples(st.just("replace"), contexts, usages),
    st.tuples(st.just("unlock")),
)


@given(st.lists(steps, max_size=40))
def test_as_a_plain_list(program: list[tuple[Any, ...]]) -> None:
    resv, asked = Resv(), Asked()
    timelines = [[Fence(context, seqno) for seqno in range(1, 6)] for context in CONTEXTS]
    free = 0
    for name, *arguments in [*program, ["unlock"]]:
        if not resv.locked:
            resv.lock()
        if name == "reserve":
            resv.reserve_fences(arguments[0])
            free = max(free, arguments[0])
        elif name == "add":
            fence, usage = timelines[arguments[0]][arguments[1]], arguments[2]
            before = list(resv.entries())
            try:
                resv.add_fence(fence, usage)
            except InvalidArgument:
                assert free == 0, "a slot that was reserved is there"
                assert list(resv.entries()) == before
            else:
                asked.rows.append((fence, usage))
                free = max(free - 1, 0)
        elif name == "signal":
            following = next((fence for fence in timelines[arguments[0]] if not fence.signalled), None)
            if following is not None:
                following.signal()
        elif name == "replace":
            replacement = pending()
            resv.replace_fences(CONTEXTS[arguments[0]], replacement, arguments[1])
            asked.replace(CONTEXTS[arguments[0]], replacement, arguments[1])
        elif name == "unlock":
            resv.unlock()
            free = 0
        resv.check()
        for usage in Usage:
            asked.verify(resv.fences(usage), usage)
            assert resv.test_signalled(usage) == (not resv.fences(usage))
    with Resv() as copy:
        copy.copy_fences(resv)
        assert [copy.fences(usage) for usage in Usage] == [resv.fences(usage) for usage in Usage]
