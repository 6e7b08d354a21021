"""What is no push, no size and no time is refused at the call, and nothing has happened then."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

import pushbuf
from driver_world import MIB, SCRATCH, device_of, program_of, state
from gpuvm.errors import InvalidArgument
from gpuvm.nouveau import Device, Push, PushBuffer
from gpuvm.nouveau.engine.push_buffer import LARGEST_COPY, PUSH_MAX_LENGTH

NO_PUSHES: list[Any] = [
    None,
    8,
    (SCRATCH, 8, 0),
    Push(None, 8),  # type: ignore[arg-type]
    Push("x", 8),  # type: ignore[arg-type]
    Push(1.5, 8),  # type: ignore[arg-type]
    Push(-4, 8),
    Push(1 << 64, 8),
    Push(1 << 70, 8),
    Push(SCRATCH, None),  # type: ignore[arg-type]
    Push(SCRATCH, 8.0),  # type: ignore[arg-type]
    Push(SCRATCH, math.nan),  # type: ignore[arg-type]
    Push(SCRATCH, -4),
    Push(SCRATCH, PUSH_MAX_LENGTH + 1),
    Push(SCRATCH, 8, None),  # type: ignore[arg-type]
]


def test_what_is_no_push() -> None:
    with program_of() as program:
        client, id = program.client, program.channel.id
        good = program.push(pushbuf.Push().raw([0]))
        before = state(program)
        for push in NO_PUSHES:
            with pytest.raises(InvalidArgument, match=r"EXEC: .* pass a Push of ints"):
                client.exec(id, [good, push])
            assert state(program) == before
        client.exec(id, [good, Push((1 << 64) - 4, 0)])
        client.settle()
        assert not program.channel.killed


REFUSED: dict[str, tuple[Callable[[PushBuffer], object], str]] = {
    "negative copy": (lambda push: push.copy(0, 0, -1), "copy of -1 bytes; .* from 0 to"),
    "copy of no int": (lambda push: push.copy(0, 0, 1.5), "copy of 1.5 bytes"),  # type: ignore[arg-type]
    "endless copy": (lambda push: push.copy(0, 0, 1 << 63), "at most 0x7fffff bytes"),
    "copy from nowhere": (lambda push: push.copy(0, -1, 8), "src -1"),
    "copy beyond": (lambda push: push.copy((1 << 64) - LARGEST_COPY, 0, LARGEST_COPY + 1), "dst"),
    "negative fill": (lambda push: push.fill(0, -4, 0), "fill of -4 bytes; .* from 0 to"),
    "fill of half a word": (lambda push: push.fill(0, 6, 0), "fill of 0x6 bytes; pass a multiple of 4"),
    "endless fill": (lambda push: push.fill(0, 1 << 34, 0), "from 0 to 0x3fffffffc"),
    "fill beyond": (lambda push: push.fill((1 << 64) - 4, 8, 0), "dst"),
    "fill with more than a word": (lambda push: push.fill(0, 4, 1 << 32), "value 4294967296; .* 0xffffffff"),
    "subchannel": (lambda push: push.inc(8, 0x100, 1), "subchannel 8; .* from 0 to 0x7"),
    "negative subchannel": (lambda push: push.immediate(-1, 0x100, 1), "subchannel -1"),
    "method between": (lambda push: push.non_inc(4, 0x102, 1), "method 0x102; pass a multiple of 4"),
    "method beyond": (lambda push: push.one_inc(4, 0x4000, 1), "method 16384; .* 0x3fff"),
    "no method": (lambda push: push.inc(4, None, 1), "method None"),  # type: ignore[arg-type]
    "count": (lambda push: push.non_inc(4, 0x100, *[0] * 0x2000), "count .*8192; .* 0x1fff"),
    "immediate": (lambda push: push.immediate(4, 0x100, 0x2000), "immediate data 8192; .* 0x1fff"),
    "data": (lambda push: push.inc(4, 0x100, 0, 1 << 32), "data 4294967296; .* 0xffffffff"),
    "negative data": (lambda push: push.inc(4, 0x100, -1), "data -1"),
    "data of no int": (lambda push: push.inc(4, 0x100, 1.5), "data 1.5"),  # type: ignore[arg-type]
    "semaphore": (lambda push: push.acquire(-4, 1), "data -1"),
}


@pytest.mark.parametrize(("call", "match"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_not_appended(call: Callable[[PushBuffer], object], match: str) -> None:
    push = PushBuffer().raw([7])
    with pytest.raises(InvalidArgument, match=match):
        call(push)
    assert push.words.tolist() == [7]


def test_what_just_fits() -> None:
    push = PushBuffer().inc(7, 0x3FFC, *[0xFFFFFFFF] * 0x1FFF).immediate(7, 0x3FFC, 0x1FFF)
    assert push.words.tolist() == [0x3FFFEFFF, *[0xFFFFFFFF] * 0x1FFF, 0x9FFFEFFF]
    assert len(PushBuffer().fill(0, (1 << 34) - 4, 0).fill((1 << 64) - 4, 4, 0)) == 22 * 4
    assert len(PushBuffer().copy((1 << 64) - LARGEST_COPY, 0, LARGEST_COPY)) == 9 * 4


def test_a_push_that_is_nearly_full() -> None:
    push = PushBuffer()
    push.words.frombytes(bytes((PUSH_MAX_LENGTH // 4 - 10) * 4))
    before = len(push)
    with pytest.raises(InvalidArgument, match="begin another one"):
        push.copy(0, 0, LARGEST_COPY + 1)
    with pytest.raises(InvalidArgument, match="begin another one"):
        push.fill(0, 4, 0)
    assert len(push) == before
    assert len(push.copy(0, 0, LARGEST_COPY)) == before + 36 <= PUSH_MAX_LENGTH


def test_how_a_push_shows_itself() -> None:
    assert repr(PushBuffer()) == "<PushBuffer 0 words>"
    assert repr(PushBuffer().inc(4, 0x400, 1, 2)) == "<PushBuffer 3 words 20028100 00000001 00000002>"
    assert repr(PushBuffer().raw(range(5))) == "<PushBuffer 5 words 00000000 00000001 00000002 00000003 ...>"


@pytest.mark.parametrize("timeout", [1e300, 10**400, 9223372037, math.inf, math.nan, 0, -1, "10", [1], 1j])
def test_what_is_no_timeout(timeout: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"Device: timeout is .* at most 9223372036"):
        Device(vram=MIB, gart=MIB, timeout=timeout)


def test_the_longest_timeout() -> None:
    with program_of(timeout=9223372036) as program:
        assert program.run(pushbuf.Push().raw([0])) == 0


@pytest.mark.parametrize("dialect", [None, "x", "current", 1])
def test_what_is_no_dialect(dialect: Any) -> None:
    with device_of() as device:
        with pytest.raises(InvalidArgument, match="no dialect; pass CURRENT or SERIES"):
            device.open(dialect=dialect)
        assert device.clients == ()
