"""The history of an address against a dictionary of pages that is changed by hand, call by call."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuvm.report.history import Event, History, Kind
from gpuvm.report.history_reader import clients_with, history_of
from gpuvm.trace.snapshot import object_number, take_snapshot
from gpuvm.trace.stream import Stream
from gpuvm.trace.trace import Trace
from trace_scenes import trace_of
from tracefile import PAGE, SPARSE_BUFFER, Call, bind, call, gem_close, gem_new, op, vm_init

PAGES = 6
BASE = 0x10000
HANDLES = (1, 2, 3)
KINDS = {Kind.MAPPED, Kind.CUT, Kind.REPLACED, Kind.UNMAPPED, Kind.REFUSED, Kind.IDLE}


@dataclass
class Book:
    """What each page shows, as (object, its page, the mapping's number), and what each call did to it."""

    objects: dict[int, int] = field(default_factory=dict)
    shown: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    did: dict[int, list[tuple[int, Kind]]] = field(default_factory=lambda: defaultdict(list))
    after: list[dict[int, tuple[int, int, int]]] = field(default_factory=list)
    mappings: int = 0

    def bound(self, number: int, ops: list[Call], refused: bool) -> None:
        for one in ops:
            first = (one["addr"] - BASE) // PAGE
            pages = range(first, first + one["range"] // PAGE)
            if refused:
                for page in pages:
                    self.did[page].append((number, Kind.REFUSED))
            else:
                self.one(number, one, pages)

    def one(self, number: int, one: Call, pages: range) -> None:
        maps = one["op"] == "map"
        hit = {self.shown[page][2] for page in pages if page in self.shown}
        for page in pages:
            if page in self.shown:
                self.ended(page, number, Kind.REPLACED if maps else Kind.UNMAPPED)
                del self.shown[page]
            elif not maps:
                self.did[page].append((number, Kind.IDLE))
        self.cut(number, hit, pages)
        self.mappings += 1
        for page in pages if maps else ():
            at = one["bo_offset"] // PAGE + page - pages.start
            self.shown[page] = self.objects[one["handle"]], at, self.mappings
            self.did[page].append((number, Kind.MAPPED))

    def cut(self, number: int, hit: set[int], hole: range) -> None:
        """What is left of the mappings that were hit are new ones, one on each side."""
        for old in hit:
            for side in (range(hole.start), range(hole.stop, PAGES)):
                self.mappings += 1
                for page in side:
                    if page in self.shown and self.shown[page][2] == old:
                        self.ended(page, number, Kind.CUT)
                        self.shown[page] = (*self.shown[page][:2], self.mappings)

    def ended(self, page: int, number: int, kind: Kind) -> None:
        """A cut is not told if the same call goes on with what it left."""
        if self.did[page][-1] == (number, Kind.CUT):
            self.did[page].pop()
        self.did[page].append((number, kind))


@st.composite
def operations(draw: st.DrawFn) -> Call:
    first = draw(st.integers(0, PAGES - 1))
    count = draw(st.integers(1, PAGES - first))
    addr, size = BASE + first * PAGE, count * PAGE
    if draw(st.booleans()):
        return op("unmap", addr, size)
    return op("map", addr, size, draw(st.sampled_from(HANDLES)), draw(st.integers(0, 3)) * PAGE)


binds = st.lists(
    st.tuples(st.lists(operations(), min_size=1, max_size=3), st.sampled_from((0, 0, 0, -22))), max_size=8
)


@given(binds, st.booleans())
def test_it_is_what_was_done_to_the_page(binds: list[tuple[list[Call], int]], closed: bool) -> None:
    calls = [vm_init(), *(gem_new(handle, size=16 * PAGE) for handle in HANDLES)]
    book = Book(objects={handle: i for i, handle in enumerate(HANDLES, 2)})
    book.after = [{}] * len(calls)
    for ops, ret in binds:
        calls.append(bind(*ops, ret=ret))
        book.bound(len(calls), ops, ret < 0)
        book.after.append(dict(book.shown))
    if closed:
        calls += [gem_close(handle) for handle in HANDLES]
    with trace_of(*calls) as trace:
        for page in range(PAGES):
            addr = BASE + page * PAGE + 0x123
            told = history_of(trace.db, 1, addr)
            assert [(e.call, e.kind) for e in told.events if e.kind in KINDS] == book.did[page]
            _objects_are_told(told.events, closed, book.shown.get(page))
            assert (1 in clients_with(trace.db, addr)) == any(
                kind is Kind.MAPPED for _, kind in book.did[page]
            )
            for number, shown in enumerate(book.after, 1):
                _is_shown(history_of(trace.db, 1, addr, number), page, shown)


def _objects_are_told(events: tuple[Event, ...], closed: bool, shown: tuple[int, int, int] | None) -> None:
    made = [event.call for event in events if event.kind is Kind.MADE]
    assert made == sorted({e.facts["object"] for e in events if e.kind is Kind.MAPPED})
    handles = [event.facts["object"] for event in events if event.kind is Kind.CLOSED]
    assert handles == ([shown[0]] if closed and shown else [])


def _is_shown(told: History, page: int, shown: dict[int, tuple[int, int, int]]) -> None:
    here = shown.get(page)
    if here is None:
        assert told.here is None
    else:
        assert told.here is not None
        assert told.here.object == here[0]
        assert told.here.offset + told.addr - 0x123 - told.here.addr == here[1] * PAGE
    below = {one[2] for at, one in shown.items() if at < page} - ({here[2]} if here else set())
    above = {one[2] for at, one in shown.items() if at > page} - ({here[2]} if here else set())
    assert len([one for one in told.around if one.end <= told.addr]) == min(len(below), 2)
    assert len([one for one in told.around if one.addr > told.addr]) == min(len(above), 2)
    assert [one.addr for one in told.around] == sorted(one.addr for one in told.around)


@given(binds)
def test_all_of_the_stretch_has_the_same_history(binds: list[tuple[list[Call], int]]) -> None:
    calls = [vm_init(), *(gem_new(handle, size=16 * PAGE) for handle in HANDLES)]
    with trace_of(*calls, *(bind(*ops) for ops, _ in binds)) as trace:
        for page in range(PAGES):
            told = history_of(trace.db, 1, BASE + page * PAGE)
            first, end = told.stretch
            assert first <= told.addr < end
            for other in range(PAGES):
                addr = BASE + other * PAGE
                if first <= addr < end:
                    same = history_of(trace.db, 1, addr)
                    assert same.stretch == told.stretch
                    assert [(e.call, e.kind) for e in same.events if e.kind is not Kind.IDLE] == [
                        (e.call, e.kind) for e in told.events if e.kind is not Kind.IDLE
                    ]


def test_sparse_regions_the_kernels_part_and_the_end_of_the_space() -> None:
    region = {"addr": 0x20000, "size": 4 * PAGE, "flags": 0x100}
    with trace_of(
        vm_init(),
        gem_new(5),
        bind(op("map", **region), op("map", 0x21000, PAGE, 5)),
        bind(op("unmap", 0x21000, PAGE)),
        bind(op("unmap", **region)),
    ) as trace:
        told = history_of(trace.db, 1, 0x21000, 4)
        assert told.region == (0x20000, 0x24000, 3)
        kinds = [Kind.MADE, Kind.REGION_MADE, Kind.MAPPED, Kind.UNMAPPED, Kind.REGION_DROPPED]
        assert [event.kind for event in told.events] == kinds
        assert history_of(trace.db, 1, 0x21000).region is None
        assert told.kernel == (0x80_0000_0000, 0x100_0000_0000)
        assert history_of(trace.db, 1, 1 << 47).stretch == (1 << 47, 1 << 64)


def test_another_clients_object_and_the_end_of_a_space() -> None:
    with trace_of(
        vm_init(1),
        vm_init(2),
        gem_new(5, client=1),
        call("prime_handle_to_fd", handle=5, flags=0, fd=9),
        call("prime_fd_to_handle", client=2, fd=9, handle=7),
        bind(op("map", PAGE, PAGE, 7), client=2),
        call("close", client=2),
    ) as trace:
        assert clients_with(trace.db, PAGE) == [2]
        told = history_of(trace.db, 2, PAGE)
        assert [(e.kind, e.call, e.name) for e in told.events] == [
            (Kind.MADE, 3, "gem_new"),
            (Kind.MAPPED, 6, "vm_bind"),
            (Kind.UNMAPPED, 7, "close"),
        ]
        assert told.events[0].facts["client"] == 1
        assert told.events[-1].facts["ended"]


@pytest.mark.parametrize("line", [30, 41, 60, 69, 75, 116])
def test_a_real_trace_shows_what_show_shows(line: int) -> None:
    def lines() -> Iterator[tuple[int, str]]:
        return islice(enumerate(SPARSE_BUFFER.read_text().splitlines(), 1), line)

    vm = take_snapshot(Stream("trace", lines(), None)).vm
    there = [va for va in vm.mappings() if not va.kernel]
    with Trace.open(str(SPARSE_BUFFER)) as trace:
        for addr in {edge for va in there for edge in (va.addr, va.end - 1, va.end)} | {0x3F_FFF2_6000}:
            told = history_of(trace.db, 2, addr, line)
            found = vm.find_first(addr, 1)
            if found is None:
                assert told.here is None
            else:
                assert told.here is not None
                assert (told.here.addr, told.here.range, told.here.offset) == (
                    found.addr,
                    found.range,
                    found.offset,
                )
                assert told.handles[told.here.object or 0] == object_number(found.obj)
