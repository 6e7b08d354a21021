"""Sparse regions: the document's vectors, by the words of page tables and by what the GPU reads or writes."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

import pytest

import pushbuf
from contention import in_real_threads
from driver_calls import Typed
from driver_world import (
    BIG,
    GART,
    HUGE,
    PAGE,
    SCRATCH,
    VRAM,
    Bo,
    Program,
    drop_op,
    ended,
    map_op,
    program_of,
    sparse_op,
    state,
    unmap_op,
)
from gpuvm.nouveau.uapi.requests import VmBindOp
from suite import scaled

every_unit = pytest.mark.parametrize("unit", [PAGE, BIG, HUGE // 8])
FIRST, LAST = 16, 32
"""The region S of the vectors, in units."""


class Units:
    """A program whose calls count in units, with the region S."""

    def __init__(self, program: Program, unit: int) -> None:
        self.program, self.unit = program, unit
        self.bo = program.bo(24 * unit, VRAM if unit > PAGE else GART)
        self.calls = Typed(program.client)
        assert self.make(FIRST, LAST) == 0

    def op(self, op: VmBindOp) -> int:
        return self.calls.vm_bind([op])

    def _range(self, start: int, end: int) -> tuple[int, int]:
        return start * self.unit, (end - start) * self.unit

    def map(self, start: int, end: int) -> int:
        return self.op(map_op(*self._range(start, end), self.bo.handle))

    def unmap(self, start: int, end: int) -> int:
        return self.op(unmap_op(*self._range(start, end)))

    def make(self, start: int, end: int) -> int:
        return self.op(sparse_op(*self._range(start, end)))

    def drop(self, start: int, end: int) -> int:
        return self.op(drop_op(*self._range(start, end)))

    def words(self) -> str:
        """A letter for each unit from 14 to 34; all pages of a unit must say the same."""
        letters = ""
        for unit in range(14, 34):
            (letter,) = {self.program.entry(unit * self.unit + at)[0] for at in (0, self.unit - PAGE)}
            letters += letter
        return letters


@contextmanager
def region_of(unit: int) -> Iterator[Units]:
    with program_of() as program:
        yield Units(program, unit)


EMPTY = "ii" + 16 * "s" + "ii"
ONE = "ii" + "ssvv" + 12 * "s" + "ii"
NONE = 20 * "i"


@every_unit
class TestVectors:
    def test_a_region_reads_zeros(self, unit: int) -> None:
        with region_of(unit) as u:
            assert u.words() == EMPTY
            assert u.program.look(FIRST * unit, 64) == bytes(64)

    def test_unmapping_nothing_changes_nothing(self, unit: int) -> None:
        with region_of(unit) as u:
            before = state(u.program)
            assert u.unmap(18, 20) == 0
            after = state(u.program)
            for name in ("mappings", "regions", "runs", "words", "tables", "referenced"):
                assert after[name] == before[name]

    def test_mapping_inside_and_over_the_border(self, unit: int) -> None:
        with region_of(unit) as u:
            assert u.map(18, 20) == 0
            assert u.words() == ONE
            before = state(u.program)
            assert u.map(30, 34) == u.map(14, 18) == u.map(14, 34) == -errno.ENOSPC
            assert u.make(24, 40) == u.make(8, 18) == u.make(20, 22) == u.make(0, 64) == -errno.ENOSPC
            assert u.drop(16, 24) == u.drop(24, 32) == u.drop(18, 20) == u.drop(8, 40) == -errno.ENOENT
            assert state(u.program) == before
            assert u.program.shows(18 * unit, u.bo, 0, 2 * unit)

    def test_unmapping_makes_it_sparse_again(self, unit: int) -> None:
        """Bug 45, also for parts of what was mapped: pieces stay in their region, bug 45 again."""
        with region_of(unit) as u:
            assert u.map(18, 20) == u.unmap(18, 20) == 0
            assert u.words() == EMPTY
            assert u.map(18, 22) == u.unmap(19, 20) == 0
            assert u.words() == "ii" + "ssvsvv" + 10 * "s" + "ii"
            assert u.unmap(18, 19) == u.unmap(20, 21) == 0
            assert u.words() == "ii" + "sssssv" + 10 * "s" + "ii"
            assert u.program.look(20 * unit, 64) == bytes(64)
            assert u.unmap(0, 64) == 0
            assert u.words() == EMPTY

    def test_dropping_unmaps_what_is_in_it(self, unit: int) -> None:
        with region_of(unit) as u:
            assert u.map(18, 20) == u.map(30, 32) == u.map(12, 16) == u.map(32, 36) == 0
            assert u.words() == "vv" + "ssvv" + 10 * "s" + "vv" + "vv"
            assert u.drop(16, 32) == 0
            assert u.words() == "vv" + 16 * "i" + "vv"
            assert u.drop(16, 32) == -errno.ENOENT
            assert u.map(14, 18) == 0
            assert u.words() == "vvvv" + 14 * "i" + "vv"

    def test_a_map_issued_meanwhile_waits(self, unit: int) -> None:
        """The implicit unmap is done, the entries are invalid, and the region is gone."""
        with region_of(unit) as u:
            assert u.map(18, 20) == 0
            held = u.program.held()
            start, size = FIRST * unit, (LAST - FIRST) * unit
            dropped = u.program.bind_behind(held, drop_op(start, size))
            assert u.words() == ONE

            def second(number: int) -> None:
                if number:
                    assert u.map(30, 34) == 0  # over what was the border
                else:
                    while not u.program.client.statistics().binds.waits:  # type: ignore[union-attr]
                        pass
                    assert u.words() == ONE
                    held.let_go()

            in_real_threads(2, second)
            assert ended(dropped) == 0
            assert u.words() == 16 * "i" + "vvvv"

    def test_all_of_it_in_one_call(self, unit: int) -> None:
        with region_of(unit) as u:
            ops = [
                unmap_op(FIRST * unit, unit),
                drop_op(FIRST * unit, 16 * unit),
                sparse_op(14 * unit, 2 * unit),
                map_op(15 * unit, unit, u.bo.handle),
                sparse_op(32 * unit, 2 * unit),
                map_op(32 * unit, 2 * unit, u.bo.handle),
                unmap_op(32 * unit, unit),
            ]
            u.program.bind(*ops)
            assert u.words() == "sv" + 16 * "i" + "sv"

    def test_a_region_where_the_same_call_unmaps(self, unit: int) -> None:
        """The entries are cleared after the region was made, and are sparse then."""
        with region_of(unit) as u:
            assert u.map(10, 14) == u.map(32, 36) == 0
            start, size = 32 * unit, 4 * unit
            u.program.bind(unmap_op(start, size), sparse_op(start, size))
            assert u.words() == "ii" + 18 * "s"
            assert u.program.look(start, 64) == bytes(64)
            u.program.bind(drop_op(start, size), unmap_op(10 * unit, 4 * unit))
            assert u.words() == EMPTY


class TestWhatTheGpuSees:
    def test_writes_vanish(self) -> None:
        """No fault, nothing is written anywhere, and what is mapped in between gets its bytes."""
        with program_of() as program:
            source, bo = program.bo(4 * PAGE), program.bo()
            program.bind(
                map_op(0, 4 * PAGE, source.handle),
                sparse_op(HUGE, HUGE),
                map_op(HUGE + PAGE, PAGE, bo.handle),
            )
            program.copy(HUGE, 0, 4 * PAGE)
            assert program.tags_at(HUGE + at for at in range(0, 4 * PAGE, PAGE)) == {
                HUGE: 0,
                HUGE + PAGE: source.tag_at(PAGE),
                HUGE + 2 * PAGE: 0,
                HUGE + 3 * PAGE: 0,
            }
            assert program.run(pushbuf.Push().fill(HUGE + 2 * PAGE, HUGE - 2 * PAGE, 7)) == 0
            assert program.look(HUGE + BIG, 64) == bytes(64)
            assert not program.device.faults

    def test_pushes_out_of_a_hole(self) -> None:
        """Zeros are no methods."""
        with program_of() as program:
            program.bind(sparse_op(HUGE, HUGE))
            program.client.view(program.scratch)[:] = 0
            with program.out() as (sync, done):
                pushes = [program.push(pushbuf.Push().raw([0] * 4))._replace(va=HUGE)]
                program.client.exec(program.channel.id, pushes, (), [sync])
            assert ended(done[0]) == 0

    def test_a_large_region_takes_next_to_nothing(self) -> None:
        with program_of() as program:
            before = program.device.mem.statistics().instance_memory
            program.bind(sparse_op(1 << 45, 1 << 45))
            assert program.device.mem.statistics().instance_memory - before <= 4 * PAGE
            assert program.look((1 << 45) + 12345 * PAGE, 64) == bytes(64)
            program.bind(drop_op(1 << 45, 1 << 45))
            assert program.device.mem.statistics().instance_memory == before

    def test_an_evicted_object_leaves_a_hole(self) -> None:
        """Until somebody executes: then it is brought back."""
        with program_of() as program:
            bo = program.bo()
            program.bind(sparse_op(HUGE, HUGE), map_op(HUGE, BIG, bo.handle))
            program.evict(bo)
            assert program.entries(HUGE, HUGE + PAGE) == "s"
            assert program.shows(HUGE, bo)
            assert program.entries(HUGE, HUGE + PAGE) == "v"


@pytest.mark.parametrize("seed", range(scaled(2, 30)))
def test_random_maps_in_regions(seed: int) -> None:
    """Cut at random, by pages: what is not mapped reads zeros inside, and has no valid entry outside."""
    random = Random(seed)
    with program_of() as program:
        bos = [program.bo(64 * PAGE, domain) for domain in (VRAM, GART, VRAM | GART)]
        start, end = HUGE - 64 * PAGE, HUGE + 64 * PAGE
        program.bind(sparse_op(start, end - start))
        shown: dict[int, tuple[Bo, int]] = {}
        for _ in range(scaled(25, 60)):
            first, last = sorted(random.sample(range(128), 2))
            addr, size = start + first * PAGE, min(last - first, 64) * PAGE
            pages = range(addr, addr + size, PAGE)
            if random.random() < 0.5:
                bo = random.choice(bos)
                offset = random.randrange(0, 64 * PAGE - size + 1, PAGE)
                program.bind(map_op(addr, size, bo.handle, offset))
                shown |= {page: (bo, offset + page - addr) for page in pages}
            else:
                program.bind(unmap_op(addr, size))
                for page in pages:
                    shown.pop(page, None)
            if random.random() < 0.2:
                program.evict(random.choice(bos))
            expected = {
                page: shown[page][0].tag_at(shown[page][1]) if page in shown else 0
                for page in range(start, end, PAGE)
            }
            assert program.tags_at(expected) == expected
            letters = "".join("v" if page in shown else "s" for page in expected)
            assert program.entries(start, end) == letters
        program.bind(drop_op(start, end - start))
        assert program.entries(start - PAGE, end + PAGE) == 130 * "i"
        assert program.entry(SCRATCH) == "valid"
