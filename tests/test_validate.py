"""Where validate puts an object, and when it refuses."""

from __future__ import annotations

import pytest

from gpuvm.errors import Busy, InvalidArgument, LockdepError, NoSpace, OutOfMemory
from gpuvm.mem.aperture import Aperture, Domain
from gpuvm.mem.placement import CPU_PLACE, PAGE, Place, placement_of
from gpuvm.sync import lockdep
from gpuvm.sync.resv import Resv
from placed import domains_of, evict, make_device, make_object, pin, require_content, unpin, validate

VRAM, GART, CPU = Domain.VRAM, Domain.GART, Domain.CPU
ANY = placement_of(VRAM | GART | CPU)


class TestTheFirstPlace:
    def test_is_taken_while_there_is_room(self) -> None:
        device = make_device(vram=8)
        objects = [make_object(device, domains=VRAM | GART) for _ in range(3)]
        assert [validate(obj) for obj in objects] == [True, True, True]
        assert domains_of(objects) == [VRAM, VRAM, GART]
        for obj in objects:
            require_content(obj)
        device.check()

    def test_is_nowhere_before(self) -> None:
        obj = make_object(make_device())
        assert (obj.domain, obj.extents, obj.resource) == (CPU, (), None)

    def test_is_kept(self) -> None:
        device = make_device()
        obj = make_object(device, domains=VRAM | GART)
        validate(obj)
        extents = obj.extents
        assert not validate(obj)
        assert obj.extents == extents

    def test_is_not_searched_for_again_by_what_lies_in_the_second(self) -> None:
        device = make_device(vram=4)
        first, second = (make_object(device, domains=VRAM | GART) for _ in range(2))
        validate(first)
        validate(second)
        evict(first)
        assert not validate(second)
        assert second.domain == GART

    def test_may_be_on_the_cpu_side(self) -> None:
        device = make_device()
        obj = make_object(device)
        assert validate(obj, (CPU_PLACE,))
        assert (obj.domain, obj.extents) == (CPU, ())
        assert not validate(obj, (CPU_PLACE,))
        assert validate(obj)
        require_content(obj)
        device.check()

    def test_is_by_default_what_the_object_allows(self) -> None:
        device = make_device()
        obj = make_object(device, domains=GART)
        validate(obj)
        assert obj.domain == GART
        assert {extent.aperture for extent in obj.extents} == {Aperture.SYSTEM_COHERENT}
        validate(obj, placement_of(VRAM))
        assert obj.domain == VRAM
        assert {extent.aperture for extent in obj.extents} == {Aperture.VRAM}


class TestFallback:
    PLACES = (Place(VRAM), Place(GART, fallback=True))

    def test_is_not_taken_if_somebody_can_be_evicted(self) -> None:
        device = make_device(vram=4)
        first, second = (make_object(device) for _ in range(2))
        validate(first)
        validate(second, self.PLACES)
        assert domains_of([first, second]) == [GART, VRAM]

    def test_is_taken_if_nobody_can(self) -> None:
        device = make_device(vram=4)
        first, second = (make_object(device) for _ in range(2))
        pin(first, VRAM)
        validate(second, self.PLACES)
        assert domains_of([first, second]) == [VRAM, GART]

    def test_is_left_once_there_is_room(self) -> None:
        device = make_device(vram=4)
        first, second = (make_object(device) for _ in range(2))
        pin(first, VRAM)
        validate(second, self.PLACES)
        assert not validate(second, self.PLACES)
        unpin(first)
        assert not validate(second, self.PLACES), "nobody is evicted for what lies in a fallback"
        evict(first)
        assert validate(second, self.PLACES)
        assert second.domain == VRAM
        require_content(second)


class TestWindowsAndContiguity:
    def test_are_kept_to(self) -> None:
        device = make_device(vram=16)
        obj = make_object(device, 4)
        validate(obj, (Place(VRAM, 8 * PAGE, 12 * PAGE),))
        assert sum(extent.range for extent in obj.extents) == 4 * PAGE
        assert {extent.addr // (4 * PAGE) for extent in obj.extents} == {2}
        require_content(obj)

    def test_move_what_lies_elsewhere(self) -> None:
        device = make_device(vram=16)
        obj = make_object(device, 4)
        validate(obj, (Place(VRAM, 0, 8 * PAGE),))
        assert validate(obj, (Place(VRAM, 8 * PAGE),))
        assert all(extent.addr >= 8 * PAGE for extent in obj.extents)
        require_content(obj)
        assert device.statistics().between(VRAM, VRAM).bytes == obj.size
        device.check()

    def test_evict_nobody_outside(self) -> None:
        device = make_device(vram=16)
        objects = [make_object(device, 4) for _ in range(4)]
        for number, obj in enumerate(objects):
            validate(obj, (Place(VRAM, 4 * number * PAGE, 4 * (number + 1) * PAGE),))
        new = make_object(device, 4)
        validate(new, (Place(VRAM, 8 * PAGE, 12 * PAGE),))
        assert domains_of(objects) == [VRAM, VRAM, GART, VRAM]

    def test_gather_scattered_free_memory(self) -> None:
        device = make_device(vram=16)
        objects = [make_object(device, 1) for _ in range(16)]
        for obj in objects:
            validate(obj)
        for obj in objects[::2]:
            evict(obj)
        scattered, whole = make_object(device, 4), make_object(device, 4)
        validate(scattered)
        assert len(scattered.extents) > 1
        require_content(scattered)
        assert validate(whole, (Place(VRAM, contiguous=True),))
        assert len(whole.extents) == 1
        assert validate(scattered, (Place(VRAM, contiguous=True),))
        assert len(scattered.extents) == 1
        for obj in (*objects, scattered, whole):
            require_content(obj)
        device.check()

    @pytest.mark.parametrize("align", [PAGE, 4 * PAGE, 16 * PAGE])
    @pytest.mark.parametrize("domain", [VRAM, GART])
    def test_alignment_of_addresses_and_size(self, align: int, domain: Domain) -> None:
        device = make_device(vram=32)
        filler = make_object(device, 1, domain)
        validate(filler)
        obj = make_object(device, 7, domain, align=align)
        validate(obj)
        assert obj.size % align == 0
        assert 7 * PAGE <= obj.size < 7 * PAGE + align
        assert all(extent.addr % align == 0 for extent in obj.extents)
        require_content(obj)

    def test_a_window_beyond_the_memory_is_no_place(self) -> None:
        obj = make_object(make_device(vram=8))
        with pytest.raises(NoSpace):
            validate(obj, (Place(VRAM, 16 * PAGE),))
        assert validate(obj, (Place(VRAM, 16 * PAGE), Place(GART)))


class TestRefusal:
    def test_because_it_never_fits(self) -> None:
        device = make_device(vram=8)
        obj = make_object(device, 9)
        with pytest.raises(NoSpace, match="never fit in VRAM") as caught:
            validate(obj)
        assert caught.value.value == obj.size
        obj = make_object(device, 3)
        with pytest.raises(NoSpace):
            validate(obj, (Place(VRAM, 0, 2 * PAGE),))
        device.check()

    def test_because_the_quota_never_has_room(self) -> None:
        device = make_device(system=4 * PAGE)
        obj = make_object(device, 5)
        for domain in (GART, CPU):
            with pytest.raises(NoSpace):
                validate(obj, placement_of(domain))
        assert validate(obj, ANY)
        device.check()

    def test_because_it_does_not_fit_now(self) -> None:
        device = make_device(vram=8)
        first, second = make_object(device, 4), make_object(device, 5)
        pin(first, VRAM)
        with pytest.raises(OutOfMemory, match="do not fit in VRAM"):
            validate(second)
        assert second.domain == CPU
        device.check()
        unpin(first)
        assert validate(second)
        require_content(first)
        require_content(second)

    def test_evicts_nobody_for_what_never_fits(self) -> None:
        device = make_device(vram=8)
        first = make_object(device, 8)
        validate(first)
        with pytest.raises(NoSpace):
            validate(make_object(device, 9))
        assert first.domain == VRAM

    def test_of_no_place(self) -> None:
        obj = make_object(make_device())
        with pytest.raises(InvalidArgument, match="no place"):
            validate(obj, ())

    def test_without_the_reservation(self) -> None:
        device = make_device()
        obj = make_object(device)
        for call in (device.validate, device.evict, device.unpin, device.used):
            with pytest.raises(LockdepError, match="not hold"):
                call(obj)
        with pytest.raises(LockdepError, match="not hold"):
            device.pin(obj, VRAM)
        lockdep.check()


class TestPriorities:
    def test_lower_ones_go_first(self) -> None:
        device = make_device(vram=12)
        objects = [make_object(device, 4, priority=priority) for priority in (3, 0, 1)]
        for obj in objects:
            validate(obj)
        validate(objects[1])
        for expected in ([VRAM, GART, VRAM], [VRAM, GART, GART], [GART, GART, GART]):
            newest = make_object(device, 4, priority=3)
            validate(newest)
            objects.append(newest)
            assert domains_of(objects[:3]) == expected

    @pytest.mark.parametrize("priority", [-1, 4])
    def test_are_four(self, priority: int) -> None:
        with pytest.raises(InvalidArgument, match="priority"):
            make_object(make_device(), priority=priority)


class TestPinning:
    def test_keeps_it_where_it_is(self) -> None:
        device = make_device(vram=8)
        pinned, other = make_object(device), make_object(device)
        pin(pinned, VRAM)
        extents = pinned.extents
        validate(other)
        for _ in range(3):
            validate(make_object(device))
            assert (pinned.domain, pinned.extents) == (VRAM, extents)
        device.check()

    def test_counts(self) -> None:
        device = make_device()
        obj = make_object(device)
        pin(obj, GART)
        pin(obj, GART)
        device.check()
        unpin(obj)
        with pytest.raises(Busy, match="pinned"):
            evict(obj)
        device.check()
        unpin(obj)
        evict(obj)
        assert obj.pin_count == 0
        with pytest.raises(InvalidArgument, match="not pinned"):
            unpin(obj)
        device.check()

    def test_elsewhere_is_refused(self) -> None:
        device = make_device()
        obj = make_object(device)
        pin(obj, GART)
        with pytest.raises(Busy, match="pinned in GART"):
            pin(obj, VRAM)
        with pytest.raises(Busy, match="pinned in GART"):
            validate(obj)
        assert not validate(obj, ANY), "where it is will do"
        assert (obj.pin_count, obj.domain) == (1, GART)
        device.check()

    def test_makes_room(self) -> None:
        device = make_device(vram=4)
        first, second = make_object(device), make_object(device)
        validate(first)
        pin(second, VRAM)
        assert domains_of([first, second]) == [GART, VRAM]
        require_content(first)
        require_content(second)

    def test_ends_with_the_object(self) -> None:
        device = make_device(vram=4)
        obj = make_object(device)
        pin(obj, VRAM)
        del obj
        validate(make_object(device))
        device.check()


class TestStatistics:
    def test_count_uses_and_hits(self) -> None:
        device = make_device(vram=4)
        first, second = (make_object(device, domains=VRAM | GART) for _ in range(2))
        assert device.statistics().hit_rate == 1
        validate(first)
        validate(second)
        validate(first)
        validate(second)
        with first.resv:
            device.used(first)
        statistics = device.statistics()
        assert (statistics.uses, statistics.hits) == (5, 2)
        assert statistics.hit_rate == 2 / 5
        assert (statistics.placed, statistics.moves, statistics.evictions) == (2, (), 0)

    def test_count_moves_by_direction(self) -> None:
        device = make_device(vram=4, gart=4)
        objects = [make_object(device) for _ in range(3)]
        for obj in objects:
            validate(obj)
        assert domains_of(objects) == [GART, CPU, VRAM]
        validate(objects[0])
        validate(objects[1])
        statistics = device.statistics()
        counted = {(moves.source, moves.target): moves.moves for moves in statistics.moves}
        assert counted == {(VRAM, GART): 2, (VRAM, CPU): 2, (GART, VRAM): 1, (CPU, VRAM): 1}
        assert statistics.bytes_moved == 6 * objects[0].size
        assert statistics.evictions == 4
        assert statistics.between(GART, CPU).moves == 0

    def test_uses_of_what_lies_nowhere_are_none(self) -> None:
        device = make_device()
        obj = make_object(device)
        with obj.resv:
            device.used(obj)
        assert device.statistics().uses == 0


def test_private_objects_may_go_for_each_other() -> None:
    device = make_device(vram=4)
    resv = Resv("vm")
    first, second = (make_object(device, resv=resv, no_share=True) for _ in range(2))
    validate(first)
    validate(second)
    assert domains_of([first, second]) == [GART, VRAM]
    require_content(first)
    require_content(second)
    device.check()


def test_a_victim_that_cannot_move_is_passed_over() -> None:
    device = make_device(vram=4, gart=8, system=PAGE)
    large, small, wanted = (make_object(device, pages) for pages in (3, 1, 1))
    validate(large)
    validate(small)
    assert validate(wanted)
    assert domains_of([large, small, wanted]) == [VRAM, GART, VRAM]
    device.check()
    with pytest.raises(OutOfMemory, match="system"):
        evict(large)
    further = make_object(device, 3)
    with pytest.raises(OutOfMemory, match="do not fit in VRAM"):
        validate(further)
    for obj in (large, small, wanted):
        require_content(obj)
    device.check()
