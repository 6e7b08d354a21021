"""What the rivals in Python have in common: requests as tuples, one call for each.

Their containers know nothing of splitting; ``PythonSpace`` subclasses (``sorted_space``, ``interval_space``)
put the rules on top by hand, as a user of these packages has to.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import TypeAlias

import numpy as np

from bench.contender import HIGHEST, LOWEST, Contender, GapJob, Job, slices
from bench.layouts import (
    BIND_OP,
    KIND_MAP,
    KIND_REMAP,
    KIND_UNMAP,
    MAPPING,
    OP_MAP,
    PTE_KIND_MASK,
    PTE_KIND_SHIFT,
    Records,
)
from bench.workload import PAGE, SPACE_RANGE, Finds

# addr, end, offset, handle, flags
Piece: TypeAlias = tuple[int, int, int, int, int]
# kind, keep, handle, flags, addr, offset, range, prev_range, next_range
Op: TypeAlias = tuple[int, int, int, int, int, int, int, int, int]


def cut(old: Piece, start: int, end: int, new: Piece | None) -> tuple[Op, Piece | None, Piece | None]:
    """The operation for `old`, which overlaps ``[start, end)``, and what is left of it on both sides."""
    addr, old_end, offset, handle, flags = old
    prev = (addr, start, offset, handle, flags) if addr < start else None
    after = (end, old_end, offset + end - addr, handle, flags) if old_end > end else None
    keep = new is not None and handle != 0 and handle == new[3] and offset - addr == new[2] - start
    op = (
        KIND_UNMAP if prev is None and after is None else KIND_REMAP,
        1 if keep else 0,
        handle,
        flags,
        addr,
        offset,
        old_end - addr,
        start - addr if prev is not None else 0,
        old_end - end if after is not None else 0,
    )
    return op, prev, after


def map_op(new: Piece) -> Op:
    """The MAP that ends every map request."""
    addr, end, offset, handle, flags = new
    return (KIND_MAP, 0, handle, flags, addr, offset, end - addr, 0, 0)


def walk_gaps(pieces: Iterator[tuple[int, int]], size: int, fit: int) -> int | None:
    """A gap by walking all mappings: ascending pairs of address and end, descending ones for HIGHEST."""
    if fit == HIGHEST:
        to = SPACE_RANGE
        for addr, end in pieces:
            if to - end >= size and (at := (to - size) // PAGE * PAGE) >= end:
                return at
            to = addr
        return (to - size) // PAGE * PAGE if to >= size else None
    best: int | None = None
    smallest = SPACE_RANGE + 1
    begin = 0
    for addr, end in (*pieces, (SPACE_RANGE, SPACE_RANGE)) if fit != LOWEST else _with_end(pieces):
        if size <= addr - begin < smallest and (at := -(-begin // PAGE) * PAGE) + size <= addr:
            if fit == LOWEST:
                return at
            best, smallest = at, addr - begin
        begin = end
    return best


def _with_end(pieces: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Lazily, because the lowest gap may be found early."""
    yield from pieces
    yield SPACE_RANGE, SPACE_RANGE


class PythonSpace(Contender):
    """Jobs for a container in Python; the subclass maps, unmaps, finds and walks."""

    share = 32

    @abstractmethod
    def map(self, addr: int, end: int, offset: int, handle: int, flags: int) -> list[Op]:
        """Map, cutting what is there; the operations."""

    @abstractmethod
    def unmap(self, addr: int, end: int) -> list[Op]:
        """Unmap; the operations."""

    @abstractmethod
    def find_one(self, addr: int, end: int) -> Piece | None:
        """The mapping with exactly these borders."""

    @abstractmethod
    def pieces(self) -> Iterator[Piece]:
        """All mappings, ascending."""

    @abstractmethod
    def borders(self, *, descending: bool) -> Iterator[tuple[int, int]]:
        """Address and end of all mappings."""

    def _one(
        self, op: int, flags: int, handle: int, _pad: int, addr: int, offset: int, size: int
    ) -> list[Op]:
        if op == OP_MAP:
            return self.map(addr, addr + size, offset, handle, (flags & PTE_KIND_MASK) << PTE_KIND_SHIFT)
        return self.unmap(addr, addr + size)

    def bind_job(self, requests: Records, chunk: int) -> Job:
        calls, one = requests.tolist(), self._one

        def job() -> int:
            total = 0
            for call in calls:
                total += len(one(*call))
            return total

        return job

    def find_job(self, finds: Finds, chunk: int) -> Job:
        find = self.find_one
        calls = list(zip(finds.addrs.tolist(), (finds.addrs + finds.ranges).tolist(), strict=True))

        def job() -> int:
            for addr, end in calls:
                find(addr, end)
            return len(calls)

        return job

    def mixed_job(self, requests: Records, finds: Finds, chunk: int) -> Job:
        quarter = chunk // 4
        jobs = [
            (
                self.bind_job(requests[bound], chunk),
                self.find_job(Finds(finds.addrs[found], finds.ranges[found]), chunk),
            )
            for bound, found in zip(
                slices(len(requests), chunk - quarter), slices(len(finds), quarter), strict=True
            )
        ]

        def job() -> int:
            total = 0
            for bind, find in jobs:
                total += bind()
                find()
            return total

        return job

    def map_calls_job(self, requests: Records) -> Job:
        job = self.bind_job(requests, len(requests))

        def counted() -> int:
            job()
            return len(requests)

        return counted

    def find_calls_job(self, finds: Finds) -> Job:
        find = self.find_one
        calls = list(zip(finds.addrs.tolist(), (finds.addrs + finds.ranges).tolist(), strict=True))

        def job() -> int:
            found = 0
            for addr, end in calls:
                if find(addr, end) is not None:
                    found += 1
            return found

        return job

    def gap_job(self, sizes: list[int], fit: int) -> GapJob:
        def job() -> list[int | None]:
            return [walk_gaps(self.borders(descending=fit == HIGHEST), size, fit) for size in sizes]

        return job

    def updates_and_gaps_job(self, requests: Records, chunk: int, sizes: list[int], fit: int) -> Job:
        jobs = [self.bind_job(requests[part], chunk) for part in slices(len(requests), chunk)]

        def job() -> int:
            total = 0
            for bind, size in zip(jobs, sizes, strict=True):
                total += bind()
                walk_gaps(self.borders(descending=fit == HIGHEST), size, fit)
            return total

        return job

    def bind(self, requests: Records) -> Records:
        records = []
        for index, call in enumerate(requests.tolist()):
            for kind, keep, *rest in self._one(*call):
                records.append((kind, keep, 0, index, *rest))
        return np.array(records, BIND_OP)

    def find(self, finds: Finds) -> Records:
        out = np.zeros(len(finds), MAPPING)
        for i, (addr, size) in enumerate(zip(finds.addrs.tolist(), finds.ranges.tolist(), strict=True)):
            piece = self.find_one(addr, addr + size)
            if piece is not None:
                out[i] = _mapping(piece)
        return out

    def mappings(self) -> Records:
        return np.array([_mapping(piece) for piece in self.pieces()], MAPPING)


def _mapping(piece: Piece) -> tuple[int, int, int, int, int]:
    addr, end, offset, handle, flags = piece
    return addr, end - addr, offset, handle, flags
