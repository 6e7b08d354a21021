"""Ranges as ASCII bars, the way the kernel's documentation draws old, request and new.

Every border gets a column; columns are evenly spread, so that a page beside a gibibyte can be seen. Borders
that several rows share stand below one another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

_LABEL_WIDTH = 5
_WIDEST_BAR = 34


@dataclass(frozen=True, slots=True)
class Bar:
    """``[addr, end)`` with text on it; ``fill`` is what the bar is drawn with.

    ``texts`` are tried from the first, which says most, to the last.
    """

    addr: int
    end: int
    texts: tuple[str, ...]
    fill: str = "-"


def draw_rows(rows: Sequence[tuple[str, Sequence[Bar]]]) -> list[str]:
    """Lines of text: for each row its borders' addresses, then its bars after the row's name."""
    columns = _columns([bar for _, bars in rows for bar in bars])
    lines: list[str] = []
    for name, bars in rows:
        borders = sorted({border for bar in bars for border in (bar.addr, bar.end)})
        label = f"{name}:".ljust(_LABEL_WIDTH)
        if not borders:
            lines += ["", f"{label}(nothing)"]
            continue
        lines += [" " * _LABEL_WIDTH + _addresses(borders, columns), label + _bars(bars, columns)]
    return [line.rstrip() for line in lines]


def _columns(bars: Sequence[Bar]) -> dict[int, int]:
    """Where each border stands; wide enough for the addresses, and for texts of unbroken bars."""
    borders = sorted({border for bar in bars for border in (bar.addr, bar.end)})
    columns = dict.fromkeys(borders, 0)
    for left, right in pairwise(borders):
        texts = [bar.texts[0] for bar in bars if (bar.addr, bar.end) == (left, right) and bar.texts]
        longest = max((len(text) + 4 for text in texts), default=0)
        columns[right] = columns[left] + max(len(f"{left:#x}") + 2, min(longest, _WIDEST_BAR), 12)
    return columns


def _addresses(borders: Sequence[int], columns: dict[int, int]) -> str:
    line = ""
    for border in borders:
        line = line.ljust(columns[border]) + f"{border:#x}"
    return line


def _bars(bars: Sequence[Bar], columns: dict[int, int]) -> str:
    line = [" "] * (max(columns.values()) + 1)
    for bar in bars:
        left, right = columns[bar.addr], columns[bar.end]
        room = right - left - 1
        text = next((text for text in bar.texts if len(text) + 2 <= room), "")
        inner = f" {text} ".center(room, bar.fill) if text else bar.fill * room
        line[left : right + 1] = f"|{inner}|"
    return "".join(line)
