"""Where in a JSON text a value stands. Only used once something is wrong, so it may be slow."""

from __future__ import annotations

import json
import re

_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


def column_of(text: str, path: tuple[str | int, ...]) -> int:
    """The 1-based column of the value that ``path`` (keys and list indexes) leads to in valid JSON.

    Where the path ends early (a missing key), the column of the innermost value that exists.
    """
    at = _skip(text, 0)
    for step in path:
        inner = _member(text, at, step) if text[at] == "{" else _element(text, at, step)
        if inner is None:
            break
        at = inner
    return at + 1


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _after_value(text: str, at: int) -> int:
    return _skip(text, _DECODER.raw_decode(text, at)[1])


def _member(text: str, at: int, key: str | int) -> int | None:
    # The last of equal keys is the one that json.loads() takes.
    found = None
    at = _skip(text, at + 1)
    while text[at] != "}":
        name, end = _DECODER.raw_decode(text, at)
        at = _skip(text, _skip(text, end) + 1)
        if name == key:
            found = at
        at = _after_value(text, at)
        if text[at] == ",":
            at = _skip(text, at + 1)
    return found


def _element(text: str, at: int, index: str | int) -> int | None:
    if text[at] != "[" or not isinstance(index, int):
        return None
    at = _skip(text, at + 1)
    for _ in range(index):
        if text[at] == "]":
            return None
        at = _after_value(text, at)
        if text[at] == ",":
            at = _skip(text, at + 1)
    return None if text[at] == "]" else at
