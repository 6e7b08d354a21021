"""A caller's memory and descriptors: only while it waits for its answer, and only its own."""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
from pathlib import Path

import pytest

import caught_program
from gpuvm._core import DescriptorLinks
from gpuvm.device.process import CallMemory
from gpuvm.errors import BadAddress, Gone

CALL = """
import ctypes
bytes = ctypes.create_string_buffer(b"a program's bytes", 64)
ctypes.CDLL(None).ioctl(0, ctypes.c_ulong(0x6401), bytes)
print(bytes.value.decode())
"""


def test_memory_is_the_callers_while_it_waits_and_nobodys_after() -> None:
    child, listener = caught_program.start([sys.executable, "-c", CALL])
    call = listener.receive()
    assert call is not None
    memory, addr = CallMemory(call.pid, listener.fd, call.id), call.args[2]
    assert memory.read(addr, 9) == b"a program"
    assert memory.read_array(addr, 3, 3) == b"a program"
    memory.write(addr, b"THE")
    with pytest.raises(BadAddress):
        memory.read(8, 8)

    another = CallMemory(call.pid, listener.fd, call.id + 1)
    with pytest.raises(Gone, match=f"thread {call.pid} has ended"):
        another.read(addr, 1)
    with pytest.raises(Gone):
        another.read_array(addr, 1, 1)
    with pytest.raises(Gone):
        another.write(addr, b"nobody's")

    assert listener.answer(call.id, 0)
    assert child.communicate()[0] == b"THErogram's bytes\n"  # over "a p"
    with pytest.raises(Gone):
        memory.write(addr, b"too late")
    listener.close()


def test_what_descriptors_lead_to(tmp_path: Path) -> None:
    me, links = os.getpid(), DescriptorLinks()
    short, long, no_text = tmp_path / "f", tmp_path / ("f" * 64), tmp_path / os.fsdecode(b"\xff")
    with open(short, "w") as file, open(long, "w") as other, open(no_text, "w") as third:
        expected = str(short) if len(str(short)) < 64 else None
        assert links.find(me, file.fileno()) == expected
        assert links.find(me, other.fileno()) is None
        assert links.find(me, third.fileno()) is None
    with socket.socket() as made:
        inode = os.fstat(made.fileno()).st_ino
        assert links.find(me, made.fileno()) == f"socket:[{inode}]"
    assert links.find(me, 1000) is None
    assert links.find(me, 0xFFFFFFFF) is None


def test_without_a_descriptor_left_they_lead_as_far() -> None:
    links = DescriptorLinks()
    expected = os.readlink("/proc/self/fd/0")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        assert links.find(os.getpid(), 0) == expected
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_descriptors_of_the_gone_lead_nowhere() -> None:
    """Also by a directory that was opened while they were there."""
    links = DescriptorLinks()
    child = os.fork()
    if child == 0:
        signal.pause()
    assert links.find(child, 0) == os.readlink("/proc/self/fd/0")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert links.find(child, 0) is None
    assert links.find(-1, 0) is None
