"""What accepted VM_BINDs changed: ranges of a client's space, in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum, auto
from heapq import merge
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from gpuvm.trace.address_map import AddressMap

if TYPE_CHECKING:
    from gpuvm.trace.trace import Trace


class EffectKind(Enum):
    """What became of a range."""

    MAP = auto()
    """It shows memory from now on."""
    SPARSE = auto()
    """It is a sparse region."""
    UNMAP = auto()
    """It shows nothing any more, or the zeros of the sparse region around it."""
    REPLACE = auto()
    """The same call maps something else there; a MAP follows."""
    DROP = auto()
    """It is no sparse region any more; an UNMAP follows."""


class Effect(NamedTuple):
    """One change of ``[addr, end)``."""

    call: int
    client: int
    kind: EffectKind
    addr: int
    end: int


_MAP: Final = 0
_MADE, _DROPPED, _OP = range(3)  # what a row is about; in this order they are told of a call

_Row: TypeAlias = tuple[int, ...]  # call, what, client, addr, end; of ops also code, and what shows: below
_Shows: TypeAlias = tuple[int | None, int, int]  # object, address - offset, kind

_OPS: Final = f"""
    SELECT o.call, {_OP}, m.client,
        CASE WHEN p.id IS NULL THEN m.addr ELSE p.addr + p.range END,
        CASE WHEN n.id IS NULL THEN m.addr + m.range ELSE n.addr END,
        o.code, m.object, m.addr - m.bo_offset, m.pte_kind
    FROM ops o JOIN mappings m ON m.id = o.mapping
        LEFT JOIN mappings p ON p.id = o.prev LEFT JOIN mappings n ON n.id = o.next
    ORDER BY o.call, o.i"""

_REGIONS: Final = f"""
    SELECT born AS call, {_MADE} AS what, client, addr, addr + range FROM regions
    UNION ALL
    SELECT died, {_DROPPED}, client, addr, addr + range FROM regions
    WHERE EXISTS (SELECT 1 FROM bind_ops WHERE bind_ops.call = died)
    ORDER BY call, what"""


def effects(trace: Trace) -> Iterator[Effect]:
    """All of a trace, by call. Entries that a call leaves as they were are no effect.

    Source: nouveau_uvmm_sm: what a bind maps again there stays (``keep``).
    """
    rows = merge(trace.db.execute(_REGIONS), trace.db.execute(_OPS), key=itemgetter(0, 1))
    for _, of_call in groupby(rows, key=itemgetter(0)):
        yield from _of_call([*of_call])


def _of_call(rows: Sequence[_Row]) -> Iterator[Effect]:
    maps: AddressMap[tuple[int, _Shows]] = AddressMap()  # which row maps it last
    if len(rows) > 1:
        for at, row in enumerate(rows):
            if row[1] == _OP and row[5] == _MAP:
                maps.put(row[3], row[4], (at, _shows(row)))
    stays: AddressMap[None] = AddressMap()
    for at, row in enumerate(rows):
        call, what, client, addr, end = row[:5]
        if what == _MADE:
            yield Effect(call, client, EffectKind.SPARSE, addr, end)
        elif what == _DROPPED:
            yield Effect(call, client, EffectKind.DROP, addr, end)
            yield Effect(call, client, EffectKind.UNMAP, addr, end)
        elif row[5] == _MAP:
            for start, stop in _without(stays, addr, end):
                yield Effect(call, client, EffectKind.MAP, start, stop)
        else:
            last = addr
            for span in maps.over(addr, end):
                later, shows = span.value
                if later < at:
                    continue
                if last < span.addr:
                    yield Effect(call, client, EffectKind.UNMAP, last, span.addr)
                last = span.end
                if shows == _shows(row) and shows[0] is not None:
                    stays.put(span.addr, span.end, None)
                else:
                    yield Effect(call, client, EffectKind.REPLACE, span.addr, span.end)
            if last < end:
                yield Effect(call, client, EffectKind.UNMAP, last, end)


def _shows(row: _Row) -> _Shows:
    return row[6], row[7], row[8]


def _without(spans: AddressMap[None], addr: int, end: int) -> Iterator[tuple[int, int]]:
    for span in spans.over(addr, end):
        if addr < span.addr:
            yield addr, span.addr
        addr = span.end
    if addr < end:
        yield addr, end
