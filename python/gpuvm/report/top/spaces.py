"""What is mapped in each client's address space, kept up to date from the ops of a trace."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from typing import Final

from gpuvm.errors import CheckFailed
from gpuvm.va import Gpuva, GpuvaManager

_SPACE: Final = 1 << 47
"""Bytes of an address space, as nouveau makes them."""

_ALIVE: Final = """
SELECT id, client, addr, range FROM mappings
WHERE died IS NULL OR died IN (SELECT id FROM calls WHERE nr = -1)"""
_EMITTED: Final = """
SELECT o.code, o.mapping, m.id, m.client, m.addr, m.range FROM ops o
LEFT JOIN mappings m ON m.id IN (CASE o.code WHEN 0 THEN o.mapping END, o.prev, o.next)
WHERE o.call > ? ORDER BY o.call, o.i"""
_GONE_REGIONS: Final = """
SELECT r.id FROM json_each(?) alive JOIN regions r ON r.id = alive.value
WHERE r.died IS NOT NULL AND r.died NOT IN (SELECT id FROM calls WHERE id > ? AND nr = -1)"""
"""Those of clients that are closed by now stay, until `Spaces.closed` has counted them."""


@dataclass(frozen=True, slots=True)
class SpaceNumbers:
    """One address space; sizes in bytes. What a client has that made none is all 0."""

    mappings: int = 0
    mapped_bytes: int = 0
    regions: int = 0
    """Sparse ones."""
    holes: int = 0
    fragmentation: float = 0.0
    """1 - largest hole / free bytes."""


class Spaces:
    """The spaces of a trace's clients. One that was closed stands as it was right before.

    Not thread-safe.
    """

    def __init__(self) -> None:
        self._spaces: dict[int, GpuvaManager] = {}
        self._mappings: dict[int, tuple[int, Gpuva]] = {}
        self._regions: dict[int, int] = {}
        self._last_region = 0
        self._closed: dict[int, SpaceNumbers] = {}

    def made(self, client: int, kernel_addr: int, kernel_size: int) -> None:
        """The client has a space by now, whose driver's part is known. Further times do nothing."""
        if client not in self._spaces and client not in self._closed:
            self._new(client, (kernel_addr, kernel_size))

    def advance(self, db: sqlite3.Connection, last_call: int) -> int:
        """Take in what calls after ``last_call`` did; how many rows that were.

        Cost: O(their ops + sparse regions), but 0, for the beginning, is one look at all mappings.
        """
        if last_call:
            rows = self._follow(db, last_call)
        else:
            rows = 0
            for mapping, client, addr, size in db.execute(_ALIVE):
                self._insert(mapping, client, addr, size)
                rows += 1
        return rows + self._follow_regions(db, last_call)

    def closed(self, client: int) -> None:
        """The client was closed: keep its numbers, forget its mappings. Cost: O(all mappings)."""
        if client in self._closed:
            return
        self._closed[client] = self.numbers(client)
        self._spaces.pop(client, None)
        self._mappings = {one: held for one, held in self._mappings.items() if held[0] != client}
        self._regions = {one: owner for one, owner in self._regions.items() if owner != client}

    def numbers(self, client: int) -> SpaceNumbers:
        """Those of a client, whether open or not. Cost: O(sparse regions)."""
        if client in self._closed:
            return self._closed[client]
        space = self._spaces.get(client)
        if space is None:
            return SpaceNumbers()
        known = space.statistics()
        regions = sum(owner == client for owner in self._regions.values())
        return SpaceNumbers(known.mappings, known.mapped_bytes, regions, known.holes, known.fragmentation)

    def __len__(self) -> int:
        """Mappings followed."""
        return len(self._mappings)

    def check(self) -> None:
        """Every mapping is in its client's space, and nothing else is. Raises CheckFailed."""
        in_spaces = sum(space.statistics().mappings for space in self._spaces.values())
        strays = [
            one for one, (client, va) in self._mappings.items() if va.vm is not self._spaces.get(client)
        ]
        if strays or in_spaces != len(self._mappings):
            raise CheckFailed(
                f"{in_spaces} mappings in spaces, {len(self._mappings)} known, strays {strays[:9]}"
            )
        for space in self._spaces.values():
            space.check()

    def _follow(self, db: sqlite3.Connection, last_call: int) -> int:
        rows = 0
        for code, old, new, client, addr, size in db.execute(_EMITTED, (last_call,)):
            if code:
                self._remove(old)
            if new is not None:
                self._insert(new, client, addr, size)
            rows += 1
        return rows

    def _follow_regions(self, db: sqlite3.Connection, last_call: int) -> int:
        born = db.execute("SELECT id, client FROM regions WHERE id > ?", (self._last_region,)).fetchall()
        for region, client in born:
            self._regions[region] = client
            self._last_region = region
        alive = json.dumps(list(self._regions))
        for (region,) in db.execute(_GONE_REGIONS, (alive, last_call)).fetchall():
            del self._regions[region]
        return len(born)

    def _insert(self, mapping: int, client: int, addr: int, size: int) -> None:
        if client in self._closed:
            return
        va = Gpuva(addr, size)
        (self._spaces.get(client) or self._new(client, None)).insert(va)
        self._mappings[mapping] = client, va

    def _remove(self, mapping: int) -> None:
        held = self._mappings.pop(mapping, None)
        if held is not None:
            self._spaces[held[0]].remove(held[1])

    def _new(self, client: int, kernel_node: tuple[int, int] | None) -> GpuvaManager:
        space = GpuvaManager(f"client {client}", range=_SPACE, kernel_node=kernel_node)
        self._spaces[client] = space
        return space
