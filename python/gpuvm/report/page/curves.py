"""Curves: how much of a space was mapped, and how fragmented what is free was, after each of some calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from gpuvm.report.page.columns import Numbers

MOST_POINTS: Final = 1000


@dataclass(frozen=True, slots=True)
class Curve:
    """Values after calls, by their places."""

    call: list[int]
    mapped: list[int]
    """Bytes."""
    count: list[int]
    """Mappings."""
    fragmentation: list[float]
    """1 - largest hole / free bytes, as `Statistics.fragmentation`."""
    every: int
    """Which of the changes these are: each, if 1."""


def curve(
    addr: Numbers, end: Numbers, born: Numbers, died: Numbers, kernel: tuple[int, int] | None, space: int
) -> Curve:
    """The curve of one space; O(n log n + points * n).

    Args:
        addr, end: of the mappings, bytes; end exclusive.
        born, died: places of calls.
        kernel: the kernel's part, its address and size; no room of the program's.
        space: its end.
    """
    changes = np.unique(np.concatenate([born, died]))
    last = int(died.max(initial=0))
    step = max(-(-len(changes) // MOST_POINTS), 1)
    places = changes[step - 1 :: step]
    if len(changes) and (len(places) == 0 or places[-1] != changes[-1]):
        places = np.append(places, changes[-1])
    order = np.argsort(addr, kind="stable")
    addr, end, born, died = addr[order], end[order], born[order], died[order]
    fixed = _kernel(kernel, space)
    found = Curve([], [], [], [], step)
    for place in places.tolist():
        alive = (born <= place) & (died > place)
        begins, ends = addr[alive], end[alive]
        mapped = int((ends - begins).sum())
        free, largest = _holes(begins, ends, fixed, space)
        found.call.append(min(place, last))
        found.mapped.append(mapped)
        found.count.append(len(begins))
        found.fragmentation.append(round(1 - largest / free, 9) if free else 0.0)
    return found


def _kernel(kernel: tuple[int, int] | None, space: int) -> tuple[int, int] | None:
    if kernel is None or kernel[0] >= space:
        return None
    return kernel[0], min(kernel[0] + kernel[1], space)


def _holes(begins: Numbers, ends: Numbers, fixed: tuple[int, int] | None, space: int) -> tuple[int, int]:
    """Free bytes, and the largest hole; `begins` ascend."""
    if fixed is not None:
        at = int(np.searchsorted(begins, fixed[0]))
        begins, ends = np.insert(begins, at, fixed[0]), np.insert(ends, at, fixed[1])
    holes = np.append(begins, space) - np.insert(ends, 0, 0)
    return int(holes.sum()), int(holes.max())
