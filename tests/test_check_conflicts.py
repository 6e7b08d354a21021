"""Conflicts of EXECs with VM_BINDs, against a dictionary of pages and a look at all pairs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

import suite
from gpuvm.trace.conflicts import Certainty, Conflict, Conflicts, Kind
from gpuvm.trace.order import Order
from gpuvm.trace.trace import Trace
from trace_scenes import trace_of
from tracefile import PAGE, Call, call, gem_new, op, vm_init

BASE = 1 << 32
PAGES = 6
SYNC = {"type": "syncobj", "handle": 1}

Content = tuple[int, int] | None  # object's handle and page of it


def binding(*ops: Call, flags: int = 0, waits: tuple[Call, ...] = (), signals: tuple[Call, ...] = ()) -> Call:
    return call("vm_bind", flags=flags, waits=list(waits), signals=list(signals), ops=list(ops))


def execution(
    page: int,
    size: int = PAGE,
    *,
    channel: int = 1,
    waits: tuple[Call, ...] = (),
    signals: tuple[Call, ...] = (),
) -> Call:
    pushes = [{"va": BASE + page * PAGE, "va_len": size}]
    return call("exec", channel=channel, waits=list(waits), signals=list(signals), pushes=pushes)


def mapped(page: int, count: int = 1, handle: int = 1, at: int = 0) -> Call:
    return op("map", BASE + page * PAGE, count * PAGE, handle, at * PAGE)


def unmapped(page: int, count: int = 1) -> Call:
    return op("unmap", BASE + page * PAGE, count * PAGE)


PROLOGUE = [vm_init(), gem_new(1), gem_new(2), call("syncobj_create", handle=1, flags=1)]

waiting = st.sampled_from(((), (SYNC,)))


@st.composite
def calls_of(draw: st.DrawFn) -> Call:
    page = draw(st.integers(0, PAGES - 1))
    count = draw(st.integers(1, PAGES - page))
    syncs: dict[str, Any] = {"waits": draw(waiting), "signals": draw(waiting)}
    match draw(st.integers(0, 9)):
        case 0 | 1 | 2 | 3:
            return execution(page, count * PAGE, channel=draw(st.integers(1, 2)), **syncs)
        case 4:
            return call("syncobj_wait", handles=[1], flags=0)
        case number:
            change = unmapped(page, count)
            if number < 8:
                change = mapped(page, count, draw(st.integers(1, 2)), draw(st.sampled_from((page, page + 1))))
            return binding(change, flags=1, **syncs) if draw(st.booleans()) else binding(change)


class Pages:
    """What every page shows after each call, and which call changed it last."""

    def __init__(self, calls: list[Call]) -> None:
        self.states: list[dict[int, tuple[Content, int]]] = [{}]
        for number, one in enumerate(calls, 1):
            state = dict(self.states[-1])
            for change in one.get("ops", ()):
                first = (change["addr"] - BASE) // PAGE
                for page in range(first, first + change["range"] // PAGE):
                    content = None
                    if change["op"] == "map":
                        content = change["handle"], change["bo_offset"] // PAGE + page - first
                    if (page in state or content is not None) and state.get(page, (None, 0))[0] != content:
                        state[page] = content, number
            self.states.append(state)

    def changes(self, page: int, number: int) -> bool:
        return self.states[number].get(page) != self.states[number - 1].get(page)


def expected(calls: list[Call], order: Order) -> Iterator[tuple[Kind, int, int]]:
    pages = Pages(calls)
    for number, one in enumerate(calls, 1):
        for push in one.get("pushes", ()):
            first = (push["va"] - BASE) // PAGE
            for page in range(first, first + push["va_len"] // PAGE):
                yield from of_page(calls, pages, order, number, page)


def of_page(
    calls: list[Call], pages: Pages, order: Order, number: int, page: int
) -> Iterator[tuple[Kind, int, int]]:
    content, since = pages.states[number].get(page, (None, 0))
    if content is None and since:
        yield Kind.UNMAPPED_BEFORE, number, since
    elif content is not None and not order.before(since, number):
        yield Kind.NOT_BOUND_YET, number, since
    first, last = page * PAGE + BASE, (page + 1) * PAGE + BASE
    for later in range(number + 1, len(calls) + 1):
        other = calls[later - 1]
        same = other.get("channel") == calls[number - 1]["channel"] or not since
        if same and any(
            push["va"] < last and first < push["va"] + push["va_len"] for push in other.get("pushes", ())
        ):
            return  # then that one is told
        if pages.changes(page, later):
            now = pages.states[later][page][0]
            if not since:
                yield Kind.BOUND_LATER, number, later
            elif content is not None and not order.before(number, later):
                yield (Kind.UNMAPPED_UNDER if now is None else Kind.REPLACED_UNDER), number, later
            return


def conflicts_of(trace: Trace) -> tuple[Order, Conflicts]:
    order = Order(trace)
    order.check()
    conflicts = Conflicts(trace, order)
    conflicts.check()
    return order, conflicts


@settings(max_examples=suite.scaled(80, 5000), deadline=None)
@given(st.lists(calls_of(), max_size=25))
def test_conflicts_are_those_of_pages(drawn: list[Call]) -> None:
    calls = PROLOGUE + drawn
    with trace_of(*calls) as trace:
        order, conflicts = conflicts_of(trace)
    found = {(one.kind, one.exec, one.bind) for one in conflicts.found}
    assert found == set(expected(calls, order))
    assert {one.certainty for one in conflicts.found} <= {Certainty.SEEN, Certainty.UNKNOWN}
    pages = Pages(calls)
    changing = {n for n in range(1, len(calls) + 1) if pages.states[n] != pages.states[n - 1]}
    assert conflicts.changing == changing


def found_in(*calls: Call, times: str = "") -> list[Conflict]:
    with trace_of(*PROLOGUE, *calls) as trace:
        trace.db.executescript(times)
        return list(conflicts_of(trace)[1].found)


def at(number: int, began: int, took: int) -> str:
    return f"UPDATE calls SET t = {began}, took = {took} WHERE id = {number};"


def job(number: int, queued: int, waited: int, took: int) -> str:
    return f"UPDATE jobs SET queued = {queued}, waited = {waited}, took = {took} WHERE call = {number};"


def certainty(times: str) -> list[Certainty]:
    calls = binding(mapped(0)), execution(0), binding(unmapped(0))
    return [one.certainty for one in found_in(*calls, times=times)]


def test_times_decide_where_nothing_orders() -> None:
    assert certainty("") == [Certainty.UNKNOWN]
    assert certainty(job(6, 10, 1, 5) + at(7, 20, 5)) == []
    assert certainty(job(6, 10, 1, 12) + at(7, 20, 5)) == [Certainty.LUCK]
    assert certainty(job(6, 10, 1, 50) + at(7, 20, 5)) == [Certainty.SEEN]
    never = "UPDATE jobs SET queued = 10, waited = 1 WHERE call = 6;"
    assert certainty(never + at(7, 20, 5)) == [Certainty.SEEN]


def test_an_access_that_was_over_is_no_conflict() -> None:
    read = "INSERT INTO accesses (call, id, t, took, client, channel, engine, code, addr, range) VALUES "
    times = job(6, 10, 1, 50) + at(7, 30, 5)
    assert certainty(times + read + f"(6, 1, 12, 5, 1, 1, 'copy', 0, {BASE}, 64);") == []
    assert certainty(times + read + f"(6, 1, 12, 40, 1, 1, 'copy', 0, {BASE}, 64);") == [Certainty.SEEN]
    assert certainty(times + read + f"(6, 1, 12, 40, 1, 1, 'copy', 0, {BASE + PAGE}, 64);") == []


def test_a_bind_that_runs_too_late() -> None:
    calls = binding(mapped(0), flags=1), execution(0)
    early = job(5, 10, 100, 200) + job(6, 20, 1, 5)
    assert [one.certainty for one in found_in(*calls, times=early)] == [Certainty.SEEN]
    lucky = job(5, 10, 1, 12) + job(6, 20, 10, 20)
    assert [one.certainty for one in found_in(*calls, times=lucky)] == [Certainty.LUCK]
    assert found_in(*calls, times=job(5, 10, 1, 5) + job(6, 20, 10, 20)) == []


def test_in_a_sparse_region_a_hole_is_no_use_after_unmap() -> None:
    region = op("map", BASE, 8 * PAGE, flags=0x100)
    drop = op("unmap", BASE, 8 * PAGE, flags=0x100)
    within = binding(region), binding(mapped(0)), binding(unmapped(0)), execution(0)
    assert found_in(*within) == []
    (dropped,) = found_in(*within, binding(drop))
    assert (dropped.kind, dropped.exec, dropped.bind) == (Kind.UNMAPPED_UNDER, 8, 9)
    (after,) = found_in(*within[:3], binding(drop), execution(0))
    assert (after.kind, after.exec, after.bind) == (Kind.UNMAPPED_BEFORE, 9, 8)


def test_what_a_call_maps_again_as_it_was_stays() -> None:
    again = binding(unmapped(0), mapped(0))
    assert found_in(binding(mapped(0)), execution(0), again) == []
    (other,) = found_in(binding(mapped(0)), execution(0), binding(unmapped(0), mapped(0, at=1)))
    assert other.kind is Kind.REPLACED_UNDER


def test_what_a_call_maps_and_unmaps_is_gone() -> None:
    both = binding(mapped(0, handle=2), unmapped(0))
    (use,) = found_in(binding(mapped(0)), both, execution(0))
    assert (use.kind, use.exec, use.bind) == (Kind.UNMAPPED_BEFORE, 7, 6)
