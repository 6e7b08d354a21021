"""``gpuvm export``: a trace for other programs."""

from __future__ import annotations

import argparse
import io
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, TextIO

from gpuvm.cli.destination import check_destination, writing
from gpuvm.cli.opening import open_trace
from gpuvm.cli.options import EXIT_OK, OutputError, Verbs, add_verb, note
from gpuvm.cli.progress import Progress
from gpuvm.trace.source import display_name

if TYPE_CHECKING:
    from gpuvm.trace.trace import Trace

_DESCRIPTION = """\
Write a trace in a form that other programs read.

perfetto  for https://ui.perfetto.dev and its trace processor: jobs and fences on Perfetto's own tracks
          of drm_sched and dma_fence, memory as vulkan_memory_event, and with them every call, counters
          of mapped bytes and of VRAM, evictions and faults
json      one document with every table; docs/trace.md says what the columns are
csv       a folder with a file for each table, or with --table that one alone; RFC 4180, addresses in
          hexadecimal

A trace of JSON Lines has no times of jobs, fences and moves; then their tracks and tables are empty."""

_EXAMPLE = """\
gpuvm export app.gpuvm --format perfetto -o app.pftrace  # open it at https://ui.perfetto.dev
gpuvm export app.gpuvm --format json -o app.json  # all tables
gpuvm export app.gpuvm --format csv --table mappings -o -  # one table, to standard output"""


def add_parser(verbs: Verbs) -> None:
    """``gpuvm export TRACE --format FORMAT [--table NAME] -o OUT [-f]``."""
    parser = add_verb(
        verbs, "export", "write a trace as Perfetto's, JSON or CSV", _DESCRIPTION, example=_EXAMPLE
    )
    parser.add_argument("trace", metavar="TRACE", help="an SQLite or JSON Lines trace; - is stdin")
    parser.add_argument("--format", required=True, choices=("perfetto", "json", "csv"), help="which")
    parser.add_argument("--table", metavar="NAME", help="csv: this table alone")
    parser.add_argument(
        "-o", "--output", required=True, metavar="OUT", help="file, csv without --table: folder; - is stdout"
    )
    parser.add_argument("-f", "--force", action="store_true", help="overwrite what is there")
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Open, write, say what to do with it."""
    _check_usage(arguments)
    with open_trace(arguments.trace) as trace:
        {"perfetto": _perfetto, "json": _json, "csv": _csv}[arguments.format](trace, arguments)
    return EXIT_OK


def _check_usage(arguments: argparse.Namespace) -> None:
    if arguments.table is not None and arguments.format != "csv":
        arguments.parser.error(f"--table is of csv; {arguments.format} has all tables in one file")
    folder = arguments.format == "csv" and arguments.table is None
    if arguments.output != "-":
        if folder:
            _check_folder(arguments.output, force=arguments.force)
        else:
            check_destination(arguments.output, force=arguments.force, source=arguments.trace)
    elif folder:
        arguments.parser.error("csv is a file for each table: -o FOLDER, or --table NAME for one alone")
    elif arguments.format == "perfetto" and sys.stdout.isatty():
        arguments.parser.error("a Perfetto trace is nothing for a terminal; -o app.pftrace writes a file")


def _perfetto(trace: Trace, arguments: argparse.Namespace) -> None:
    from gpuvm.trace.perfetto import write_perfetto

    with _shown(trace) as progress, _output(arguments) as out:
        packets = write_perfetto(trace, out, progress)
    _tell(
        arguments, f"{packets:,} packets; open it at https://ui.perfetto.dev, where it stays on your machine"
    )


def _json(trace: Trace, arguments: argparse.Namespace) -> None:
    from gpuvm.trace.export import write_json

    with _shown(trace) as progress, _text(arguments) as out:
        write_json(trace, out, lambda table, done: progress(done))
    _tell(arguments, f"next: jq '.calls[0]' {shlex.quote(arguments.output)}")


def _csv(trace: Trace, arguments: argparse.Namespace) -> None:
    from gpuvm.trace.export import tables, write_csv

    known = tables(trace)
    if arguments.table is not None and arguments.table not in known:
        arguments.parser.error(f"no table {arguments.table[:40]!r}; there are {', '.join(known)}")
    if arguments.table is not None:
        with _text(arguments) as out:
            write_csv(trace, arguments.table, out)
        return
    _make_folder(arguments.output)
    for table in known:
        path = os.path.join(arguments.output, f"{table}.csv")
        with writing(path, force=arguments.force) as raw, _as_text(raw) as out:
            write_csv(trace, table, out)
    _tell(arguments, f"{len(known)} tables")


# -- where to


def _check_folder(path: str, *, force: bool) -> None:
    if os.path.exists(path) and not os.path.isdir(path):
        raise OutputError(
            f"{display_name(path)}: is no folder; without --table there is a file for each table"
        )
    if os.path.isdir(path) and not force:
        raise OutputError(f"{display_name(path)}: exists already; --force overwrites what is in it")


def _make_folder(path: str) -> None:
    try:
        os.makedirs(path, exist_ok=True)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a file name"
        raise OutputError(f"cannot make {display_name(path)}: {reason}") from None


@contextmanager
def _output(arguments: argparse.Namespace) -> Iterator[BinaryIO]:
    if arguments.output == "-":
        yield sys.stdout.buffer
        return
    with writing(arguments.output, force=arguments.force) as out:
        yield out


@contextmanager
def _text(arguments: argparse.Namespace) -> Iterator[TextIO]:
    with _output(arguments) as raw, _as_text(raw) as out:
        yield out


@contextmanager
def _as_text(raw: BinaryIO) -> Iterator[TextIO]:
    """Lines end as they are written, on a file that stays open."""
    text = io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", newline="")
    try:
        yield text
        text.flush()
    finally:
        text.detach()


@contextmanager
def _shown(trace: Trace) -> Iterator[Callable[[int], None]]:
    """Progress in calls."""
    calls = trace.last_call()
    with Progress(f"export {trace.name}", calls) as progress:
        yield lambda done: progress.update(done, done)


def _tell(arguments: argparse.Namespace, what: str) -> None:
    if arguments.output != "-":
        note(f"written: {display_name(arguments.output)}, {what}")
