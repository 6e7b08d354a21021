"""Calls as bytes: what each writes back, and in what order it looks at what it got."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

import pytest

from gpuvm.nouveau.device import Device
from gpuvm.nouveau.uapi import numbers
from gpuvm.sync import task
from uapi_program import Program, no_descriptor_left

NOWHERE = 8
"""An address where nothing is ever mapped."""
RUN_ASYNC = 1
SPARSE = 1 << 8


@pytest.fixture
def device() -> Iterator[Device]:
    with Device(vram=16 << 20, gart=16 << 20) as device:
        yield device
        device.check()


@pytest.fixture
def program(device: Device) -> Iterator[Program]:
    """Of a client without an address space."""
    with device.open() as client:
        yield Program(client)
        client.check()


@pytest.fixture
def bound(program: Program) -> Program:
    """Of a client with one."""
    program.do(numbers.VM_INIT, kernel_managed_addr=1 << 39, kernel_managed_size=1 << 39)
    return program


# -- DRM


def test_version(program: Program) -> None:
    """Called twice, as libdrm does: for the lengths, then for the strings."""
    lengths = program.do(numbers.VERSION)
    assert [lengths[f"version_{part}"] for part in ("major", "minor", "patchlevel")] == [1, 4, 0]
    assert lengths["name_len"] == len("nouveau")
    room = {name: lengths[f"{name}_len"] for name in ("name", "date", "desc")}
    at = {name: program.buffer(b"\xaa" * (length + 1)) for name, length in room.items()}
    again = program.do(numbers.VERSION, **at, **{f"{name}_len": length for name, length in room.items()})
    assert again == {**lengths, **at}
    assert program.bytes_at(at["name"], 8) == b"nouveau\xaa"
    for name, length in room.items():
        assert program.bytes_at(at[name], length + 1)[length:] == b"\xaa"


def test_version_in_too_little_room(program: Program) -> None:
    name = program.buffer(b"\xaa" * 8)
    answer = program.do(numbers.VERSION, name=name, name_len=3, desc=NOWHERE, date=NOWHERE)
    assert program.bytes_at(name, 8) == b"nou" + b"\xaa" * 5
    assert answer["name_len"] == 7
    assert answer["desc_len"] > 0


def test_version_with_a_bad_pointer_tells_what_it_can(program: Program) -> None:
    name = program.buffer(b"\xaa" * 8)
    result = program.call(numbers.VERSION, name=name, name_len=8, date=NOWHERE, date_len=99, desc_len=99)
    assert result == -errno.EFAULT
    assert program.bytes_at(name, 8) == b"nouveau\xaa"
    assert program.answer["version_minor"] == 4
    assert program.answer["date_len"] == len(program.client.version().date)
    assert program.answer["desc_len"] == 99


@pytest.mark.parametrize(("capability", "value"), [(0x05, 3), (0x13, 1), (0x14, 1)])
def test_capabilities(program: Program, capability: int, value: int) -> None:
    assert program.do(numbers.GET_CAP, capability=capability, value=77)["value"] == value


def test_a_capability_that_it_lacks(program: Program) -> None:
    assert program.call(numbers.GET_CAP, capability=0x01, value=77) == -errno.EOPNOTSUPP
    assert program.answer["value"] == 0


def test_nobody_is_authenticated(program: Program) -> None:
    for magic in (0, 1, 0xFFFFFFFF):
        assert program.call(numbers.AUTH_MAGIC, magic=magic) == -errno.EINVAL


# -- objects


def test_objects(program: Program) -> None:
    new = program.do(
        numbers.GEM_NEW, domain=2 | 8, size=5000, align=0x4000, channel_hint=7, handle=99, map_handle=99
    )
    assert (new["handle"], new["size"], new["channel_hint"], new["align"]) == (1, 0x4000, 7, 0x4000)
    info = program.do(numbers.GEM_INFO, handle=1, size=99, offset=99)
    assert {name: new[name] for name in info} == info
    assert program.call(numbers.GEM_CPU_PREP, handle=1, flags=4) == 0
    assert program.call(numbers.GEM_CPU_FINI, handle=1) == 0
    assert program.call(numbers.GEM_CLOSE, handle=1, pad=5) == 0
    assert program.call(numbers.GEM_CLOSE, handle=1) == -errno.EINVAL
    for ioctl in (numbers.GEM_INFO, numbers.GEM_CPU_PREP, numbers.GEM_CPU_FINI):
        assert program.call(ioctl, handle=1) == -errno.ENOENT
    assert program.call(numbers.GEM_NEW, domain=2) == -errno.EINVAL
    assert program.call(numbers.GEM_PUSHBUF) == -errno.ENOSYS


def test_objects_by_file(device: Device, program: Program) -> None:
    handle = program.do(numbers.GEM_NEW, domain=4, size=4096)["handle"]
    fd = program.do(numbers.PRIME_HANDLE_TO_FD, handle=handle, flags=os.O_CLOEXEC | os.O_RDWR)["fd"]
    try:
        with device.open() as other:
            imported = Program(other).do(numbers.PRIME_FD_TO_HANDLE, fd=fd, flags=0xFFFF)["handle"]
            assert Program(other).do(numbers.GEM_INFO, handle=imported)["size"] == 4096
        assert program.do(numbers.PRIME_FD_TO_HANDLE, fd=fd)["handle"] == handle
    finally:
        os.close(fd)
    assert program.call(numbers.PRIME_HANDLE_TO_FD, handle=handle, flags=1) == -errno.EINVAL
    assert program.call(numbers.PRIME_HANDLE_TO_FD, handle=handle + 1) == -errno.ENOENT
    assert program.call(numbers.PRIME_FD_TO_HANDLE, fd=-1) == -errno.EBADF
    with no_descriptor_left():
        assert program.call(numbers.PRIME_HANDLE_TO_FD, handle=handle, fd=77) == -errno.EMFILE
    assert program.answer["fd"] == 77
    assert program.do(numbers.GEM_INFO, handle=handle)["size"] == 4096


@pytest.mark.parametrize(("domain", "told"), [(0, 2), (1, 2), (2, 2), (4, 4), (6, 2), (2 | 8, 2), (5, 4)])
def test_where_an_object_is_said_to_be(program: Program, domain: int, told: int) -> None:
    """One of VRAM and GART; the kernel knows no third (``nouveau_gem_info``)."""
    made = program.do(numbers.GEM_NEW, domain=domain, size=4096)
    assert made["domain"] == told
    assert program.do(numbers.GEM_INFO, handle=made["handle"])["domain"] == told


# -- channels


def test_channels(bound: Program) -> None:
    answer = bound.do(numbers.CHANNEL_ALLOC, channel=77, pushbuf_domains=77, notifier_handle=77, nr_subchan=5)
    assert answer == {
        "fb_ctxdma_handle": 0,
        "tt_ctxdma_handle": 0,
        "channel": 1,
        "pushbuf_domains": 6,
        "notifier_handle": 0,
        "nr_subchan": 5,
    }
    assert bound.call(numbers.CHANNEL_FREE, channel=1) == 0
    assert bound.call(numbers.CHANNEL_FREE, channel=1) == -errno.ENOENT
    assert bound.call(numbers.CHANNEL_FREE, channel=-1) == -errno.ENOENT


@pytest.mark.parametrize(
    ("fb", "tt", "result"),
    [
        (0, 0, 0),
        (0xFFFFFFFF, 0x01, 0),
        (0xFFFFFFFF, 0x30, 0),
        (0xFFFFFFFF, 0x02, -errno.EINVAL),
        (0xFFFFFFFF, 0x08, -errno.EINVAL),
        (0xFFFFFFFF, 0x03, -errno.ENOSYS),
        (0xFFFFFFFF, 0xFFFFFFFF, -errno.ENOSYS),
        (0, 0xFFFFFFFF, -errno.EINVAL),
    ],
)
def test_engines_of_channels(program: Program, fb: int, tt: int, result: int) -> None:
    assert program.call(numbers.CHANNEL_ALLOC, fb_ctxdma_handle=fb, tt_ctxdma_handle=tt) == result
    refused = {"fb_ctxdma_handle": fb, "tt_ctxdma_handle": tt}
    made = {"fb_ctxdma_handle": 0, "tt_ctxdma_handle": 0}
    assert {name: program.answer[name] for name in made} == (refused if result else made)
    # A call that was refused has not taken the address space away, as the kernel's would have.
    vm_init = program.call(numbers.VM_INIT, kernel_managed_size=4096)
    assert vm_init == (0 if result else -errno.ENOSYS)


def test_params(program: Program) -> None:
    assert program.do(numbers.GETPARAM, param=17)["value"] == 510
    before = task.now()
    assert before <= program.do(numbers.GETPARAM, param=14)["value"] <= task.now()
    assert program.call(numbers.GETPARAM, param=1, value=5) == -errno.EINVAL
    assert program.answer["value"] == 5


# -- VM_BIND and EXEC


def test_binding_and_executing(bound: Program) -> None:
    handle = bound.do(numbers.GEM_NEW, domain=2, size=0x10000)["handle"]
    channel = bound.do(numbers.CHANNEL_ALLOC)["channel"]
    done, turn = (bound.do(numbers.SYNCOBJ_CREATE)["handle"] for _ in range(2))
    ops = bound.ops({"op": 0, "flags": 6, "handle": handle, "addr": 0x100000, "range": 0x10000})
    bound.do(numbers.VM_BIND, flags=RUN_ASYNC, **ops, **bound.syncs("sig", (0, done, 0), (1, turn, 5)))
    bound.do(
        numbers.EXEC,
        channel=channel,
        **bound.syncs("wait", (1, turn, 5)),
        **bound.syncs("sig", (1, turn, 6)),
    )
    wait = {"handles": bound.u32s(turn), "points": bound.u64s(6), "count_handles": 1}
    bound.do(numbers.SYNCOBJ_TIMELINE_WAIT, **wait, timeout_nsec=(1 << 63) - 1)
    assert bound.client.vm is not None
    va = bound.client.vm.find_first(0x100000, 1)
    assert va is not None
    assert (va.addr, va.range) == (0x100000, 0x10000)


def test_pushes_are_decoded(bound: Program) -> None:
    channel = bound.do(numbers.CHANNEL_ALLOC)["channel"]
    long = bound.pushes({"va": 0x100000, "va_len": 4}, {"va": 0x200000, "va_len": 0x800000})
    assert bound.call(numbers.EXEC, channel=channel, **long) == -errno.EINVAL
    many = bound.pushes(*[{"va": 0x100000, "va_len": 4}] * 511)
    assert bound.call(numbers.EXEC, channel=channel, **many) == -errno.EINVAL


@pytest.mark.parametrize("which", ["op", "wait", "sig"])
def test_a_bind_with_a_bad_pointer(bound: Program, which: str) -> None:
    """Before it is noticed that syncs need RUN_ASYNC, that an operation does not exist, or a handle."""
    fields = {"flags": 0, **bound.ops({"op": 7}), **bound.syncs("wait", (9, 9, 9))}
    fields |= {f"{which}_count": 1, f"{which}_ptr": NOWHERE}
    assert bound.call(numbers.VM_BIND, **fields) == -errno.EFAULT
    del fields["op_count"]
    assert bound.call(numbers.VM_BIND, **fields) == (-errno.EINVAL if which == "op" else -errno.EFAULT)


def test_the_order_of_a_binds_checks(program: Program) -> None:
    bad = {"op_count": 1, "op_ptr": NOWHERE}
    assert program.call(numbers.VM_BIND, **bad) == -errno.ENOSYS
    program.do(numbers.VM_INIT, kernel_managed_size=4096)
    assert program.call(numbers.VM_BIND, **bad) == -errno.EFAULT
    assert program.call(numbers.VM_BIND, op_count=1 << 31, op_ptr=NOWHERE) == -errno.ENOMEM
    unknown, without_handle = {"op": 2}, {"op": 0, "handle": 5, "addr": 1}
    syncs = program.syncs("sig", (9, 9, 9))
    assert program.call(numbers.VM_BIND, **program.ops(unknown), **syncs) == -errno.EINVAL
    assert program.call(numbers.VM_BIND, **program.ops(without_handle, unknown)) == -errno.EINVAL
    assert program.call(numbers.VM_BIND, **program.ops(without_handle)) == -errno.ENOENT
    assert program.call(numbers.VM_BIND, op_ptr=NOWHERE, wait_ptr=NOWHERE, sig_ptr=NOWHERE) == 0


def test_the_order_of_an_execs_checks(program: Program) -> None:
    bad = {"push_count": 1, "push_ptr": NOWHERE}
    assert program.call(numbers.EXEC, channel=1, **bad) == -errno.ENOSYS
    program.do(numbers.VM_INIT, kernel_managed_size=4096)
    assert program.call(numbers.EXEC, channel=1, **bad) == -errno.ENOENT
    channel = program.do(numbers.CHANNEL_ALLOC)["channel"]
    assert program.call(numbers.EXEC, channel=channel, push_count=511, push_ptr=NOWHERE) == -errno.EINVAL
    assert program.call(numbers.EXEC, channel=channel, **bad) == -errno.EFAULT
    too_long = program.pushes({"va": 0, "va_len": 1 << 31})
    wait = {"wait_count": 1, "wait_ptr": NOWHERE}
    assert program.call(numbers.EXEC, channel=channel, **too_long, **wait) == -errno.EFAULT
    program.client.channels[channel].kill("by hand")
    assert program.call(numbers.EXEC, channel=channel, push_count=511, push_ptr=NOWHERE) == -errno.ENODEV


def test_an_address_space_once(bound: Program) -> None:
    assert bound.call(numbers.VM_INIT, kernel_managed_size=4096) == -errno.EBUSY


@pytest.mark.parametrize(
    ("addr", "size"), [((1 << 64) - 4096, 8192), ((1 << 64) - 4096, 4096), (1, 4096), (1 << 47, 4096)]
)
def test_kernel_areas_that_are_none(program: Program, addr: int, size: int) -> None:
    fields = {"kernel_managed_addr": addr, "kernel_managed_size": size}
    assert program.call(numbers.VM_INIT, **fields) == -errno.EINVAL
    assert program.call(numbers.VM_INIT) == 0
