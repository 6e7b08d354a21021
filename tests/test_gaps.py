"""Gap search against the plainest possible search: try every address."""

from __future__ import annotations

import errno
from random import Random
from typing import Any

import pytest

import gpuvm
from gpuvm import Fit, Gpuva, GpuVm
from layouts import TOP
from scenes import scene, va
from suite import scaled

ALIGNS = (1, 2, 4, 8, 16, 64)


def holes(vm: GpuVm) -> list[tuple[int, int]]:
    """Maximal runs of free bytes of a small space."""
    free = [addr for addr in range(vm.start, vm.end) if vm.interval_empty(addr, 1)]
    runs: list[tuple[int, int]] = []
    for addr in free:
        if runs and runs[-1][1] == addr:
            runs[-1] = (runs[-1][0], addr + 1)
        else:
            runs.append((addr, addr + 1))
    return runs


def fitting(vm: GpuVm, size: int, align: int, low: int, high: int) -> dict[int, int]:
    """Each address where the range fits between the limits, and the size of the hole that it lies in."""
    return {
        addr: end - begin
        for begin, end in holes(vm)
        for addr in range(max(begin, low), min(end, high) - size + 1)
        if addr % align == 0
    }


def expect_gap(vm: GpuVm, size: int, align: int, fit: Fit, low: int | None, high: int | None) -> None:
    clipped = max(low or 0, vm.start), min(vm.end if high is None else high, vm.end)
    places = fitting(vm, size, align, *clipped)
    if not places:
        with pytest.raises(gpuvm.NoSpace):
            vm.find_gap(size, align=align, fit=fit, start=low, end=high)
        return
    found = vm.find_gap(size, align=align, fit=fit, start=low, end=high)
    if fit is Fit.LOWEST:
        assert found == min(places)
    elif fit is Fit.HIGHEST:
        assert found == max(places)
    else:
        assert found in places
        assert places[found] == min(places.values()), "a smaller hole would do"


@pytest.mark.parametrize("seed", range(scaled(6, 40)))
@pytest.mark.parametrize("fit", list(Fit), ids=lambda fit: fit.name)
def test_against_trying_every_address(fit: Fit, seed: int) -> None:
    random = Random(seed)
    start = random.choice((0, 1, 37, 4096, TOP - 700))
    length = random.choice((3, 64, 300, 700))
    vm = GpuVm(
        "gaps", start=start, range=length, kernel_node=random.choice((None, (start, 1), (start + 2, 1)))
    )
    for step in range(60):
        addr = start + random.randrange(length)
        size = min(random.choice((1, 1, 2, 5, 30)), vm.end - addr)
        if vm.range_valid(addr, size):
            (vm.sm_map if random.random() < 0.6 else vm.sm_unmap)(addr, size).apply()
        low, high = (random.choice((None, start + random.randrange(length + 1))) for _ in range(2))
        if low is not None and high is not None and low >= high:
            low = high = None
        print(f"seed {seed}, step {step}")
        expect_gap(vm, random.choice((1, 1, 2, 3, 8, 31, 700)), random.choice(ALIGNS), fit, low, high)


def test_over_many_leaves() -> None:
    """Holes of a deep tree, kept in step with a plain set while mappings come and go."""
    random, pages = Random(7), scaled(3000, 12_000)
    vm = GpuVm("deep", range=pages)
    free = set(range(pages))
    for step in range(scaled(1500, 12_000)):
        addr, size = random.randrange(pages - 40), random.choice((1, 2, 3, 40))
        cells = range(addr, addr + size)
        if random.random() < 0.65:
            vm.sm_map(addr, size).apply()
            free.difference_update(cells)
        else:
            vm.sm_unmap(addr, size).apply()
            free.update(cells)
        if step % 60 == 0:
            want = random.choice((1, 2, 7, 30))
            runs = runs_of(free, pages)
            large = [run for run in runs if run[1] >= want]
            print(f"step {step}, {want} pages")
            assert vm.find_gap(want) == large[0][0]
            assert vm.find_gap(want, fit=Fit.HIGHEST) == large[-1][0] + large[-1][1] - want
            assert (dict(runs)[vm.find_gap(want, fit=Fit.BEST)]) == min(length for _, length in large)
            numbers = vm.statistics()
            assert numbers.holes == len(runs)
            assert numbers.free_bytes == len(free)
            assert numbers.largest_hole == max(length for _, length in runs)
    vm.check()


def runs_of(free: set[int], pages: int) -> list[tuple[int, int]]:
    """First page and length of each run, ascending."""
    begins = [page for page in range(pages) if page in free and page - 1 not in free]
    ends = [page + 1 for page in range(pages) if page in free and page + 1 not in free]
    return [(begin, end - begin) for begin, end in zip(begins, ends, strict=True)]


def test_an_empty_space_is_one_hole() -> None:
    vm = GpuVm("empty", start=100, range=1000)
    assert vm.find_gap(1000) == 100
    assert vm.find_gap(10, align=64) == 128
    assert vm.find_gap(10, fit=Fit.HIGHEST) == 1090
    assert vm.find_gap(10, fit=Fit.HIGHEST, align=64) == 1088
    assert vm.find_gap(10, start=500) == 500
    assert vm.find_gap(10, fit=Fit.HIGHEST, end=500) == 490
    with pytest.raises(gpuvm.NoSpace) as caught:
        vm.find_gap(1001)
    assert caught.value.errno == errno.ENOSPC


def test_the_ends_of_64_bits() -> None:
    vm = GpuVm("whole", range=TOP)
    assert vm.find_gap(TOP) == 0
    assert vm.find_gap(1, fit=Fit.HIGHEST) == TOP - 1
    assert vm.find_gap(1, align=1 << 63, start=1) == 1 << 63
    with pytest.raises(gpuvm.NoSpace):
        vm.find_gap(1 << 63, align=1 << 63, start=1)
    with pytest.raises(gpuvm.NoSpace):
        vm.find_gap(1, align=1 << 63, start=(1 << 63) + 1)
    vm.insert(Gpuva(0, TOP - 1))
    assert vm.find_gap(1) == TOP - 1
    assert vm.find_gap(1, fit=Fit.BEST) == TOP - 1


@pytest.mark.parametrize("fit", list(Fit))
def test_a_full_space_has_no_hole(fit: Fit) -> None:
    vm = scene(va(0, 50), va(50, 100), range=100)
    with pytest.raises(gpuvm.NoSpace):
        vm.find_gap(1, fit=fit)


def test_best_takes_the_smallest_hole() -> None:
    vm = scene(va(10, 20), va(25, 40), va(43, 100), range=200)
    assert vm.find_gap(3, fit=Fit.BEST) == 40
    assert vm.find_gap(4, fit=Fit.BEST) == 20
    assert vm.find_gap(6, fit=Fit.BEST) == 0
    assert vm.find_gap(11, fit=Fit.BEST) == 100
    assert vm.find_gap(1, align=32, fit=Fit.BEST) == 0


def test_the_kernel_node_is_no_hole() -> None:
    vm = GpuVm("kernel", range=100, kernel_node=(0, 90))
    assert vm.find_gap(10) == 90
    with pytest.raises(gpuvm.NoSpace):
        vm.find_gap(11)


@pytest.mark.parametrize(
    "options",
    [{"range": 0}, {"range": 1, "align": 0}, {"range": -1}, {"range": 1 << 64}, {"range": 1, "align": -8}],
)
def test_nonsense_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(gpuvm.InvalidArgument):
        scene().find_gap(**options)
