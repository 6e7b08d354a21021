"""Who waits by `push_and_wait`, under all schedules with few preemptions. Planted mistakes are found."""

from __future__ import annotations

from _thread import get_ident
from collections.abc import Callable

import pytest

import lending_scenes as scenes
from gpuvm.sched import freeing, lending, post
from gpuvm.sched.job import Job
from gpuvm.sched.post import Post
from gpuvm.sched.worker import Worker
from gpuvm.sync import lockdep
from gpuvm.testing import Deadlock, Interleaving, Pct, Scenario, explore, sample
from suite import scaled

LIGHT = (
    scenes.waiter_and_kill,
    scenes.waiter_and_stop,
    scenes.waiter_and_fini,
    scenes.waiter_and_early_end,
    scenes.waiter_with_a_dependency,
    scenes.waiter_and_another_armed,
)


@pytest.mark.parametrize("scene", LIGHT, ids=lambda scene: str(scene.__name__))
def test_all_schedules_with_two_preemptions(scene: Scenario) -> None:
    assert explore(scene, preemptions=scaled(2, 3), limit=scaled(2000, 100_000)).complete


@pytest.mark.parametrize("scene", [scenes.two_waiters_and_a_pusher, scenes.waiters_of_one_entity])
def test_three_threads(scene: Scenario) -> None:
    explored = explore(scene, preemptions=scaled(1, 2), limit=scaled(400, 100_000))
    assert explored.complete or explored.schedules >= 400
    sample(scene, range(scaled(60, 5000)))
    sample(scene, range(scaled(60, 5000)), lambda seed: Pct(seed, depth=3, steps=explored.choices))


def test_hardware_that_is_done_later() -> None:
    """The watchdog winds up, too."""
    sample(scenes.waiter_and_late_hardware, range(scaled(200, 10_000)))
    sample(scenes.waiter_and_late_hardware, range(scaled(60, 5000)), lambda seed: Pct(seed, depth=3))


@pytest.mark.parametrize("scene", [scenes.two_waiters_and_a_pusher, scenes.waiter_and_fini])
def test_line_by_line_at_the_post(scene: Scenario) -> None:
    def each_line(run: Interleaving) -> Callable[[], None] | None:
        run.step_lines(post)
        return scene(run)

    sample(each_line, range(scaled(100, 10_000)))
    sample(each_line, range(scaled(100, 10_000)), lambda seed: Pct(seed, depth=3, steps=200))


# -- mistakes


def take_although_taken(here: Post) -> bool:
    here.holder[None] = get_ident()
    return True


def leave_without_a_look(here: Post) -> None:
    here.holder.pop(None, None)


def leave_what_is_left(worker: Worker) -> None:
    worker.post.clear()
    worker.post.leave()


def leave_who_ends_it(worker: Worker) -> None:
    worker.post.clear()
    if worker.done or worker.woken or worker.queue.entities:
        worker.post.ring()
    worker.post.leave()


def take_although_stopped(worker: Worker, job: Job, take: Callable[[Worker, Job], bool]) -> bool:
    paused, worker.paused = worker.paused, False
    taken = take(worker, job)
    worker.paused = paused
    return taken


def free_without_a_lock(worker: Worker) -> None:
    while worker.done and not worker.paused:
        freeing._free(worker, worker.done[0])
        del worker.done[0]


PLANTS: tuple[tuple[object, str, object, Scenario], ...] = (
    (Post, "take", take_although_taken, scenes.two_waiters_and_a_pusher),
    (Post, "leave", leave_without_a_look, scenes.two_waiters_and_a_pusher),
    (lending, "_leave", leave_what_is_left, scenes.two_waiters_and_a_pusher),
    (lending, "_leave", leave_who_ends_it, scenes.waiter_and_fini),
    (lending, "_take_alone", take_although_stopped, scenes.waiter_and_stop),
    (lending, "free_done", free_without_a_lock, scenes.waiter_and_stop),
    (Worker, "wait_for_run_job", lambda _worker: None, scenes.waiter_and_kill),
)


@pytest.mark.parametrize(("where", "name", "mistake", "scene"), PLANTS)
def test_planted_mistakes_are_found(
    where: object, name: str, mistake: Callable[..., object], scene: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    lockdep.disable()  # it is not to be the one who finds it
    explore(scene, preemptions=1, limit=100)
    right = getattr(where, name)
    if mistake is take_although_stopped:
        monkeypatch.setattr(where, name, lambda worker, job: take_although_stopped(worker, job, right))
    else:
        monkeypatch.setattr(where, name, mistake)
    with pytest.raises((AssertionError, Deadlock, KeyError)):
        explore(scene, preemptions=2, limit=3000)
