"""The gpuvas dump of debugfs, of a client and of a device."""

from __future__ import annotations

import re
import threading

import pytest

from fault_driver_scene import MIB, PUSHES, Driven, driven
from gpuvm.errors import BadFile
from gpuvm.nouveau.client import Client
from gpuvm.nouveau.device import Device
from gpuvm.nouveau.gpuvas import gpuvas_text
from gpuvm.nouveau.uapi.dialects import SERIES
from gpuvm.nouveau.uapi.requests import VmBindOp
from suite import scaled

HEAD = re.compile(r"DRM GPU VA space \((.*)\) \[0x[0-9a-f]{16};0x[0-9a-f]{16}\]")
MAPPING = re.compile(r"     \| (0x[0-9a-f]{16})" + r" \| (0x[0-9a-f]{16})" * 4)
REGION = re.compile(r"             \| (0x[0-9a-f]{16})" + r" \| (0x[0-9a-f]{16})" * 2)


def rows(pattern: re.Pattern[str], text: str) -> list[tuple[int, ...]]:
    found = (pattern.fullmatch(line) for line in text.splitlines())
    return [tuple(int(number, 16) for number in match.groups()) for match in found if match]


def test_gpuvas_of_a_client() -> None:
    with driven() as it:
        handle = it.map(32 * MIB, MIB)
        it.bind(VmBindOp(0, 0x100, 0, 64 * MIB, 0, 8 * MIB))
        it.bind(VmBindOp(0, 0, handle, 66 * MIB, 0x10000, 0x10000))
        assert it.client.gpuvas().splitlines() == [
            "DRM GPU VA space (client 1) [0x0000000000000000;0x0000800000000000]",
            "Kernel reserved node [0x0000008000000000;0x0000010000000000]",
            "",
            " VAs | start              | range              | end                "
            "| object             | object offset",
            "-" * 109,
            _row(32 * MIB, MIB, handle, 0),
            _row(66 * MIB, 0x10000, handle, 0x10000),
            _row(PUSHES, MIB, it.pushes, 0),
            "",
            " VA regions  | start              | range              | end                ",
            "-" * 76,
            f"             | 0x{64 * MIB:016x} | 0x{8 * MIB:016x} | 0x{72 * MIB:016x}",
        ]


def _row(addr: int, range_: int, handle: int, offset: int) -> str:
    numbers = (addr, range_, addr + range_, handle, offset)
    return "     | " + " | ".join(f"0x{number:016x}" for number in numbers)


def test_gpuvas_of_what_was_closed() -> None:
    with driven() as it:
        handle = it.map(32 * MIB, MIB)
        twice = it.client.handles.create(it.client.handles.lookup(handle))
        for known in (handle, twice, 0):
            assert rows(MAPPING, it.client.gpuvas())[0][3] == known
            if known:
                it.client.gem_close(known)


def test_gpuvas_of_a_device() -> None:
    """One space after the other; clients without one have no part in it."""
    with Device(vram=64 * MIB, gart=64 * MIB) as device:
        first = Driven(device, name="first")
        device.open(name="none")
        second = _series(device)
        text = device.gpuvas()
        assert HEAD.findall(text) == ["first", "second"]
        assert text == first.client.gpuvas() + second.gpuvas()
        assert rows(REGION, text) == [(16 * MIB, 16 * MIB, 32 * MIB)]
        first.client.close()
        assert HEAD.findall(device.gpuvas()) == ["second"]
        assert device.gpuvas() == second.gpuvas()


def _series(device: Device) -> Client:
    client = device.open(name="second", dialect=SERIES)
    client.vm_init(1 << 39, 1 << 39)
    client.vm_bind([VmBindOp(0, 0, 0, 16 * MIB, 0, 16 * MIB)])
    return client


def test_gpuvas_shows_one_moment() -> None:
    """While binds move a mapping there and back, each in one call, every dump has it at one place."""
    with driven() as it:
        handle, here, there = it.map(32 * MIB, MIB), 32 * MIB, 48 * MIB
        stop = threading.Event()

        def move() -> None:
            at, to = here, there
            while not stop.is_set():
                it.bind(VmBindOp(1, 0, 0, at, 0, MIB), VmBindOp(0, 0, handle, to, 0, MIB))
                at, to = to, at

        mover = threading.Thread(target=move)
        mover.start()
        try:
            for _ in range(scaled(300, 3000)):
                shown = [row[0] for row in rows(MAPPING, it.client.gpuvas()) if row[3] == handle]
                assert shown in ([here], [there])
        finally:
            stop.set()
            mover.join()


def test_gpuvas_of_a_client_without_or_with_a_closed_space() -> None:
    with Device(vram=MIB, gart=MIB) as device:
        client = device.open()
        assert client.gpuvas() == ""
        client.vm_init(1 << 39, 1 << 39)
        assert client.gpuvas()
        client.close()
        assert client.vm is not None
        assert gpuvas_text([client]) == device.gpuvas() == ""
        with pytest.raises(BadFile):
            client.gpuvas()
