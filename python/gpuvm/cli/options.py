"""What the verbs' command lines have in common."""

from __future__ import annotations

import argparse
import os
import re
import sys
from typing import IO, Any

from gpuvm.trace.errors import TraceError
from gpuvm.trace.requests import parse_number
from gpuvm.va import Merge

EXIT_OK = 0
EXIT_REFUSED = 1
EXIT_INPUT = 2
EXIT_CODES = """\
exit codes: 0 done; 1 refused by the manager, another result of the driver than recorded, traces that
differ, or a result could not be written; 2 wrong usage or an input file that cannot be used (one line on
stderr: FILE:LINE:COLUMN: what); 130 interrupted; 141 the reader of standard output went away. Results go
to stdout, progress and problems to stderr. Colours only on a terminal, never with NO_COLOR set."""

MERGE_NAMES = {merge.name.lower().replace("_", "-"): merge for merge in Merge}

POLICY_NAMES = ("lru", "clock", "farthest")

_DIGITS = re.compile(r"[0-9]{1,20}", re.ASCII)
_SIZE = re.compile(r"([0-9]{1,20})([KMGT]?)", re.ASCII)
_CALLS = re.compile(r"([0-9]{1,18})?(-)?([0-9]{1,18})?", re.ASCII)
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_PAGE = 0x1000
_LARGEST_MEMORY = 1 << 37  # what the address of a page in VRAM has bits for, from Pascal to Ada

Verbs = Any  # argparse's own type of add_subparsers() is private


class OutputError(Exception):
    """A result could not be written; the message names the file and why."""


def add_verb(
    verbs: Verbs, name: str, summary: str, description: str, exit_codes: str = EXIT_CODES, *, example: str
) -> argparse.ArgumentParser:
    """A verb's parser, with help that keeps line breaks and ends with examples and the exit codes.

    Args:
        example: command lines, one a line, each with ``  # `` and what for behind it. They are run by
            tests/test_cli_examples.py in a folder with ``./app``, a program, its recordings ``app.gpuvm`` and
            ``app.jsonl``, an earlier one ``old.gpuvm``, and ``requests.txt``.
    """
    parser: argparse.ArgumentParser = verbs.add_parser(
        name,
        help=summary,
        description=description,
        epilog=f"{_examples(example)}\n\n{exit_codes}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def _examples(example: str) -> str:
    lines = [line.split("  # ") for line in example.splitlines()]
    width = max(len(command) for command, _ in lines)
    head = "example:" if len(lines) == 1 else "examples:"
    return "\n".join([head, *(f"  {command:<{width}}  # {why}" for command, why in lines)])


def add_merge(parser: argparse.ArgumentParser) -> None:
    """``--merge POLICY``."""
    parser.add_argument(
        "--merge",
        choices=tuple(MERGE_NAMES),
        default="never",
        metavar="POLICY",
        help="never (as kernels do today, the default), always or within-region",
    )


def add_client(parser: argparse.ArgumentParser, what: str) -> None:
    """``--client N``."""
    parser.add_argument("--client", type=_whole_number, metavar="N", help=what)


def add_until(parser: argparse.ArgumentParser) -> None:
    """``--until LINE``."""
    parser.add_argument(
        "--until",
        type=_line_number,
        metavar="LINE",
        help="stop after this line of the file, or call of an SQLite trace, counted from 1",
    )


def add_calls(parser: argparse.ArgumentParser, what: str) -> None:
    """``--calls A-B``, a pair; an end that was left out is None."""
    parser.add_argument("--calls", type=_calls, default=(1, None), metavar="A-B", help=what)


def memory_size(text: str) -> int:
    """Bytes of a memory: ``64M``, ``1G`` or ``4096``; as an argument's type.

    Raises:
        ArgumentTypeError: no such size, not whole pages, nothing, or more than 128 GiB.
    """
    match = _SIZE.fullmatch(text)
    if not match:
        raise argparse.ArgumentTypeError(f"expected a size like 64M, 1G or 4096 (bytes), not {text[:40]!r}")
    size = int(match[1]) * _UNITS[match[2]]
    if not 0 < size <= _LARGEST_MEMORY:
        raise argparse.ArgumentTypeError(f"{text} is not between 4K, a page, and 128G")
    if size % _PAGE:
        raise argparse.ArgumentTypeError(f"{text} is not a multiple of 4K, a page")
    return size


def policies(text: str) -> tuple[str, ...]:
    """Names of eviction policies with commas between; as an argument's type.

    Raises:
        ArgumentTypeError: none, an unknown one, or one twice.
    """
    names = tuple(text.split(","))
    for name in names:
        if name not in POLICY_NAMES:
            known = ", ".join(POLICY_NAMES)
            raise argparse.ArgumentTypeError(f"unknown policy {name[:40]!r}: expected {known}")
    if len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"a policy twice in {text!r}")
    return names


def address(text: str) -> int:
    """A u64, decimal or 0x hexadecimal; as an argument's type. Raises ArgumentTypeError for anything else."""
    try:
        return parse_number("", 1, 1, text, "the address")
    except TraceError as error:
        raise argparse.ArgumentTypeError(error.message) from None


def _calls(text: str) -> tuple[int, int | None]:
    match = _CALLS.fullmatch(text)
    if not match or text == "-":
        raise argparse.ArgumentTypeError(f"expected calls like 57, 0-100 or 57-, not {text[:40]!r}")
    first = int(match[1] or 0)
    last = int(match[3]) if match[3] else first if not match[2] else None
    if last is not None and last < first:
        raise argparse.ArgumentTypeError(f"{text} ends before it begins")
    return first, last


def _whole_number(text: str) -> int:
    if not _DIGITS.fullmatch(text):
        raise argparse.ArgumentTypeError(f"expected a whole number of up to 20 digits, not {text[:40]!r}")
    return int(text)


def _line_number(text: str) -> int:
    number = _whole_number(text)
    if number == 0:
        raise argparse.ArgumentTypeError("the first line is 1")
    return number


def coloured(stream: IO[str]) -> bool:
    """Whether to colour: a terminal, and the user did not say no (https://no-color.org)."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and stream.isatty()


def note(message: str) -> None:
    """One line for the person at the terminal; not a result."""
    print(message, file=sys.stderr)
