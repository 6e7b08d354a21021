"""BindHistory against a list of all that was noted."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuvm.errors import CheckFailed, InvalidArgument
from gpuvm.nouveau.bind import OpCode
from gpuvm.nouveau.history import KEPT, BindHistory, Touch
from gpuvm.nouveau.uapi.dialects import SERIES
from gpuvm.nouveau.uapi.requests import VmBindOp
from gpuvm.sync import lockdep
from suite import scaled

PAGE = 0x1000
SPARSE = 0x100


def op(number: int, addr: int, range_: int, *, flags: int = 0, handle: int = 0, offset: int = 0) -> VmBindOp:
    return VmBindOp(number, flags, handle, addr, offset, range_)


def places(history: BindHistory, addr: int) -> list[tuple[int, int]]:
    return [(touch.call, touch.index) for touch in history.touches(addr)]


def test_it_tells_who_unmapped_this() -> None:
    history = BindHistory()
    first = history.note(1000, [op(0, 0x10000, 0x4000, flags=6, handle=7, offset=0x2000)], False)
    second = history.note(5000, [op(0, 0x90000, PAGE, handle=8), op(1, 0x11000, 0x2000)], True)
    history.ran(first)
    assert history.last_touch(0x12FFF) == Touch(
        call=second, index=1, ops=2, op=OpCode.UNMAP, sparse=False, addr=0x11000, range=0x2000,
        handle=0, offset=0, time=5000, run_async=True, run=False,
    )  # fmt: skip
    mapped = history.last_touch(0x13000)
    assert mapped is not None
    assert (mapped.call, mapped.op, mapped.handle, mapped.offset, mapped.run) == (
        first, OpCode.MAP, 7, 0x2000, True,
    )  # fmt: skip
    assert places(history, 0x12000) == [(second, 1), (first, 0)]
    assert history.last_touch(0x14000) is None
    history.ran(second)
    assert all(touch.run for touch in history.touches(0x12000))
    history.check()


def test_later_operations_of_a_call_come_first() -> None:
    history = BindHistory()
    history.note(0, [op(1, 0, PAGE), op(0, 0, PAGE, handle=3)], False)
    assert places(history, 0) == [(1, 1), (1, 0)]


@pytest.mark.parametrize(
    ("number", "flags", "code", "sparse", "maps", "unmaps"),
    [
        (0, 0, OpCode.MAP, False, True, False),
        (0, SPARSE, OpCode.MAP, True, True, False),
        (1, 0, OpCode.UNMAP, False, False, True),
        (1, SPARSE, OpCode.UNMAP, True, False, True),
    ],
)
def test_todays_operations(
    number: int, flags: int, code: OpCode, sparse: bool, maps: bool, unmaps: bool
) -> None:
    history = BindHistory()
    history.note(0, [op(number, 0, PAGE, flags=flags, handle=9, offset=PAGE)], False)
    touch = history.last_touch(0)
    assert touch is not None
    assert (touch.op, touch.sparse, touch.maps, touch.unmaps) == (code, sparse, maps, unmaps)
    shows = maps and not sparse
    assert (touch.handle, touch.offset) == ((9, PAGE) if shows else (0, 0))  # others ignore them


def test_operations_of_the_series() -> None:
    history = BindHistory(dialect=SERIES)
    history.note(0, [op(0, 0, PAGE), op(0, PAGE, PAGE, flags=SPARSE), op(2, 0, PAGE, handle=1)], False)
    history.note(0, [op(3, 0, PAGE, flags=SPARSE), op(1, PAGE, PAGE)], False)
    codes = [[(one.op, one.sparse) for one in history.touches(addr)] for addr in (0, PAGE)]
    assert codes == [
        [(OpCode.UNMAP, False), (OpCode.MAP, False), (OpCode.ALLOC, False)],
        [(OpCode.FREE, False), (OpCode.ALLOC, True)],
    ]
    alloc = list(history.touches(0))[-1]
    assert not alloc.maps
    assert not alloc.unmaps


def test_old_calls_are_forgotten_as_a_whole() -> None:
    history = BindHistory(kept=4)
    for call in range(3):
        history.note(call, [op(0, 0, PAGE, handle=1), op(0, PAGE, PAGE, handle=2)], False)
        history.check()
    assert history.oldest == 2
    assert places(history, 0) == [(3, 0), (2, 0)]
    history.note(3, [op(1, 0, PAGE)], False)
    assert (history.oldest, places(history, PAGE)) == (3, [(3, 1)])


def test_of_a_large_call_the_last_operations_are_kept() -> None:
    history = BindHistory(kept=4)
    history.note(0, [op(0, place * PAGE, PAGE, handle=1) for place in range(10)], False)
    history.check()
    assert [places(history, place * PAGE) for place in (5, 6, 9)] == [[], [(1, 6)], [(1, 9)]]
    touch = history.last_touch(9 * PAGE)
    assert touch is not None
    assert touch.ops == 10


def test_calls_without_operations_take_room_too() -> None:
    history = BindHistory(kept=8)
    for call in range(100):
        history.note(call, [], True)
    history.check()
    assert history.statistics().kept_calls == 8
    assert history.oldest == 93


def test_it_is_bounded_and_cheap() -> None:
    """What is kept does not grow, and neither does what a note costs: no call is looked at twice."""
    history = BindHistory()
    ops = [op(0, place * PAGE, PAGE, handle=1) for place in range(256)]
    for call in range(scaled(200, 2000)):
        history.note(call, ops, False)
    assert history.statistics().kept_ops == KEPT
    history.check()


def test_it_copies_what_it_is_given() -> None:
    history = BindHistory()
    ops = [op(0, 0, PAGE, handle=1)]
    history.note(0, ops, False)
    ops.append(op(1, 0, PAGE))
    assert places(history, 0) == [(1, 0)]


@given(
    st.lists(
        st.lists(
            st.tuples(st.integers(0, 1), st.integers(0, 12), st.integers(1, 4), st.integers(1, 9)), max_size=6
        ),
        max_size=25,
    ),
    st.integers(1, 30),
)
def test_against_a_list_of_everything(calls: list[list[tuple[int, int, int, int]]], kept: int) -> None:
    history = BindHistory(kept=kept)
    everything: list[tuple[int, int, VmBindOp]] = []
    for number, made in enumerate(calls, 1):
        ops = [op(code, at * PAGE, size * PAGE, handle=handle) for code, at, size, handle in made]
        assert history.note(number, ops, bool(number % 2)) == number
        everything += [(number, index, one) for index, one in enumerate(ops)]
        history.check()
    for addr in range(0, 17 * PAGE, PAGE):
        touching = [
            (call, index)
            for call, index, one in reversed(everything)
            if one.addr <= addr < one.addr + one.range
        ]
        found = places(history, addr)
        assert found == touching[: len(found)]
        assert all(call <= history.oldest for call, _ in touching[len(found) :])
        if history.oldest == 1 and history.statistics().kept_ops == len(everything):
            assert found == touching


def test_looking_while_others_note() -> None:
    """A reader meets whole calls only, newest first, whatever the writer forgets meanwhile."""
    history = BindHistory(kept=64)
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number = history.note(number, [op(0, 0, PAGE, handle=number + 1), op(1, PAGE, PAGE)], True)
            history.ran(number)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(scaled(300, 5000)):
            seen = list(history.touches(0))
            numbers = [touch.call for touch in seen]
            assert numbers == sorted(numbers, reverse=True)
            assert len(set(numbers)) == len(numbers)
            assert all(touch.handle == touch.call == touch.time + 1 for touch in seen)
    finally:
        stop.set()
        writer.join()
    history.check()


def test_jobs_may_say_that_they_ran() -> None:
    history = BindHistory()
    number = history.note(0, [op(0, 0, PAGE, handle=1)], True)
    with lockdep.fence_signalling():
        history.ran(number)
        assert history.last_touch(0) is not None
    assert history.statistics().run == number


def test_misuse() -> None:
    with pytest.raises(InvalidArgument, match="at least 1"):
        BindHistory(kept=0)
    history = BindHistory()
    history.ran(3)
    with pytest.raises(CheckFailed, match="call 3 has run"):
        history.check()
