"""`Mapping` and `MapRoom`: pages exchanged, against what the kernel says, and the limit on maps."""

from __future__ import annotations

import errno
import gc
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuvm.errors import BadFile, InvalidArgument, OutOfMemory
from gpuvm.mem import faults
from gpuvm.mem.map_count import MapCount, MapRoom, map_count
from gpuvm.mem.remapping import NO_FILE, Mapping
from kernel_maps import expected, kernel_maps
from memories import PAGE, few_maps, first_bytes, numbered_file

PAGES = 12


def assert_as_the_kernel_has_it(mapping: Mapping) -> None:
    assert expected(mapping.address, mapping.runs) == kernel_maps(mapping.address, mapping.size)


def accessible(view: np.ndarray[Any, Any]) -> bool:
    """Whether the kernel can read there: where we would get SIGSEGV it gets an error."""
    reading, writing = os.pipe()
    try:
        os.write(writing, view[:1].data)
    except OSError as error:
        if error.errno != errno.EFAULT:
            raise
        return False
    finally:
        os.close(reading)
        os.close(writing)
    return True


def writable(view: np.ndarray[Any, Any]) -> bool:
    """Whether the kernel can write there."""
    reading, writing = os.pipe()
    os.write(writing, b"w")
    try:
        os.readv(reading, [view[:1].data])
    except OSError as error:
        if error.errno != errno.EFAULT:
            raise
        return False
    finally:
        os.close(reading)
        os.close(writing)
    return True


def test_pages_of_files_zeros_and_nothing() -> None:
    file = numbered_file(4, 7)
    mapping = Mapping(4 * PAGE)
    view = mapping.view
    assert view.shape == (4 * PAGE,)
    assert not any(accessible(view[page * PAGE :]) for page in range(4))
    mapping.replace_pages(0, 2 * PAGE, file.fd, 2 * PAGE)
    mapping.replace_pages(2 * PAGE, PAGE, file.fd, 0, writable=False)
    mapping.zero_pages(3 * PAGE, PAGE)
    assert first_bytes(view) == [(7, 2), (7, 3), (7, 0), (0, 0)]
    assert [writable(view[page * PAGE :]) for page in range(4)] == [True, True, False, False]
    mapping.forbid_access(PAGE, PAGE)
    assert [accessible(view[page * PAGE :]) for page in range(4)] == [True, False, True, True]
    mapping.check()
    numbers = mapping.statistics()
    assert (numbers.size, numbers.maps, numbers.accessible) == (4 * PAGE, 4, 3 * PAGE)


def test_what_is_written_is_in_the_file() -> None:
    file = numbered_file(1, 1)
    mapping = Mapping(PAGE)
    mapping.replace_pages(0, PAGE, file.fd, 0)
    mapping.view[5] = 99
    assert os.pread(file.fd, 1, 5) == b"\x63"
    os.pwrite(file.fd, b"\x64", 5)
    assert mapping.view[5] == 100


def test_neighbours_that_continue_each_other_are_one_map() -> None:
    file = numbered_file(PAGES, 1)
    mapping = Mapping(PAGES * PAGE)
    before = map_count.used
    for page in (3, 1, 2, 0):
        mapping.replace_pages(page * PAGE, PAGE, file.fd, page * PAGE)
    assert [(run.addr, run.range) for run in mapping.runs] == [(0, 4 * PAGE), (4 * PAGE, 8 * PAGE)]
    assert_as_the_kernel_has_it(mapping)
    assert map_count.used == before + 1


exchanges = st.lists(
    st.tuples(
        st.integers(0, PAGES - 1),
        st.integers(1, PAGES),
        st.sampled_from(["first", "second", "read-only", "zero", "forbid"]),
        st.integers(0, PAGES - 1),
    ),
    max_size=25,
)


@given(exchanges)
def test_against_each_page_and_the_kernel(program: list[tuple[int, int, str, int]]) -> None:
    files = {"first": numbered_file(2 * PAGES, 1), "second": numbered_file(2 * PAGES, 2)}
    files["read-only"] = files["first"]
    mapping = Mapping(PAGES * PAGE)
    pages: list[tuple[int, int] | None] = [None] * PAGES
    for page, count, what, offset in program:
        count = min(count, PAGES - page)
        addr, range_ = page * PAGE, count * PAGE
        if what == "zero":
            mapping.zero_pages(addr, range_)
            pages[page : page + count] = [(0, 0)] * count
        elif what == "forbid":
            mapping.forbid_access(addr, range_)
            pages[page : page + count] = [None] * count
        else:
            mapping.replace_pages(addr, range_, files[what].fd, offset * PAGE, writable=what != "read-only")
            tag = 2 if what == "second" else 1
            pages[page : page + count] = [(tag, offset + each) for each in range(count)]
        mapping.check()
    assert_as_the_kernel_has_it(mapping)
    for number, content in enumerate(pages):
        page_view = mapping.view[number * PAGE : (number + 1) * PAGE]
        assert accessible(page_view) == (content is not None)
        if content is not None:
            assert first_bytes(page_view) == [content]


def test_the_addresses_are_kept_while_anybody_has_a_view() -> None:
    gc.collect()  # what other tests left
    before = map_count.used
    mapping = Mapping(PAGE)
    mapping.zero_pages(0, PAGE)
    part = mapping.view[100:200].data
    del mapping
    gc.collect()
    assert map_count.used == before + 1
    assert part[99] == 0
    del part
    assert map_count.used == before


@pytest.mark.parametrize(
    ("addr", "range_", "offset"),
    [
        *[(0, 0, 0), (0, -PAGE, 0), (-PAGE, PAGE, 0), (4 * PAGE, PAGE, 0), (0, 5 * PAGE, 0), (1, PAGE, 0)],
        *[(0, 1, 0), (0, PAGE, 1), (0, PAGE, -PAGE), (0, 1 << 64, 0), (1 << 64, PAGE, 0)],
    ],
)
def test_pages_outside_or_in_part_are_refused(addr: int, range_: int, offset: int) -> None:
    file = numbered_file(1, 1)
    mapping = Mapping(4 * PAGE)
    with pytest.raises(InvalidArgument, match=f"{addr:#x}"):
        mapping.replace_pages(addr, range_, file.fd, offset)
    assert len(mapping.runs) == 1
    mapping.check()


@pytest.mark.parametrize("size", [0, -PAGE, 1, PAGE + 1])
def test_a_mapping_is_whole_pages(size: int) -> None:
    with pytest.raises(InvalidArgument, match="multiple"):
        Mapping(size)


def test_a_file_that_cannot_be_mapped_is_refused() -> None:
    mapping = Mapping(4 * PAGE)
    before = map_count.used
    reading, writing = os.pipe()
    with open("/proc/self/exe", "rb") as read_only:
        for fd in (reading, 10**6, read_only.fileno()):
            with pytest.raises(BadFile, match=f"file {fd}"):
                mapping.replace_pages(PAGE, PAGE, fd, 0)
    os.close(reading)
    os.close(writing)
    assert (len(mapping.runs), map_count.used) == (1, before)
    assert_as_the_kernel_has_it(mapping)


def test_too_many_maps_are_refused_before_anything_changes() -> None:
    file = numbered_file(4, 1)
    mapping = Mapping(4 * PAGE)
    with few_maps(1):
        with pytest.raises(OutOfMemory, match=r"sysctl -w vm.max_map_count=\d+") as caught:
            mapping.replace_pages(PAGE, PAGE, file.fd, 0)
        assert caught.value.bound == map_count.limit
        assert_as_the_kernel_has_it(mapping)
        mapping.replace_pages(0, PAGE, file.fd, 0)
        with pytest.raises(OutOfMemory):
            mapping.zero_pages(2 * PAGE, PAGE)
        with pytest.raises(OutOfMemory):
            Mapping(PAGE)
        mapping.forbid_access(0, PAGE)
        mapping.zero_pages(3 * PAGE, PAGE)
    mapping.check()


def test_a_room_is_for_exchanges_that_may_not_fail() -> None:
    file = numbered_file(PAGES, 1)
    mapping = Mapping(PAGES * PAGE)
    with few_maps(6):
        room = MapRoom(4)
        mapping.zero_pages(0, PAGE)
        with pytest.raises(OutOfMemory):
            mapping.zero_pages(2 * PAGE, PAGE)
        for _ in range(3):
            for page in (2, 4):
                mapping.replace_pages(page * PAGE, PAGE, file.fd, 0, room=room)
            assert room.left == 0
            for page in (2, 4):
                mapping.forbid_access(page * PAGE, PAGE, room=room)
            assert room.left == 4
        with pytest.raises(OutOfMemory):
            room.grow(2)
        room.grow(1)
        room.shrink(100)
        assert (room.left, map_count.used) == (0, map_count.limit - 5)
        room.grow(5)
        del room
        assert map_count.used == map_count.limit - 5


def test_the_machines_limit_is_read() -> None:
    limit = int(Path("/proc/sys/vm/max_map_count").read_text())
    assert limit - 8192 < map_count.limit < limit
    assert MapCount(5).used == 0


def test_faults_at_every_map() -> None:
    file = numbered_file(4, 1)

    def exchange(mappings: list[Mapping]) -> None:
        mappings.append(Mapping(4 * PAGE))
        mappings[0].replace_pages(PAGE, PAGE, file.fd, 0)
        room = MapRoom(2)
        mappings[0].replace_pages(3 * PAGE, PAGE, file.fd, 0, room=room)

    with faults.count_allocations() as allocations:
        exchange([])
    assert len(allocations) == 3
    gc.collect()  # what other tests left
    for number in range(3):
        before = map_count.used
        mappings: list[Mapping] = []
        with faults.refuse_allocation(number), pytest.raises(OutOfMemory):
            exchange(mappings)
        while mappings:
            mappings[0].check()
            assert_as_the_kernel_has_it(mappings[0])
            mappings.clear()
        assert map_count.used == before


def test_addresses_that_the_process_may_not_have() -> None:
    program = """
import resource
from gpuvm.errors import OutOfMemory
from gpuvm.mem.map_count import map_count
from gpuvm.mem.object_file import ObjectFile
resource.setrlimit(resource.RLIMIT_AS, (1 << 33, 1 << 33))
try:
    ObjectFile()
except OutOfMemory as error:
    assert map_count.used == 0
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "ulimit -v" in done.stdout
    assert not done.stderr


def test_a_run_says_where_it_is() -> None:
    mapping = Mapping(2 * PAGE)
    mapping.zero_pages(PAGE, PAGE)
    assert [run.fd for run in mapping.runs] == [NO_FILE, NO_FILE]
    assert [run.end for run in mapping.runs] == [PAGE, 2 * PAGE]
    assert repr(mapping).startswith("<Mapping 0x2000 bytes at 0x")
