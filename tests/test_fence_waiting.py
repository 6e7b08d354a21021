"""Waiting for a fence: interrupts, the validator, asyncio."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from fences import make
from gpuvm.errors import Interrupted, LockdepError
from gpuvm.sync import lockdep, task
from gpuvm.sync.fence import fence_context_alloc
from gpuvm.testing import Interleaving, sample
from suite import scaled


def test_an_interrupted_wait_leaves_nothing_behind() -> None:
    def scenario(run: Interleaving) -> None:
        fence = make()

        def sleeper() -> str:
            try:
                return "signalled" if fence.wait(1.0, interruptible=True) else "timed out"
            except Interrupted:
                return "interrupted"
            finally:
                assert fence.statistics().callbacks == 0

        thread = run.spawn(sleeper)
        run.run()
        assert thread.result == "timed out"
        me = task.current()
        me.interrupt()
        assert sleeper() == "interrupted"
        me.interrupt()
        fence.signal()
        assert sleeper() == "signalled"
        assert me.interrupted
        never = make()
        with pytest.raises(Interrupted):
            never.wait(interruptible=True)

    sample(scenario, range(3))


def test_interrupt_against_signal() -> None:
    def scenario(run: Interleaving) -> Callable[[], None]:
        fence = make()
        tasks: list[task.Task] = []

        def sleeper() -> bool:
            tasks.append(task.current())
            try:
                return fence.wait(interruptible=True)
            except Interrupted:
                return False

        def interrupter() -> None:
            for sleeping in tasks:
                sleeping.interrupt()

        sleepers = [run.spawn(sleeper) for _ in range(2)]
        run.spawn(interrupter)
        run.spawn(fence.signal)

        def check() -> None:
            fence.check()
            assert all(sleeper.result in (True, False) for sleeper in sleepers)

        return check

    sample(scenario, range(scaled(100, 3_000)))


def test_an_uninterruptible_wait_goes_on() -> None:
    with Interleaving(0) as run:
        fence = make()
        tasks: list[task.Task] = []

        def sleeper() -> None:
            tasks.append(task.current())
            assert fence.wait()

        def others() -> None:
            never = make()
            assert not never.wait(0.1)
            tasks[0].interrupt()
            fence.signal()

        run.spawn(sleeper)
        run.spawn(others)
        run.run()


def test_waiting_inside_a_signalling_section_of_another_context_is_reported() -> None:
    fence = make()
    fence.signal()
    with (
        lockdep.fence_signalling(fence_context_alloc()),
        pytest.raises(LockdepError),
    ):
        fence.wait()
    with lockdep.fence_signalling(fence.context):
        assert fence.wait()


# -- await


def test_await_is_resumed_by_another_thread() -> None:
    async def main() -> list[int]:
        fences = [make() for _ in range(3)]
        order: list[int] = []

        async def waiter(number: int) -> None:
            await fences[number]
            order.append(number)

        waiters = [asyncio.create_task(waiter(number)) for number in range(3)]
        await asyncio.sleep(0)
        assert [fence.statistics().callbacks for fence in fences] == [1, 1, 1]
        for number in (2, 0, 1):
            thread = threading.Thread(target=fences[number].signal)
            thread.start()
            await waiters[number]
            thread.join()
        await fences[0]
        return order

    assert asyncio.run(main()) == [2, 0, 1]


def test_a_cancelled_await_leaves_nothing_behind() -> None:
    async def main() -> None:
        fence = make()

        async def waiter() -> None:
            await fence

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(waiter(), 0.001)
        assert fence.statistics().callbacks == 0
        fence.signal()
        await asyncio.sleep(0)

    asyncio.run(main())
