"""Opening a device, what it says of itself, address spaces, and closing."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import pytest

from actors import actors, settle
from driver_world import (
    BIG,
    GART,
    KERNEL,
    MIB,
    NO_SHARE,
    PAGE,
    VRAM,
    Held,
    Program,
    device_of,
    map_op,
    nothing_is_left,
)
from gpuvm.errors import (
    BadFile,
    Busy,
    InvalidArgument,
    NotSupported,
    Unavailable,
)
from gpuvm.nouveau import SERIES, Client, Device, Push, Sync
from gpuvm.nouveau.chipset import CHIPS, Family
from gpuvm.nouveau.getparam import Param

TOP = 1 << 47


# -- what the device says of itself


@pytest.mark.parametrize("chipset", CHIPS)
def test_every_chip_says_what_it_is(chipset: int) -> None:
    with device_of(chipset=chipset) as device, device.open() as client:
        chip = device.chip
        assert client.getparam(Param.CHIPSET_ID) == chipset == chip.chipset
        assert client.getparam(Param.PCI_DEVICE) == chip.device_id
        assert client.getparam(Param.GRAPH_UNITS) == chip.gpcs + 256 * chip.tpcs
        copy = 0xC5B5 if chip.family is Family.TURING else 0xC7B5
        assert copy in chip.classes
        assert set(chip.engines) <= set(chip.classes)


def test_names_of_chips() -> None:
    assert [(chip.chipset, chip.name) for chip in CHIPS.values() if chip.name in ("TU102", "GA102")] == [
        (0x162, "TU102"),
        (0x172, "GA102"),
    ]
    assert len({chip.device_id for chip in CHIPS.values()}) == len(CHIPS)
    with pytest.raises(InvalidArgument, match="0x162 TU102"):
        Device(chipset=0x999)


def test_answers_to_getparam() -> None:
    with device_of(vram=48 * MIB, gart=32 * MIB) as device, device.open() as client:
        answers = {param.name: client.getparam(param) for param in Param}
        assert answers.pop("PTIMER_TIME") < client.getparam(Param.PTIMER_TIME)
        assert 0 < answers.pop("VRAM_USED") < MIB
        assert answers == {
            "PCI_VENDOR": 0x10DE,
            "PCI_DEVICE": 0x1E04,
            "BUS_TYPE": 2,
            "FB_SIZE": 48 * MIB,
            "AGP_SIZE": 32 * MIB,
            "CHIPSET_ID": 0x162,
            "VM_VRAM_BASE": 0,
            "GRAPH_UNITS": 6 | 34 << 8,
            "HAS_BO_USAGE": 1,
            "HAS_PAGEFLIP": 1,
            "EXEC_PUSH_MAX": 510,
            "VRAM_BAR_SIZE": 64 * MIB,
            "HAS_VMA_TILEMODE": 1,
        }
        for unknown in (0, 1, 2, 6, 7, 10, 21, 1 << 63):
            with pytest.raises(InvalidArgument):
                client.getparam(unknown)


def test_version_and_capabilities() -> None:
    with device_of() as device, device.open() as client:
        assert client.version()[:4] == (1, 4, 0, "nouveau")
        assert [client.get_cap(capability) for capability in (0x05, 0x06, 0x13, 0x14)] == [3, 1, 1, 1]
        for display in (0x01, 0x08, 0x10, 0x99):
            with pytest.raises(NotSupported):
                client.get_cap(display)


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan")])
def test_a_timeout_is_a_time(timeout: float) -> None:
    with pytest.raises(InvalidArgument, match="timeout"):
        Device(vram=MIB, gart=MIB, timeout=timeout)


# -- open and closed


CALLS: dict[str, Callable[[Client], Any]] = {
    "channel_alloc": lambda client: client.channel_alloc(),
    "channel_free": lambda client: client.channel_free(1),
    "gem_new": lambda client: client.gem_new(PAGE, VRAM),
    "gem_info": lambda client: client.gem_info(1),
    "gem_close": lambda client: client.gem_close(1),
    "gem_cpu_prep": lambda client: client.gem_cpu_prep(1),
    "gem_cpu_fini": lambda client: client.gem_cpu_fini(1),
    "gem_pushbuf": lambda client: client.gem_pushbuf(),
    "prime_handle_to_fd": lambda client: client.prime_handle_to_fd(1),
    "prime_fd_to_handle": lambda client: client.prime_fd_to_handle(0),
    "view": lambda client: client.view(1),
    "vm_init": lambda client: client.vm_init(*KERNEL),
    "vm_bind": lambda client: client.vm_bind([]),
    "exec": lambda client: client.exec(1, []),
    "settle": lambda client: client.settle(),
}


def test_a_closed_client_refuses_everything() -> None:
    with device_of() as device:
        client = Program(device).client
        client.close()
        client.close()
        assert client.released.signalled
        assert device.clients == ()
        for call in CALLS.values():
            with pytest.raises(BadFile):
                call(client)
        assert client.ioctl(0x40, bytearray(16)) == -errno.EBADF


def test_clients_have_numbers_and_names() -> None:
    with device_of() as device:
        first, second = device.open(), device.open(name="vkcube", dialect=SERIES)
        assert (first.id, first.name, second.id, second.name) == (1, "client 1", 2, "vkcube")
        assert device.clients == (first, second)
        first.close()
        assert device.open().id == 3
        assert second.statistics().dialect == "series"


def test_closing_the_device_closes_its_clients() -> None:
    device = Device(vram=16 * MIB, gart=16 * MIB)
    program = Program(device)
    program.bind(map_op(BIG, BIG, program.bo().handle))
    device.close()
    nothing_is_left(device)
    with pytest.raises(BadFile):
        program.client.gem_info(1)
    with pytest.raises(InvalidArgument, match="closed"):
        device.open()
    device.close()


def test_who_keeps_bytes_keeps_the_device_from_closing() -> None:
    device = Device(vram=16 * MIB, gart=16 * MIB)
    client = device.open()
    view = client.view(client.gem_new(BIG, VRAM).handle)
    with pytest.raises(Busy, match="client 1 bo 1"):
        device.close()
    assert device.clients == ()
    del view
    device.close()


# -- address spaces


def test_an_address_space_comes_first_and_once() -> None:
    with device_of() as device:
        for call in ("gem_new", "channel_alloc"):
            legacy = device.open()
            with pytest.raises(InvalidArgument, match="NO_SHARE"):
                legacy.gem_new(PAGE, GART | NO_SHARE)
            CALLS[call](legacy)
            with pytest.raises(Unavailable):
                legacy.vm_init(*KERNEL)
            with pytest.raises(Unavailable):
                legacy.vm_bind([], [Sync(9, 9)])
            with pytest.raises(Unavailable):
                legacy.exec(1, [Push(0, 0)])
            with pytest.raises(Unavailable):
                legacy.gem_pushbuf()
        client = device.open()
        with pytest.raises(InvalidArgument):
            client.gem_new(0, VRAM)
        client.vm_init(*KERNEL)
        with pytest.raises(Busy):
            client.vm_init(*KERNEL)


@pytest.mark.parametrize(
    ("addr", "size", "good"),
    [
        (0, 0, True),
        (0, TOP, True),
        (TOP - PAGE, PAGE, True),
        (TOP, 0, True),
        (TOP, PAGE, False),
        (TOP - PAGE, 2 * PAGE, False),
        (1, PAGE, False),
        (0, PAGE + 1, False),
        (PAGE, (1 << 64) - PAGE, False),
        ((1 << 64) - PAGE, PAGE, False),
        (-PAGE, PAGE, False),
    ],
)
def test_where_the_kernels_area_may_be(addr: int, size: int, good: bool) -> None:
    with device_of() as device, device.open() as client, device.open(dialect=SERIES) as series:
        for one in (client, series):
            if good and (size or one is client):
                one.vm_init(addr, size)
                assert one.vm is not None
                node = one.vm.kernel_node
                assert (node.addr, node.range) == (addr, size) if node is not None else size == 0
            else:
                with pytest.raises(InvalidArgument, match="kernel's area"):
                    one.vm_init(addr, size)
                assert one.vm is None
        client.check()


# -- closing while others are at it


def test_closing_while_a_call_waits() -> None:
    """The call ends as it would, and takes all with it."""
    with actors("binds") as (actor,), device_of() as device:
        program = Program(device)
        bo, held = program.bo(), Held(program)
        waits = program.bind_behind(held, map_op(BIG, BIG, bo.handle))
        actor.do(program.bind, map_op(2 * BIG, BIG, bo.handle))
        assert actor.asleep
        program.client.close()
        assert not program.client.released.signalled
        assert device.clients == ()
        with pytest.raises(BadFile):
            program.bind(map_op(BIG, BIG, bo.handle))
        held.let_go()
        settle()
        assert program.client.released.signalled
        assert (waits.signalled, actor.result) == (True, None)
        assert device.clients == ()


def test_closing_waits_for_binds() -> None:
    """What binds wait for is others' business; their page tables are taken down after."""
    with actors("closes") as (actor,), device_of() as device:
        program = Program(device)
        bo, held = program.bo(), Held(program)
        waits = program.bind_behind(held, map_op(BIG, BIG, bo.handle))
        actor.do(program.client.close)
        assert actor.asleep
        assert not waits.signalled
        held.let_go()
        settle()
        assert program.client.released.signalled
        assert (waits.signalled, waits.error, actor.result) == (True, 0, None)
