"""The driver's calls about objects: making, sharing, waiting for them."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from actors import actors
from driver_world import (
    BIG,
    CPU,
    GART,
    MIB,
    NO_SHARE,
    PAGE,
    VRAM,
    Held,
    device_of,
    map_op,
    program_of,
)
from gpuvm.errors import (
    BadFile,
    Busy,
    GpuvmError,
    Interrupted,
    InvalidArgument,
    NotFound,
    OutOfMemory,
    PermissionDenied,
)
from gpuvm.nouveau.gem import CPU_PREP_NOWAIT, CPU_PREP_WRITE
from gpuvm.sync.resv import Usage


def test_objects_and_what_is_said_of_them() -> None:
    with program_of() as program:
        client = program.client
        start = client.gem_new(1, CPU).handle
        info = client.gem_new(BIG + 1, VRAM, align=BIG, tile_mode=3, tile_flags=0x608)
        assert info._replace(map_handle=0) == (start + 1, VRAM, 2 * BIG, 0, 0, 3, 0x608)
        assert client.gem_info(info.handle) == info
        assert client.gem_new(PAGE, VRAM | GART | NO_SHARE | 8 | 0x10).domain == VRAM
        assert client.gem_new(PAGE, GART).domain == GART
        assert client.gem_info(start)[1:4] == (VRAM, PAGE, 0)
        client.view(info.handle)[:] = 7
        assert os.pread(program.device.mem.object_file.fd, 1, info.map_handle + BIG) == b"\7"
        client.gem_close(start)
        for call in (client.gem_info, client.gem_cpu_prep, client.gem_cpu_fini, client.view):
            with pytest.raises(NotFound):
                call(start)
        with pytest.raises(InvalidArgument):
            client.gem_close(start)
        assert client.gem_new(PAGE, VRAM).handle == start


def test_an_object_of_two_places_is_told_to_be_where_it_is() -> None:
    with program_of() as program:
        bo = program.bo(BIG, VRAM | GART)
        program.bind(map_op(BIG, BIG, bo.handle))
        assert program.client.gem_info(bo.handle).domain == VRAM
        program.evict(bo)
        assert program.client.gem_info(bo.handle).domain == GART


def test_private_objects_share_the_reservation_of_the_space() -> None:
    with program_of() as program:
        for domain in (VRAM | NO_SHARE, VRAM):
            obj = program.client.handles.lookup(program.client.gem_new(PAGE, domain).handle)
            assert program.client.vm is not None
            private = obj.resv is program.client.vm.resv
            assert obj.no_share == private == bool(domain & NO_SHARE)
            del obj


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"size": 0}, InvalidArgument),
        ({"size": -PAGE}, InvalidArgument),
        ({"align": 3 * PAGE}, InvalidArgument),
        ({"tile_flags": 0x700}, InvalidArgument),
        ({"tile_flags": 0xFF00}, InvalidArgument),
        ({"size": 64 * MIB + 1}, OutOfMemory),
        ({"size": (1 << 64) - 1}, OutOfMemory),
        ({"size": (1 << 64) - 1, "domain": CPU}, OutOfMemory),
    ],
)
def test_objects_that_cannot_be(arguments: dict[str, int], error: type[GpuvmError]) -> None:
    with program_of() as program:
        before = program.client.handles.statistics(), program.device.mem.statistics()
        with pytest.raises(error):
            program.client.gem_new(**{"size": PAGE, "domain": VRAM, **arguments})
        assert before == (program.client.handles.statistics(), program.device.mem.statistics())


def test_sharing_between_clients_and_between_devices() -> None:
    with device_of() as device, device_of(chipset=0x172) as other:
        exporter, importer, stranger = device.open(), device.open(), other.open()
        info = exporter.gem_new(BIG, VRAM, tile_mode=4, tile_flags=0x600)
        fd = exporter.prime_handle_to_fd(info.handle, os.O_CLOEXEC | os.O_RDWR)
        try:
            imported = importer.prime_fd_to_handle(fd)
            assert importer.prime_fd_to_handle(fd) == imported
            assert importer.gem_info(imported) == info._replace(handle=imported)
            foreign = stranger.prime_fd_to_handle(fd)
        finally:
            os.close(fd)
        exporter.close()
        importer.view(imported)[5] = 55
        assert stranger.view(foreign)[5] == 55
        assert stranger.gem_info(foreign).domain == GART
        assert stranger.gem_info(foreign).map_handle > 1 << 60
        stranger.close()
        assert importer.gem_info(imported).handle == imported
        importer.close()


def test_descriptors_that_are_not_to_be_had_or_not_understood() -> None:
    with program_of() as program:
        client = program.client
        shared, private = client.gem_new(PAGE, VRAM).handle, program.scratch
        fd = client.prime_handle_to_fd(shared)
        assert os.get_inheritable(fd)
        os.close(fd)
        errors: list[tuple[Callable[[], int], type[GpuvmError]]] = [
            (lambda: client.prime_handle_to_fd(99, os.O_NONBLOCK), InvalidArgument),
            (lambda: client.prime_handle_to_fd(99), NotFound),
            (lambda: client.prime_handle_to_fd(private), PermissionDenied),
            (lambda: client.prime_fd_to_handle(fd), BadFile),
            (lambda: client.prime_fd_to_handle(-1), BadFile),
            (lambda: client.prime_fd_to_handle(1 << 40), BadFile),
            (lambda: client.prime_fd_to_handle(program.device.mem.object_file.fd), InvalidArgument),
        ]
        for call, error in errors:
            with pytest.raises(error):
                call()


@pytest.mark.parametrize("write", [False, True])
def test_cpu_prep_waits_for_who_writes_or_for_all(write: bool) -> None:
    flags = CPU_PREP_WRITE if write else 0
    with program_of() as program:
        handle = program.bo().handle
        resv = program.client.handles.lookup(handle).resv
        for usage in (Usage.WRITE, Usage.READ, Usage.BOOKKEEP):
            held = Held(program)
            with resv:
                resv.reserve_fences(1)
                resv.add_fence(held.fence, usage)
            if usage <= Usage.rw(write):
                with pytest.raises(Busy):
                    program.client.gem_cpu_prep(handle, flags | CPU_PREP_NOWAIT)
            else:
                program.client.gem_cpu_prep(handle, flags)
            held.let_go()
            program.client.gem_cpu_prep(handle, flags | CPU_PREP_NOWAIT)
            program.client.gem_cpu_fini(handle)


def test_cpu_prep_gives_up_and_can_be_interrupted() -> None:
    with actors("waits") as (actor,), program_of() as program:
        handle, held = program.bo().handle, Held(program)
        program.bind(map_op(BIG, BIG, handle))
        program.exec(waits=[held.sync])
        actor.do(program.client.gem_cpu_prep, handle)
        assert actor.asleep
        actor.thread.task.interrupt()
        assert not program.exec().wait(29)
        assert isinstance(actor.error, Interrupted)
        actor.error = None  # which knows the object
        with pytest.raises(Busy, match=r"after 30\.0 s"):
            program.client.gem_cpu_prep(handle)
        held.let_go()
