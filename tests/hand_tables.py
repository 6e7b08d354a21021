"""Page tables written entry by entry into a bytearray, as by hand: what readers of tables are tested with."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator

from hypothesis import strategies as st

from gpuvm.mem import Aperture
from gpuvm.mmu.formats.format import Format, Level, Pointer, State

ROOT = 0x1000


class HandTables:
    """Tables of one format in ``size`` bytes of VRAM: the root at ROOT, others where the last one ended."""

    def __init__(self, format: Format, size: int = 1 << 20) -> None:
        self.format = format
        self.vram = bytearray(size)
        self._next = 2 * ROOT

    def put(self, number: int, va: int, word: int, half: int = 0) -> None:
        """Write one word of the entry for ``va`` at a level, and the pointers that lead to it."""
        *_, (table, level) = self._path(number, va)
        struct.pack_into("<Q", self.vram, at(level, table, va) + 8 * half, word)

    def get(self, number: int, va: int) -> tuple[int, ...]:
        """The words of the entry for ``va`` at a level, whose tables are made if they are missing."""
        *_, (table, level) = self._path(number, va)
        return struct.unpack_from(f"<{level.entry_bytes // 8}Q", self.vram, at(level, table, va))

    def table(self, number: int, va: int) -> int:
        """Where the table of a level for ``va`` is."""
        return list(self._path(number, va))[-1][0]

    def _path(self, number: int, va: int) -> Iterator[tuple[int, Level]]:
        """The tables from the root to a level, with their levels."""
        levels, table = self.format.levels, ROOT
        above = list(range(number))
        if self.format.paired and number == len(levels) - 1:
            above.remove(number - 1)
        for step in above:
            level = levels[step]
            yield table, level
            below = step + 1 if step + 1 in above else number
            small = below == len(levels) - 1 and level.small is not None
            pointer, half = (level.small, 8) if small else (level.pointer, 0)
            assert pointer is not None
            table = self._below(pointer, at(level, table, va) + half, levels[below].table_bytes)
        yield table, levels[number]

    def _below(self, pointer: Pointer, where: int, size: int) -> int:
        """The table that the word at ``where`` points to, or a new one."""
        (word,) = struct.unpack_from("<Q", self.vram, where)
        if pointer.matches(word):
            return pointer.address(word)
        self._next = (self._next + size - 1) & -size
        struct.pack_into("<Q", self.vram, where, pointer.encode(self._next))
        self._next += size
        assert self._next <= len(self.vram)
        return self._next - size


def at(level: Level, table: int, va: int) -> int:
    """Where the entry for ``va`` is."""
    return table + (va >> level.shift) % (1 << level.bits) * level.entry_bytes


Put = tuple[int, int, int, State, int]

PUT = st.tuples(
    st.integers(0, 6),
    st.sampled_from((0, 1 << 21, 1 << 29, 1 << 39, 0x7F_FFE0_0000)),
    st.integers(0, 0x3FFFFF),
    st.sampled_from((State.PAGE, State.PAGE, State.SPARSE, State.STOP)),
    st.integers(0, 1 << 37),
)


class Model:
    """Entries by level and number; the first on the way from the root decides."""

    def __init__(self, format: Format, puts: list[Put]) -> None:
        self.format = format
        self.tables = HandTables(format)
        self._puts = puts
        self.entries: dict[tuple[int, int], tuple[State, int]] = {}
        for number, base, offset, state, physical in puts:
            number %= len(format.levels)
            if state is not State.PAGE or Aperture.VRAM in format.levels[number].pages:
                self.put(number, base + offset, state, physical)

    def put(self, number: int, va: int, state: State, physical: int) -> None:
        """A page, unless an entry above decides already; or something where neither is anything below."""
        levels = self.format.levels
        above = number - 1 if self.format.paired and number == len(levels) - 1 else number
        if any((n, va >> levels[n].shift) in self.entries for n in range(above)):
            return
        level = levels[number]
        word = {State.SPARSE: level.sparse_word, State.STOP: level.invalid_word or None}.get(state)
        if state is State.PAGE:
            physical &= self.format.address_mask(number, Aperture.VRAM) << self.format.page.address_shift
            word = self.format.pte(number, Aperture.VRAM, physical)
        elif word is None or any(self.tables.get(number, va)):
            return
        self.tables.put(number, va, word)
        self.entries[number, va >> level.shift] = state, physical

    def translate(self, addr: int) -> tuple[State, int, int]:
        """What an address leads to, its physical address, and log2 of the entry's span."""
        for number, level in enumerate(self.format.levels):
            found = self.entries.get((number, addr >> level.shift))
            if found is not None:
                state, physical = found
                if state is State.PAGE:
                    return state, physical + addr % (1 << level.shift), level.shift
                return (state, 0, level.shift) if state is State.SPARSE else (State.INVALID, 0, 0)
        return State.INVALID, 0, 0

    def addresses(self, seed: int) -> list[int]:
        """Where something was put, nearby, and anywhere."""
        numbers = random.Random(seed)
        exact = [base + offset for _, base, offset, _, _ in self._puts]
        near = [base + numbers.randrange(1 << 22) for _, base, _, _, _ in self._puts]
        return exact + near + [numbers.randrange(1 << self.format.va_bits) for _ in range(5)]
