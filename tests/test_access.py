"""Reading and writing by GPU addresses, through page tables and through the CPU's MMU."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuvm.errors import InvalidArgument, PageFault
from gpuvm.mem import Aperture, Extent
from gpuvm.mmu.access import AddressSpace
from gpuvm.mmu.backend import Backend
from gpuvm.mmu.formats.format import NO_FLAGS, PteFlags
from gpuvm.mmu.formats.gp100 import GP100
from gpuvm.mmu.host import HostBackend
from gpuvm.mmu.page_table import PageTable
from gpuvm.mmu.translation import Access, Fault, FaultType
from host_world import GART, K4, K64, M2, VRAM, stamp, stamped_memories
from table_memory import ArrayMemory

A, END = 4 * M2, 8 * M2


class Space:
    """From `A` on: four times 64 KiB of scattered pages, then two that are sparse, then a hole."""

    MAPPED, SPARSE = 4 * K64, 6 * K64

    def __init__(self, kind: str) -> None:
        self.memories = stamped_memories(M2)
        self.backend: Backend
        if kind == "host":
            self.backend = HostBackend(A, END - A, self.memories)
        else:
            self.backend = PageTable(GP100, ArrayMemory())
        self.engine = AddressSpace(self.backend, self.memories)
        self.backend.sparse(A, self.SPARSE, True)
        self.map(A, K64, 16, Extent(VRAM, 3 * K64, K64))
        for page in range(16):
            self.map(A + K64 + page * K4, K4, 12, Extent(GART, (15 - page) * K4, K4))
        self.map(A + 2 * K64, 2 * K64, 16, Extent(VRAM, 5 * K64, 2 * K64))

    def map(self, addr: int, range_: int, shift: int, target: Extent, flags: PteFlags = NO_FLAGS) -> None:
        self.backend.get(addr, range_, shift)
        self.backend.map(addr, range_, shift, target, 0, flags)


@pytest.fixture(params=["host", "gp100"])
def space(request: pytest.FixtureRequest) -> Iterator[Space]:
    space = Space(request.param)
    yield space
    space.backend.check()


WINDOWS = [
    (0, 8),
    (5, K64),
    (K64 - 3, 7),
    (K64 + K4 - 1, 2 * K4 + 2),
    (2 * K64 - 2, K64 + 4),
    (Space.MAPPED - 5, 10),
    (Space.MAPPED + 9, 100),
    (0, Space.SPARSE),
]
windows = pytest.mark.parametrize(("offset", "range_"), WINDOWS)


def pattern(length: int) -> bytes:
    return (np.arange(length, dtype=np.uint32) * 2654435761 >> 13 & 0xFF).astype(np.uint8).tobytes()


@windows
def test_reading(space: Space, offset: int, range_: int) -> None:
    expected = b"".join(
        int.to_bytes(stamp(*where), 8, "little") + bytes(K4 - 8) if where else bytes(K4) for where in pages()
    )[offset : offset + range_]
    assert space.engine.read(A + offset, range_) == expected
    out = np.full(range_, 7, np.uint8)
    space.engine.read_into(A + offset, out)
    assert out.tobytes() == expected


def pages() -> list[tuple[Aperture, int] | None]:
    """Where each page of a `Space` is."""
    first = [(VRAM, 3 * K64 + page * K4) for page in range(16)]
    second = [(GART, (15 - page) * K4) for page in range(16)]
    third = [(VRAM, 5 * K64 + page * K4) for page in range(32)]
    return [*first, *second, *third, *[None] * 32]


@windows
def test_writing(space: Space, offset: int, range_: int) -> None:
    before = space.engine.read(A, Space.SPARSE)
    data = pattern(range_)
    space.engine.write(A + offset, data)
    expected = bytearray(before)
    expected[offset : offset + range_] = data
    expected[Space.MAPPED :] = bytes(Space.SPARSE - Space.MAPPED)
    assert space.engine.read(A, Space.SPARSE) == bytes(expected)


@windows
@pytest.mark.parametrize("size", [1, 3, 4, K4, 3 * K64 + 1])
def test_filling(space: Space, offset: int, range_: int, size: int) -> None:
    before = space.engine.read(A, Space.SPARSE)
    space.engine.fill(A + offset, range_, pattern(size))
    expected = bytearray(before)
    expected[offset : offset + range_] = (pattern(size) * (range_ // size + 1))[:range_]
    expected[Space.MAPPED :] = bytes(Space.SPARSE - Space.MAPPED)
    assert space.engine.read(A, Space.SPARSE) == bytes(expected)


@given(
    st.sampled_from(["host", "gp100"]),
    st.integers(0, Space.SPARSE - 1),
    st.integers(0, Space.SPARSE - 1),
    st.integers(1, Space.SPARSE),
)
def test_copying_is_memmove(kind: str, dst: int, src: int, range_: int) -> None:
    space = SPACES.setdefault(kind, Space(kind))
    range_ = min(range_, Space.SPARSE - max(dst, src))
    space.engine.write(A, pattern(Space.SPARSE))
    expected = bytearray(space.engine.read(A, Space.SPARSE))
    space.engine.copy(A + dst, A + src, range_)
    expected[dst : dst + range_] = expected[src : src + range_]
    expected[Space.MAPPED :] = bytes(Space.SPARSE - Space.MAPPED)
    assert space.engine.read(A, Space.SPARSE) == bytes(expected)


SPACES: dict[str, Space] = {}


def test_items_of_any_type(space: Space) -> None:
    numbers = np.arange(K64, dtype=np.uint64).reshape(64, -1)
    space.engine.write(A + 2 * K64, numbers[:16])
    out = np.zeros((8, K64 // 64), np.uint64)
    space.engine.read_into(A + 2 * K64, out)
    assert (out == numbers[:8]).all()
    space.engine.fill(A, 64, np.array([1.5], np.float32))
    assert np.frombuffer(space.engine.read(A, 64), np.float32).tolist() == [1.5] * 16
    space.engine.write(A, bytearray(b"abc"))
    space.engine.write(A + 3, memoryview(b"def"))
    assert space.engine.read(A, 6) == b"abcdef"


def attempts(engine: AddressSpace, addr: int, range_: int) -> dict[str, Callable[[], object]]:
    return {
        "read": lambda: engine.read(addr, range_),
        "read_into": lambda: engine.read_into(addr, np.full(range_, 9, np.uint8)),
        "copy from": lambda: engine.copy(A, addr, range_),
        "write": lambda: engine.write(addr, b"\xff" * range_),
        "fill": lambda: engine.fill(addr, range_, b"\xff"),
        "copy to": lambda: engine.copy(addr, A, range_),
    }


READS, WRITES = ("read", "read_into", "copy from"), ("write", "fill", "copy to")


class TestFaults:
    @pytest.mark.parametrize("call", READS + WRITES)
    def test_a_hole_is_told_before_a_byte_is_written(self, space: Space, call: str) -> None:
        before = [memory.view.copy() for memory in space.memories.values()]
        with pytest.raises(PageFault) as error:
            attempts(space.engine, A + K64, Space.SPARSE)[call]()
        fault = error.value.value
        assert isinstance(fault, Fault)
        access = Access.READ if call in READS else Access.WRITE
        assert (fault.va, fault.access, error.value.errno) == (A + Space.SPARSE, access, errno.EFAULT)
        assert f"{access.name.lower()} of {A + Space.SPARSE:#x}" in str(error.value)
        for memory, content in zip(space.memories.values(), before, strict=True):
            assert (memory.view == content).all()

    @pytest.mark.parametrize("call", READS + WRITES)
    @pytest.mark.parametrize("flags", [PteFlags.READ_ONLY, PteFlags.PRIVILEGED], ids=lambda f: f.name)
    @pytest.mark.parametrize("privileged", [False, True])
    def test_permissions(self, space: Space, call: str, flags: PteFlags, privileged: bool) -> None:
        space.map(A + 8 * K64, K64, 16, Extent(VRAM, 16 * K64, K64), flags)
        engine = AddressSpace(space.backend, space.memories, privileged=privileged)
        attempt = attempts(engine, A + 8 * K64 + 5, 100)[call]
        refused = call in WRITES if flags == PteFlags.READ_ONLY else not privileged
        if not refused:
            attempt()
            return
        with pytest.raises(PageFault) as error:
            attempt()
        fault = error.value.value
        assert isinstance(fault, Fault)
        reason = FaultType.RO_VIOLATION if flags == PteFlags.READ_ONLY else FaultType.PRIV_VIOLATION
        assert (fault.va, fault.reason) == (A + 8 * K64 + 5, reason)
        assert not (space.memories[VRAM].view[16 * K64 : 17 * K64] == 0xFF).any()

    def test_memory_that_is_not_there(self, space: Space) -> None:
        engine = AddressSpace(space.backend, {VRAM: space.memories[VRAM]})
        engine.read(A, K64)
        with pytest.raises(PageFault, match="UNSUPPORTED_APERTURE"):
            engine.read(A, 2 * K64)

    def test_a_page_beyond_the_end_of_memory(self) -> None:
        space = Space("gp100")
        space.map(A + M2, M2, 21, Extent(VRAM, 1 << 30, M2))
        with pytest.raises(PageFault, match="UNSUPPORTED_APERTURE"):
            space.engine.read(A + M2, 8)

    @pytest.mark.parametrize(("addr", "range_"), [(A, 0), (A, -1), (1 << 60, 8)])
    def test_ranges(self, space: Space, addr: int, range_: int) -> None:
        with pytest.raises(InvalidArgument):
            space.engine.read(addr, range_)
        with pytest.raises(InvalidArgument):
            space.engine.copy(A, addr, range_)
        with pytest.raises(InvalidArgument):
            space.engine.fill(addr, range_, b"a")

    def test_buffers(self, space: Space) -> None:
        with pytest.raises(InvalidArgument, match="pattern is empty"):
            space.engine.fill(A, 8, b"")
        with pytest.raises(InvalidArgument, match="cannot be written"):
            space.engine.read_into(A, b"12345678")
        with pytest.raises(InvalidArgument):
            space.engine.write(A, b"")

    @pytest.mark.parametrize("array", [np.zeros((4, 4))[:, ::2], np.full(4, None)], ids=["gaps", "objects"])
    def test_buffers_that_are_no_bytes(self, space: Space, array: npt.NDArray[Any]) -> None:
        """Bytes of a GPU in the place of pointers would end the process."""
        for buffer in (array, array.data):
            with pytest.raises(InvalidArgument, match="contiguous"):
                space.engine.read_into(A, buffer)
            with pytest.raises(InvalidArgument, match="contiguous"):
                space.engine.write(A, buffer)


def test_raw_writes_to_sparse_pages_of_the_host_are_not_read() -> None:
    space = Space("host")
    assert isinstance(space.backend, HostBackend)
    space.backend.array[Space.MAPPED : Space.SPARSE] = 5
    assert space.engine.read(A + Space.MAPPED, K64) == bytes(K64)
    space.engine.write(A + Space.MAPPED, b"\xff" * K64)
    assert space.backend.array[Space.MAPPED] == 5
