"""What a program is told of what went wrong: why a channel died, what an ioctl and an operation lacked."""

from __future__ import annotations

import errno
import gc
import weakref
from collections.abc import Iterator

import pytest

from driver_world import BIG, GART, PAGE, Program, device_of, ended, map_op, program_of, sparse_op
from driver_world import unmap_op as unmap
from gpuvm.errors import GpuvmError, InvalidArgument, NoDevice, NotFound
from gpuvm.nouveau import CURRENT, SERIES, VmBindOp
from gpuvm.nouveau.channel import Channel
from gpuvm.nouveau.uapi import numbers
from gpuvm.testing import Interleaving
from pushbuf import Push as Words

A, SEMAPHORE, NOWHERE = 0x10_0000, 0x50_0000, 0xDEAD_0000


@pytest.fixture
def program() -> Iterator[Program]:
    with program_of() as program:
        yield program


# -- why a channel died


def dead(program: Program) -> Channel:
    """The program's, after a look at all that tells why it died."""
    channel = program.channel
    assert channel.killed
    statistics = channel.statistics()
    assert (statistics.killed, statistics.killed_by) == (True, channel.killed_by)
    with pytest.raises(NoDevice) as refused:
        program.exec()
    assert channel.killed_by in str(refused.value)
    return channel


def test_nothing_killed_it_while_it_lives(program: Program) -> None:
    assert program.run(Words()) == 0
    assert program.channel.killed_by == program.channel.statistics().killed_by == ""


def test_the_first_reason_stays(program: Program) -> None:
    program.channel.kill("by hand")
    program.channel.kill("again")
    assert dead(program).killed_by == "by hand"


def test_a_fault(program: Program) -> None:
    assert program.run(Words().fill(NOWHERE, PAGE, 0)) == errno.ENODEV
    assert dead(program).killed_by == str(program.device.faults[-1])


@pytest.mark.parametrize("waits", [True, False])
def test_a_job_that_took_too_long(waits: bool) -> None:
    """With the semaphore that it waits for, and what is there."""
    with Interleaving(0), program_of(timeout=2.5) as program:
        bo = program.client.gem_new(BIG, GART).handle
        program.bind(map_op(SEMAPHORE, BIG, bo))
        program.client.view(bo)[0] = 7
        if waits:
            stuck = program.exec(Words().acquire(SEMAPHORE, 0x12))
            assert ended(stuck) == errno.ENODEV
        else:
            program.channel.processor.execute = lambda va, va_len: program.device.semaphores.wait_until(  # type: ignore[method-assign]
                lambda: False, lambda: program.channel.killed
            )
            assert program.run(Words()) == errno.ENODEV
        where = f": it acquires 0x12 at {SEMAPHORE:#x}, where 0x7 is" if waits else ""
        assert dead(program).killed_by == f"a job took longer than 2.5 s{where}"
        assert program.channel.processor.waiting == ""


def test_a_channel_that_was_freed() -> None:
    with Interleaving(0), program_of(timeout=None) as program:
        program.bind(map_op(SEMAPHORE, BIG, program.client.gem_new(BIG, GART).handle))
        channel, stuck = program.channel, program.exec(Words().acquire(SEMAPHORE, 1))
        program.client.channel_free(channel.id)
        assert (ended(stuck), "freed" in channel.killed_by) == (errno.ENODEV, True)


# -- what an ioctl says


def test_the_last_error_of_an_ioctl(program: Program) -> None:
    """It is that of the typed call, and stays until the next one."""
    client, data = program.client, bytearray((77).to_bytes(8, "little"))
    assert client.last_error == ""
    assert client.ioctl(numbers.GEM_CLOSE.request, data) < 0
    with pytest.raises(GpuvmError) as typed:
        client.gem_close(77)
    assert client.last_error == str(typed.value)
    assert client.ioctl(numbers.GETPARAM.request, bytearray((11).to_bytes(16, "little"))) == 0
    assert client.last_error == str(typed.value)


def test_an_ioctl_that_there_is_not(program: Program) -> None:
    client = program.client
    assert client.ioctl(0xC010_5440, bytearray(16)) == -errno.ENOTTY
    assert "0x54" in client.last_error
    assert client.ioctl(0x9F, bytearray(16)) == -errno.EINVAL
    assert "0x9f" in client.last_error


def test_a_closed_clients_ioctl() -> None:
    with device_of() as device:
        client = device.open()
        client.close()
        assert client.ioctl(numbers.GETPARAM.request, bytearray(16)) == -errno.EBADF
        assert "[EBADF]" in client.last_error


def test_the_last_error_holds_no_object() -> None:
    """Neither the client nor what was looked at is kept by it."""
    with device_of() as device:
        client = device.open()
        assert client.ioctl(numbers.GEM_CLOSE.request, bytearray(8)) < 0
        client.close()
        gone = weakref.ref(client)
        del client
        gc.collect()
        assert gone() is None


# -- which operation


def told(program: Program, *ops: VmBindOp) -> tuple[type[GpuvmError], int | None, list[str]]:
    """Of the error, which is not kept: it holds an object."""
    try:
        program.bind(*ops)
    except GpuvmError as error:
        return type(error), error.request, getattr(error, "__notes__", [])
    raise AssertionError("not refused")


@pytest.mark.parametrize(
    ("wrong", "kind", "what"),
    [
        (map_op(A, PAGE, 77), NotFound, "MAP [0x100000, 0x101000) handle 77"),
        (VmBindOp(9, 0, 3, A, 0, PAGE), InvalidArgument, "9 [0x100000, 0x101000)"),
        (unmap(A + 1, PAGE), InvalidArgument, "UNMAP [0x100001, 0x101001)"),
        (sparse_op(A, PAGE + 1), InvalidArgument, "MAP sparse [0x100000, 0x101001)"),
    ],
)
def test_which_of_several(program: Program, wrong: VmBindOp, kind: type[GpuvmError], what: str) -> None:
    notes = [f"VM_BIND: operation 1 of 3: {what}"]
    assert told(program, unmap(A, PAGE), wrong, unmap(A, PAGE)) == (kind, 1, notes)
    assert told(program, wrong) == (kind, 0, [])


def test_an_object_that_is_too_small(program: Program) -> None:
    bo = program.bo(PAGE)
    notes = [f"VM_BIND: operation 1 of 2: MAP [0x100000, 0x102000) handle {bo.handle}"]
    too_small = told(program, unmap(A, PAGE), map_op(A, 2 * PAGE, bo.handle))
    assert too_small == (InvalidArgument, 1, notes)


def test_an_operation_of_the_series(program: Program) -> None:
    client = program.device.open(dialect=SERIES)
    client.vm_init(1 << 39, 1 << 39)
    ops = [VmBindOp(0, 0, 0, A, 0, PAGE), VmBindOp(1, 0, 0, 4 * A, 0, PAGE)]
    with pytest.raises(GpuvmError) as refused:
        client.vm_bind(ops)
    assert refused.value.__notes__ == ["VM_BIND: operation 1 of 2: FREE [0x400000, 0x401000)"]


def test_what_is_about_no_operation_names_none() -> None:
    error = InvalidArgument("something else")
    CURRENT.tell(error, [unmap(A, PAGE)] * 2)
    assert not hasattr(error, "__notes__")
