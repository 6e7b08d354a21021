"""The request language: one request a line, words and numbers, units arbitrary.

    init START RANGE KSTART KRANGE   a new address space; KRANGE 0: no kernel-reserved node
    map ADDR RANGE BO OFFSET         sm_map, then the plan is applied; BO 0: no object
    unmap ADDR RANGE                 sm_unmap, then applied
    prefetch ADDR RANGE              nothing changes
    insert ADDR RANGE BO OFFSET      insert without splitting
    find ADDR RANGE                  the mapping that is exactly this range
    find_first ADDR RANGE            the lowest that overlaps
    find_prev ADDR                   the one that ends at ADDR
    find_next ADDR                   the one that begins at ADDR
    valid ADDR RANGE                 may this range be mapped at all
    empty ADDR RANGE                 does nothing overlap it
    dump                             every mapping
    region ADDR RANGE [sparse]       a VA region (an extension of ours)

Numbers are decimal or 0x hexadecimal, u64. A ``#`` begins a comment; blank lines are passed over. A line
may also be a JSON object with the request in ``in``, as recorded answers have it; its ``seq``, ``req`` and
``class`` are kept then.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from gpuvm.trace.call_fields import U64_MAX
from gpuvm.trace.errors import TraceError
from gpuvm.trace.jsonl import load_json
from gpuvm.trace.position import column_of

ARGUMENTS = {
    "init": ("START", "RANGE", "KSTART", "KRANGE"),
    "map": ("ADDR", "RANGE", "BO", "OFFSET"),
    "unmap": ("ADDR", "RANGE"),
    "prefetch": ("ADDR", "RANGE"),
    "insert": ("ADDR", "RANGE", "BO", "OFFSET"),
    "find": ("ADDR", "RANGE"),
    "find_first": ("ADDR", "RANGE"),
    "find_prev": ("ADDR",),
    "find_next": ("ADDR",),
    "valid": ("ADDR", "RANGE"),
    "empty": ("ADDR", "RANGE"),
    "dump": (),
    "region": ("ADDR", "RANGE"),
}

_NUMBER = re.compile(r"0[xX][0-9a-fA-F]+|[0-9]+", re.ASCII)
_WORD = re.compile(r"\S+")
# 2^64 - 1 has 20 decimal digits; longer ones need not be converted to be refused.
_LONGEST_NUMBER = 64


@dataclass(frozen=True, slots=True)
class Request:
    """One request.

    Attributes:
        line: where it stands, from 1.
        text: as written, without comment.
        verb: a key of `ARGUMENTS`.
        numbers: as many as the verb takes.
        sparse: the region is sparse.
        seq, req, label: from a JSON line, None otherwise (``label`` is its ``class``).
    """

    line: int
    text: str
    verb: str
    numbers: tuple[int, ...]
    sparse: bool = False
    seq: int | None = None
    req: int | None = None
    label: str | None = None


def parse_number(name: str, line: int, column: int, word: str, what: str) -> int:
    """A u64, decimal or 0x hexadecimal.

    Raises:
        TraceError: negative, above 2^64-1 or not a number.
    """
    shown = word if len(word) <= 40 else f"{word[:37]}..."
    if not _NUMBER.fullmatch(word):
        negative = word.startswith("-") and _NUMBER.fullmatch(word[1:])
        message = f"{what} is negative: {shown}" if negative else f"{what} is not a number: {shown!r}"
        raise TraceError(name, message, line=line, column=column)
    digits = word.lower().removeprefix("0x").lstrip("0")
    base = 16 if word[:2].lower() == "0x" else 10
    number = int(digits or "0", base) if len(digits) <= _LONGEST_NUMBER else U64_MAX + 1
    if number > U64_MAX:
        raise TraceError(name, f"{what} is above 2^64-1: {shown}", line=line, column=column)
    return number


def parse_request(name: str, line: int, text: str, *, column: int = 1) -> Request | None:
    """One line of the language; None for a blank line or a comment.

    Args:
        name: the file, for messages.
        column: where ``text`` begins in its line.

    Raises:
        TraceError: an unknown verb, too few or too many arguments, a bad number.
    """
    code = text.split("#", 1)[0]
    words = [(column + match.start(), match.group()) for match in _WORD.finditer(code)]
    if not words:
        return None
    at, verb = words[0]
    if verb not in ARGUMENTS:
        known = ", ".join(ARGUMENTS)
        raise TraceError(name, f"unknown request {verb[:40]!r}: expected {known}", line=line, column=at)
    arguments = ARGUMENTS[verb]
    given = words[1:]
    sparse = verb == "region" and len(given) == 3 and given[2][1] == "sparse"
    if sparse:
        given.pop()
    if len(given) != len(arguments):
        usage = " ".join((verb, *arguments)) + (" [sparse]" if verb == "region" else "")
        at = given[len(arguments)][0] if len(given) > len(arguments) else column + len(code.rstrip())
        message = f"{verb} takes {len(arguments)} numbers, not {len(given)}: {usage}"
        raise TraceError(name, message, line=line, column=at)
    numbers = tuple(
        parse_number(name, line, at, word, what) for (at, word), what in zip(given, arguments, strict=True)
    )
    return Request(line, code.strip(), verb, numbers, sparse)


def read_requests(name: str, lines: Iterable[tuple[int, str]]) -> Iterator[Request]:
    """The requests of a file, in order, bare and JSON lines alike.

    Raises:
        TraceError: at the first line that is neither.
    """
    for number, text in lines:
        if text.lstrip().startswith("{"):
            yield _from_json(name, number, text)
        elif (request := parse_request(name, number, text)) is not None:
            yield request


def _from_json(name: str, line: int, text: str) -> Request:
    value = load_json(name, line, text)
    inner = value.get("in")
    if type(inner) is not str:
        message = '"in" is missing or no text: expected a request such as "map 0x1000 4096 1 0"'
        raise TraceError(name, message, line=line, column=column_of(text, ("in",)))
    # Columns inside the string are right as long as nothing before them is escaped.
    request = parse_request(name, line, inner, column=column_of(text, ("in",)) + 1)
    if request is None:
        raise TraceError(name, '"in" holds no request', line=line, column=column_of(text, ("in",)))
    for field in ("seq", "req"):
        number = value.get(field, 0)
        if type(number) is not int or number < 0:
            message = f'"{field}" is not a whole number'
            raise TraceError(name, message, line=line, column=column_of(text, (field,)))
    label = value.get("class")
    return Request(
        line,
        inner,
        request.verb,
        request.numbers,
        request.sparse,
        value.get("seq"),
        value.get("req"),
        label if type(label) is str else None,
    )


def parse_explained(text: str) -> tuple[str, int, int, int, int]:
    """A request as `gpuvm explain` takes it: ``(verb, addr, range, bo, offset)``.

    ``map ADDR RANGE [bo=N] [off=BYTES]``, ``unmap ADDR RANGE`` or ``prefetch ADDR RANGE``.

    Raises:
        TraceError: anything else; the request counts as line 1 of a file called ``<request>``.
    """
    name = "<request>"
    words = [(match.start() + 1, match.group()) for match in _WORD.finditer(text)]
    verb = words[0][1] if words else ""
    if verb not in ("map", "unmap", "prefetch"):
        message = f"expected map, unmap or prefetch, not {verb[:40]!r}"
        raise TraceError(name, message, line=1, column=words[0][0] if words else 1)
    plain = [(at, word) for at, word in words[1:] if "=" not in word]
    named = [(at, word) for at, word in words[1:] if "=" in word]
    usage = "map ADDR RANGE [bo=N] [off=BYTES]" if verb == "map" else f"{verb} ADDR RANGE"
    if len(plain) != 2:
        at = plain[2][0] if len(plain) > 2 else len(text.rstrip()) + 1
        raise TraceError(name, f"{verb} takes 2 numbers, not {len(plain)}: {usage}", line=1, column=at)
    addr = parse_number(name, 1, *plain[0], "ADDR")
    extent = parse_number(name, 1, *plain[1], "RANGE")
    values = {"bo": 0, "off": 0}
    for at, word in named:
        key, _, value = word.partition("=")
        if key not in values or verb != "map":
            raise TraceError(name, f"unknown {key[:40]!r}: {usage}", line=1, column=at)
        values[key] = parse_number(name, 1, at + len(key) + 1, value, key)
    return verb, addr, extent, values["bo"], values["off"]
