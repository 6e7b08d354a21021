"""Alignment of two sequences: which elements of one are which of the other, in order.

Source: E. Myers, An O(ND) Difference Algorithm and Its Variations (1986); where two sequences have little in
common, elements that are unique in both are matched first, as in B. Cohen's patience diff.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Final, TypeAlias

Pairs: TypeAlias = list[tuple[int, int]]

_MOST_EDITS: Final = 500
"""How different sequences may be for the shortest edit script to be looked for."""


def align(a: Sequence[Hashable], b: Sequence[Hashable]) -> Pairs:
    """Indexes ``(i, j)`` of elements that are equal, ascending in both.

    As many as there can be where the sequences differ in up to 500 places, else around what both have once.
    Cost: O((n + m) d) for d differences.
    """
    pairs: Pairs = []
    todo = [(0, len(a), 0, len(b))]
    while todo:
        first_a, last_a, first_b, last_b = todo.pop()
        while first_a < last_a and first_b < last_b and a[first_a] == b[first_b]:
            pairs.append((first_a, first_b))
            first_a, first_b = first_a + 1, first_b + 1
        while first_a < last_a and first_b < last_b and a[last_a - 1] == b[last_b - 1]:
            last_a, last_b = last_a - 1, last_b - 1
            pairs.append((last_a, last_b))
        if first_a == last_a or first_b == last_b:
            continue
        part_a, part_b = a[first_a:last_a], b[first_b:last_b]
        found = _shortest(part_a, part_b)
        if found is not None:
            pairs += [(first_a + i, first_b + j) for i, j in found]
            continue
        anchors = _unique(part_a, part_b)
        pairs += [(first_a + i, first_b + j) for i, j in anchors]
        if anchors:
            before = (-1, -1)
            for i, j in [*anchors, (len(part_a), len(part_b))]:
                todo.append((first_a + before[0] + 1, first_a + i, first_b + before[1] + 1, first_b + j))
                before = i, j
    return sorted(pairs)


def _shortest(a: Sequence[Hashable], b: Sequence[Hashable]) -> Pairs | None:
    """The pairs of a shortest edit script; None if it has too many edits."""
    furthest = {1: 0}
    history: list[dict[int, int]] = []
    for edits in range(min(len(a) + len(b), _MOST_EDITS) + 1):
        history.append(furthest.copy())
        for diagonal in range(-edits, edits + 1, 2):
            down = diagonal == -edits or (
                diagonal != edits and furthest[diagonal - 1] < furthest[diagonal + 1]
            )
            i = furthest[diagonal + 1] if down else furthest[diagonal - 1] + 1
            j = i - diagonal
            while i < len(a) and j < len(b) and a[i] == b[j]:
                i, j = i + 1, j + 1
            furthest[diagonal] = i
            if i >= len(a) and j >= len(b):
                return _walk_back(history, len(a), len(b))
    return None


def _walk_back(history: list[dict[int, int]], i: int, j: int) -> Pairs:
    pairs: Pairs = []
    for edits in range(len(history) - 1, -1, -1):
        furthest, diagonal = history[edits], i - j
        down = diagonal == -edits or (diagonal != edits and furthest[diagonal - 1] < furthest[diagonal + 1])
        before = diagonal + 1 if down else diagonal - 1
        start = (furthest[before], furthest[before] - before) if edits else (0, 0)
        while i > start[0] and j > start[1]:
            i, j = i - 1, j - 1
            pairs.append((i, j))
        i, j = start
    return pairs


def _unique(a: Sequence[Hashable], b: Sequence[Hashable]) -> Pairs:
    """The longest ascending run of pairs of elements that are unique in both."""
    once_a, once_b = Counter(a), Counter(b)
    at_b = {value: j for j, value in enumerate(b) if once_b[value] == 1}
    both = [(i, at_b[value]) for i, value in enumerate(a) if once_a[value] == 1 and value in at_b]
    ends: list[int] = []
    chain: list[tuple[tuple[int, int], int | None]] = []
    at: list[int] = []
    for index, (_, j) in enumerate(both):
        place = bisect_left(ends, j)
        chain.append((both[index], at[place - 1] if place else None))
        if place == len(ends):
            ends.append(j)
            at.append(index)
        else:
            ends[place], at[place] = j, index
    pairs: Pairs = []
    link = at[-1] if at else None
    while link is not None:
        pair, link = chain[link]
        pairs.append(pair)
    return pairs[::-1]
