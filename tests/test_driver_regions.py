"""The original series' dialect: regions that are allocated and freed, and mappings that need one."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import pushbuf
from contention import strategy_of
from driver_calls import CODES, U64, WAYS, Array, Raw, Typed
from driver_failures import core_refuses
from driver_world import (
    BIG,
    HUGE,
    KERNEL,
    PAGE,
    SPARSE,
    Bo,
    Held,
    Program,
    device_of,
    ended,
    entry_of,
    map_op,
    state,
)
from gpuvm.errors import OutOfMemory
from gpuvm.nouveau.client import Client
from gpuvm.nouveau.device import Device
from gpuvm.nouveau.sync import Sync
from gpuvm.nouveau.uapi.dialects import SERIES
from gpuvm.nouveau.uapi.requests import Push, VmBindOp
from gpuvm.sync.fence import Fence
from gpuvm.testing import Interleaving
from suite import scaled

ALLOC, FREE, MAP, UNMAP = range(4)
every_way = pytest.mark.parametrize("way", WAYS)
sparse_or_not = pytest.mark.parametrize("sparse", [False, True], ids=["plain", "sparse"])
REGION = (16 * HUGE, HUGE)
START, END = REGION[0], sum(REGION)


def op(code: int, addr: int, range_: int, bo: Bo | None = None, offset: int = 0, flags: int = 0) -> VmBindOp:
    return VmBindOp(code, flags, 0 if bo is None else bo.handle, addr, offset, range_)


class Series:
    """A client of the series, and a program of today on the same device that looks at shared objects."""

    def __init__(self, device: Device, way: type[Typed] | type[Raw] = Typed) -> None:
        self.program = Program(device)
        self.client: Client = device.open(dialect=SERIES)
        self.calls = way(self.client)
        assert self.calls.vm_init(*KERNEL) == 0
        self.bo = self.new(HUGE)
        self.client.vm_bind(
            [op(ALLOC, *REGION), op(MAP, *REGION, self.bo), op(FREE, *REGION)]
        )  # it has memory

    def new(self, size: int) -> Bo:
        """An object of both."""
        made = self.program.bo(size)
        fd = self.program.client.prime_handle_to_fd(made.handle)
        try:
            return Bo(self.client.prime_fd_to_handle(fd), size, made.tag)
        finally:
            os.close(fd)

    def bind(self, *ops: VmBindOp) -> int:
        return self.calls.vm_bind(ops)

    def entries(self, *addrs: int) -> str:
        return "".join(entry_of(self.client, addr)[0] for addr in addrs)


@contextmanager
def series_of(way: type[Typed] | type[Raw] = Typed) -> Iterator[Series]:
    with device_of() as device:
        yield Series(device, way)


@every_way
@sparse_or_not
class TestRegions:
    def test_what_is_not_mapped(self, way: type[Typed], sparse: bool) -> None:
        with series_of(way) as s:
            empty = "s" if sparse else "i"
            assert s.bind(op(ALLOC, *REGION, flags=SPARSE * sparse)) == 0
            assert s.entries(START - PAGE, START, END - PAGE, END) == f"i{empty}{empty}i"
            assert s.bind(op(MAP, START + PAGE, 4 * PAGE, s.bo)) == 0
            assert s.bind(op(UNMAP, START + 2 * PAGE, PAGE)) == 0
            assert s.entries(*range(START, START + 4 * PAGE, PAGE)) == f"{empty}v{empty}v"
            assert s.bind(op(FREE, *REGION)) == 0
            assert s.entries(*range(START, START + 4 * PAGE, PAGE)) == "iiii"

    def test_errnos(self, way: type[Typed], sparse: bool) -> None:
        """Freeing what is no region is an error, bug 36."""
        with series_of(way) as s:
            flags = SPARSE * sparse
            assert s.bind(op(ALLOC, *REGION, flags=flags), op(ALLOC, END, PAGE)) == 0
            before = state(s)
            for wanted, request in (
                (errno.EINVAL, op(MAP, 0, PAGE, s.bo)),
                (errno.EINVAL, op(MAP, START - PAGE, 2 * PAGE, s.bo)),
                (errno.EINVAL, op(MAP, END - PAGE, 2 * PAGE, s.bo)),
                (errno.ENOENT, op(MAP, START, PAGE)),
                (errno.ENOENT, op(FREE, START, PAGE)),
                (errno.ENOENT, op(FREE, 0, PAGE)),
                (errno.ENOENT, op(FREE, START, HUGE + PAGE)),
                (errno.ENOSPC, op(ALLOC, START + PAGE, PAGE, flags=flags)),
                (errno.ENOSPC, op(ALLOC, START - PAGE, 4 * HUGE, flags=flags)),
                (errno.EEXIST, op(ALLOC, *REGION, flags=flags)),
                (errno.EINVAL, op(ALLOC, 0, 0, flags=flags)),
                (errno.EINVAL, op(ALLOC, KERNEL[0], PAGE, flags=flags)),
                (errno.EINVAL, op(FREE, START + 1, PAGE)),
                (errno.EINVAL, op(4, START, PAGE)),
            ):
                assert (request, s.bind(request)) == (request, -wanted)
                assert state(s) == before

    def test_a_call_that_fails_in_the_end(self, way: type[Typed], sparse: bool) -> None:
        """Bugs 37 to 39: everything is undone, and a region whose freeing was undone is as before."""
        with series_of(way) as s:
            flags = SPARSE * sparse
            assert s.bind(op(ALLOC, *REGION, flags=flags), op(MAP, START, BIG, s.bo)) == 0
            before = state(s)
            good = [
                op(UNMAP, START, PAGE),
                op(ALLOC, 0, PAGE, flags=flags),
                op(MAP, 0, PAGE, s.bo),
                op(FREE, *REGION),
            ]
            for wanted, bad in (
                (errno.ENOENT, op(FREE, *REGION)),
                (errno.EINVAL, op(MAP, START, PAGE, s.bo)),
                (errno.EINVAL, op(MAP, HUGE, PAGE, s.bo)),
            ):
                assert s.bind(*good, bad) == -wanted
                assert state(s) == before
            assert s.bind(op(MAP, END - PAGE, PAGE, s.bo)) == s.bind(*good) == 0
            assert s.entries(0, START, END - PAGE) == "vii"


def test_every_allocation_of_the_core() -> None:
    with series_of() as s:
        assert s.bind(op(ALLOC, *REGION, flags=SPARSE), op(MAP, START, BIG, s.bo)) == 0
        ops = [
            op(ALLOC, 0, HUGE),
            op(MAP, PAGE, 4 * PAGE, s.bo),
            op(UNMAP, 2 * PAGE, PAGE),
            op(FREE, *REGION),
            op(FREE, 0, HUGE),
            op(ALLOC, 1 << 40, HUGE, flags=SPARSE),
        ]
        before = state(s)
        for number in range(0, 1000, scaled(5, 1)):
            with core_refuses(number):
                try:
                    s.client.vm_bind(ops)
                except OutOfMemory:
                    assert state(s) == before
                else:
                    break
        assert 0 < number < 990
        assert s.entries(PAGE, START, 1 << 40) == "iis"


@every_way
class TestTheRestOfIt:
    def test_flags_of_maps(self, way: type[Typed]) -> None:
        """There is no sparse flag but of ALLOC; the kind is a byte, bug 35."""
        with series_of(way) as s:
            assert s.bind(op(ALLOC, *REGION), op(MAP, START, PAGE, s.bo, flags=SPARSE | 6)) == 0
            assert s.entries(START, START + PAGE) == "vi"
            assert s.client.page_table.translate(START).kind == 6  # type: ignore[union-attr]
            assert s.bind(op(UNMAP, START, PAGE, flags=SPARSE)) == 0
            assert s.entries(START) == "i"

    def test_both_dialects_on_one_object(self, way: type[Typed]) -> None:
        with series_of(way) as s:
            theirs = s.program.client
            handle = next(
                handle
                for handle, obj in theirs.handles.items()
                if obj is s.client.handles.lookup(s.bo.handle)
            )
            s.program.bind(map_op(HUGE, HUGE, handle))
            assert s.bind(op(ALLOC, *REGION), op(MAP, START, HUGE, s.bo)) == 0
            assert s.program.shows(HUGE, Bo(handle, HUGE, s.bo.tag), 0, BIG)
            s.client.view(s.bo.handle)[8] = 77
            assert s.program.look(HUGE + 8, 1) == b"\x4d"


class TestPushes:
    """Lengths are of 64 bits here, and the hardware's field still has 23, bug 63."""

    def test_lengths(self) -> None:
        with series_of(Raw) as s:
            channel = s.client.channel_alloc().id
            assert s.bind(op(ALLOC, *REGION), op(MAP, START, HUGE, s.bo)) == 0
            s.client.view(s.bo.handle)[:] = 0
            for length, expected in (
                (0, 0),
                (HUGE, 0),
                (0x800000, -errno.EINVAL),
                ((1 << 32) + 4, -errno.EINVAL),
                (U64, -errno.EINVAL),
            ):
                assert self.exec(s.client, channel, START, length) == expected

    def test_they_are_executed(self) -> None:
        with series_of(Raw) as s:
            channel = s.client.channel_alloc().id
            assert s.bind(op(ALLOC, *REGION), op(MAP, START, HUGE, s.bo)) == 0
            words = bytes(pushbuf.Push().fill(START + BIG, PAGE, 0x01020304))
            s.client.view(s.bo.handle)[: len(words)] = memoryview(words)
            assert self.exec(s.client, channel, START, len(words)) == 0
            s.client.settle()
            assert s.client.view(s.bo.handle)[BIG : BIG + PAGE].tobytes() == b"\4\3\2\1" * (PAGE // 4)

    @staticmethod
    def exec(client: Client, channel: int, va: int, length: int) -> int:
        pushes = Array("<QQ", [(va, length)])
        buffer = bytearray(struct.pack("<IIIIQQQ", channel, 1, 0, 0, 0, 0, pushes.addr))
        return client.ioctl(CODES["exec"], buffer)

    def test_typed(self) -> None:
        with series_of() as s:
            channel = s.client.channel_alloc().id
            assert s.calls.exec(channel, [Push(START, (1 << 32) + 4)]) == -errno.EINVAL


@sparse_or_not
@pytest.mark.parametrize("again", ["map", "alloc"])
def test_who_comes_while_a_region_is_being_freed(sparse: bool, again: str) -> None:
    """Bug 44: it waits, and finds the region gone."""
    for seed in range(scaled(8, 200)):
        with Interleaving(strategy_of(seed)) as run, series_of() as s:
            flags = SPARSE * sparse
            assert s.bind(op(ALLOC, *REGION, flags=flags), op(MAP, START, BIG, s.bo)) == 0
            held = Held(s.program)
            wait = Sync(0, s.client.syncobjs.insert(held.syncobj))
            s.client.vm_bind([op(FREE, *REGION)], [wait], run_async=True)

            def come(s: Series = s, fence: Fence = held.fence, flags: int = flags) -> None:
                if again == "map":
                    assert s.bind(op(MAP, START, PAGE, s.bo)) == -errno.EINVAL
                else:
                    assert s.bind(op(ALLOC, *REGION, flags=flags), op(MAP, START, PAGE, s.bo)) == 0
                assert fence.signalled

            run.spawn(come)
            run.spawn(held.let_go)
            run.run()
            empty = "s" if sparse and again == "alloc" else "i"
            assert s.entries(START, START + PAGE) == ("v" if again == "alloc" else "i") + empty
            assert ended(held.fence) == 0
