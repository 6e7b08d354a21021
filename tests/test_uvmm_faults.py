"""Every allocation of every bind fails in turn: all is as before, and trying again works."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from driver_failures import SOURCES
from gpuvm.errors import OutOfMemory
from gpuvm.mem import Domain
from gpuvm.mem.gem import GemObject
from gpuvm.nouveau.bind import BindOp
from gpuvm.nouveau.vm import Uvmm
from suite import FULL, scaled
from uvmm_world import (
    BIG,
    HUGE,
    MOST_SPARSE,
    PAGE,
    Model,
    World,
    finish,
    locked,
    map_op,
    map_sparse,
    state,
    unmap_op,
    unmap_sparse,
    world,
)

TRIES = 1000
WINDOW = range(0, 24 * HUGE, BIG)
ABROAD = 1 << 39
"""Where there are no tables yet."""


def numbers(source: str) -> range:
    """Which allocations to refuse; of the core's, which are many, the quick suite some."""
    return range(0, TRIES, scaled(4, 1) if source == "core" else 1)


class Scene:
    """A space with something of everything, and one object that nobody has bound yet."""

    def __init__(self, w: World, backend: str) -> None:
        self.w, self.vm = w, w.space(backend)
        self.a = w.bo("a", 2 * HUGE, Domain.VRAM, align=HUGE)
        self.b = w.bo("b", HUGE, Domain.GART)
        self.own = w.bo("own", HUGE, Domain.VRAM, self.vm)
        self.new = w.bo("new", HUGE, Domain.VRAM | Domain.GART)
        self.model = Model()
        self.bind(
            map_op(HUGE, 2 * HUGE, self.a),
            map_op(4 * HUGE, HUGE, self.b),
            map_op(6 * HUGE + PAGE, BIG, self.own),
            map_sparse(8 * HUGE, HUGE),
            map_op(8 * HUGE, BIG, self.a),
            map_sparse(16 * HUGE - PAGE, 2 * HUGE + PAGE),
        )

    def bind(self, *ops: BindOp) -> None:
        self.vm.bind(ops)
        self.model.apply(*ops)

    def check(self) -> None:
        self.w.check()
        self.model.check(self.w, self.vm, WINDOW)


OPS: dict[str, Callable[[Scene], list[BindOp]]] = {
    "map": lambda s: [map_op(ABROAD, BIG, s.new)],
    "map what is mapped elsewhere": lambda s: [map_op(10 * HUGE, BIG, s.a, PAGE)],
    "map over it": lambda s: [map_op(HUGE + PAGE, HUGE, s.new)],
    "map over all": lambda s: [map_op(4 * HUGE, HUGE, s.new)],
    "cut": lambda s: [unmap_op(HUGE + BIG, PAGE)],
    "unmap": lambda s: [unmap_op(0, 8 * HUGE)],
    "make a region": lambda s: [map_sparse(2 * ABROAD - HUGE + PAGE, BIG)],
    "drop a region": lambda s: [unmap_sparse(8 * HUGE, HUGE)],
    "drop a ragged region": lambda s: [unmap_sparse(16 * HUGE - PAGE, 2 * HUGE + PAGE)],
    "all": lambda s: [op for name in OPS if name != "all" for op in OPS[name](s)],
}


TAKES_TABLES = {"map", "map what is mapped elsewhere", "map over it", "cut", "make a region", "all"}
"""The others cannot fail for want of them."""

CASES = [
    (backend, source)
    for backend in MOST_SPARSE
    for source in SOURCES
    if backend == MOST_SPARSE[0] or source == "memory" or FULL
]
each_case = pytest.mark.parametrize(("backend", "source"), CASES)


@each_case
@pytest.mark.parametrize("name", OPS)
class TestEveryAllocation:
    def test_of_a_call(self, backend: str, name: str, source: str) -> None:
        """Validated before, so that nothing but the bind itself is to be undone."""
        with world() as w:
            scene = Scene(w, backend)
            with scene.new.resv:
                w.device.validate(scene.new)
            ops = OPS[name](scene)
            before = state(scene.vm)
            number = -1
            for number in numbers(source):
                with SOURCES[source](number):
                    try:
                        scene.vm.bind(ops)
                    except OutOfMemory:
                        pass
                    else:
                        break
                assert state(scene.vm) == before
                if number % scaled(7, 1) == 0:
                    scene.check()
            assert number < TRIES - 4
            if (backend, source) == ("gp100", "memory"):
                assert (number > 0) == (name in TAKES_TABLES)
            scene.model.apply(*ops)
            scene.check()

    def test_of_prepare(self, backend: str, name: str, source: str) -> None:
        """And what had been prepared before it, by the same call and by others, stays what it was."""
        with world() as w:
            scene = Scene(w, backend)
            first = [map_op(20 * HUGE, HUGE, scene.b)]
            ops = OPS[name](scene)
            with locked(scene.vm, *first, *ops):
                pending = scene.vm.prepare(first)
                pending.commit()
                before = state(scene.vm)
                for number in numbers(source):
                    with SOURCES[source](number):
                        try:
                            bind = scene.vm.prepare(ops)
                        except OutOfMemory:
                            assert state(scene.vm) == before
                        else:
                            break
                bind.commit()
            for each in (pending, bind):
                finish(each)
            scene.model.apply(*first, *ops)
            scene.check()


@each_case
def test_binding_objects_that_lie_nowhere(backend: str, source: str) -> None:
    """Some may have been placed when it fails, which nobody can see in the space."""
    with world() as w:
        scene = Scene(w, backend)
        made: list[GemObject] = []
        before = state(scene.vm)
        for number in numbers(source):
            for bo in made:
                w.evict(bo)
            made = [w.bo(f"{number} {index}", BIG, Domain.VRAM | Domain.GART) for index in range(2)]
            ops = [map_op(ABROAD + index * HUGE, BIG, bo) for index, bo in enumerate(made)]
            with SOURCES[source](number):
                try:
                    scene.vm.bind(ops)
                except OutOfMemory:
                    pass
                else:
                    break
            assert state(scene.vm) == before
            assert not any(bo.vms for bo in made)
        scene.check()
        assert all(w.shows(scene.vm, op.addr, bo, 0, BIG) for op, bo in zip(ops, made, strict=True))


@each_case
def test_closing_needs_none(backend: str, source: str) -> None:
    """Else who closes could not go on."""
    w = World()
    scene = Scene(w, backend)
    vm: Uvmm = scene.vm
    w.evict(scene.a)
    with SOURCES[source](0):
        vm.close()
    assert vm.refcount == 0
    left = vm.backend.statistics()
    assert (left.references, left.sparse_bytes) == (0, 0)
    vm.backend.close()
    w.device.check()
