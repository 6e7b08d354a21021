"""IGT's syncobj_basic, syncobj_eventfd and the rest of syncobj_timeline, as cases of our own."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from functools import partial

import pytest

from gpuvm.errors import GpuvmError
from gpuvm.sync.syncobj_table import (
    CREATE_SIGNALED,
    FD_TO_HANDLE_IMPORT_SYNC_FILE,
    HANDLE_TO_FD_EXPORT_SYNC_FILE,
    WAIT_ALL,
    WAIT_AVAILABLE,
    WAIT_FOR_SUBMIT,
    SyncObjTable,
)
from gpuvm.testing import Interleaving, sample
from suite import scaled
from syncobjs import Device, attach, pause, result, trigger, wait_point

BAD = 0xDEADBEEF


# -- reset, signal, transfer


@pytest.mark.parametrize("timeline", [True, False])
def test_reset_unsignaled(timeline: bool) -> None:
    table = SyncObjTable()
    handle = table.create(0)
    for _ in range(2):
        assert result(lambda: wait_point(table, timeline, [handle], 0, 0)) == "invalid-"
        table.reset([handle])


@pytest.mark.parametrize("timeline", [True, False])
@pytest.mark.parametrize("count", [1, 3])
def test_reset_signaled_and_multiple_signaled(timeline: bool, count: int) -> None:
    table = SyncObjTable()
    handles = [table.create(0) for _ in range(count)]
    for handle in handles:
        trigger(table, handle, int(timeline))
    assert wait_point(table, timeline, handles, 0, 0) == 0
    table.reset(handles)
    for handle in handles:
        assert result(partial(wait_point, table, timeline, [handle], 0, 0)) == "invalid-"


def test_signal() -> None:
    table = SyncObjTable()
    handle = table.create(0)
    for timeline in (False, True):
        table.reset([handle])
        assert result(lambda: wait_point(table, True, [handle], 0, 0)) == "invalid-"
        assert result(lambda: wait_point(table, True, [handle], 0, WAIT_FOR_SUBMIT)) == "etime-"
        if timeline:
            table.timeline_signal([handle], [1])
        else:
            table.signal([handle])
        assert wait_point(table, timeline, [handle], 0, 0) == 0
        assert wait_point(table, timeline, [handle], 0, WAIT_FOR_SUBMIT) == 0


def test_signal_array() -> None:
    table = SyncObjTable()
    handles = [table.create(0) for _ in range(4)]
    table.timeline_signal(handles, [1, 1, 1, 0])
    assert table.timeline_wait(handles[:3], [1, 1, 1], 0, WAIT_ALL) == 0
    assert table.wait(handles[3:], 0, 0) == 0


def test_signal_point_0() -> None:
    for points in ([0], None):
        table = SyncObjTable()
        handle = table.create(0)
        table.timeline_signal([handle], points)
        assert table.timeline_wait([handle], [0], 0, 0) == 0
        assert table.timeline_wait([handle], None, 0, 0) == 0
        assert table.wait([handle], 0, WAIT_FOR_SUBMIT) == 0


def test_transfer_timeline_point() -> None:
    table = SyncObjTable()
    handle = table.create(0)
    fence = attach(table, handle, 1)
    assert table.query([handle]) == [0]
    assert result(lambda: table.timeline_wait([handle], [1], 0, WAIT_ALL)) == "etime-"
    fence.signal()
    assert table.query([handle]) == [1]
    assert table.timeline_wait([handle], [1], 0, WAIT_ALL) == 0
    table.timeline_signal([handle], [2])
    table.transfer(handle, handle, 2, 3, 0)
    assert table.query([handle]) == [3]


def test_host_signal_points() -> None:
    table, numbers = SyncObjTable(), random.Random(1)
    handle = table.create(0)
    value = 0
    for _ in range(100):
        value += numbers.randint(2, 1 << 31)
        table.timeline_signal([handle], [value])
        assert table.query([handle]) == [value]
        assert table.timeline_wait([handle], [value], 0, WAIT_FOR_SUBMIT) == 0
        assert table.timeline_wait([handle], [value - 1], 0, WAIT_ALL) == 0
    table.check()


def test_device_signal_unordered() -> None:
    table, device = SyncObjTable(), Device(5)
    handle = table.create(0)
    order = [0, 2, 1, 4, 3]
    for point, index in enumerate(order, 1):
        attach(table, handle, point, device.fences[index])
    seen = []
    for _ in order:
        device.advance(1)
        (value,) = table.query([handle])
        seen.append(value)
        assert table.timeline_wait([handle], [value], 0, WAIT_FOR_SUBMIT) == 0
        assert table.timeline_wait([handle], [value], 0, WAIT_ALL) == 0
    assert seen == [1, 1, 3, 3, 5]


def test_device_submit_unordered() -> None:
    table, device = SyncObjTable(), Device(5)
    handle = table.create(0)
    for point, fence in zip((1, 5, 3, 6, 7), device.fences, strict=True):
        attach(table, handle, point, fence)
    device.advance(3)
    assert table.query([handle]) == [5]
    assert table.timeline_wait([handle], [5], 0, WAIT_FOR_SUBMIT) == 0
    assert table.timeline_wait([handle], [5], 0, WAIT_ALL) == 0
    table.check()


def test_host_signal_ordered() -> None:
    table, device = SyncObjTable(), Device(5)
    handle = table.create(0)
    for point, fence in enumerate(device.fences, 1):
        attach(table, handle, point, fence)
    device.advance(3)
    assert table.query([handle]) == [3]
    table.timeline_signal([handle], [8])
    assert table.query([handle]) == [3]
    device.advance(2)
    assert table.query([handle]) == [8]


def test_32bits_limit() -> None:
    def scenario(run: Interleaving) -> None:
        table, device = SyncObjTable(), Device(5)
        handle = table.create(0)
        limit = (1 << 31) - 1
        points = [1, 5, limit + 5, limit + 6, limit * 2]

        def checker() -> None:
            last = 0
            while last < points[-1]:
                (value,) = table.query([handle])
                assert last <= value
                last = value
                pause(1)

        def client() -> None:
            for point, fence in zip(points, device.fences, strict=True):
                attach(table, handle, point, fence)
            for point in points:
                device.advance(1)
                assert table.query([handle]) == [point]
                pause(1)

        run.spawn(checker)
        run.spawn(client)

    sample(scenario, range(scaled(20, 500)))


# -- bad input


@pytest.mark.parametrize(
    ("name", "call", "code"),
    [
        ("bad-destroy", lambda table: table.destroy(0), errno.EINVAL),
        ("bad-destroy-pad", lambda table: table.destroy(table.create(0), BAD), errno.EINVAL),
        ("bad-create-flags", lambda table: table.create(BAD), errno.EINVAL),
        ("bad-handle-to-fd", lambda table: table.handle_to_fd(0, 0), errno.EINVAL),
        ("bad-fd-to-handle", lambda table: table.fd_to_handle(0, 0, -1), errno.EINVAL),
        ("illegal-fd-to-handle", lambda table: table.fd_to_handle(0, 0, 0), errno.EINVAL),
        ("bad-flags-handle-to-fd", lambda table: table.handle_to_fd(table.create(0), BAD), errno.EINVAL),
        ("bad-flags-fd-to-handle", lambda table: table.fd_to_handle(0, BAD, -1), errno.EINVAL),
        ("bad-pad-handle-to-fd", lambda table: table.handle_to_fd(table.create(0), 0, BAD), errno.EINVAL),
        ("bad-pad-fd-to-handle", lambda table: table.fd_to_handle(0, 0, -1, BAD), errno.EINVAL),
        ("invalid-wait-bad-flags", lambda table: table.wait([], 0, BAD), errno.EINVAL),
        ("invalid-wait-available", lambda table: table.wait([], 0, WAIT_AVAILABLE), errno.EINVAL),
        ("invalid-wait-illegal-handle", lambda table: table.wait([0], 0, 0), errno.ENOENT),
        ("invalid-timeline-wait-bad-flags", lambda table: table.timeline_wait([], [], 0, BAD), errno.EINVAL),
        (
            "invalid-timeline-wait-illegal-handle",
            lambda table: table.timeline_wait([0], None, 0, 0),
            errno.ENOENT,
        ),
        ("invalid-reset-zero-handles", lambda table: table.reset([]), errno.EINVAL),
        ("invalid-reset-illegal-handle", lambda table: table.reset([0]), errno.ENOENT),
        ("invalid-reset-bad-pad", lambda table: table.reset([0], BAD), errno.EINVAL),
        ("invalid-signal-zero-handles", lambda table: table.signal([]), errno.EINVAL),
        ("invalid-signal-illegal-handle", lambda table: table.signal([0]), errno.ENOENT),
        ("invalid-signal-bad-pad", lambda table: table.signal([0], BAD), errno.EINVAL),
        ("invalid-query-zero-handles", lambda table: table.query([]), errno.EINVAL),
        ("invalid-query-illegal-handle", lambda table: table.query([0]), errno.ENOENT),
        ("invalid-query-bad-pad", lambda table: table.query([0], BAD), errno.EINVAL),
        ("timeline-signal-zero-handles", lambda table: table.timeline_signal([], []), errno.EINVAL),
        ("timeline-signal-illegal-handle", lambda table: table.timeline_signal([0], [1]), errno.ENOENT),
        ("timeline-signal-illegal-point", lambda table: table.timeline_signal([1], [0]), errno.ENOENT),
        ("timeline-signal-bad-pad", lambda table: table.timeline_signal([0], [1], BAD), errno.EINVAL),
        ("transfer-illegal-handle", lambda table: table.transfer(0, 0, 1, 0, 0), errno.ENOENT),
        ("transfer-bad-pad", lambda table: table.transfer(0, 0, 1, 0, 0, BAD), errno.EINVAL),
        ("eventfd-bad-flags", lambda table: table.eventfd(0, BAD, 0, 0), errno.EINVAL),
        ("eventfd-illegal-handle", lambda table: table.eventfd(0, 0, 0, 0), errno.ENOENT),
        ("eventfd-bad-pad", lambda table: table.eventfd(0, 0, 0, 0, BAD), errno.EINVAL),
        ("eventfd-illegal-fd", lambda table: table.eventfd(table.create(0), 0, 0, -1), errno.EBADF),
    ],
)
def test_bad_input(name: str, call: Callable[[SyncObjTable], object], code: int) -> None:
    table = SyncObjTable()
    with pytest.raises(GpuvmError) as caught:
        call(table)
    assert caught.value.errno == code, name
    assert caught.value.request is None
    table.check()


def test_one_illegal_handle_spoils_the_list() -> None:
    table = SyncObjTable()
    first, second = table.create(0), table.create(0)
    for call in (
        lambda handles: table.timeline_signal(handles, [1, 1, 1]),
        lambda handles: table.signal(handles),
        lambda handles: table.reset(handles),
        lambda handles: table.query(handles),
        lambda handles: table.wait(handles, 0, WAIT_FOR_SUBMIT),
    ):
        with pytest.raises(GpuvmError) as caught:
            call([first, 0, second])
        assert caught.value.errno == errno.ENOENT
    for handle in (first, second):
        assert result(partial(table.wait, [handle], 0, 0)) == "invalid-"


def test_wait_zero_handles() -> None:
    table = SyncObjTable()
    assert table.wait([], 0, 0) == 0
    assert table.timeline_wait([], None, 0, WAIT_ALL) == 0


def test_create_signaled() -> None:
    table = SyncObjTable()
    handle = table.create(CREATE_SIGNALED)
    assert table.wait([handle], 0, 0) == 0
    table.destroy(handle)


def test_test_valid_cycle() -> None:
    table = SyncObjTable()
    first = table.create(0)
    fd = table.handle_to_fd(first, 0)
    second = table.fd_to_handle(0, 0, fd)
    assert (first, second) == (1, 2)
    table.destroy(first)
    table.destroy(second)
    third = table.fd_to_handle(0, 0, fd)
    assert third == 1
    os.close(fd)
    table.destroy(third)


def test_bad_fds_of_the_wrong_kind() -> None:
    table = SyncObjTable()
    handle = table.create(CREATE_SIGNALED)
    syncobj_fd = table.handle_to_fd(handle, 0)
    sync_file = table.handle_to_fd(handle, HANDLE_TO_FD_EXPORT_SYNC_FILE)
    for flags, fd in ((0, sync_file), (FD_TO_HANDLE_IMPORT_SYNC_FILE, syncobj_fd)):
        with pytest.raises(GpuvmError) as caught:
            table.fd_to_handle(handle, flags, fd)
        assert caught.value.errno == errno.EINVAL
    os.close(syncobj_fd)
    os.close(sync_file)


# -- eventfd


@pytest.mark.parametrize("flags", [0, WAIT_AVAILABLE], ids=["wait", "available"])
@pytest.mark.parametrize("point", [0, 5], ids=["binary", "timeline"])
@pytest.mark.parametrize("order", ["wait", "wait-before-signal", "wait-signaled"])
def test_eventfd(flags: int, point: int, order: str) -> None:
    table = SyncObjTable()
    handle = table.create(0)
    eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    try:
        if order != "wait-before-signal":
            fence = attach(table, handle, point)
            if order == "wait-signaled":
                fence.signal()
        table.eventfd(handle, flags, point, eventfd)
        if order == "wait-before-signal":
            with pytest.raises(BlockingIOError):
                os.eventfd_read(eventfd)
            fence = attach(table, handle, point)
        if not fence.signalled:
            if not flags:
                with pytest.raises(BlockingIOError):
                    os.eventfd_read(eventfd)
            fence.signal()
        assert os.eventfd_read(eventfd) == 1
        with pytest.raises(BlockingIOError):
            os.eventfd_read(eventfd)
    finally:
        os.close(eventfd)
    table.check()


def test_eventfd_of_a_point_that_is_long_done() -> None:
    table = SyncObjTable()
    handle = table.create(0)
    table.timeline_signal([handle], [3])
    pending = attach(table, handle, 7)
    eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    for point in (2, 3):
        table.eventfd(handle, 0, point, eventfd)
        assert os.eventfd_read(eventfd) == 1
    os.close(eventfd)
    assert pending.status == 0


def test_eventfd_wants_an_eventfd() -> None:
    table = SyncObjTable()
    handle = table.create(0)
    reading, writing = os.pipe()
    with pytest.raises(GpuvmError) as caught:
        table.eventfd(handle, 0, 0, reading)
    assert caught.value.errno == errno.EINVAL
    os.close(reading)
    os.close(writing)
    with pytest.raises(GpuvmError) as caught:
        table.eventfd(handle, 0, 0, reading)
    assert caught.value.errno == errno.EBADF
