"""A device's life: objects come and go, their memory later; what is left over is told."""

from __future__ import annotations

import gc
import weakref

import pytest

from gpuvm.errors import Busy, CheckFailed, InvalidArgument, NoSpace
from gpuvm.mem.aperture import Aperture, Domain
from gpuvm.mem.device import Device
from gpuvm.mem.placement import PAGE
from gpuvm.sync import task
from gpuvm.sync.fence import Fence
from gpuvm.sync.resv import Resv, Usage
from gpuvm.testing import Interleaving
from placed import evict, make_device, make_object, require_content, use, validate

VRAM, GART, CPU = Domain.VRAM, Domain.GART, Domain.CPU


class TestCreating:
    def test_rounds_up_to_pages(self) -> None:
        assert make_device().create(1).size == PAGE
        assert make_device().create(PAGE + 1).size == 2 * PAGE

    def test_gives_zeros(self) -> None:
        device = make_device()
        obj = make_object(device)
        del obj
        device.reap()
        assert not device.create(4 * PAGE).view.any()

    def test_shares_a_reservation_if_given(self) -> None:
        resv = Resv("vm")
        obj = make_device().create(PAGE, resv=resv, no_share=True)
        assert obj.resv is resv
        assert obj.no_share

    @pytest.mark.parametrize(
        ("size", "options", "message"),
        [
            (0, {}, "pass a positive number"),
            (-PAGE, {}, "pass a positive number"),
            (PAGE, {"align": 0}, "power of two"),
            (PAGE, {"align": 2048}, "power of two"),
            (PAGE, {"align": 3 * PAGE}, "power of two"),
            (PAGE, {"priority": 4}, "priority"),
            (PAGE, {"no_share": True}, "resv"),
            (PAGE, {"domains": Domain(0)}, "pass a Domain"),
        ],
    )
    def test_what_cannot_be_is_refused(self, size: int, options: dict[str, object], message: str) -> None:
        device = make_device()
        with pytest.raises(InvalidArgument, match=message):
            device.create(size, **options)  # type: ignore[arg-type]
        assert device.statistics().objects == 0
        device.close()

    def test_larger_than_everything(self) -> None:
        device = make_device()
        with pytest.raises(NoSpace):
            device.create(device.object_file.size + PAGE)

    @pytest.mark.parametrize("sizes", [(0, 1), (1, 0)])
    def test_of_a_device_without_memory(self, sizes: tuple[int, int]) -> None:
        with pytest.raises(InvalidArgument):
            make_device(*sizes)


def test_memories_are_found_by_aperture() -> None:
    device = make_device()
    assert device.memory(Aperture.VRAM) is device.vram
    assert device.memory(Aperture.SYSTEM_COHERENT) is device.gart
    for aperture in (Aperture.PEER, Aperture.SYSTEM_NON_COHERENT):
        with pytest.raises(InvalidArgument, match="has none of"):
            device.memory(aperture)


def test_objects_of_others_are_refused() -> None:
    device, other = make_device(), make_device()
    obj = make_object(other)
    with obj.resv:
        for call in (device.validate, device.evict, device.unpin, device.used):
            with pytest.raises(InvalidArgument, match="import it"):
                call(obj)
        with pytest.raises(InvalidArgument, match="import it"):
            device.pin(obj, VRAM)


def test_a_quota_is_not_negative() -> None:
    with pytest.raises(InvalidArgument, match="system -1"):
        make_device(system=-1)


class TestDelayedDelete:
    def test_frees_what_nobody_uses_at_the_next_call(self) -> None:
        device = make_device(vram=4)
        obj = make_object(device)
        validate(obj)
        del obj
        assert device.statistics().dying == 1
        assert validate(make_object(device))
        assert device.statistics().evictions == 0

    @pytest.mark.parametrize("usage", Usage)
    def test_waits_for_jobs(self, usage: Usage) -> None:
        device = make_device(vram=8)
        obj = make_object(device)
        validate(obj)
        fence, extents = use(obj, usage), obj.extents
        del obj
        assert device.reap() == 0
        device.check()
        assert [(addr, range_) for addr, range_, *_ in device.vram.wired] == [e[1:] for e in extents]
        fence.signal()
        assert device.reap() == 1
        assert device.vram.wired == ()
        device.check()

    def test_does_not_wait_for_later_jobs_of_who_shares_the_reservation(self) -> None:
        device = make_device()
        resv = Resv("vm")
        obj, other = (make_object(device, resv=resv) for _ in range(2))
        fence = use(obj)
        del obj
        assert device.reap() == 0
        later = use(other)
        fence.signal()
        assert device.reap() == 1
        later.signal()

    @pytest.mark.parametrize("domain", Domain)
    def test_from_any_domain(self, domain: Domain) -> None:
        device = make_device(system=16 * PAGE)
        obj = make_object(device, domains=domain)
        validate(obj)
        del obj
        device.check()
        statistics = device.statistics()
        assert (statistics.objects, statistics.dying, statistics.system_used) == (0, 0, 0)
        assert all(manager.used == 0 for manager in statistics.managers)

    def test_makes_room_rather_than_others(self) -> None:
        device = make_device(vram=8)
        gone, stays, new = make_object(device), make_object(device), make_object(device)
        validate(gone)
        validate(stays)
        fence = use(gone)
        del gone

        def job() -> None:
            task.Waiter().wait(task.now() + 1000)
            fence.signal()

        with Interleaving(1) as run:
            run.spawn(validate, new)
            run.spawn(job)
            run.run()
        assert (stays.domain, new.domain) == (VRAM, VRAM)
        assert device.statistics().evictions == 0
        device.check()

    def test_of_a_cycle_comes_with_the_garbage_collector(self) -> None:
        device = make_device()
        obj = make_object(device)
        validate(obj)
        ring: list[object] = [obj]
        ring.append(ring)
        gone = weakref.ref(obj)
        del obj, ring
        gc.collect()
        assert gone() is None
        assert device.reap() == 1

    def test_waits_for_views(self) -> None:
        device = make_device()
        obj = make_object(device)
        validate(obj)
        view = obj.view[PAGE:]
        del obj
        assert device.reap() == 0
        view[:] = 1
        del view
        assert device.reap() == 1

    def test_leaves_alone_what_another_thread_got_hold_of(self) -> None:
        """Between an object's last reference and its end a thread may have made one of a weak one."""
        device = make_device()
        obj = make_object(device)
        validate(obj)
        device.dying.add(obj.backing)
        assert device.reap() == 0
        require_content(obj)
        device.check()
        evict(obj)
        obj._released = lambda _: None  # type: ignore[misc]
        del obj
        assert device.reap() == 1
        device.check()

    def test_of_what_a_fence_keeps(self) -> None:
        """A finalizer may run anywhere: also where the device is busy freeing another one."""
        device = make_device()
        first, second = make_object(device), make_object(device)
        fence = use(first)
        held = [second]
        fence_of_first = use(second)
        fence.add_callback(lambda _: held.clear())
        del first, second
        fence.signal()
        fence_of_first.signal()
        device.reap()
        device.check()
        assert device.statistics().dying == 0


class TestClosing:
    def test_waits_for_what_goes(self) -> None:
        device = make_device()
        obj = make_object(device)
        validate(obj)
        fence = use(obj)
        del obj
        with Interleaving(1) as run:
            run.spawn(device.close)
            run.spawn(fence.signal)
            run.run()
        assert device.statistics().dying == 0
        device.close()

    def test_tells_what_is_left(self) -> None:
        device = make_device()
        obj = make_object(device, name="texture")
        with pytest.raises(Busy, match=r'1 objects left \(<GemObject "texture"') as caught:
            device.close()
        assert caught.value.value == 1
        del obj, caught
        addr = device.instance_memory.allocate(PAGE)
        with pytest.raises(Busy, match="0x1000 bytes of instance memory"):
            device.close()
        device.instance_memory.free(addr, PAGE)
        device.close()

    def test_at_the_end_of_a_block(self) -> None:
        with pytest.raises(Busy), make_device() as device:
            obj = make_object(device)
        del obj

    def test_tells_what_went_wrong_rather_than_what_is_left(self) -> None:
        device = make_device()
        kept = make_object(device)

        def go_wrong() -> None:
            with device:
                raise KeyError(kept)

        with pytest.raises(KeyError):
            go_wrong()

    def test_lets_the_device_go(self) -> None:
        with make_device() as device:
            obj = make_object(device)
            validate(obj)
            evict(obj)
            del obj
        gone = weakref.ref(device.vram)
        del device
        assert gone() is None, "a cycle would keep a terabyte of addresses"


class TestCheck:
    def test_finds_what_is_nobodys(self) -> None:
        device = make_device()
        obj = make_object(device)
        validate(obj)
        resource, obj.resource = obj.resource, None
        with pytest.raises(CheckFailed):
            device.check()
        obj.resource = resource
        device.check()

    def test_finds_a_wrong_pin_count(self) -> None:
        device = make_device()
        obj = make_object(device)
        validate(obj)
        obj.pin_count = 1
        with pytest.raises(CheckFailed, match="pinned 1 times"):
            device.check()
        obj.pin_count = 0

    def test_finds_what_is_wired_and_should_not_be(self) -> None:
        device = make_device()
        device.vram.wire(0, PAGE, device.object_file.fd, 0)
        with pytest.raises(CheckFailed, match="objects lie at"):
            device.check()
        device.vram.unwire(0, PAGE)
        device.check()

    def test_finds_a_wrong_quota(self) -> None:
        device = make_device()
        device._residency._system_used += PAGE
        with pytest.raises(CheckFailed, match="system pages"):
            device.check()


def test_statistics_tell_what_lies_where() -> None:
    device = Device(vram=8 * PAGE, gart=16 * PAGE, system=12 * PAGE, name="tiny")
    objects = [make_object(device, 2, domains) for domains in (VRAM, GART, CPU, VRAM)]
    for obj in objects[:3]:
        validate(obj)
    statistics = device.statistics()
    managers = {manager.domain: manager for manager in statistics.managers}
    assert (statistics.name, statistics.policy) == ("tiny", "lru")
    assert {domain: manager.used for domain, manager in managers.items()} == dict.fromkeys(Domain, 2 * PAGE)
    assert {domain: manager.size for domain, manager in managers.items()} == {
        VRAM: 8 * PAGE,
        GART: 16 * PAGE,
        CPU: None,
    }
    assert (statistics.objects, statistics.dying) == (4, 0)
    assert (statistics.system, statistics.system_used) == (12 * PAGE, 4 * PAGE)
    assert repr(device) == '<Device "tiny" 0x8000 VRAM, 0x10000 GART>'


def test_a_fence_of_a_job_may_drop_the_last_reference() -> None:
    device = make_device()
    obj = make_object(device)
    validate(obj)
    fence = use(obj)
    kept = [obj]
    del obj

    def drop(_fence: Fence) -> None:
        kept.clear()

    fence.add_callback(drop)
    fence.signal()
    assert device.reap() == 1
    device.check()
