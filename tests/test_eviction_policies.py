"""Each policy evicts whom a simulation of a few lines, which knows no memory, evicts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise
from math import inf
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuvm.errors import CheckFailed
from gpuvm.mem.aperture import Domain
from gpuvm.mem.placement import Place
from gpuvm.mem.policy import Clock, EvictionPolicy, FarthestNextUse, Lru
from gpuvm.mem.resource import Resource, ResourceManager
from placed import domains_of, evict, make_device, make_object, pin, unpin, validate
from suite import scaled

VRAM, GART = Domain.VRAM, Domain.GART
Trace = list[int]

POLICIES: dict[str, Callable[[Trace], EvictionPolicy]] = {
    "lru": lambda _: Lru(),
    "clock": lambda _: Clock(),
    "farthest next use": lambda trace: FarthestNextUse(map(str, trace)),
}
each_policy = pytest.mark.parametrize("policy", POLICIES)


def simulate_lru(trace: Trace, room: int) -> list[set[int]]:
    """Who is resident after each use."""
    held: list[int] = []
    shown = []
    for key in trace:
        if key in held:
            held.remove(key)
        elif len(held) == room:
            held.pop(0)
        held.append(key)
        shown.append(set(held))
    return shown


def simulate_clock(trace: Trace, room: int) -> list[set[int]]:
    frames: list[int] = []
    referenced: dict[int, bool] = {}
    hand = 0
    shown = []
    for key in trace:
        if key not in frames and len(frames) < room:
            frames.append(key)
        elif key not in frames:
            while referenced[frames[hand]]:
                referenced[frames[hand]] = False
                hand = (hand + 1) % room
            frames[hand] = key
            hand = (hand + 1) % room
        referenced[key] = True
        shown.append(set(frames))
    return shown


def simulate_farthest(trace: Trace, room: int) -> list[set[int]]:
    held: list[int] = []  # the least recently used first
    shown = []
    for now, key in enumerate(trace):
        if key not in held and len(held) == room:

            def next_use(other: int, now: int = now) -> float:
                return next((when for when in range(now, len(trace)) if trace[when] == other), inf)

            farthest = max(map(next_use, held))
            held.remove(next(other for other in held if next_use(other) == farthest))
        if key in held:
            held.remove(key)
        held.append(key)
        shown.append(set(held))
    return shown


SIMULATIONS = {"lru": simulate_lru, "clock": simulate_clock, "farthest next use": simulate_farthest}


def run(trace: Trace, room: int, policy: EvictionPolicy) -> tuple[list[set[int]], int]:
    """Who is in VRAM after each use, and how many were evicted."""
    device = make_device(vram=room, gart=64, policy=policy)
    objects = {key: make_object(device, 1, name=str(key)) for key in set(trace)}
    shown = []
    for key in trace:
        validate(objects[key])
        shown.append({key for key, obj in objects.items() if obj.domain == VRAM})
    device.check()
    assert device.statistics().policy == policy.name
    return shown, device.statistics().evictions


def random_trace(seed: int, length: int = 80) -> Trace:
    """Loops, favourites and chance."""
    dice = Random(seed)
    count = dice.randrange(4, 16)
    loop = [number % count for number in range(length)]
    match dice.randrange(3):
        case 0:
            return [dice.randrange(count) for _ in range(length)]
        case 1:
            return [min(int(dice.expovariate(4 / count)), count - 1) for _ in range(length)]
        case _:
            return [number if dice.random() < 0.8 else dice.randrange(count) for number in loop]


@each_policy
@pytest.mark.parametrize("seed", range(scaled(4, 200)))
def test_as_simulated(policy: str, seed: int) -> None:
    trace, room = random_trace(seed), 2 + seed % 4
    shown, _ = run(trace, room, POLICIES[policy](trace))
    assert shown == SIMULATIONS[policy](trace, room)


@given(
    trace=st.lists(st.integers(0, 5), min_size=1, max_size=30),
    room=st.integers(1, 4),
    policy=st.sampled_from(sorted(POLICIES)),
)
def test_as_simulated_in_small(trace: Trace, room: int, policy: str) -> None:
    shown, _ = run(trace, room, POLICIES[policy](trace))
    assert shown == SIMULATIONS[policy](trace, room)


@pytest.mark.parametrize("seed", range(100, 100 + scaled(5, 300)))
def test_nobody_moves_less_than_who_knows_the_future(seed: int) -> None:
    trace, room = random_trace(seed), 2 + seed % 5
    evictions = {name: run(trace, room, make(trace))[1] for name, make in POLICIES.items()}
    assert evictions["farthest next use"] <= min(evictions["lru"], evictions["clock"])


def test_a_loop_larger_than_memory_is_the_worst_for_lru() -> None:
    trace = [number % 5 for number in range(50)]
    evictions = {name: run(trace, 4, make(trace))[1] for name, make in POLICIES.items()}
    assert evictions == {"lru": 46, "clock": 46, "farthest next use": 12}


class TestWhatNobodyDecides:
    """The same for each policy."""

    @each_policy
    def test_pinned_ones_stay(self, policy: str) -> None:
        device = make_device(vram=2, policy=POLICIES[policy]([]))
        pinned, *others = (make_object(device, 1, name=str(number)) for number in range(4))
        pin(pinned, VRAM)
        for obj in others:
            validate(obj)
            validate(pinned)
        assert domains_of([pinned, *others]) == [VRAM, GART, GART, VRAM]
        device.check()
        unpin(pinned)
        device.check()
        evict(pinned)
        device.check()

    @each_policy
    def test_higher_priorities_stay(self, policy: str) -> None:
        device = make_device(vram=2, policy=POLICIES[policy]([]))
        high = make_object(device, 1, name="high", priority=1)
        validate(high)
        for number in range(3):
            validate(make_object(device, 1, name=str(number)))
            assert high.domain == VRAM

    @each_policy
    def test_those_outside_the_window_stay(self, policy: str) -> None:
        device = make_device(vram=2, policy=POLICIES[policy]([]))
        low, high, new = (make_object(device, 1, name=name) for name in ("low", "high", "new"))
        first, second = Place(VRAM, 0, 4096), Place(VRAM, 4096, 8192)
        validate(low, (first,))
        validate(high, (second,))
        validate(new, (second,))
        assert domains_of([low, high, new]) == [VRAM, GART, VRAM]

    @each_policy
    def test_who_is_gone_is_forgotten(self, policy: str) -> None:
        device = make_device(vram=2, policy=POLICIES[policy]([]))
        for _ in range(10):
            validate(make_object(device, 1))
        device.check()
        assert device.statistics().evictions == 0


class TestFuture:
    def test_is_consumed_by_name(self) -> None:
        policy = FarthestNextUse(["a", "b", "a", "c", "b"])
        device = make_device(vram=3, policy=policy)
        objects = [make_object(device, 1, name=name) for name in "abc"]
        for obj in objects:
            validate(obj)
        order = [resource.name for resource in policy.candidates(manager_of(objects[0].resource), 0)]
        assert order == ["c", "b", "a"], "c is never used again, b last"

    def test_counts_uses_without_validation(self) -> None:
        policy = FarthestNextUse(["a", "b", "b", "a", "b"])
        device = make_device(vram=3, policy=policy)
        a, b = (make_object(device, 1, name=name) for name in "ab")
        validate(a)
        validate(b)
        with b.resv:
            device.used(b)
        order = [resource.name for resource in policy.candidates(manager_of(a.resource), 0)]
        assert order == ["b", "a"]

    def test_that_was_not_foretold_changes_nothing(self) -> None:
        policy = FarthestNextUse([])
        device = make_device(vram=2, policy=policy)
        objects = [make_object(device, 1, name=str(number)) for number in range(4)]
        for obj in objects:
            validate(obj)
        assert domains_of(objects) == [GART, GART, VRAM, VRAM], "as the least recently used"


class MostRecent:
    """A policy of one's own: whoever came last goes first."""

    name = "most recent"

    def added(self, resource: Resource) -> None:
        pass

    def removed(self, resource: Resource) -> None:
        pass

    def used(self, resource: Resource) -> None:
        pass

    def candidates(self, manager: ResourceManager, priority: int) -> Iterable[Resource]:
        return reversed(list(manager.lru_of(priority)))

    def check(self, manager: ResourceManager) -> None:
        pass


def test_anybody_may_bring_one() -> None:
    device = make_device(vram=2, policy=MostRecent())
    objects = [make_object(device, 1) for _ in range(4)]
    for obj in objects:
        validate(obj)
    assert domains_of(objects) == [VRAM, GART, GART, VRAM]


def test_the_clock_notices_what_it_lost() -> None:
    policy = Clock()
    device = make_device(policy=policy)
    obj = make_object(device)
    validate(obj)
    assert obj.resource is not None
    policy.removed(obj.resource)
    with pytest.raises(CheckFailed, match="on the ring"):
        device.check()


def test_the_clock_offers_everybody_once() -> None:
    policy = Clock()
    device = make_device(vram=4, policy=policy)
    objects = [make_object(device, 1) for _ in range(4)]
    for obj in objects:
        validate(obj)
    manager = manager_of(objects[0].resource)
    offered = list(policy.candidates(manager, 0))
    assert [resource.owner for resource in offered] == objects
    assert all(first is not second for first, second in pairwise(offered))
    assert list(policy.candidates(manager, 0)) == offered, "nobody was used meanwhile"


def manager_of(resource: Resource | None) -> ResourceManager:
    assert resource is not None
    return resource.manager


def test_the_clock_keeps_second_chances_of_other_priorities() -> None:
    policy = Clock()
    device = make_device(vram=4, policy=policy)
    low = [make_object(device, 1) for _ in range(2)]
    used, unused = (make_object(device, 1, priority=1) for _ in range(2))
    for obj in (used, unused, *low):
        validate(obj)
    manager = manager_of(used.resource)
    assert [resource.owner for resource in policy.candidates(manager, 1)] == [used, unused]
    validate(used)
    assert [resource.owner for resource in policy.candidates(manager, 0)] == low
    assert [resource.owner for resource in policy.candidates(manager, 1)] == [unused, used]
