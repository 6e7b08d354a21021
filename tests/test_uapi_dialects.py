"""The two dialects of VM_BIND: what numbers and flags mean in each, through bytes, also another process's."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest

from gpuvm.errors import InvalidArgument, NotFound
from gpuvm.mem import GemObject
from gpuvm.mem.handles import GemHandles
from gpuvm.nouveau import BindOp, OpCode
from gpuvm.nouveau.device import Device
from gpuvm.nouveau.uapi import CURRENT, SERIES, Caller, Dialect, UserMemory, numbers, structs
from gpuvm.nouveau.uapi.requests import VmBindOp
from gpuvm.va import Regions
from uapi_program import Program, filled
from user_pages import PAGE, Pages, child

SPARSE = 1 << 8


@pytest.fixture
def device() -> Iterator[Device]:
    with Device(vram=16 << 20, gart=16 << 20) as device:
        yield device
        device.check()


@pytest.fixture
def nobody(device: Device) -> GemHandles:
    return GemHandles(device.mem)


def op(number: int, flags: int = 0, handle: int = 1) -> VmBindOp:
    return VmBindOp(number, flags, handle, 0x1000, 0x2000, 0x3000)


def handles_of(obj: GemObject) -> GemHandles:
    """One, 1."""
    handles = GemHandles(obj.device)
    handles.create(obj)
    return handles


def as_bytes(ops: list[VmBindOp]) -> bytearray:
    data = bytearray(len(ops) * structs.VM_BIND_OP.size)
    for place, one in enumerate(ops):
        structs.VM_BIND_OP.pack_into(data, place * structs.VM_BIND_OP.size, *one)
    return data


def test_operations_of_today(device: Device) -> None:
    obj = device.mem.create(PAGE)
    unknown = 0xFFFFFE00
    asked = [op(0), op(0, 0x106), op(1, 6), op(1, 0x106), op(0, 0xE06 | unknown)]
    for ops in (asked, tuple(asked), as_bytes(asked)):
        assert list(CURRENT.bind_ops(ops, handles_of(obj))) == [
            BindOp(OpCode.MAP, 0x1000, 0x3000, obj, 0x2000),
            BindOp(OpCode.MAP, 0x1000, 0x3000, sparse=True),
            BindOp(OpCode.UNMAP, 0x1000, 0x3000),
            BindOp(OpCode.UNMAP, 0x1000, 0x3000, sparse=True),
            BindOp(OpCode.MAP, 0x1000, 0x3000, obj, 0x2000, kind=6),
        ]


def test_operations_of_the_series(device: Device) -> None:
    """A kind is 8 bits, not whether there are any (its bug); only an ALLOC may be sparse."""
    obj = device.mem.create(PAGE)
    ops = [op(0), op(0, SPARSE), op(1, SPARSE), op(2, 0xDB), op(2, SPARSE | 6), op(3, SPARSE | 6)]
    assert list(SERIES.bind_ops(ops, handles_of(obj))) == [
        BindOp(OpCode.ALLOC, 0x1000, 0x3000),
        BindOp(OpCode.ALLOC, 0x1000, 0x3000, sparse=True),
        BindOp(OpCode.FREE, 0x1000, 0x3000),
        BindOp(OpCode.MAP, 0x1000, 0x3000, obj, 0x2000, kind=0xDB),
        BindOp(OpCode.MAP, 0x1000, 0x3000, obj, 0x2000, kind=6),
        BindOp(OpCode.UNMAP, 0x1000, 0x3000),
    ]


@pytest.mark.parametrize(("dialect", "numbers"), [(CURRENT, 2), (SERIES, 4)])
def test_numbers_come_before_handles(dialect: Dialect, numbers: int, nobody: GemHandles) -> None:
    show = next(number for number in range(numbers) if dialect.meanings[number].code is OpCode.MAP)
    with pytest.raises(NotFound, match="no handle 1;") as missing:
        dialect.bind_ops([op(1 - show % 2, handle=0), op(show)], nobody)
    assert (missing.value.value, missing.value.request) == (1, 1)
    for bad in (numbers, 0xFFFFFFFF):
        with pytest.raises(InvalidArgument, match="operation 1") as caught:
            dialect.bind_ops([op(show), op(bad)], nobody)
        assert caught.value.value == bad
        assert caught.value.bound == tuple(range(numbers))
    assert list(dialect.bind_ops([], nobody)) == []


def test_only_what_is_shown_needs_an_object(nobody: GemHandles) -> None:
    CURRENT.bind_ops([op(0, SPARSE), op(1), op(1, SPARSE)], nobody)
    SERIES.bind_ops([op(0), op(0, SPARSE), op(1), op(3)], nobody)


def test_what_sets_them_apart() -> None:
    assert (CURRENT.regions, SERIES.regions) == (Regions.SPARSE, Regions.REQUIRED)
    assert (CURRENT.empty_kernel_area, SERIES.empty_kernel_area) == (True, False)


def test_regions_of_the_series(device: Device) -> None:
    with device.open(dialect=SERIES) as client:
        program = Program(client)
        assert program.call(numbers.VM_INIT) == -errno.EINVAL
        program.do(numbers.VM_INIT, kernel_managed_size=PAGE)
        handle = program.do(numbers.GEM_NEW, domain=2, size=4 * PAGE)["handle"]

        def bind(number: int, addr: int, range: int, flags: int = 0) -> int:
            one = {"op": number, "flags": flags, "handle": handle, "addr": addr, "range": range}
            return program.call(numbers.VM_BIND, **program.ops(one))

        assert bind(2, 0x10000, PAGE) == -errno.EINVAL  # no region
        assert bind(0, 0x10000, 8 * PAGE, SPARSE) == 0
        assert bind(2, 0x10000, 4 * PAGE) == 0
        assert bind(2, 0x10000 + 6 * PAGE, 4 * PAGE) == -errno.EINVAL  # half of it outside
        assert bind(3, 0x10000, PAGE) == 0
        assert bind(1, 0x10000, PAGE) == -errno.ENOENT  # no such region, which went through (its bug)
        assert bind(1, 0x10000, 8 * PAGE) == 0
        assert bind(2, 0x10000, PAGE) == -errno.EINVAL
        client.check()


def test_pushes_of_the_series(device: Device) -> None:
    """Their length has 64 bits, and the hardware's 23 bound it all the same."""
    with device.open(dialect=SERIES) as client:
        program = Program(client)
        program.do(numbers.VM_INIT, kernel_managed_size=PAGE)
        channel = program.do(numbers.CHANNEL_ALLOC)["channel"]
        for length in (0x800000, 1 << 32, (1 << 64) - 1):
            pushes = program.pushes({"va": 0x10000, "va_len": 4}, {"va": 0x10000, "va_len": length})
            assert program.call(numbers.EXEC, channel=channel, **pushes) == -errno.EINVAL
        assert program.call(numbers.EXEC, channel=channel) == 0


def test_a_call_of_another_process(device: Device) -> None:
    """Its structure was handed over; its arrays are read, and answers written, where it has them."""
    pages = Pages(1)
    with device.open() as client:
        client.vm_init(0, PAGE)
        handle = client.gem_new(PAGE, 2).handle
        theirs = filled(structs.VM_BIND_OP, handle=handle, addr=0x20000, range=PAGE)

        def prepare() -> None:
            pages.map[: len(theirs)] = theirs

        with child(prepare) as pid:
            caller = Caller.own()._replace(memory=UserMemory(pid))
            program = Program(client, caller)
            program.do(numbers.VM_BIND, op_count=1, op_ptr=pages.addr)
            program.do(numbers.VERSION, name=pages.addr, name_len=7)
            assert caller.memory.read(pages.addr, 7) == b"nouveau"
        assert client.vm is not None
        assert client.vm.find_first(0x20000, 1) is not None
    assert pages.map[:] == bytes(PAGE)
    pages.close()
