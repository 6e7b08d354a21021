"""``gpuvm show``: one address space as a picture and as the kernel's table."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys

from gpuvm.cli.destination import check_destination, write_text
from gpuvm.cli.options import EXIT_OK, Verbs, add_client, add_until, add_verb, note
from gpuvm.cli.streams import open_stream
from gpuvm.report.gpuvas import space_document
from gpuvm.trace.snapshot import Snapshot, object_number, take_snapshot
from gpuvm.va import GpuvaManager
from gpuvm.va.gpuvas import gpuvas_lines

_DESCRIPTION = """\
Draw an address space, as it is after a line of a trace or of a request file.

The picture is an SVG file: holes compressed, one colour an object, sparse regions hatched, the kernel's
node marked; where there are more mappings than pixels they are drawn together and the picture says so.
Standard output gets the table that kernels print as debugfs "gpuvas", column for column; an object is
its handle. A trace with several clients shows the one with the most requests unless --client says."""

_EXAMPLE = """\
gpuvm show app.jsonl -o app.svg  # the space at the end
gpuvm show app.jsonl --until 60 -f -o app.svg  # after line 60"""


def add_parser(verbs: Verbs) -> None:
    """``gpuvm show FILE [--until LINE] [--client N] [-o OUT.svg] [-f] [--json]``."""
    parser = add_verb(
        verbs, "show", "draw an address space, print its gpuvas table", _DESCRIPTION, example=_EXAMPLE
    )
    parser.add_argument("file", metavar="FILE", help="a trace or a request file; - is stdin")
    add_client(parser, "whose space")
    add_until(parser)
    parser.add_argument("-o", "--output", metavar="OUT.svg", help="picture (default: gpuvm-show-FILE.svg)")
    parser.add_argument("--json", action="store_true", help="the space as one JSON object, not as a table")
    parser.add_argument("-f", "--force", action="store_true", help="overwrite an existing picture")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Replay up to the line, write the picture, print the table."""
    from gpuvm.report.picture import picture

    output = arguments.output or _default_output(arguments.file)
    check_destination(output, force=arguments.force, source=arguments.file)
    with open_stream(arguments.file, "replay", arguments.until) as stream:
        space = take_snapshot(stream, client=arguments.client)
    word = "bo" if space.client is None else "handle"
    title = f"{os.path.basename(space.name)}{space.title.removeprefix(space.name)}"
    svg = picture(space.vm, title, object_number, object_word=word)
    write_text(output, svg, force=arguments.force)
    # A pager or head may end the program before the table does; on a terminal the last lines are seen best.
    last = sys.stdout.isatty()
    if not last:
        _tell(arguments, space, output)
    if arguments.json:
        print(json.dumps(space_document(space), separators=(",", ":")))
    else:
        for line in gpuvas_lines(space.vm, object_number):
            sys.stdout.write(line + "\n")
    sys.stdout.flush()
    if last:
        _tell(arguments, space, output)
    return EXIT_OK


def _tell(arguments: argparse.Namespace, space: Snapshot, output: str) -> None:
    """Which space, where the picture is, what to try next."""
    others = [str(client) for client in space.clients if client != space.client]
    if others and arguments.client is None:
        note(f"client {space.client} is shown; --client shows {', '.join(others)}")
    note(f"picture: {output}")
    where = f"{shlex.quote(arguments.file)} --until {space.line}"
    note(f'next: gpuvm explain "{_example(space.vm)}" --on {where}')


def _default_output(path: str) -> str:
    stem = os.path.basename(path) if path != "-" else "stdin"
    for ending in (".gz", ".jsonl", ".txt", ".gpuvm"):
        stem = stem.removesuffix(ending)
    return f"gpuvm-show-{stem}.svg"


def _example(vm: GpuvaManager) -> str:
    """A request to try `gpuvm explain` with: it cuts the middle out of the largest mapping."""
    largest = max((va for va in vm.mappings() if not va.kernel), key=lambda va: va.range, default=None)
    if largest is not None:
        quarter = max(largest.range // 4, 1)
        return f"unmap {largest.addr + quarter:#x} {quarter:#x}"
    size = min(vm.statistics().largest_hole, 0x1000)
    return f"map {vm.find_gap(size):#x} {size:#x}" if size else f"prefetch {vm.start:#x} 1"
