"""`PageTable`: whoever looks, at whatever moment, sees no gap in what stays mapped.

Nouveau's bug of 2026 (Mesa issue 14610) is among the orders: small pages are unmapped, a large one is mapped
over them, then the small ones are put, which took the large one away.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest

import page_table_reader
from gpuvm.mmu.formats.format import Format
from gpuvm.mmu.formats.gh100 import GH100
from gpuvm.mmu.formats.gp100 import GP100
from gpuvm.testing import Interleaving, explore, sample
from interleaved import pause
from page_table_reader import PROGRESS, STEP, STOP, walk, words_of
from page_table_scene import GIB, KIB, MIB, Scene, vram
from suite import scaled
from table_memory import ArrayMemory

SIZES = pytest.mark.parametrize(("small", "large"), [(12, 16), (16, 21), (12, 21)])
SPARSE = pytest.mark.parametrize("sparse", [0, 64 * KIB, 2 * MIB, 512 * MIB])
"""Length of a sparse range at the same place."""


@SIZES
@SPARSE
def test_putting_small_pages_leaves_the_large_one_alone(small: int, large: int, sparse: int) -> None:
    scene = Scene()
    size = 1 << large
    if sparse:
        scene.tables.sparse(0, sparse, True)
    scene.get_map(0, size, small, GIB)
    scene.tables.unmap(0, size, small)
    scene.get_map(0, size, large, 2 * GIB)
    scene.tables.put(0, size, small)
    scene.tables.check()
    assert [scene.look(va) for va in (0, size - 1)] == [2 * GIB, 2 * GIB + size - 1]
    scene.unmap_put(0, size, large)
    assert scene.look(0) == ("Sparse" if sparse else "Fault")
    if sparse:
        scene.tables.sparse(0, sparse, False)
    scene.end()


@SIZES
@SPARSE
def test_small_pages_come_and_go_below_a_large_one(small: int, large: int, sparse: int) -> None:
    """Each in its turn, and what is left shows when the large one goes."""
    scene = Scene()
    size, page = 1 << large, 1 << small
    scene.get_map(0, size, large, 2 * GIB)
    if sparse:
        scene.tables.sparse(0, sparse, True)
    for addr in range(0, size, page):
        scene.get_map(addr, page, small, GIB + addr)
        assert scene.look(addr) == 2 * GIB + addr
        if addr % (2 * page):
            scene.unmap_put(addr, page, small)
    scene.tables.unmap(0, size, large)
    scene.tables.check()
    for addr in range(0, size, page):
        nothing = "Sparse" if addr < sparse else "Fault"
        assert scene.look(addr) == (nothing if addr % (2 * page) else GIB + addr)


class Shape:
    """One block that is split and joined again and again, between pages that nobody touches."""

    def __init__(self, small: int, large: int, format: Format = GP100, memory: ArrayMemory | None = None):
        self.scene = Scene(format, ArrayMemory() if memory is None else memory)
        self.small, self.large = small, large
        size = self.size = 1 << large
        # The block, and behind it a page of each size that shares its tables as far as can be.
        self.expected = {0: GIB, size - 4096: GIB + size - 4096}
        self.scene.get_map(0, size, large, GIB)
        for addr, shift in ((size, small), (3 * size, large), (2 * size, 12)):
            self.scene.get_map(addr, 1 << shift, shift, 2 * GIB + addr)
            self.expected[addr] = 2 * GIB + addr

    def steps(self) -> list[Callable[[], None]]:
        """From one large page to small ones and back."""
        tables, size = self.scene.tables, self.size
        steps: list[Callable[[], None]] = []
        for old, new in ((self.large, self.small), (self.small, self.large)):
            steps += [
                lambda new=new: tables.get(0, size, new),  # type: ignore[misc]
                lambda new=new: tables.map(0, size, new, vram(GIB, size)),  # type: ignore[misc]
                lambda old=old: tables.unmap(0, size, old),  # type: ignore[misc]
                lambda old=old: tables.put(0, size, old),  # type: ignore[misc]
            ]
        return steps

    def look(self) -> None:
        assert {va: self.scene.look(va) for va in self.expected} == self.expected


@pytest.mark.parametrize("format", [GP100, GH100], ids=lambda format: format.name)
@SIZES
def test_no_gap_between_any_two_calls(small: int, large: int, format: Format) -> None:
    shape = Shape(small, large, format)
    for step in shape.steps() * 2:
        step()
        shape.look()
        shape.scene.tables.check()
        if format is GP100:
            words, root = shape.scene.memory.view.view(np.uint64), shape.scene.tables.root
            assert {va: walk(words, root, va)[1] for va in shape.expected} == shape.expected


@pytest.mark.parametrize("small", [12, 16])
def test_no_gap_in_any_order_of_threads(small: int) -> None:
    """One splits and joins, one brings neighbours in the same tables, one makes those sparse."""

    def scenario(run: Interleaving) -> Callable[[], None]:
        shape = Shape(small, 21)
        tables, size = shape.scene.tables, shape.size

        def split() -> None:
            for step in shape.steps():
                step()
                pause()

        def neighbour() -> None:
            for shift in (12, 16):
                tables.get(2 * size + 64 * KIB, 64 * KIB, shift)
                tables.map(2 * size + 64 * KIB, 64 * KIB, shift, vram(3 * GIB, 64 * KIB))
                tables.unmap(2 * size + 64 * KIB, 64 * KIB, shift)
                tables.put(2 * size + 64 * KIB, 64 * KIB, shift)

        def sparse() -> None:
            tables.sparse(size + 128 * KIB, 2 * size, True)
            tables.sparse(size + 128 * KIB, 2 * size, False)

        def observer() -> None:
            for _ in range(8):
                shape.look()
                pause()

        for thread in (split, neighbour, sparse, observer):
            run.spawn(thread)

        def check() -> None:
            shape.look()
            tables.check()
            assert len(shape.scene.shown()) == 4

        return check

    sample(scenario, range(scaled(60, 5_000)))
    explore(scenario, preemptions=1, limit=scaled(60, 20_000))


def test_tables_that_somebody_else_brings_meanwhile_are_given_back() -> None:
    """Two threads get the same range; each asks what is missing before the other has brought it."""

    def scenario(run: Interleaving) -> Callable[[], None]:
        scene = Scene()

        def get_and_put(shift: int) -> None:
            scene.tables.get(0, 4 * MIB, shift)
            scene.tables.put(0, 2 * MIB, shift)

        for shift in (12, 12, 16):
            run.spawn(get_and_put, shift)

        def check() -> None:
            scene.tables.check()
            assert scene.tables.statistics().memory_bytes == len(scene.memory.used) * 4096
            for shift in (12, 12, 16):
                scene.tables.put(2 * MIB, 2 * MIB, shift)
            scene.end()

        return check

    sample(scenario, range(scaled(60, 5_000)))
    assert explore(scenario, preemptions=2, limit=scaled(150, 20_000)).schedules > 20


@SIZES
def test_another_process_that_walks_all_the_time_sees_no_gap(small: int, large: int) -> None:
    """It maps the same memory and reads the raw words, at moments that nobody chooses."""
    fd = os.memfd_create("vram")
    os.truncate(fd, 16 * MIB)
    words = words_of(fd)
    # The last page is where the two processes talk.
    view = words.view(np.uint8)
    shape = Shape(small, large, memory=ArrayMemory(view=view[:-4096]))
    arguments = [fd, shape.scene.tables.root, *(number for pair in shape.expected.items() for number in pair)]
    command = [sys.executable, str(Path(page_table_reader.__file__)), *map(str, arguments)]
    rounds = 0
    with subprocess.Popen(command, pass_fds=[fd], stderr=subprocess.PIPE, text=True) as observer:
        os.close(fd)
        while observer.poll() is None and (rounds < scaled(150, 20_000) or words[PROGRESS] < rounds):
            for step in shape.steps():
                words[STEP] += np.uint64(1)
                step()
            rounds += 1
        words[STOP] = 1
        assert observer.communicate()[1] == ""
    assert observer.returncode == 0
    assert words[PROGRESS] >= rounds


def test_the_process_would_see_a_gap() -> None:
    """Guards the test above: unmapping first is a gap."""
    fd = os.memfd_create("vram")
    os.truncate(fd, 16 * MIB)
    words = words_of(fd)
    shape = Shape(12, 16, memory=ArrayMemory(view=words.view(np.uint8)[:-4096]))
    command = [sys.executable, str(Path(page_table_reader.__file__)), str(fd), str(shape.scene.tables.root)]
    with subprocess.Popen(
        [*command, "0", str(GIB)], pass_fds=[fd], stderr=subprocess.PIPE, text=True
    ) as observer:
        os.close(fd)
        shape.scene.tables.unmap(0, 64 * KIB, 16)
        assert "leads to 'invalid'" in observer.communicate()[1]
    assert observer.returncode == 1


# -- vectors of IGT that are about tables (semantics.md, section 9.2)


@pytest.mark.parametrize("shift", [21, 29, 38, 47])
def test_neighbours_sharing_a_table_at_each_level(shift: int) -> None:
    """shared-{pte,pde,pde2,pde3}-page: every second is unbound and bound again, the others do not care."""
    scene = Scene()
    spots = {((1 << shift) - 8 * 4096) + index * 4096: GIB + index * 4096 for index in range(16)}
    for va, target in spots.items():
        scene.get_map(va, 4096, 12, target)
    others = dict(list(spots.items())[::2])
    for _ in range(2):
        for va in spots.keys() - others.keys():
            scene.unmap_put(va, 4096, 12)
            assert {va: scene.look(va) for va in others} == others
        scene.tables.check()
        for va in spots.keys() - others.keys():
            scene.get_map(va, 4096, 12, spots[va])
        assert {va: scene.look(va) for va in spots} == spots
    for va in spots:
        scene.unmap_put(va, 4096, 12)
    scene.end()


def test_half_of_a_big_page_is_overlaid() -> None:
    """compact-64k-pages: the first half leads elsewhere, the second half stays where it was."""
    scene = Scene()
    scene.get_map(0, 64 * KIB, 16, GIB)
    scene.get_map(0, 32 * KIB, 12, 2 * GIB)
    scene.get_map(32 * KIB, 32 * KIB, 12, GIB + 32 * KIB)
    assert scene.look(0x9000) == GIB + 0x9000
    scene.unmap_put(0, 64 * KIB, 16)
    assert [(run.va, run.range, run.address) for run in scene.shown()] == [
        (0, 32 * KIB, 2 * GIB),
        (32 * KIB, 32 * KIB, GIB + 32 * KIB),
    ]
    scene.unmap_put(0, 64 * KIB, 12)
    scene.end()


@pytest.mark.parametrize(("shift", "misaligned"), list(product([12, 16, 21], [0, 1, 7])))
def test_large_binds_at_all_alignments(shift: int, misaligned: int) -> None:
    """large-[misaligned-]binds: 64 MiB of one page size; one page is unbound in the middle, first, last."""
    scene = Scene()
    page, size = 1 << shift, 64 * MIB
    addr = (1 << 39) - 32 * MIB + misaligned * page
    scene.get_map(addr, size, shift, GIB)
    holes = [addr + size // 2, addr, addr + size - page]
    for hole in holes:
        scene.unmap_put(hole, page, shift)
        assert scene.look(hole) == "Fault"
    scene.tables.check()
    assert [(run.va - addr, run.range) for run in scene.shown()] == [
        (page, size // 2 - page),
        (size // 2 + page, size // 2 - 2 * page),
    ]
    for start, end in ((page, size // 2), (size // 2 + page, size - page)):
        scene.unmap_put(addr + start, end - start, shift)
    scene.end()
