"""The spool: every frame arrives, whole and in order, whatever becomes of who appended it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuvm.errors import OutOfMemory
from gpuvm.sync import task
from gpuvm.trace import frames
from gpuvm.trace.frames import MOST_HELD, Frame, Order
from gpuvm.trace.spool import BEYOND, Spool, SpoolReader

SMALLEST = 4096


@contextmanager
def spool(capacity: int = SMALLEST) -> Iterator[tuple[Spool, SpoolReader]]:
    made = Spool(lambda: True, capacity)
    reader = SpoolReader(os.dup(made.fd))
    yield made, reader
    made.check()
    made.close()


numbers = st.integers(-(2**63), 2**64 - 1)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
simple = numbers | texts | st.none() | st.booleans() | st.binary(max_size=40)
values = simple | st.lists(simple, max_size=4).map(tuple)


@given(st.lists(st.lists(values, max_size=6), max_size=80), st.integers(1, 20))
def test_frames_arrive_as_they_were_told(told: list[list[Any]], every: int) -> None:
    """Around the end of the ring, and what there was no room for, too."""
    with spool() as (made, reader):
        got: list[Frame] = []
        for number, fields in enumerate(told, 1):
            made.tell(*fields)
            if not number % every:
                got += reader.frames()
        while True:
            got += reader.frames()
            if not made.flush():
                break
        got += reader.frames()
        assert got == [(place, *fields) for place, fields in enumerate(told, 1)]


def test_a_frame_longer_than_the_ring_arrives_in_parts() -> None:
    with spool() as (made, reader):
        long = os.urandom(5 * SMALLEST)
        assert not made.tell("before")
        assert not made.tell(long)
        got: list[Frame] = []
        while made.flush():
            got += reader.frames()
        assert [*got, *reader.frames()] == [(1, "before"), (2, long)]


def test_what_a_frame_cannot_have_is_refused() -> None:
    with spool() as (made, _), pytest.raises(TypeError, match="a frame has no <class 'float'>"):
        made.tell(1.5)


def test_places_are_told_later() -> None:
    with spool() as (made, reader):
        place = made.place()
        made.tell("second")
        made.tell_at(place, "first")
        assert [*reader.frames()] == [(2, "second"), (1, "first")]


def test_who_appends_too_much_is_held_up() -> None:
    """Until somebody reads; no thread but the reader's goes on."""
    with spool(1 << 22) as (made, reader):
        piece = bytes(1 << 20)
        for _ in range(BEYOND // len(piece) + 2):
            made.tell(piece)
        reading = task.start("reads", lambda: read_all(made, reader))
        made.make_room()
        assert made.statistics().waiting <= BEYOND + (1 << 22)
        made.end()
        reading.join()
        assert made.statistics().waiting == 0


def read_all(made: Spool, reader: SpoolReader) -> None:
    ended = False
    while not ended:
        ended = reader.ended
        for _ in reader.frames():
            pass
        task.Waiter().wait(task.now() + 1000)


@pytest.mark.parametrize("who", ["gone", "gave up"])
def test_without_a_reader_nobody_waits(who: str) -> None:
    there = [True]
    made = Spool(lambda: there[0], SMALLEST)
    reader = SpoolReader(os.dup(made.fd))
    for _ in range(40):
        made.tell(bytes(1 << 20))
    if who == "gone":
        there.clear()
        there.append(False)
    else:
        reader.give_up()
    made.make_room()
    assert made.broken
    assert made.tell("more")
    assert made.statistics().waiting == 0
    made.end()
    made.close()


def test_nothing_is_lost_with_who_appended() -> None:
    """Threads of another process append, and it is killed in full swing: what they said arrives, whole."""
    with spool(1 << 22) as (made, reader):
        told, tell = os.pipe()
        pid = os.fork()
        if not pid:
            for number in range(100):
                task.start(f"appends {number}", lambda: append_for_ever(made, tell))
            signal.pause()
        os.close(tell)
        for _ in range(200):
            os.read(told, 1)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        said = 200
        while more := os.read(told, 1 << 16):
            said += len(more)
        os.close(told)
        got = [*reader.frames()]
        assert sorted(frame[0] for frame in got)[:said] == [*range(1, said + 1)]
        assert all(frame[1:] == ("x" * 50, 2**63) for frame in got)


def append_for_ever(made: Spool, tell: int) -> None:
    for _ in range(500):
        made.tell("x" * 50, 2**63)
        os.write(tell, b".")


def test_a_spool_says_what_it_needs() -> None:
    with pytest.raises(OutOfMemory, match="ulimit -v"):
        Spool(lambda: True, 1 << 60)


# -- the order


@given(st.permutations(range(1, 30)), st.sets(st.integers(1, 29)))
def test_frames_are_taken_in_their_order(arrival: list[int], unused: set[int]) -> None:
    taken: list[int] = []
    order = Order(lambda frame: taken.append(frame[0]))
    for place in arrival:
        order.add((place, frames.NOTHING if place in unused else frames.ABOUT, "key", place))
    assert taken == [*range(1, 30)]
    assert order.missing == 0


def test_what_is_missing_is_not_waited_for_when_all_else_is_over() -> None:
    taken: list[int] = []
    order = Order(lambda frame: taken.append(frame[0]))
    for place in (5, 3, 1):
        order.add((place, frames.ABOUT, "key", 0))
    assert (taken, order.missing) == ([1], 2)
    order.rest()
    assert taken == [1, 3, 5]


def test_nor_by_too_many() -> None:
    taken: list[int] = []
    order = Order(lambda frame: taken.append(frame[0]))
    for place in range(2, MOST_HELD + 3):
        order.add((place, frames.ABOUT, "key", 0))
    assert len(taken) == MOST_HELD + 1
    order.add((1, frames.ABOUT, "key", 0))
    assert taken[-1] == 1
    order.add((MOST_HELD + 3, frames.ABOUT, "key", 0))
    assert taken[-1] == MOST_HELD + 3
