"""Every row of the table of errors, by typed calls and by bytes: the errno, and that nothing was changed."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import pushbuf
from driver_calls import U32, U64, WAYS, Raw, Typed
from driver_world import (
    BIG,
    BINARY,
    CPU,
    GART,
    HUGE,
    KERNEL,
    NO_SHARE,
    PAGE,
    SCRATCH,
    TIMELINE,
    VRAM,
    Program,
    device_of,
    drop_op,
    ended,
    map_op,
    sparse_op,
    state,
    unmap_op,
)
from gpuvm.errors import PermissionDenied
from gpuvm.nouveau.sync import Sync
from gpuvm.nouveau.uapi.dialects import SERIES
from gpuvm.nouveau.uapi.requests import Push, VmBindOp

every_way = pytest.mark.parametrize("way", WAYS)
END = 1 << 47
AT = HUGE
"""Where the object is mapped."""
REGION = (16 * HUGE, 16 * PAGE)
MAX_LENGTH = 0x7FFFFF


class Scene:
    """A program with a mapping, a region with a mapping in it, and sync objects in several states."""

    def __init__(self, program: Program, way: type[Typed] | type[Raw]) -> None:
        self.program = program
        self.calls = way(program.client)
        self.bo = program.bo(4 * PAGE)
        program.bind(map_op(AT, 2 * PAGE, self.bo.handle), sparse_op(*REGION))
        program.bind(map_op(REGION[0] + PAGE, PAGE, self.bo.handle))
        syncobjs = program.client.syncobjs
        self.empty, self.full, self.timeline = (syncobjs.create(flags) for flags in (0, 1, 0))
        syncobjs.timeline_signal([self.timeline], [3])
        self.dead = program.client.channel_alloc()
        assert program.run(pushbuf.Push().fill(PAGE, 4, 0), channel=self.dead) == errno.ENODEV

    def map(self, addr: int, range_: int, offset: int = 0, **changes: Any) -> int:
        """A bind of one map; ``changes`` of its fields."""
        op = map_op(addr, range_, self.bo.handle, offset)
        return self.calls.vm_bind([op._replace(**changes)])

    def bind(self, *ops: VmBindOp) -> int:
        return self.calls.vm_bind(ops)

    def wait_for(self, flags: int, handle: int, value: int = 0) -> tuple[int, int]:
        """Of a bind and of an execution that wait."""
        sync = [Sync(flags, handle, value)]
        return self.calls.vm_bind([], sync, run_async=True), self.exec(waits=sync)

    def signal(self, flags: int, handle: int, value: int = 0) -> tuple[int, int]:
        sync = [Sync(flags, handle, value)]
        return self.calls.vm_bind([], (), sync, run_async=True), self.exec(signals=sync)

    def exec(self, pushes: int = 0, length: int = 4, **syncs: Any) -> int:
        push = Push(SCRATCH, length)
        return self.calls.exec(self.program.channel.id, [push] * pushes, **syncs)


@contextmanager
def scene_of(way: type[Typed] | type[Raw], **options: Any) -> Iterator[Scene]:
    with device_of() as device:
        yield Scene(Program(device, **options), way)


EINVAL, ENOENT, ENOSPC = errno.EINVAL, errno.ENOENT, errno.ENOSPC
BOTH_EINVAL, BOTH_ENOENT = (-EINVAL, -EINVAL), (-ENOENT, -ENOENT)
BOTH_UNSUPPORTED = (-errno.EOPNOTSUPP, -errno.EOPNOTSUPP)
SYNC = [Sync(BINARY, 2)]

Row = Callable[[Scene], object]
VM_BIND: dict[str, tuple[object, Row]] = {
    "sync with waits": (-EINVAL, lambda s: s.calls.vm_bind([], SYNC)),
    "sync with signals": (-EINVAL, lambda s: s.calls.vm_bind([], (), SYNC)),
    "op 2": (-EINVAL, lambda s: s.map(0, PAGE, op=2)),  # UP-BUG: it is an internal MAP_SPARSE there
    "op 3": (-EINVAL, lambda s: s.map(*REGION, op=3)),
    "op -1": (-EINVAL, lambda s: s.map(0, PAGE, op=U32)),
    "map of no handle": (-ENOENT, lambda s: s.map(0, PAGE, handle=0)),
    "map of an unknown handle": (-ENOENT, lambda s: s.map(0, PAGE, handle=77)),
    "unaligned address": (-EINVAL, lambda s: s.map(PAGE // 2, PAGE)),
    "unaligned range": (-EINVAL, lambda s: s.map(0, PAGE + 1)),
    "no range": (-EINVAL, lambda s: s.map(0, 0)),
    "unmap of no range": (-EINVAL, lambda s: s.bind(unmap_op(AT, 0))),
    "region of no range": (-EINVAL, lambda s: s.bind(sparse_op(AT, 0))),
    "unmap unaligned": (-EINVAL, lambda s: s.bind(unmap_op(AT + 1, PAGE))),
    "region unaligned": (-EINVAL, lambda s: s.bind(sparse_op(0, PAGE + 512))),
    "drop unaligned": (-EINVAL, lambda s: s.bind(drop_op(REGION[0], REGION[1] - 1))),
    "behind the space": (-EINVAL, lambda s: s.map(END, PAGE)),
    "over its end": (-EINVAL, lambda s: s.map(END - PAGE, 2 * PAGE)),
    "address and range overflow": (-EINVAL, lambda s: s.map(U64 - PAGE + 1, 2 * PAGE)),
    "unmap over the end": (-EINVAL, lambda s: s.bind(unmap_op(END - PAGE, 2 * PAGE))),
    "unmap overflows": (-EINVAL, lambda s: s.bind(unmap_op(2 * PAGE, U64 - PAGE + 1))),
    "in the kernel's area": (-EINVAL, lambda s: s.map(KERNEL[0] + PAGE, PAGE)),
    "into the kernel's area": (-EINVAL, lambda s: s.map(KERNEL[0] - PAGE, 2 * PAGE)),
    "out of the kernel's area": (-EINVAL, lambda s: s.map(sum(KERNEL) - PAGE, 2 * PAGE)),
    "unmap over the kernel's area": (-EINVAL, lambda s: s.bind(unmap_op(KERNEL[0] - PAGE, 2 * KERNEL[1]))),
    "region in the kernel's area": (-EINVAL, lambda s: s.bind(sparse_op(KERNEL[0], PAGE))),
    "unaligned offset": (-EINVAL, lambda s: s.map(0, PAGE, 512)),
    "offset at the end": (-EINVAL, lambda s: s.map(0, PAGE, s.bo.size)),
    "offset far behind": (-EINVAL, lambda s: s.map(0, PAGE, U64 - PAGE + 1)),
    "more than the object has": (-EINVAL, lambda s: s.map(0, s.bo.size + PAGE)),
    "more than is behind the offset": (-EINVAL, lambda s: s.map(0, s.bo.size, PAGE)),
    "a kind that there is not": (-EINVAL, lambda s: s.map(0, PAGE, flags=0xFF)),
    "partly in a region": (-ENOSPC, lambda s: s.map(REGION[0] - PAGE, 2 * PAGE)),
    "around a region": (-ENOSPC, lambda s: s.bind(sparse_op(REGION[0] - PAGE, 32 * PAGE))),
    "into a region dropped by an earlier op": (
        -EINVAL,
        lambda s: s.bind(drop_op(*REGION), map_op(REGION[0], PAGE, s.bo.handle)),
    ),
    "region over a mapping": (-ENOSPC, lambda s: s.bind(sparse_op(AT + PAGE, HUGE))),
    "region over a region": (-ENOSPC, lambda s: s.bind(sparse_op(REGION[0] + PAGE, PAGE))),
    "drop of a part": (-ENOENT, lambda s: s.bind(drop_op(REGION[0], PAGE))),
    "drop of more": (-ENOENT, lambda s: s.bind(drop_op(REGION[0], 2 * REGION[1]))),
    "drop of nothing": (-ENOENT, lambda s: s.bind(drop_op(0, PAGE))),
    "drop twice in one call": (-ENOENT, lambda s: s.bind(drop_op(*REGION), drop_op(*REGION))),
}
EXEC: dict[str, tuple[object, Row]] = {
    "unknown channel": (-ENOENT, lambda s: s.calls.exec(77)),
    "channel 0": (-ENOENT, lambda s: s.calls.exec(0)),
    "channel -1": (-ENOENT, lambda s: s.calls.exec(-1)),
    "killed channel": (-errno.ENODEV, lambda s: s.calls.exec(s.dead.id)),
    "too many pushes": (-EINVAL, lambda s: s.exec(s.program.client.getparam(17) + 1)),
    "a push too long": (-EINVAL, lambda s: s.exec(1, MAX_LENGTH + 1)),
    "a push far too long": (-EINVAL, lambda s: s.exec(1, U32)),
    "no such channel to free": (-ENOENT, lambda s: s.calls.channel_free(77)),
}
SYNCS: dict[str, tuple[object, Row]] = {
    "wait of type 2": (BOTH_UNSUPPORTED, lambda s: s.wait_for(2, s.full)),
    "wait of type 15": (BOTH_UNSUPPORTED, lambda s: s.wait_for(0xF, s.full)),
    "wait for nobody": (BOTH_ENOENT, lambda s: s.wait_for(BINARY, 77)),
    "wait for 0": (BOTH_ENOENT, lambda s: s.wait_for(BINARY, 0)),
    "wait for a point of nobody": (BOTH_ENOENT, lambda s: s.wait_for(TIMELINE, 77, 1)),
    "wait for what is not there": (BOTH_EINVAL, lambda s: s.wait_for(BINARY, s.empty)),
    "wait for a point that is not there": (BOTH_EINVAL, lambda s: s.wait_for(TIMELINE, s.timeline, 4)),
    "wait for a point of a binary one": (BOTH_EINVAL, lambda s: s.wait_for(TIMELINE, s.full, 1)),
    "signal of type 2": (BOTH_EINVAL, lambda s: s.signal(2, s.full)),
    "signal of type 15": (BOTH_EINVAL, lambda s: s.signal(0xF, s.full)),
    "signal nobody": (BOTH_ENOENT, lambda s: s.signal(BINARY, 77)),
    "signal a point of nobody": (BOTH_ENOENT, lambda s: s.signal(TIMELINE, 77, 9)),
}
OBJECTS: dict[str, tuple[object, Row]] = {
    "size 0": (-EINVAL, lambda s: s.calls.gem_new(0, VRAM)),
    "larger than VRAM": (-errno.ENOMEM, lambda s: s.calls.gem_new(1 << 40, VRAM)),
    "info of nobody": (-ENOENT, lambda s: s.calls.gem_info(77)),
    "prep of nobody": (-ENOENT, lambda s: s.calls.gem_cpu_prep(77, 0)),
    "fini of nobody": (-ENOENT, lambda s: s.calls.gem_cpu_fini(77)),
    "pushbuf": (-errno.ENOSYS, lambda s: s.calls.gem_pushbuf()),
    "unknown parameter": (-EINVAL, lambda s: s.calls.getparam(6)),
    "no address space again": (-errno.EBUSY, lambda s: s.calls.vm_init(0, PAGE)),  # UP-BUG: it is accepted
}
ROWS = VM_BIND | EXEC | SYNCS | OBJECTS


@every_way
@pytest.mark.parametrize("names", [[*VM_BIND], [*EXEC], [*SYNCS], [*OBJECTS]], ids=lambda names: names[0])
def test_every_row(way: type[Typed], names: list[str]) -> None:
    """One scene for many rows: nothing was changed by those before."""
    assert len(ROWS) == len(VM_BIND) + len(EXEC) + len(SYNCS) + len(OBJECTS)
    with scene_of(way) as s:
        before = state(s.program)
        for name in names:
            expected, call = ROWS[name]
            assert (name, call(s)) == (name, expected)
            assert state(s.program) == before, name
        s.program.bind(map_op(0, PAGE, s.bo.handle), unmap_op(0, PAGE))
        assert s.program.run() == 0


@every_way
class TestAddressSpace:
    @pytest.mark.parametrize(
        ("addr", "size"),
        [
            (0, END + PAGE),
            (END, PAGE),
            (END - PAGE, 2 * PAGE),
            (U64 - PAGE + 1, 2 * PAGE),
            (2 * PAGE, U64 - PAGE + 1),
            (512, PAGE),  # bug 47, UP-BUG: nobody looks at the alignment
            (0, 512),
        ],
    )
    def test_kernel_areas_that_do_not_fit(self, way: type[Typed], addr: int, size: int) -> None:
        with device_of() as device:
            calls = way(device.open())
            assert calls.vm_init(addr, size) == -EINVAL
            assert calls.client.vm is None
            assert calls.vm_bind([]) == -errno.ENOSYS
            assert calls.vm_init(*KERNEL) == 0

    @pytest.mark.parametrize(("addr", "size"), [(0, END), (END - PAGE, PAGE), (0, PAGE), (END, 0), (0, 0)])
    def test_kernel_areas_that_fit(self, way: type[Typed], addr: int, size: int) -> None:
        with device_of() as device:
            calls = way(device.open())
            assert calls.vm_init(addr, size) == 0
            outside = -EINVAL if size == END else 0
            assert calls.vm_bind([unmap_op(HUGE, PAGE)]) == outside
            if size:
                assert calls.vm_bind([unmap_op(addr, PAGE)]) == -EINVAL

    def test_the_series_wants_an_area(self, way: type[Typed]) -> None:
        with device_of() as device:
            calls = way(device.open(dialect=SERIES))
            assert calls.vm_init(HUGE, 0) == -EINVAL
            assert calls.vm_init(HUGE, PAGE) == 0

    def test_too_late(self, way: type[Typed]) -> None:
        """Who made objects or channels does it the old way for good."""
        with device_of() as device:
            for made in ("gem_new", "channel_alloc"):
                calls = way(device.open(name=made))
                assert (calls.gem_new(PAGE, VRAM) if made == "gem_new" else calls.channel_alloc()) == 0
                assert calls.vm_init(*KERNEL) == -errno.ENOSYS
                assert (calls.vm_bind([]), calls.exec(1)) == (-errno.ENOSYS, -errno.ENOSYS)
                assert calls.client.vm is None

    def test_without_one(self, way: type[Typed]) -> None:
        with device_of() as device:
            calls = way(device.open())
            assert calls.vm_bind([unmap_op(0, PAGE)]) == -errno.ENOSYS
            assert calls.exec(1) == -errno.ENOSYS
            assert calls.gem_new(PAGE, VRAM | NO_SHARE) == -EINVAL
            assert calls.gem_pushbuf() == -errno.ENOSYS
            assert len(calls.client.handles) == 0
            assert calls.vm_init(*KERNEL) == 0  # what was refused made no object


@every_way
def test_what_is_just_allowed(way: type[Typed]) -> None:
    with scene_of(way) as s:
        limit = s.program.client.getparam(17)
        s.program.client.view(s.program.scratch)[:] = 0
        assert s.exec(limit) == s.exec(1, 0) == s.exec(0) == 0
        assert s.map(END - PAGE, PAGE) == s.map(KERNEL[0] - PAGE, PAGE) == s.map(sum(KERNEL), PAGE) == 0
        assert s.map(0, PAGE, 3 * PAGE) == s.map(0, s.bo.size) == 0
        assert s.bind(unmap_op(0, KERNEL[0])) == s.bind() == 0
        assert s.calls.vm_bind([], run_async=True) == 0
        other_bits = 0x10 | TIMELINE
        assert s.wait_for(other_bits, s.timeline, 3) == s.signal(other_bits, s.timeline, 9) == (0, 0)
        long = s.program.bo(8 * HUGE, GART)
        s.program.bind(map_op(64 * HUGE, 8 * HUGE, long.handle))
        s.program.words(long)[:] = 0
        assert s.calls.exec(s.program.channel.id, [Push(64 * HUGE, MAX_LENGTH)]) == 0


@every_way
def test_a_region_twice(way: type[Typed]) -> None:
    """Exactly the same and empty: EEXIST, found where it is inserted; with a mapping in it: ENOSPC."""
    with scene_of(way) as s:
        assert s.bind(sparse_op(*REGION)) == -ENOSPC
        assert s.bind(unmap_op(*REGION)) == 0
        before = state(s.program)
        assert s.bind(sparse_op(*REGION)) == -errno.EEXIST
        assert s.bind(sparse_op(HUGE // 2, PAGE), sparse_op(HUGE // 2, PAGE)) == -errno.EEXIST
        assert state(s.program) == before


@every_way
class TestObjects:
    def test_info(self, way: type[Typed]) -> None:
        """In an address space of the client's own the offset says nothing, and is 0."""
        with scene_of(way) as s:
            assert s.calls.gem_new(PAGE + 1, VRAM, align=HUGE) == 0
            made = tuple(s.calls.answer)
            assert s.calls.gem_info(made[0]) == 0
            assert tuple(s.calls.answer) == made
            handle, domain, size, offset, map_handle, *_ = made
            assert (domain, offset, size % PAGE) == (VRAM, 0, 0)
            assert size > PAGE
            assert handle
            assert map_handle

    def test_cpu_prep(self, way: type[Typed]) -> None:
        """An execution keeps readers and writers out, a bind neither."""
        with scene_of(way) as s:
            shared, held = s.program.bo(), s.program.held()
            s.program.bind(map_op(0, BIG, shared.handle))
            pending = s.program.bind_behind(held, map_op(BIG, BIG, shared.handle))
            for flags in (1, 1 | 4):
                assert s.calls.gem_cpu_prep(shared.handle, flags) == 0
            done = s.program.exec(waits=[held.sync])
            for flags in (1, 1 | 4):
                assert s.calls.gem_cpu_prep(shared.handle, flags) == -errno.EBUSY
                assert s.calls.gem_cpu_prep(s.bo.handle, flags) == -errno.EBUSY
            held.let_go()
            assert s.calls.gem_cpu_prep(shared.handle, 0) == s.calls.gem_cpu_prep(shared.handle, 4) == 0
            assert (ended(pending), ended(done)) == (0, 0)
            assert s.calls.gem_cpu_fini(shared.handle) == 0

    def test_private_objects(self, way: type[Typed]) -> None:
        with scene_of(way) as s:
            assert s.calls.gem_new(PAGE, VRAM | NO_SHARE) == 0
            (handle, *_) = s.calls.answer
            before = state(s.program)
            with pytest.raises(PermissionDenied):
                s.program.client.prime_handle_to_fd(handle)
            assert state(s.program) == before
            fd = s.program.client.prime_handle_to_fd(s.bo.handle)
            try:
                other = Program(s.program.device)
                imported = other.client.prime_fd_to_handle(fd)
                other.bind(map_op(0, PAGE, imported))
            finally:
                os.close(fd)

    def test_where_the_gpu_cannot_reach(self, way: type[Typed]) -> None:
        with scene_of(way) as s:
            assert s.calls.gem_new(PAGE, CPU) == 0
            (handle, *_) = s.calls.answer
            before = state(s.program)
            assert s.calls.vm_bind([map_op(0, PAGE, handle)]) == -EINVAL
            assert state(s.program) == before
