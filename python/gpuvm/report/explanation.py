"""The explanation of one request, as text for people and as data for programs."""

from __future__ import annotations

from typing import Any

from gpuvm.errors import GpuvmError
from gpuvm.report.diagram import Bar, draw_rows
from gpuvm.report.explain import Asked, Op, Range, after, why, why_nothing
from gpuvm.trace.session import op_json
from gpuvm.trace.snapshot import Snapshot, object_number
from gpuvm.va import Map, Plan, Prefetch, Remap, Unmap

_MOST_BARS = 5
_U64_MAX = (1 << 64) - 1


class Explanation:
    """What a request would do to a space; nothing is changed.

    Attributes:
        refusal: why the manager refuses it, None when it does not.
    """

    def __init__(self, space: Snapshot, verb: str, addr: int, extent: int, bo: int, offset: int) -> None:
        """Ask the manager for its plan. Raises TraceError for a ``bo`` that never was."""
        end = addr + extent
        obj = space.object_named(bo)
        sparse = any(one.sparse and one.addr <= addr and end <= one.end for one in space.vm.region_list())
        self._space = space
        self._asked = Asked(verb, addr, end, obj, offset, sparse)
        self._old = _around(space, addr, end)
        self._plan: Plan | None = None
        self.refusal: GpuvmError | None = None
        try:
            self._plan = space.plan(verb, addr, extent, obj, offset)
        except GpuvmError as error:
            self.refusal = error

    def text(self, *, colour: bool = False) -> list[str]:
        """Lines: the drawing, then every op with its numbers and one sentence why."""
        merge = self._space.vm.merge
        title = f"{self._space.title}, merge policy {_policy(self._space)}"
        lines = [_bold(title, colour), "", *self._drawing(), ""]
        if self._plan is None:
            return [*lines, f"refused, nothing changes: {self.refusal}"]
        if not len(self._plan):
            return [*lines, f"no ops. {why_nothing(self._asked)}"]
        for index, op in enumerate(self._plan, 1):
            lines += [*_op_lines(index, op, colour), f"     {why(op, self._asked, merge)}", ""]
        return lines[:-1]

    def document(self) -> dict[str, Any]:
        """The same as JSON values; ops as `gpuvm ops` writes them, each with ``why``."""
        asked = self._asked
        request: dict[str, Any] = {"op": asked.verb, "addr": asked.addr, "range": asked.end - asked.addr}
        if asked.verb == "map":
            request |= {"bo": object_number(asked.obj), "offset": asked.offset}
        document: dict[str, Any] = {
            "file": self._space.name,
            "line": self._space.line,
            "client": self._space.client,
            "merge": _policy(self._space),
            "request": request,
            "old": [_range_json(one) for one in self._old],
        }
        if self._plan is None:
            err = -(self.refusal.errno or 0) if self.refusal else 0
            return document | {"ops": [], "err": err, "why": str(self.refusal)}
        merge = self._space.vm.merge
        ops = [op_json(op) | {"why": why(op, asked, merge)} for op in self._plan]
        new = [_range_json(one) for one in after(self._old, self._plan)]
        return document | {"ops": ops, "new": new, "err": 0}

    def _drawing(self) -> list[str]:
        asked = self._asked
        rows = [("old", _bars(self._old))]
        if asked.addr < asked.end:
            request = Range(asked.addr, asked.end, asked.obj, asked.offset)
            bar = _bar(request) if asked.verb == "map" else Bar(asked.addr, asked.end, (asked.verb,))
            rows.append(("req", [bar]))
        if self._plan is not None and asked.verb != "prefetch":
            rows.append(("new", _bars(after(self._old, self._plan))))
        return draw_rows(rows)


def _around(space: Snapshot, addr: int, end: int) -> list[Range]:
    """The mappings in ``[addr, end)``, and those that end or begin at its borders."""
    low, high = max(addr - 1, 0), min(end + 1, _U64_MAX)
    if low >= high:
        return []
    found = space.vm.mappings(low, high - low)
    return [Range(va.addr, va.end, va.obj, va.offset, va.kernel) for va in found]


def _name(obj: object) -> str:
    number = object_number(obj)
    return f"bo {number}" if number else "no bo"


def _bar(one: Range) -> Bar:
    name = _name(one.obj)
    texts = ("kernel",) if one.kernel else (f"{name} +{one.offset:#x}", name, name.removeprefix("bo "))
    return Bar(one.addr, one.end, texts)


def _bars(ranges: list[Range]) -> list[Bar]:
    bars = [_bar(one) for one in ranges]
    if len(bars) <= _MOST_BARS:
        return bars
    side = _MOST_BARS // 2
    hidden = bars[side:-side]
    middle = Bar(hidden[0].addr, hidden[-1].end, (f"{len(hidden)} more",), "~")
    return [*bars[:side], middle, *bars[-side:]]


def _bold(text: str, colour: bool) -> str:
    return f"\x1b[1m{text}\x1b[0m" if colour else text


def _policy(space: Snapshot) -> str:
    return space.vm.merge.name.lower().replace("_", "-")


def _op_lines(index: int, op: Op, colour: bool) -> list[str]:
    head = f"{index:3}. {_bold(op.kind, colour)}"
    match op:
        case Map():
            return [f"{head} {_one(op)}"]
        case Unmap(va, keep):
            return [f"{head} {_one(va)}{', keep' if keep else ''}"]
        case Prefetch(va):
            return [f"{head} {_one(va)}"]
        case Remap(prev, following, unmap):
            pieces = (("prev", prev), ("next", following))
            stays = [f"     {name} {_one(piece) if piece else 'none'}" for name, piece in pieces]
            return [f"{head} {_one(unmap.va)}{', keep' if unmap.keep else ''}", *stays]


def _one(what: Any) -> str:
    place = f"[{what.addr:#x}, {what.end:#x}) range {what.range:#x}"
    return f"{place}, {_name(what.obj)}, offset {what.offset:#x}"


def _range_json(one: Range) -> dict[str, Any]:
    piece: dict[str, Any] = {"addr": one.addr, "range": one.end - one.addr, "bo": object_number(one.obj)}
    return piece | {"offset": one.offset} | ({"kernel": True} if one.kernel else {})
