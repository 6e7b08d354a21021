"""`DmaBuf`: one object for several clients and devices, by files too."""

from __future__ import annotations

import array
import gc
import os
import socket
import weakref
from collections.abc import Callable, Iterator

import pytest

from gpuvm.errors import Busy, CheckFailed, InvalidArgument, NotSupported, OutOfMemory, PermissionDenied
from gpuvm.mem import Domain, faults
from gpuvm.mem.device import Device
from gpuvm.mem.dma_buf import DmaBuf
from gpuvm.mem.gem import Backing, GemObject
from gpuvm.mem.handles import GemHandles
from gpuvm.mem.placement import placement_of
from gpuvm.sync.descriptor import carriers
from gpuvm.sync.fence import Fence, fence_context_alloc
from gpuvm.sync.resv import Resv, Usage
from gpuvm.sync.syncobj import SyncObj
from gpuvm.testing import Interleaving, explore
from memories import PAGE
from suite import scaled

MIB = 1 << 20


@pytest.fixture
def devices() -> Iterator[tuple[Device, Device]]:
    both = Device(vram=MIB, gart=MIB, name="exporter"), Device(vram=MIB, gart=MIB, name="importer")
    yield both
    assert "DmaBuf" not in carriers.statistics().named
    for device in both:
        device.check()


def validate(obj: GemObject, domain: Domain) -> None:
    with obj.resv:
        obj.device.validate(obj, placement_of(domain))


def physical_byte(obj: GemObject) -> int:
    aperture, addr, _ = obj.extents[0]
    return int(obj.device.memory(aperture).view[addr])


def test_an_object_has_one_dma_buf(devices: tuple[Device, Device]) -> None:
    client, other = GemHandles(devices[0]), GemHandles(devices[0])
    obj = devices[0].create(2 * PAGE)
    handle = client.create(obj)
    dma_buf = client.export(handle)
    assert dma_buf is client.export(client.create(obj)) is other.export(other.create(obj)) is DmaBuf.of(obj)
    assert (dma_buf.obj, dma_buf.size, dma_buf.resv) == (obj, 2 * PAGE, obj.resv)
    dma_buf.view[0] = 9
    assert obj.view[0] == 9
    dma_buf.check()
    assert dma_buf.statistics().attached == 0
    assert repr(dma_buf).startswith("<DmaBuf of <GemObject")


def test_on_its_own_device_it_is_the_object(devices: tuple[Device, Device]) -> None:
    exporting, importing = GemHandles(devices[0]), GemHandles(devices[0])
    obj = devices[0].create(PAGE)
    handle = exporting.create(obj)
    dma_buf = exporting.export(handle)
    assert exporting.import_(dma_buf) == handle
    imported = importing.import_(dma_buf)
    assert importing.lookup(imported) is obj
    assert importing.import_(dma_buf) == imported
    assert (obj.handle_count, obj.pin_count) == (2, 0)
    importing.close(imported)
    assert importing.import_(dma_buf) == imported
    for client in (exporting, importing):
        client.check()


def test_a_handle_that_is_remembered_is_forgotten_when_closed(devices: tuple[Device, Device]) -> None:
    client = GemHandles(devices[0])
    obj = devices[0].create(PAGE)
    handles = [client.create(obj) for _ in range(3)]
    dma_buf = client.export(handles[0])
    client.export(handles[2])
    client.close(handles[0])
    assert client.import_(dma_buf) == handles[2]
    client.close(handles[2])
    assert client.statistics().dma_bufs == 0
    new = client.import_(dma_buf)
    assert new not in handles[1:2]
    client.check()


def test_files_reach_other_clients(devices: tuple[Device, Device]) -> None:
    """By a copy of the descriptor, and through a socket as between processes."""
    exporting, importing = GemHandles(devices[0]), GemHandles(devices[0])
    obj = devices[0].create(PAGE)
    fd = exporting.export_fd(exporting.create(obj))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
        received = socket.recv_fds(theirs, 1, 1)[1][0]
    copy = os.dup(fd)
    os.close(fd)
    handle = importing.import_fd(received)
    assert importing.lookup(handle) is obj
    assert importing.import_fd(copy) == handle
    os.close(received)
    os.close(copy)


def test_a_file_keeps_the_object(devices: tuple[Device, Device]) -> None:
    client = GemHandles(devices[0])
    obj = devices[0].create(PAGE)
    obj.view[0] = 5
    fd = client.export_fd(client.create(obj))
    known = weakref.ref(obj)
    client.close_all()
    del obj
    gc.collect()
    again = DmaBuf.import_fd(fd)
    assert again.obj is known()
    assert again.view[0] == 5
    del again
    os.close(fd)
    carriers.collect()
    gc.collect()
    assert known() is None
    assert devices[0].reap() == 1


def test_a_file_of_something_else(devices: tuple[Device, Device]) -> None:
    client = GemHandles(devices[0])
    syncobj = SyncObj().export_fd()
    for fd in (syncobj, 0, -1, 10**6):
        with pytest.raises(InvalidArgument, match=f"descriptor {fd} is no DMA buffer's"):
            client.import_fd(fd)
    os.close(syncobj)
    assert len(client) == 0


def test_a_private_object_is_not_shared(devices: tuple[Device, Device]) -> None:
    obj = devices[0].create(PAGE, resv=Resv("vm"), no_share=True)
    with pytest.raises(PermissionDenied, match="no_share"):
        DmaBuf.of(obj)


# -- between devices


def test_another_device_shows_the_same_bytes(devices: tuple[Device, Device]) -> None:
    exporter, importer = devices
    obj = exporter.create(4 * PAGE)
    validate(obj, Domain.VRAM)
    obj.view[0] = 11
    one, two = GemHandles(exporter, "one"), GemHandles(importer, "two")
    fd = one.export_fd(one.create(obj))
    imported = two.lookup(two.import_fd(fd))
    os.close(fd)
    assert imported is not obj
    assert imported.device is importer
    assert imported.resv is obj.resv
    assert (imported.size, imported.name, imported.domain) == (obj.size, obj.name, Domain.CPU)
    assert (obj.domain, obj.pin_count) == (Domain.GART, 1)
    with imported.resv:
        importer.validate(imported)
    assert imported.domain == Domain.GART
    assert [physical_byte(obj), physical_byte(imported), imported.view[0]] == [11, 11, 11]
    imported.view[0] = 12
    importer.gart.view[imported.extents[0].addr + 1] = 13
    assert obj.view[:2].tolist() == [12, 13]
    for checked in (one, two, exporter, importer, DmaBuf.of(obj), imported):
        checked.check()


def test_it_is_imported_once_for_each_device(devices: tuple[Device, Device]) -> None:
    exporter, importer = devices
    obj = exporter.create(PAGE)
    clients = [GemHandles(importer), GemHandles(importer)]
    dma_buf = DmaBuf.of(obj)
    handles = [client.import_(dma_buf) for client in clients]
    imported = clients[0].lookup(handles[0])
    assert clients[1].lookup(handles[1]) is imported is dma_buf.attach(importer)
    assert imported.handle_count == 2
    assert obj.pin_count == 1
    assert clients[0].export(handles[0]) is dma_buf
    with GemHandles(exporter) as client:
        assert client.lookup(client.import_(clients[0].export(handles[0]))) is obj


def test_the_exporter_may_move_again_when_nobody_is_attached(devices: tuple[Device, Device]) -> None:
    exporter, importer = devices
    obj = exporter.create(PAGE)
    validate(obj, Domain.VRAM)
    third = Device(vram=MIB, gart=MIB, name="third")
    dma_buf = DmaBuf.of(obj)
    imported = [dma_buf.attach(device) for device in (importer, third)]
    assert obj.pin_count == 2
    with obj.resv:
        assert not exporter.validate(obj)  # it stays in GART, although it was made for VRAM
    with pytest.raises(Busy):
        validate(obj, Domain.VRAM)
    imported.pop()
    assert third.reap() == 1
    assert obj.pin_count == 1
    dma_buf.check()
    imported.clear()
    assert importer.reap() == 1
    assert (obj.pin_count, dma_buf.statistics().attached) == (0, 0)
    with obj.resv:
        assert exporter.validate(obj)
        assert obj.domain == Domain.VRAM
    again = dma_buf.attach(importer)
    dma_buf.check()  # it is in GART again
    del again


def test_detaching_waits_for_the_reservation(devices: tuple[Device, Device]) -> None:
    exporter, importer = devices
    obj = exporter.create(PAGE)
    dma_buf = DmaBuf.of(obj)
    imported = [dma_buf.attach(importer)]
    validate(imported[0], Domain.GART)
    with obj.resv:
        imported.clear()
        assert importer.reap() == 0
        assert obj.pin_count == 1
        importer.check()
    assert importer.reap() == 1
    assert obj.pin_count == 0
    dma_buf.check()


def test_an_import_keeps_the_exporters_bytes(devices: tuple[Device, Device]) -> None:
    exporter, importer = devices
    client = GemHandles(exporter)
    obj = exporter.create(PAGE)
    obj.view[0] = 5
    dma_buf = client.export(client.create(obj))
    view = dma_buf.attach(importer).view
    client.close_all()
    del obj, dma_buf
    gc.collect()
    assert exporter.reap() == 0
    assert view[0] == 5
    del view
    assert importer.reap() == 1
    assert exporter.reap() == 1


def test_an_import_cannot_be_mapped_by_its_handle(devices: tuple[Device, Device]) -> None:
    imported = DmaBuf.of(devices[0].create(PAGE)).attach(devices[1])
    with pytest.raises(NotSupported, match=r"map dma_buf\.obj"):
        _ = imported.map_handle
    assert imported.offset == imported.dma_buf.obj.map_handle  # type: ignore[union-attr]


def test_users_of_either_are_waited_for(devices: tuple[Device, Device]) -> None:
    exporter, importer = devices
    obj = exporter.create(PAGE)
    imported = DmaBuf.of(obj).attach(importer)
    fence = Fence(fence_context_alloc(), 1)
    with imported.resv:
        imported.resv.reserve_fences(1)
        imported.resv.add_fence(fence, Usage.WRITE)
    assert obj.resv.fences(Usage.WRITE) == [fence]
    fence.signal()


def test_an_exporter_that_is_pinned_elsewhere(devices: tuple[Device, Device]) -> None:
    exporter, importer = devices
    obj = exporter.create(PAGE)
    with obj.resv:
        exporter.pin(obj, Domain.VRAM)
    client = GemHandles(importer)
    with pytest.raises(Busy):
        client.import_(DmaBuf.of(obj))
    assert (obj.pin_count, len(client), len(importer.dying)) == (1, 0, 0)
    with obj.resv:
        exporter.unpin(obj)


def test_faults_at_every_allocation(devices: tuple[Device, Device]) -> None:
    exporter, importer = devices

    def share() -> tuple[GemObject, GemHandles]:
        obj = exporter.create(PAGE)
        validate(obj, Domain.VRAM)
        return obj, GemHandles(importer)

    obj, client = share()
    with faults.count_allocations() as allocations:
        client.import_(DmaBuf.of(obj))
    assert len(allocations) > 2
    for number in range(len(allocations)):
        obj, client = share()
        with faults.refuse_allocation(number), pytest.raises(OutOfMemory):
            client.import_(DmaBuf.of(obj))
        importer.reap()
        assert (obj.pin_count, len(client)) == (0, 0)
        for checked in (exporter, importer, client, DmaBuf.of(obj)):
            checked.check()
        assert client.lookup(client.import_(DmaBuf.of(obj))).view[0] == 0


def test_check_finds_what_is_wrong(devices: tuple[Device, Device]) -> None:
    obj = devices[0].create(PAGE)
    dma_buf = DmaBuf.of(obj)
    imported = dma_buf.attach(devices[1])
    obj.pin_count = 0
    with pytest.raises(CheckFailed, match="1 attached"):
        dma_buf.check()
    obj.pin_count = 1
    del imported


def test_two_threads_import_the_same_file() -> None:
    """They get one object, and in one client one handle."""

    def scenario(run: Interleaving) -> Callable[[], None]:
        exporter, importer = Device(vram=1 << 16, gart=1 << 16), Device(vram=1 << 16, gart=1 << 16)
        obj = exporter.create(PAGE)
        dma_buf = DmaBuf.of(obj)
        client, other = GemHandles(importer), GemHandles(importer)
        same = [run.spawn(client.import_, dma_buf) for _ in range(2)]
        third = run.spawn(other.import_, dma_buf)

        def check() -> None:
            assert same[0].result == same[1].result
            assert client.lookup(same[0].result) is other.lookup(third.result)
            assert obj.pin_count == 1
            for checked in (client, other, dma_buf, exporter, importer):
                checked.check()

        return check

    assert explore(scenario, preemptions=1, limit=scaled(60, 3_000)).schedules > 10


def test_an_import_that_is_found_while_it_ends_stays_attached() -> None:
    exporter, importer = Device(vram=MIB, gart=MIB), Device(vram=MIB, gart=MIB)
    obj = exporter.create(PAGE)
    buffer = DmaBuf.of(obj)
    found: list[GemObject] = []
    add = importer.dying.add

    def find(backing: Backing) -> None:
        found.append(buffer.attach(importer))
        add(backing)

    importer.dying.add = find  # type: ignore[method-assign]  # another thread, inside the finalizer
    imported = buffer.attach(importer)
    del imported
    assert len(found) == 1
    assert importer.reap() == 0
    assert obj.pin_count == 1
    assert buffer.attach(importer) is found[0]
    buffer.check()
    found.clear()
    assert importer.reap() == 1
    assert obj.pin_count == 0
    buffer.check()
    exporter.check()
    importer.check()
