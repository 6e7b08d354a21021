"""`Memory`: wiring and unwiring, what stays behind, what lies where; against each page."""

from __future__ import annotations

import errno
import gc
import os
import threading
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuvm.errors import BadFile, CheckFailed, InvalidArgument, OutOfMemory
from gpuvm.mem import Aperture, faults, sparse_file
from gpuvm.mem.map_count import map_count
from gpuvm.mem.memory import Memory, Piece, Wired
from gpuvm.mem.sparse_file import SparseFile
from memories import PAGE, few_maps, first_bytes, numbered_file
from suite import scaled

PAGES = 10


def memory(pages: int = PAGES) -> Memory:
    return Memory(Aperture.VRAM, pages * PAGE, "test vram")


def bytes_of(file: SparseFile, page: int, count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.frombuffer(os.pread(file.fd, count * PAGE, page * PAGE), np.uint8)


def test_a_physical_address_leads_to_the_objects_bytes() -> None:
    vram, file = memory(), numbered_file(4, 7)
    vram.wire(2 * PAGE, 2 * PAGE, file.fd, PAGE)
    assert first_bytes(vram.view[2 * PAGE : 4 * PAGE]) == [(7, 1), (7, 2)]
    vram.view[2 * PAGE] = 99
    assert os.pread(file.fd, 1, PAGE) == b"\x63"
    assert vram.wired == (Wired(2 * PAGE, 2 * PAGE, file.fd, PAGE),)
    vram.check()
    numbers = vram.statistics()
    assert (numbers.aperture, numbers.size, numbers.wired, numbers.extents) == (0, PAGES * PAGE, 2 * PAGE, 1)
    assert (numbers.own, numbers.maps) == (0, 3)
    assert repr(vram) == "<Memory VRAM 0xa000>"


def test_without_a_copy_nothing_stays_behind() -> None:
    vram, file = memory(), numbered_file(4, 7)
    vram.wire(0, 4 * PAGE, file.fd, 0)
    vram.unwire(0, 4 * PAGE)
    assert vram.statistics().own == 0
    assert not vram.view.any()
    assert first_bytes(bytes_of(file, 0, 4)) == [(7, 0), (7, 1), (7, 2), (7, 3)]


def test_a_copy_stays_behind_and_late_writes_are_lost() -> None:
    vram, file = memory(), numbered_file(4, 7)
    vram.wire(PAGE, 4 * PAGE, file.fd, 0)
    vram.unwire(PAGE, 4 * PAGE, leave=bytes_of(file, 0, 4))
    assert vram.statistics().own == 4 * PAGE
    assert first_bytes(vram.view)[1:5] == [(7, 0), (7, 1), (7, 2), (7, 3)]
    vram.view[PAGE] = 55
    assert os.pread(file.fd, 1, 0) == b"\x07"
    vram.check()


def test_what_was_never_written_is_not_copied() -> None:
    vram, file = memory(), SparseFile("sparse", 8 * PAGE)
    os.pwrite(file.fd, b"a", 2 * PAGE)
    os.pwrite(file.fd, b"b", 5 * PAGE + 9)
    vram.wire(0, 7 * PAGE, file.fd, PAGE)
    vram.unwire(0, 7 * PAGE, leave=bytes_of(file, 1, 7))
    assert vram.statistics().own == 2 * PAGE
    assert vram.view[PAGE] == ord("a")
    assert vram.view[4 * PAGE + 9] == ord("b")


def test_residue_is_gone_when_something_else_was_there() -> None:
    vram, file = memory(), numbered_file(4, 7)
    vram.view[:] = 1
    assert vram.statistics().own == PAGES * PAGE
    vram.wire(2 * PAGE, 4 * PAGE, file.fd, 0)
    assert vram.statistics().own == (PAGES - 4) * PAGE
    vram.unwire(2 * PAGE, 4 * PAGE)
    assert sorted({int(byte) for byte in vram.view[:: PAGE // 2]}) == [0, 1]
    assert not vram.view[2 * PAGE : 6 * PAGE].any()


def test_what_lies_behind_a_range() -> None:
    vram, file = memory(), numbered_file(8, 7)
    vram.wire(2 * PAGE, 2 * PAGE, file.fd, PAGE)
    vram.wire(4 * PAGE, PAGE, file.fd, 7 * PAGE)
    own, other = vram.fd, file.fd
    assert vram.backing(0, PAGES * PAGE) == [
        Piece(own, 0, 2 * PAGE),
        Piece(other, PAGE, 2 * PAGE),
        Piece(other, 7 * PAGE, PAGE),
        Piece(own, 5 * PAGE, 5 * PAGE),
    ]
    assert vram.backing(3 * PAGE, PAGE) == [Piece(other, 2 * PAGE, PAGE)]
    assert vram.backing(3 * PAGE, 2 * PAGE) == [Piece(other, 2 * PAGE, PAGE), Piece(other, 7 * PAGE, PAGE)]
    assert vram.backing(6 * PAGE, PAGE) == [Piece(own, 6 * PAGE, PAGE)]


@pytest.mark.parametrize(
    ("addr", "range_"),
    [(0, 0), (0, -PAGE), (-PAGE, PAGE), (PAGES * PAGE, PAGE), (0, (PAGES + 1) * PAGE), (1, PAGE), (0, 7)],
)
def test_bad_ranges(addr: int, range_: int) -> None:
    vram, file = memory(), numbered_file(4, 7)
    with pytest.raises(InvalidArgument, match=f"wire.*{addr:#x}"):
        vram.wire(addr, range_, file.fd, 0)
    with pytest.raises(InvalidArgument, match=f"backing.*{addr:#x}"):
        vram.backing(addr, range_)
    vram.check()
    assert not vram.wired


def test_what_is_wired_is_not_wired_again_and_is_unwired_as_a_whole() -> None:
    vram, file = memory(), numbered_file(8, 7)
    vram.wire(2 * PAGE, 3 * PAGE, file.fd, 0)
    for addr, count in ((0, 3), (2, 3), (3, 1), (4, 2), (0, 10)):
        with pytest.raises(InvalidArgument, match=r"overlaps \[0x2000, 0x5000\)"):
            vram.wire(addr * PAGE, count * PAGE, file.fd, 0)
    for addr, count in ((2, 2), (3, 2), (2, 4), (0, 3), (7, 1)):
        with pytest.raises(InvalidArgument, match="was not wired so"):
            vram.unwire(addr * PAGE, count * PAGE)
    with pytest.raises(InvalidArgument, match="to leave"):
        vram.unwire(2 * PAGE, 3 * PAGE, leave=np.zeros(PAGE, np.uint8))
    with pytest.raises(InvalidArgument):
        vram.wire(6 * PAGE, PAGE, file.fd, 1)
    vram.check()
    assert len(vram.wired) == 1


def test_a_view_outlives_the_memory() -> None:
    gc.collect()  # what other tests left behind
    before = map_count.used
    vram, file = memory(), numbered_file(4, 7)
    vram.wire(0, PAGE, file.fd, 0)
    part = vram.view[: 2 * PAGE].data
    del vram
    gc.collect()
    assert part[0] == 7
    part[0], part[PAGE] = 8, 9
    assert os.pread(file.fd, 1, 0) == b"\x08"
    del part
    assert map_count.used == before


def test_a_file_that_cannot_be_mapped() -> None:
    vram = memory()
    before = map_count.used
    with pytest.raises(BadFile, match="1000000"):
        vram.wire(PAGE, PAGE, 10**6, 0)
    vram.check()
    assert (vram.wired, map_count.used) == ((), before)


def test_too_many_maps_are_refused_and_unwiring_never_is() -> None:
    """Extents that continue each other are one map; unwiring one in the middle makes three of it."""
    vram, file = memory(), numbered_file(PAGES, 7)
    with few_maps(6):
        for page in range(5):
            vram.wire(page * PAGE, PAGE, file.fd, page * PAGE)
        with pytest.raises(OutOfMemory, match=r"vm\.max_map_count"):
            vram.wire(7 * PAGE, PAGE, file.fd, 0)
        vram.check()
        assert vram.statistics().maps == 6
        with few_maps(0):
            vram.unwire(PAGE, PAGE)
            vram.unwire(3 * PAGE, PAGE, leave=bytes_of(file, 3, 1))
            vram.check()
            for page in (4, 0, 2):
                vram.unwire(page * PAGE, PAGE)
        vram.check()
        assert vram.statistics().maps == 1


def test_faults_at_every_map() -> None:
    vram, file = memory(), numbered_file(4, 7)
    with faults.count_allocations() as allocations:
        vram.wire(PAGE, PAGE, file.fd, 0)
        vram.unwire(PAGE, PAGE)
    assert len(allocations) == 1
    with faults.refuse_allocation(0), pytest.raises(OutOfMemory, match="made to fail"):
        vram.wire(PAGE, PAGE, file.fd, 0)
    vram.check()
    vram.wire(PAGE, PAGE, file.fd, 0)
    vram.check()


def test_no_memory_for_the_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    vram, file = memory(), numbered_file(4, 7)
    vram.wire(0, 4 * PAGE, file.fd, 0)
    write = os.pwrite

    def full(fd: int, data: memoryview, offset: int) -> int:
        if offset >= 2 * PAGE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(fd, data[:PAGE], offset)

    monkeypatch.setattr("gpuvm.mem.memory.os.pwrite", full)
    with pytest.raises(OutOfMemory, match="No space left"):
        vram.unwire(0, 4 * PAGE, leave=bytes_of(file, 0, 4))
    vram.check()
    assert len(vram.wired) == 1
    assert vram.statistics().own == 0


def test_check_finds_own_pages_below_what_is_wired() -> None:
    vram, file = memory(), numbered_file(4, 7)
    vram.wire(PAGE, PAGE, file.fd, 0)
    os.pwrite(vram.fd, b"x", PAGE + 5)
    with pytest.raises(CheckFailed, match="own pages in use"):
        vram.check()


operations = st.lists(
    st.tuples(
        st.sampled_from(["wire", "wire", "unwire", "leave", "write"]),
        st.integers(0, PAGES - 1),
        st.integers(1, 4),
        st.integers(0, 1),
        st.integers(0, 2 * PAGES),
        st.integers(1, 255),
    ),
    max_size=30,
)


@given(operations)
def test_against_who_owns_each_page(program: list[tuple[str, int, int, int, int, int]]) -> None:
    """Model: a byte for each page of the memory and of two files, and which of them each page shows."""
    vram = memory()
    files = [SparseFile(f"file {each}", 3 * PAGES * PAGE) for each in range(2)]
    own = [0] * PAGES
    content = [[0] * (3 * PAGES) for _ in files]
    shown: dict[int, tuple[int, int]] = {}
    extents: dict[int, tuple[int, int, int]] = {}
    for what, page, count, which, offset, value in program:
        count = min(count, PAGES - page)
        pages = range(page, page + count)
        if what == "wire":
            if any(each in shown for each in pages):
                with pytest.raises(InvalidArgument):
                    vram.wire(page * PAGE, count * PAGE, files[which].fd, offset * PAGE)
                continue
            vram.wire(page * PAGE, count * PAGE, files[which].fd, offset * PAGE)
            extents[page] = count, which, offset
            for each in pages:
                shown[each] = which, offset + each - page
                own[each] = 0
        elif what in ("unwire", "leave") and extents:
            page = sorted(extents)[page % len(extents)]
            count, which, offset = extents.pop(page)
            leave = bytes_of(files[which], offset, count) if what == "leave" else None
            vram.unwire(page * PAGE, count * PAGE, leave=leave)
            for each in range(page, page + count):
                del shown[each]
                own[each] = content[which][offset + each - page] if what == "leave" else 0
        elif what == "write":
            vram.view[page * PAGE] = value
            if page in shown:
                content[shown[page][0]][shown[page][1]] = value
            else:
                own[page] = value
        vram.check()
        expected = [
            content[shown[each][0]][shown[each][1]] if each in shown else own[each] for each in range(PAGES)
        ]
        assert vram.view[::PAGE].tolist() == expected
    assert [tuple(wired)[:2] for wired in vram.wired] == [
        (page * PAGE, extents[page][0] * PAGE) for page in sorted(extents)
    ]
    assert sum(piece.range for piece in vram.backing(0, PAGES * PAGE)) == PAGES * PAGE


def test_threads_wire_and_unwire_at_the_same_time() -> None:
    """Each has pages of its own, and finds them as it left them."""
    threads, rounds, share = 4, scaled(100, 2_000), 8
    vram, file = memory(threads * share), SparseFile("shared", threads * share * PAGE)
    failures: list[BaseException] = []

    def work(number: int) -> None:
        random = Random(number)
        try:
            for step in range(rounds):
                page = number * share + random.randrange(share - 1)
                count = random.randrange(1, number * share + share - page + 1)
                vram.wire(page * PAGE, count * PAGE, file.fd, page * PAGE)
                vram.view[page * PAGE] = step % 256
                assert os.pread(file.fd, 1, page * PAGE)[0] == step % 256
                leave = bytes_of(file, page, count) if step % 2 else None
                vram.unwire(page * PAGE, count * PAGE, leave=leave)
                assert vram.view[page * PAGE] == (step % 256 if step % 2 else 0)
        except BaseException as failure:
            failures.append(failure)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures
    vram.check()
    assert vram.wired == ()


def test_a_sparse_file_tells_its_parts() -> None:
    file = SparseFile("parts", 10 * PAGE)
    assert list(file.data(0, 10 * PAGE)) == []
    for page in (1, 2, 5, 9):
        os.pwrite(file.fd, b"x", page * PAGE)
    assert list(file.data(0, 10 * PAGE)) == [(PAGE, 2 * PAGE), (5 * PAGE, PAGE), (9 * PAGE, PAGE)]
    assert list(file.data(2 * PAGE, 3 * PAGE)) == [(2 * PAGE, PAGE)]
    assert list(file.data(3 * PAGE, 2 * PAGE)) == []
    file.punch(0, 9 * PAGE)
    assert file.allocated == PAGE
    assert repr(file).startswith("<SparseFile")
    with pytest.raises(OSError, match="Bad file"):
        list(sparse_file.data_parts(10**6, 0, PAGE))
