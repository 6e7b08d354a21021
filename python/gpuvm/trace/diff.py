"""Difference of two traces: which calls of one are which of the other, and what is not alike about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import Any, Final

from gpuvm.trace.alignment import Pairs, align
from gpuvm.trace.births import Births
from gpuvm.trace.recorded import Record
from gpuvm.trace.references import references
from gpuvm.trace.trace import Trace


class Kind(StrEnum):
    """What is not alike, by the name that it has in results."""

    ONLY_A = "only in A"
    ONLY_B = "only in B"
    ARGUMENTS = "arguments"
    """Also: it is about another object, channel or sync object."""
    RESULT = "result"
    OPS = "ops"
    """What the manager emitted for it."""


@dataclass(frozen=True, slots=True)
class Change:
    """One call that is not alike, by its numbers in A and B; None: it is not there."""

    kind: Kind
    call: str
    a: int | None
    b: int | None
    after: tuple[int, int] | None
    """The last calls of the same client before it that are each other's; None: there are none."""


@dataclass(slots=True)
class TraceDiff:
    """What is not alike, in the order of A."""

    changes: list[Change] = field(default_factory=list)
    alike: int = 0
    """Calls that are the same in both."""


def diff_traces(a: Trace, b: Trace, *, progress: Callable[[int, int], None] = lambda *_: None) -> TraceDiff:
    """Compare two traces, of any form.

    The first open of the device in A is compared with the first in B, and so on; how calls of several
    clients are interleaved is no difference, nor are times. Calls are matched by their names and arguments,
    where a handle is the first, second... object of its size, say; what is left, by names and arguments
    without handles; what is left then, by names. What calls made that match is taken to be the same.

    Cost: O(calls), and times the number of differences; some hundred bytes a call.

    Args:
        progress: told how many calls were read, twice, now and then.

    Raises:
        TraceError: one of them cannot be read.
    """
    found = TraceDiff()
    sides = _Side(a, 0, progress), _Side(b, a.last_call(), progress)
    clients = _both_clients(*sides)
    matches = [_match(*pair) for pair in clients]
    partners = {one.line: other.line for pairs in matches for one, other in pairs if one and other}
    ordered: list[tuple[tuple[int, int], Change]] = []
    for pairs in matches:
        after: tuple[int, int] | None = None
        for one, other in pairs:
            kind = _kind(one, other, partners, sides)
            if kind is not None:
                place = (one.line, 0) if one else (after[0] if after else 0, 1)
                ordered.append((place, _change(kind, one, other, after)))
            else:
                found.alike += 1
            if one and other:
                after = one.line, other.line
    found.changes = [change for _, change in sorted(ordered, key=itemgetter(0))]
    return found


@dataclass(slots=True)
class _Call:
    """What is compared of one call."""

    line: int
    call: str
    shape: int
    """Hash of its name and arguments, without numbers that name something."""
    exact: int
    """Hash of these, and of what the numbers name."""
    about: tuple[int, ...]
    """The calls that made what it is about; numbers of which nobody told as -1 - number."""
    result: tuple[Any, ...]


class _Side:
    """One trace: its calls by client, and what was emitted for them."""

    def __init__(self, trace: Trace, before: int, progress: Callable[[int, int], None]) -> None:
        self.clients: Final[dict[int, list[_Call]]] = {}
        self._births: Final = Births()
        self._tokens: Final[dict[int, tuple[int, int]]] = {}
        """By the call that made something: its shape, and how many the client had made of that."""
        self._made: Final[Counter[tuple[int, int]]] = Counter()
        for record in trace.records():
            self.clients.setdefault(record.client, []).append(self._taken(record))
            progress(before + record.line, before + record.line)
        self.emitted: Final = dict(_emitted(trace))

    def _taken(self, record: Record) -> _Call:
        parts, client = references(record), record.client
        shape = hash(parts.shape)
        about = [self._births.of(client, one) or -1 - one.number for one in parts.uses]
        if record.ret == 0:  # an import of what has a number already gives it again
            about += [self._births.of(client, one) or 0 for one in parts.makes]
        exact = hash((shape, *(self._tokens.get(one, one) for one in about)))
        self._births.feed(record, parts)
        if parts.makes:
            self._made[client, shape] += 1
            self._tokens[record.line] = shape, self._made[client, shape]
        return _Call(record.line, record.call, shape, exact, tuple(about), (record.ret, *parts.answers))


_EMITTED: Final = """
SELECT o.call, o.asked, o.code, o.keep, m.addr, m.range, m.bo_offset, p.addr, p.range, n.addr, n.range
FROM ops o JOIN mappings m ON m.id = o.mapping
LEFT JOIN mappings p ON p.id = o.prev LEFT JOIN mappings n ON n.id = o.next
ORDER BY o.call, o.i
"""


def _emitted(trace: Trace) -> Iterator[tuple[int, int]]:
    """By call, a hash of the ops that were emitted for it."""
    for call, ops in groupby(trace.db.execute(_EMITTED), key=itemgetter(0)):
        yield call, hash(tuple([op[1:] for op in ops]))


def _both_clients(a: _Side, b: _Side) -> list[tuple[list[_Call], list[_Call]]]:
    """The calls of clients that are compared, in the order in which they were opened."""
    all_a, all_b = [*a.clients.values()], [*b.clients.values()]
    most = max(len(all_a), len(all_b))
    all_a += [[] for _ in range(most - len(all_a))]
    all_b += [[] for _ in range(most - len(all_b))]
    return [*zip(all_a, all_b, strict=True)]


_ALIKE: Final[tuple[Callable[[_Call], Hashable], ...]] = (
    attrgetter("exact"),
    attrgetter("shape"),
    attrgetter("call"),
)
"""What calls have in common that are each other's, most of it first."""


def _match(a: Sequence[_Call], b: Sequence[_Call], level: int = 0) -> list[tuple[_Call | None, _Call | None]]:
    """All calls of both, in order, those that are each other's in pairs."""
    if not a or not b or level == len(_ALIKE):
        return [*((one, None) for one in a), *((None, one) for one in b)]
    key = _ALIKE[level]
    pairs: list[tuple[_Call | None, _Call | None]] = []
    for gap_a, gap_b, pair in _gaps(align([*map(key, a)], [*map(key, b)]), a, b):
        pairs += _match(gap_a, gap_b, level + 1)
        pairs += [pair] if pair else []
    return pairs


def _gaps(
    pairs: Pairs, a: Sequence[_Call], b: Sequence[_Call]
) -> Iterator[tuple[Sequence[_Call], Sequence[_Call], tuple[_Call, _Call] | None]]:
    """What stands before each pair, and the pair; None at the end."""
    i = j = 0
    for next_i, next_j in pairs:
        yield a[i:next_i], b[j:next_j], (a[next_i], b[next_j])
        i, j = next_i + 1, next_j + 1
    yield a[i:], b[j:], None


def _change(kind: Kind, a: _Call | None, b: _Call | None, after: tuple[int, int] | None) -> Change:
    line_a, line_b = (None if one is None else one.line for one in (a, b))
    (call, *_) = [one.call for one in (a, b) if one is not None]
    return Change(kind, call, line_a, line_b, after)


def _kind(
    a: _Call | None, b: _Call | None, partners: dict[int, int], sides: tuple[_Side, _Side]
) -> Kind | None:
    """What is not alike about two calls; None: nothing."""
    if a is None or b is None:
        return Kind.ONLY_B if a is None else Kind.ONLY_A
    about = tuple([partners.get(one) if one > 0 else one for one in a.about])
    if a.shape != b.shape or (about != b.about and a.result[0] == b.result[0]):
        return Kind.ARGUMENTS
    if a.result != b.result:
        return Kind.RESULT
    if sides[0].emitted.get(a.line) != sides[1].emitted.get(b.line):
        return Kind.OPS
    return None
