"""Page tables as a tree, folded: entries that continue each other are one line; and what they take."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from gpuvm.mem.aperture import Aperture
from gpuvm.mmu.formats import Entry, Level, State
from gpuvm.mmu.page_table_statistics import Table
from gpuvm.report.columns import bold
from gpuvm.report.sizes import size_text
from gpuvm.report.walk import flag_words, place
from gpuvm.trace.memory_snapshot import MemorySnapshot
from gpuvm.va import Gpuva

_HEADS = ("level", "tables", "bytes", "entries", "in use", "pages", "sparse")


@dataclass(frozen=True, slots=True)
class EntryRun:
    """Neighbouring entries of one table that are alike: pages that continue each other, or sparse.

    Attributes:
        first: index of the first entry.
        count: how many.
        va: the first address that they translate.
        entry: the first of them, decoded.
        number: of the object that the pages show; None for sparse ones, and for pages that nothing maps.
        offset: where in the object.
    """

    first: int
    count: int
    va: int
    entry: Entry
    number: int | None = None
    offset: int = 0


@dataclass(frozen=True, slots=True)
class LevelCounts:
    """What is at one level.

    Attributes:
        tables: how many.
        used: entries of them that map a page, are sparse, or point to a table.
        pages, sparse: entries.
    """

    level: Level
    tables: int
    used: int
    pages: int
    sparse: int

    @property
    def bytes(self) -> int:
        """What the tables take."""
        return self.tables * self.level.table_bytes

    @property
    def waste(self) -> int:
        """Bytes of them that hold no entry in use."""
        return self.bytes - self.used * self.level.entry_bytes

    def row(self) -> tuple[str, ...]:
        """A line of the table at the end."""
        counts = (self.tables << self.level.bits, self.used, self.pages, self.sparse)
        return (
            self.level.name,
            f"{self.tables:,}",
            size_text(self.bytes),
            *(f"{count:,}" for count in counts),
        )

    def document(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "level": self.level.name,
            "spans": 1 << self.level.shift,
            "tables": self.tables,
            "bytes": self.bytes,
            "used": self.used,
            "pages": self.pages,
            "sparse": self.sparse,
            "waste": self.waste,
        }


class Tree:
    """All tables of one space, as the words in VRAM have them.

    Attributes:
        space: whose they are.
        runs: pages and sparse entries of each table of ``PageTable.tables()``, in order.
    """

    def __init__(self, space: MemorySnapshot) -> None:
        self.space = space
        self._tables = space.page_table.tables()
        self._format = space.page_table.format
        self._below: dict[int, list[int]] = {}
        for position, table in enumerate(self._tables):
            if table.parent is not None:
                self._below.setdefault(table.parent, []).append(position)
        self._mappings = [va for va in space.vm.mappings() if not va.kernel]
        self._starts = [va.addr for va in self._mappings]
        self.runs = [tuple(self._fold(table)) for table in self._tables]

    # -- text

    def text(self, *, colour: bool = False) -> list[str]:
        """Lines: the tree, each table below the entry that points to it; then the statistics."""
        title = f"{self.space.title}, {self._format.name}"
        return [bold(title, colour), "", *self._table_lines(0, ""), "", *self._statistics(colour)]

    def _table_lines(self, position: int, indent: str) -> Iterator[str]:
        table = self._tables[position]
        level = self._format.levels[table.level]
        used = f"{self._used(position)} of {1 << level.bits} entries"
        yield f"{indent}{level.name} {place(Aperture.VRAM, table.addr)}, {used}"
        yield from self._content(position, level, indent + "  ")

    def _content(self, position: int, level: Level, indent: str) -> Iterator[str]:
        """Runs and the tables below, in the order of their addresses."""
        below = self._below.get(position, [])
        tables = [(self._tables[child].va, child) for child in below]
        runs = list(self.runs[position])
        for va, child in tables:
            while runs and runs[0].va <= va:
                yield self._run_line(runs.pop(0), level, indent)
            index = va >> level.shift & (1 << level.bits) - 1
            lines = self._table_lines(child, indent)
            yield f"{indent}[{index}] {va:#x}: {next(lines).strip()}"
            yield from lines
        for run in runs:
            yield self._run_line(run, level, indent)

    def _run_line(self, run: EntryRun, level: Level, indent: str) -> str:
        last = f"-{run.first + run.count - 1}" if run.count > 1 else ""
        size = size_text(1 << level.shift)
        many = f"{run.count} x {size}" if run.count > 1 else size
        head = f"{indent}[{run.first}{last}] {run.va:#x}: {many}"
        if run.entry.state is State.SPARSE:
            return f"{head} sparse"
        kind = f", kind {run.entry.kind:#x}" if run.entry.kind else ""
        where = place(run.entry.aperture, run.entry.address)
        return f"{head} at {where}{kind}{flag_words(run.entry.flags)}, {self._what(run)}"

    def _what(self, run: EntryRun) -> str:
        if run.number is None:
            return "not mapped"
        word = "bo" if self.space.client is None else "handle"
        return f"{word} {run.number} + {run.offset:#x}"

    # -- entries

    def _fold(self, table: Table) -> Iterator[EntryRun]:
        level = self._format.levels[table.level]
        run: EntryRun | None = None
        for index, entry in self._entries(table, level):
            following = self._found(table, level, index, entry)
            if run is not None and _continues(run, following):
                run = replace(run, count=run.count + 1)
                continue
            if run is not None:
                yield run
            run = following
        if run is not None:
            yield run

    def _entries(self, table: Table, level: Level) -> Iterator[tuple[int, Entry]]:
        """Pages and sparse entries, with their indexes."""
        raw = self.space.device.vram.view[table.addr : table.addr + level.table_bytes]
        words = raw.view("<u8").reshape(-1, level.entry_bytes // 8).tolist()
        empty = [[0] * len(words[0]), [level.invalid_word, *[0] * (len(words[0]) - 1)]]
        for index, entry_words in enumerate(words[: 1 << level.bits]):
            if entry_words in empty:
                continue
            entry = self._format.decode(table.level, entry_words)
            if entry.state in (State.PAGE, State.SPARSE):
                yield index, entry

    def _found(self, table: Table, level: Level, index: int, entry: Entry) -> EntryRun:
        va = table.va + (index << level.shift)
        mapping = self._mapping_at(va) if entry.state is State.PAGE else None
        if mapping is None:
            return EntryRun(index, 1, va, entry)
        number = self.space.number_of(mapping.obj)
        return EntryRun(index, 1, va, entry, number, va - mapping.addr + mapping.offset)

    def _mapping_at(self, va: int) -> Gpuva | None:
        index = bisect_right(self._starts, va) - 1
        if index < 0 or self._mappings[index].end <= va:
            return None
        return self._mappings[index]

    # -- statistics

    def levels(self) -> list[LevelCounts]:
        """What the words of each level come to, root first."""
        return [self._level_counts(number, level) for number, level in enumerate(self._format.levels)]

    def _level_counts(self, number: int, level: Level) -> LevelCounts:
        tables = [position for position, table in enumerate(self._tables) if table.level == number]
        counts = dict.fromkeys(State, 0)
        for position in tables:
            for run in self.runs[position]:
                counts[run.entry.state] += run.count
        return LevelCounts(
            level, len(tables), sum(map(self._used, tables)), counts[State.PAGE], counts[State.SPARSE]
        )

    def _used(self, position: int) -> int:
        """Entries of a table that map a page, are sparse, or point to a table; those of two tables once."""
        level = self._format.levels[self._tables[position].level]
        used = {self._tables[child].va >> level.shift for child in self._below.get(position, ())}
        for run in self.runs[position]:
            first = run.va >> level.shift
            used.update(range(first, first + run.count))
        return len(used)

    def _statistics(self, colour: bool) -> list[str]:
        levels = self.levels()
        rows = [_HEADS, *(one.row() for one in levels)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADS))]
        lines = [
            row[0].ljust(widths[0])
            + "".join(cell.rjust(width + 3) for cell, width in zip(row[1:], widths[1:], strict=True))
            for row in rows
        ]
        sizes = ", ".join(
            f"{one.pages:,} of {size_text(1 << one.level.shift)}" for one in levels if one.level.pages
        )
        waste = sum(one.waste for one in levels)
        share = waste / sum(one.bytes for one in levels)
        notes = [
            f"pages: {sizes}",
            f"waste: {size_text(waste)} of the tables, {share:.1%}, hold no entry in use",
        ]
        if left_out := self.space.kinds_left_out:
            kinds = ", ".join(map(hex, left_out))
            notes.append(f"kinds: {self._format.name} does not have {kinds}; such pages are plain here")
        return [bold(lines[0], colour), *lines[1:], "", *notes]

    # -- data

    def document(self) -> dict[str, Any]:
        """The same as JSON values: every table with its runs, raw words as text."""
        return {
            "file": self.space.name,
            "line": self.space.line,
            "client": self.space.client,
            "format": self._format.name,
            "tables": [self._table_json(position) for position in range(len(self._tables))],
            "levels": [one.document() for one in self.levels()],
            "kinds_left_out": list(self.space.kinds_left_out),
        }

    def _table_json(self, position: int) -> dict[str, Any]:
        table = self._tables[position]
        return {
            "level": self._format.levels[table.level].name,
            "va": table.va,
            "address": table.addr,
            "parent": table.parent,
            "used": self._used(position),
            "runs": [_run_json(run) for run in self.runs[position]],
        }


def _continues(run: EntryRun, following: EntryRun) -> bool:
    """Whether ``following`` is the next entry of the same kind, of the same object and memory."""
    one, other = run.entry, following.entry
    if following.first != run.first + run.count or one.state is not other.state:
        return False
    if one.state is State.SPARSE:
        return True
    far = run.count << one.level.shift
    return (
        (one.aperture, one.kind, one.flags) == (other.aperture, other.kind, other.flags)
        and other.address == one.address + far
        and (following.number, following.offset)
        == (run.number, run.offset + far if run.number is not None else 0)
    )


def _run_json(run: EntryRun) -> dict[str, Any]:
    entry = run.entry
    document: dict[str, Any] = {
        "first": run.first,
        "count": run.count,
        "va": run.va,
        "words": [f"0x{word:016x}" for word in entry.words],
        "state": entry.state.value,
    }
    if entry.state is State.PAGE:
        document |= {"aperture": entry.aperture.name.lower(), "address": entry.address, "kind": entry.kind}
        document |= {"object": run.number, "offset": run.offset}
    return document
