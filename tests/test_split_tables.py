"""The tables of sections 1.3, 1.4 and 1.5 of the reference, row by row, for every relation of two intervals.

The request is always [R,E) = [40,60). Each row names one existing mapping by its borders and says what is
emitted for it; the tables are written down here as text that a reader can lay beside the reference.
"""

from __future__ import annotations

import pytest

from gpuvm import Merge
from scenes import A, B, kept, mapped, new, ops_of, plan_map, remap, scene, unmap, va
from shapes import OpShape, Va

R, E = 40, 60
BASE = 1000
"""Offset of object A at address 0, so that equal backing is `offset == BASE + addr`."""

ROWS = {
    "A==R, B==E": (40, 60),
    "A==R, B<E": (40, 50),
    "A==R, B>E": (40, 70),
    "A<R, B==E": (30, 60),
    "A<R, B<E": (30, 50),
    "A<R, B>E": (30, 70),
    "A>R, B==E": (50, 60),
    "A>R, B<E": (45, 50),
    "A>R, B>E": (50, 70),
}
APART = {"before": (20, 30), "touching R": (30, 40), "touching E": (60, 70), "behind": (70, 80)}
MERGE_ALL = {
    "A==R, B==E": "nothing",
    "A==R, B<E": "unmap+ map",
    "A==R, B>E": "nothing",
    "A<R, B==E": "nothing",
    "A<R, B<E": "unmap+ map, grown left",
    "A<R, B>E": "nothing",
    "A>R, B==E": "unmap+ map",
    "A>R, B<E": "unmap+ map",
    "A>R, B>E": "unmap+ map, grown right",
}
"""Table 1.4, column "m true"."""


def backed(start: int, end: int, bo: int = A, shift: int = 0) -> Va:
    return va(start, end, bo, BASE + start + shift)


REQUEST = backed(R, E)


def split(old: Va, keep: bool) -> OpShape:
    """Table 1.3: pieces keep object and offset of the part they are."""
    prev = va(old.addr, R, old.bo, old.offset, old.flags) if old.addr < R else None
    behind = va(E, old.end, old.bo, old.offset + E - old.addr, old.flags) if old.end > E else None
    return remap(old, prev, behind, keep) if prev or behind else unmap(old, keep)


@pytest.mark.parametrize("row", ROWS)
def test_current_variant_with_equal_backing_keeps(row: str) -> None:
    old = backed(*ROWS[row])
    assert ops_of(plan_map(scene(old), REQUEST)) == [split(old, keep=True), new(REQUEST)]


@pytest.mark.parametrize("merge", list(Merge))
@pytest.mark.parametrize("other", ["object", "offset", "none"])
@pytest.mark.parametrize("row", ROWS)
def test_other_backing_is_cut_in_every_policy(row: str, other: str, merge: Merge) -> None:
    old = {
        "object": backed(*ROWS[row], B),
        "offset": backed(*ROWS[row], A, 5),
        "none": backed(*ROWS[row], 0),
    }[other]
    assert ops_of(plan_map(scene(old, merge=merge), REQUEST)) == [split(old, keep=False), new(REQUEST)]


@pytest.mark.parametrize("merge", list(Merge))
@pytest.mark.parametrize("row", ROWS)
def test_without_object_nothing_keeps_and_nothing_merges(row: str, merge: Merge) -> None:
    old, request = backed(*ROWS[row], 0), backed(R, E, 0)
    assert ops_of(plan_map(scene(old, merge=merge), request)) == [split(old, keep=False), new(request)]


@pytest.mark.parametrize("merge", [Merge.ALWAYS, Merge.WITHIN_REGION])
@pytest.mark.parametrize("row", ROWS)
def test_merging_variant_with_equal_backing(row: str, merge: Merge) -> None:
    old = backed(*ROWS[row])
    want = {
        "nothing": [],
        "unmap+ map": [kept(old), new(REQUEST)],
        "unmap+ map, grown left": [kept(old), new(backed(old.addr, E))],
        "unmap+ map, grown right": [kept(old), new(backed(R, old.end))],
    }[MERGE_ALL[row]]
    assert ops_of(plan_map(scene(old, merge=merge), REQUEST)) == want


@pytest.mark.parametrize("place", APART)
def test_a_mapping_that_does_not_overlap_is_left_alone(place: str) -> None:
    assert ops_of(plan_map(scene(backed(*APART[place])), REQUEST)) == [new(REQUEST)]


@pytest.mark.parametrize(
    ("place", "joined"),
    [("before", None), ("touching R", (30, 60)), ("touching E", (40, 70)), ("behind", None)],
)
def test_a_neighbour_of_equal_backing_merges(place: str, joined: tuple[int, int] | None) -> None:
    old = backed(*APART[place])
    want = [kept(old), new(backed(*joined))] if joined else [new(REQUEST)]
    assert ops_of(plan_map(scene(old, merge=Merge.ALWAYS), REQUEST)) == want


@pytest.mark.parametrize("row", [*ROWS, *APART])
def test_unmap(row: str) -> None:
    old = backed(*(ROWS | APART)[row])
    vm = scene(old)
    plan = vm.sm_unmap(R, E - R)
    assert ops_of(plan) == ([] if row in APART else [split(old, keep=False)])
    plan.apply()
    outside = [
        backed(start, end)
        for start, end in ((old.addr, min(old.end, R)), (max(old.addr, E), old.end))
        if start < end
    ]
    assert mapped(vm) == outside


@pytest.mark.parametrize(
    ("row", "inside"),
    [
        ("A<R, B>E", (R, E)),
        ("A==R, B>E", (R, E)),
        ("A<R, B==E", (R, E)),
        ("A<R, B<E", (R, 50)),
        ("A>R, B>E", (50, E)),
    ],
)
def test_madvise_cuts_what_has_no_object(row: str, inside: tuple[int, int]) -> None:
    old = va(*ROWS[row], flags=8)
    vm = scene(old)
    plan = vm.madvise(R, E - R)
    assert [shape for shape in ops_of(plan) if shape != new(va(*inside, flags=8))] == [split(old, keep=False)]
    assert len(plan) == 2
    plan.apply()
    assert [(v.addr, v.end, v.flags) for v in mapped(vm)] == sorted(
        (start, end, 8) for start, end in ((old.addr, R), inside, (E, old.end)) if start < end
    )


@pytest.mark.parametrize("row", ["A==R, B==E", "A==R, B<E", "A>R, B==E", "A>R, B<E"])
def test_madvise_leaves_what_lies_inside(row: str) -> None:
    assert ops_of(scene(va(*ROWS[row])).madvise(R, E - R)) == []


@pytest.mark.parametrize("row", ROWS)
def test_madvise_leaves_what_has_an_object(row: str) -> None:
    assert ops_of(scene(backed(*ROWS[row])).madvise(R, E - R)) == []


def test_madvise_cuts_both_ends() -> None:
    vm = scene(va(30, 45), va(45, 50), backed(50, 55), va(55, 70))
    kinds = [op.kind for op in vm.madvise(R, E - R)]
    assert kinds == ["remap", "map", "remap", "map"]


def test_mappings_are_visited_in_ascending_order() -> None:
    vm = scene(backed(0, 41), backed(41, 45, B), va(45, 46), backed(50, 59), backed(59, 99, B))
    assert ops_of(plan_map(vm, REQUEST)) == [
        split(backed(0, 41), keep=True),
        unmap(backed(41, 45, B)),
        unmap(va(45, 46)),
        kept(backed(50, 59)),
        split(backed(59, 99, B), keep=False),
        new(REQUEST),
    ]


ORDER = [
    (
        [va(0, 4, A)],
        va(1, 3, B),
        [remap(va(0, 4, A), va(0, 1, A), va(3, 4, A, 3)), new(va(1, 3, B))],
    ),
    (
        [va(0, 2, A), va(2, 4, A, 2)],
        va(1, 3, A, 1),
        [
            remap(va(0, 2, A), va(0, 1, A), None, keep=True),
            remap(va(2, 4, A, 2), None, va(3, 4, A, 3), keep=True),
            new(va(1, 3, A, 1)),
        ],
    ),
]


@pytest.mark.parametrize(("before", "request_va", "want"), ORDER, ids=["a", "b"])
def test_order_vectors(before: list[Va], request_va: Va, want: list[OpShape]) -> None:
    assert ops_of(plan_map(scene(*before), request_va)) == want


def remaps_keeping(*pieces: tuple[Va, Va | None, Va | None]) -> list[OpShape]:
    return [remap(whole, prev, behind, keep=True) for whole, prev, behind in pieces]


VERIFIED = {
    "fills the hole": (
        [va(0, 2, A), va(4, 6, A, 4)],
        va(2, 4, A, 2),
        [kept(va(0, 2, A)), kept(va(4, 6, A, 4)), new(va(0, 6, A))],
        [new(va(2, 4, A, 2))],
    ),
    "already there": (
        [va(0, 3, A)],
        va(1, 2, A, 1),
        [],
        [*remaps_keeping((va(0, 3, A), va(0, 1, A), va(2, 3, A, 2))), new(va(1, 2, A, 1))],
    ),
    "crosses both": (
        [va(0, 2, A), va(3, 5, A, 3)],
        va(1, 4, A, 1),
        [kept(va(0, 2, A)), kept(va(3, 5, A, 3)), new(va(0, 5, A))],
        [
            *remaps_keeping((va(0, 2, A), va(0, 1, A), None), (va(3, 5, A, 3), None, va(4, 5, A, 4))),
            new(va(1, 4, A, 1)),
        ],
    ),
    "replaces another object between": (
        [va(0, 2, A), va(2, 4, B), va(4, 6, A, 4)],
        va(2, 4, A, 2),
        [unmap(va(2, 4, B)), kept(va(0, 2, A)), kept(va(4, 6, A, 4)), new(va(0, 6, A))],
        [unmap(va(2, 4, B)), new(va(2, 4, A, 2))],
    ),
    "several inside": (
        [va(0, 2, A), va(3, 4, B), va(5, 6, B, 9)],
        va(2, 6, A, 2),
        [unmap(va(3, 4, B)), unmap(va(5, 6, B, 9)), kept(va(0, 2, A)), new(va(0, 6, A))],
        [unmap(va(3, 4, B)), unmap(va(5, 6, B, 9)), new(va(2, 6, A, 2))],
    ),
}


@pytest.mark.parametrize("name", VERIFIED)
def test_verified_vectors(name: str) -> None:
    before, request_va, merging, current = VERIFIED[name]
    assert ops_of(plan_map(scene(*before, merge=Merge.ALWAYS), request_va)) == merging
    assert ops_of(plan_map(scene(*before), request_va)) == current
