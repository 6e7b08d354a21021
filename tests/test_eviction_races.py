"""Threads that want the same memory, in many orders: nobody loses a byte, and who fits gets his turn.

That it would be noticed is tested, too: bugs, planted in turn, are found within a stated number of orders.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from contention import in_real_threads
from gpuvm.errors import OutOfMemory
from gpuvm.mem import delayed_delete, eviction, instance_memory, move, residency, resource, validate
from gpuvm.mem.eviction import Claims, Evictor
from gpuvm.mem.gem import GemObject
from gpuvm.sync import lockdep
from gpuvm.sync.ww_acquire import reservation_ww_class
from gpuvm.testing import Interleaving, Pct, RandomWalk, Strategy, replay
from memory_world import MemoryWorld
from suite import scaled

SEEDS = scaled(24, 5000)
THREADS = 4
STEPS = 5

ROOMS = (
    {"vram": 8, "gart": 8},
    {"vram": 8, "gart": 3},
    {"vram": 7, "gart": 2, "system": 12},
    {"vram": 7, "gart": 4, "system": 9, "objects": 14},
)


def strategy(seed: int) -> Strategy:
    return RandomWalk(seed) if seed % 2 else Pct(seed, depth=3, steps=1000)


def scenario(seed: int) -> Callable[[Interleaving], Callable[[], None]]:
    def threads(run: Interleaving) -> Callable[[], None]:
        world = MemoryWorld(seed, threads=THREADS, **ROOMS[seed % len(ROOMS)])
        for me in range(THREADS):
            run.spawn(world.thread, me, STEPS)
        return world.finish

    return threads


def run_all(seeds: range) -> None:
    for seed in seeds:
        replay(scenario(seed), strategy(seed))


@pytest.mark.timeout(3600)
def test_nothing_is_lost_in_any_order() -> None:
    run_all(range(SEEDS))


@pytest.mark.timeout(3600)
def test_nothing_is_lost_between_any_lines() -> None:
    def line_by_line(run: Interleaving) -> Callable[[], None]:
        run.step_lines(residency, resource, eviction, delayed_delete, move, validate, instance_memory)
        return scenario(seed)(run)

    for seed in range(scaled(2, 400)):
        replay(line_by_line, Pct(seed, depth=4, steps=6000))


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(scaled(2, 40)))
def test_nothing_is_lost_in_real_threads(seed: int) -> None:
    world = MemoryWorld(seed, threads=THREADS)
    in_real_threads(THREADS, lambda me: world.thread(me, scaled(10, 300)))
    world.finish()
    world.gpu.stop()


def test_nothing_is_taken_below_the_lru_lock() -> None:
    lru_lock = lockdep.lock_class("lru_lock")
    replay(scenario(2), strategy(2))
    assert not lru_lock.after
    assert lru_lock in reservation_ww_class.mutex_class.after


# -- bugs to be found


def no_wait(_obj: GemObject, _interruptible: bool) -> bool:
    return False


def keep_nobody(_claims: Claims, _victim: GemObject) -> bool:
    return False


def never_wait_for_locks(_evictor: Evictor, *_: object) -> bool:
    return False


@dataclass(frozen=True)
class Plant:
    where: object
    name: str
    broken: Callable[..., object]
    shows_as: type[BaseException] | tuple[type[BaseException], ...]
    orders: int


PLANTS = [
    Plant(move, "_wait_for_users", no_wait, AssertionError, 20),
    Plant(Claims, "keeps", keep_nobody, (AssertionError, OutOfMemory), 20),
    Plant(Evictor, "_evict_locked", never_wait_for_locks, OutOfMemory, 40),
]


@pytest.mark.filterwarnings("ignore:.*was dropped unsignalled:RuntimeWarning")  # by a run that failed
@pytest.mark.parametrize("plant", PLANTS, ids=[plant.broken.__name__ for plant in PLANTS])
def test_it_finds(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plant.where, plant.name, plant.broken)
    fail(plant)
    gc.collect()  # what the run left, before another test has to hear of it


def fail(plant: Plant) -> None:
    with pytest.raises(plant.shows_as):
        run_all(range(1000, 1000 + plant.orders))


def test_without_them_it_finds_nothing() -> None:
    run_all(range(1000, 1000 + max(plant.orders for plant in PLANTS)))
