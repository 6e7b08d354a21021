"""``gpuvm trim``: a smaller trace that can still be replayed."""

from __future__ import annotations

import argparse

from gpuvm.cli.destination import check_destination, writing
from gpuvm.cli.opening import open_trace
from gpuvm.cli.options import EXIT_OK, Verbs, add_calls, add_client, add_verb, note
from gpuvm.cli.progress import Progress

_DESCRIPTION = """\
Write a part of a trace that can be replayed alone, with the results that it had: the calls that were asked
for, and of the earlier ones those without which these could not be made as they were. Such are those that
made what is used or mapped later, and put fences in that are waited for later, and the ends of what they
made.

Calls are kept whole or left out, and their order stays. But those that were not asked for wait for nothing
that is left out. In an SQLite trace calls keep their numbers, and what was recorded of how they were carried
out: times, accesses, page tables, faults. OUT is JSON Lines if it is called something.jsonl, and SQLite if
not."""

_EXAMPLE = """\
gpuvm trim app.gpuvm -o small.gpuvm --calls 100-110  # these calls, and what they need
gpuvm trim app.gpuvm -o one.jsonl --client 2  # one client, as text"""


def add_parser(verbs: Verbs) -> None:
    """``gpuvm trim TRACE -o OUT`` and its options."""
    parser = add_verb(verbs, "trim", "write a part of a trace", _DESCRIPTION, example=_EXAMPLE)
    parser.add_argument("trace", metavar="TRACE", help="the trace; - is stdin")
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="the trace to write")
    parser.add_argument("-f", "--force", action="store_true", help="overwrite OUT")
    add_calls(parser, "these calls, and what they need: 100-200, 0-200, 100-")
    add_client(parser, "the calls of this client, and what they need")
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Write OUT, and say on stderr what is in it."""
    from gpuvm.trace.recording import LINES
    from gpuvm.trace.trim import trim, write_json_lines, write_sqlite

    check_destination(arguments.output, force=arguments.force, source=arguments.trace)
    first, last = arguments.calls
    with open_trace(arguments.trace) as trace, writing(arguments.output, force=arguments.force) as file:
        with Progress(f"trim {trace.name}", last or trace.last_call()) as progress:
            trimmed = trim(trace, first=first, last=last, client=arguments.client, progress=progress.update)
        if arguments.output.endswith(LINES):
            write_json_lines(trimmed, file)
        else:
            write_sqlite(trimmed, file)
        (calls,) = trace.db.execute("SELECT count(*) FROM calls").fetchone()
        needed = len(trimmed.calls) - trimmed.asked
        note(
            f"{arguments.output}: {len(trimmed.calls):,} of {calls:,} calls, {trimmed.asked:,} asked for and "
            f"{needed:,} that they need"
        )
    return EXIT_OK
