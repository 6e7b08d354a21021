"""The slow walk: how one address is translated, step by step, from the bytes in VRAM.

It works on the format alone and knows nothing of who wrote the tables. What the compiled core answers can be
held against it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpuvm.errors import InvalidArgument
from gpuvm.mmu.formats.format import Entry, Format, State
from gpuvm.mmu.translation import Fault, FaultType, Result, Sparse, Translation

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8] | bytearray | bytes | memoryview


@dataclass(frozen=True, slots=True)
class Step:
    """One entry that was read."""

    number: int
    """Of the level in ``Format.levels``."""
    table: int
    """Where its table begins in VRAM."""
    index: int
    """Which of the table's entries it is."""
    entry: Entry


def walk(format: Format, view: Bytes, root: int, addr: int) -> tuple[Step, ...]:
    """Every entry that is read to translate ``addr``, in that order.

    The last one decides: it is a page, sparse, invalid, or has a pointer that cannot be followed. Of a pair
    of tables both are read if that of big pages leaves the decision to the other.

    Args:
        view: VRAM as bytes, of which none are changed.
        root: where the root table begins in it.

    Returns:
        The steps; none if the address is longer than the format's.

    Raises:
        InvalidArgument: the root table does not lie in ``view``.
    """
    size = len(view)
    if not 0 <= root <= size - format.levels[0].table_bytes:
        raise InvalidArgument(
            f"walk: the root table at {root:#x} leaves VRAM of {size:#x} bytes", value=root, bound=size
        )
    steps: list[Step] = []
    if not 0 <= addr < 1 << format.va_bits:
        return ()
    # Tables to look into: that of small pages waits until that of big pages has left the decision to it.
    ways: list[tuple[int, int | None, bool]] = [(0, root, True)]
    while ways:
        number, table, in_vram = ways.pop(0)
        if table is None:
            continue
        if not in_vram or table + format.levels[number].table_bytes > size:
            break
        step = _read(format, view, number, table, addr)
        steps.append(step)
        entry = step.entry
        if entry.state is State.TABLE:
            small = len(format.levels) - 1
            ways = [(number + 1, entry.table, entry.table_in_vram), (small, entry.small, entry.small_in_vram)]
        elif entry.state is not State.INVALID:
            break
    return tuple(steps)


def conclude(addr: int, steps: tuple[Step, ...]) -> Result:
    """What the steps of a walk for ``addr`` come to."""
    if not steps:
        return Fault(addr, FaultType.VA_LIMIT_VIOLATION, None, 0)
    entry = steps[-1].entry
    level, word = entry.level, entry.words[0]
    if entry.state is State.PAGE:
        flags = entry.flags
        for step in steps[:-1]:
            flags |= step.entry.flags
        address = entry.address | addr & (1 << level.shift) - 1
        return Translation(addr, entry.aperture, address, level.shift, entry.kind, flags, level.name, word)
    if entry.state is State.SPARSE:
        return Sparse(addr, level.shift, level.name, word)
    if entry.state is State.TABLE and entry.table is not None:
        return _unreachable(addr, entry, word, entry.table_in_vram)
    if entry.state is State.TABLE:
        return _unreachable(addr, entry, entry.words[1], entry.small_in_vram)
    above = steps[-2].entry if len(steps) > 1 else entry
    if entry.state is State.INVALID and above.table is not None and above.small is not None:
        return _unreachable(addr, above, above.words[1], above.small_in_vram)
    return Fault(addr, FaultType.PTE if level.pointer is None else FaultType.PDE, level.name, word)


def translate(format: Format, view: Bytes, root: int, addr: int) -> Result:
    """Where ``addr`` leads, by the slow walk. Arguments and errors are those of ``walk``."""
    return conclude(addr, walk(format, view, root, addr))


def _read(format: Format, view: Bytes, number: int, table: int, addr: int) -> Step:
    """The entry for ``addr`` in a table."""
    level = format.levels[number]
    index = addr >> level.shift & (1 << level.bits) - 1
    at = table + index * level.entry_bytes
    words = struct.unpack(f"<{level.entry_bytes // 8}Q", bytes(view[at : at + level.entry_bytes]))
    return Step(number, table, index, format.decode(number, words))


def _unreachable(addr: int, entry: Entry, word: int, in_vram: bool) -> Fault:
    """The table below is in another aperture, or beyond the end of VRAM."""
    reason = FaultType.PDE if in_vram else FaultType.UNSUPPORTED_APERTURE
    return Fault(addr, reason, entry.level.name, word)
