"""What fences, sync objects and their files refuse at the door; what their files leave behind."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from fences import make
from gpuvm.errors import BadFile, CheckFailed, InvalidArgument
from gpuvm.sync.container import FenceArray, FenceChain
from gpuvm.sync.descriptor import Carriers, carriers
from gpuvm.sync.fence import U64_MAX, Fence, fence_context_alloc, stub_fence
from gpuvm.sync.sync_file import export_sync_file, import_sync_file
from gpuvm.sync.syncobj import SyncObj
from gpuvm.sync.syncobj_table import (
    FD_TO_HANDLE_IMPORT_SYNC_FILE,
    FD_TO_HANDLE_TIMELINE,
    HANDLE_TO_FD_EXPORT_SYNC_FILE,
    HANDLE_TO_FD_TIMELINE,
    QUERY_LAST_SUBMITTED,
    SyncObjTable,
)

OF_SYNCOBJS: dict[str, Callable[[SyncObj, int], object]] = {
    "fence": lambda syncobj, point: syncobj.fence(point),
    "add_point": lambda syncobj, point: syncobj.add_point(stub_fence(), point),
    "signal": lambda syncobj, point: syncobj.signal(point),
    "put": lambda syncobj, point: syncobj.put(stub_fence(), point),
    "wait": lambda syncobj, point: syncobj.wait(point, 0),
    "signal_eventfd": lambda syncobj, point: syncobj.signal_eventfd(-1, point),
    "export_sync_file": lambda syncobj, point: syncobj.export_sync_file(point),
    "import_sync_file": lambda syncobj, point: syncobj.import_sync_file(-1, point),
}
OF_TABLES: dict[str, Callable[[SyncObjTable, int], object]] = {
    "handle_to_fd": lambda table, point: table.handle_to_fd(
        1, HANDLE_TO_FD_EXPORT_SYNC_FILE | HANDLE_TO_FD_TIMELINE, point=point
    ),
    "fd_to_handle": lambda table, point: table.fd_to_handle(
        1, FD_TO_HANDLE_IMPORT_SYNC_FILE | FD_TO_HANDLE_TIMELINE, -1, point=point
    ),
    "timeline_wait": lambda table, point: table.timeline_wait([1], [point], 0, 0),
    "timeline_signal": lambda table, point: table.timeline_signal([1], [point]),
    "find_fence": lambda table, point: table.find_fence(1, point, 0),
    "transfer from": lambda table, point: table.transfer(1, 1, point, 7, 0),
    "transfer to": lambda table, point: table.transfer(1, 1, 5, point, 0),
    "eventfd": lambda table, point: table.eventfd(1, 0, point, -1),
}


@pytest.mark.parametrize("point", [-1, -5, U64_MAX + 1])
@pytest.mark.parametrize("call", OF_SYNCOBJS)
def test_points_of_syncobjs_are_u64(call: str, point: int) -> None:
    syncobj = SyncObj()
    syncobj.signal(5)
    head = syncobj.head
    with pytest.raises(InvalidArgument, match="is a u64"):
        OF_SYNCOBJS[call](syncobj, point)
    assert syncobj.head is head
    assert syncobj.statistics().waiting == 0


@pytest.mark.parametrize("point", [-1, U64_MAX + 1])
@pytest.mark.parametrize("call", OF_TABLES)
def test_points_of_tables_are_u64(call: str, point: int) -> None:
    table = SyncObjTable()
    table.create(0)
    table.timeline_signal([1], [5])
    with pytest.raises(InvalidArgument, match="is a u64"):
        OF_TABLES[call](table, point)
    assert table.query([1], QUERY_LAST_SUBMITTED) == [5]


def test_a_link_is_refused_before_its_number_is_replaced() -> None:
    chain = FenceChain(None, make(), 5)
    for point in (-1, U64_MAX + 1):
        with pytest.raises(InvalidArgument, match="is a u64"):
            FenceChain(chain, make(), point)
    assert FenceChain(chain, make(), 3).seqno == 5


@pytest.mark.parametrize(
    "call",
    [
        lambda: FenceArray([1]),  # type: ignore[list-item]
        lambda: FenceArray([make(), None]),  # type: ignore[list-item]
        lambda: FenceChain(None, 1, 1),  # type: ignore[arg-type]
        lambda: FenceChain(1, make(), 1),  # type: ignore[arg-type]
        lambda: FenceChain(None, make(), 1.5),  # type: ignore[arg-type]
        lambda: SyncObj(5),  # type: ignore[arg-type]
        lambda: SyncObj().replace_fence(5),  # type: ignore[arg-type]
        lambda: SyncObj().add_point(None, 5),  # type: ignore[arg-type]
        lambda: SyncObj().wait(1.5, 0),  # type: ignore[arg-type]
        lambda: Fence(1, 1.5),  # type: ignore[arg-type]
        lambda: Fence(None, 1),  # type: ignore[arg-type]
        lambda: fence_context_alloc(1.5),  # type: ignore[arg-type]
    ],
)
def test_what_is_of_another_type_is_refused(call: Callable[[], object]) -> None:
    with pytest.raises(TypeError):
        call()


def test_a_timeout_is_a_number() -> None:
    fence = make()
    with pytest.raises(InvalidArgument, match="NaN"):
        fence.wait(math.nan)
    with pytest.raises(InvalidArgument, match="NaN"):
        SyncObj().wait(timeout=math.nan)
    assert not fence.wait(-math.inf)
    fence.signal()
    assert fence.wait(math.inf)


@pytest.mark.parametrize("number", [2**40, 2**80, -(2**40)])
def test_a_descriptor_beyond_any_number_is_a_bad_one(number: int) -> None:
    with pytest.raises(BadFile):
        SyncObj().signal_eventfd(number)
    with pytest.raises(InvalidArgument, match="is no syncobj's"):
        SyncObj.import_fd(number)
    assert import_sync_file(number) is None


def test_a_block_of_contexts_costs_no_more_than_one() -> None:
    first = fence_context_alloc(2**48)
    assert fence_context_alloc() == first + 2**48


# -- files


def test_a_closed_sync_file_kills_nobody() -> None:
    """With the default of SIGPIPE, which is not Python's but that of programs that embed it."""
    program = (
        "import os, signal\n"
        "from gpuvm import Fence\n"
        "from gpuvm.sync.sync_file import export_sync_file\n"
        "signal.signal(signal.SIGPIPE, signal.SIG_DFL)\n"
        "fence = Fence(1, 1)\n"
        "os.close(export_sync_file(fence))\n"
        "fence.signal()\n"
        "print('alive')\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, "alive\n"), signal.Signals(-ran.returncode)


def test_files_that_nobody_closes_are_found() -> None:
    before = carriers.statistics()
    syncobj, fence = SyncObj(), make()
    fds = [syncobj.export_fd(), export_sync_file(fence), export_sync_file(fence)]
    after = carriers.statistics()
    assert after.files == before.files + 3
    assert after.named["SyncObj"] == before.named.get("SyncObj", 0) + 1
    assert [getattr(one, "fence", one) for one in carriers.contents()[-2:]] == [fence, fence]
    assert carriers.contents()[-3] is syncobj
    carriers.check()
    for fd in fds:
        os.close(fd)
    assert carriers.statistics() == before
    carriers.check()


def test_check_finds_a_carrier_that_is_half_gone() -> None:
    own = Carriers()
    fd = own.export("content")[0]
    own.check()
    (identity,) = own._by_identity
    carrier = own._by_identity.pop(identity)
    with pytest.raises(CheckFailed, match="by identity"):
        own.check()
    own._by_identity[identity] = carrier
    os.close(fd)
    own.close()
    assert own.statistics().files == 0
