"""What the compiled core reads out of tables against the slow walk, whatever is in VRAM."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gpuvm.mem import Aperture
from gpuvm.mmu.formats import FORMATS, Format, PteFlags
from gpuvm.mmu.formats.format import Pointer
from gpuvm.mmu.page_table import PageTable
from gpuvm.mmu.translation import RUN, Fault, Run, RunState, Sparse, Translation, runs_of
from gpuvm.mmu.walk import conclude, walk
from hand_tables import PUT, ROOT, Model, Put
from suite import scaled
from table_memory import ArrayMemory

SIZE = 1 << 18
NO_FLAGS = PteFlags(0)

Words = NDArray[np.uint64]
Garbage = Callable[[Format, np.random.Generator], Words]


class Rooted(ArrayMemory):
    """Table memory that begins with the page behind the first one, where hand tables have their root."""

    def __init__(self, view: NDArray[np.uint8]) -> None:
        super().__init__(view=view)
        self._free.remove(0)


def over(format: Format, content: bytes | bytearray | NDArray[np.uint8]) -> PageTable:
    """A PageTable with the words that it reads replaced behind its back."""
    view = np.zeros(len(content), np.uint8)
    tables = PageTable(format, Rooted(view))
    assert tables.root == ROOT
    view[:] = np.frombuffer(content, np.uint8)
    return tables


def slow_entries(tables: PageTable, addr: int, end: int) -> Iterator[Run]:
    """What each entry says about its part of ``[addr, end)``."""
    while addr < end:
        steps = walk(tables.format, tables.memory.view, tables.root, addr)
        shift = steps[-1].entry.level.shift
        length = min((addr >> shift) + 1 << shift, end) - addr
        found = conclude(addr, steps)
        if isinstance(found, Translation):
            page = found.aperture, found.address, found.kind, found.flags
        else:
            page = Aperture.VRAM, 0, 0, NO_FLAGS
        states = {Translation: RunState.VALID, Sparse: RunState.SPARSE, Fault: RunState.INVALID}
        yield Run(addr, length, states[type(found)], *page)
        addr += length


def slow_runs(tables: PageTable, addr: int, end: int) -> list[Run]:
    """The same, neighbours joined."""
    runs: list[Run] = []
    for run in slow_entries(tables, addr, end):
        if runs:
            last = runs[-1]
            follows = last.address + last.range if last.state is RunState.VALID else 0
            if run == last._replace(va=run.va, range=run.range, address=follows):
                runs[-1] = last._replace(range=last.range + run.range)
                continue
        runs.append(run)
    return runs


def core_runs(tables: PageTable, addr: int, end: int, at_a_time: int) -> list[Run]:
    """Those of the core, asked for a few at a time."""
    array = np.empty(at_a_time, RUN)
    runs: list[Run] = []
    while addr < end:
        count, addr = tables.core.runs(addr, end - addr, array)
        assert count > 0
        runs += runs_of(array[:count])
    return runs


def agree(tables: PageTable, addr: int, length: int) -> None:
    """One address, and those from it on."""
    found = conclude(addr, tables.walk(addr))
    state, number, va, span, word, *_ = tables.core.translate(addr)
    assert state == {Translation: 0, Sparse: 1, Fault: 2}[type(found)]
    assert va <= addr < va + span
    assert tables.translate(addr) == found
    if not isinstance(found, Fault):
        assert (tables.format.levels[number].name, word) == (found.level, found.word)
        assert span == 1 << found.shift
    end = min(addr + length, 1 << tables.format.va_bits)
    runs = slow_runs(tables, addr, end)
    assert list(tables.runs(addr, end - addr)) == runs
    for at_a_time in (1, 2, 3):
        assert core_runs(tables, addr, end, at_a_time) == runs


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
@settings(max_examples=scaled(40, 400), deadline=None)
@given(puts=st.lists(PUT, max_size=30), seed=st.integers(0, 2**32))
def test_tables_made_by_hand(format: Format, puts: list[Put], seed: int) -> None:
    model = Model(format, puts)
    tables = over(format, model.tables.vram)
    numbers = np.random.default_rng(seed)
    for addr in model.addresses(seed):
        agree(tables, addr, int(numbers.integers(1, 1 << 20)))


# Garbage. Of random words hardly any is a pointer that stays in VRAM; so there are others, and the root has
# some in any case.


def random_bytes(_: Format, numbers: np.random.Generator) -> Words:
    return numbers.integers(0, 1 << 64, SIZE // 8, np.uint64)


def pointers(format: Format, numbers: np.random.Generator) -> Words:
    """To tables in VRAM or a little beyond; half of them with any other low bits."""
    words = some_pointers(format.levels[0].pointer, numbers, SIZE // 8)
    other = numbers.integers(0, 2, SIZE // 8) == 0
    words[other] &= ~np.uint64(0xFF)
    words[other] |= numbers.integers(0, 0x100, int(other.sum()), np.uint64)
    return words


def pieces(format: Format, numbers: np.random.Generator) -> Words:
    """Runs of words that some level writes, now and then with a bit turned over."""
    choice = [some_pointers(format.levels[0].pointer, numbers, 40)]
    for number, level in enumerate(format.levels):
        choice.append(np.array([0, level.invalid_word, level.sparse_word or 0], np.uint64))
        choice += [some_pointers(level.small, numbers, 20)] if level.small else []
        for aperture in sorted(level.pages):
            flags = PteFlags(int(numbers.integers(0, 8)))
            word = format.pte(number, aperture, int(numbers.integers(0, 64)) << level.shift, 0, flags)
            choice.append(np.arange(4, dtype=np.uint64) * np.uint64(format.step(number)) + np.uint64(word))
    first = np.concatenate(choice)
    counts = numbers.integers(1, 20, SIZE // 8)
    steps = numbers.choice([0, *map(format.step, range(len(format.levels)))], SIZE // 8).astype(np.uint64)
    words = np.repeat(numbers.choice(first, SIZE // 8), counts)
    words += np.repeat(steps, counts) * np.concatenate([np.arange(n) for n in counts]).astype(np.uint64)
    words = words[: SIZE // 8].copy()
    turned = numbers.integers(0, 50, len(words)) == 0
    words[turned] ^= np.uint64(1) << numbers.integers(0, 64, int(turned.sum()), np.uint64)
    return words


def some_pointers(pointer: Pointer | None, numbers: np.random.Generator, count: int) -> Words:
    assert pointer is not None
    tables = numbers.integers(0, 17 * SIZE // 16 >> 12, count, np.uint64) << np.uint64(12)
    return tables >> np.uint64(pointer.shift) | np.uint64(pointer.constant)


def full_of(garbage: Garbage, format: Format, seed: int) -> PageTable:
    numbers = np.random.default_rng(seed)
    words = garbage(format, numbers)
    root = words[ROOT // 8 : ROOT // 8 + (1 << format.levels[0].bits)]
    kept = numbers.integers(0, 4, len(root)) == 0
    root[:] = np.where(kept, root, some_pointers(format.levels[0].pointer, numbers, len(root)))
    return over(format, words.view(np.uint8))


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("garbage", [random_bytes, pointers, pieces])
@pytest.mark.parametrize("seed", range(scaled(2, 30)))
def test_garbage(format: Format, garbage: Garbage, seed: int) -> None:
    """Never a crash, never a byte outside VRAM, always the same answer."""
    tables = full_of(garbage, format, seed)
    numbers = np.random.default_rng(seed)
    top = 1 << format.va_bits
    for _ in range(scaled(40, 400)):
        addr = int(numbers.integers(0, top)) & -1 << int(numbers.integers(0, 30))
        agree(tables, addr, int(numbers.integers(1, 1 << int(numbers.integers(1, 23)))))
    for addr in (0, top - 1, top - (1 << 16)):
        agree(tables, addr, 1 << 22)


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
def test_garbage_leads_everywhere(format: Format) -> None:
    """The garbage is good enough: all outcomes are met, at every level below the root."""
    met: set[tuple[type, str | None]] = set()
    either: tuple[Garbage, ...] = (pointers, pieces)
    for garbage in either:
        tables = full_of(garbage, format, seed=1)
        for addr in np.random.default_rng(1).integers(0, 1 << format.va_bits, 4000):
            found = tables.translate(int(addr))
            met.add((type(found), found.level))
    last = [level.name for level in format.levels if level.pages]
    assert {(Translation, name) for name in last} <= met
    assert {(Fault, level.name) for level in format.levels[1:]} <= met
    if format.paired:
        assert {(Sparse, level.name) for level in format.levels[1:]} <= met
