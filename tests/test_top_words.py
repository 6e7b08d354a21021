"""Numbers of `gpuvm top` in words, sparklines, and counts a second against counting by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuvm.report.top.memory import MemoryNumbers, TableNumbers
from gpuvm.report.top.rates import COLUMNS, SLOT, Rates, column_slots
from gpuvm.report.top.spaces import SpaceNumbers
from gpuvm.report.top.watch import ClientNumbers, Fault, Moment
from gpuvm.report.top.words import (
    added,
    call_rows,
    duration,
    fault_line,
    memory_line,
    queue_rows,
    rates_line,
    space_rows,
    sparkline,
    tables_line,
)

GIB = 1 << 30
EMPTY = Moment(SLOT, False, 0, 0, None, None, None, None, (), None, (), 0)


def client(number: int, closed: int | None = None) -> ClientNumbers:
    return ClientNumbers(number, f"game {number}", 0, closed, SpaceNumbers(), TableNumbers(), (), 0, 0, ())


@pytest.mark.parametrize(
    ("columns", "width", "shown"),
    [
        ([0, 1, 2, 4, 8], 5, " ▁▂▄█"),
        ([0, 1, 2, 4, 8], 2, "▄█"),
        ([1], 3, "  █"),
        ([], 3, "   "),
        ([1000, 1], 2, "█▁"),  # what is not 0 is seen
        ([1, 2], 0, ""),
    ],
)
def test_a_sparkline(columns: list[int], width: int, shown: str) -> None:
    assert sparkline(columns, width) == shown


def test_histories_are_added_and_those_without_are_passed_over() -> None:
    assert added([(1, 2), (), (10, 0)]) == [11, 2]
    assert added([(), ()]) == []


@pytest.mark.parametrize(
    ("nanoseconds", "shown"),
    [
        (0, "0 us"),
        (-5, "0 us"),
        (999_999, "999 us"),
        (1_500_000, "1.5 ms"),
        (59_900_000_000, "59.9 s"),
        (60_000_000_000, "1:00"),
        (3_725_000_000_000, "1:02:05"),
    ],
)
def test_a_duration(nanoseconds: int, shown: str) -> None:
    assert duration(nanoseconds) == shown


def test_what_was_not_recorded_is_told() -> None:
    assert memory_line(EMPTY, 80) == "memory: not recorded"
    assert tables_line(EMPTY) == "page tables: not recorded"
    assert queue_rows(EMPTY)[0][0] == "not recorded"
    assert fault_line(EMPTY) == "no faults"
    assert call_rows(EMPTY) == space_rows(EMPTY) == []


def test_a_line_of_rates_is_as_wide_as_the_terminal() -> None:
    for width in (78, 120):
        assert len(rates_line(EMPTY, width)) == width
    assert "0.1 s" in rates_line(EMPTY, 120)


def test_memory_has_bars_where_there_is_room() -> None:
    held = MemoryNumbers(vram=GIB, gart=1, swapped=4096, evictions=2, evicted_bytes=1024)
    moment = Moment(SLOT, False, 0, 0, "TU102", 8 * GIB, 64 * GIB, held, (), (), (), 0)
    assert memory_line(moment, 120) == (
        "VRAM █░░░░░░░ 1 GiB of 8 GiB   GART █░░░░░░░ 1 B of 64 GiB   swapped 4 KiB   evictions 2, 1 KiB"
    )
    assert memory_line(moment, 80).startswith("VRAM 1 GiB of 8 GiB   GART 1 B of 64 GiB")


def test_closed_clients_come_last_the_newest_of_them_first() -> None:
    clients = (client(1, closed=5), client(2), client(3, closed=9), client(4))
    moment = Moment(SLOT, False, 0, 0, None, None, None, None, clients, None, (), 0)
    assert [row[0] for row in space_rows(moment)] == ["game 2", "game 4", "game 3", "game 1"]
    assert [row[-2] for row in space_rows(moment)] == ["0", "0", "closed", "closed"]


def test_a_fault_without_an_address() -> None:
    fault = Fault(1, 0, 1, 2, None, None, None, "METHOD_REFUSED", "copy")
    moment = Moment(SLOT, False, 0, 0, None, None, None, None, (client(1),), None, (fault,), 1)
    assert fault_line(moment) == "a fault 100 ms ago: method refused, ch 2 of game 1, copy"


# -- rates


@given(
    slots=st.lists(st.integers(0, 2000), max_size=60),
    now=st.integers(0, 2100),
    forgotten=st.booleans(),
)
def test_rates_are_what_counting_by_hand_gives(slots: list[int], now: int, forgotten: bool) -> None:
    rates, time = Rates(), now * SLOT + SLOT // 2
    for slot in slots:
        rates.add("binds", slot, 2)
    if forgotten:
        rates.forget_before(time)
    assert rates.per_second("binds", time) == 2 * sum(now - 10 <= slot < now for slot in slots)
    width = column_slots(time)
    assert width == (1 if now < COLUMNS else 10)
    first = (now // width - COLUMNS + 1) * width
    columns = [
        2 * sum(first + at * width <= slot < first + (at + 1) * width for slot in slots)
        for at in range(COLUMNS)
    ]
    assert list(rates.columns("binds", time)) == (columns if any(columns) else [])


def test_a_key_that_nothing_was_counted_of() -> None:
    assert Rates().per_second("x", SLOT) == 0
    assert Rates().columns("x", SLOT) == ()
