"""`ObjectFile`: parts handed out and taken back, always all zeros, late to meet another object."""

from __future__ import annotations

import mmap
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuvm.errors import CheckFailed, InvalidArgument, NoSpace, OutOfMemory
from gpuvm.mem import faults
from gpuvm.mem.object_file import SIZE, ObjectFile
from gpuvm.mem.sparse_file import data_parts
from memories import PAGE

PAGES = 16


def small(pages: int = PAGES) -> ObjectFile:
    return ObjectFile("small", pages * PAGE)


def test_a_part_is_a_part_of_the_file_and_of_the_view() -> None:
    file = ObjectFile()
    assert file.size == SIZE == os.fstat(file.fd).st_size
    offset = file.allocate(3 * PAGE)
    assert offset % PAGE == 0
    assert not file.view[offset : offset + 3 * PAGE].any()
    os.pwrite(file.fd, b"abc", offset + 7)
    assert bytes(file.view[offset + 7 : offset + 10]) == b"abc"
    with mmap.mmap(file.fd, 3 * PAGE, offset=offset) as client:
        client[8] = ord("x")
    assert file.view[offset + 8] == ord("x")
    file.check()


def test_the_memory_of_a_part_is_given_back() -> None:
    file = small()
    offset = file.allocate(4 * PAGE)
    file.view[offset : offset + 4 * PAGE] = 1
    numbers = file.statistics()
    assert (numbers.objects, numbers.used, numbers.allocated) == (1, 4 * PAGE, 4 * PAGE)
    file.free(offset, 4 * PAGE)
    numbers = file.statistics()
    assert (numbers.objects, numbers.used, numbers.allocated) == (0, 0, 0)


def test_space_is_used_again_as_late_as_possible() -> None:
    file = small()
    first = file.allocate(4 * PAGE)
    file.free(first, 4 * PAGE)
    offsets = [file.allocate(4 * PAGE) for _ in range(4)]
    assert offsets == [4 * PAGE, 8 * PAGE, 12 * PAGE, 0]
    file.free(offsets[0], 4 * PAGE)
    file.free(offsets[2], 4 * PAGE)
    assert [file.allocate(2 * PAGE) for _ in range(4)] == [4 * PAGE, 6 * PAGE, 12 * PAGE, 14 * PAGE]


def test_who_forgot_to_unmap_sees_zeros_and_leaves_none_but_zeros() -> None:
    file = small(4)
    offset = file.allocate(4 * PAGE)
    with mmap.mmap(file.fd, 4 * PAGE, offset=offset) as forgotten:
        forgotten[0] = 1
        file.free(offset, 4 * PAGE)
        assert forgotten[0] == 0
        forgotten[PAGE] = 2
        again = file.allocate(4 * PAGE)
        assert again == offset
        assert not file.view[again : again + 4 * PAGE].any()


def test_what_is_mapped_stays_until_it_is_not() -> None:
    file = small()
    mapped: list[tuple[int, int]] = []
    file.mapped = lambda: mapped
    offsets = [file.allocate(2 * PAGE) for _ in range(6)]
    for offset in offsets:
        file.view[offset] = 1
        file.free(offset, 2 * PAGE)
    with pytest.raises(InvalidArgument, match="not handed out"):
        file.free(offsets[0], 2 * PAGE)
    assert (file.used, file.parts, file.statistics().freed) == (0, [], 12 * PAGE)
    mapped[:] = [(PAGE, 3 * PAGE), (6 * PAGE, 8 * PAGE), (11 * PAGE, 20 * PAGE)]
    file.collect()
    file.check()
    kept = [0, 2 * PAGE, 6 * PAGE, 10 * PAGE]
    assert [part[0] for part in data_parts(file.fd, 0, 16 * PAGE)] == kept
    assert [offset for offset in offsets if file.view[offset]] == kept
    assert file.allocate(2 * PAGE) == 12 * PAGE
    assert file.allocate(2 * PAGE) == 14 * PAGE
    assert file.allocate(2 * PAGE) == 4 * PAGE
    mapped.clear()
    file.collect()
    assert [offset for offset in offsets if file.view[offset]] == []
    assert file.statistics().freed == 0
    file.check()


def test_who_has_what_mapped_is_asked_now_and_then() -> None:
    file = ObjectFile()
    asked = 0

    def mapped() -> list[tuple[int, int]]:
        nonlocal asked
        asked += 1
        return []

    file.mapped = mapped
    for _ in range(3000):
        file.free(file.allocate(PAGE), PAGE)
    assert 1 <= asked <= 4
    file.free(file.allocate(1 << 30), 1 << 30)
    assert file.statistics().freed == 0
    file.check()


@pytest.mark.parametrize("size", [0, -PAGE, 1, PAGE + 1])
def test_parts_are_whole_pages(size: int) -> None:
    file = small()
    with pytest.raises(InvalidArgument, match="multiple"):
        file.allocate(size)
    file.check()


def test_a_file_that_is_full() -> None:
    file = small()
    offsets = [file.allocate(4 * PAGE) for _ in range(4)]
    with pytest.raises(NoSpace):
        file.allocate(PAGE)
    file.free(offsets[1], 4 * PAGE)
    with pytest.raises(NoSpace):
        file.allocate(5 * PAGE)
    assert file.allocate(4 * PAGE) == offsets[1]
    file.check()


def test_only_what_was_handed_out_is_taken_back() -> None:
    file = small()
    offset = file.allocate(4 * PAGE)
    file.view[offset] = 1
    for wrong in ((offset, PAGE), (offset + PAGE, PAGE), (8 * PAGE, PAGE), (offset, 5 * PAGE)):
        with pytest.raises(InvalidArgument, match="was not handed out"):
            file.free(*wrong)
    assert file.view[offset] == 1
    file.free(offset, 4 * PAGE)
    with pytest.raises(InvalidArgument, match="was not handed out"):
        file.free(offset, 4 * PAGE)


def test_faults() -> None:
    file = small()
    with faults.refuse_allocation(0), pytest.raises(OutOfMemory):
        file.allocate(PAGE)
    file.check()
    assert file.statistics().objects == 0
    assert file.allocate(PAGE) == 0


def test_check_finds_a_mapping_of_something_else() -> None:
    file = small()
    file.check()
    file._mapping.zero_pages(0, PAGE)
    with pytest.raises(CheckFailed, match="mapped"):
        file.check()


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 6), st.integers(0, 99)), max_size=40))
def test_parts_are_disjoint_and_zero(program: list[tuple[bool, int, int]]) -> None:
    file = small()
    parts: dict[int, int] = {}
    for allocate, pages, which in program:
        if allocate:
            free = set(range(PAGES)) - {
                page for first, count in parts.items() for page in range(first, first + count)
            }
            fits = any(free.issuperset(range(page, page + pages)) for page in range(PAGES))
            if not fits:
                with pytest.raises(NoSpace):
                    file.allocate(pages * PAGE)
                continue
            offset = file.allocate(pages * PAGE)
            first = offset // PAGE
            assert free.issuperset(range(first, first + pages))
            assert not list(data_parts(file.fd, offset, pages * PAGE))
            file.view[offset : offset + pages * PAGE] = 1 + which
            parts[first] = pages
        elif parts:
            first = sorted(parts)[which % len(parts)]
            file.free(first * PAGE, parts.pop(first) * PAGE)
        file.check()
    assert file.statistics().used == sum(parts.values()) * PAGE == file.statistics().allocated
