"""VRAM for the GPU's own structures: zero, aligned, at the cost of objects that can move."""

from __future__ import annotations

import pytest

from gpuvm.errors import InvalidArgument, NoSpace, NotFound, OutOfMemory
from gpuvm.mem.aperture import Domain
from gpuvm.mem.placement import PAGE
from placed import make_device, make_object, pin, require_content, validate

VRAM, GART, CPU = Domain.VRAM, Domain.GART, Domain.CPU


class TestInstanceMemory:
    def test_is_zero_aligned_and_apart(self) -> None:
        device = make_device(vram=16)
        memory = device.instance_memory
        addresses: dict[int, int] = {}
        for size in (PAGE, 4 * PAGE, PAGE, 2 * PAGE):
            addr = memory.allocate(size)
            assert addr % size == 0
            assert not memory.view[addr : addr + size].any()
            memory.view[addr : addr + size] = len(addresses) + 1
            addresses[addr] = size
        device.check()
        assert memory.statistics().used == device.statistics().instance_memory == 8 * PAGE
        for number, (addr, size) in enumerate(addresses.items()):
            assert (memory.view[addr : addr + size] == number + 1).all()
            memory.free(addr, size)
        device.check()

    def test_is_zero_where_objects_were(self) -> None:
        device = make_device(vram=4)
        obj = make_object(device)
        validate(obj)
        addr = device.instance_memory.allocate(4 * PAGE)
        assert obj.domain == GART
        assert not device.vram.view[addr : addr + 4 * PAGE].any()
        require_content(obj)
        device.check()

    def test_evicts_whose_reservation_is_free(self) -> None:
        device = make_device(vram=8)
        busy, idle = make_object(device), make_object(device)
        validate(busy)
        validate(idle)
        with busy.resv:
            device.instance_memory.allocate(PAGE)
            assert (busy.domain, idle.domain) == (VRAM, GART)
            with pytest.raises(OutOfMemory, match="nobody can make room"):
                device.instance_memory.allocate(4 * PAGE)
        device.instance_memory.allocate(4 * PAGE)
        assert busy.domain == GART
        device.check()

    def test_leaves_pinned_ones(self) -> None:
        device = make_device(vram=4)
        obj = make_object(device)
        pin(obj, VRAM)
        with pytest.raises(OutOfMemory):
            device.instance_memory.allocate(PAGE)
        device.check()

    @pytest.mark.parametrize("size", [0, 2048, 3 * PAGE, -PAGE])
    def test_in_powers_of_two(self, size: int) -> None:
        with pytest.raises(InvalidArgument, match="power of two"):
            make_device().instance_memory.allocate(size)

    def test_is_not_more_than_vram(self) -> None:
        with pytest.raises(NoSpace):
            make_device(vram=4).instance_memory.allocate(8 * PAGE)

    def test_is_freed_once_and_as_a_whole(self) -> None:
        memory = make_device().instance_memory
        addr = memory.allocate(2 * PAGE)
        with pytest.raises(InvalidArgument, match="free all of them"):
            memory.free(addr, PAGE)
        memory.free(addr, 2 * PAGE)
        with pytest.raises(NotFound):
            memory.free(addr, 2 * PAGE)
