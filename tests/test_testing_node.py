"""The node for Python code: the calls of a program, by real descriptors, without a program."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import select
import subprocess
import sys
from array import array
from collections.abc import Iterator

import pytest

from gpuvm.errors import BadFile, CheckFailed, InvalidArgument, NotFound
from gpuvm.nouveau import Client
from gpuvm.nouveau.uapi import numbers
from gpuvm.nouveau.uapi.file_calls import SW_SYNC_CREATE_FENCE, SW_SYNC_INC
from gpuvm.nouveau.uapi.layout import Layout
from gpuvm.nouveau.uapi.numbers import Ioctl
from gpuvm.sync.descriptor import carriers
from gpuvm.testing import Node
from uapi_program import fields_of, filled, no_descriptor_left

PAGE = 0x1000
MAPPABLE = 2 | 8


@pytest.fixture
def node() -> Iterator[Node]:
    with Node(vram=16 << 20, gart=16 << 20) as node:
        yield node
        node.check()


def call(node: Node, file: int, ioctl: Ioctl, /, **fields: int) -> dict[str, int]:
    assert isinstance(ioctl.layout, Layout)
    data = filled(ioctl.layout, **fields)
    assert node.ioctl(file, ioctl.request, data) == 0
    return fields_of(ioctl.layout, data)


def test_objects_are_mapped_by_the_kernel(node: Node) -> None:
    fd = node.open()
    info = call(node, fd, numbers.GEM_NEW, size=PAGE, domain=MAPPABLE)
    with mmap.mmap(fd, PAGE, offset=info["map_handle"]) as map:
        map[:5] = b"bytes"
        (client,) = node.device.clients
        assert bytes(client.view(info["handle"])[:5]) == b"bytes"
    node.close(fd)
    assert not node.device.clients


def test_a_structure_that_is_too_short_is_refused(node: Node) -> None:
    """What lies behind it is somebody else's."""
    fd = node.open()
    asked = array("Q", [4])
    with pytest.raises(InvalidArgument, match="8 bytes for a structure that request 0xc0106440 gives 16"):
        node.ioctl(fd, numbers.GETPARAM.request, asked)
    assert asked[0] == 4


def test_two_that_close_the_same_open_close_it_once(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one closes its descriptor while the first one is about to."""
    first = node.open()
    second = node.dup(first)
    closes: list[None] = []
    close, close_client = os.close, Client.close
    monkeypatch.setattr(Client, "close", lambda self: closes.append(close_client(self)))

    def both(fd: int) -> None:
        if fd == first:
            node.close(second)
        close(fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "close", both)
        node.close(first)
    assert closes == [None]
    assert not node.device.clients


def test_structures_of_all_kinds(node: Node) -> None:
    fd = node.open("/dev/dri/card0")
    asked = array("Q", [4, 0])
    node.ioctl(fd, numbers.GETPARAM.request, asked)
    assert asked[1] == 0x1E04

    class GetParam(ctypes.Structure):
        _fields_ = (("param", ctypes.c_uint64), ("value", ctypes.c_uint64))

    structure = GetParam(4, 0)
    node.ioctl(fd, numbers.GETPARAM.request, structure)
    assert structure.value == 0x1E04
    structure.value = 0
    node.ioctl(fd, numbers.GETPARAM.request, ctypes.addressof(structure))
    assert structure.value == 0x1E04
    with pytest.raises(TypeError):
        node.ioctl(fd, numbers.GETPARAM.request, b"\4" + bytes(15))  # type: ignore[arg-type]


def test_errors_say_what_was_wrong(node: Node) -> None:
    fd = node.open()
    with pytest.raises(OSError, match="no handle 77") as raised:
        call(node, fd, numbers.GEM_INFO, handle=77)
    assert raised.value.errno == errno.ENOENT
    with pytest.raises(OSError, match="0x7") as raised:
        node.ioctl(fd, numbers.GETPARAM.request, 7)
    assert raised.value.errno == errno.EFAULT
    with pytest.raises(BadFile, match="1048576"):
        node.ioctl(1 << 20, numbers.GETPARAM.request, bytearray(16))
    with pytest.raises(NotFound, match="renderD129"):
        node.open("/dev/dri/renderD129")


def test_copies_are_the_same_open(node: Node) -> None:
    fd = node.open()
    copy, other = node.dup(fd), node.open()
    handle = call(node, fd, numbers.SYNCOBJ_CREATE)["handle"]
    node.close(fd)
    call(node, copy, numbers.SYNCOBJ_DESTROY, handle=handle)
    assert (node.statistics().open, node.statistics().clients) == (2, 2)
    with pytest.raises(OSError, match="syncobj"):
        call(node, other, numbers.SYNCOBJ_DESTROY, handle=handle)
    for nobodys in (fd, 0):
        for method in (node.close, node.dup):
            with pytest.raises(BadFile, match=str(nobodys)):
                method(nobodys)


def test_files_that_name_objects(node: Node) -> None:
    fd, timeline = node.open(), node.open("/sys/kernel/debug/sync/sw_sync")
    made = filled(SW_SYNC_CREATE_FENCE, value=1)
    node.ioctl(timeline, 0xC0285700, made)
    fence = fields_of(SW_SYNC_CREATE_FENCE, made)["fence"]
    handle = call(node, fd, numbers.SYNCOBJ_CREATE)["handle"]
    call(node, fd, numbers.SYNCOBJ_FD_TO_HANDLE, handle=handle, flags=1, fd=fence)
    assert not select.select([fence], [], [], 0)[0]
    node.ioctl(timeline, 0x40045701, filled(SW_SYNC_INC, value=1))
    assert select.select([fence], [], [], 0)[0]
    with pytest.raises(OSError, match="no such call"):
        node.ioctl(fence, 0x40045701, filled(SW_SYNC_INC, value=1))
    info = call(node, fd, numbers.GEM_NEW, size=PAGE, domain=MAPPABLE)
    dma_buf = call(node, fd, numbers.PRIME_HANDLE_TO_FD, handle=info["handle"])["fd"]
    other = node.open()
    assert call(node, other, numbers.PRIME_FD_TO_HANDLE, fd=dma_buf)["handle"] == 1
    for one in (fence, timeline, dma_buf):
        os.close(one)
    carriers.collect()


def test_without_descriptors_nothing_is_opened(node: Node) -> None:
    with no_descriptor_left(), pytest.raises(OSError, match="open files"):
        node.open()
    assert not node.device.clients


def test_check_finds_a_client_that_nobody_has(node: Node) -> None:
    client = node.device.open()
    with pytest.raises(CheckFailed):
        node.check()
    client.close()


def test_an_exception_closes_all_the_same() -> None:
    node = Node(vram=1 << 20, gart=1 << 20)
    fd = node.open()

    def fail() -> None:
        with node:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not node.device.clients
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)


def test_pointers_lead_into_this_process(node: Node) -> None:
    fd = node.open()
    name = ctypes.create_string_buffer(16)
    answer = call(node, fd, numbers.VERSION, name_len=16, name=ctypes.addressof(name))
    assert (name.value, answer["name_len"]) == (b"nouveau", 7)


def test_the_driver_is_not_imported_for_others() -> None:
    program = "import sys, gpuvm.testing; print('gpuvm.nouveau' in sys.modules); gpuvm.testing.Node"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"
