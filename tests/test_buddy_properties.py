"""Buddy against a model that knows every page, in any order that Hypothesis can think of."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import gpuvm
from buddies import PAGE, PageModel, Request, free_sizes, pages_of, roots, state
from gpuvm import _core
from gpuvm.mem.buddy import Buddy

MOST = 80
"""Pages. Enough for several roots, and for a second word in the sets."""

sizes = st.one_of(st.integers(1, 5), st.integers(1, MOST + 1))
units = st.sampled_from([1, 1, 1, 2, 4, 8, 32, 128])
refusals = st.sampled_from([None, None, None, None, 0, 1, 2, 5])
indices = st.integers(0, 1 << 16)


class Memory(RuleBasedStateMachine):
    """An allocator and what it must be."""

    @initialize(pages=st.one_of(st.integers(1, MOST), st.sampled_from([16, 48, 64, 65])))
    def make(self, pages: int) -> None:
        self.buddy, self.model = Buddy(pages * PAGE), PageModel(pages)

    @rule(
        size=sizes,
        unit=units,
        window=st.none() | st.tuples(st.integers(0, MOST), st.integers(1, MOST)),
        contiguous=st.booleans(),
        clear=st.booleans(),
        top_down=st.booleans(),
        refusal=refusals,
    )
    def alloc(
        self,
        size: int,
        unit: int,
        window: tuple[int, int] | None,
        contiguous: bool,
        clear: bool,
        top_down: bool,
        refusal: int | None,
    ) -> None:
        first, last = 0, self.model.pages
        if window is not None:
            first = window[0] % self.model.pages
            last = min(first + window[1], self.model.pages)
        ask = Request(size, unit, first, last, contiguous, clear, top_down)
        before = state(self.buddy)
        _core.fail_allocation(refusal)
        try:
            runs = ask.of(self.buddy)
        except gpuvm.NoSpace:
            assert not self.model.must_fit(ask)
            assert state(self.buddy) == before
        except gpuvm.OutOfMemory:
            assert refusal is not None
            assert state(self.buddy) == before
        else:
            self.model.allocated(ask, self.buddy, runs)
        finally:
            _core.fail_allocation(None)

    @precondition(lambda self: self.model.live)
    @rule(index=indices, zero=st.booleans())
    def free(self, index: int, zero: bool) -> None:
        run = self.model.live.pop(index % len(self.model.live))
        self.buddy.free(*run, cleared=zero)
        self.model.freed(run, zero)
        with pytest.raises(gpuvm.InvalidArgument):
            self.buddy.free(*run)

    @precondition(lambda self: self.model.live)
    @rule(index=indices, cut=st.tuples(indices, indices))
    def trim(self, index: int, cut: tuple[int, int]) -> None:
        run = self.model.live.pop(index % len(self.model.live))
        pages, dirty = pages_of(run), self.model.dirty(self.buddy, run)
        first = pages.start + cut[0] % len(pages)
        last = first + 1 + cut[1] % (pages.stop - first)
        kept = (first * PAGE, (last - first) * PAGE)
        self.buddy.trim(*run, kept[1], start=kept[0])
        assert self.model.dirty(self.buddy, kept) == dirty.intersection(range(first, last))
        self.model.free.update((page, page not in dirty) for page in pages if not first <= page < last)
        self.model.live.append(kept)

    @rule(zero=st.booleans())
    def reset_clear(self, zero: bool) -> None:
        self.buddy.reset_clear(zero)
        self.model.free = dict.fromkeys(self.model.free, zero)
        assert self.buddy.cleared_bytes == sum(self.model.free.values()) * PAGE

    @rule(page=st.integers(0, MOST), size=st.integers(1, MOST))
    def free_what_is_not_allocated(self, page: int, size: int) -> None:
        pages = range(page, page + size)
        if any(number in self.model.free or number >= self.model.pages for number in pages):
            before = state(self.buddy)
            with pytest.raises(gpuvm.InvalidArgument):
                self.buddy.free(page * PAGE, size * PAGE)
            assert state(self.buddy) == before

    @invariant()
    def consistent(self) -> None:
        if hasattr(self, "buddy"):
            self.model.check(self.buddy)

    def teardown(self) -> None:
        if not hasattr(self, "buddy"):
            return
        for run in self.model.live:
            self.buddy.free(*run, cleared=run[0] % (2 * PAGE) == 0)
        self.buddy.check()
        self.buddy.reset_clear(False)
        self.buddy.check()
        assert free_sizes(self.buddy) == roots(self.model.pages), "as untouched memory is"


TestMemory = Memory.TestCase
