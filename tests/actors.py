"""Threads that do one thing after another as the test tells them, each until it is done or asleep."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from gpuvm.sync import lockdep, task
from gpuvm.testing import Interleaving


class Actor:
    """A controlled thread. `do` lets all go on until nobody can; then it has finished, or is asleep."""

    def __init__(self, run: Interleaving, name: str) -> None:
        self._todo: deque[Callable[[], Any] | None] = deque()
        self._idle = task.Waiter()
        self._result: Any = None
        self.error: BaseException | None = None
        self.asleep = False
        self.thread = run.spawn(self._live, name=name)
        settle()

    def do(self, function: Callable[..., Any], *args: Any, **named: Any) -> Actor:
        assert not self.asleep, f"{self.thread} sleeps in what it was told before"
        self.asleep, self._result, self.error = True, None, None
        self._tell(partial(function, *args, **named))
        settle()
        return self

    @property
    def result(self) -> Any:
        """What it has done came to."""
        assert not self.asleep, f"{self.thread} sleeps"
        if self.error is not None:
            raise self.error
        return self._result

    def leave(self) -> None:
        self._tell(None)

    def _tell(self, what: Callable[[], Any] | None) -> None:
        self._todo.append(what)
        self._idle.wake()

    def _live(self) -> None:
        while (what := self._next()) is not None:
            try:
                self._result = what()
            except Exception as error:
                self.error = error
            self.asleep = False
        lockdep.check_nothing_held(self.thread.name)

    def _next(self) -> Callable[[], Any] | None:
        while not self._todo:
            self._idle = task.Waiter()
            self._idle.wait()
        return self._todo.popleft()


def settle() -> None:
    """Let all go on until nobody can: only then the clock moves."""
    assert not task.Waiter().wait(task.now() + 1)


@contextmanager
def actors(*names: str) -> Iterator[list[Actor]]:
    """They must hold nothing in the end, and not be asleep."""
    with Interleaving(0) as run:
        cast = [Actor(run, name) for name in names]
        yield cast
        for actor in cast:
            actor.leave()
        run.run()
