"""Suppressions: findings that somebody has looked at, and does not want to be told again.

A line each, in a file that lies beside the program:

    # leak-at-exit of the loader, which opens a device and leaves it
    leak-at-exit client=1                            # known, the loader's
    use-after-unmap addr=0x100000-0x200000           # a trap page
    bind-changes-nothing client=2 calls=40-90        # start-up, happens once

A rule, of which client, what touches the addresses (the end is exclusive), which of its calls is one of these
(both included), and behind ``#`` why. All that is said has to hold.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from gpuvm.report.findings import Finding
from gpuvm.trace.errors import TraceError
from gpuvm.trace.requests import parse_number

_WORD: Final = re.compile(r"\S+")


@dataclass(frozen=True, slots=True)
class Suppression:
    """One line. None: whatever it is."""

    line: int
    text: str
    """As written, without the reason."""
    rule: str
    client: int | None
    addr: tuple[int, int] | None
    calls: tuple[int, int] | None

    def matches(self, finding: Finding) -> bool:
        """Whether it means this one."""
        if finding.rule != self.rule or self.client not in (None, finding.client):
            return False
        if self.addr is not None:
            if finding.addr is None or finding.end is None:
                return False
            if finding.end <= self.addr[0] or self.addr[1] <= finding.addr:
                return False
        if self.calls is None:
            return True
        first, last = self.calls
        return any(first <= role.call <= last for role in finding.calls)


def read_suppressions(
    name: str, lines: Iterable[tuple[int, str]], rules: Collection[str]
) -> list[Suppression]:
    """Those of a file, in order. Blank lines and comments are passed over.

    Args:
        name: the file, for messages.
        lines: with their numbers.
        rules: the ids that there are.

    Raises:
        TraceError: at the first line that is none, with its column.
    """
    found = []
    for number, line in lines:
        text, hash_, reason = line.partition("#")
        if not text.strip():
            continue
        if not hash_ or not reason.strip():
            raise TraceError(
                name, "say behind a # why it is suppressed", line=number, column=len(line.rstrip()) + 1
            )
        found.append(_Line(name, number, text).suppression(rules))
    return found


class _Line:
    def __init__(self, name: str, number: int, text: str) -> None:
        self.name = name
        self.number = number
        self.text = text

    def suppression(self, rules: Collection[str]) -> Suppression:
        words = [(match.start() + 1, match.group()) for match in _WORD.finditer(self.text)]
        column, rule = words[0]
        if rule not in rules:
            raise self.error(column, f"no rule {rule[:40]!r}: gpuvm check --rules lists them")
        said: dict[str, tuple[int, str]] = {}
        for column, word in words[1:]:
            key, equals, value = word.partition("=")
            if key not in ("client", "addr", "calls") or not equals or key in said:
                raise self.error(column, f"{word[:40]!r} is not one of client=N, addr=A-B and calls=A-B")
            said[key] = column + len(key) + 1, value
        client = self.number_of(*said["client"], "the client") if "client" in said else None
        addr, calls = self.pair(said, "addr"), self.pair(said, "calls")
        return Suppression(self.number, self.text.strip(), rule, client, addr, calls)

    def pair(self, said: dict[str, tuple[int, str]], key: str) -> tuple[int, int] | None:
        if key not in said:
            return None
        column, value = said[key]
        first, dash, last = value.partition("-")
        if not dash:
            raise self.error(column, f"{key} is two numbers with a dash between, not {value[:40]!r}")
        both = self.number_of(column, first, key), self.number_of(column + len(first) + 1, last, key)
        if both[1] < both[0]:
            raise self.error(column, f"{key} ends before it begins: {value[:40]}")
        return both

    def number_of(self, column: int, word: str, what: str) -> int:
        return parse_number(self.name, self.number, column, word, what)

    def error(self, column: int, message: str) -> TraceError:
        return TraceError(self.name, message, line=self.number, column=column)
