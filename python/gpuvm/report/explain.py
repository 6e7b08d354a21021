"""What a request would do to a space, and for each op why; see the kernel's "Split and Merge" for the rules.

Rules: DOC "Split and Merge" of drivers/gpu/drm/drm_gpuvm.c; merging as in the original series.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from gpuvm.va import Gpuva, Map, Merge, Plan, Prefetch, Remap, Unmap

Op: TypeAlias = Map | Remap | Unmap | Prefetch
_U64 = 1 << 64


@dataclass(frozen=True, slots=True)
class Asked:
    """The request: ``map``, ``unmap`` or ``prefetch`` of ``[addr, end)``; bytes.

    ``obj`` and ``offset`` are a map's; ``sparse``: the range lies in a sparse region.
    """

    verb: str
    addr: int
    end: int
    obj: object = None
    offset: int = 0
    sparse: bool = False


def why(op: Op, asked: Asked, merge: Merge) -> str:
    """One sentence: why this op is among the plan's."""
    match op:
        case Map():
            return _why_map(op, asked)
        case Remap():
            return _why_remap(op, asked)
        case Unmap(va, keep):
            return _why_unmap(va, keep, asked, merge)
        case Prefetch():
            return "It overlaps the range; a prefetch names whole mappings, it does not clip them."


def why_nothing(asked: Asked) -> str:
    """One sentence for a plan without ops."""
    if asked.verb == "map":
        return "The same bytes of the same object are mapped there already, so nothing is left to do."
    verb = "an unmap" if asked.verb == "unmap" else "a prefetch"
    return f"Nothing is mapped in the range; {verb} of a hole is free."


def _why_map(op: Map, asked: Asked) -> str:
    if (op.addr, op.end) == (asked.addr, asked.end):
        return "This is the request itself: the one map, always last, after all that was in its way."
    sides = [side for side, grown in (("left", op.addr < asked.addr), ("right", op.end > asked.end)) if grown]
    return f"This is the request, grown on the {' and the '.join(sides)} by what was merged with it."


def _why_remap(op: Remap, asked: Asked) -> str:
    va = op.unmap.va
    stays = []
    if op.prev is not None:
        stays.append(f"its first {op.prev.range:#x} bytes stay (prev, offset unchanged)")
    if op.next is not None:
        moved = f"offset {va.offset:#x} + {op.next.addr - va.addr:#x}"
        stays.append(f"its last {op.next.range:#x} bytes stay (next, {moved})")
    sticks_out = {
        (True, True): "reaches over both ends of the request",
        (True, False): "begins before the request",
    }.get((op.prev is not None, op.next is not None), "ends after the request")
    return f"The mapping {sticks_out}, so {' and '.join(stays)}; {_keep(va, op.unmap.keep, asked)}."


def _why_unmap(va: Gpuva, keep: bool, asked: Asked, merge: Merge) -> str:
    policy = merge.name.lower().replace("_", "-")
    if va.end <= asked.addr or va.addr >= asked.end:
        border = asked.addr if va.end <= asked.addr else asked.end
        return f"It meets the request at {border:#x} and continues its object, so policy {policy} merges it."
    if va.addr < asked.addr or va.end > asked.end:
        return f"It sticks out of the request but continues its object, so policy {policy} merges it."
    exact = (va.addr, va.end) == (asked.addr, asked.end)
    place = "is exactly the requested range" if exact else "lies wholly inside the request"
    return f"The mapping {place}, so all of it goes; {_keep(va, keep, asked)}."


def _keep(va: Gpuva, keep: bool, asked: Asked) -> str:
    """Half a sentence about the page-table entries of the part that goes."""
    if keep:
        return (
            "keep, for the request maps the same bytes of the same object there: page-table entries may stay"
        )
    if asked.verb != "map":
        entries = "become sparse again" if asked.sparse else "are cleared"
        return f"page-table entries of the part that goes {entries}"
    if va.obj is None:
        return "no keep, because a mapping without object never counts as the same"
    if va.obj is not asked.obj:
        return "no keep, because the request puts another object there"
    there = (va.offset + asked.addr - va.addr) % _U64
    return f"no keep, because the object's offset at {asked.addr:#x} is {there:#x}, not {asked.offset:#x}"


@dataclass(frozen=True, slots=True)
class Range:
    """A mapping before or after: bytes, and what backs it."""

    addr: int
    end: int
    obj: object
    offset: int
    kernel: bool = False


def after(old: list[Range], plan: Plan) -> list[Range]:
    """The mappings of ``old`` once the plan is applied, in address order."""
    gone: set[tuple[int, int]] = set()
    made: list[Map] = []
    for op in plan:
        match op:
            case Map():
                made.append(op)
            case Unmap(va, _):
                gone.add((va.addr, va.end))
            case Remap(prev, following, unmap):
                gone.add((unmap.va.addr, unmap.va.end))
                made += [piece for piece in (prev, following) if piece is not None]
    kept = [one for one in old if (one.addr, one.end) not in gone]
    new = [Range(one.addr, one.end, one.obj, one.offset) for one in made]
    return sorted(kept + new, key=lambda one: one.addr)
