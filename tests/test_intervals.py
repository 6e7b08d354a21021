"""IntervalMap against a dictionary that knows every address."""

from __future__ import annotations

from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuvm.errors import InvalidArgument
from gpuvm.mmu.intervals import IntervalMap, Piece

START, END = 3, 40
changes = st.lists(
    st.tuples(st.integers(START, END - 1), st.integers(1, END - START), st.sampled_from([None, 0, 1, 2])),
    max_size=12,
)


def grouped(model: dict[int, int], start: int, end: int) -> list[Piece[int]]:
    pieces = []
    for value, addrs in groupby(range(start, end), key=model.__getitem__):
        listed = list(addrs)
        pieces.append(Piece(listed[0], listed[-1] + 1, value))
    return pieces


@given(changes, st.integers(START, END - 1), st.integers(1, END - START))
def test_like_a_dictionary(changed: list[tuple[int, int, int | None]], start: int, length: int) -> None:
    """None stands for a change that depends on what is there."""
    pieces = IntervalMap(START, END, 0)
    model = dict.fromkeys(range(START, END), 0)
    for first, size, value in changed:
        last = min(first + size, END)
        if value is None:
            pieces.update(first, last, lambda old: (old + 1) % 3)
        else:
            pieces.assign(first, last, value)
        for addr in range(first, last):
            model[addr] = (model[addr] + 1) % 3 if value is None else value
        pieces.check()
        assert pieces.pieces(START, END) == grouped(model, START, END)
        assert len(pieces) == len(grouped(model, START, END))
    end = min(start + length, END)
    assert pieces.pieces(start, end) == grouped(model, start, end)
    assert [pieces[addr] for addr in range(start, end)] == [model[addr] for addr in range(start, end)]


@pytest.mark.parametrize(("start", "end"), [(START - 1, 5), (5, END + 1), (5, 5), (6, 5), (END, END + 1)])
def test_ranges_that_are_not_there(start: int, end: int) -> None:
    with pytest.raises(InvalidArgument, match="pass a range within"):
        IntervalMap(START, END, 0).pieces(start, end)
