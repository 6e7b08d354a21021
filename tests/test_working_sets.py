"""What limits eviction: the objects of one submission, and the quota of system memory."""

from __future__ import annotations

import pytest

from gpuvm import Exec, GpuVmFlags
from gpuvm.errors import OutOfMemory
from gpuvm.mem.aperture import Domain
from gpuvm.mem.device import Device
from gpuvm.mem.placement import CPU_PLACE, PAGE, Place, placement_of
from gpuvm.sync import task
from gpuvm.testing import Interleaving
from placed import (
    domains_of,
    evict,
    make_device,
    make_object,
    pin,
    require_content,
    use,
    validate,
)
from spaces import Space

VRAM, GART, CPU = Domain.VRAM, Domain.GART, Domain.CPU


@pytest.fixture
def device() -> Device:
    return make_device(vram=8)


class TestWorkingSets:
    def test_stay(self, device: Device) -> None:
        objects = [make_object(device, 4) for _ in range(3)]
        for obj in objects:
            validate(obj)
        with Exec() as exec:
            for attempt in exec.until_all_locked():
                with attempt:
                    exec.prepare_array(objects[:2], 1)
                    for obj in objects[:2]:
                        device.validate(obj, exec=exec)
            assert domains_of(objects) == [VRAM, VRAM, GART]
        device.check()

    def test_that_are_too_large_are_refused(self, device: Device) -> None:
        objects = [make_object(device, 4) for _ in range(3)]
        with Exec() as exec:
            for attempt in exec.until_all_locked():
                with attempt:
                    exec.prepare_array(objects, 1)
                    for obj in objects[:2]:
                        device.validate(obj, exec=exec)
                    with pytest.raises(OutOfMemory, match="use less at once"):
                        device.validate(objects[2], exec=exec)
        for obj in objects:
            require_content(obj)
        device.check()
        validate(objects[2])

    def test_of_private_objects_are_those_that_are_known_to_an_address_space(self, device: Device) -> None:
        root = make_object(device)
        vm = Space(GpuVmFlags.RESV_PROTECTED, root)
        mapped, loose, new = (make_object(device, resv=vm.resv) for _ in range(3))
        vm.show(mapped, 0)
        validate(mapped)
        validate(loose)
        with vm.exec_lock(1) as exec:
            device.validate(new, exec=exec)
        assert domains_of([mapped, loose, new]) == [VRAM, GART, VRAM]
        vm.show(new, 4 * PAGE)
        with vm.exec_lock(1) as exec, pytest.raises(OutOfMemory):
            device.validate(loose, exec=exec)
        device.check()

    def test_wait_for_others_to_unlock(self, device: Device) -> None:
        victims = [make_object(device) for _ in range(2)]
        for obj in victims:
            validate(obj)
        new = make_object(device)

        def hold() -> None:
            with Exec() as exec:
                for attempt in exec.until_all_locked():
                    with attempt:
                        exec.prepare_array(victims, 1)
                task.Waiter().wait(task.now() + 1000)
                assert domains_of([*victims, new]) == [VRAM, VRAM, CPU]

        def submit() -> None:
            task.Waiter().wait(task.now() + 500)
            with pytest.raises(OutOfMemory):
                validate(new)
            with Exec() as exec:
                for attempt in exec.until_all_locked():
                    with attempt:
                        exec.lock_obj(new)
                        device.validate(new, exec=exec)
                assert list(exec.claimed()) == [new]

        with Interleaving(1) as run:
            run.spawn(hold)
            run.spawn(submit)
            run.run()
        assert domains_of([*victims, new]) == [GART, VRAM, VRAM]
        device.check()

    @pytest.mark.parametrize("leaves", [False, True])
    def test_wait_for_who_is_just_moving(self, device: Device, leaves: bool) -> None:
        moving, new = make_object(device, 8), make_object(device, 8)
        validate(moving, placement_of(VRAM if leaves else GART))
        fence = use(moving)

        def move() -> None:
            validate(moving, placement_of(GART if leaves else VRAM))

        def submit() -> None:
            task.Waiter().wait(task.now() + 500)
            with Exec() as exec:
                for attempt in exec.until_all_locked():
                    with attempt:
                        exec.lock_obj(new)
                        device.validate(new, exec=exec)

        def job() -> None:
            task.Waiter().wait(task.now() + 1000)
            assert new.domain == CPU
            fence.signal()

        with Interleaving(1) as run:
            for work in (move, submit, job):
                run.spawn(work)
            run.run()
        assert domains_of([moving, new]) == [GART, VRAM]
        device.check()

    def test_of_a_loop_that_is_over_wait_for_nobody(self, device: Device) -> None:
        victims = [make_object(device) for _ in range(2)]
        for obj in victims:
            validate(obj)
        new = make_object(device)

        def hold() -> None:
            with victims[0].resv:
                task.Waiter().wait(task.now() + 1000)

        def submit() -> None:
            task.Waiter().wait(task.now() + 500)
            with Exec() as exec:
                for attempt in exec.until_all_locked():
                    with attempt:
                        exec.lock_obj(new)
                        exec.lock_obj(victims[1])
                with pytest.raises(OutOfMemory):
                    device.validate(new, exec=exec)

        with Interleaving(1) as run:
            run.spawn(hold)
            run.spawn(submit)
            run.run()
        assert domains_of([*victims, new]) == [VRAM, VRAM, CPU]
        device.check()


class TestQuota:
    def test_over_it_the_least_used_are_swapped_out(self) -> None:
        device = make_device(vram=4, gart=4, system=8 * PAGE)
        objects = [make_object(device) for _ in range(5)]
        for obj in objects:
            validate(obj)
        assert domains_of(objects) == [GART, CPU, CPU, CPU, VRAM]
        assert [obj.swapped for obj in objects] == [False, True, True, False, False]
        statistics = device.statistics()
        assert (statistics.swapped_out, statistics.bytes_swapped_out) == (2, 2 * objects[0].size)
        assert statistics.system_used == statistics.system == 8 * PAGE
        for obj in objects:
            require_content(obj)
        assert validate(objects[1])
        assert not objects[1].swapped
        for obj in objects:
            require_content(obj)
        device.check()

    def test_objects_in_gart_are_swapped_out_in_the_end(self) -> None:
        device = make_device(vram=4, gart=64, system=8 * PAGE)
        objects = [make_object(device, domains=GART) for _ in range(3)]
        for obj in objects:
            validate(obj)
        assert domains_of(objects) == [CPU, GART, GART]
        assert objects[0].swapped
        device.check()

    def test_without_room_nobody_is_evicted(self) -> None:
        device = make_device(vram=4, gart=64, system=4 * PAGE)
        pinned, obj, new = (make_object(device) for _ in range(3))
        pin(pinned, GART)
        validate(obj)
        with pytest.raises(OutOfMemory, match="quota"):
            validate(new)
        assert domains_of([pinned, obj, new]) == [GART, VRAM, CPU]
        device.check()

    def test_counts_an_object_once(self) -> None:
        device = make_device(system=4 * PAGE)
        obj = make_object(device)
        for domain in (GART, CPU, GART, VRAM, CPU, VRAM):
            validate(obj, placement_of(domain))
            assert device.statistics().system_used == (0 if domain == VRAM else obj.size)
            device.check()


class TestEvictAll:
    def test_empties_a_domain(self) -> None:
        device = make_device()
        objects = [make_object(device, 2, domains=domain) for domain in (VRAM, GART, VRAM, VRAM)]
        for obj in objects:
            validate(obj)
        pin(objects[2], VRAM)
        device.evict_all(VRAM)
        assert domains_of(objects) == [GART, GART, VRAM, GART]
        device.evict_all(GART)
        assert domains_of(objects) == [CPU, CPU, VRAM, CPU]
        device.evict_all(CPU)
        for obj in objects:
            require_content(obj)
        device.check()

    def test_of_what_lies_nowhere(self) -> None:
        obj = make_object(make_device())
        evict(obj)
        assert (obj.domain, obj.swapped) == (CPU, False)

    def test_window_of_a_victim_does_not_bind_it_elsewhere(self) -> None:
        device = make_device(gart=4)
        obj = make_object(device)
        validate(obj, (Place(VRAM, 8 * PAGE),))
        evict(obj)
        assert obj.domain == GART
        validate(obj, (CPU_PLACE,))
        assert obj.domain == CPU
