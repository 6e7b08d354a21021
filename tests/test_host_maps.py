"""The maps that a process may have: promised before they are needed, refused with advice, and given back."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gpuvm.errors import Busy, InvalidArgument, NotSupported, OutOfMemory
from gpuvm.mem import Extent, faults, map_limit
from gpuvm.mem.map_count import LIMIT_FILE, OTHERS, map_count
from gpuvm.mem.map_limit import LARGEST, raise_map_limit
from gpuvm.sync import lockdep
from gpuvm.sync.fence import fence_context_alloc
from gpuvm.testing import Interleaving, explore
from host_world import K4, K64, M2, RANGE, START, VRAM, World, stamped_memories
from suite import scaled

A = START


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.check()


class TestMaps:
    def test_get_reserves_all_that_map_can_need(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """Every second page, backwards: as many maps as there can be, and none beyond those promised."""
        backend, pages = world.backend, 64
        backend.get(A, pages * K4, 12)
        backend.sparse(A, pages * K4, True)
        monkeypatch.setattr(map_count, "limit", map_count.used)
        with lockdep.fence_signalling(fence_context_alloc()):
            for page in range(0, pages, 2):
                backend.map(A + page * K4, K4, 12, Extent(VRAM, (pages - page) * K4, K4))
            for page in range(1, pages, 2):
                backend.map(A + page * K4, K4, 12, Extent(VRAM, (pages - page) * K4, K4))
            world.check()
            for page in range(1, pages, 2):
                backend.unmap(A + page * K4, K4, 12)
        world.check()

    def test_too_many_are_refused_with_advice(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        backend = world.backend
        monkeypatch.setattr(map_count, "limit", map_count.used + 10)
        with pytest.raises(OutOfMemory, match=r"sysctl -w vm\.max_map_count="):
            backend.get(A, M2, 12)
        backend.get(A, 9 * K4, 12)
        with pytest.raises(OutOfMemory):
            backend.sparse(A, M2, True)
        backend.put(A, 9 * K4, 12)
        backend.sparse(A, M2, True)
        world.check()

    def test_all_are_given_back(self) -> None:
        gc.collect()
        before = map_count.used
        world = World(memories := stamped_memories())
        world.backend.sparse(A, M2, True)
        world.map(A, M2, 12)
        with pytest.raises(Busy, match="512 references and 1 sparse"):
            world.backend.close()
        world.unmap(A, M2, 12)
        world.backend.sparse(A, M2, False)
        world.check()
        world.backend.close()
        with pytest.raises(InvalidArgument, match="closed"):
            world.backend.get(A, M2, 21)
        del world, memories
        gc.collect()
        assert map_count.used == before

    def test_one_that_is_dropped_gives_them_back_too(self) -> None:
        gc.collect()
        before = map_count.used
        world = World()
        world.map(A, M2, 12)
        del world
        gc.collect()
        assert map_count.used == before

    @pytest.mark.parametrize("call", ["get", "sparse"])
    def test_a_refused_call_changes_nothing_and_can_be_repeated(self, world: World, call: str) -> None:
        backend = world.backend
        world.map(A, K64, 12)
        backend.sparse(A + M2, M2, True)

        def attempt() -> None:
            backend.get(A, M2, 12) if call == "get" else backend.sparse(A, M2, True)

        before = (backend.statistics(), list(backend.runs(START, RANGE)), map_count.used)
        with faults.refuse_allocation(0), pytest.raises(OutOfMemory):
            attempt()
        assert (backend.statistics(), list(backend.runs(START, RANGE)), map_count.used) == before
        world.check()
        with faults.count_allocations() as allocations:
            attempt()
        assert len(allocations) == 1


def test_preparing_beside_running_jobs() -> None:
    """References of one bind are taken while another one's pages are mapped, wherever the threads change."""
    memories = stamped_memories()

    def scenario(run: Interleaving) -> Callable[[], None]:
        world = World(memories)

        def bind(addr: int) -> None:
            world.map(addr, K64, 12)
            world.backend.sparse(addr + K64, K64, True)
            world.unmap(addr, K64, 12)
            world.backend.sparse(addr + K64, K64, False)

        run.spawn(bind, A)
        run.spawn(bind, A + 2 * K64)

        def all_gone() -> None:
            world.check()
            assert world.backend.statistics().maps == 1
            world.backend.close()

        return all_gone

    explore(scenario, preemptions=2, limit=scaled(40, 2000))


class TestRaisingTheLimit:
    @pytest.fixture
    def file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """In the place of the machine's limit."""
        file = tmp_path / "max_map_count"
        file.write_text("65530\n")
        monkeypatch.setattr(map_limit, "LIMIT_FILE", file)
        monkeypatch.setattr(map_count, "limit", map_count.limit)
        return file

    def test_it_is_raised_and_told(self, file: Path) -> None:
        assert raise_map_limit(100_000) == (65530, 100_000 + OTHERS)
        assert (file.read_text(), map_count.limit) == (str(100_000 + OTHERS), 100_000)

    def test_it_is_never_lowered(self, file: Path) -> None:
        assert raise_map_limit(10) == (65530, 65530)
        assert (file.read_text(), map_count.limit) == ("65530\n", 65530 - OTHERS)

    def test_what_somebody_else_raised_is_noticed(self, file: Path) -> None:
        file.write_text("1048576")
        assert raise_map_limit(100_000) == (1048576, 1048576)
        assert map_count.limit == 1048576 - OTHERS

    @pytest.mark.parametrize("maps", [-1, LARGEST - OTHERS + 1])
    def test_what_cannot_be(self, file: Path, maps: int) -> None:
        with pytest.raises(InvalidArgument, match="raise_map_limit"):
            raise_map_limit(maps)
        assert file.read_text() == "65530\n"

    def test_a_machine_without(self, file: Path) -> None:
        file.unlink()
        with pytest.raises(NotSupported, match="cannot be read"):
            raise_map_limit(1)

    @pytest.mark.skipif(not LIMIT_FILE.exists(), reason="this machine has no limit of maps")
    def test_without_root_it_says_how(self) -> None:
        """The machine's own limit; the child gives root up if it has it."""
        before = LIMIT_FILE.read_text()
        program = """
import os
from gpuvm.mem.map_limit import LARGEST, OTHERS, raise_map_limit
if os.geteuid() == 0:
    os.setuid(65534)
raise_map_limit(LARGEST - OTHERS)
"""
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=os.environ)
        assert f"PermissionDenied: raise_map_limit: vm.max_map_count is {before.strip()}" in done.stderr
        assert f"`sysctl -w vm.max_map_count={LARGEST}`" in done.stderr
        assert LIMIT_FILE.read_text() == before
