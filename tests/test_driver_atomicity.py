"""One VM_BIND is one transaction: whatever fails in it, all is as before, and it can be repeated."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from driver_calls import Typed
from driver_failures import SOURCES
from driver_world import (
    BIG,
    BINARY,
    GART,
    HUGE,
    MIB,
    NO_SHARE,
    PAGE,
    TIMELINE,
    VRAM,
    Program,
    device_of,
    drop_op,
    ended,
    map_op,
    program_of,
    sparse_op,
    state,
    unmap_op,
)
from gpuvm import GpuvaFlags
from gpuvm.errors import OutOfMemory
from gpuvm.nouveau.sync import Sync
from gpuvm.nouveau.uapi.requests import VmBindOp
from suite import scaled

TRIES = 2000
ABROAD = 1 << 38
"""Where there are no tables yet."""
REGION = (8 * HUGE, HUGE)
RAGGED = (16 * HUGE - PAGE, 2 * HUGE + PAGE)


class Scene:
    """Something of everything: objects of all sorts, mapped in pages of all sizes, regions, syncs."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.a = program.bo(2 * HUGE)
        self.b = program.bo(HUGE, GART)
        self.own = program.bo(HUGE, VRAM | NO_SHARE)
        self.new = program.bo(HUGE, VRAM | GART)
        self.unmapped = program.bo(HUGE, VRAM | NO_SHARE)
        program.bind(
            map_op(ABROAD // 2, HUGE, self.new.handle), map_op(ABROAD // 2, HUGE, self.unmapped.handle)
        )
        program.bind(unmap_op(ABROAD // 2, HUGE))  # they have memory, and are mapped nowhere
        self.first = [
            map_op(HUGE, 2 * HUGE, self.a.handle),
            map_op(4 * HUGE, HUGE, self.b.handle),
            map_op(6 * HUGE + PAGE, BIG, self.own.handle),
            sparse_op(*REGION),
            map_op(REGION[0], BIG, self.a.handle),
            sparse_op(*RAGGED),
            map_op(16 * HUGE, PAGE, self.b.handle, 2 * PAGE),
        ]
        program.bind(*self.first)
        syncobjs = program.client.syncobjs
        self.ready, self.absent, self.binary, self.timeline = (
            syncobjs.create(flags) for flags in (1, 0, 1, 0)
        )
        syncobjs.timeline_signal([self.timeline], [5])
        self.waits = [Sync(BINARY, self.ready), Sync(TIMELINE, self.timeline, 5)]
        self.signals = [Sync(BINARY, self.binary), Sync(TIMELINE, self.timeline, 9)]

    def bind(self, ops: list[VmBindOp], run_async: bool) -> None:
        waits, signals = (self.waits, self.signals) if run_async else ((), ())
        self.program.client.vm_bind(ops, waits, signals, run_async=run_async)
        self.program.client.settle()


OPS: dict[str, Callable[[Scene], list[VmBindOp]]] = {
    "map": lambda s: [map_op(ABROAD, BIG, s.new.handle)],
    "map over": lambda s: [map_op(HUGE + PAGE, HUGE, s.new.handle), map_op(HUGE, BIG, s.unmapped.handle)],
    "split twice": lambda s: [unmap_op(HUGE + BIG, PAGE), unmap_op(HUGE + 3 * BIG, PAGE)],
    "unmap": lambda s: [unmap_op(0, 8 * HUGE)],
    "make a region": lambda s: [sparse_op(2 * ABROAD - HUGE + PAGE, BIG)],
    "make, map into it": lambda s: [sparse_op(24 * HUGE, HUGE), map_op(24 * HUGE + PAGE, BIG, s.own.handle)],
    "make and drop": lambda s: [sparse_op(26 * HUGE, BIG), drop_op(26 * HUGE, BIG), drop_op(*REGION)],
    "drop": lambda s: [drop_op(*RAGGED), unmap_op(HUGE, PAGE)],
    "unmap, make there": lambda s: [unmap_op(4 * HUGE, HUGE), sparse_op(4 * HUGE, BIG)],
    "over what came earlier": lambda s: [
        map_op(32 * HUGE, HUGE, s.new.handle),
        map_op(32 * HUGE + BIG, BIG, s.b.handle),
        unmap_op(32 * HUGE + BIG + PAGE, PAGE),
        map_op(32 * HUGE, HUGE, s.unmapped.handle),
        unmap_op(32 * HUGE, HUGE - PAGE),
    ],
}
OPS["all"] = lambda s: [op for name in [*OPS][:-1] for op in OPS[name](s)]


def pages_of(ops: list[VmBindOp]) -> list[int]:
    """Addresses at the borders of operations and in them."""
    ends = {
        at for op in ops for at in (op.addr - PAGE, op.addr, op.addr + op.range - PAGE, op.addr + op.range)
    }
    return sorted(ends | {op.addr + op.range // 2 & -PAGE for op in ops})


class Model:
    """What the entries are by the operations alone, and with which object's tag."""

    def __init__(self, s: Scene) -> None:
        self.tags = {bo.handle: bo for bo in (s.a, s.b, s.own, s.new, s.unmapped)}

    def at(self, ops: list[VmBindOp], addr: int) -> int | None:
        """Of a page: its tag, 0 if it is sparse, None if nothing is there."""
        shown: int | None = None
        region: VmBindOp | None = None
        for op in ops:
            if not op.addr <= addr < op.addr + op.range:
                continue
            if op.flags:
                region = op if op.op == 0 else None
                shown = shown if op.op == 0 else None
            else:
                shown = self.tags[op.handle].tag_at(op.bo_offset + addr - op.addr) if op.op == 0 else None
        return shown if shown is not None else 0 if region is not None else None


def check_shown(s: Scene, ops: list[VmBindOp]) -> None:
    """What the GPU sees after ``ops`` is what they say."""
    every, model = [*s.first, *ops], Model(s)
    expected = {addr: model.at(every, addr) for addr in pages_of(every)}
    readable = {addr: tag for addr, tag in expected.items() if tag is not None}
    assert s.program.tags_at(readable) == readable
    assert {
        addr for addr in expected if s.program.entry(addr) == "invalid"
    } == expected.keys() - readable.keys()


@pytest.mark.parametrize("run_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("source", SOURCES)
def test_every_allocation(source: str, name: str, run_async: bool) -> None:
    """Each fails in turn; of the core's, which are many, the quick suite has some fail."""
    step = scaled({"core": 7}.get(source, 1), 1)
    with program_of() as program:
        s = Scene(program)
        ops = OPS[name](s)
        before = state(program)
        number = -1
        for number in range(0, TRIES, step):
            with SOURCES[source](number):
                try:
                    s.bind(ops, run_async)
                except OutOfMemory:
                    pass
                else:
                    break
            assert state(program) == before
        assert 0 < number + step < TRIES
        check_shown(s, ops)
        after = program.client.syncobjs.query([s.timeline], 0)
        assert after == [9 if run_async else 5]


BAD_SYNCS: dict[str, tuple[int, Callable[[Scene], tuple[list[Sync], list[Sync]]]]] = {
    "wait of no type": (errno.EOPNOTSUPP, lambda s: ([Sync(7, s.ready)], [])),
    "wait for nobody": (errno.ENOENT, lambda s: ([Sync(BINARY, 77)], [])),
    "wait for what is not there": (errno.EINVAL, lambda s: ([Sync(BINARY, s.absent)], [])),
    "signal of no type": (errno.EINVAL, lambda s: ([], [Sync(7, s.ready)])),
    "signal nobody": (errno.ENOENT, lambda s: ([], [Sync(BINARY, 77)])),
}


class TestWhatFailsLast:
    @pytest.mark.parametrize("name", OPS)
    def test_a_bad_sync_behind_good_ones(self, name: str) -> None:
        """They are looked at when all has been prepared."""
        with program_of() as program:
            s = Scene(program)
            calls, ops = Typed(program.client), OPS[name](s)
            before = state(program)
            for code, make in BAD_SYNCS.values():
                waits, signals = make(s)
                bad = (s.waits + waits, s.signals + signals)
                assert calls.vm_bind(ops, *bad, run_async=True) == -code
                assert state(program) == before
            s.bind(ops, True)
            check_shown(s, ops)

    @pytest.mark.parametrize("name", OPS)
    def test_an_operation_behind_good_ones(self, name: str) -> None:
        """Refused for what is there after those before it, or for what was there before."""
        with program_of() as program:
            s = Scene(program)
            calls, ops = Typed(program.client), OPS[name](s)
            before = state(program)
            for bad, code in (
                (map_op(REGION[0] - PAGE, 2 * PAGE, s.b.handle), errno.ENOSPC),
                (drop_op(RAGGED[0] + PAGE, PAGE), errno.ENOENT),
                (sparse_op(HUGE + BIG, 64 * HUGE), errno.ENOSPC),
            ):
                if name in ("make and drop", "drop", "all") and bad.op == 0 and bad.flags == 0:
                    code = errno.EINVAL if name != "drop" else code  # it is being dropped
                assert calls.vm_bind([*ops, bad], s.waits, s.signals, run_async=True) == -code
                assert state(program) == before
            s.bind(ops, False)
            check_shown(s, ops)

    @pytest.mark.parametrize("name", OPS)
    def test_an_object_that_does_not_fit(self, name: str) -> None:
        """With those that the call needs. Others are out of its way then, until somebody wants them."""
        with device_of(vram=32 * MIB) as device:
            program = Program(device)
            s = Scene(program)
            large = [program.bo(14 * MIB), program.bo(16 * MIB)]
            ops = OPS[name](s)
            more = [
                map_op(64 * HUGE + index * 16 * MIB, bo.size, bo.handle) for index, bo in enumerate(large)
            ]
            before = what_is_bound(program)
            calls = Typed(program.client)
            assert calls.vm_bind([*ops, *more], s.waits, s.signals, run_async=True) == -errno.ENOMEM
            assert what_is_bound(program) == before
            check_shown(s, [])
            s.bind([*ops, more[0]], True)
            check_shown(s, ops)

    def test_the_same_sync_twice(self) -> None:
        """The point comes after the fence that the same call put there."""
        with program_of() as program:
            s = Scene(program)
            held = program.held()
            signals = [Sync(BINARY, s.timeline), Sync(TIMELINE, s.timeline, 3)]
            program.client.vm_bind([], [held.sync], signals, run_async=True)
            assert program.client.syncobjs.query([s.timeline], 0) == [0]
            held.let_go()
            assert ended(program.client.syncobjs.find_fence(s.timeline, 3, 0)) == 0


def what_is_bound(program: Program) -> dict[str, object]:
    """All but where objects are."""
    found = state(program)
    return {
        "mappings": [(*mapping[1:5], mapping[5] & ~GpuvaFlags.INVALIDATED) for mapping in found["mappings"]],
        **{name: found[name] for name in ("regions", "pending", "syncobjs", "binds", "history", "channels")},
        "fences": found["fences"],
    }
