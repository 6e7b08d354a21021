"""Timelines that user space counts up: which fence is reached when, numbers that wrap, and the end."""

from __future__ import annotations

import errno
import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuvm.errors import BadFile, InvalidArgument
from gpuvm.sync.fence import Fence
from gpuvm.sync.sw_sync import SwSync

U32 = (1 << 32) - 1


def test_fences_are_reached_in_order() -> None:
    timeline = SwSync("test")
    reached: list[int] = []
    fences = {number: timeline.create_fence(number) for number in (3, 1, 2, 7)}
    for fence in fences.values():
        fence.add_callback(lambda fence: reached.append(fence.seqno & U32))
    assert timeline.create_fence(0).signalled
    timeline.check()
    timeline.increase(2)
    assert reached == [1, 2]
    timeline.increase(0)
    timeline.increase(5)
    assert reached == [1, 2, 3, 7]
    assert timeline.value == 7
    timeline.check()


def test_fences_with_the_same_number_are_one() -> None:
    timeline = SwSync("test")
    fence = timeline.create_fence(5)
    assert timeline.create_fence(5) is fence
    timeline.increase(5)
    assert timeline.create_fence(5) is not fence
    assert timeline.create_fence(5).signalled


def test_a_fence_that_nobody_has_is_forgotten() -> None:
    timeline = SwSync("test")
    for number in range(1, 100):
        timeline.create_fence(number)
    gc.collect()
    assert timeline.statistics().pending == 0
    kept = timeline.create_fence(50)
    timeline.check()
    timeline.increase(60)
    assert kept.signalled
    timeline.check()


def test_the_end_signals_with_an_error() -> None:
    timeline = SwSync("test")
    fence, other = timeline.create_fence(1), timeline.create_fence(2)
    timeline.increase(1)
    timeline.close()
    timeline.close()
    assert (fence.status, other.status) == (1, -errno.ENOENT)
    with pytest.raises(BadFile):
        timeline.create_fence(3)
    timeline.check()


@pytest.mark.parametrize("wrong", [-1, U32 + 1])
def test_numbers_are_32_bits(wrong: int) -> None:
    timeline = SwSync("test")
    with pytest.raises(InvalidArgument, match=str(wrong)):
        timeline.create_fence(wrong)
    with pytest.raises(InvalidArgument, match=str(wrong)):
        timeline.increase(wrong)


def is_reached(number: int, value: int) -> bool:
    """The kernel's comparison: by the sign of a difference of 32 bits."""
    return not 0 < (number - value) & U32 < 1 << 31


@given(
    st.integers(0, U32),
    st.lists(st.tuples(st.booleans(), st.sampled_from([0, 1, 2, 5, 1 << 30, (1 << 31) - 1])), max_size=30),
)
def test_numbers_wrap(begin: int, program: list[tuple[bool, int]]) -> None:
    timeline = SwSync("test")
    timeline.increase(begin)
    value = begin
    pending: list[tuple[int, Fence]] = []
    for makes, by in program:
        if makes:
            number = (value + by) & U32
            fence = timeline.create_fence(number)
            assert fence.signalled == is_reached(number, value)
            pending.append((number, fence))
        else:
            value = (value + by) & U32
            timeline.increase(by)
            due = [fence for number, fence in pending if is_reached(number, value)]
            assert all(fence.signalled for fence in due)
            pending = [(number, fence) for number, fence in pending if not fence.signalled]
            assert len(pending) == timeline.statistics().pending or len({n for n, _ in pending}) < len(
                pending
            )
        assert timeline.value == value
        timeline.check()


def test_a_number_behind_is_reached() -> None:
    timeline = SwSync("test")
    assert timeline.create_fence(U32).signalled
    assert not timeline.create_fence((1 << 31) - 1).signalled
    assert timeline.create_fence(1 << 31).signalled


def test_a_large_step_reaches_all() -> None:
    timeline = SwSync("test")
    fences = [timeline.create_fence(number) for number in (1, 1 << 20, (1 << 31) - 1)]
    timeline.increase(U32)
    assert all(fence.signalled for fence in fences)
