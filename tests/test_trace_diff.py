"""The difference of traces: none with itself, exactly what was planted, and the alignment under it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from driver_traces import READY, binary, execute, syncobj
from gpuvm.trace.alignment import align
from gpuvm.trace.diff import Kind, TraceDiff, diff_traces
from gpuvm.trace.recorded import Record
from random_traces import BEGUN, drawn_records, renumbered
from suite import scaled
from trace_scenes import records_of_lines, trace_of_records
from tracefile import PAGE, Call, bind, call, gem_close, gem_new, op, vm_init

CALLS = (*READY, syncobj(3), execute(1, 0, signals=[binary(3)]), call("syncobj_wait", handles=[3], flags=0))


def diff_of(a: Sequence[Record], b: Sequence[Record]) -> TraceDiff:
    with trace_of_records(a) as first, trace_of_records(b) as second:
        return diff_traces(first, second)


def changes(a: Sequence[Call], b: Sequence[Call]) -> list[tuple[Kind, int | None, int | None]]:
    found = diff_of(records_of_lines(*a), records_of_lines(*b)).changes
    return [(one.kind, one.a, one.b) for one in found]


@settings(max_examples=scaled(20, 1000))
@given(drawn_records(20))
def test_nothing_differs_from_itself(records: list[Record]) -> None:
    records = renumbered(records)
    found = diff_of(records, records)
    assert found.changes == []
    assert found.alike == len(records)


@settings(max_examples=scaled(20, 1000))
@given(drawn_records(20), st.data())
def test_one_that_is_missing_is_found(records: list[Record], data: st.DataObject) -> None:
    records = renumbered(records)
    # Nothing depends on a call that was refused.
    extra = replace(records_of_lines(gem_close(77))[0], ret=-22, client=data.draw(st.integers(1, 2)))
    at = data.draw(st.integers(BEGUN, len(records)))
    longer = renumbered([*records[:at], extra, *records[at:]])
    (one,) = diff_of(longer, records).changes
    assert (one.kind, one.a, one.b) == (Kind.ONLY_A, at + 1, None)
    (one,) = diff_of(records, longer).changes
    assert (one.kind, one.a, one.b) == (Kind.ONLY_B, None, at + 1)


@settings(max_examples=scaled(20, 1000))
@given(drawn_records(20), st.data())
def test_another_result_of_a_question_is_found(records: list[Record], data: st.DataObject) -> None:
    (question,) = records_of_lines(call("getparam", param=data.draw(st.integers(3, 20)), client=2))
    at = data.draw(st.integers(BEGUN, len(records)))
    asked = renumbered([*records[:at], question, *records[at:]])
    refused = [*asked]
    refused[at] = replace(asked[at], ret=-22)
    (one,) = diff_of(asked, refused).changes
    assert (one.kind, one.a, one.b) == (Kind.RESULT, at + 1, at + 1)


def test_other_numbers_are_no_difference() -> None:
    other = (
        vm_init(),
        gem_new(5),
        bind(op("map", 0, 16 * PAGE, 5)),
        call("channel_alloc", channel=7),
        syncobj(9),
        execute(7, 0, signals=[binary(9)]),
        call("syncobj_wait", handles=[9], flags=0),
    )
    assert changes(CALLS, other) == []


def test_clients_are_compared_in_the_order_of_their_opens() -> None:
    a = (vm_init(1), vm_init(2), gem_new(1, 2), gem_new(1, 1, 2 * PAGE))
    b = (vm_init(8), gem_new(1, 8, 2 * PAGE), vm_init(4), gem_new(1, 4))
    assert changes(a, b) == []
    assert changes(a, b[:2]) == [(Kind.ONLY_A, 2, None), (Kind.ONLY_A, 3, None)]


def test_another_object_is_another_argument() -> None:
    two = (vm_init(), gem_new(1), gem_new(2))
    a, b = (bind(op("map", 0, PAGE, handle)) for handle in (1, 2))
    assert changes([*two, a], [*two, b]) == [(Kind.ARGUMENTS, 4, 4)]


def test_an_address_is_an_argument() -> None:
    a, b = (bind(op("map", addr, PAGE, 1)) for addr in (0, PAGE))
    assert changes([*READY, a, gem_new(2)], [*READY, b, gem_new(2)]) == [(Kind.ARGUMENTS, 5, 5)]


def test_an_object_that_is_missing_is_missed_where_it_is_used() -> None:
    a = (vm_init(), gem_new(1), gem_new(2, size=3 * PAGE), bind(op("map", 0, PAGE, 2)))
    b = (*a[:2], {**a[3], "ret": -2})
    assert changes(a, b) == [(Kind.ONLY_A, 3, None), (Kind.RESULT, 4, 3)]


def test_what_was_emitted() -> None:
    unmap = bind(op("unmap", 0, 32 * PAGE))
    more = bind(op("map", 16 * PAGE, PAGE, 1))
    assert changes([*READY, more, unmap], [*READY, unmap]) == [(Kind.ONLY_A, 5, None), (Kind.OPS, 6, 5)]


def test_an_answer_is_a_result() -> None:
    a, b = (call("syncobj_query", handles=[3], flags=0, points=[points]) for points in (1, 2))
    assert changes([*CALLS, a], [*CALLS, b]) == [(Kind.RESULT, 8, 8)]


def test_the_call_before_the_first() -> None:
    a = records_of_lines(*CALLS, gem_new(2))
    (one,) = diff_of(a, a[:-1]).changes
    assert one.after == (7, 7)
    assert one.call == "gem_new"


# -- the alignment


def longest(a: Sequence[Any], b: Sequence[Any]) -> int:
    """How many pairs there can be; by the textbook's table."""
    above = [0] * (len(b) + 1)
    for one in a:
        row = [0]
        for j, other in enumerate(b):
            row.append(above[j] + 1 if one == other else max(above[j + 1], row[j]))
        above = row
    return above[-1]


_few = st.lists(st.integers(0, 3), max_size=12)


@given(_few, _few)
def test_as_many_as_there_can_be_are_aligned(a: list[int], b: list[int]) -> None:
    pairs = align(a, b)
    assert all(a[i] == b[j] for i, j in pairs)
    assert all(one[0] < two[0] and one[1] < two[1] for one, two in pairwise(pairs))
    assert len(pairs) == longest(a, b)


def test_what_is_very_different_is_aligned_around_what_both_have_once() -> None:
    a = [*range(2000), "x", *range(3000, 5000)]
    b = [*range(-3000, -1000), "x", *range(6000, 9000)]
    assert align(a, b) == [(2000, 2000)]
    assert align([0] * 3000, [1] * 3000) == []
