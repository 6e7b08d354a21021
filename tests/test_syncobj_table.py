"""SyncObjTable: handles, and what the ioctls answer beside IGT's matrix."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fences import make
from gpuvm.errors import (
    CheckFailed,
    Interrupted,
    InvalidArgument,
    NotFound,
    NotSupported,
    TimedOut,
)
from gpuvm.sync import task
from gpuvm.sync.syncobj_table import (
    CREATE_SIGNALED,
    FD_TO_HANDLE_IMPORT_SYNC_FILE,
    FD_TO_HANDLE_TIMELINE,
    FIND_FENCE_TIMEOUT_NS,
    HANDLE_TO_FD_EXPORT_SYNC_FILE,
    HANDLE_TO_FD_TIMELINE,
    QUERY_LAST_SUBMITTED,
    WAIT_ALL,
    WAIT_AVAILABLE,
    WAIT_DEADLINE,
    WAIT_FOR_SUBMIT,
    SyncObjTable,
    SyncObjTableStatistics,
)
from gpuvm.sync.syncobj_wait import NO_INDEX
from gpuvm.testing import Interleaving, sample
from suite import scaled


def test_handles_are_the_lowest_that_are_free() -> None:
    table = SyncObjTable()
    assert [table.create(0) for _ in range(4)] == [1, 2, 3, 4]
    table.destroy(3)
    table.destroy(1)
    assert [table.create(0) for _ in range(3)] == [1, 3, 5]
    syncobj = table.find(5)
    assert syncobj is not None
    assert table.insert(syncobj) == 6
    assert table.find(7) is None
    assert table.statistics() == SyncObjTableStatistics(6, 5, 0)
    table.check()
    table.release()
    assert table.statistics() == SyncObjTableStatistics(0, 0, 0)
    assert table.create(0) == 1
    table.check()


@given(st.lists(st.integers(0, 8)))
def test_handles_against_a_set(steps: list[int]) -> None:
    table, model = SyncObjTable(), set[int]()
    for step in steps:
        if step == 0:
            handle = table.create(0)
            assert handle == min(set(range(1, len(model) + 2)) - model)
            model.add(handle)
        elif step in model:
            table.destroy(step)
            model.remove(step)
        else:
            with pytest.raises(InvalidArgument, match=r"^destroy: there is no syncobj"):
                table.destroy(step)
        table.check()
        assert table.statistics().handles == len(model)


def test_check_finds_a_handle_in_use_that_is_free() -> None:
    table = SyncObjTable()
    table._freed.append(table.create(0))
    with pytest.raises(CheckFailed, match="in use"):
        table.check()


@pytest.mark.parametrize(
    ("timeline", "call"),
    [
        (False, lambda table: table.create(0)),
        (False, lambda table: table.destroy(1)),
        (False, lambda table: table.handle_to_fd(1, 0)),
        (False, lambda table: table.fd_to_handle(1, 0, 0)),
        (False, lambda table: table.wait([], 0, 0)),
        (False, lambda table: table.reset([1])),
        (False, lambda table: table.signal([1])),
        (True, lambda table: table.timeline_wait([], None, 0, 0)),
        (True, lambda table: table.query([1])),
        (True, lambda table: table.transfer(1, 1, 0, 0, 0)),
        (True, lambda table: table.timeline_signal([1], [1])),
        (True, lambda table: table.eventfd(1, 0, 0, 0)),
    ],
)
def test_a_driver_without_the_feature(timeline: bool, call: Callable[[SyncObjTable], object]) -> None:
    table = SyncObjTable(syncobj=timeline, syncobj_timeline=not timeline)
    with pytest.raises(NotSupported, match="lacks DRIVER_SYNCOBJ") as caught:
        call(table)
    assert caught.value.errno == errno.EOPNOTSUPP


def test_first_signaled() -> None:
    table = SyncObjTable()
    handles = [table.create(0), table.create(CREATE_SIGNALED), table.create(CREATE_SIGNALED)]
    assert table.wait(handles, 0, WAIT_FOR_SUBMIT) == 1
    assert table.wait(handles[1:], 0, WAIT_ALL) == 0

    def scenario(run: Interleaving) -> None:
        table = SyncObjTable()
        handles = [table.create(0) for _ in range(3)]
        never = (1 << 63) - 1
        any_of = run.spawn(table.wait, handles, never, WAIT_FOR_SUBMIT)
        all_of = run.spawn(table.wait, handles, never, WAIT_FOR_SUBMIT | WAIT_ALL)

        def client() -> None:
            never = make()
            assert not never.wait(0.1)
            for handle in (handles[2], handles[0], handles[1]):
                table.signal([handle])

        run.spawn(client)
        run.run()
        assert any_of.result == 2
        assert all_of.result == NO_INDEX

    sample(scenario, range(scaled(20, 500)))


def test_a_deadline_reaches_the_fences() -> None:
    table = SyncObjTable()
    handles = [table.create(0), table.create(0)]
    fence = make()
    syncobj = table.find(handles[0])
    assert syncobj is not None
    syncobj.add_point(fence, 1)
    with pytest.raises(TimedOut):
        table.timeline_wait(handles, [1, 1], 0, WAIT_FOR_SUBMIT, 55)
    assert fence.deadline is None
    with pytest.raises(TimedOut):
        table.timeline_wait(handles, [1, 1], 0, WAIT_FOR_SUBMIT | WAIT_DEADLINE, 55)
    assert fence.deadline == 55


def test_points_of_the_wrong_number_or_size() -> None:
    table = SyncObjTable()
    handles = [table.create(0), table.create(0)]
    for points in ([1], [1, 2, 3], [1, 1 << 64], [1, -1]):
        with pytest.raises(InvalidArgument, match=r"one a handle|is a u64"):
            table.timeline_signal(handles, points)
        with pytest.raises(InvalidArgument, match=r"one a handle|is a u64"):
            table.timeline_wait(handles, points, 0, WAIT_FOR_SUBMIT)
    assert table.query(handles, QUERY_LAST_SUBMITTED) == [0, 0]


def test_query_last_submitted() -> None:
    table = SyncObjTable()
    handle = table.create(0)
    syncobj = table.find(handle)
    assert syncobj is not None
    syncobj.add_point(make(), 4)
    table.timeline_signal([handle], [9])
    assert table.query([handle]) == [0]
    assert table.query([handle], QUERY_LAST_SUBMITTED) == [9]


def test_sharing_by_handle() -> None:
    table, other = SyncObjTable(), SyncObjTable()
    handle = table.create(0)
    with pytest.raises(InvalidArgument, match="nothing was submitted"):
        table.handle_to_fd(handle, HANDLE_TO_FD_EXPORT_SYNC_FILE)
    for flags in (0, HANDLE_TO_FD_TIMELINE):
        with pytest.raises(InvalidArgument, match="only a sync file has one"):
            table.handle_to_fd(handle, flags, 0, 5)
        with pytest.raises(InvalidArgument, match="only a sync file has one"):
            table.fd_to_handle(handle, flags, 0, 0, 5)
    table.timeline_signal([handle], [5])
    flags = HANDLE_TO_FD_EXPORT_SYNC_FILE | HANDLE_TO_FD_TIMELINE
    fd = table.handle_to_fd(handle, flags, 0, 5)
    with pytest.raises(InvalidArgument, match="point 6 yet"):
        table.handle_to_fd(handle, flags, 0, 6)
    with pytest.raises(NotFound):
        table.handle_to_fd(77, flags, 0, 6)
    copy = other.create(0)
    with pytest.raises(NotFound):
        other.fd_to_handle(77, FD_TO_HANDLE_IMPORT_SYNC_FILE, fd)
    with pytest.raises(InvalidArgument, match="is no sync file"):
        other.fd_to_handle(77, FD_TO_HANDLE_IMPORT_SYNC_FILE, -1)
    assert other.fd_to_handle(copy, FD_TO_HANDLE_IMPORT_SYNC_FILE, fd, 0, 3) == copy
    assert other.query([copy]) == [5]  # without TIMELINE the point means nothing: the link itself is put
    other.reset([copy])
    import_point = FD_TO_HANDLE_IMPORT_SYNC_FILE | FD_TO_HANDLE_TIMELINE
    assert other.fd_to_handle(copy, import_point, fd, 0, 3) == copy
    assert other.query([copy]) == [3]
    os.close(fd)


def test_transfer() -> None:
    table = SyncObjTable()
    source, target = table.create(0), table.create(0)
    for point in (0, 4):
        with pytest.raises(InvalidArgument, match="nothing was submitted"):
            table.transfer(source, target, point, 0, 0)
    table.signal([source])
    with pytest.raises(NotFound):
        table.transfer(source, 9, 0, 0, WAIT_ALL)
    with pytest.raises(InvalidArgument, match="flags 0x1; this call knows 0x2"):
        table.transfer(source, target, 0, 0, WAIT_ALL)
    with pytest.raises(NotFound):
        table.transfer(9, target, 0, 0, 0)
    assert table.find(target).submitted is False  # type: ignore[union-attr]
    table.transfer(source, target, 0, 6, 0)
    assert table.query([target]) == [6]
    table.transfer(source, target, 0, 0, 0)
    assert table.query([target]) == [0]
    assert table.wait([target], 0, 0) == 0


def test_find_fence_waits_five_seconds_for_a_submission() -> None:
    def scenario(run: Interleaving) -> None:
        table, fence = SyncObjTable(), make()
        handle = table.create(0)
        syncobj = table.find(handle)
        assert syncobj is not None
        begin = task.now()
        with pytest.raises(InvalidArgument, match="point 2 yet"):
            table.find_fence(handle, 2, 0)
        with pytest.raises(TimedOut):
            table.find_fence(handle, 2, WAIT_FOR_SUBMIT)
        assert task.now() == begin + FIND_FENCE_TIMEOUT_NS
        found = run.spawn(table.find_fence, handle, 2, WAIT_FOR_SUBMIT)
        run.spawn(syncobj.add_point, fence, 2)
        run.run()
        assert found.result is syncobj.head
        assert table.find_fence(handle, 2, 0) is syncobj.head
        assert not fence.awaited
        assert table.statistics().waiting == 0

    sample(scenario, range(scaled(10, 300)))


def test_what_find_fence_refuses() -> None:
    table = SyncObjTable()
    with pytest.raises(InvalidArgument, match="flags"):
        table.find_fence(1, 0, WAIT_AVAILABLE)
    with pytest.raises(NotFound):
        table.find_fence(1, 0, 0)
    task.current().interrupt()
    with pytest.raises(Interrupted):
        table.find_fence(table.create(0), 0, WAIT_FOR_SUBMIT)
