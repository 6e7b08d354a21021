"""`Exec` in all schedules as far as they go, interrupted at any time, and in real threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from random import Random

import pytest

from contention import (
    LOCKS,
    Check,
    Obj,
    all_free,
    both_classes,
    in_real_threads,
    lock_all,
    objects,
    strategy_of,
    watch,
)
from gpuvm.errors import Interrupted
from gpuvm.exec.exec import Exec, ExecFlags
from gpuvm.sync import lockdep, task
from gpuvm.sync.fence import Fence, fence_context_alloc
from gpuvm.sync.resv import Usage
from gpuvm.sync.ww_acquire import AcquireContext, WwClass
from gpuvm.sync.ww_mutex import WwMutex
from gpuvm.testing import Interleaving, Pct, explore, sample
from suite import scaled


class TestInEveryOrder:
    """All schedules, as far as they go."""

    def crossing(self, wanted: Sequence[str], line_by_line: bool = False) -> Callable[[Interleaving], Check]:
        def scenario(run: Interleaving) -> Check:
            objs = {obj.name: obj for obj in objects("abc")}
            if line_by_line:
                run.step_lines(*LOCKS)
            else:
                watch(run, [obj.resv for obj in objs.values()])
            committed: list[str] = []

            def work(names: str) -> None:
                with Exec() as exec:
                    for attempt in exec.until_all_locked():
                        with attempt:
                            for name in names:
                                exec.lock_obj(objs[name])
                    exec.check()
                    assert len(exec) == len(names)
                    committed.append(names)

            for names in wanted:
                run.spawn(work, names)

            def finish() -> None:
                assert sorted(committed) == sorted(wanted)
                all_free(*(obj.resv for obj in objs.values()))

            return finish

        return scenario

    @pytest.mark.parametrize("wanted", [("ab", "ba"), ("abc", "cba"), ("abc", "bca"), ("ab", "b")])
    def test_two_threads(self, wanted: tuple[str, ...]) -> None:
        assert explore(self.crossing(wanted), preemptions=scaled(2, 3), limit=100_000).complete

    @pytest.mark.parametrize("wanted", [("ab", "bc", "ca"), ("ab", "ba", "ab"), ("abc", "cab", "bca")])
    def test_three_threads(self, wanted: tuple[str, ...]) -> None:
        limit = scaled(300, 10_000)
        explored = explore(self.crossing(wanted), preemptions=2, limit=limit)
        assert explored.complete or explored.schedules == limit

    @pytest.mark.parametrize("wanted", [("ab", "ba"), ("ab", "bc", "ca")])
    def test_line_by_line(self, wanted: tuple[str, ...]) -> None:
        scenario = self.crossing(wanted, line_by_line=True)
        explore(scenario, preemptions=1, limit=scaled(100, 5000))
        sample(scenario, range(scaled(60, 2000)), lambda seed: Pct(seed, depth=5, steps=400))
        sample(scenario, range(scaled(20, 1000)))


class TestInterrupted:
    """Whoever is interrupted holds nothing afterwards, and nobody waits for it."""

    @pytest.mark.parametrize("line_by_line", [False, True], ids=["offered", "line-by-line"])
    def test_at_any_time(self, line_by_line: bool) -> None:
        def scenario(run: Interleaving) -> Check:
            if line_by_line:
                run.step_lines(*LOCKS)
            objs = objects("abc")
            ends: list[str] = []

            def work(order: Sequence[Obj]) -> None:
                try:
                    with Exec(ExecFlags.INTERRUPTIBLE_WAIT) as exec:
                        for attempt in exec.until_all_locked():
                            with attempt:
                                exec.prepare_array(order, 1)
                        exec.check()
                        ends.append("committed")
                except Interrupted:
                    ends.append("interrupted")
                lockdep.check_nothing_held("work")

            workers = [run.spawn(work, objs[turn:] + objs[:turn]) for turn in range(3)]
            run.spawn(workers[0].task.interrupt)
            run.spawn(workers[1].task.interrupt)

            def finish() -> None:
                all_free(*(obj.resv for obj in objs))
                assert len(ends) == 3
                pending = sum(worker.task.interrupted for worker in workers)
                assert ends.count("interrupted") == 2 - pending

            return finish

        sample(scenario, range(scaled(60, 4000)), strategy_of)


class TestRealThreads:
    @both_classes
    @pytest.mark.parametrize("validated", [True, False], ids=["validator", "none"])
    def test_ww_mutex(self, ww_class: WwClass, validated: bool) -> None:
        if not validated:
            lockdep.disable()
        locks = [WwMutex(ww_class, f"lock {number}") for number in range(8)]
        holders: dict[WwMutex, int] = {}

        def work(number: int) -> None:
            dice = Random(number)
            for _ in range(scaled(60, 5000)):
                mine = dice.sample(locks, dice.randrange(1, 6))
                with AcquireContext(ww_class) as ticket:
                    lock_all(ticket, mine)
                    assert [holders.setdefault(lock, number) for lock in mine] == [number] * len(mine)
                    for lock in mine:
                        del holders[lock]
                        lock.unlock()

        in_real_threads(6, work)
        all_free(*locks)

    @pytest.mark.parametrize("validated", [True, False], ids=["validator", "none"])
    def test_exec(self, validated: bool) -> None:
        if not validated:
            lockdep.disable()
        objs = [Obj(f"object {number}") for number in range(8)]
        holders: dict[object, int] = {}
        tasks: list[task.Task] = []

        def work(number: int) -> None:
            dice, context = Random(number), fence_context_alloc()
            tasks.append(task.current())
            flags = ExecFlags.INTERRUPTIBLE_WAIT if number % 2 else ExecFlags(0)
            exec = Exec(flags)
            for seqno in range(scaled(60, 5000)):
                mine = dice.sample(objs, dice.randrange(1, 6))
                fence = Fence(context, seqno)
                with suppress(Interrupted), exec:
                    for attempt in exec.until_all_locked():
                        with attempt:
                            exec.prepare_array(mine, 1)
                    exec.check()
                    assert [holders.setdefault(obj, number) for obj in exec] == [number] * len(mine)
                    for obj in exec:
                        obj.resv.add_fence(fence, Usage.WRITE)
                        del holders[obj]
                dice.choice(tasks).interrupt()
                fence.signal()

        in_real_threads(6, work)
        all_free(*(obj.resv for obj in objs))
        assert all(obj.resv.test_signalled(Usage.BOOKKEEP) for obj in objs)
