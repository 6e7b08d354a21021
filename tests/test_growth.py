"""Memory does not grow: millions of maps and unmaps later the process is as large as after the first few.

Sizes are compared between two points of the same steady state. Each round ends where it began, so that what
is left over would add up.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from arrays import Array, bind_array, map_row, unmap_row
from drivers import Driver
from gpuvm import Gpuva, GpuVm, Merge
from scenes import OBJECTS, scene
from suite import scaled

BULK = scaled(2_500_000, 12_500_000)
SINGLE = scaled(40_000, 250_000)
BATCH = 5_000
SPAN = 1 << 19
SLACK = 6 << 20
"""Bytes by which a process may grow for reasons of its own (arenas of the allocator). In the full suite a
leak of a byte a bulk request, or of a small object a single call, is more."""


def resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def batches(seed: int, count: int) -> list[Array]:
    """Overlapping maps and unmaps; the last batch unmaps all."""
    random = Random(seed)
    made = []
    for _ in range(count):
        rows = []
        for _ in range(BATCH):
            addr, size = 8 * random.randrange(SPAN // 8), 8 * random.randint(1, 12)
            rows.append(
                map_row(addr, size, random.randint(0, 4), addr)
                if random.random() < 0.6
                else unmap_row(addr, size)
            )
        made.append(bind_array(rows))
    return [*made, bind_array([unmap_row(0, 2 * SPAN)])]


def steady(round_of_work: Callable[[], None], rounds: int, vm: GpuVm) -> None:
    """The first fifth of the rounds warms up; then nothing may grow."""
    warm_up = max(2, rounds // 5)
    for _ in range(warm_up):
        round_of_work()
    size, held = resident(), vm.statistics().bytes
    for _ in range(rounds - warm_up):
        round_of_work()
    assert vm.statistics().bytes <= held
    assert resident() - size < SLACK
    vm.check()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
@pytest.mark.timeout(900)
@pytest.mark.parametrize("merge", [Merge.NEVER, Merge.ALWAYS], ids=lambda merge: merge.name)
def test_bulk(merge: Merge) -> None:
    vm, work, handles = scene(merge=merge), batches(3, 5), OBJECTS.handles()

    def one_round() -> None:
        for requests in work:
            vm.bind(requests, handles)
        assert len(vm) == 0

    steady(one_round, BULK // (BATCH * 5), vm)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
@pytest.mark.timeout(900)
@pytest.mark.parametrize("style", ["apply", "step", "insert", "new objects"])
def test_single_calls(style: str) -> None:
    vm, random = scene(), Random(4)

    def one_round() -> None:
        for _ in range(1000):
            addr, size = 8 * random.randrange(SPAN // 8), 8 * random.randint(1, 40)
            match style:
                case "apply":
                    vm.sm_map(addr, size, OBJECTS[random.randint(0, 4)], addr).apply()
                    vm.find_first(addr, size)
                case "step":
                    vm.sm_map(addr, size, OBJECTS[random.randint(0, 4)], addr).step(Driver(vm))
                case "insert":
                    vm.sm_unmap(addr, size).apply()
                    vm.insert(Gpuva(addr, size, OBJECTS[1], addr))
                case _:
                    vm.sm_map(addr, size, object(), addr).apply()
        vm.sm_unmap(vm.start, vm.range).apply()
        assert vm.vm_bos() == []

    steady(one_round, SINGLE // 1000, vm)


def test_a_refused_array_leaves_nothing_behind() -> None:
    vm, handles = scene(), OBJECTS.handles()
    (work, _) = batches(5, 1)
    work[-1]["range"] = 0

    def one_round() -> None:
        with pytest.raises(OSError, match=str(BATCH - 1)):
            vm.bind(work, handles)
        assert len(vm) == 0

    steady(one_round, scaled(30, 300), vm)
