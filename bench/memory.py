"""Bytes a mapping: how much anonymous memory a process gains by building a space of so many mappings.

Each figure comes from a fresh process (``python -m bench.memory CONTENDER COUNT ORDER``), so that nothing
freed before is reused. The space is built by bulk binds whose answers are dropped.
"""

from __future__ import annotations

import gc
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from bench import workload
from bench.cases import BULK
from bench.contender import BEST, slices
from bench.contenders import contender_class
from bench.workload import generator

# How a space is built; the last has been searched for a best fit too, which makes the index of holes by size.
SEARCHED = "random, searched"
ORDERS = ("random", "sorted", SEARCHED)


@dataclass(frozen=True)
class Memory:
    """One figure."""

    contender: str
    order: str
    mappings: int
    bytes_each: float


def _resident() -> int:
    """Anonymous resident memory of this process in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise OSError("this system does not tell RssAnon")


def _grow(name: str, count: int, order: str) -> float:
    """Build a space here and say what a mapping cost."""
    base = workload.base(count, generator(count, 0))
    requests = workload.fill(base, generator(count, 1) if order != "sorted" else None)
    make = contender_class(name)
    # A first small space brings in what is allocated once: buffers, code, NumPy's caches.
    make().bind_job(requests[:BULK], BULK)()
    space = make()
    gc.collect()
    before = _resident()
    for part in slices(count, BULK):
        space.bind_job(requests[part], BULK)()
    if order == SEARCHED:
        space.gap_job([workload.PAGE], BEST)()
    gc.collect()
    return (_resident() - before) / count


def measure_memory(name: str, count: int, order: str) -> Memory:
    """The same in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.memory", name, str(count), order],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).resolve().parent.parent,
    )
    return Memory(name, order, count, float(done.stdout))


if __name__ == "__main__":
    print(_grow(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
