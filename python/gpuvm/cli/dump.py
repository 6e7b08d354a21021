"""``gpuvm dump``: the calls of a trace in lines."""

from __future__ import annotations

import argparse
import sys

from gpuvm.cli.opening import open_trace
from gpuvm.cli.options import EXIT_OK, Verbs, add_calls, add_client, add_verb, note

_DESCRIPTION = """\
Print the calls of a trace as strace would if it knew DRM: a line for each, in the order in which they took
effect, with its number, its client, what it was about and what it returned.

Fields have the names of the uAPI, flags are named, and those that are 0 by default are left out. Behind a
handle stands in <> what it named then: an object or a sync object, by the call that made it, which is its id
in every other verb. A sync object's point is behind a colon, what the call gave back behind =>. fd is a
number of the file that was passed, the same in every process, and not the descriptor.

A trace that is still being recorded is printed as far as it is."""

_EXAMPLE = """\
gpuvm dump app.gpuvm --calls 0-100  # the first calls
gpuvm dump app.gpuvm --failed  # those that were refused
gpuvm dump app.gpuvm --call vm_bind --ops --times  # binds, what became of them, and when"""


def add_parser(verbs: Verbs) -> None:
    """``gpuvm dump TRACE`` and its options."""
    parser = add_verb(verbs, "dump", "print a trace's calls, a line each", _DESCRIPTION, example=_EXAMPLE)
    parser.add_argument("trace", metavar="TRACE", help="the trace; - is stdin")
    add_calls(parser, "these calls alone: 57, 0-100, 57-")
    add_client(parser, "the calls of this client alone")
    parser.add_argument(
        "--call",
        action="append",
        default=[],
        metavar="NAME",
        help="calls of this name alone; may be repeated",
    )
    parser.add_argument("--failed", action="store_true", help="calls alone that were refused")
    parser.add_argument(
        "--times", action="store_true", help="when each began, and in <> how long it took, in seconds"
    )
    parser.add_argument("--ops", action="store_true", help="below each bind, what the manager emitted for it")
    parser.add_argument("--full", action="store_true", help="long lists to their end")
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the calls, or on stderr that there are none."""
    from gpuvm.report.dump import Selection, dump_lines
    from gpuvm.trace.call_numbers import NUMBERS

    names = [name.lower() for name in arguments.call]
    for name in names:
        if name not in NUMBERS:
            arguments.parser.error(
                f"unknown call {name[:40]!r}: expected one of {', '.join(sorted(NUMBERS))}"
            )
    first, last = arguments.calls
    with open_trace(arguments.trace) as trace:
        if arguments.client is not None:
            trace.clients_of(arguments.client)
        which = Selection(first, last, arguments.client, names, arguments.failed)
        told = False
        for line in dump_lines(trace, which, times=arguments.times, ops=arguments.ops, full=arguments.full):
            sys.stdout.write(line + "\n")
            told = True
        if not told:
            note(f"gpuvm: no such call in {trace.name}: the last one is {trace.last_call()}")
    return EXIT_OK
