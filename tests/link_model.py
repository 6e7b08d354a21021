"""What the lists of a space's objects must hold: who is linked, in which order, with how many references."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from shapes import MapShape, OpShape, PrefetchShape, RemapShape, UnmapShape, Va


@dataclass(slots=True)
class LinkModel:
    """By object number. A vm_bo exists while it is held by the caller or has a linked mapping."""

    linked: dict[int, list[Va]] = field(default_factory=dict)
    held: dict[int, int] = field(default_factory=dict)
    evicted: list[int] = field(default_factory=list)
    external: list[int] = field(default_factory=list)

    def play(self, ops: Iterable[OpShape]) -> None:
        """New mappings are linked before the ones they replace are unlinked, so no vm_bo dies in between."""
        gone: list[Va] = []
        fresh: list[Va] = []
        for op in ops:
            match op:
                case MapShape(va):
                    fresh.append(va)
                case UnmapShape(va):
                    gone.append(va)
                case RemapShape(va, prev, behind):
                    gone.append(va)
                    fresh += [piece for piece in (prev, behind) if piece is not None]
                case PrefetchShape():
                    pass
        gone = [va for va in gone if self.is_linked(va)]
        for va in fresh:
            self.link(va)
        for va in gone:
            self.unlink(va)

    def link(self, va: Va) -> None:
        if va.bo:
            self.linked.setdefault(va.bo, []).append(va)

    def unlink(self, va: Va) -> None:
        """Take the oldest such entry out: an equal younger one is what replaced it."""
        if self.is_linked(va):
            self.linked[va.bo].remove(va)
            self._settle(va.bo)

    def rename(self, old: Va, new: Va) -> None:
        """The flags of a linked mapping changed."""
        entries = self.linked[old.bo]
        entries[entries.index(old)] = new

    def is_linked(self, va: Va) -> bool:
        return va in self.linked.get(va.bo, [])

    def hold(self, bo: int) -> None:
        self.held[bo] = self.held.get(bo, 0) + 1

    def drop(self, bo: int) -> None:
        self.held[bo] -= 1
        self._settle(bo)

    def references(self, bo: int) -> int:
        return self.held.get(bo, 0) + len(self.linked.get(bo, []))

    def live(self) -> set[int]:
        return {bo for bo in (*self.linked, *self.held) if self.references(bo)}

    def evict(self, bo: int, evicted: bool) -> None:
        if evicted and bo not in self.evicted:
            self.evicted.append(bo)
        if not evicted and bo in self.evicted:
            self.evicted.remove(bo)

    def add_external(self, bo: int) -> None:
        if bo not in self.external:
            self.external.append(bo)

    def _settle(self, bo: int) -> None:
        if not self.references(bo):
            self.evict(bo, False)
            self.external = [other for other in self.external if other != bo]
