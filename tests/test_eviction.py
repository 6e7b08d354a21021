"""Moves: every byte survives, whoever used the old place is waited for, and told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from weakref import WeakSet

import numpy as np
import pytest

from gpuvm import GpuVmFlags
from gpuvm.errors import Interrupted, LockdepError
from gpuvm.mem.aperture import Domain
from gpuvm.mem.device import Device
from gpuvm.mem.gem import GemObject
from gpuvm.mem.memory import Memory
from gpuvm.mem.placement import PAGE, placement_of
from gpuvm.sync import lockdep, task
from gpuvm.sync.fence import Fence
from gpuvm.sync.resv import Resv, Usage
from gpuvm.testing import Interleaving
from placed import (
    content_of,
    domains_of,
    evict,
    make_device,
    make_object,
    physical,
    random_bytes,
    require_content,
    use,
    validate,
)
from spaces import Space
from suite import scaled

VRAM, GART, CPU = Domain.VRAM, Domain.GART, Domain.CPU


class TestBytes:
    @pytest.mark.parametrize("seed", range(scaled(5, 100)))
    def test_survive_any_moves_and_writes(self, seed: int) -> None:
        dice = Random(seed)
        device = make_device(vram=16, gart=8)
        obj, stranger = make_object(device, 5), make_object(device, 3)
        content = content_of(obj)
        validate(stranger)
        for _ in range(30):
            validate(obj, placement_of(dice.choice((VRAM, GART, CPU))))
            first = dice.randrange(obj.size)
            new = random_bytes(dice, dice.randrange(obj.size - first) + 1)
            content[first : first + len(new)] = new
            obj.view[first : first + len(new)] = new
            if obj.extents and dice.random() < 0.5:
                content[0] = dice.randrange(256)
                aperture, addr, _ = obj.extents[0]
                device.memory(aperture).view[addr] = content[0]
            require_content(obj, content)
            require_content(stranger)
        device.check()

    def test_stay_where_clients_map_them(self) -> None:
        device = make_device()
        obj = make_object(device)
        handle = slice(obj.map_handle, obj.map_handle + obj.size)
        for domain in (VRAM, GART, CPU, VRAM):
            validate(obj, placement_of(domain))
            assert np.array_equal(device.object_file.view[handle], content_of(obj))

    def test_are_left_at_the_old_place(self) -> None:
        device = make_device()
        obj = make_object(device, 5)
        validate(obj)
        old = obj.extents
        evict(obj)
        obj.view[:] = 0
        assert np.array_equal(physical(device, old), content_of(obj)), "a stale read sees the old bytes"

    def test_do_not_change_by_late_writes_to_the_old_place(self) -> None:
        device = make_device()
        obj = make_object(device, 5)
        validate(obj)
        old = obj.extents
        evict(obj)
        for aperture, addr, range_ in old:
            device.memory(aperture).view[addr : addr + range_] = 0xEE
        require_content(obj)
        new = device.create(5 * PAGE)
        validate(new)
        assert not new.view.any(), "nor do they show in who comes there next"
        assert not physical(device, new.extents).any()
        device.check()

    def test_of_a_freed_object_do_not_come_back(self) -> None:
        device = make_device(vram=4)
        obj = make_object(device, 4)
        validate(obj)
        del obj
        assert device.reap() == 1
        assert not device.vram.view.any()
        addr = device.instance_memory.allocate(4 * PAGE)
        device.instance_memory.free(addr, 4 * PAGE)

    @pytest.mark.parametrize("gart", [4, 12, 64])
    def test_survive_fourfold_overcommitment(self, gart: int) -> None:
        dice = Random(gart)
        device = make_device(vram=16, gart=gart)
        objects = [make_object(device, dice.choice((1, 2, 3, 5)), name=f"bo{number}") for number in range(32)]
        assert sum(obj.size for obj in objects) >= 4 * device.vram.size
        for obj in objects + [dice.choice(objects) for _ in range(200)]:
            validate(obj)
            assert obj.domain == VRAM
            require_content(obj)
        for obj in objects:
            require_content(obj)
        device.check()
        statistics = device.statistics()
        assert statistics.evictions > 50
        into = sum(moves.bytes for moves in statistics.moves if moves.target == VRAM)
        out = sum(moves.bytes for moves in statistics.moves if moves.source == VRAM)
        held = sum(obj.size for obj in objects if obj.domain == VRAM)
        assert into - out + sum(obj.size for obj in objects) == held, "placed once, then in and out"


@pytest.fixture
def moving(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[Fence]]]:
    """What KERNEL fences ``watched`` has while its pages are taken away, for each extent."""
    seen: list[list[Fence]] = []
    unwire = Memory.unwire

    def spy(self: Memory, addr: int, range: int, **how: np.ndarray) -> None:
        seen.extend(obj.resv.fences(Usage.KERNEL) for obj in watched)
        assert lockdep.statistics().sections == 1, "copies are made in a fence-signalling section"
        unwire(self, addr, range, **how)

    monkeypatch.setattr(Memory, "unwire", spy)
    yield seen
    watched.clear()


watched: list[GemObject] = []


class TestFences:
    def test_of_the_move_are_published_as_kernel(self, moving: list[list[Fence]]) -> None:
        obj = make_object(make_device())
        watched.append(obj)
        validate(obj)
        with obj.resv:
            ((fence, usage),) = obj.resv.entries()
        assert usage == Usage.KERNEL, "a first placement has one, too"
        assert fence.signalled
        evict(obj)
        assert [len(fences) for fences in moving] == [1]
        (fence,) = moving[0]
        assert fence.signalled
        assert obj.resv.fences(Usage.BOOKKEEP) == []

    @pytest.mark.parametrize("usage", Usage)
    def test_of_every_user_are_waited_for(self, usage: Usage) -> None:
        device = make_device()
        obj = make_object(device)
        validate(obj)
        old = obj.extents
        fence = use(obj, usage)

        def job() -> None:
            task.Waiter().wait(task.now() + 1000)
            assert obj.extents == old
            device.vram.view[old[0].addr] = 77
            fence.signal()

        with Interleaving(1) as run:
            run.spawn(evict, obj)
            run.spawn(job)
            run.run()
        assert obj.domain == GART
        assert obj.view[0] == 77
        assert device.statistics().stalls == 1

    def test_of_who_shares_the_reservation_are_not_waited_for_by_a_new_object(self) -> None:
        device = make_device()
        resv = Resv("vm")
        old, new = (make_object(device, resv=resv) for _ in range(2))
        validate(old)
        fence = use(old)
        assert validate(new), "nothing can use it yet"
        assert device.statistics().stalls == 0
        fence.signal()

    def test_interrupted_waits_change_nothing(self) -> None:
        device = make_device(vram=4)
        obj, other = make_object(device), make_object(device)
        validate(obj)
        fence = use(obj)
        before = obj.extents, obj.resource
        calls: list[Callable[[], bool]] = [
            lambda: validate(other, interruptible=True),
            lambda: validate(obj, placement_of(GART), interruptible=True),
        ]
        for call in calls:
            task.current().interrupt()
            with pytest.raises(Interrupted):
                call()
            assert (obj.extents, obj.resource) == before
            assert other.resource is None
            device.check()
        fence.signal()
        for call in calls[::-1]:
            assert call()
        device.check()


@pytest.fixture
def device() -> Device:
    return make_device(vram=8)


class TestAddressSpaces:
    @pytest.mark.parametrize("flags", [GpuVmFlags(0), GpuVmFlags.IMMEDIATE_MODE])
    def test_are_told_before_the_move(self, device: Device, flags: GpuVmFlags) -> None:
        obj = make_object(device)
        spaces = [Space(flags), Space(flags)]
        for vm in spaces:
            vm.show(obj, 0)
        validate(obj)
        assert [vm.noted for vm in spaces] == [[], []], "from nowhere: nobody had it mapped"
        evict(obj)
        for vm in spaces:
            assert vm.noted == [(obj, VRAM)]
            assert [vm_bo.obj for vm_bo in vm.evicted] == [obj]
        validate(obj)
        assert [len(vm.noted) for vm in spaces] == [2, 2], "from GART, where others may have it mapped"

    def test_are_not_told_once_they_unmapped_it(self, device: Device) -> None:
        obj = make_object(device)
        vm = Space(GpuVmFlags(0))
        vm.show(obj, 0)
        validate(obj)
        with obj.resv:
            vm.sm_unmap(0, obj.size).apply()
        evict(obj)
        assert vm.noted == []

    def test_have_their_private_objects_listed(self, device: Device) -> None:
        root = make_object(device)
        vm = Space(GpuVmFlags.RESV_PROTECTED, root)
        private = [make_object(device, resv=vm.resv, no_share=True) for _ in range(3)]
        for number, obj in enumerate(private):
            vm.show(obj, 4 * number * PAGE)
            validate(obj)
        assert domains_of(private) == [GART, VRAM, VRAM]
        assert vm.noted == [(private[0], VRAM)]
        assert [vm_bo.obj for vm_bo in vm.evicted] == [private[0]]
        for obj in private:
            require_content(obj)
        device.check()


@pytest.mark.parametrize("domain", [GART, CPU])
def test_system_pages_of_what_is_gone_are_waited_for(domain: Domain) -> None:
    for seed in range(scaled(4, 40)):
        device = make_device(system=4 * PAGE)
        gone = make_object(device, 4, domain)
        validate(gone)
        fence = use(gone)
        del gone
        obj = make_object(device, 2, GART)
        with Interleaving(seed) as run:
            validating = run.spawn(validate, obj)
            run.spawn(fence.signal)
            run.run()
        assert validating.result
        require_content(obj)
        device.check()


def test_address_spaces_are_listed_while_none_can_join() -> None:
    obj = make_object(make_device())
    validate(obj)

    class Watched(WeakSet[object]):
        def __iter__(self) -> Iterator[object]:
            lockdep.assert_held(obj.gpuva_lock)  # in immediate mode they join with it, and with nothing else
            return super().__iter__()

    obj.vms = Watched()  # type: ignore[assignment, misc]
    evict(obj)
    with pytest.raises(LockdepError):
        list(obj.vms)
