"""What calls need of address spaces: the binds behind what is mapped."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, NamedTuple

from gpuvm.trace import recorded
from gpuvm.trace.database import unsigned
from gpuvm.trace.recorded import Record
from gpuvm.trace.trace import Trace

_OPS: Final = """
SELECT o.call, o.code, m.addr, m.range, p.addr, p.range, n.addr, n.range
FROM ops o JOIN mappings m ON m.id = o.mapping
LEFT JOIN mappings p ON p.id = o.prev LEFT JOIN mappings n ON n.id = o.next ORDER BY o.call, o.i
"""
_MAP: Final = 0


class _Mapping(NamedTuple):
    end: int
    root: int
    """The bind that mapped what this is a piece of."""


class _Space:
    """What is mapped in one address space."""

    def __init__(self) -> None:
        self.addrs: Final[list[int]] = []
        """Ascending."""
        self.mappings: Final[dict[int, _Mapping]] = {}
        self.regions: Final[dict[tuple[int, int], int]] = {}
        """By address and range, the bind that made it."""

    def born(self, addr: int, size: int, root: int) -> None:
        insort(self.addrs, addr)
        self.mappings[addr] = _Mapping(addr + size, root)

    def died(self, addr: int) -> int:
        del self.addrs[bisect_left(self.addrs, addr)]
        return self.mappings.pop(addr).root

    def roots(self, addr: int, end: int) -> Iterator[int]:
        """Of what overlaps a range."""
        first = max(bisect_right(self.addrs, addr) - 1, 0)
        for at in self.addrs[first : bisect_left(self.addrs, end)]:
            if self.mappings[at].end > addr:
                yield self.mappings[at].root


class SpaceNeeds:
    """Follows the address spaces of all clients, by the ops in the trace.

    A bind needs every later one that takes away, or cuts, what it mapped: so a space has nothing that was not
    there. An exec needs the binds behind its push buffers.

    Args:
        trace: whose calls are fed.
        add: told that one call needs another.
    """

    def __init__(self, trace: Trace, add: Callable[[int, int], None]) -> None:
        self._add: Final = add
        self._spaces: Final[dict[int, _Space]] = {}
        self._groups: Final = groupby(trace.db.execute(_OPS), key=itemgetter(0))
        self._next = next(self._groups, None)

    def feed(self, record: Record) -> None:
        """The next call was made."""
        if record.ret:
            return
        match record:
            case recorded.VmBind():
                space = self._spaces.setdefault(record.client, _Space())
                for op in self._ops_of(record.line):
                    self._op(space, record.line, *op)
                for asked in record.ops:
                    if asked.sparse:
                        self._region(space, record.line, asked)
            case recorded.Submission() if record.client in self._spaces:
                for push in record.pushes:
                    for root in self._spaces[record.client].roots(push.va, push.va + push.va_len):
                        self._add(record.line, root)
            case _:
                pass

    def _ops_of(self, call: int) -> Iterator[tuple[Any, ...]]:
        if self._next is not None and self._next[0] == call:
            for _, code, *numbers in self._next[1]:
                yield code, *(None if number is None else unsigned(number) for number in numbers)
            self._next = next(self._groups, None)

    def _op(
        self,
        space: _Space,
        call: int,
        code: int,
        addr: int,
        size: int,
        prev: int | None,
        prev_size: int,
        behind: int | None,
        behind_size: int,
    ) -> None:
        if code == _MAP:
            space.born(addr, size, call)
            return
        root = space.died(addr)
        self._add(root, call)
        for piece, piece_size in ((prev, prev_size), (behind, behind_size)):
            if piece is not None:
                space.born(piece, piece_size, root)

    def _region(self, space: _Space, call: int, asked: recorded.BindOp) -> None:
        key = asked.addr, asked.range
        if asked.op == recorded.OP_MAP:
            space.regions[key] = call
        elif (born := space.regions.pop(key, None)) is not None:
            self._add(born, call)
            self._add(call, born)

    def close(self, client: int) -> None:
        """All that the client had is gone."""
        self._spaces.pop(client, None)

    def living(self, client: int) -> Iterator[int]:
        """The calls that made what is there now, some several times."""
        space = self._spaces.get(client)
        if space is not None:
            yield from (mapping.root for mapping in space.mappings.values())
            yield from space.regions.values()
