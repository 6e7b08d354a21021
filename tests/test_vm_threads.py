"""Many real threads that bind, execute and evict, without the controlled scheduler."""

from __future__ import annotations

import sys
import threading
import time
from itertools import count

import pytest

from suite import FULL
from vm_world import World

THREADS = 24
MINUTE = 60.0
ROUNDS = 100


@pytest.mark.timeout(600)
def test_real_threads_lose_nothing() -> None:
    """For a minute in the full suite; otherwise for some rounds."""
    world = World(7, spaces=4, threads=THREADS)
    end = time.monotonic() + MINUTE
    problems: list[BaseException] = []

    def work(me: int) -> None:
        try:
            for done in count():
                if problems or (time.monotonic() >= end if FULL else done == ROUNDS):
                    return
                world.step(me)
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=work, args=(me,)) for me in range(THREADS)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # so that they really get in each other's way
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    for problem in problems:
        raise problem
    world.finish()
    world.gpu.stop()
    assert min(world.counts.values()) > 0, world.counts
