"""``gpuvm sql``: ask a trace in SQL."""

from __future__ import annotations

import argparse
import sys

from gpuvm.cli.opening import open_trace
from gpuvm.cli.options import EXIT_OK, Verbs, add_verb

_DESCRIPTION = """\
Ask a trace, in either form, with one SELECT in SQLite's SQL; without one, print the tables and what their
columns are. Nothing can be changed. Ctrl-C ends a query that runs for too long.

Columns called addr, va, bo_offset, kernel_addr or something with _addr are printed in hexadecimal, and range
and va_len; --json and --csv have numbers as the tables have them. There are functions addr(x), 0x3fff06000;
size(x), 64 KiB; errno_name(x), ENOENT."""

_EXAMPLE = """\
gpuvm sql app.gpuvm "SELECT call, sum(took) FROM calls GROUP BY call"  # where the time went
gpuvm sql app.gpuvm "SELECT * FROM mappings WHERE born <= 9 AND ifnull(died, 10) > 9"  # after call 9
gpuvm sql app.gpuvm  # the tables"""


def add_parser(verbs: Verbs) -> None:
    """``gpuvm sql TRACE [QUERY]`` and its options."""
    parser = add_verb(verbs, "sql", "ask a trace in SQL", _DESCRIPTION, example=_EXAMPLE)
    parser.add_argument("trace", metavar="TRACE", help="the trace; - is stdin")
    parser.add_argument("query", metavar="QUERY", nargs="?", help="one SELECT, in quotes")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="rows as JSON objects, one a line")
    form.add_argument("--csv", action="store_true", help="rows as CSV, with a line of names")
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Print what the query finds."""
    from gpuvm.report.query import Query, schema_text, write_csv, write_json, write_table

    with open_trace(arguments.trace) as trace:
        if arguments.query is None:
            sys.stdout.write(schema_text())
            return EXIT_OK
        write = write_json if arguments.json else write_csv if arguments.csv else write_table
        with Query(trace, arguments.query) as query:
            write(query, sys.stdout)
    return EXIT_OK
