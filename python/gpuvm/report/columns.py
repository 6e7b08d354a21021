"""Numbers side by side: one column a subject, one row a number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_WIDTH = 14


def bold(text: str, colour: bool) -> str:
    """The text, bold by ANSI escapes if ``colour``."""
    return f"\x1b[1m{text}\x1b[0m" if colour else text


def side_by_side(heads: Sequence[str], columns: Sequence[Mapping[str, str]], *, colour: bool) -> list[str]:
    """Lines: the heads, then a row for each key of the columns, which all have the same in one order."""
    labels = list(columns[0])
    width = max(len(label) for label in labels) + 2
    head = " " * width + "".join(one.rjust(_WIDTH) for one in heads)
    rows = (label.ljust(width) + "".join(one[label].rjust(_WIDTH) for one in columns) for label in labels)
    return [bold(head, colour), *rows]
