"""Bad input to memory management: it is refused by name, and the device goes on."""

from __future__ import annotations

import errno
import gc
import os
import re
import socket
from typing import Any

import pytest

from gpuvm.errors import InvalidArgument, NoSpace, OutOfMemory, PermissionDenied, TooManyFiles
from gpuvm.mem.aperture import Domain
from gpuvm.mem.device import Device
from gpuvm.mem.dma_buf import DmaBuf
from gpuvm.mem.map_count import map_count
from gpuvm.mem.placement import PAGE, Place, placement_of
from gpuvm.mem.policy import Lru
from gpuvm.mem.remapping import Mapping
from gpuvm.sync.descriptor import carriers
from gpuvm.sync.resv import Resv
from memories import numbered_file
from placed import evict, make_device, make_object, validate

VRAM, GART, CPU = Domain.VRAM, Domain.GART, Domain.CPU


@pytest.mark.parametrize(
    ("options", "word"),
    [({"resv": "vm"}, "resv"), ({"resv": Resv}, "resv"), ({"priority": 1.5}, "priority")],
)
def test_what_would_break_a_later_call_is_refused_at_once(options: dict[str, Any], word: str) -> None:
    device = make_device()
    with pytest.raises(InvalidArgument, match=word):
        device.create(PAGE, **options)
    validate(device.create(PAGE))
    device.check()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"policy": "lru"}, "policy 'lru'; pass an object"),
        ({"policy": Lru}, "Lru'>; pass an object"),
        ({"vram": 0}, "vram 0x0; pass bytes"),
        ({"gart": PAGE + 1}, "gart 0x1001; pass bytes"),
        ({"vram": 8.0}, "vram 8.0; pass a whole number"),
        ({"system": 1.5}, "system 1.5; pass a whole number"),
    ],
)
def test_what_no_device_is_made_of(options: dict[str, Any], message: str) -> None:
    before = map_count.used
    with pytest.raises(InvalidArgument, match=re.escape(message)):
        Device(**{"vram": PAGE, "gart": PAGE, **options})
    assert map_count.used == before


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"size": 1 << 60}, NoSpace, "in the object file of 0x10000000000; make a smaller object"),
        ({"size": 1 << 40}, NoSpace, "in the object file of 0x10000000000; make a smaller object"),
        ({"align": 1 << 41}, InvalidArgument, "power of two from 0x1000 to 0x10000000000"),
        ({"size": 1.5}, InvalidArgument, "size 1.5; pass a whole number"),
        ({"domains": 8}, InvalidArgument, "8; pass a Domain"),
        ({"domains": "vram"}, InvalidArgument, "'vram'; pass a Domain"),
    ],
)
def test_what_no_object_is_made_of(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    device = make_device()
    kept = device.create(PAGE)
    with pytest.raises(error, match=re.escape(message)):
        device.create(**{"size": PAGE, **arguments})
    validate(kept)
    device.check()


def test_a_domain_may_be_its_number() -> None:
    numbered: Any = 2
    assert make_device().create(PAGE, numbered).allowed == placement_of(VRAM)


@pytest.mark.parametrize("placement", [VRAM, Place(VRAM), (VRAM,), "vram"])
def test_what_is_no_placement(placement: Any) -> None:
    obj = make_object(make_device())
    with pytest.raises(InvalidArgument, match="placement_of"):
        validate(obj, placement)
    validate(obj)
    obj.device.check()


@pytest.mark.parametrize(
    ("window", "message"), [((3, None), "whole pages"), ((PAGE, PAGE), "last beyond first")]
)
def test_what_is_no_window(window: tuple[int, int | None], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        Place(VRAM, *window)


def test_an_object_that_its_window_is_too_small_for() -> None:
    obj = make_object(make_device(), 4)
    with pytest.raises(NoSpace, match=r"VRAM from 0x1000 to 0x3000 .*pass a larger window"):
        validate(obj, (Place(VRAM, PAGE, 3 * PAGE),))


@pytest.mark.parametrize(("pages", "error"), [(32, NoSpace), (16, OutOfMemory)])
def test_instance_memory_says_what_helps(pages: int, error: type[Exception]) -> None:
    device = make_device(vram=16)
    device.instance_memory.allocate(PAGE)
    with pytest.raises(error, match="larger vram"):
        device.instance_memory.allocate(pages * PAGE)
    device.check()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_descriptors_that_run_out(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Any:
        raise OSError(number, os.strerror(number))

    device = make_device()
    buffer = DmaBuf.of(make_object(device))
    files = carriers.statistics().files  # lets go of what earlier tests closed
    gc.collect()
    before = map_count.used
    with monkeypatch.context() as patch:
        patch.setattr(socket, "socketpair", refuse)
        patch.setattr(os, "memfd_create", refuse)
        with pytest.raises(TooManyFiles, match="ulimit -n"):
            buffer.export_fd()
        with pytest.raises(OutOfMemory, match="ulimit -n"):
            make_device()
    assert carriers.statistics().files == files
    gc.collect()
    assert map_count.used == before
    os.close(buffer.export_fd())
    device.check()


@pytest.mark.parametrize("domain", [VRAM | GART, Domain(0)])
def test_one_domain_is_evicted_at_a_time(domain: Domain) -> None:
    with pytest.raises(InvalidArgument, match="one Domain"):
        make_device().evict_all(domain)


@pytest.mark.parametrize("domain", [VRAM, GART])
@pytest.mark.parametrize(("first", "last"), [(1, 6), (1, 7), (2, 5)])
def test_a_window_without_an_aligned_address_never_fits(domain: Domain, first: int, last: int) -> None:
    device = make_device(vram=8, gart=8)
    obj = device.create(4 * PAGE, align=4 * PAGE)
    with pytest.raises(NoSpace, match="never"):
        validate(obj, (Place(domain, first * PAGE, last * PAGE),))
    validate(obj, (Place(domain, first * PAGE, 8 * PAGE),))
    device.check()


def test_imported_objects_are_not_put_into_vram() -> None:
    exporter, importer = make_device(), make_device()
    imported = DmaBuf.of(make_object(exporter)).attach(importer)
    with pytest.raises(InvalidArgument, match="imported"):
        validate(imported, placement_of(VRAM | GART))
    with imported.resv, pytest.raises(InvalidArgument, match="imported"):
        importer.pin(imported, VRAM)
    validate(imported)
    importer.check()


def test_private_objects_are_not_shared_by_a_buffer_of_ones_own() -> None:
    private = make_device().create(PAGE, resv=Resv("vm"), no_share=True)
    with pytest.raises(PermissionDenied, match="private"):
        DmaBuf(private)


@pytest.mark.parametrize("offset", [1 << 63, 1 << 64, (1 << 64) + PAGE])
def test_an_offset_that_no_file_has_is_not_cut_down(offset: int) -> None:
    vram, file = make_device().vram, numbered_file(1, 1)
    before = map_count.used
    with pytest.raises(InvalidArgument, match="offset"):
        vram.wire(0, PAGE, file.fd, offset)
    assert map_count.used == before
    vram.check()


@pytest.mark.parametrize(("fd", "offset"), [("file", 0), (1, 1.5)])
def test_wiring_what_is_no_number_costs_no_maps(fd: Any, offset: Any) -> None:
    vram = make_device().vram
    before = map_count.used
    with pytest.raises(Exception, match="type"):
        vram.wire(0, PAGE, fd, offset)
    assert map_count.used == before
    vram.check()


def test_a_mapping_larger_than_addresses_go_is_refused() -> None:
    with pytest.raises(OutOfMemory, match="addresses"):
        Mapping((1 << 64) + PAGE)


def test_objects_without_a_place_can_be_used() -> None:
    obj = make_object(make_device(), 1)
    validate(obj)
    obj.allowed = ()
    with obj.resv:
        obj.device.used(obj)
    evict(obj)
    obj.device.check()
