"""What IGT asks of Xe's and Panthor's VM_BIND (``xe_vm.c``, ``panthor_vm.c``), asked of this driver."""

from __future__ import annotations

import errno
from itertools import pairwise

import pytest

import pushbuf
from contention import in_real_threads, strategy_of
from driver_calls import Typed
from driver_failures import core_refuses
from driver_world import (
    BIG,
    BINARY,
    GART,
    HUGE,
    MIB,
    NO_SHARE,
    PAGE,
    VRAM,
    Bo,
    Program,
    device_of,
    drop_op,
    ended,
    map_op,
    program_of,
    sparse_op,
    unmap_op,
)
from gpuvm.errors import OutOfMemory
from gpuvm.nouveau.sync import Sync
from gpuvm.testing import Interleaving
from igt_vectors import MUNMAP_STYLE
from suite import FULL, scaled

AT = 1 << 40
"""Where a level of every size begins."""
UNITS = {"4k": PAGE, "64k": BIG, "1m": HUGE // 2}


def check_units(program: Program, unit: int, shown: dict[int, tuple[Bo, int]]) -> None:
    """First and last page of each unit; those that are not there have no entry."""
    count = max(shown) + 1
    pages = [unit * number + at for number in range(count) for at in (0, unit - PAGE)]
    expected = {
        AT + page: shown[page // unit][0].tag_at(shown[page // unit][1] + page % unit)
        for page in pages
        if page // unit in shown
    }
    assert program.tags_at(expected) == expected
    letters = "".join("v" if page // unit in shown else "i" for page in pages)
    assert "".join(program.entry(AT + page)[0] for page in pages) == letters


CASES = [
    (name, unit)
    for name, (units, *_) in MUNMAP_STYLE.items()
    for unit in UNITS
    if FULL or units < 8 or unit != "1m"
]


@pytest.mark.parametrize("style", ["munmap", "mmap"])
@pytest.mark.parametrize(("name", "unit_name"), CASES)
def test_unbinding_and_binding_over(name: str, unit_name: str, style: str) -> None:
    """What is beside it stays, also after the object was moved, and can be bound again."""
    units, mappings, start, end = MUNMAP_STYLE[name]
    unit = UNITS[unit_name]
    length = units // mappings
    with program_of(vram=96 * MIB) as program:
        bo, other = program.bo(units * unit, VRAM), program.bo(units * unit, VRAM | GART)
        program.bind(
            *(map_op(AT + at * unit, length * unit, bo.handle, at * unit) for at in range(0, units, length))
        )
        shown = {number: (bo, number * unit) for number in range(units)}
        addr, size = AT + start * unit, (end - start) * unit
        program.bind(map_op(addr, size, other.handle) if style == "mmap" else unmap_op(addr, size))
        for number in range(start, end):
            shown.pop(number)
            if style == "mmap":
                shown[number] = other, (number - start) * unit
        if shown:
            check_units(program, unit, shown)
            program.evict(bo, other)
            check_units(program, unit, shown)
        program.bind(map_op(addr, size, bo.handle, start * unit))
        check_units(program, unit, {number: (bo, number * unit) for number in range(units)})


@pytest.mark.parametrize("large", [False, True], ids=["split-page", "large-page"])
def test_hammer(large: bool) -> None:
    """A channel that reads what is not touched all the time never faults: its entries do not blink."""
    unit = HUGE if large else BIG
    with program_of() as program:
        bo = program.bo(6 * unit, VRAM)
        start, size = AT + 2 * unit + PAGE, 2 * unit - 2 * PAGE
        program.bind(map_op(AT, 6 * unit, bo.handle))
        outside = [AT, AT + 2 * unit, AT + 4 * unit - PAGE, AT + 6 * unit - PAGE]
        over = [False]

        def work(number: int) -> None:
            if number:
                while not over[0]:
                    assert program.tags_at(outside) == {addr: bo.tag_at(addr - AT) for addr in outside}
            else:
                for _ in range(scaled(10, 300)):
                    program.bind(unmap_op(start, size))
                    program.bind(map_op(start, size, bo.handle, start - AT))
                over[0] = True

        in_real_threads(2, work)
        assert not program.device.faults


class TestArrays:
    """In MiB: MAP [0,1), MAP [1,3), MAP [3,6), UNMAP [1,5)."""

    @staticmethod
    def ops(bo: Bo) -> list[tuple[int, int, bool]]:
        return [(0, 1, True), (1, 3, True), (3, 6, True), (1, 5, False)]

    @pytest.mark.parametrize("together", [True, False])
    def test_conflict(self, together: bool) -> None:
        with program_of() as program:
            bo = program.bo(6 * MIB)
            ops = [
                map_op(AT + start * MIB, (end - start) * MIB, bo.handle, start * MIB)
                if mapped
                else unmap_op(AT + start * MIB, (end - start) * MIB)
                for start, end, mapped in self.ops(bo)
            ]
            for call in [ops] if together else [[op] for op in ops]:
                program.bind_async(*call)
            program.client.settle()
            for addr in (0, MIB // 4, MIB // 2, 5 * MIB, 6 * MIB - PAGE):
                assert program.shows(AT + addr, bo, addr, PAGE)
            assert [program.entry(AT + at * MIB) for at in (1, 2, 3, 4)] == ["invalid"] * 4

    def test_error_inject(self) -> None:
        """The last operation fails, and what was there before the array is there after it."""
        with program_of() as program:
            bo, before = program.bo(6 * MIB), program.bo(MIB)
            program.bind(map_op(AT + MIB, MIB, before.handle))
            ops = [map_op(AT, MIB, bo.handle), map_op(AT + MIB, 2 * MIB, bo.handle), unmap_op(AT + MIB, PAGE)]
            bad = [*ops, drop_op(AT, PAGE)]
            assert Typed(program.client).vm_bind(bad, run_async=True) == -errno.ENOENT
            with core_refuses(20), pytest.raises(OutOfMemory):
                program.bind_async(*ops)
            assert program.shows(AT + MIB, before, 0, BIG)
            assert program.entry(AT) == "invalid"

    def test_twice_and_many(self) -> None:
        with program_of() as program:
            bo = program.bo(BIG)
            ops = [map_op(AT + at * HUGE + at * PAGE, BIG, bo.handle) for at in range(scaled(100, 1000))]
            for _ in range(2):
                program.bind(*ops)
            assert program.tags_at(op.addr for op in ops[::7]) == {op.addr: bo.tag for op in ops[::7]}
            program.bind(*(unmap_op(op.addr, BIG) for op in ops))
            assert program.client.page_table.statistics().references == 64  # the scratch area's


@pytest.mark.parametrize("level", [12, 21, 29, 38, 47], ids=["pte", "pde0", "pde1", "pde2", "pde3"])
def test_shared_tables(level: int) -> None:
    """Neighbours that share a table at this level: every second goes and comes, the others stay."""
    with program_of() as program:
        bos = [program.bo(PAGE) for _ in range(4)]
        stride = min(1 << level, 1 << 43)
        ops = [map_op((1 << 44) + at * stride, PAGE, bo.handle) for at, bo in enumerate(bos)]
        program.bind(*ops)
        for _ in range(2):
            program.bind(*(unmap_op(op.addr, PAGE) for op in ops[::2]))
            assert [program.entry(op.addr)[0] for op in ops] == ["i", "v", "i", "v"]
            assert program.tags_at(op.addr for op in ops[1::2]) == {
                ops[1].addr: bos[1].tag,
                ops[3].addr: bos[3].tag,
            }
            program.bind(*ops[::2])
            assert program.tags_at(op.addr for op in ops) == {
                op.addr: bo.tag for op, bo in zip(ops, bos, strict=True)
            }


@pytest.mark.parametrize("size", [HUGE, 4 * HUGE, 16 * HUGE], ids=["2m", "8m", "32m"])
@pytest.mark.parametrize("shift", [0, BIG, PAGE, HUGE - PAGE], ids=["aligned", "64k", "4k", "nearly"])
def test_large_binds(size: int, shift: int) -> None:
    """At every alignment, in pages of whatever size; whole, split in two binds, and mixed with others."""
    with program_of() as program:
        bo = program.bo(size)
        middle = size // 2 + PAGE
        for cuts in ([0, size], [0, middle, size]):
            addr = AT + shift
            program.bind(*(map_op(addr + a, b - a, bo.handle, a) for a, b in pairwise(cuts)))
            pages = [*range(0, size, 61 * PAGE), middle - PAGE, middle, size - PAGE]
            assert program.tags_at(addr + page for page in pages) == {
                addr + page: bo.tag_at(page) for page in pages
            }
            assert program.entry(addr - PAGE) == program.entry(addr + size) == "invalid"
            program.bind(unmap_op(addr, size))


def test_one_object_in_many_places_and_programs() -> None:
    with device_of() as device:
        programs = [Program(device) for _ in range(scaled(3, 12))]
        for program in programs:
            bo = program.bo(BIG, VRAM | NO_SHARE)
            program.bind(*(map_op(AT + at * HUGE, BIG, bo.handle) for at in range(16)))
            program.client.gem_close(bo.handle)
            assert set(program.tags_at(AT + at * HUGE for at in range(16)).values()) == {bo.tag}


@pytest.mark.parametrize("conflict", [False, True])
def test_queues(conflict: bool) -> None:
    """A bind that is held back keeps later ones back, since there is one queue; but no channel."""
    for seed in range(scaled(3, 60)):
        with Interleaving(strategy_of(seed)), program_of() as program:
            bo = program.bo()
            program.bind(map_op(AT, BIG, bo.handle))
            held = program.held()
            first = program.bind_behind(held, map_op(AT + HUGE, BIG, bo.handle))
            second = program.bind_async(map_op(AT + HUGE + (PAGE if conflict else HUGE), BIG, bo.handle))
            assert program.shows(AT, bo)
            assert (first.signalled, second.signalled) == (False, False)
            held.let_go()
            assert ended(first) == ended(second) == 0


class TestPanthor:
    def test_unmapping_with_a_handle(self) -> None:
        """EINVAL there; nouveau ignores it."""
        with program_of() as program:
            assert Typed(program.client).vm_bind([unmap_op(AT, PAGE)._replace(handle=77, bo_offset=1)]) == 0

    @pytest.mark.parametrize(
        ("start", "end"),
        [(1, 511), (0, 256), (256, 512), (-16, 16), (496, 528), (-16, 528), (7, 8), (0, 512)],
    )
    def test_sparse_partial_unmap(self, start: int, end: int) -> None:
        """Of what is mapped in a region of two large pages: sparse again, up to the page."""
        with program_of() as program:
            bo = program.bo(HUGE)
            program.bind(sparse_op(AT, 2 * HUGE), map_op(AT + HUGE // 2, HUGE, bo.handle))
            base = AT + HUGE // 2
            program.bind(unmap_op(base + start * PAGE, (end - start) * PAGE))
            for page in (-17, -1, 0, 6, 7, 8, 15, 16, 255, 256, 495, 511, 512, 527):
                mapped = 0 <= page < 512 and not start <= page < end
                assert program.entry(base + page * PAGE) == ("valid" if mapped else "sparse")
            assert program.look(base + start * PAGE, 64) == bytes(64)

    @pytest.mark.parametrize(("start", "end"), [(1, 5), (0, 512), (16, 48), (255, 257), (100, 512)])
    def test_sparse_remap(self, start: int, end: int) -> None:
        """Another object over a part of one, and the first again."""
        with program_of() as program:
            bo, other = program.bo(HUGE), program.bo(HUGE, GART)
            program.bind(sparse_op(AT, HUGE), map_op(AT, HUGE, bo.handle))
            program.bind(map_op(AT + start * PAGE, (end - start) * PAGE, other.handle, start * PAGE))
            for page in (0, start - 1, start, end - 1, end, 511):
                if 0 <= page < 512:
                    shown = other if start <= page < end else bo
                    assert program.shows(AT + page * PAGE, shown, page * PAGE, PAGE)
            program.bind(map_op(AT, HUGE, bo.handle))
            assert program.shows(AT + start * PAGE, bo, start * PAGE, PAGE)
            sync = Sync(BINARY, program.client.syncobjs.create(1))
            assert ended(program.exec(pushbuf.Push(), waits=[sync])) == 0
