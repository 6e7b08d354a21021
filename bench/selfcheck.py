"""The proof, before any clock is read, that all contenders do the same.

Small dense spaces, where every request overlaps something: the operations of every request, lookups, gaps and
the final mappings must agree bit for bit. No numbers are printed when they do not.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bench.contender import BEST, HIGHEST, LOWEST, Contender
from bench.layouts import BIND_OP, MAPPING, OP_UNMAP, VM_BIND_OP, Records
from bench.workload import PAGE, Finds, generator

# Few objects, so that neighbours of one object, and requests that keep what is there, are common.
_OBJECTS = 3
_ARENA_PAGES = 96


class Disagreement(Exception):
    """Two contenders answered one request differently; their times cannot be compared."""


def _requests(count: int, rng: np.random.Generator) -> Records:
    """Maps and unmaps all over a small arena, with PTE kinds; half at the offset of an identity map."""
    requests = np.zeros(count, VM_BIND_OP)
    pages = rng.integers(0, _ARENA_PAGES, count)
    requests["addr"] = pages * PAGE
    requests["range"] = rng.integers(1, 16, count) * PAGE
    requests["handle"] = rng.integers(0, _OBJECTS, count, endpoint=True)
    requests["flags"] = rng.integers(0, 256, count)
    same = rng.integers(0, 2, count) == 0
    requests["bo_offset"] = np.where(same, pages, rng.integers(0, _ARENA_PAGES, count)) * PAGE
    unmaps = rng.integers(0, 4, count) == 0
    requests["op"][unmaps] = OP_UNMAP
    for field in ("handle", "flags", "bo_offset"):
        requests[field][unmaps] = 0
    return requests


def _finds(count: int, present: Records, rng: np.random.Generator) -> Finds:
    """Lookups of which half are of a mapping that exists and half probably not."""
    addrs = (rng.integers(0, _ARENA_PAGES, count) * PAGE).astype(np.uint64)
    ranges = (rng.integers(1, 16, count) * PAGE).astype(np.uint64)
    if len(present):
        half = count // 2
        which = rng.integers(0, len(present), half)
        addrs[:half] = present["addr"][which]
        ranges[:half] = present["range"][which]
    return Finds(addrs, ranges)


def _agree(what: str, answers: Mapping[str, Records | list[int | None]]) -> None:
    """Compare everybody with the first; NumPy compares records field by field."""
    (first, expected), *others = answers.items()
    for name, answer in others:
        if len(answer) != len(expected):
            raise Disagreement(f"{what}: {first} gives {len(expected)}, {name} {len(answer)}")
        differ = [i for i, (mine, theirs) in enumerate(zip(expected, answer, strict=True)) if mine != theirs]
        if differ:
            at = differ[0]
            raise Disagreement(f"{what}, item {at}: {first} gives {expected[at]}, {name} {answer[at]}")


def self_check(classes: Mapping[str, type[Contender]], *, rounds: int = 12, requests: int = 400) -> int:
    """Run all contenders side by side; the number of operations compared. Raises `Disagreement`."""
    if "gpuvm" in classes:
        # Imported here: the rivals can be checked against each other where gpuvm is not built.
        from bench.contender_gpuvm import layouts

        for mine, theirs in zip((VM_BIND_OP, BIND_OP, MAPPING), layouts(), strict=True):
            if mine != theirs:
                raise Disagreement(f"the layout {theirs} of gpuvm is not the benchmark's {mine}")
    spaces = {name: make() for name, make in classes.items()}
    rng = generator(0)
    compared = 0
    for number in range(rounds):
        batch = _requests(requests, rng)
        ops = {name: space.bind(batch) for name, space in spaces.items()}
        _agree(f"operations of round {number}", ops)
        compared += len(next(iter(ops.values())))
        mappings = {name: space.mappings() for name, space in spaces.items()}
        _agree(f"mappings after round {number}", mappings)
        finds = _finds(64, next(iter(mappings.values())), rng)
        _agree(f"lookups of round {number}", {name: space.find(finds) for name, space in spaces.items()})
        sizes = [int(pages) * PAGE for pages in rng.integers(1, 24, 16)]
        for fit in (LOWEST, HIGHEST, BEST):
            gaps = {name: space.gap_job(sizes, fit)() for name, space in spaces.items()}
            _agree(f"gaps of round {number}, fit {fit}", gaps)
    return compared
