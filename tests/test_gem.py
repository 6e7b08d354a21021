"""`GemObject`: its bytes wherever it lies, a client's own mapping of them, and its end in any thread."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator

import numpy as np
import pytest

from gpuvm.errors import CheckFailed, InvalidArgument
from gpuvm.mem import Domain
from gpuvm.mem.device import Device
from gpuvm.mem.gem import GemObject
from gpuvm.mem.map_count import map_count
from gpuvm.mem.placement import placement_of
from gpuvm.sync import lockdep
from gpuvm.sync.fence import Fence, fence_context_alloc
from gpuvm.sync.resv import Resv, Usage
from memories import PAGE

MIB = 1 << 20


@pytest.fixture
def device() -> Iterator[Device]:
    device = Device(vram=4 * MIB, gart=4 * MIB)
    yield device
    device.check()


def move(obj: GemObject, domain: Domain) -> None:
    with obj.resv:
        obj.device.validate(obj, placement_of(domain))


def at_physical_addresses(obj: GemObject) -> bytes:
    memories = [(obj.device.memory(extent.aperture), extent) for extent in obj.extents]
    return b"".join(bytes(memory.view[addr : addr + size]) for memory, (_, addr, size) in memories)


def test_a_new_object(device: Device) -> None:
    obj = device.create(3 * PAGE, name="new", priority=2)
    assert (obj.name, obj.size, obj.priority, obj.pin_count, obj.swapped) == ("new", 3 * PAGE, 2, 0, False)
    assert (obj.resource, obj.extents, obj.domain, obj.handle_count) == (None, (), Domain.CPU, 0)
    assert (obj.device, obj.no_share, obj.dma_buf, len(obj.vms)) == (device, False, None, 0)
    assert obj.gpuva_lock.lock_class is lockdep.lock_class("gpuva_lock")
    assert obj.allowed == placement_of(Domain.VRAM)
    assert not obj.view.any()
    assert repr(obj) == '<GemObject "new" 0x3000 in CPU>'
    obj.check()
    numbers = obj.statistics()
    assert (numbers.name, numbers.size, numbers.domain, numbers.handles) == ("new", 3 * PAGE, Domain.CPU, 0)


def test_a_private_object_shares_its_address_spaces_reservation(device: Device) -> None:
    resv = Resv("vm")
    obj = device.create(PAGE, resv=resv, no_share=True)
    assert obj.resv is resv
    assert obj.no_share


def test_its_bytes_are_the_same_wherever_it_lies(device: Device) -> None:
    obj = device.create(64 * PAGE)
    content = np.random.default_rng(1).integers(0, 256, obj.size, np.uint8)
    obj.view[:] = content
    for domain in (Domain.VRAM, Domain.GART, Domain.VRAM, Domain.CPU, Domain.GART):
        move(obj, domain)
        assert obj.domain == domain
        assert bytes(obj.view) == content.tobytes()
        if obj.extents:
            assert at_physical_addresses(obj) == content.tobytes()
            aperture, addr, _ = obj.extents[0]
            content[0] ^= 1
            device.memory(aperture).view[addr] = content[0]
        device.check()


def test_views_are_writable_bytes_without_a_copy(device: Device) -> None:
    obj = device.create(2 * PAGE)
    view = obj.view
    assert view.shape == (2 * PAGE,)
    assert view.dtype == np.uint8
    assert view.flags.writeable
    words = np.frombuffer(view.data, "<u4")
    words[1] = 0x01020304
    assert bytes(memoryview(view)[4:8]) == b"\4\3\2\1"  # type: ignore[arg-type]
    view[PAGE::2] = 9
    assert obj.view[PAGE : PAGE + 4].tolist() == [9, 0, 9, 0]
    assert np.asarray(obj)[PAGE] == 9
    assert np.shares_memory(obj.view, device.object_file.view)


CLIENT = """
import mmap, os, sys
fd, map_handle, size = map(int, sys.argv[1:])
mapped = mmap.mmap(fd, size, offset=map_handle)
for line in sys.stdin:
    mapped[0] += 1
    print(mapped[0], mapped[size - 1], flush=True)
"""


def test_a_clients_own_mapping_stays_right_while_the_object_moves(device: Device) -> None:
    """The client is another process, which knows a descriptor and a number and nothing of us."""
    device.create(PAGE)  # so that the map handle is not 0
    obj = device.create(16 * PAGE)
    fd = device.object_file.fd
    arguments = [sys.executable, "-c", CLIENT, str(fd), str(obj.map_handle), str(obj.size)]
    with subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=[fd]
    ) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        for step, domain in enumerate((Domain.CPU, Domain.VRAM, Domain.GART, Domain.VRAM), start=1):
            move(obj, domain)
            obj.view[0] = 10 * step
            obj.view[-1] = step
            client.stdin.write("\n")
            client.stdin.flush()
            assert client.stdout.readline() == f"{10 * step + 1} {step}\n"
            assert obj.view[0] == 10 * step + 1
            if obj.extents:
                assert at_physical_addresses(obj)[:1] == bytes((10 * step + 1,))
        client.stdin.close()
        assert client.wait() == 0


# -- its end


def gone(device: Device) -> bool:
    """Whether nothing is left of any object."""
    device.reap()
    numbers = device.object_file.statistics()
    wired = device.vram.wired or device.gart.wired
    return (numbers.objects, numbers.allocated, bool(wired)) == (0, 0, False)


def test_the_last_reference_is_the_end(device: Device) -> None:
    obj = device.create(PAGE)
    move(obj, Domain.VRAM)
    obj.view[:] = 1
    known = weakref.ref(obj)
    del obj
    assert known() is None
    assert device.object_file.statistics().objects == 1
    assert gone(device)
    assert device.vram.statistics().own == 0


def test_a_view_is_a_reference(device: Device) -> None:
    before = map_count.used
    obj = device.create(2 * PAGE)
    move(obj, Domain.VRAM)
    part = obj.view[PAGE:][::2].data
    del obj
    assert not gone(device)
    part[0] = 5
    assert device.vram.view[PAGE] == 5
    del part
    assert gone(device)
    assert map_count.used == before


def test_an_object_in_a_circle(device: Device) -> None:
    class Holder:
        def __init__(self, obj: GemObject) -> None:
            self.obj = obj
            self.itself = self

    Holder(device.create(PAGE))
    gc.collect()
    assert gone(device)


@pytest.mark.parametrize("elsewhere", [False, True], ids=["this thread", "another thread"])
def test_the_end_comes_at_any_moment(device: Device, elsewhere: bool) -> None:
    """Also while this thread is inside a call, with all locks that there are."""
    objs = [device.create(PAGE)]
    move(objs[0], Domain.GART)
    with device.names.lock, objs[0].resv, device.gart._lock, map_count.lock:
        if elsewhere:
            thread = threading.Thread(target=objs.clear)
            thread.start()
            thread.join()
        else:
            objs.clear()
    assert not objs
    assert gone(device)


def test_memory_waits_for_the_fences_of_its_users(device: Device) -> None:
    obj = device.create(PAGE)
    move(obj, Domain.VRAM)
    obj.view[0] = 7
    fence = Fence(fence_context_alloc(), 1)
    with obj.resv:
        obj.resv.reserve_fences(1)
        obj.resv.add_fence(fence, Usage.BOOKKEEP)
    addr = obj.extents[0].addr
    del obj
    assert not gone(device)
    assert device.vram.view[addr] == 7
    device.check()
    fence.signal()
    assert gone(device)


def test_what_could_not_be_made_is_not_released(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("gpuvm.mem.gem.Mutex", refused)
    with pytest.raises(MemoryError):
        device.create(PAGE)
    monkeypatch.undo()
    assert len(device.dying) == 0
    assert device.object_file.statistics().objects == 0


def test_the_end_of_the_program_is_silent() -> None:
    program = """
from gpuvm.mem import Domain
from gpuvm.mem.device import Device
from gpuvm.mem.handles import GemHandles
device = Device(vram=1 << 20, gart=1 << 20)
class Holder: pass
holder = Holder()
holder.itself, holder.obj = holder, device.create(4096)
with holder.obj.resv:
    device.validate(holder.obj)
handles = GemHandles(device)
handles.export_fd(handles.create(holder.obj))
views = [device.create(4096).view[5:], device.vram.view, device.object_file.view[:1]]
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


# -- check


def test_check_finds_what_is_wrong(device: Device) -> None:
    obj = device.create(PAGE)
    move(obj, Domain.VRAM)
    wrong = (("pin_count", -1, "negative"), ("swapped", True, "swapped"), ("flink_name", 3, "handle"))
    for name, value, words in wrong:
        before = getattr(obj, name)
        setattr(obj, name, value)
        with pytest.raises(CheckFailed, match=words):
            obj.check()
        setattr(obj, name, before)
    other = device.create(PAGE)
    extent = obj.extents[0]
    device.vram.unwire(extent.addr, extent.range)
    device.vram.wire(extent.addr, extent.range, other.fd, other.offset)
    with pytest.raises(CheckFailed, match="behind"):
        obj.check()
    device.vram.unwire(extent.addr, extent.range)
    device.vram.wire(extent.addr, extent.range, obj.fd, obj.offset)
    obj.check()


def test_bad_objects_are_refused_and_leave_nothing(device: Device) -> None:
    for size, align, priority in ((0, PAGE, 0), (-1, PAGE, 0), (PAGE, PAGE, 4), (PAGE, 3, 0)):
        with pytest.raises(InvalidArgument):
            device.create(size, align=align, priority=priority)
    assert gone(device)
    assert os.fstat(device.object_file.fd).st_blocks == 0
