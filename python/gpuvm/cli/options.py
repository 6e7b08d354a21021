"""What the verbs' command lines have in common."""

from __future__ import annotations

import argparse
import os
import re
import sys
from typing import IO, Any

from gpuvm.va import Merge

EXIT_OK = 0
EXIT_REFUSED = 1
EXIT_INPUT = 2
EXIT_CODES = """\
exit codes: 0 done; 1 refused by the manager, or a result could not be written; 2 wrong usage or
an input file that cannot be used (one line on stderr: FILE:LINE:COLUMN: what); 130 interrupted;
141 the reader of standard output went away. Results go to stdout, progress and problems to stderr.
Colours only on a terminal, never with NO_COLOR set."""

MERGE_NAMES = {merge.name.lower().replace("_", "-"): merge for merge in Merge}

_DIGITS = re.compile(r"[0-9]{1,20}", re.ASCII)

Verbs = Any  # argparse's own type of add_subparsers() is private


class OutputError(Exception):
    """A result could not be written; the message names the file and why."""


def add_verb(verbs: Verbs, name: str, summary: str, description: str) -> argparse.ArgumentParser:
    """A verb's parser, with help that keeps line breaks and ends with the exit codes."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        name,
        help=summary,
        description=description,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


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
        "--until", type=_line_number, metavar="LINE", help="stop after this line of the file, counted from 1"
    )


def _whole_number(text: str) -> int:
    if not _DIGITS.fullmatch(text):
        raise argparse.ArgumentTypeError(f"expected a whole number, not {text!r}")
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
