"""The host backend: an array whose pages are those that were mapped, and the kernel's own word for it."""

from __future__ import annotations

import errno
import gc
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from gpuvm.errors import AlreadyMapped, InvalidArgument, NotFound
from gpuvm.mem import Aperture, Extent
from gpuvm.mem.map_count import map_count
from gpuvm.mmu.backend import Backend
from gpuvm.mmu.formats.format import PteFlags
from gpuvm.mmu.host import HostBackend
from gpuvm.mmu.translation import Fault, FaultType, Run, RunState, Sparse, Translation
from host_world import GART, K4, K64, M2, RANGE, START, VRAM, VRAM_SIZE, World, stamp

A = START


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.check()


class TestTheArray:
    def test_it_is_ordinary_and_no_copy(self, world: World) -> None:
        assert isinstance(world.array, np.ndarray)
        assert (world.array.dtype, world.array.shape) == (np.dtype(np.uint8), (RANGE,))
        world.map(A, M2, 21, M2)
        world.array[5:9] = (1, 2, 3, 4)
        assert world.memories[VRAM].view[M2 + 5 : M2 + 9].tolist() == [1, 2, 3, 4]
        world.memories[VRAM].view[M2 + 6] = 77
        assert world.array[6] == 77

    def test_each_page_has_its_own_memory(self, world: World) -> None:
        for page in range(16):
            world.map(A + page * K4, K4, 12, (15 - page) * K4, GART if page % 2 else VRAM)
        for page in range(16):
            aperture = GART if page % 2 else VRAM
            assert world.seen(A + page * K4) == stamp(aperture, (15 - page) * K4)

    def test_memory_may_show_twice(self, world: World) -> None:
        world.map(A, M2, 21)
        world.map(A + M2, M2, 21)
        world.array[3] = 9
        assert world.array[M2 + 3] == 9

    def test_what_lies_behind_is_asked_when_it_is_mapped(self, world: World) -> None:
        """An object that moved in since is seen after the next map, even to the same place."""
        other = world.file(K64)
        vram = world.memories[VRAM]
        world.map(A, K64, 16)
        vram.wire(0, K64, other.fd, 0)
        vram.view[:8].view(np.uint64)[0] = 42
        assert world.seen(A) == 0, "the memory's own page, which has gone"
        world.backend.map(A, K64, 16, Extent(VRAM, 0, K64))
        assert world.seen(A) == 42

    def test_a_page_over_several_files(self, world: World) -> None:
        parts = [world.file(K64), world.file(K64)]
        for number, part in enumerate(parts):
            world.memories[VRAM].wire(number * 3 * K64, K64, part.fd, 0)
            world.memories[VRAM].view[number * 3 * K64] = number + 5
        world.map(A, M2, 21)
        world.check()
        assert (world.array[0], world.array[3 * K64]) == (5, 6)
        assert world.seen(A + K64) == stamp(VRAM, K64)
        world.unmap(A, M2, 21)

    def test_it_outlives_the_backend(self) -> None:
        array = World().array
        gc.collect()
        assert array.shape == (RANGE,)
        assert map_count.used > 0


class TestCovering:
    def test_a_large_page_covers_small_ones_and_uncovers_them(self, world: World) -> None:
        backend = world.backend
        world.map(A + K64, K64, 12, M2)
        world.map(A, 2 * K64, 16, 2 * M2)
        assert (world.seen(A + K64), world.shift(A + K64)) == (stamp(VRAM, 2 * M2 + K64), 16)
        world.map(A, M2, 21, 3 * M2)
        assert (world.seen(A + K64), world.shift(A + K64)) == (stamp(VRAM, 3 * M2 + K64), 21)
        backend.unmap(A + K64, K64, 12)
        backend.map(A + K64, K64, 12, Extent(GART, 0, K64))
        assert world.seen(A + K64) == stamp(VRAM, 3 * M2 + K64)
        backend.unmap(A, M2, 21)
        assert world.seen(A + K64) == stamp(VRAM, 2 * M2 + K64)
        backend.unmap(A, 2 * K64, 16)
        assert (world.seen(A + K64), world.shift(A + K64)) == (stamp(GART, 0), 12)
        assert isinstance(backend.translate(A), Fault)

    def test_splitting_and_joining_changes_no_byte_and_no_map(self, world: World) -> None:
        backend = world.backend
        world.map(A, M2, 21, M2)
        before = backend._mmu.addresses.runs
        world.map(A, M2, 12, M2)
        backend.unmap(A, M2, 21)
        assert (backend._mmu.addresses.runs, world.shift(A)) == (before, 12)
        backend.map(A, M2, 21, Extent(VRAM, M2, M2))
        world.unmap(A, M2, 12)
        assert (backend._mmu.addresses.runs, world.shift(A)) == (before, 21)

    def test_the_race_of_2026(self, world: World) -> None:
        """Putting small pages away leaves the large one that came instead of them."""
        for sparse in (False, True):
            for small, large in ((12, 16), (16, 21)):
                if sparse:
                    world.backend.sparse(A, M2, True)
                world.map(A, 1 << large, small)
                world.backend.unmap(A, 1 << large, small)
                world.map(A, 1 << large, large, M2)
                world.backend.put(A, 1 << large, small)
                assert world.seen(A) == stamp(VRAM, M2)
                world.unmap(A, 1 << large, large)
                if sparse:
                    world.backend.sparse(A, M2, False)
                world.check()


class TestSparse:
    def test_zeros_show_where_nothing_is_mapped(self, world: World) -> None:
        backend = world.backend
        world.map(A + K64, K64, 16)
        backend.sparse(A, M2, True)
        assert (world.seen(A), world.seen(A + K64)) == (0, stamp(VRAM, 0))
        assert isinstance(backend.translate(A), Sparse)
        backend.unmap(A + K64, K64, 16)
        assert world.seen(A + K64) == 0
        backend.sparse(A, M2, False)
        assert isinstance(backend.translate(A), Fault)

    def test_raw_writes_stay_until_something_near_changes(self, world: World) -> None:
        world.backend.sparse(A, M2, True)
        world.array[: 3 * K4] = 1
        world.map(A + K4, K4, 12)
        assert world.seen(A + K4) == stamp(VRAM, 0)
        world.unmap(A + K4, K4, 12)
        assert not world.array[:M2].any()
        world.check()

    def test_zeros_written_to_are_one_map_again(self, world: World) -> None:
        """Else the kernel would run out of maps that nobody counted."""
        world.backend.sparse(A, M2, True)
        for page in range(1, 64, 2):
            world.map(A + page * K4, K4, 12)
        world.array[: 64 * K4 : 2 * K4] = 1
        for page in range(1, 64, 2):
            world.unmap(A + page * K4, K4, 12)
        world.check()
        assert world.backend.statistics().maps == 2

    def test_ranges_are_dropped_as_they_were_made(self, world: World) -> None:
        backend = world.backend
        backend.sparse(A, M2, True)
        backend.sparse(A + M2, M2, True)
        for addr, range_ in ((A + K4, K4), (A, 2 * M2), (A + M2 - K4, M2)):
            with pytest.raises(AlreadyMapped):
                backend.sparse(addr, range_, True)
            with pytest.raises(NotFound):
                backend.sparse(addr, range_, False)
        backend.sparse(A, M2, False)
        backend.sparse(A + M2, M2, False)
        assert backend.statistics().sparse_bytes == 0


class TestReferences:
    def test_only_what_is_referenced_is_mapped(self, world: World) -> None:
        backend = world.backend
        backend.get(A, M2, 12)
        calls: list[Callable[[], None]] = [
            lambda: backend.map(A, M2, 21, Extent(VRAM, 0, M2)),
            lambda: backend.map(A + M2 - K4, 2 * K4, 12, Extent(VRAM, 0, 2 * K4)),
            lambda: backend.unmap(A + M2, K4, 12),
            lambda: backend.put(A + M2 - K4, 2 * K4, 12),
            lambda: backend.put(A, M2, 21),
        ]
        for call in calls:
            with pytest.raises(InvalidArgument, match=r"nobody references .*get them first"):
                call()
        backend.put(A, M2, 12)
        assert backend.statistics().references == 0

    def test_the_last_reference_of_a_mapped_page_stays(self, world: World) -> None:
        backend = world.backend
        world.map(A, M2, 12)
        backend.get(A, K4, 12)
        backend.put(A, K4, 12)
        with pytest.raises(InvalidArgument, match="unmap them first"):
            backend.put(A, K4, 12)
        with pytest.raises(InvalidArgument, match="unmap them first"):
            backend.put(A, M2, 12)
        assert world.seen(A) == stamp(VRAM, 0)
        world.unmap(A, M2, 12)


class TestRefusals:
    @pytest.mark.parametrize(
        ("addr", "range_", "shift"),
        [
            (A, 0, 12),
            (A, -K4, 12),
            (A + 1, K4, 12),
            (A, K4 + 1, 12),
            (A + K4, K64, 16),
            (A, K64, 21),
            (A, M2, 20),
            (A - M2, M2, 21),
            (START + RANGE, M2, 21),
            (START + RANGE - M2, 2 * M2, 21),
        ],
    )
    def test_ranges(self, world: World, addr: int, range_: int, shift: int) -> None:
        backend = world.backend
        calls: list[Callable[[], object]] = [
            lambda: backend.get(addr, range_, shift),
            lambda: backend.put(addr, range_, shift),
            lambda: backend.map(addr, range_, shift, Extent(VRAM, 0, range_)),
            lambda: backend.unmap(addr, range_, shift),
        ]
        for call in calls:
            with pytest.raises(InvalidArgument) as refused:
                call()
            assert (refused.value.errno, refused.value.value is not None) == (errno.EINVAL, True)

    @pytest.mark.parametrize(
        ("shift", "target"),
        [
            (21, Extent(GART, 0, M2)),
            (21, Extent(Aperture.PEER, 0, M2)),
            (21, Extent(VRAM, K64, M2)),
            (21, Extent(VRAM, 0, 2 * M2)),
            (21, Extent(VRAM, VRAM_SIZE, M2)),
            (21, Extent(VRAM, -M2, M2)),
        ],
    )
    def test_targets(self, world: World, shift: int, target: Extent) -> None:
        world.backend.get(A, M2, shift)
        with pytest.raises(InvalidArgument, match="map: "):
            world.backend.map(A, M2, shift, target)

    @pytest.mark.parametrize(
        ("start", "range_", "shifts"),
        [
            (K4, M2, (21, 12)),
            (0, K4, (21, 12)),
            (0, 0, (12,)),
            (0, M2, ()),
            (0, M2, (12, 21)),
            (0, M2, (11,)),
        ],
    )
    def test_shapes(self, start: int, range_: int, shifts: tuple[int, ...]) -> None:
        with pytest.raises(InvalidArgument, match="HostBackend: "):
            HostBackend(start, range_, {}, pages=dict.fromkeys(shifts, frozenset({VRAM})))


class TestLooking:
    def test_it_is_a_backend(self, world: World) -> None:
        backend: Backend = world.backend
        assert backend.page_shifts == tuple(backend.pages) == (21, 16, 12)
        assert backend.pages == {21: {VRAM}, 16: {VRAM}, 12: {VRAM, GART}}

    def test_runs_tell_what_continues(self, world: World) -> None:
        backend = world.backend
        backend.sparse(A, M2, True)
        world.map(A + K64, K64, 16, K64)
        world.map(A + 2 * K64, K64, 12, 2 * K64)
        world.map(A + 3 * K64, K4, 12, 0)
        found = list(backend.runs(A + K4, 2 * M2))
        nothing = (VRAM, 0, 0, PteFlags(0))
        assert found == [
            Run(A + K4, K64 - K4, RunState.SPARSE, *nothing),
            Run(A + K64, 2 * K64, RunState.VALID, VRAM, K64, 0, PteFlags(0)),
            Run(A + 3 * K64, K4, RunState.VALID, VRAM, 0, 0, PteFlags(0)),
            Run(A + 3 * K64 + K4, M2 - 3 * K64 - K4, RunState.SPARSE, *nothing),
            Run(A + M2, M2 + K4, RunState.INVALID, *nothing),
        ]
        for addr, range_ in ((A, 0), (A - K4, K4), (START + RANGE - K4, 2 * K4)):
            with pytest.raises(InvalidArgument, match="runs: "):
                backend.runs(addr, range_)

    def test_translations_tell_kind_and_flags(self, world: World) -> None:
        backend = world.backend
        backend.get(A, M2, 21)
        backend.map(A, M2, 21, Extent(VRAM, M2, M2), 6, PteFlags.READ_ONLY)
        assert backend.translate(A + 5) == Translation(
            A + 5, VRAM, M2 + 5, 21, 6, PteFlags.READ_ONLY, "host", 0
        )
        outside = backend.translate(START + RANGE)
        assert isinstance(outside, Fault)
        assert outside.reason is FaultType.VA_LIMIT_VIOLATION

    def test_statistics(self, world: World) -> None:
        world.map(A, M2, 21)
        world.map(A, K64, 12)
        world.backend.sparse(A + M2, M2, True)
        found = world.backend.statistics()
        assert (found.name, found.mapped, found.references) == ("host", {21: 1, 16: 0, 12: 16}, 17)
        assert (found.sparse_bytes, found.maps) == (M2, 3)
