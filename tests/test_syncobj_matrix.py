"""IGT's wait matrix of syncobj_wait and syncobj_timeline, and its cases with threads, as cases of our own.

Where IGT sleeps, threads run under a virtual clock here.
"""

from __future__ import annotations

import random

import pytest

from gpuvm.errors import Interrupted, TimedOut
from gpuvm.sync import task
from gpuvm.sync.fence import Fence
from gpuvm.sync.syncobj_table import WAIT_ALL, WAIT_FOR_SUBMIT, SyncObjTable
from gpuvm.testing import Interleaving, sample
from suite import scaled
from syncobjs import attach, pause, result, trigger, wait_point
from wait_matrix import cases, expected

NEVER = -1  # IGT passes UINT64_MAX, which is -1 as the s64 that the kernel takes it for: a look
SHORT = task.NSEC_PER_SEC // 10


def matrix(timeline: bool) -> list[object]:
    return [
        pytest.param(timeline, kind, flags, stages, id=f"{expected(flags, stages)}{name}")
        for kind in ("single", "multi")
        for name, flags, stages in cases(kind, timeline)
    ]


@pytest.mark.parametrize(("timeline", "kind", "flags", "stages"), matrix(True) + matrix(False))
def test_wait(timeline: bool, kind: str, flags: int, stages: tuple[str, ...]) -> None:
    table = SyncObjTable()
    count = 5 if kind == "multi" else 1
    numbers = random.Random(repr(stages))
    # Of the points of a list two are of binary syncobjs; all but the first few are at the last stage.
    points = [numbers.randint(1, 1000) if timeline and index not in (1, 4) else 0 for index in range(count)]
    handles = [table.create(0) for _ in range(count)]
    pending = []
    for index, (handle, point) in enumerate(zip(handles, points, strict=True)):
        stage = stages[min(index, len(stages) - 1)]
        if stage == "signaled":
            trigger(table, handle, point)
        elif stage == "submitted":
            pending.append(attach(table, handle, point))

    def wait(timeout: int) -> str:
        if timeline:
            return result(lambda: table.timeline_wait(handles, points, timeout, flags))
        return result(lambda: table.wait(handles, timeout, flags))

    outcome = expected(flags, stages)
    with Interleaving(0):
        begin = task.now()
        assert wait(0) == outcome
        assert task.now() == begin
        assert wait(begin + SHORT) == outcome
        assert task.now() == begin + SHORT * (outcome == "etime-")
        if outcome != "etime-":
            assert wait(NEVER) == outcome
    assert not any(fence.awaited for fence in pending)
    assert table.statistics().waiting == 0
    table.check()


def test_the_matrix_is_as_large_as_igts() -> None:
    assert [len(matrix(timeline)) for timeline in (True, False)] == [8 * (3 + 7), 4 * (3 + 7)]


# -- threads

KINDS = [
    pytest.param(timeline, flags, id="-".join(["timeline" if timeline else "binary", *names]))
    for timeline in (True, False)
    for names, flags in (
        (("wait",), 0),
        (("wait", "all"), WAIT_ALL),
        (("wait", "for-submit"), WAIT_FOR_SUBMIT),
        (("wait", "all", "for-submit"), WAIT_ALL | WAIT_FOR_SUBMIT),
    )
]


@pytest.mark.parametrize(("timeline", "flags"), KINDS)
def test_delayed_signal(timeline: bool, flags: int) -> None:
    """A wait ends when the work is submitted and done, and not at its timeout."""

    def scenario(run: Interleaving) -> None:
        table, point = SyncObjTable(), int(timeline)
        handle = table.create(0)
        fence = None if flags & WAIT_FOR_SUBMIT else attach(table, handle, point)
        begin = task.now()

        def device() -> None:
            pause(SHORT)
            if fence is None:
                trigger(table, handle, point)
            else:
                fence.signal()

        run.spawn(wait_point, table, timeline, [handle], begin + 2 * SHORT, flags)
        run.spawn(device)
        run.run()
        assert task.now() == begin + SHORT

    sample(scenario, range(scaled(10, 300)))


@pytest.mark.parametrize("timeline", [True, False])
def test_reset_during_wait_for_submit(timeline: bool) -> None:
    def scenario(run: Interleaving) -> None:
        table, point = SyncObjTable(), int(timeline)
        handle = table.create(0)

        def client() -> None:
            pause(SHORT)
            table.reset([handle])
            trigger(table, handle, point)

        run.spawn(wait_point, table, timeline, [handle], task.now() + 2 * SHORT, WAIT_FOR_SUBMIT)
        run.spawn(client)
        run.run()

    sample(scenario, range(scaled(20, 1_000)))


@pytest.mark.parametrize(("timeline", "flags"), KINDS)
def test_snapshot(timeline: bool, flags: int) -> None:
    """A wait sticks to the first fence that it found, though the slot is emptied and filled again."""

    def scenario(run: Interleaving) -> None:
        table, point = SyncObjTable(), int(timeline)
        handles = [table.create(0), table.create(0)]
        fences: list[Fence] = []
        if not flags & WAIT_FOR_SUBMIT:
            fences = [attach(table, handle, point) for handle in handles]
        begin = task.now()
        wait = run.spawn(wait_point, table, timeline, handles, begin + 10 * SHORT, flags)
        first: list[Fence] = []

        def client() -> None:
            pause(SHORT)
            if flags & WAIT_ALL:
                if fences:
                    fences[0].signal()
                else:
                    trigger(table, handles[0], point)
            elif flags & WAIT_FOR_SUBMIT:
                first.append(attach(table, handles[0], point))
            pause(SHORT)
            table.reset([handles[0]])
            pause(SHORT)
            first.append(attach(table, handles[0], point))
            pause(SHORT)
            if fences:
                fences[1].signal()
            else:
                trigger(table, handles[1], point)

        run.spawn(client)
        run.run()
        assert task.now() == begin + 4 * SHORT
        if not flags & WAIT_ALL:
            assert wait.result == 1
        assert not any(fence.awaited for fence in [*first, *fences])

    sample(scenario, range(scaled(10, 300)))


@pytest.mark.parametrize(("timeline", "flags"), KINDS)
def test_complex(timeline: bool, flags: int) -> None:
    """Eight syncobjs are submitted, signalled, reset and submitted again in random turns during a wait."""

    def scenario(run: Interleaving) -> None:
        table, point = SyncObjTable(), int(timeline)
        handles = [table.create(0) for _ in range(8)]
        fences: dict[int, Fence] = {}
        if not flags & WAIT_FOR_SUBMIT:
            fences = {index: attach(table, handle, point) for index, handle in enumerate(handles)}
        wait = run.spawn(wait_point, table, timeline, handles, task.now() + task.NSEC_PER_SEC, flags)
        signalled: list[int] = []

        def client() -> None:
            pause(SHORT // 10)
            turns = list(range(8)) * 4
            random.Random(len(KINDS) + flags).shuffle(turns)
            stage = dict.fromkeys(range(8), 0)
            for index in turns:
                stage[index] += 1
                if stage[index] == 1:
                    if index not in fences:
                        fences[index] = attach(table, handles[index], point)
                elif stage[index] == 2:
                    fences[index].signal()
                    signalled.append(index)
                elif stage[index] == 3:
                    table.reset([handles[index]])
                else:
                    attach(table, handles[index], point)
                if len(signalled) == (8 if flags & WAIT_ALL else 1):
                    break
                pause(SHORT // 100)

        run.spawn(client)
        run.run()
        if not flags & WAIT_ALL:
            assert [wait.result] == signalled
        table.check()
        assert table.statistics().waiting == 0

    sample(scenario, range(scaled(5, 200)))


@pytest.mark.parametrize(("timeline", "flags"), KINDS)
def test_interrupted(timeline: bool, flags: int) -> None:
    """An interrupted wait may be repeated, and leaves nothing behind."""

    def scenario(run: Interleaving) -> None:
        table, point = SyncObjTable(), int(timeline)
        handle = table.create(0)
        tasks: list[task.Task] = []
        fences: list[Fence] = []
        interrupted: list[Interrupted] = []
        begin = task.now()

        def wait(deadline: int) -> None:
            while True:
                try:
                    wait_point(table, timeline, [handle], deadline, flags)
                except Interrupted as error:
                    interrupted.append(error)
                    assert table.statistics().waiting == 0
                    assert not any(fence.awaited for fence in fences)
                except TimedOut:
                    return

        def waiter() -> None:
            tasks.append(task.current())
            if flags & WAIT_FOR_SUBMIT:
                wait(begin + SHORT)
            fences.append(attach(table, handle, point))
            wait(begin + 2 * SHORT)

        def nuisance() -> None:
            while task.now() < begin + 3 * SHORT // 2:
                pause(SHORT // 5)
                tasks[0].interrupt()

        run.spawn(waiter)
        run.spawn(nuisance)
        run.run()
        assert len(interrupted) >= 7
        assert task.now() == begin + 2 * SHORT

    sample(scenario, range(scaled(5, 200)))
