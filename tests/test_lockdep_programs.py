"""The lock validator refuses exactly what closes a cycle, in any program of several threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuvm.errors import LockdepError
from gpuvm.sync import lockdep
from locks import Point, bare

CLASSES = 5
THREADS = 3
FENCE = "fence"

Step = tuple[int, str, int]
steps = st.tuples(
    st.integers(0, THREADS - 1),
    st.sampled_from(["lock", "lock", "lock", "trylock", "unlock", "unlock", "begin", "end", "wait"]),
    st.integers(0, CLASSES - 1),
)


class Model:
    """What every thread holds, and which class was ever taken while which was held."""

    def __init__(self) -> None:
        self.held: list[list[str]] = [[] for _ in range(THREADS)]
        self.sections = [0] * THREADS
        self.known: set[tuple[str, str]] = set()

    def take(self, thread: int, name: str) -> bool:
        """Whether it may; then its orders are known."""
        having = self.held[thread] + [FENCE] * bool(self.sections[thread])
        known = self.known | {(before, name) for before in having if before != name}
        if cyclic(known):
            return False
        self.known = known
        return True


def cyclic(edges: set[tuple[str, str]]) -> bool:
    """Take away nodes that nothing leads to until none is left or only cycles are."""
    while edges:
        targets = {after for _, after in edges}
        left = {(before, after) for before, after in edges if before in targets}
        if left == edges:
            return True
        edges = left
    return False


class Actor:
    """A thread that does what it is told, with a lock of its own of each class; so nobody ever waits."""

    def __init__(self, number: int) -> None:
        self.pool = ThreadPoolExecutor(1, f"thread {number}")
        self.locks = [bare(f"lock {number}{name}", name) for name in names()]
        self.sections: list[ExitStack] = []

    def do(self, function: Callable[..., None], *args: object) -> str | None:
        """Let it; what the validator said."""
        error = self.pool.submit(function, *args).exception()
        if error is not None and not isinstance(error, LockdepError):
            raise error
        return None if error is None else str(error)

    def begin(self) -> None:
        self.sections.append(ExitStack())
        self.sections[-1].enter_context(lockdep.fence_signalling(1))

    def end(self) -> None:
        self.sections.pop().close()

    def agree(self, held: list[str]) -> None:
        assert [lock.lock_class.name for lock in lockdep.held()] == held
        lockdep.check()


def names() -> list[str]:
    return [chr(ord("a") + number) for number in range(CLASSES)]


@pytest.fixture(scope="module")
def actors() -> Iterator[list[Actor]]:
    made = [Actor(number) for number in range(THREADS)]
    yield made
    for actor in made:
        actor.pool.shutdown()


def play(model: Model, actor: Actor, step: Step) -> None:
    """Do one step in both, and compare."""
    thread, what, number = step
    name, lock, held = names()[number], actor.locks[number], model.held[thread]
    if what == "begin":
        assert actor.do(actor.begin) is None
        model.sections[thread] += 1
    elif what == "end" and model.sections[thread]:
        assert actor.do(actor.end) is None
        model.sections[thread] -= 1
    elif what == "wait":
        before = model.known
        compare(
            model, before, thread, FENCE, model.take(thread, FENCE), actor.do(lockdep.might_wait, Point(1))
        )
    elif what == "unlock" and name in held:
        assert actor.do(lockdep.release, lock) is None
        held.remove(name)
    elif what == "trylock" and name not in held:
        assert actor.do(lambda: lockdep.acquire(lock, trylock=True)) is None
        held.append(name)
    elif what == "lock" and name in held:
        said = actor.do(lockdep.acquire, lock)
        assert said is not None
        assert said.startswith("recursive locking")
    elif what == "lock":
        before = model.known
        allowed = model.take(thread, name)
        compare(model, before, thread, name, allowed, actor.do(lockdep.acquire, lock))
        if allowed:
            held.append(name)


def compare(
    model: Model, known: set[tuple[str, str]], thread: int, taken: str, allowed: bool, said: str | None
) -> None:
    """It was refused exactly if it closes a cycle, and the report shows one that is there."""
    assert allowed == (said is None)
    if said is not None:
        cycle = said.splitlines()[1].split(" -> ")
        shown = {(before.strip(), after.strip()) for before, after in pairwise(cycle)}
        assert cyclic(shown)
        having = [*model.held[thread], FENCE] if model.sections[thread] else model.held[thread]
        assert len(shown - known) == 1
        assert shown - known <= {(before, taken) for before in having}


@given(st.lists(steps, max_size=40))
def test_refuses_exactly_what_closes_a_cycle(actors: list[Actor], program: list[Step]) -> None:
    lockdep.disable()
    lockdep.enable()
    model = Model()
    for step in program:
        play(model, actors[step[0]], step)
        assert actors[step[0]].do(actors[step[0]].agree, model.held[step[0]]) is None
    assert lockdep.statistics().orders == len(model.known)
    for actor in actors:
        while actor.sections:
            assert actor.do(actor.end) is None
