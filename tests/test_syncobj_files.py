"""Descriptors of syncobjs and sync files: copies, lifetimes, other processes; eventfds."""

from __future__ import annotations

import array
import gc
import os
import select
import socket
import threading
import weakref

import pytest

from fences import make
from gpuvm.errors import BadFile, InvalidArgument
from gpuvm.sync.descriptor import carriers
from gpuvm.sync.sync_file import export_sync_file, import_sync_file
from gpuvm.sync.syncobj import SyncObj
from suite import scaled


def files() -> int:
    gc.collect()
    carriers.check()
    return carriers.statistics().files


def test_an_exported_syncobj_is_named_by_every_copy_of_its_descriptor() -> None:
    before = files()
    syncobj = SyncObj()
    fd = syncobj.export_fd()
    copy = os.dup(fd)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
        os.close(fd)
        received = socket.recv_fds(theirs, 1, 1)[1][0]
    assert SyncObj.import_fd(copy) is SyncObj.import_fd(received) is syncobj
    assert not os.get_inheritable(copy)
    os.close(copy)
    assert files() == before + 1
    os.close(received)
    assert files() == before


def test_a_file_keeps_its_object_until_the_last_copy_is_closed() -> None:
    syncobj = SyncObj()
    alive = weakref.ref(syncobj)
    fd = syncobj.export_fd()
    other = syncobj.export_fd()
    del syncobj
    os.close(fd)
    carriers.collect()
    assert alive() is SyncObj.import_fd(other)
    os.close(other)
    carriers.collect()
    gc.collect()
    assert alive() is None


def test_a_descriptor_in_flight_keeps_the_object() -> None:
    syncobj = SyncObj()
    fd = syncobj.export_fd()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        socket.send_fds(ours, [b"x"], [fd])
        os.close(fd)
        carriers.collect()
        received = socket.recv_fds(theirs, 1, 1)[1][0]
        assert SyncObj.import_fd(received) is syncobj
        os.close(received)


def test_numbers_that_are_used_again_name_nothing_else() -> None:
    fd = SyncObj().export_fd()
    os.close(fd)
    reading, writing = os.pipe()
    for number in {fd, reading, writing, -1, 10**6}:
        with pytest.raises(InvalidArgument, match="is no syncobj's"):
            SyncObj.import_fd(number)
        assert import_sync_file(number) is None
    os.close(reading)
    os.close(writing)


def test_a_sync_file_becomes_readable_when_its_fence_is_signalled() -> None:
    fence = make()
    fd = export_sync_file(fence)
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    assert poll.poll(0) == []
    assert import_sync_file(fd) is fence
    fence.signal()
    assert poll.poll(0) == [(fd, select.POLLIN)]
    os.close(fd)
    late = export_sync_file(fence)
    poll = select.poll()
    poll.register(late, select.POLLIN)
    assert poll.poll(0) == [(late, select.POLLIN)]
    os.close(late)


def test_a_closed_sync_file_leaves_the_fence_alone() -> None:
    fence = make()
    os.close(export_sync_file(fence))
    assert fence.awaited
    carriers.collect()
    assert not fence.awaited
    os.close(export_sync_file(fence))
    fence.signal()  # nobody has it open any more
    assert files() >= 0


def test_sync_files_of_points() -> None:
    source, target = SyncObj(), SyncObj()
    fences = [make(), make()]
    for point, fence in enumerate(fences, 1):
        source.add_point(fence, point)
    fd = source.export_sync_file(1)
    target.import_sync_file(fd, 7)
    os.close(fd)
    fences[0].signal()
    assert (target.payload, target.last_submitted) == (7, 7)
    with pytest.raises(InvalidArgument, match="point 3 yet"):
        source.export_sync_file(3)
    with pytest.raises(InvalidArgument, match="is no sync file"):
        target.import_sync_file(-1)


def test_a_child_process_names_the_same_objects_and_does_not_disturb_its_parent() -> None:
    syncobj = SyncObj(signalled=True)
    kept, closed = syncobj.export_fd(), SyncObj().export_fd()
    before = files()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(closed)
            same = SyncObj.import_fd(kept) is syncobj
            status = 0 if same and files() == before else 2  # the parent has it open still
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert files() == before
    os.close(closed)
    assert files() == before - 1
    assert SyncObj.import_fd(kept) is syncobj
    os.close(kept)
    assert files() == before - 2


def test_files_under_many_threads() -> None:
    before = files()

    def export_and_import() -> None:
        for _ in range(scaled(100, 3_000)):
            syncobj = SyncObj()
            fd = syncobj.export_fd()
            sync_file = export_sync_file(make())
            assert SyncObj.import_fd(fd) is syncobj
            os.close(fd)
            os.close(sync_file)

    threads = [threading.Thread(target=export_and_import) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert files() == before


# -- eventfds


def test_an_eventfd_may_be_closed_or_full() -> None:
    syncobj, fence = SyncObj(), make()
    closed, full = os.eventfd(0), os.eventfd(0)
    os.eventfd_write(full, 2**64 - 2)
    for eventfd in (closed, full):
        syncobj.signal_eventfd(eventfd, 1)
    os.close(closed)
    syncobj.add_point(fence, 1)
    fence.signal()
    assert os.eventfd_read(full) == 2**64 - 2
    os.close(full)


def test_eventfds_of_a_dropped_syncobj_are_closed() -> None:
    syncobj = SyncObj()
    eventfd = os.eventfd(0)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        syncobj.signal_eventfd(eventfd, 1)
    assert len(os.listdir("/proc/self/fd")) == before + 5
    del syncobj
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before
    os.close(eventfd)


def test_what_is_no_eventfd_is_refused() -> None:
    syncobj = SyncObj()
    fd = syncobj.export_fd()
    with pytest.raises(InvalidArgument, match="not an eventfd"):
        syncobj.signal_eventfd(fd)
    os.close(fd)
    with pytest.raises(BadFile, match="is no open file descriptor"):
        syncobj.signal_eventfd(fd)
    assert syncobj.statistics().waiting == 0
