"""What a shell has to know of the command line: verbs, options, and what their values are."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final


class Kind(Enum):
    """What a value is, as far as a shell can offer some."""

    NOTHING = auto()
    """A number, a request: only the user knows."""
    WORDS = auto()
    FILE = auto()
    TRACE = auto()
    """A trace or a request file."""
    FOLDER = auto()
    PROGRAM = auto()
    """A program and its arguments, which end the options."""
    TRACE_OR_PROGRAM = auto()
    """A trace, or ``--`` and a program."""


@dataclass(frozen=True, slots=True)
class Value:
    """One value. ``words`` are all that there are, of `Kind.WORDS`."""

    kind: Kind
    name: str
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Option:
    """An option by all its names, the short one first; ``value`` None: it has none."""

    names: tuple[str, ...]
    help: str
    value: Value | None
    repeated: bool


@dataclass(frozen=True, slots=True)
class Verb:
    """One verb; ``operands`` are its values without option, in their order."""

    name: str
    help: str
    options: tuple[Option, ...]
    operands: tuple[Value, ...]

    @property
    def has_program(self) -> bool:
        """Options end where its program begins."""
        return any(one.kind in (Kind.PROGRAM, Kind.TRACE_OR_PROGRAM) for one in self.operands)


def _rules() -> tuple[str, ...]:
    from gpuvm.report.rules import RULES

    return tuple(rule.id for rule in RULES)


def _calls() -> tuple[str, ...]:
    from gpuvm.trace.call_numbers import NUMBERS

    return tuple(sorted(NUMBERS))


_OPERANDS: Final = {
    "FILE": Kind.TRACE,
    "TRACE": Kind.TRACE,
    "A": Kind.TRACE,
    "B": Kind.TRACE,
    "REQUEST": Kind.NOTHING,
    "ADDR": Kind.NOTHING,
    "QUERY": Kind.NOTHING,
    "PROGRAM ARG...": Kind.PROGRAM,
    "TRACE, or PROGRAM ARG...": Kind.TRACE_OR_PROGRAM,
    "SHELL": Kind.WORDS,
}
_OPTIONS: Final = {
    "FILE": Kind.FILE,
    "TRACE": Kind.FILE,
    "OUT": Kind.FILE,
    "OUT.svg": Kind.FILE,
    "OUT.html": Kind.FILE,
    "DIR": Kind.FOLDER,
    "A": Kind.NOTHING,
    "A-B": Kind.NOTHING,
    "CALL": Kind.NOTHING,
    "LINE": Kind.NOTHING,
    "N": Kind.NOTHING,
    "SIZE": Kind.NOTHING,
}
"""By metavar."""
_WORDS: Final[dict[str, Callable[[], tuple[str, ...]]]] = {
    "--chipset": lambda: ("turing", "ampere"),
    "--policy": lambda: ("lru", "clock", "farthest"),
    "--call": _calls,
    "--ignore": _rules,
    "--explain": _rules,
}
_NAMES_OF_TABLES: Final = "--table"


def verbs_of(parser: argparse.ArgumentParser) -> tuple[Verb, ...]:
    """All verbs, in the order of ``--help``.

    Raises:
        KeyError: a new metavar; it needs a place in the tables above.
    """
    (action,) = (one for one in parser._actions if isinstance(one, argparse._SubParsersAction))
    summaries = {one.dest: one.help or "" for one in action._choices_actions}
    return tuple(_verb(name, summaries[name], verb) for name, verb in action.choices.items())


def _verb(name: str, summary: str, parser: argparse.ArgumentParser) -> Verb:
    options = tuple(_option(one) for one in parser._actions if one.option_strings)
    operands = tuple(_operand(one) for one in parser._actions if not one.option_strings)
    return Verb(name, summary, options, operands)


def _option(action: argparse.Action) -> Option:
    names = tuple(action.option_strings)
    repeated = isinstance(action, argparse._AppendAction)
    summary = "" if action.help in (None, argparse.SUPPRESS) else str(action.help)
    if action.nargs == 0:
        return Option(names, summary, None, repeated)
    return Option(names, summary, _value(action, names[-1]), repeated)


def _value(action: argparse.Action, name: str) -> Value:
    shown = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    if action.choices is not None:
        return Value(Kind.WORDS, shown, tuple(map(str, action.choices)))
    if name in _WORDS:
        return Value(Kind.WORDS, shown, _WORDS[name]())
    if name == _NAMES_OF_TABLES:
        return Value(Kind.WORDS, shown, _tables())
    return Value(_OPTIONS[shown], shown)


def _operand(action: argparse.Action) -> Value:
    shown = str(action.metavar)
    words = () if action.choices is None else tuple(map(str, action.choices))
    return Value(_OPERANDS[shown], shown, words)


def _tables() -> tuple[str, ...]:
    import re
    from importlib import resources

    schema = resources.files("gpuvm.trace").joinpath("schema.sql").read_text(encoding="utf-8")
    return tuple(re.findall(r"^CREATE (?:TABLE|VIEW) (\w+)", schema, re.MULTILINE))
