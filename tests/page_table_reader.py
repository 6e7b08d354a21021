"""A reader of gp100 tables of its own, from the document alone; and a process that reads all the time.

Run as a program, it maps the file that the tables are in and walks addresses that must always lead to the
same bytes, while another process changes how they are mapped there:

    page_table_reader.py FD ROOT VA ADDRESS VA ADDRESS ...
"""

from __future__ import annotations

import mmap
import sys

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]

PROGRESS, STEP, STOP = -1, -2, -3
"""Last words of the file: walks so far, steps of the other process, and whether to end."""


def words_of(fd: int) -> Words:
    return np.frombuffer(mmap.mmap(fd, 0), np.uint64)


def walk(words: Words, root: int, va: int) -> tuple[list[tuple[int, int]], str | int]:
    """The words that were read, as (place, word), and a page's address, or what else there is."""
    seen: list[tuple[int, int]] = []

    def read(table: int, index: int) -> int:
        place = table // 8 + index
        seen.append((place, int(words[place])))
        return seen[-1][1]

    def address(word: int, size: int) -> int:
        return (word >> 8 & 0x1FFFFFF) << 12 & -size

    table = root
    for shift, bits in ((47, 2), (38, 9), (29, 9)):
        word = read(table, va >> shift & (1 << bits) - 1)
        if not word & 6:
            return seen, "sparse" if word & 8 else "invalid"
        table = (word >> 8 & 0x3FFFFFFFFFFF) << 12
    pair = va >> 21 & 0xFF
    low, high = read(table, 2 * pair), read(table, 2 * pair + 1)
    if low & 1:
        return seen, address(low, 1 << 21) | va & 0x1FFFFF
    if low & 6:
        word = read((low >> 4 & 0x3FFFFFFFFFFFF) << 8, va >> 16 & 0x1F)
        if word & 1:
            return seen, address(word, 1 << 16) | va & 0xFFFF
        if word & 0x28:
            return seen, "sparse" if word & 8 else "invalid"
    if high & 6:
        word = read((high >> 8 & 0x3FFFFFFFFFFF) << 12, va >> 12 & 0x1FF)
        if word & 1:
            return seen, address(word, 1 << 12) | va & 0xFFF
        return seen, "sparse" if word & 8 else "invalid"
    return seen, "sparse" if low & 8 and not low & 6 else "invalid"


def is_stale(words: Words, seen: list[tuple[int, int]], step: int) -> bool:
    """Whether the walk went astray: what it read on the way is another by now.

    Hardware is kept from such walks by flushes. A word is the same again, at the earliest, when what it led
    to was taken away and came back, which takes four steps.
    """
    return int(words[STEP]) > step + 2 or any(int(words[place]) != word for place, word in seen[:-1])


def observe(words: Words, root: int, expected: dict[int, int]) -> str | None:
    """Walk until told to stop; the first gap in words."""
    while not words[STOP]:
        for va, address in expected.items():
            step = int(words[STEP])
            seen, found = walk(words, root, va)
            if found != address and not is_stale(words, seen, step):
                read = ", ".join(f"{place * 8:#x}: {word:#x}" for place, word in seen)
                return f"{va:#x} leads to {found!r} instead of {address:#x} at step {step}; read {read}"
        words[PROGRESS] += np.uint64(1)
    return None


if __name__ == "__main__":
    numbers = [int(argument, 0) for argument in sys.argv[1:]]
    gap = observe(words_of(numbers[0]), numbers[1], dict(zip(numbers[2::2], numbers[3::2], strict=True)))
    if gap is not None:
        sys.exit(gap)
