"""Random address spaces and the requests made of them.

Page-aligned mappings of 1 to 64 pages in a 47-bit space, several hundred objects. Everything is drawn from a
seeded generator, so that all contenders answer the very same requests.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.layouts import OP_MAP, OP_UNMAP, VM_BIND_OP, Records, U64s

PAGE = 4096
SPACE_RANGE = 1 << 47
OBJECTS = 512
MAX_PAGES = 64

# An object is taken to be this large: offsets are drawn below it.
OBJECT_PAGES = 1 << 16

# Splits of one round stay open together up to this many; then all are restored.
ROUND = 1 << 15


@dataclass(frozen=True)
class Base:
    """The mappings that a space is built of, in address order."""

    addrs: U64s
    ranges: U64s
    handles: U64s
    offsets: U64s

    def __len__(self) -> int:
        return len(self.addrs)


@dataclass(frozen=True)
class Finds:
    """Exact lookups: what to look for."""

    addrs: U64s
    ranges: U64s

    def __len__(self) -> int:
        return len(self.addrs)


def generator(*seed: int) -> np.random.Generator:
    """The source of chance for one purpose; other seeds, other numbers."""
    return np.random.default_rng(seed)


def _pages(rng: np.random.Generator, low: int, high: int, count: int) -> U64s:
    """`count` numbers of bytes that are whole pages, between `low` and `high` pages inclusive."""
    return rng.integers(low, high, count, dtype=np.uint64, endpoint=True) * np.uint64(PAGE)


def _handles(rng: np.random.Generator, count: int) -> U64s:
    return rng.integers(1, OBJECTS, count, dtype=np.uint64, endpoint=True)


def base(count: int, rng: np.random.Generator) -> Base:
    """`count` mappings at random addresses, none overlapping the next."""
    pages = SPACE_RANGE // PAGE - MAX_PAGES
    starts = np.unique(rng.integers(0, pages, count + count // 8 + 16, dtype=np.uint64))
    starts = np.sort(rng.choice(starts, count, replace=False)) * np.uint64(PAGE)
    room = np.append(np.diff(starts), np.uint64(MAX_PAGES * PAGE))
    return Base(
        addrs=starts,
        ranges=np.minimum(_pages(rng, 1, MAX_PAGES, count), room),
        handles=_handles(rng, count),
        offsets=_pages(rng, 0, OBJECT_PAGES, count),
    )


def _maps(addrs: U64s, ranges: U64s, handles: U64s, offsets: U64s) -> Records:
    requests = np.zeros(len(addrs), VM_BIND_OP)
    requests["op"] = OP_MAP
    requests["addr"] = addrs
    requests["range"] = ranges
    requests["handle"] = handles
    requests["bo_offset"] = offsets
    return requests


def fill(of: Base, rng: np.random.Generator | None) -> Records:
    """The requests that build the space: in random order, or sorted when there is no generator."""
    requests = _maps(of.addrs, of.ranges, of.handles, of.offsets)
    return requests if rng is None else requests[rng.permutation(len(of))]


def replace(of: Base, count: int, rng: np.random.Generator) -> Records:
    """Maps exactly over existing mappings, another object each time: one mapping goes, one comes."""
    which = rng.integers(0, len(of), count)
    return _maps(of.addrs[which], of.ranges[which], _handles(rng, count), _pages(rng, 0, OBJECT_PAGES, count))


def split_and_restore(of: Base, count: int, rng: np.random.Generator) -> Records:
    """Rounds of maps into the middle of mappings (a remap with both remainders), then maps that restore them.

    All of a round's splits come before its first restore, so that a restore finds nothing warm.
    """
    wide = np.flatnonzero(of.ranges >= 3 * PAGE)
    a_round = min(len(wide), count // 2, ROUND)
    parts = []
    for _ in range(max(1, count // (2 * a_round))):
        which = rng.permutation(wide)[:a_round]
        inner = _maps(
            of.addrs[which] + np.uint64(PAGE),
            of.ranges[which] - np.uint64(2 * PAGE),
            _handles(rng, a_round),
            _pages(rng, 0, OBJECT_PAGES, a_round),
        )
        which = rng.permutation(which)
        outer = _maps(of.addrs[which], of.ranges[which], of.handles[which], of.offsets[which])
        parts += [inner, outer]
    return np.concatenate(parts)


def finds(of: Base, count: int, rng: np.random.Generator) -> Finds:
    """Exact lookups of mappings that exist."""
    which = rng.integers(0, len(of), count)
    return Finds(of.addrs[which], of.ranges[which])


def updates(of: Base, count: int, rng: np.random.Generator) -> Records:
    """Two maps to one unmap, up to 64 pages long, beginning up to 32 pages beside an existing mapping.

    They overlap what is there in every way, cut it, fill holes and make new ones; the number of mappings
    stays about the same.
    """
    which = rng.integers(0, len(of), count)
    shift = _pages(rng, 0, MAX_PAGES, count)
    addrs = of.addrs[which] + shift
    half = np.uint64(MAX_PAGES * PAGE // 2)
    addrs = np.minimum(addrs - np.minimum(addrs, half), np.uint64(SPACE_RANGE - MAX_PAGES * PAGE))
    requests = _maps(
        addrs, _pages(rng, 1, MAX_PAGES, count), _handles(rng, count), _pages(rng, 0, OBJECT_PAGES, count)
    )
    unmaps = rng.integers(0, 3, count) == 0
    requests["op"][unmaps] = OP_UNMAP
    requests["handle"][unmaps] = 0
    requests["bo_offset"][unmaps] = 0
    return requests


def large_holes(of: Base) -> list[int]:
    """The sizes of the 64th largest hole, the 32nd and so on to the largest: fewer and fewer can take them.

    Always the same seven, so that where in the space they happen to lie is no noise between contenders.
    """
    holes: U64s = np.sort(np.append(of.addrs[1:], np.uint64(SPACE_RANGE)) - (of.addrs + of.ranges))
    return [int(holes[-min(rank, len(holes))]) for rank in (64, 32, 16, 8, 4, 2, 1)]


def small_holes(count: int, rng: np.random.Generator) -> list[int]:
    """Sizes of ordinary mappings: nearly every hole can take them."""
    return [int(size) for size in _pages(rng, 1, MAX_PAGES, count)]
