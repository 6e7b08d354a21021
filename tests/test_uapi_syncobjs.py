"""SYNCOBJ calls as bytes: arrays of handles and points, answers, and in what order mistakes count."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from gpuvm.nouveau.device import Device
from gpuvm.nouveau.uapi import numbers
from gpuvm.nouveau.uapi.numbers import Ioctl
from gpuvm.sync import task
from uapi_program import Program, no_descriptor_left

NOWHERE = 8
FOR_EVER = (1 << 63) - 1
ALL, FOR_SUBMIT, AVAILABLE = 1, 2, 4
ARRAYS = (
    numbers.SYNCOBJ_WAIT,
    numbers.SYNCOBJ_TIMELINE_WAIT,
    numbers.SYNCOBJ_RESET,
    numbers.SYNCOBJ_SIGNAL,
    numbers.SYNCOBJ_QUERY,
    numbers.SYNCOBJ_TIMELINE_SIGNAL,
)
WAITS = (numbers.SYNCOBJ_WAIT, numbers.SYNCOBJ_TIMELINE_WAIT)


@pytest.fixture
def program() -> Iterator[Program]:
    with Device(vram=16 << 20, gart=16 << 20) as device, device.open() as client:
        yield Program(client)
        client.check()


def create(program: Program, flags: int = 0) -> int:
    handle: int = program.do(numbers.SYNCOBJ_CREATE, flags=flags)["handle"]
    return handle


def query(program: Program, *handles: int, flags: int = 0) -> list[int]:
    points = program.u64s(*[99] * len(handles))
    program.do(
        numbers.SYNCOBJ_QUERY,
        handles=program.u32s(*handles),
        points=points,
        count_handles=len(handles),
        flags=flags,
    )
    return list(struct.unpack(f"{len(handles)}Q", program.bytes_at(points, 8 * len(handles))))


def wait(program: Program, ioctl: Ioctl, *handles: int, **fields: int) -> tuple[int, dict[str, Any]]:
    arrays = {"handles": program.u32s(*handles), "count_handles": len(handles)}
    return program.call(ioctl, **arrays, first_signaled=77, **fields), program.answer


def test_handles(program: Program) -> None:
    assert [create(program), create(program, 1)] == [1, 2]
    assert program.call(numbers.SYNCOBJ_CREATE, flags=2, handle=77) == -errno.EINVAL
    assert program.answer["handle"] == 77
    assert program.call(numbers.SYNCOBJ_DESTROY, handle=1, pad=1) == -errno.EINVAL
    assert program.call(numbers.SYNCOBJ_DESTROY, handle=1) == 0
    assert program.call(numbers.SYNCOBJ_DESTROY, handle=1) == -errno.EINVAL
    assert create(program) == 1


def test_timelines(program: Program) -> None:
    a, b = create(program), create(program)
    arrays = {"handles": program.u32s(a, b), "points": program.u64s(3, 1 << 63), "count_handles": 2}
    program.do(numbers.SYNCOBJ_TIMELINE_SIGNAL, **arrays)
    assert query(program, a, b) == [3, 1 << 63]
    assert query(program, b, a, flags=1) == [1 << 63, 3]
    transfer = {"src_handle": a, "src_point": 2, "dst_handle": a, "dst_point": 9}
    program.do(numbers.SYNCOBJ_TRANSFER, **transfer)
    assert query(program, a) == [9]
    assert program.call(numbers.SYNCOBJ_TRANSFER, **transfer, flags=4) == -errno.EINVAL
    assert program.call(numbers.SYNCOBJ_TRANSFER, **transfer, pad=1) == -errno.EINVAL
    program.do(numbers.SYNCOBJ_TIMELINE_SIGNAL, handles=program.u32s(a), count_handles=1)  # points: all 0
    assert query(program, a) == [9]


@pytest.mark.parametrize("ioctl", WAITS)
def test_the_first_that_is_signalled(program: Program, ioctl: Ioctl) -> None:
    unsignalled, signalled = create(program), create(program, 1)
    assert wait(program, ioctl, unsignalled, signalled, flags=FOR_SUBMIT)[0] == 0
    assert program.answer["first_signaled"] == 1
    result, answer = wait(program, ioctl, unsignalled, signalled, flags=FOR_SUBMIT | ALL, timeout_nsec=1)
    assert (result, answer["first_signaled"]) == (-errno.ETIME, 77)
    result, answer = wait(program, ioctl, unsignalled, signalled)
    assert (result, answer["first_signaled"]) == (-errno.EINVAL, 77)


@pytest.mark.parametrize("ioctl", WAITS)
def test_no_handles_are_waited_for_at_once(program: Program, ioctl: Ioctl) -> None:
    for flags in (0, ALL, FOR_SUBMIT):
        result = program.call(ioctl, handles=NOWHERE, flags=flags, first_signaled=77, timeout_nsec=FOR_EVER)
        assert (result, program.answer["first_signaled"]) == (0, 77)
    assert program.call(ioctl, flags=1 << 4) == -errno.EINVAL


@pytest.mark.parametrize("timeout", [-1, 0, 1, -(1 << 63)])
@pytest.mark.parametrize("ioctl", WAITS)
def test_a_time_that_is_past(program: Program, ioctl: Ioctl, timeout: int) -> None:
    assert wait(program, ioctl, create(program), flags=FOR_SUBMIT, timeout_nsec=timeout)[0] == -errno.ETIME
    assert wait(program, ioctl, create(program, 1), timeout_nsec=timeout)[0] == 0


def test_waiting_for_another_thread(program: Program) -> None:
    handle = create(program)
    other = Program(program.client)
    arrays = {"handles": other.u32s(handle), "points": other.u64s(4), "count_handles": 1}

    def signal() -> None:
        other.do(numbers.SYNCOBJ_TIMELINE_SIGNAL, **arrays)

    thread = task.start("signals", signal)
    points = {"points": program.u64s(4), "timeout_nsec": task.now() + 60 * 10**9}
    assert wait(program, numbers.SYNCOBJ_TIMELINE_WAIT, handle, flags=FOR_SUBMIT, **points)[0] == 0
    thread.join()


def test_available_is_not_signalled(program: Program) -> None:
    handle = create(program)
    points = {"points": program.u64s(4), "flags": AVAILABLE}
    assert wait(program, numbers.SYNCOBJ_TIMELINE_WAIT, handle, **points)[0] == -errno.ETIME
    assert wait(program, numbers.SYNCOBJ_WAIT, handle, flags=AVAILABLE)[0] == -errno.EINVAL


def test_files(program: Program) -> None:
    handle = create(program, 1)
    fd = program.do(numbers.SYNCOBJ_HANDLE_TO_FD, handle=handle)["fd"]
    sync_file = program.do(numbers.SYNCOBJ_HANDLE_TO_FD, handle=handle, flags=1)["fd"]
    try:
        assert program.do(numbers.SYNCOBJ_FD_TO_HANDLE, fd=fd)["handle"] == handle + 1
        empty = create(program)
        assert (
            program.do(numbers.SYNCOBJ_FD_TO_HANDLE, fd=sync_file, flags=1, handle=empty)["handle"] == empty
        )
        timeline = create(program)
        program.do(numbers.SYNCOBJ_FD_TO_HANDLE, fd=sync_file, flags=3, handle=timeline, point=6)
        assert query(program, timeline) == [6]
        at_point = program.do(numbers.SYNCOBJ_HANDLE_TO_FD, handle=timeline, flags=3, point=5)["fd"]
        os.close(at_point)
        for fields in ({"pad": 1}, {"flags": 4}, {"point": 1}, {"fd": -1}, {"fd": 1 << 30}):
            values = {"fd": fd, "handle": 77, **fields}
            assert program.call(numbers.SYNCOBJ_FD_TO_HANDLE, **values) == -errno.EINVAL
            assert program.answer["handle"] == 77
    finally:
        os.close(fd)
        os.close(sync_file)


def test_eventfds(program: Program) -> None:
    handle = create(program)
    eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    try:
        program.do(numbers.SYNCOBJ_EVENTFD, handle=handle, point=2, fd=eventfd)
        with pytest.raises(BlockingIOError):
            os.eventfd_read(eventfd)
        arrays = {"handles": program.u32s(handle), "points": program.u64s(2), "count_handles": 1}
        program.do(numbers.SYNCOBJ_TIMELINE_SIGNAL, **arrays)
        assert os.eventfd_read(eventfd) == 1
    finally:
        os.close(eventfd)
    assert program.call(numbers.SYNCOBJ_EVENTFD, handle=handle, fd=-1) == -errno.EBADF


def test_out_of_descriptors(program: Program) -> None:
    handle, empty = create(program, 1), create(program)
    eventfd = os.eventfd(0, os.EFD_CLOEXEC)
    with no_descriptor_left():
        assert program.call(numbers.SYNCOBJ_HANDLE_TO_FD, handle=handle, fd=77) == -errno.EMFILE
        assert program.answer["fd"] == 77
        assert program.call(numbers.SYNCOBJ_HANDLE_TO_FD, handle=handle, flags=1) == -errno.EMFILE
        assert program.call(numbers.SYNCOBJ_EVENTFD, handle=empty, fd=eventfd) == -errno.EMFILE
    os.close(eventfd)


# -- in what order mistakes count


@pytest.mark.parametrize("ioctl", ARRAYS, ids=lambda ioctl: ioctl.name)
def test_flags_come_before_pointers(program: Program, ioctl: Ioctl) -> None:
    bad = {"handles": NOWHERE, "count_handles": 1}
    assert program.call(ioctl, **bad) == -errno.EFAULT
    last = "flags" if ioctl not in (numbers.SYNCOBJ_RESET, numbers.SYNCOBJ_SIGNAL) else "pad"
    assert program.call(ioctl, **bad, **{last: 1 << 31}) == -errno.EINVAL
    assert program.call(ioctl, **{**bad, "count_handles": (1 << 20) + 1}) == -errno.ENOMEM
    assert program.call(ioctl, handles=NOWHERE) == (0 if ioctl in WAITS else -errno.EINVAL)


@pytest.mark.parametrize("ioctl", [numbers.SYNCOBJ_TIMELINE_WAIT, numbers.SYNCOBJ_TIMELINE_SIGNAL])
def test_handles_come_before_points(program: Program, ioctl: Ioctl) -> None:
    handle = create(program, 1)
    for there, result in ((handle, -errno.EFAULT), (handle + 1, -errno.ENOENT)):
        arrays = {"handles": program.u32s(there), "points": NOWHERE, "count_handles": 1}
        assert program.call(ioctl, **arrays) == result


def test_a_query_into_nowhere(program: Program) -> None:
    handle = create(program)
    arrays = {"handles": program.u32s(handle), "count_handles": 1}
    assert program.call(numbers.SYNCOBJ_QUERY, **arrays, points=NOWHERE) == -errno.EFAULT
    assert program.call(numbers.SYNCOBJ_QUERY, **arrays, points=0) == -errno.EFAULT


def test_an_array_is_read_once(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who changes it meanwhile cannot have other handles signalled than those that were looked up."""
    good, other = create(program), create(program)
    handles = (ctypes.c_uint32 * 1)(good)
    find = program.client.syncobjs.find

    def find_and_change(handle: int) -> Any:
        handles[0] = other
        return find(handle)

    monkeypatch.setattr(program.client.syncobjs, "find", find_and_change)
    program.do(numbers.SYNCOBJ_SIGNAL, handles=ctypes.addressof(handles), count_handles=1)
    monkeypatch.undo()
    assert wait(program, numbers.SYNCOBJ_WAIT, good)[0] == 0
    assert wait(program, numbers.SYNCOBJ_WAIT, other)[0] == -errno.EINVAL
