"""The server's lead in every order of threads: one always receives, nothing is forgotten."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gpuvm.device import server as server_module
from gpuvm.device import signals
from gpuvm.device.notify import Notification
from gpuvm.device.server import Server
from gpuvm.device.signals import Signals
from gpuvm.sync import task
from gpuvm.testing import Interleaving, Pct, RandomWalk, Strategy, sample
from suite import scaled

SLEEP, WAKE, QUICK = range(3)


def wake_all(waiters: list[task.Waiter]) -> None:
    sleeping = waiters.copy()
    waiters.clear()  # before one of them comes again
    for waiter in sleeping:
        waiter.wake()


class Line:
    """A listener. Each program's first call is there from the start; the next comes when one is done."""

    fd = -1

    def __init__(self, programs: list[list[int]]) -> None:
        self.lost = 0
        self.answers: dict[int, int] = {}
        self._programs = programs
        self._coming: list[Notification] = []
        self._left = sum(map(len, programs))
        self._receivers: list[task.Waiter] = []
        self._ended = task.Waiter()
        for number in range(len(programs)):
            self._next(number)

    def _next(self, program: int) -> None:
        if self._programs[program]:
            what = self._programs[program].pop(0)
            id = len(self.answers) * 100 + len(self._coming) * 10 + program
            self._coming.append(Notification(id, program + 1, what, (program, 0, 0, 0, 0, 0), 0))

    def receive(self) -> Notification | None:
        while not self._coming:
            if not self._left:
                return None
            waiter = task.Waiter()
            self._receivers.append(waiter)
            waiter.wait()
        return self._coming.pop(0)

    def answer(self, id: int, value: int) -> bool:
        assert id not in self.answers
        self.answers[id] = value
        self._left -= 1
        self._next(id % 10)
        wake_all(self._receivers)
        if not self._left:
            self._ended.wake()
        return True

    def answer_and_receive(self, id: int, value: int) -> Notification | None:
        self.answer(id, value)
        return self.receive()

    def is_valid(self, _id: int) -> bool:
        return True

    def wait_until_abandoned(self) -> None:
        self._ended.task = task.current()
        self._ended.wait()

    def check(self) -> None:
        pass


def scene_of(programs: list[list[int]], calls: int) -> Callable[[Interleaving], Callable[[], None]]:
    """Each SLEEP lasts until a WAKE came; so all is lost if nobody receives that while others sleep."""

    def scene(run: Interleaving) -> Callable[[], None]:
        run.step_lines(server_module)
        sleepers: list[task.Waiter] = []
        woken: list[None] = []
        line: Any = Line([list(program) for program in programs])

        def sleep(_call: Notification) -> int:
            while not woken:
                waiter = task.Waiter()
                sleepers.append(waiter)
                waiter.wait()
            woken.pop()
            return 1

        def wake(_call: Notification) -> int:
            woken.append(None)
            wake_all(sleepers)
            return 2

        served = Server(line, {SLEEP: sleep, WAKE: wake, QUICK: lambda _: 3})
        run.spawn(served.run)

        def check() -> None:
            assert len(line.answers) == calls
            served.check()
            statistics = served.statistics()
            assert statistics.calls == calls
            assert statistics.threads == 0

        return check

    return scene


@pytest.mark.parametrize("maker", [RandomWalk, lambda seed: Pct(seed, depth=4, steps=300)])
@pytest.mark.parametrize(
    "programs",
    [
        [[SLEEP, QUICK], [WAKE]],
        [[SLEEP, SLEEP], [QUICK, WAKE], [QUICK, WAKE]],
        [[SLEEP], [SLEEP], [SLEEP], [QUICK, WAKE, WAKE, WAKE]],
    ],
)
def test_somebody_always_receives(
    monkeypatch: pytest.MonkeyPatch, programs: list[list[int]], maker: Callable[[int], Strategy]
) -> None:
    monkeypatch.setattr(signals, "read", lambda tid: Signals(tid, 0, 1, 0, 0))
    calls = sum(map(len, programs))
    sample(scene_of(programs, calls), range(scaled(30, 2000)), maker)
