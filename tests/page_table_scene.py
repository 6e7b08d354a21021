"""Page tables for tests: what they are made in, and what their words are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpuvm.mem import Aperture, Extent
from gpuvm.mmu.formats.format import Format
from gpuvm.mmu.formats.gp100 import GP100
from gpuvm.mmu.page_table import PageTable
from gpuvm.mmu.translation import Run, RunState, Translation
from table_memory import ArrayMemory

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


def vram(addr: int, size: int) -> Extent:
    return Extent(Aperture.VRAM, addr, size)


@dataclass
class Scene:
    """Page tables in an array."""

    format: Format = GP100
    memory: ArrayMemory = field(default_factory=ArrayMemory)

    def __post_init__(self) -> None:
        self.tables = PageTable(self.format, self.memory)

    def word(self, addr: int) -> int:
        """In VRAM."""
        return int.from_bytes(self.memory.view[addr : addr + 8].tobytes(), "little")

    def at(self, level: str, va: int) -> int:
        """Where the table of this level that translates ``va`` is."""
        numbers = {entry.name: number for number, entry in enumerate(self.format.levels)}
        span = self.format.levels[numbers[level]].shift + self.format.levels[numbers[level]].bits
        for table in self.tables.tables():
            if table.level == numbers[level] and table.va >> span == va >> span:
                return table.addr
        raise LookupError(f"no {level} for {va:#x}")

    def entry(self, level: str, va: int) -> int:
        """The low word of the entry that spans ``va``."""
        return self.word(self._place(level, va))

    def high(self, va: int) -> int:
        """The high word of the PD0 entry."""
        return self.word(self._place("PD0", va) + 8)

    def _place(self, name: str, va: int) -> int:
        level = next(level for level in self.format.levels if level.name == name)
        return self.at(name, va) + (va >> level.shift & (1 << level.bits) - 1) * level.entry_bytes

    def get_map(self, addr: int, size: int, shift: int, target: int) -> None:
        self.tables.get(addr, size, shift)
        self.tables.map(addr, size, shift, vram(target, size))

    def unmap_put(self, addr: int, size: int, shift: int) -> None:
        self.tables.unmap(addr, size, shift)
        self.tables.put(addr, size, shift)

    def look(self, va: int) -> int | str:
        """The physical address, or the name of what else is there."""
        found = self.tables.translate(va)
        return found.address if isinstance(found, Translation) else type(found).__name__

    def shown(self) -> list[Run]:
        """All that is not a hole."""
        runs = self.tables.runs(0, self.tables.range)
        return [run for run in runs if run.state is not RunState.INVALID]

    def picture(self) -> tuple[Any, ...]:
        """All that can be seen, and all of VRAM that is in use; for comparison."""
        used = {
            addr: self.memory.view[addr : addr + size].tobytes() for addr, size in self.memory.used.items()
        }
        statistics = self.tables.statistics()
        counts = (statistics.references, statistics.mapped, statistics.tables, statistics.memory_bytes)
        return self.shown(), self.tables.tables(), self.tables.sparse_ranges(), counts, used

    def end(self) -> None:
        """Nothing is left, not even the root."""
        self.tables.check()
        assert sum(self.tables.statistics().tables.values()) == 1
        assert not any(np.frombuffer(self.memory.view[self.tables.root :][:4096].tobytes(), np.uint64))
        self.tables.close()
        assert self.memory.used == {}
