"""Two mistakes in one call: the one that is looked at first decides, in the order of the document."""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import pytest

import pushbuf
from driver_calls import WAYS, Raw, Typed
from driver_world import (
    BIG,
    BINARY,
    HUGE,
    KERNEL,
    MIB,
    PAGE,
    SCRATCH,
    TIMELINE,
    VRAM,
    Bo,
    Program,
    device_of,
    drop_op,
    map_op,
    sparse_op,
    state,
)
from gpuvm.nouveau.sync import Sync
from gpuvm.nouveau.uapi.requests import Push, VmBindOp

every_way = pytest.mark.parametrize("way", WAYS)
REGION = (16 * HUGE, 16 * PAGE)
LARGE = 6 * MIB
"""One fits into VRAM, two do not."""


@dataclass
class Request:
    """What is passed to a call; mistakes are put in front of what is there."""

    program: Program
    large: tuple[Bo, Bo]
    empty: int
    full: int
    ops: list[VmBindOp] = field(default_factory=list)
    waits: list[Sync] = field(default_factory=list)
    signals: list[Sync] = field(default_factory=list)
    pushes: list[Push] = field(default_factory=list)
    channel: int = 1
    run_async: bool = True

    def first(self, *ops: VmBindOp) -> None:
        self.ops[:0] = ops

    def waits_first(self, *sync: int) -> None:
        self.waits.insert(0, Sync(*sync))

    def signals_first(self, *sync: int) -> None:
        self.signals.insert(0, Sync(*sync))

    def bind(self, calls: Any) -> int:
        ops, waits, signals = self.ops, self.waits, self.signals
        return int(calls.vm_bind(ops, waits, signals, run_async=self.run_async))

    def exec(self, calls: Any) -> int:
        return int(calls.exec(self.channel, self.pushes, self.waits, self.signals))


class Scene:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.large = program.bo(LARGE), program.bo(LARGE)
        program.bind(sparse_op(*REGION))
        syncobjs = program.client.syncobjs
        self.empty, self.full = syncobjs.create(0), syncobjs.create(1)
        self.dead = program.client.channel_alloc().id
        faulty = program.client.channels[self.dead]
        assert program.run(pushbuf.Push().fill(PAGE, 4, 0), channel=faulty) == errno.ENODEV

    def request(self) -> Request:
        return Request(self.program, self.large, self.empty, self.full, [drop_op(*REGION)])


@contextmanager
def scene_of() -> Iterator[Scene]:
    with device_of(vram=8 * MIB) as device:
        yield Scene(Program(device))


Mistake = tuple[str, int, Callable[[Request], object]]


def _syncs_of_sync(r: Request) -> None:
    r.run_async = False
    r.waits.append(Sync(BINARY, r.full))


def _does_not_fit(r: Request) -> None:
    r.first(*(map_op(32 * HUGE + index * LARGE, LARGE, bo.handle) for index, bo in enumerate(r.large)))


BIND: Sequence[Mistake] = (
    ("sync, and syncs", errno.EINVAL, _syncs_of_sync),
    ("no such operation", errno.EINVAL, lambda r: r.first(VmBindOp(7, 0, 0, 0, 0, PAGE))),
    ("no such handle", errno.ENOENT, lambda r: r.first(map_op(0, PAGE, 77))),
    ("unaligned", errno.EINVAL, lambda r: r.first(map_op(1, PAGE, r.large[0].handle))),
    ("partly in a region", errno.ENOSPC, lambda r: r.first(map_op(REGION[0] - PAGE, BIG, r.large[0].handle))),
    ("does not fit", errno.ENOMEM, _does_not_fit),
    ("wait of no type", errno.EOPNOTSUPP, lambda r: r.waits_first(2, r.full)),
    ("signal of no type", errno.EINVAL, lambda r: r.signals_first(2, r.full)),
)
"""In the order of the document."""
WITHIN: Sequence[tuple[Mistake, Mistake]] = (
    (
        (
            "partly in a region",
            errno.ENOSPC,
            lambda r: r.first(map_op(REGION[0] - PAGE, BIG, r.large[0].handle)),
        ),
        ("drop of nothing", errno.ENOENT, lambda r: r.first(drop_op(REGION[0], PAGE))),
    ),
    (
        ("wait of no type", errno.EOPNOTSUPP, lambda r: r.waits_first(2, r.full)),
        ("wait for nobody", errno.ENOENT, lambda r: r.waits_first(BINARY, 77)),
    ),
    (
        ("wait for what is not there", errno.EINVAL, lambda r: r.waits_first(BINARY, r.empty)),
        ("wait for a point of nobody", errno.ENOENT, lambda r: r.waits_first(TIMELINE, 77, 5)),
    ),
    (
        ("signal of no type", errno.EINVAL, lambda r: r.signals_first(2, r.full)),
        ("signal nobody", errno.ENOENT, lambda r: r.signals_first(BINARY, 77)),
    ),
)
"""Looked at one after the other: the first in the call decides."""
EXEC: Sequence[Mistake] = (
    ("no such channel", errno.ENOENT, lambda r: setattr(r, "channel", 77)),
    ("killed channel", errno.ENODEV, lambda r: setattr(r, "channel", 2)),
    ("too many pushes", errno.EINVAL, lambda r: r.pushes.extend([Push(SCRATCH, 4)] * 2000)),
    ("push too long", errno.EINVAL, lambda r: r.pushes.insert(0, Push(SCRATCH, 1 << 23))),
    ("wait of no type", errno.EOPNOTSUPP, lambda r: r.waits_first(2, r.full)),
    ("signal nobody", errno.ENOENT, lambda r: r.signals_first(BINARY, 77)),
    ("does not fit", errno.ENOMEM, lambda r: _overcommit(r.program, r.large)),
)


def _overcommit(program: Program, large: tuple[Bo, Bo]) -> None:
    for index, bo in enumerate(large):
        program.bind(map_op(64 * HUGE + index * LARGE, LARGE, bo.handle))


def pairs(mistakes: Sequence[Mistake]) -> list[tuple[Mistake, Mistake]]:
    """Those of which it can be told which was found."""
    return [(one, other) for one, other in combinations(mistakes, 2) if one[1] != other[1]]


@every_way
class TestBind:
    def test_the_earlier_one_is_found(self, way: type[Typed]) -> None:
        """Even if the operation with the later one comes first in the call."""
        with scene_of() as s:
            calls, before = way(s.program.client), state(s.program)
            for first, second in pairs(BIND):
                request = s.request()
                first[2](request)
                second[2](request)
                assert (first[0], second[0], request.bind(calls)) == (first[0], second[0], -first[1])
                assert without_places(state(s.program)) == without_places(before)

    def test_of_several_operations_and_syncs(self, way: type[Typed]) -> None:
        with scene_of() as s:
            calls = way(s.program.client)
            for one, other in WITHIN:
                for first, second in ((one, other), (other, one)):
                    request = s.request()
                    second[2](request)
                    first[2](request)
                    assert (first[0], second[0], request.bind(calls)) == (first[0], second[0], -first[1])

    def test_without_an_address_space(self, way: type[Typed]) -> None:
        with device_of() as device:
            calls = way(device.open())
            assert calls.vm_bind([map_op(1, 0, 77)], [Sync(2, 9)], run_async=True) == -errno.ENOSYS
            assert calls.exec(77, [Push(0, 1 << 23)], [Sync(2, 9)]) == -errno.ENOSYS


def without_places(found: dict[str, Any]) -> dict[str, Any]:
    """Objects that a call could not bind may have been moved by it, where nobody looks."""
    return found | {"handles": [(handle, bo) for handle, bo, _ in found["handles"]]}


@every_way
def test_exec(way: type[Typed]) -> None:
    with scene_of() as s:
        calls = way(s.program.client)
        for first, second in pairs(EXEC):
            request = s.request()
            second[2](request)
            first[2](request)
            before = state(s.program)
            assert (first[0], second[0], request.exec(calls)) == (first[0], second[0], -first[1])
            if first[1] != errno.ENOMEM:
                assert state(s.program) == before


@every_way
def test_init(way: type[Typed]) -> None:
    """The area is looked at before the client."""
    with device_of() as device:
        calls = way(device.open())
        assert calls.gem_new(PAGE, VRAM) == 0
        assert (calls.vm_init(1 << 47, PAGE), calls.vm_init(*KERNEL)) == (-errno.EINVAL, -errno.ENOSYS)
        calls = way(device.open())
        assert [calls.vm_init(*area) for area in (KERNEL, KERNEL, (1 << 47, PAGE))] == [
            0,
            -errno.EBUSY,
            -errno.EINVAL,
        ]


class TestCopies:
    """Of arrays, at bad addresses and of counts that are too large."""

    BAD = (8, 1 << 63, (1 << 64) - 8)

    def test_a_bad_pointer(self) -> None:
        with scene_of() as s:
            before = state(s.program)
            for bad in self.BAD:
                for counts in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
                    assert self.bind(s, counts, (bad, bad, bad)) == -errno.EFAULT
                    assert self.exec(s, 1, counts, (bad, bad, bad)) == -errno.EFAULT
            assert state(s.program) == before

    def test_counts(self) -> None:
        """64 bits hold the product; what is too much to copy is ENOMEM, bug 49."""
        with scene_of() as s:
            before = state(s.program)
            readable = ctypes.create_string_buffer(64)
            addr = ctypes.addressof(readable)
            for counts in ((1 << 31, 0, 0), (0, 0xFFFFFFFF, 0), (0, 0, 1 << 28)):
                assert self.bind(s, counts, (addr,) * 3) == -errno.ENOMEM
            assert state(s.program) == before

    def test_nothing_is_copied_for_nothing(self) -> None:
        with scene_of() as s:
            assert self.bind(s, (0, 0, 0), self.BAD) == 0
            assert self.exec(s, 1, (0, 0, 0), self.BAD) == 0

    def test_before_and_after_copying(self) -> None:
        """Who may call is looked at before, what the arrays say after."""
        with scene_of() as s:
            assert self.bind(s, (1, 1, 0), (8, 8, 8), flags=0) == -errno.EFAULT
            sync = ctypes.create_string_buffer(bytes(16))
            addr = ctypes.addressof(sync)
            assert self.bind(s, (0, 1, 0), (8, addr, 8), flags=0) == -errno.EINVAL
            assert self.exec(s, 77, (1, 1, 1), (8, 8, 8)) == -errno.ENOENT
            assert self.exec(s, s.dead, (1, 1, 1), (8, 8, 8)) == -errno.ENODEV
            assert self.exec(s, 1, (2000, 1, 1), (8, 8, 8)) == -errno.EINVAL
            none = Raw(s.program.device.open())
            fields = (1, 1, 1, 1, 8, 8, 8)
            assert none.ioctl("vm_bind", "<IIIIQQQ", *fields)[0] == -errno.ENOSYS
            assert none.ioctl("exec", "<IIIIQQQ", *fields)[0] == -errno.ENOSYS

    @staticmethod
    def bind(s: Scene, counts: tuple[int, int, int], at: Sequence[int], flags: int = 1) -> int:
        ops, waits, signals = counts
        fields = (ops, flags, waits, signals, at[1], at[2], at[0])
        return Raw(s.program.client).ioctl("vm_bind", "<IIIIQQQ", *fields)[0]

    @staticmethod
    def exec(s: Scene, channel: int, counts: tuple[int, int, int], at: Sequence[int]) -> int:
        pushes, waits, signals = counts
        fields = (channel, pushes, waits, signals, at[1], at[2], at[0])
        return Raw(s.program.client).ioctl("exec", "<IIIIQQQ", *fields)[0]
