"""Random streams of everything: software MMUs, the host's MMU and a model of bytes stay identical."""

from __future__ import annotations

from collections import Counter
from random import Random

import numpy as np
import pytest

from gpuvm.errors import GpuvmError, InvalidArgument, NoSpace, NotFound, OutOfMemory
from gpuvm.mem import Domain
from gpuvm.mem.gem import GemObject
from gpuvm.mem.placement import placement_of
from gpuvm.mmu import HostBackend
from gpuvm.nouveau.bind import BindOp
from memory_model import Bytes, Space
from suite import scaled
from uvmm_world import (
    ANYWHERE,
    BACKENDS,
    BIG,
    HUGE,
    MIB,
    PAGE,
    SPARSE,
    World,
    map_op,
    map_sparse,
    unmap_op,
    unmap_sparse,
)

END = 3 * HUGE
SIZES = (PAGE, 3 * PAGE, BIG, 5 * BIG + PAGE, HUGE, HUGE + BIG)
UNITS = (PAGE, PAGE, BIG, HUGE)


class Machine:
    """The same stream into every space; external objects are in all, of private ones each has its own.

    VRAM has no room for all, so objects move without being asked to.
    """

    def __init__(self, seed: int) -> None:
        self.dice = Random(seed)
        self.w = World(vram=6 * MIB, gart=24 * MIB)
        self.bytes_of: dict[GemObject, Bytes] = {}
        self.spaces = [Space(self.w, self.w.space(backend), self.bytes_of) for backend in BACKENDS]
        self.sparse = dict(zip(self.spaces, (backend in SPARSE for backend in BACKENDS), strict=True))
        self.objects = [self.new(number, private=number % 3 == 2) for number in range(6)]
        self.counts = Counter[str]()

    def new(self, number: int, private: bool) -> dict[Space, GemObject]:
        size, domains = (
            self.dice.choice(SIZES),
            self.dice.choice((ANYWHERE, ANYWHERE, Domain.VRAM, Domain.GART)),
        )
        name = f"{'private' if private else 'external'} {number}"
        align = self.dice.choice((PAGE, BIG))
        shared = None if private else self.w.bo(name, size, domains, align=align)
        made = {}
        for space in self.spaces:
            bo = shared or self.w.bo(f"{name} of {space.vm.name}", size, domains, space.vm, align=align)
            made[space] = bo
            self.bytes_of[bo] = bo.view.copy()
        return made

    # -- the stream

    def step(self) -> None:
        weights = {
            self.bind: 8,
            self.write: 4,
            self.copy: 1,
            self.write_by_cpu: 2,
            self.evict: 2,
            self.evict_domain: 0.3,
            self.move: 2,
            self.validate: 3,
            self.replace: 0.3,
        }
        (action,) = self.dice.choices(list(weights), list(weights.values()))
        action()
        self.counts[action.__name__] += 1

    def bind(self) -> None:
        requests = [self.request() for _ in range(self.dice.choice((1, 1, 2, 4)))]
        for space in self.spaces:
            ops = [op for request in requests for op in self.ops_of(space, request)]
            try:
                space.vm.bind(ops)
            except GpuvmError as error:
                self.require_expected(error, ops)
                self.counts[type(error).__name__] += 1
                space.meet_what_came_back()
                continue
            for op in ops:
                space.bind(op)
            space.meet(*(op.shows for op in ops if op.shows is not None))

    def require_expected(self, error: GpuvmError, ops: list[BindOp]) -> None:
        """Regions: a border is cut, there is none, or something is mapped in it after it was dropped."""
        sparse = any(op.sparse for op in ops)
        assert isinstance(error, OutOfMemory | NoSpace) or (
            sparse and isinstance(error, NotFound | InvalidArgument)
        )

    def request(self) -> tuple[str, int, int, int, int]:
        """What to do, where, and with which part of which object."""
        dice = self.dice
        unit = dice.choice(UNITS)
        addr = dice.randrange(0, END, unit)
        range_ = min(dice.randint(1, 24) * unit, END - addr)
        (what,) = dice.choices(("map", "unmap", "make region", "drop region"), (6, 3, 1, 1))
        return what, addr, range_, dice.randrange(len(self.objects)), dice.randrange(0, HUGE, unit)

    def ops_of(self, space: Space, request: tuple[str, int, int, int, int]) -> list[BindOp]:
        what, addr, range_, number, offset = request
        if what == "map":
            bo = self.objects[number][space]
            offset = offset if offset < bo.size else 0
            return [map_op(addr, min(range_, bo.size - offset), bo, offset)]
        if what == "unmap":
            return [unmap_op(addr, range_)]
        if not self.sparse[space]:
            return []
        if what == "make region":
            return [unmap_op(addr, range_), map_sparse(addr, range_)]
        regions = sorted(self.spaces[0].regions.items())
        return [unmap_sparse(*(regions[number % len(regions)] if regions else (addr, range_)))]

    def write(self) -> None:
        for space in self.spaces:
            addr, length = self.some_range(space)
            data = self.dice.randbytes(length)
            if length:
                space.access.write(addr, data)
                space.write(addr, data)

    def copy(self) -> None:
        for space in self.spaces:
            (src, length), (dst, room) = self.some_range(space), self.some_range(space)
            length = min(length, room)
            if (
                length
                and not range(max(src, dst), min(src, dst) + length)
                and self.apart(space, src, dst, length)
            ):
                data = space.access.read(src, length)
                space.access.copy(dst, src, length)
                space.write(dst, data)

    def apart(self, space: Space, src: int, dst: int, length: int) -> bool:
        """Whether the two show different objects, so that the order of copying does not matter."""
        src_objects, dst_objects = (
            {
                space.pages[page][0]
                for page in range(at // PAGE * PAGE, at + length, PAGE)
                if page in space.pages
            }
            for at in (src, dst)
        )
        return not src_objects & dst_objects

    def some_range(self, space: Space) -> tuple[int, int]:
        """Somewhere in what can be written; 0 bytes if there is nothing."""
        runs = [(first, last) for first, last, content in space.reachable(0, END) if content is not None]
        if not runs:
            return 0, 0
        first, last = self.dice.choice(runs)
        addr = self.dice.randrange(first, last)
        return addr, min(self.dice.choice((1, 77, PAGE, 3 * BIG)), last - addr)

    def write_by_cpu(self) -> None:
        bo = self.some_object()
        start = self.dice.randrange(bo.size)
        data = np.frombuffer(self.dice.randbytes(min(9999, bo.size - start)), np.uint8)
        bo.view[start : start + len(data)] = data
        self.bytes_of[bo][start : start + len(data)] = data

    def evict(self) -> None:
        self.w.evict(self.some_object())

    def evict_domain(self) -> None:
        self.w.device.evict_all(self.dice.choice((Domain.VRAM, Domain.GART)))

    def move(self) -> None:
        bo = self.some_object()
        with bo.resv:
            try:
                self.w.device.validate(bo, placement_of(self.dice.choice(tuple(Domain))))
            except OutOfMemory:
                self.counts["no room to move"] += 1

    def validate(self) -> None:
        for space in self.dice.sample(self.spaces, len(self.spaces)):
            try:
                space.vm.validate_all()
            except OutOfMemory:
                self.counts["not all fits"] += 1
                space.meet_what_came_back()
            else:
                space.meet(*space.objects)

    def replace(self) -> None:
        """Unmap an object everywhere, drop it, and have another instead."""
        number = self.dice.randrange(len(self.objects))
        old = self.objects[number]
        for space in self.spaces:
            for page, (bo, _) in sorted(space.pages.items()):
                if bo is old[space]:
                    op = unmap_op(page, PAGE)
                    space.vm.bind([op])
                    space.bind(op)
            space.met.pop(old[space], None)
            self.bytes_of.pop(old[space], None)
            self.w.tags.pop(old[space], None)
        self.objects[number] = self.new(number, private=number % 3 == 2)

    def some_object(self) -> GemObject:
        return self.dice.choice(list(self.dice.choice(self.objects).values()))

    # -- what must hold

    def check(self) -> None:
        self.w.device.check()
        for bo, content in self.bytes_of.items():
            assert (bo.view == content).all(), bo
        for space in self.spaces:
            space.check(0, END)
            space.vm.backend.check()
            assert {va.obj for va in space.vm} == space.objects

    def finish(self) -> None:
        self.w.close()


@pytest.mark.parametrize("seed", range(scaled(5, 300)))
def test_all_stay_identical(seed: int) -> None:
    machine = Machine(seed)
    for _ in range(scaled(30, 150)):
        machine.step()
        machine.check()
    assert any(isinstance(space.vm.backend, HostBackend) for space in machine.spaces)
    machine.finish()
    print(machine.counts)
