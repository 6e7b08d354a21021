"""Calls on sync files, sw_sync timelines and DMA buffers: what each answers, and what it refuses."""

from __future__ import annotations

import errno
import os
import select
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from compiled import CC, needs_cc
from gpuvm.errors import BadAddress, GpuvmError, UnknownCall
from gpuvm.mem.dma_buf import DmaBuf
from gpuvm.nouveau import Device
from gpuvm.nouveau.uapi import Caller
from gpuvm.nouveau.uapi import file_calls as calls
from gpuvm.nouveau.uapi.file_calls import FileCall, file_ioctl
from gpuvm.sync import task
from gpuvm.sync.container import FenceArray
from gpuvm.sync.descriptor import carriers
from gpuvm.sync.fence import Fence, fence_context_alloc
from gpuvm.sync.resv import Usage
from gpuvm.sync.sw_sync import SwSync
from gpuvm.sync.sync_file import SyncFile, export_sync_file, import_sync_file
from gpuvm.sync.syncobj import SyncObj
from uapi_program import fields_of, filled, no_descriptor_left
from user_pages import PAGE, Pages

CALLS: dict[str, FileCall] = {
    call.name: call for by_request in calls.CALLS.values() for call in by_request.values()
}
SYNC_FILE_INFO = calls.SYNC_FENCE_INFO.size


class User:
    """A program with a page of memory, and what it has open."""

    def __init__(self) -> None:
        self.pages = Pages(4)
        self.pages.protect(2, 1)
        self.pages.forbid(3)
        self.answer: dict[str, Any] = {}

    def call(self, file: int, name: str, /, **fields: int | bytes) -> int:
        """0, or minus an errno."""
        call = CALLS[name]
        assert call.layout is not None
        data = filled(call.layout, **fields)
        self.pages.map[: len(data)] = data
        result = self.raw(file, call.request, self.pages.addr)
        self.answer = fields_of(call.layout, self.pages.map[: len(data)])
        return result

    def raw(self, fd: int, request: int, arg: int) -> int:
        content = carriers.find(fd)
        assert content is not None
        try:
            return file_ioctl(content, request, arg, Caller.own())
        except GpuvmError as error:
            return -error.code

    def do(self, file: int, name: str, /, **fields: int | bytes) -> dict[str, Any]:
        assert self.call(file, name, **fields) == 0
        return self.answer


@pytest.fixture
def program() -> Iterator[User]:
    program = User()
    before = carriers.statistics().files
    yield program
    assert carriers.statistics().files == before
    program.pages.close()


@pytest.fixture
def timeline() -> Iterator[int]:
    timeline = SwSync("test")
    fd = carriers.export(timeline, timeline.close)[0]
    yield fd
    os.close(fd)


def make(number: int = 1, name: str = "somewhere") -> Fence:
    return Fence(fence_context_alloc(), number, driver="maker", timeline=name)


def is_readable(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


NEWER = {
    "sync_set_deadline": "SYNC_IOC_SET_DEADLINE",
    "dma_buf_export_sync_file": "DMA_BUF_IOCTL_EXPORT_SYNC_FILE",
}
"""Structures that older headers lack, and the request by which that is seen."""


@needs_cc
def test_structures_and_requests_are_the_headers(tmp_path: Path) -> None:
    """Of sw_sync there is no header."""
    layouts = [calls.SYNC_MERGE, calls.SYNC_FILE_INFO, calls.SYNC_FENCE_INFO, calls.SYNC_SET_DEADLINE]
    layouts += [calls.DMA_BUF_SYNC, calls.DMA_BUF_SYNC_FILE]
    headers = ("linux/sync_file.h", "linux/dma-buf.h", "linux/types.h", "stddef.h", "stdio.h", "sys/ioctl.h")
    lines = [f"#include <{header}>" for header in headers] + ["int main(void) {"]
    for call in CALLS.values():
        lines += [f"#ifdef {call.name}", f'printf("{call.name} %lu\\n", (long){call.name});', "#endif"]
    for one in layouts:
        lines.append(f"#ifdef {NEWER.get(one.c_name, 'SYNC_IOC_MERGE')}")
        lines.append(f'printf("{one.c_name} %zu\\n", sizeof(struct {one.c_name}));')
        for field in one.fields:
            offset = f"offsetof(struct {one.c_name}, {field.name})"
            lines.append(f'printf("{one.c_name}.{field.name} %zu\\n", {offset});')
        lines.append("#endif")
    source, executable = tmp_path / "headers.c", tmp_path / "headers"
    source.write_text("\n".join([*lines, "return 0; }\n"]))
    assert CC is not None
    subprocess.run([CC, source, "-o", executable], check=True)
    ran = subprocess.run([executable], capture_output=True, text=True, check=True)
    found = {name: int(number) for name, number in map(str.split, ran.stdout.splitlines())}
    ours = {call.name: call.request for call in CALLS.values()}
    ours |= {one.c_name: one.size for one in layouts}
    ours |= {f"{one.c_name}.{field.name}": field.offset for one in layouts for field in one.fields}
    assert found == {name: ours[name] for name in found}
    assert {"SYNC_IOC_MERGE", "SYNC_IOC_FILE_INFO", "DMA_BUF_IOCTL_SYNC"} <= found.keys()


def test_requests_of_sw_sync() -> None:
    """As ``drivers/dma-buf/sw_sync.c`` has them."""
    requests = [call.request for call in CALLS.values() if call.name.startswith("SW_SYNC")]
    assert requests == [0xC0285700, 0x40045701, 0xC0105702]


# -- sync files


def test_merging(program: User) -> None:
    one, other = make(), make()
    fds = [export_sync_file(one), export_sync_file(other)]
    merged = program.do(fds[0], "SYNC_IOC_MERGE", fd2=fds[1], name=b"both\0rubbish")["fence"]
    fence = import_sync_file(merged)
    assert isinstance(fence, FenceArray)
    assert {*fence.fences} == {one, other}
    assert program.do(merged, "SYNC_IOC_FILE_INFO")["name"] == b"both".ljust(32, b"\0")
    assert not os.get_inheritable(merged)
    assert not is_readable(merged)
    one.signal()
    assert not is_readable(merged)
    other.signal()
    assert is_readable(merged)
    for fd in (*fds, merged):
        os.close(fd)


def test_merging_the_same_timeline_keeps_the_later(program: User) -> None:
    context = fence_context_alloc()
    early, late = Fence(context, 1), Fence(context, 2)
    fds = [export_sync_file(early), export_sync_file(late)]
    for first, second in (fds, fds[::-1]):
        merged = program.do(first, "SYNC_IOC_MERGE", fd2=second)["fence"]
        assert import_sync_file(merged) is late
        os.close(merged)
    for fd in fds:
        os.close(fd)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"flags": 1}, errno.EINVAL),
        ({"pad": 1}, errno.EINVAL),
        ({"fd2": -1}, errno.ENOENT),
        ({"fd2": 0}, errno.ENOENT),
        ({"fd2": 0, "flags": 1}, errno.EINVAL),
    ],
)
def test_merges_that_are_refused(program: User, fields: dict[str, int], error: int) -> None:
    fd = export_sync_file(make())
    assert program.call(fd, "SYNC_IOC_MERGE", **{"fd2": fd} | fields) == -error
    os.close(fd)


def test_a_merge_whose_answer_cannot_be_told_leaves_no_file(program: User) -> None:
    fd = export_sync_file(make())
    read_only = program.pages.addr + 2 * PAGE
    program.pages.protect(2, 3)
    program.pages.map[2 * PAGE : 2 * PAGE + 48] = filled(calls.SYNC_MERGE, fd2=fd)
    program.pages.protect(2, 1)
    before = carriers.statistics()
    assert program.raw(fd, CALLS["SYNC_IOC_MERGE"].request, read_only) == -errno.EFAULT
    assert carriers.statistics() == before
    with no_descriptor_left():
        assert program.call(fd, "SYNC_IOC_MERGE", fd2=fd) == -errno.EMFILE
    assert carriers.statistics() == before
    os.close(fd)


def test_what_a_file_tells_of_its_fences(program: User) -> None:
    one, other, third = make(7, "one"), make(8, "other"), make(9, "x" * 40)
    fd = export_sync_file(FenceArray([one, other, third], fence_context_alloc()))
    info = program.do(fd, "SYNC_IOC_FILE_INFO")
    assert (info["num_fences"], info["status"]) == (3, 0)
    other.set_error(errno.EIO)
    other.signal(1234)
    one.signal(99)
    at = program.pages.addr + 1024
    for room in (3, 5):
        info = program.do(fd, "SYNC_IOC_FILE_INFO", num_fences=room, sync_fence_info=at)
        assert (info["num_fences"], info["status"]) == (3, -errno.EIO)
        told = [
            fields_of(calls.SYNC_FENCE_INFO, program.pages.map[start : start + SYNC_FILE_INFO])
            for start in range(1024, 1024 + 3 * SYNC_FILE_INFO, SYNC_FILE_INFO)
        ]
        assert [(one["status"], one["timestamp_ns"]) for one in told] == [(1, 99), (-errno.EIO, 1234), (0, 0)]
        assert [one["obj_name"].rstrip(b"\0") for one in told] == [b"one", b"other", b"x" * 31]
        assert {one["driver_name"].rstrip(b"\0") for one in told} == {b"maker"}
    third.signal(5)
    assert program.do(fd, "SYNC_IOC_FILE_INFO")["status"] == -errno.EIO
    os.close(fd)


def test_a_file_is_called_after_its_fence(program: User) -> None:
    fence = make(7)
    fd = export_sync_file(fence)
    info = program.do(fd, "SYNC_IOC_FILE_INFO")
    assert info["name"].rstrip(b"\0").decode() == f"maker-somewhere{fence.context}-7"[:31]  # char name[32]
    assert (info["status"], info["num_fences"]) == (0, 1)
    fence.signal()
    assert program.do(fd, "SYNC_IOC_FILE_INFO")["status"] == 1
    os.close(fd)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"flags": 1}, errno.EINVAL),
        ({"pad": 1}, errno.EINVAL),
        ({"num_fences": 1}, errno.EINVAL),
        ({"num_fences": 2, "sync_fence_info": 0}, errno.EFAULT),
    ],
)
def test_infos_that_are_refused(program: User, fields: dict[str, int], error: int) -> None:
    fd = export_sync_file(FenceArray([make(), make()], fence_context_alloc()))
    assert program.call(fd, "SYNC_IOC_FILE_INFO", **fields) == -error
    os.close(fd)


def test_deadlines(program: User, timeline: int) -> None:
    fd = program.do(timeline, "SW_SYNC_IOC_CREATE_FENCE", value=1)["fence"]
    assert program.call(timeline, "SW_SYNC_GET_DEADLINE", fence_fd=fd) == -errno.ENOENT
    for deadline in (500, 300, 400):
        program.do(fd, "SYNC_IOC_SET_DEADLINE", deadline_ns=deadline)
    assert program.do(timeline, "SW_SYNC_GET_DEADLINE", fence_fd=fd)["deadline_ns"] == 300
    assert program.call(fd, "SYNC_IOC_SET_DEADLINE", deadline_ns=1, pad=1) == -errno.EINVAL
    for wrong in ({"pad": 1}, {"deadline_ns": 1}, {"fence_fd": timeline}, {"fence_fd": -1}):
        fields = {"fence_fd": fd} | wrong
        assert program.call(timeline, "SW_SYNC_GET_DEADLINE", **fields) == -errno.EINVAL
    foreign = export_sync_file(make())
    assert program.call(timeline, "SW_SYNC_GET_DEADLINE", fence_fd=foreign) == -errno.EINVAL
    os.close(foreign)
    os.close(fd)


# -- sw_sync


def test_counting_up(program: User, timeline: int) -> None:
    fds = [program.do(timeline, "SW_SYNC_IOC_CREATE_FENCE", value=value)["fence"] for value in (1, 2, 3)]
    program.do(timeline, "SW_SYNC_IOC_INC", value=2)
    assert [is_readable(fd) for fd in fds] == [True, True, False]
    assert not any(os.get_inheritable(fd) for fd in fds)
    for fd in fds:
        os.close(fd)


def test_the_last_close_of_a_timeline_ends_its_fences(program: User) -> None:
    timeline = SwSync("test")
    fd = carriers.export(timeline, timeline.close)[0]
    copy = os.dup(fd)
    fence = program.do(fd, "SW_SYNC_IOC_CREATE_FENCE", value=1)["fence"]
    os.close(fd)
    carriers.collect()
    assert not is_readable(fence)
    os.close(copy)
    carriers.collect()
    assert program.do(fence, "SYNC_IOC_FILE_INFO")["status"] == -errno.ENOENT
    os.close(fence)


# -- DMA buffers


@pytest.fixture
def dma_buf() -> Iterator[int]:
    with Device(vram=1 << 20, gart=1 << 20) as device, device.open() as client:
        fd = client.prime_handle_to_fd(client.gem_new(PAGE, 2).handle)
        yield fd
        os.close(fd)


def content_of(fd: int) -> DmaBuf:
    found = carriers.find(fd)
    assert isinstance(found, DmaBuf)
    return found


def test_implicit_fences_go_in_and_out(program: User, dma_buf: int) -> None:
    signalled = program.do(dma_buf, "DMA_BUF_IOCTL_EXPORT_SYNC_FILE", flags=3)["fd"]
    assert is_readable(signalled)
    reads, writes = make(), make()
    for fence, flags in ((reads, 1), (writes, 2)):
        fd = export_sync_file(fence)
        program.do(dma_buf, "DMA_BUF_IOCTL_IMPORT_SYNC_FILE", flags=flags, fd=fd)
        os.close(fd)
    resv = content_of(dma_buf).resv
    assert resv.fences(Usage.WRITE) == [writes]
    assert resv.fences(Usage.READ) == [reads, writes]
    for_reading = program.do(dma_buf, "DMA_BUF_IOCTL_EXPORT_SYNC_FILE", flags=1)["fd"]
    for_writing = program.do(dma_buf, "DMA_BUF_IOCTL_EXPORT_SYNC_FILE", flags=2)["fd"]
    writes.signal()
    assert (is_readable(for_reading), is_readable(for_writing)) == (True, False)
    reads.signal()
    assert is_readable(for_writing)
    for fd in (signalled, for_reading, for_writing):
        os.close(fd)


def test_the_cpu_waits_for_engines(program: User, dma_buf: int) -> None:
    resv = content_of(dma_buf).resv
    fence = make()
    with resv:
        resv.reserve_fences(1)
        resv.add_fence(fence, Usage.READ)
    program.do(dma_buf, "DMA_BUF_IOCTL_SYNC", flags=1)
    program.do(dma_buf, "DMA_BUF_IOCTL_SYNC", flags=1 | 4)
    task.current().interrupt()
    assert program.call(dma_buf, "DMA_BUF_IOCTL_SYNC", flags=2) == -errno.EINTR
    waiting = task.start("signals", fence.signal)
    program.do(dma_buf, "DMA_BUF_IOCTL_SYNC", flags=3)
    assert fence.signalled
    waiting.join()


@pytest.mark.parametrize("flags", [0, 4, 8, 1 << 63, 9])
def test_accesses_that_are_none(program: User, dma_buf: int, flags: int) -> None:
    assert program.call(dma_buf, "DMA_BUF_IOCTL_SYNC", flags=flags) == -errno.EINVAL
    for name in ("DMA_BUF_IOCTL_EXPORT_SYNC_FILE", "DMA_BUF_IOCTL_IMPORT_SYNC_FILE"):
        assert program.call(dma_buf, name, flags=flags & 0xFFFFFFFF, fd=-1) == -errno.EINVAL
    assert program.call(dma_buf, "DMA_BUF_IOCTL_IMPORT_SYNC_FILE", flags=1, fd=dma_buf) == -errno.EINVAL


@pytest.mark.parametrize("name", ["DMA_BUF_SET_NAME_A", "DMA_BUF_SET_NAME_B"])
def test_names(program: User, dma_buf: int, name: str) -> None:
    request = CALLS[name].request
    end = 3 * PAGE
    program.pages.protect(2, 3)
    program.pages.map[end - 40 : end] = b"a" * 39 + b"\0"
    program.pages.protect(2, 1)
    assert program.raw(dma_buf, request, program.pages.addr + end - 32) == 0
    assert program.raw(dma_buf, request, program.pages.addr + end - 1) == 0
    assert program.raw(dma_buf, request, program.pages.addr + end - 33) == -errno.EINVAL
    assert program.raw(dma_buf, request, program.pages.addr + end) == -errno.EFAULT


# -- the table


def contents() -> list[object]:
    obj = SyncFile(make())
    return [obj, SwSync("test"), SyncObj(), "what is no file"]


@pytest.mark.parametrize("request_", [0, 0xC0306400, 0xC0303E83, 0xFFFFFFFF, 0x40046201])
def test_other_calls_are_unknown(request_: int) -> None:
    for content in contents():
        with pytest.raises(UnknownCall, match=f"{request_:#x}"):
            file_ioctl(content, request_, 0, Caller.own())


@pytest.mark.parametrize("call", CALLS.values(), ids=lambda call: call.name)
def test_a_structure_that_cannot_be_read(program: User, call: FileCall, dma_buf: int) -> None:
    for kind, by_request in calls.CALLS.items():
        content = {SyncFile: SyncFile(make()), SwSync: SwSync("test"), DmaBuf: content_of(dma_buf)}[kind]
        if call.request not in by_request:
            continue
        for arg in (0, program.pages.addr + 3 * PAGE, (1 << 64) - 4, 1 << 47):
            with pytest.raises(BadAddress):
                file_ioctl(content, call.request, arg, Caller.own())
