"""Cutting mappings: every relation of a request to what is there, at every page size, without a blink."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event

import pytest

from contention import in_real_threads
from gpuvm.mem import Domain
from gpuvm.mem.gem import GemObject
from gpuvm.mmu.translation import Translation
from gpuvm.nouveau.bind import BindOp
from suite import scaled
from uvmm_world import (
    BIG,
    HUGE,
    MOST,
    PAGE,
    Modelled,
    Recorder,
    World,
    map_op,
    unmap_op,
    uvma,
    world,
)

RELATIONS = {
    "before": (0, 2),
    "meets": (0, 4),
    "overlaps": (2, 6),
    "finished by": (2, 8),
    "contains": (2, 10),
    "starts": (4, 6),
    "equals": (4, 8),
    "started by": (4, 10),
    "during": (5, 7),
    "finishes": (6, 8),
    "overlapped by": (6, 10),
    "met by": (8, 10),
    "after": (10, 12),
}
"""Of a request to a mapping of [4, 8)."""

every_backend = pytest.mark.parametrize("backend", MOST)


class Watched(Modelled):
    """Whatever is written, the pages outside of the request show what they showed."""

    def __init__(
        self, w: World, backend: str, window: tuple[int, int], step: int = PAGE, **options: object
    ) -> None:
        vm = w.space(backend, recorded=True, **options)
        super().__init__(w, vm, window, step)
        assert isinstance(vm.backend, Recorder)
        self.recorder: Recorder = vm.backend

    def bind(self, *ops: BindOp) -> None:
        touched = [range(op.addr, op.end) for op in ops]
        around = [page for page in self.pages if not any(page in pages for pages in touched)]
        before = self.w.read_pages(self.vm, around)

        def compare() -> None:
            assert before == self.w.read_pages(self.vm, around)

        self.recorder.after = compare
        self.recorder.calls.clear()
        super().bind(*ops)
        self.recorder.after = lambda: None


@every_backend
@pytest.mark.parametrize(
    ("unit", "shift"),
    [(PAGE, 0), (BIG, 0), (BIG, PAGE), (HUGE, 0), *[(HUGE, PAGE)] * scaled(0, 1)],
    ids=lambda number: f"{number:#x}",
)
def test_every_relation(backend: str, unit: int, shift: int) -> None:
    """``shift``: how far addresses are off from being aligned, so that all pages are small ones."""
    with world() as w:
        scene = Watched(w, backend, (0, 13 * unit), max(PAGE, unit // 4))
        a, b = (w.bo(name, 12 * unit + shift, align=unit) for name in "ab")

        def at(start: int, end: int) -> tuple[int, int]:
            return start * unit + shift, (end - start) * unit

        requests: list[Callable[[int, int], BindOp]] = [
            lambda start, end: map_op(*at(start, end), b),
            lambda start, end: map_op(*at(start, end), a, start * unit),
            lambda start, end: unmap_op(*at(start, end)),
        ]
        scene.bind(map_op(*at(4, 8), a, 4 * unit))
        for start, end in RELATIONS.values():
            for request in requests:
                scene.bind(request(start, end))
                scene.bind(unmap_op(0, 12 * unit + shift), map_op(*at(4, 8), a, 4 * unit))


@every_backend
class TestLargePages:
    """IGT's compact-64k-pages, panthor's unbind_hugepage vectors, and more of the kind."""

    def huge(self, w: World, backend: str) -> tuple[Watched, GemObject]:
        scene = Watched(w, backend, (HUGE, 3 * HUGE), BIG)
        bo = w.bo("huge", 2 * HUGE, Domain.VRAM, align=HUGE)
        scene.bind(map_op(HUGE, 2 * HUGE, bo))
        found = scene.vm.backend.translate(HUGE)
        assert isinstance(found, Translation)
        assert found.shift == 21
        return scene, bo

    @pytest.mark.parametrize(
        ("start", "end"),
        [(0, PAGE), (HUGE - PAGE, HUGE), (PAGE, HUGE - PAGE), (BIG, 2 * BIG), (BIG - PAGE, BIG + PAGE)],
        ids=["left", "right", "all but the ends", "64K", "two pages over a border"],
    )
    @pytest.mark.parametrize("over", [False, True], ids=["unmap", "map"])
    def test_one_is_cut(self, backend: str, start: int, end: int, over: bool) -> None:
        with world() as w:
            scene, _ = self.huge(w, backend)
            other = w.bo("other", HUGE)
            addr, range_ = HUGE + start, end - start
            scene.bind(map_op(addr, range_, other) if over else unmap_op(addr, range_))
            found = scene.vm.backend.translate(2 * HUGE)
            assert isinstance(found, Translation)
            assert found.shift == 21

    def test_piece_by_piece_and_back(self, backend: str) -> None:
        with world() as w:
            scene, bo = self.huge(w, backend)
            for at in (0, 5 * PAGE, HUGE // 2, HUGE - PAGE, BIG):
                scene.bind(unmap_op(HUGE + at, PAGE))
            scene.bind(map_op(HUGE, HUGE, bo))
            found = scene.vm.backend.translate(HUGE + BIG)
            assert isinstance(found, Translation)
            assert found.shift == 21
            assert scene.vm.statistics().backend.references == 2

    def test_half_of_a_64k_page(self, backend: str) -> None:
        with world() as w:
            scene = Watched(w, backend, (0, 2 * BIG))
            a, b = (w.bo(name, BIG, Domain.VRAM, align=BIG) for name in "ab")
            scene.bind(map_op(0, BIG, a))
            scene.bind(map_op(BIG // 2, BIG // 2, b))
            scene.bind(map_op(BIG // 4, BIG // 2, b))

    def test_references_come_from_both_sides_of_a_hole(self, backend: str) -> None:
        with world() as w:
            scene, _ = self.huge(w, backend)
            scene.bind(unmap_op(HUGE + 4 * PAGE, 4 * PAGE))
            scene.bind(unmap_op(HUGE, 2 * HUGE))
            assert scene.vm.statistics().backend.references == 0


class TestTheKernelsBug:
    """CVE-2024-36018: a mapping whose tail is cut had its whole length cleared, from the cut on."""

    ADDR, RANGE, CUT = 0x3FFFED0000, 0x100000, 0x3FFFFC0000

    @pytest.mark.parametrize("backend", MOST)
    @pytest.mark.parametrize("over", [False, True], ids=["unmap", "map"])
    def test_exactly_the_tail_is_cleared(self, backend: str, over: bool) -> None:
        with world() as w:
            end = self.ADDR + self.RANGE
            scene = Watched(w, backend, (self.ADDR - BIG, end + 2 * self.RANGE), BIG)
            old, new = (w.bo(name, self.RANGE, Domain.VRAM, align=BIG) for name in ("old", "new"))
            neighbour = w.bo("neighbour", self.RANGE, Domain.VRAM, align=BIG)
            scene.bind(map_op(self.ADDR, self.RANGE, old), map_op(end, self.RANGE, neighbour))
            range_ = end - self.CUT
            scene.bind(map_op(self.CUT, range_, new) if over else unmap_op(self.CUT, range_))
            assert uvma(scene.vm, self.ADDR).range == 0xF0000
            shift = 12 if backend == "x86_64" else 16
            cleared = ("unmap", self.CUT, 0x10000, shift)
            assert scene.recorder.of("unmap", "map") == [cleared, ("map", *cleared[1:])][: 1 + over]

    def test_by_the_words(self) -> None:
        with world() as w:
            vm = w.space()
            old, new = (w.bo(name, self.RANGE, Domain.VRAM, align=BIG) for name in ("old", "new"))
            vm.bind([map_op(self.ADDR, self.RANGE, old), map_op(self.ADDR + self.RANGE, self.RANGE, new)])

            def words() -> dict[int, int]:
                found = {
                    addr: vm.backend.translate(addr)
                    for addr in range(self.ADDR, self.ADDR + 2 * self.RANGE, BIG)
                }
                return {addr: each.word for addr, each in found.items()}

            before = words()
            vm.bind([unmap_op(self.CUT, BIG)])
            after = words()
            assert {addr for addr in before if before[addr] != after[addr]} == {self.CUT}
            assert after[self.CUT] & 1 == 0


MUNMAP = {
    "all": (4, 2, (0, 4)),
    "one-partial": (4, 1, (1, 3)),
    "either-side-partial": (4, 2, (1, 3)),
    "either-side-full": (4, 4, (1, 3)),
    "end": (4, 2, (0, 3)),
    "front": (4, 2, (1, 4)),
    "hammer": (6, 2, (2, 4)),
    "many-all": (32, 16, (0, 32)),
    "many-either-side-partial": (32, 16, (1, 31)),
    "many-either-side-full": (32, 32, (8, 24)),
    "many-end": (32, 4, (0, 26)),
    "many-front": (32, 4, (6, 32)),
}
"""IGT's xe_vm: pages of the object, mappings of equal size, what is unbound or bound over."""


@every_backend
@pytest.mark.parametrize("style", ["munmap", "mmap"])
@pytest.mark.parametrize("name", MUNMAP)
def test_igt_vectors(backend: str, style: str, name: str) -> None:
    pages, mappings, (start, end) = MUNMAP[name]
    units = (PAGE, BIG, HUGE) if pages < 8 else (PAGE, 3 * BIG)
    for unit in units:
        with world() as w:
            base = HUGE - 2 * unit if unit < HUGE else HUGE
            scene = Watched(w, backend, (base - unit, base + (pages + 1) * unit), max(PAGE, unit // 4))
            old, new = (w.bo(each, pages * unit, align=min(unit & -unit, HUGE)) for each in ("old", "new"))
            part = pages * unit // mappings
            scene.bind(*(map_op(base + at, part, old, at) for at in range(0, pages * unit, part)))
            hole = base + start * unit, (end - start) * unit
            scene.bind(unmap_op(*hole) if style == "munmap" else map_op(*hole, new))
            scene.bind(map_op(*hole, old, start * unit))
            scene.bind(unmap_op(*hole))


@pytest.mark.parametrize("backend", MOST)
@pytest.mark.parametrize("honour_keep", [True, False])
def test_what_is_kept_does_not_blink(backend: str, honour_keep: bool) -> None:
    """Binding an object over itself, in other pieces: with `keep` honoured every page shows all the time."""
    with world() as w:
        scene = Watched(w, backend, (0, HUGE), BIG, honour_keep=honour_keep)
        bo = w.bo("a", HUGE, Domain.VRAM, align=HUGE)
        scene.bind(*(map_op(at, HUGE // 8, bo, at) for at in range(0, HUGE, HUGE // 8)))
        blinked: list[int] = []

        def look() -> None:
            found = w.read_pages(scene.vm, range(0, HUGE, BIG))
            blinked.extend(page for page, tag in found.items() if tag is None)

        scene.recorder.after = look
        scene.vm.bind([map_op(0, HUGE, bo)])
        scene.vm.bind([map_op(BIG + PAGE, HUGE // 2, bo, BIG + PAGE)])
        assert bool(blinked) is not honour_keep
        assert w.shows(scene.vm, 0, bo, 0, HUGE)


def test_a_thread_that_looks_all_the_time() -> None:
    """IGT's hammers: somebody uses the pages around a hole that is bound and unbound, and meets no gap."""
    with world() as w:
        vm, bo = w.space(), w.bo("a", 2 * HUGE, Domain.VRAM, align=HUGE)
        vm.bind([map_op(0, 2 * HUGE, bo)])
        around = [page for page in range(0, 2 * HUGE, BIG) if not HUGE // 2 <= page < HUGE]
        expected = {page: w.tag(bo, page) for page in around}
        done, looked = Event(), 0

        def look() -> None:
            nonlocal looked
            while not done.is_set():
                assert w.read_pages(vm, around) == expected
                looked += 1

        def bind() -> None:
            while looked < scaled(50, 5000) and not done.is_set():
                vm.bind([unmap_op(HUGE // 2, HUGE // 2)])
                vm.bind([map_op(HUGE // 2 + PAGE, BIG, bo), map_op(HUGE // 2, HUGE // 2, bo, HUGE // 2)])
                vm.bind([map_op(0, 2 * HUGE, bo)])

        def act(number: int) -> None:
            try:
                (look, bind)[number]()
            finally:
                done.set()

        in_real_threads(2, act)
