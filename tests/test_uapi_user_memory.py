"""UserMemory: pointers of a program, of this process and of another, and all that can be wrong with them."""

from __future__ import annotations

import ctypes
import mmap
import os
import random
import sys
import tracemalloc
from collections.abc import Iterator
from functools import partial

import pytest

from gpuvm.errors import BadAddress, OutOfMemory, TooMany
from gpuvm.nouveau.uapi.user_array import KMALLOC_MAX, UserArray
from gpuvm.nouveau.uapi.user_memory import LONGEST, UserMemory
from gpuvm.sync import task
from user_pages import PAGE, Pages, child

TASK_SIZE = 1 << 47
U64_END = 1 << 64
WINDOW = UserMemory.WINDOW


@pytest.fixture
def pages() -> Iterator[Pages]:
    pages = Pages(40)
    yield pages
    pages.close()


@pytest.fixture
def memory() -> UserMemory:
    return UserMemory.own()


def unmapped() -> int:
    """An address that was mapped, and is no more."""
    space = mmap.mmap(-1, PAGE)
    anchor = ctypes.c_char.from_buffer(space)
    addr = ctypes.addressof(anchor)
    del anchor
    space.close()
    return addr


@pytest.mark.parametrize("size", [1, 8, 40, PAGE - 1, PAGE, WINDOW - 1, WINDOW, WINDOW + 1, 30 * PAGE])
@pytest.mark.parametrize("offset", [0, 1, PAGE - 3])
def test_bytes_come_and_go(memory: UserMemory, pages: Pages, size: int, offset: int) -> None:
    data = random.Random(size).randbytes(size)
    memory.write(pages.addr + offset, data)
    assert pages.map[offset : offset + size] == data
    assert memory.read(pages.addr + offset, size) == data
    assert not any(pages.map[:offset])
    assert not any(pages.map[offset + size :])


def test_nothing_is_anywhere(memory: UserMemory) -> None:
    for addr in (0, 1, TASK_SIZE, U64_END - 1, U64_END):
        assert memory.read(addr, 0) == b""
        memory.write(addr, b"")
        assert memory.read_array(addr, 0, 40) == b""
        assert list(UserArray(memory, addr, 0, "I")) == []


@pytest.mark.parametrize("size", [1, 4, 40, PAGE, WINDOW, WINDOW + 1, 1 << 20])
@pytest.mark.parametrize(
    "addr", [0, 1, PAGE - 1, TASK_SIZE - 1, TASK_SIZE, 1 << 63, U64_END - PAGE, U64_END - 2, U64_END - 1]
)
def test_bad_addresses(memory: UserMemory, addr: int, size: int) -> None:
    with pytest.raises(BadAddress):
        memory.read(addr, size)
    with pytest.raises(BadAddress):
        memory.write(addr, bytes(size))


def test_what_is_not_mapped(memory: UserMemory) -> None:
    addr = unmapped()
    with pytest.raises(BadAddress):
        memory.read(addr, 1)
    with pytest.raises(BadAddress):
        memory.write(addr, b"x")


@pytest.mark.parametrize("page", [1, 3, 17, 33])
def test_a_range_that_is_there_in_part(memory: UserMemory, pages: Pages, page: int) -> None:
    pages.map[:] = b"a" * len(pages.map)
    pages.forbid(page)
    end = page * PAGE
    assert memory.read(pages.addr, end) == b"a" * end
    for size in (end + 1, end + PAGE + 1):
        with pytest.raises(BadAddress):
            memory.read(pages.addr, size)
        with pytest.raises(BadAddress):
            memory.write(pages.addr, b"b" * size)
    with pytest.raises(BadAddress):
        memory.read_array(pages.addr + 8, end // 8, 8)


def test_protections_hold(memory: UserMemory, pages: Pages) -> None:
    """Unlike by /proc/self/mem, which looks over them as a debugger may."""
    pages.map[:4] = b"same"
    pages.protect(0, mmap.PROT_READ)
    assert memory.read(pages.addr, 4) == b"same"
    with pytest.raises(BadAddress):
        memory.write(pages.addr, b"else")
    assert pages.map[:4] == b"same"
    pages.forbid(0)
    with pytest.raises(BadAddress):
        memory.read(pages.addr, 4)


def test_a_literal_in_read_only_memory(memory: UserMemory) -> None:
    """A program's constants are not written over."""
    libc = ctypes.CDLL(None)
    addr = ctypes.cast(libc.getpid, ctypes.c_void_p).value
    assert addr is not None
    before = memory.read(addr, 16)
    with pytest.raises(BadAddress):
        memory.write(addr, bytes(16))
    assert memory.read(addr, 16) == before


@pytest.mark.parametrize(
    ("count", "size", "error"),
    [
        (LONGEST // 40 + 1, 40, OutOfMemory),
        (1 << 32, 40, OutOfMemory),
        ((1 << 32) - 1, (1 << 32) - 1, OutOfMemory),
        (1 << 32, 1 << 32, TooMany),
        (1 << 63, 2, TooMany),
        (LONGEST // 40, 40, BadAddress),
        (1 << 20, 40, BadAddress),
    ],
)
def test_arrays_too_long(
    memory: UserMemory, pages: Pages, count: int, size: int, error: type[Exception]
) -> None:
    pages.forbid(39)
    with pytest.raises(error):
        memory.read_array(pages.addr, count, size)


def test_an_array_that_nobody_has_takes_no_memory(memory: UserMemory, pages: Pages) -> None:
    """What is read before the first hole is all that is taken."""
    pages.forbid(39)
    tracemalloc.start()
    try:
        with pytest.raises(BadAddress):
            memory.read_array(pages.addr, LONGEST, 1)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_an_array_is_copied_once(memory: UserMemory) -> None:
    numbers = (ctypes.c_uint32 * 4)(3, 1, 4, 1)
    array = UserArray(memory, ctypes.addressof(numbers), 4, "I")
    assert len(array) == 4
    numbers[1] = 9
    assert list(array) == [3, 9, 4, 1]
    numbers[1] = 5
    assert list(array) == [3, 9, 4, 1]
    assert (array[1], array[1:3], 4 in array, array.index(4)) == (9, [9, 4], True, 2)


def test_an_array_is_not_looked_at_before_its_items(memory: UserMemory) -> None:
    array = UserArray(memory, 0, 4, "Q")
    assert len(array) == 4
    assert array
    for _ in range(2):
        with pytest.raises(BadAddress):
            list(array)
    most = KMALLOC_MAX // 8
    with pytest.raises(BadAddress):
        UserArray(memory, 0, most, "Q")[0]
    with pytest.raises(OutOfMemory):
        UserArray(memory, 0, most + 1, "Q")[0]


def test_another_process(pages: Pages) -> None:
    pages.map[:6] = b"parent"

    def prepare() -> None:
        pages.map[:6] = b"child!"
        pages.protect(1, mmap.PROT_READ)
        pages.forbid(2)

    with child(prepare) as pid:
        memory = UserMemory(pid)
        assert memory.read(pages.addr, 6) == b"child!"
        assert UserMemory.own().read(pages.addr, 6) == b"parent"
        memory.write(pages.addr, b"tamper")
        assert memory.read(pages.addr, 6) == b"tamper"
        assert pages.map[:6] == b"parent"
        for page in (1, 2):
            with pytest.raises(BadAddress):
                memory.write(pages.addr + page * PAGE, b"x")
        with pytest.raises(BadAddress):
            memory.read(pages.addr, 3 * PAGE)
    with pytest.raises(BadAddress, match=f"process {pid}"):
        memory.read(pages.addr, 6)


def test_a_child_means_itself_by_own(pages: Pages) -> None:
    pages.map[:1] = b"p"
    UserMemory.own().read(pages.addr, 1)

    def look() -> None:
        pages.map[:1] = b"c"
        assert UserMemory.own().pid == os.getpid()
        assert UserMemory.own().read(pages.addr, 1) == b"c"

    with child(look):
        assert UserMemory.own().pid == os.getpid()


def test_threads_do_not_get_each_others_bytes(memory: UserMemory, pages: Pages) -> None:
    """Threads change over as often as they can, in the middle of calls too."""
    interval = sys.getswitchinterval()
    wrong: list[bytes] = []

    def read(number: int) -> None:
        own = bytes([number]) * (number * 40)
        addr = pages.addr + number * PAGE
        for _ in range(100):
            memory.write(addr, own)
            if memory.read(addr, len(own)) != own:
                wrong.append(own)

    sys.setswitchinterval(1e-6)
    try:
        threads = [task.start(f"reader {number}", partial(read, number)) for number in range(1, 5)]
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert wrong == []
