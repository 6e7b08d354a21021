"""Random binds, executions and evictions against a dictionary of pages: what the GPU sees is what it says."""

from __future__ import annotations

import errno
import os
from typing import Any, NamedTuple

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import pushbuf
from driver_calls import Typed
from driver_world import (
    GART,
    HUGE,
    NO_SHARE,
    PAGE,
    VRAM,
    Bo,
    Held,
    Program,
    device_of,
    drop_op,
    ended,
    map_op,
    sparse_op,
    unmap_op,
)
from gpuvm.nouveau.bind_queue import BindQueueStatistics
from gpuvm.nouveau.uapi.requests import VmBindOp
from gpuvm.sync.fence import Fence
from gpuvm.sync.resv import Usage
from suite import scaled

PAGES = 64
BASE = HUGE - PAGES // 2 * PAGE
"""The window lies across the border of two large pages."""
BO_PAGES = 32


class Space:
    """What is mapped and where regions are, by page numbers of the window; and what an operation does."""

    def __init__(self) -> None:
        self.pages: dict[int, tuple[Bo, int]] = {}
        self.regions: set[tuple[int, int]] = set()

    def copy(self) -> Space:
        other = Space()
        other.pages, other.regions = dict(self.pages), set(self.regions)
        return other

    def shows(self, page: int) -> tuple[Bo, int] | str:
        """What is mapped; or "sparse", or "invalid"."""
        region = any(start <= page < end for start, end in self.regions)
        return self.pages.get(page, "sparse" if region else "invalid")

    def refuses(self, op: Op, dropped: set[tuple[int, int]]) -> set[int]:
        """Errnos that one operation may give; ``dropped`` by operations before it in the call."""
        here = {region for region in self.regions | dropped if op.touches(*region)}
        if op.kind == "map":
            return self._refuses_map(op, here, dropped)
        if op.kind == "make":
            mapped = any(page in self.pages for page in op.pages)
            if here == {(op.start, op.end)} and not mapped:
                return {errno.EEXIST}
            return {errno.ENOSPC} if here or mapped else set()
        if op.kind == "drop" and (op.start, op.end) not in self.regions - dropped:
            return {errno.ENOENT}
        return set()

    @staticmethod
    def _refuses_map(op: Op, here: set[tuple[int, int]], dropped: set[tuple[int, int]]) -> set[int]:
        crosses = any(not (start <= op.start and op.end <= end) for start, end in here - dropped)
        found = {errno.EINVAL: bool(here & dropped), errno.ENOSPC: crosses}
        return {code for code, applies in found.items() if applies}

    def apply(self, op: Op) -> None:
        if op.kind == "make":
            self.regions.add((op.start, op.end))
        elif op.kind == "map":
            assert op.bo is not None
            self.pages |= {page: (op.bo, op.offset + page - op.start) for page in op.pages}
        else:
            for page in op.pages:
                self.pages.pop(page, None)
            if op.kind == "drop":
                self.regions.discard((op.start, op.end))


class Op(NamedTuple):
    """One operation, in pages of the window."""

    kind: str
    start: int
    end: int
    bo: Bo | None = None
    offset: int = 0

    @property
    def pages(self) -> range:
        return range(self.start, self.end)

    def touches(self, start: int, end: int) -> bool:
        return start < self.end and self.start < end

    @property
    def uapi(self) -> VmBindOp:
        addr, size = BASE + self.start * PAGE, (self.end - self.start) * PAGE
        if self.kind == "map":
            assert self.bo is not None
            return map_op(addr, size, self.bo.handle, self.offset * PAGE)
        return {"unmap": unmap_op, "make": sparse_op, "drop": drop_op}[self.kind](addr, size)


class Pending(NamedTuple):
    """A bind that waits, and what it will have done."""

    held: Held | None
    ops: list[Op]
    fence: Fence


class Driver(RuleBasedStateMachine):
    """``now`` is what calls see, ``shown`` what the GPU sees: binds that are held back lie between them."""

    def __init__(self) -> None:
        super().__init__()
        self._device = device_of()
        self.program = Program(self._device.__enter__())
        self.calls = Typed(self.program.client)
        self.now, self.shown = Space(), Space()
        self.pending: list[Pending] = []
        self.words: dict[tuple[int, int], int] = {}
        """What each page of each object begins with."""

    @initialize()
    def make_objects(self) -> None:
        domains = (VRAM, GART, VRAM | GART, VRAM | NO_SHARE)
        self.bos = [self.program.bo(BO_PAGES * PAGE, domain) for domain in domains]
        for bo in self.bos:
            self.words |= {(bo.tag, page): bo.tag_at(page * PAGE) for page in range(BO_PAGES)}

    # -- binds

    def op(self, data: Any) -> Op:
        kind = data.draw(st.sampled_from(["map", "map", "map", "unmap", "unmap", "make", "drop"]))
        regions = sorted(self.now.regions)
        if kind == "drop" and regions and data.draw(st.integers(0, 4)):
            return Op("drop", *data.draw(st.sampled_from(regions)))
        start = data.draw(st.integers(0, PAGES - 1))
        longest = min(PAGES - start, BO_PAGES if kind == "map" else PAGES)
        length = min(data.draw(st.sampled_from([1, 1, 2, 3, 8, 16, 17, 32])), longest)
        if kind != "map":
            return Op(kind, start, start + length)
        offset = data.draw(st.integers(0, BO_PAGES - length))
        return Op(kind, start, start + length, data.draw(st.sampled_from(self.bos)), offset)

    def waits(self, ops: list[Op]) -> bool:
        """Whether a bind that is held back is in the way."""
        before = [op for pending in self.pending for op in pending.ops]
        return any(
            op.kind in ("map", "make")
            and any(
                other.touches(op.start, op.end)
                and (other.kind == "drop" or (other.kind == "unmap" and op.kind == "make"))
                for other in before
            )
            for op in ops
        )

    @rule(data=st.data(), held=st.booleans(), run_async=st.booleans())
    def bind(self, data: Any, held: bool, run_async: bool) -> None:
        ops = [self.op(data) for _ in range(data.draw(st.integers(0, 4)))]
        if self.waits(ops) or not run_async:
            self.let_go_of_all()
        space, expected = self.carry_out(ops)
        hold = self.program.held() if held and run_async else None
        waits = [hold.sync] if hold is not None else []
        with self.program.out() as (sync, done):
            signals = [sync] if run_async else []
            result = self.calls.vm_bind([op.uapi for op in ops], waits, signals, run_async=run_async)
            assert -result in (expected or {0})
            if result or not run_async:
                self.program.client.syncobjs.signal([sync.handle])
        if result:
            return
        self.now = space
        self.shown.regions |= {(op.start, op.end) for op in ops if op.kind == "make"}  # at once
        if run_async:
            self.pending.append(Pending(hold, ops, done[0]))
        else:
            self.shown = space.copy()
        self.catch_up()

    def carry_out(self, ops: list[Op]) -> tuple[Space, set[int]]:
        """The space after them, and the errnos of the first that is refused."""
        space, dropped = self.now.copy(), set[tuple[int, int]]()
        for op in ops:
            refused = space.refuses(op, dropped)
            if refused:
                return space, refused
            space.apply(op)
            if op.kind == "drop":
                dropped.add((op.start, op.end))
        return space, set()

    @precondition(lambda self: self.pending)
    @rule()
    def let_go(self) -> None:
        """Of the first that is held."""
        held = next((pending.held for pending in self.pending if pending.held is not None), None)
        if held is not None:
            held.let_go()
        self.catch_up()

    def binds(self) -> BindQueueStatistics:
        statistics = self.program.client.statistics().binds
        assert statistics is not None
        return statistics

    def let_go_of_all(self) -> None:
        for pending in self.pending:
            if pending.held is not None:
                pending.held.let_go()
        self.catch_up()

    def catch_up(self) -> None:
        """What nothing holds back any more has run, in order."""
        while self.pending and (self.pending[0].held is None or self.pending[0].held.fence.signalled):
            first = self.pending.pop(0)
            assert ended(first.fence) == 0
            for op in first.ops:
                if op.kind != "make":
                    self.shown.apply(op)
        while self.binds().pending > len(self.pending):  # regions that are dropped go with the cleanup
            os.sched_yield()
        assert not any(pending.fence.signalled for pending in self.pending)

    # -- executions and evictions

    @rule(data=st.data(), count=st.integers(1, 4))
    def copy(self, data: Any, count: int) -> None:
        """First words of pages, from anywhere that can be read to anywhere that can be written."""
        there = [page for page in range(PAGES) if self.shown.shows(page) != "invalid"]
        if not there:
            return
        words = pushbuf.Push()
        for _ in range(count):
            src, dst = (data.draw(st.sampled_from(there)) for _ in range(2))
            words.copy(BASE + dst * PAGE, BASE + src * PAGE, 8)
            target = self.shown.shows(dst)
            if not isinstance(target, str):
                self.words[target[0].tag, target[1]] = self.word(src)
        assert self.program.run(words) == 0

    def word(self, page: int) -> int:
        found = self.shown.shows(page)
        return 0 if isinstance(found, str) else self.words[found[0].tag, found[1]]

    @rule(number=st.integers(0, 3))
    def evict(self, number: int) -> None:
        """If nobody uses it."""
        bo = self.bos[number]
        if self.program.client.handles.lookup(bo.handle).resv.test_signalled(Usage.BOOKKEEP):
            self.program.evict(bo)

    @rule(number=st.integers(0, 3), page=st.integers(0, BO_PAGES - 1), word=st.integers(0, 255))
    def write(self, number: int, page: int, word: int) -> None:
        """By the CPU."""
        self.program.words(self.bos[number])[page, 0] = word
        self.words[self.bos[number].tag, page] = word

    # -- looking

    @invariant()
    def the_gpu_sees_what_it_should(self) -> None:
        assert self.program.run() == 0  # evicted objects are back
        letters = {"sparse": "s", "invalid": "i"}
        expected = [self.shown.shows(page) for page in range(PAGES)]
        assert self.program.entries(BASE, BASE + PAGES * PAGE) == "".join(
            letters[each] if isinstance(each, str) else "v" for each in expected
        )
        words = {BASE + page * PAGE: self.word(page) for page in range(PAGES) if expected[page] != "invalid"}
        assert self.program.tags_at(words) == words

    @invariant()
    def it_is_consistent(self) -> None:
        if not self.pending:
            self.program.client.settle()
            self.program.device.check()

    def teardown(self) -> None:
        for pending in self.pending:
            if pending.held is not None:
                pending.held.let_go()
        self._device.__exit__(None, None, None)


TestDriver = Driver.TestCase
TestDriver.settings = settings(max_examples=scaled(15, 400), stateful_step_count=scaled(25, 50))
