"""Places, and the managers that give out memory in them."""

from __future__ import annotations

import pytest

from gpuvm.errors import CheckFailed, InvalidArgument, NoSpace, OutOfMemory
from gpuvm.mem import faults
from gpuvm.mem.aperture import Aperture, Domain, Extent
from gpuvm.mem.buddy import Buddy
from gpuvm.mem.placement import CPU_PLACE, PAGE, Place, eviction_placement, placement_of
from gpuvm.mem.resource import Resource, ResourceManager
from placed import make_device, make_object

SIZE = 16 * PAGE


@pytest.fixture
def manager() -> ResourceManager:
    return ResourceManager(Domain.VRAM, Aperture.VRAM, Buddy(SIZE), SIZE)


class TestPlaces:
    def test_are_in_the_usual_order(self) -> None:
        assert placement_of(Domain.CPU | Domain.VRAM | Domain.GART) == (
            Place(Domain.VRAM),
            Place(Domain.GART),
            CPU_PLACE,
        )

    @pytest.mark.parametrize("domain", Domain)
    def test_may_be_a_single_one(self, domain: Domain) -> None:
        assert placement_of(domain) == (Place(domain),)

    def test_are_never_none(self) -> None:
        with pytest.raises(InvalidArgument, match="pass a Domain"):
            placement_of(Domain(0))

    def test_of_evicted_objects_lead_away_from_the_gpu(self) -> None:
        assert [place.domain for place in eviction_placement(Domain.VRAM)] == [Domain.GART, Domain.CPU]
        assert [place.domain for place in eviction_placement(Domain.GART)] == [Domain.CPU]
        assert eviction_placement(Domain.CPU) == ()

    @pytest.mark.parametrize("domain", [Domain(0), Domain.VRAM | Domain.GART])
    def test_are_in_one_domain(self, domain: Domain) -> None:
        with pytest.raises(InvalidArgument, match="pass one Domain"):
            Place(domain)

    @pytest.mark.parametrize("window", [(-PAGE, PAGE), (PAGE, PAGE), (2 * PAGE, PAGE), (1, PAGE), (0, 1)])
    def test_have_windows_of_whole_pages(self, window: tuple[int, int]) -> None:
        with pytest.raises(InvalidArgument, match="whole pages") as caught:
            Place(Domain.VRAM, *window)
        assert caught.value.value == window

    def test_reach_to_the_end_of_the_memory(self) -> None:
        assert Place(Domain.VRAM, PAGE).window(SIZE) == (PAGE, SIZE)
        assert Place(Domain.VRAM, PAGE, 2 * SIZE).window(SIZE) == (PAGE, SIZE)
        assert Place(Domain.VRAM, 0, PAGE).window(SIZE) == (0, PAGE)


def resource_at(manager: ResourceManager, *extents: tuple[int, int]) -> Resource:
    """Pages."""
    where = tuple(Extent(Aperture.VRAM, addr * PAGE, count * PAGE) for addr, count in extents)
    return Resource(manager, Place(Domain.VRAM), sum(extent.range for extent in where), where)


class TestResources:
    def test_are_compatible_with_places_that_they_lie_in(self, manager: ResourceManager) -> None:
        resource = resource_at(manager, (4, 2), (8, 1))
        assert resource.compatible(Place(Domain.VRAM))
        assert resource.compatible(Place(Domain.VRAM, 4 * PAGE, 9 * PAGE))
        assert not resource.compatible(Place(Domain.VRAM, 5 * PAGE))
        assert not resource.compatible(Place(Domain.VRAM, 0, 8 * PAGE))
        assert not resource.compatible(Place(Domain.GART))
        assert not resource.compatible(Place(Domain.VRAM, contiguous=True))
        assert resource_at(manager, (4, 2)).compatible(Place(Domain.VRAM, contiguous=True))

    def test_intersect_places_where_they_would_make_room(self, manager: ResourceManager) -> None:
        resource = resource_at(manager, (4, 2), (8, 1))
        assert resource.intersects(Place(Domain.VRAM))
        assert resource.intersects(Place(Domain.VRAM, 5 * PAGE, 6 * PAGE))
        assert not resource.intersects(Place(Domain.VRAM, 6 * PAGE, 8 * PAGE))
        assert not resource.intersects(Place(Domain.VRAM, 9 * PAGE))
        assert not resource.intersects(Place(Domain.GART))

    def test_are_named_after_their_object(self, manager: ResourceManager) -> None:
        resource = resource_at(manager, (4, 2))
        obj = make_object(make_device(), 2, name="texture", priority=2)
        resource.belongs_to(obj)
        assert resource.owner is obj
        assert resource.priority == 2
        assert repr(resource) == '<Resource "texture" 0x2000 in VRAM [0x4000, 0x6000)>'

    def test_do_not_keep_their_object(self, manager: ResourceManager) -> None:
        resource = resource_at(manager, (4, 2))
        resource.belongs_to(make_object(make_device(), 2))
        assert resource.owner is None


class TestManagers:
    def test_give_out_memory_of_the_size(self, manager: ResourceManager) -> None:
        resource = manager.alloc(3 * PAGE, Place(Domain.VRAM))
        assert sum(extent.range for extent in resource.extents) == resource.size == 3 * PAGE
        assert {extent.aperture for extent in resource.extents} == {Aperture.VRAM}
        manager.check()
        assert manager.statistics().used == 3 * PAGE

    def test_keep_to_window_alignment_and_contiguity(self, manager: ResourceManager) -> None:
        place = Place(Domain.VRAM, 4 * PAGE, 12 * PAGE, contiguous=True)
        (extent,) = manager.alloc(4 * PAGE, place, align=4 * PAGE).extents
        assert 4 * PAGE <= extent.addr <= 8 * PAGE
        assert extent.addr % (4 * PAGE) == 0

    def test_say_when_they_are_full(self, manager: ResourceManager) -> None:
        resource = manager.alloc(SIZE, Place(Domain.VRAM))
        with pytest.raises(NoSpace):
            manager.alloc(PAGE, Place(Domain.VRAM))
        manager.check()
        manager.free(resource, cleared=False)
        manager.alloc(SIZE, Place(Domain.VRAM, contiguous=True))

    def test_say_what_could_never_fit(self, manager: ResourceManager) -> None:
        assert manager.could_fit(SIZE, Place(Domain.VRAM), PAGE)
        assert not manager.could_fit(SIZE + PAGE, Place(Domain.VRAM), PAGE)
        assert not manager.could_fit(2 * PAGE, Place(Domain.VRAM, SIZE - PAGE), PAGE)
        assert ResourceManager(Domain.CPU).could_fit(1 << 60, CPU_PLACE, PAGE)

    def test_without_addresses_have_room_for_all(self) -> None:
        manager = ResourceManager(Domain.CPU)
        assert manager.alloc(1 << 60, CPU_PLACE).extents == ()
        manager.check()
        assert manager.statistics().size is None

    def test_fail_on_demand(self, manager: ResourceManager) -> None:
        with faults.refuse_allocation(0), pytest.raises(OutOfMemory):
            manager.alloc(PAGE, Place(Domain.VRAM))
        manager.check()
        assert manager.resources == ()

    def test_list_the_least_used_of_the_lowest_priority_first(self, manager: ResourceManager) -> None:
        resources = [manager.alloc(PAGE, Place(Domain.VRAM)) for _ in range(4)]
        for resource, priority in zip(resources, (1, 0, 1, 0), strict=True):
            resource.priority = priority
            manager.add(resource)
        assert list(manager.lru()) == [resources[number] for number in (1, 3, 0, 2)]
        manager.bump(resources[1])
        assert list(manager.lru()) == [resources[number] for number in (3, 1, 0, 2)]
        assert manager.priorities() == (0, 1)

    def test_do_not_list_what_is_pinned(self, manager: ResourceManager) -> None:
        resource = manager.alloc(PAGE, Place(Domain.VRAM))
        manager.add(resource)
        manager.pin(resource)
        manager.bump(resource)
        manager.check()
        assert list(manager.lru()) == []
        assert manager.is_pinned(resource)
        assert (manager.statistics().pinned, manager.statistics().evictable) == (1, 0)
        manager.unpin(resource)
        assert list(manager.lru()) == [resource]

    def test_notice_what_is_wrong(self, manager: ResourceManager) -> None:
        manager.add(resource_at(manager, (0, 1)))
        with pytest.raises(CheckFailed, match="handed out"):
            manager.check()
