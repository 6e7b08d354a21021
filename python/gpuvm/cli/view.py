"""``gpuvm view``: a trace as a page that one looks around in."""

from __future__ import annotations

import argparse
import os

from gpuvm.cli.destination import check_destination, write_text
from gpuvm.cli.opening import open_trace
from gpuvm.cli.options import EXIT_OK, Verbs, add_client, add_verb, note
from gpuvm.trace.source import display_name

_DESCRIPTION = """\
Write a page that shows a trace: address spaces against time, to zoom and point at, with jobs, moves, faults,
tables and a search by address.

The page is one file that opens in any browser, from 2023 on, without a network: it loads nothing.
docs/viewer.md tells how to read it."""

_EXAMPLE = """\
gpuvm view app.gpuvm -o app.html  # then open app.html in a browser
gpuvm view app.gpuvm -o app.html -f --client 1  # one client alone, overwriting"""


def add_parser(verbs: Verbs) -> None:
    """``gpuvm view TRACE -o OUT.html [-f] [--client N]``."""
    parser = add_verb(
        verbs, "view", "a trace as a page: address space against time", _DESCRIPTION, example=_EXAMPLE
    )
    parser.add_argument("trace", metavar="TRACE", help="a trace; - is stdin")
    parser.add_argument("-o", "--output", metavar="OUT.html", required=True, help="the page")
    parser.add_argument("-f", "--force", action="store_true", help="overwrite an existing page")
    add_client(parser, "only this one")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Read the trace, write the page."""
    from gpuvm.report.page import page  # NumPy is slow to load
    from gpuvm.report.sizes import size_text

    check_destination(arguments.output, force=arguments.force, source=arguments.trace)
    with open_trace(arguments.trace) as trace:
        text = page(trace, client=arguments.client)
    write_text(arguments.output, text, force=arguments.force)
    size = size_text(os.path.getsize(arguments.output))
    note(f"written: {display_name(arguments.output)}, {size}; open it in a browser")
    return EXIT_OK
