"""``gpuvm info``: what is in a trace."""

from __future__ import annotations

import argparse
import sys

from gpuvm.cli.opening import open_trace
from gpuvm.cli.options import EXIT_OK, Verbs, add_verb

_DESCRIPTION = """\
Say what is in a trace: on what device it was recorded, of which program and clients, which calls there are
and how long they took, which were refused and why, what was mapped, and what jobs, memory and page tables
did.

A row is left out where there is nothing to tell."""

_EXAMPLE = """\
gpuvm info app.gpuvm  # what is in it?"""


def add_parser(verbs: Verbs) -> None:
    """``gpuvm info TRACE``."""
    parser = add_verb(verbs, "info", "summarise a trace", _DESCRIPTION, example=_EXAMPLE)
    parser.add_argument("trace", metavar="TRACE", help="the trace; - is stdin")
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the summary."""
    from gpuvm.report.info import info_text

    with open_trace(arguments.trace) as trace:
        sys.stdout.write(info_text(trace))
    return EXIT_OK
