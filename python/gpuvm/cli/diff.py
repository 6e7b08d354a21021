"""``gpuvm diff``: what is not alike about two traces."""

from __future__ import annotations

import argparse
import json
import sys

from gpuvm.cli.opening import open_trace
from gpuvm.cli.options import EXIT_OK, EXIT_REFUSED, Verbs, add_verb, coloured
from gpuvm.cli.progress import Progress

_DESCRIPTION = """\
Compare two traces, in either form, and tell the first difference, some more, and how many there are by call.

The first open of the device in A is compared with the first in B, and so on. Calls are matched by their
names and arguments; handles, channels and file descriptors by the calls that made them, not by their
numbers. How the calls of several clients are interleaved is no difference, nor is when they came.

Alike are calls with the same arguments and results, for which the manager emitted the same ops. The exit code
is 0 if all are, and 1 if not."""

_EXAMPLE = """\
gpuvm diff old.gpuvm app.gpuvm  # did the driver ask for the same?
gpuvm diff old.gpuvm app.gpuvm --json  # every difference, by the numbers of the calls"""


def add_parser(verbs: Verbs) -> None:
    """``gpuvm diff A B`` and its options."""
    parser = add_verb(verbs, "diff", "compare two traces", _DESCRIPTION, example=_EXAMPLE)
    parser.add_argument("a", metavar="A", help="a trace; - is stdin")
    parser.add_argument("b", metavar="B", help="the other one")
    parser.add_argument("--json", action="store_true", help="counts and all differences as JSON")
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Compare them; the exit code is 1 if they differ."""
    from gpuvm.report.diff import diff_json, diff_text
    from gpuvm.trace.diff import diff_traces

    if arguments.a == arguments.b == "-":
        arguments.parser.error("A and B are both standard input; name a file for one of them")
    with open_trace(arguments.a) as a, open_trace(arguments.b) as b:
        with Progress("compare", a.last_call() + b.last_call()) as progress:
            diff = diff_traces(a, b, progress=progress.update)
        if arguments.json:
            print(json.dumps(diff_json(a, b, diff), separators=(",", ":")))
        else:
            sys.stdout.write(diff_text(a, b, diff, colour=coloured(sys.stdout)))
    return EXIT_REFUSED if diff.changes else EXIT_OK
